"""blocks.csv takes the place of the photos' names, in the index, in splits and in what is resampled."""

from pathlib import Path

import pytest

from salakseg.classes import SALAK
from salakseg.data.blocks import read_blocks, write_blocks
from salakseg.data.patches import Photo, index_patches
from salakseg.data.splits import SplitPlan, flight_places, make_split
from salakseg.data.survey import Survey
from salakseg.errors import DataError
from salakseg.evaluate.units import units_of


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"Kebun 1/images/peta, utara_patch_000_{col:03d}.png" for col in range(4)))
    touch(tmp_path, "Kebun 1/images/DJI_0001_patch_000_000.png", "Kebun 1/masks/peta, utara_patch_000_000.png")
    return tmp_path


def test_a_block_takes_the_photos_place(root: Path) -> None:
    rows = [("Kebun 1", f"peta, utara_patch_000_{col:03d}", f"peta, utara.00{col // 2}_é") for col in range(3)]
    write_blocks(root / "blocks.csv", [*rows, ("Kebun 1", "gone_patch_000_000", "gone.000_000"), ("f", "x", "y")])
    index = index_patches(root)
    assert [patch.photo for patch in index.patches] == [
        "DJI_0001", "peta, utara.000_é", "peta, utara.000_é", "peta, utara.001_é", "peta, utara",
    ]  # fmt: skip
    # Lines of patches that are gone are no blocks of the index
    assert index.ground_blocks == {Photo("Kebun 1", "peta, utara.000_é"), Photo("Kebun 1", "peta, utara.001_é")}
    assert not any(patch.is_whole_photo for patch in index.patches)
    by_name = index_patches(root, use_blocks=False)
    assert {patch.photo for patch in by_name.patches} == {"DJI_0001", "peta, utara"}
    assert by_name.ground_blocks == frozenset()


def test_blocks_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    write_blocks(path, [("", "a", "b.000_000"), ("f", 'say "x"', "b.000_001.gap")])
    assert read_blocks(path) == {"": {"a": "b.000_000"}, "f": {'say "x"': "b.000_001.gap"}}
    assert [file.name for file in tmp_path.iterdir()] == ["blocks.csv"]


def test_other_columns_a_byte_order_mark_and_the_same_line_twice_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    path.write_text("\ufeffblock,note,patch,folder\nb,,a,f\nb,x,a,f\n\n", encoding="utf-8")
    assert read_blocks(path) == {"f": {"a": "b"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'folder'"),
        (b"folder,photo,block\nf,a,b\n", "no column 'patch'"),
        (b"folder,patch,block\nf,a\n", "line 2: folder, patch and block are wanted"),
        (b"folder,patch,block\nf,a,b\nf,,b\n", "line 3: folder, patch and block are wanted"),
        (b"folder,patch,block\nf,a,b\nf,a,c\n", "line 3: patch 'a' is in two blocks, 'b' and 'c'"),
        (b"folder,patch,block\nf,\xff\xfe,b\n", "cannot be read as a CSV file"),
    ],
)
def test_a_damaged_file_is_named(root: Path, content: bytes, message: str) -> None:
    (root / "blocks.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        index_patches(root)
    assert str(root / "blocks.csv") in str(error.value)


def test_no_split_is_guessed_from_the_names_of_blocks(root: Path) -> None:
    write_blocks(root / "blocks.csv", [("Kebun 1", "peta, utara_patch_000_000", "peta.000_000")])
    with pytest.raises(DataError, match=r"has blocks.csv but no split to go with it; run: salakseg splits make"):
        make_split(index_patches(root), Survey({}), SALAK, SplitPlan())


def test_a_block_of_ground_is_resampled_by_itself() -> None:
    ground = [Photo("a", "site.000_001"), Photo("a", "site.000_002"), Photo("a", "site.000_003")]
    flown = [Photo("a", "DJI_0001"), Photo("a", "DJI_0002"), Photo("a", "DJI_0009")]
    assert units_of(ground, "block", 3, flight_places(ground)) == [0, 0, 0]  # what the numbers in the names would say
    assert units_of(ground, "block", 3, {}, frozenset(ground)) == [0, 1, 2]
    assert units_of([*flown, *ground], "block", 3, flight_places(flown), frozenset(ground)) == [0, 0, 1, 2, 3, 4]
    assert units_of(ground, "folder", 3, {}, frozenset(ground)) == [0, 0, 0]


def test_the_same_ground_in_two_folders_is_one_unit() -> None:
    twice = [Photo("2023", "site.000_001"), Photo("2024", "site.000_001"), Photo("2024", "site.000_002")]
    assert units_of(twice, "block", 3, {}, frozenset(twice)) == [0, 0, 1]
