from pathlib import Path

import pytest

from salakseg.data.patches import Patch, Photo, count_by_folder, index_patches, list_patches, natural_key
from salakseg.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_field_layout(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "salak-1-10/images/DJI_0462_patch_013_000.png",
        "salak-1-2/images/DJI_0462_patch_013_000.png",
        "salak-1-2/images/DJI_0462_patch_013_001.png",
        "salak-1-2/masks/DJI_0462_patch_013_001.png",
        "salak-1-2/images/Thumbs.db",
        "salak-1-2/images/._DJI_0462_patch_013_001.png",
        "notes/readme.txt",
    )
    index = index_patches(tmp_path)
    assert index.patches == (
        Patch("salak-1-2", "DJI_0462_patch_013_000.png", None, "DJI_0462"),
        Patch("salak-1-2", "DJI_0462_patch_013_001.png", "DJI_0462_patch_013_001.png", "DJI_0462"),
        Patch("salak-1-10", "DJI_0462_patch_013_000.png", None, "DJI_0462"),
    )
    assert set(index.photos()) == {Photo("salak-1-2", "DJI_0462"), Photo("salak-1-10", "DJI_0462")}
    assert count_by_folder(index.patches) == {"salak-1-2": (1, 2), "salak-1-10": (0, 1)}
    assert index.image_path(index.patches[1]).is_file()
    assert index.mask_path(index.patches[1]).is_file()
    with pytest.raises(ValueError, match="unlabelled"):
        index.mask_path(index.patches[0])


def test_the_plain_layout_with_other_names_and_extensions(tmp_path: Path) -> None:
    touch(tmp_path, "images/image_part_001.jpg", "images/b.TIF", "masks/image_part_001.png", "masks/b.tif")
    index = index_patches(tmp_path)
    assert [(p.photo, p.mask) for p in index.patches] == [("b", "b.tif"), ("image_part_001", "image_part_001.png")]
    assert index.labelled_count == 2


def test_folder_names_with_a_space_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Tile {n}/images/a.png" for n in (10, 9, 1)))
    assert [p.folder for p in index_patches(tmp_path).patches] == ["Tile 1", "Tile 9", "Tile 10"]
    assert sorted(["a10", "a9", "b", "a"], key=natural_key) == ["a", "a9", "a10", "b"]
    assert sorted(["5²", "5", "²", "٣"], key=natural_key) == ["٣", "5", "5²", "²"]


def test_masks_without_a_picture_are_left_out_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "f/images/a.png", "f/masks/a.png", "f/masks/gone.png")
    assert index_patches(tmp_path).orphan_masks == (str(Path("f/masks/gone.png")),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no folder 'images'"),
        (("f/pictures/a.png",), "no folder 'images'"),
        (("f/images/readme.txt",), "holds no pictures"),
        (("f/images/a.png", "f/images/a.jpg"), "both a.jpg and a.png"),
        (("f/images/a.png", "f/masks/a.jpg"), "JPEG mask"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message) as error:
        index_patches(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_problems_are_listed_beside_what_can_be_used(tmp_path: Path) -> None:
    touch(tmp_path, "f/images/a.png", "f/images/a.jpg", "f/images/b.png", "f/masks/b.jpg", "f/masks/b.png")
    index, problems = list_patches(tmp_path)
    assert [(patch.image, patch.mask) for patch in index.patches] == [("a.jpg", None), ("b.png", "b.png")]
    assert [(problem.kind, Path(problem.path).as_posix()) for problem in problems] == [
        ("jpeg-mask", "f/masks/b.jpg"),
        ("doubled-stem", "f/images/a.png"),
    ]
    with pytest.raises(DataError) as error:
        index_patches(tmp_path)
    assert str(error.value) == problems[0].message


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data-root"):
        index_patches(tmp_path / "nowhere")


def test_nothing_is_decoded(tmp_path: Path) -> None:
    touch(tmp_path, "f/images/not_a_picture.png", "f/masks/not_a_picture.png")  # empty files would fail to decode
    assert index_patches(tmp_path).labelled_count == 1
