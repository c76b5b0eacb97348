"""`salakseg splits make|show` on prepared mosaics and on photos with GPS."""

import csv
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from helpers import TINY, command
from mosaics import nearest, polygons, write_gpkg, write_mosaic, write_photo
from PIL import Image

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.spatial import SpatialPlan
from salakseg.data.splits import Role, read_split
from salakseg.errors import DataError
from salakseg.prepare.parts.footprints import write_parts
from salakseg.prepare.parts.splitting import By, SplitRequest, known_ground, make_parts, uses_of_patches

UTM = "EPSG:32749"
METRES = Affine.translation(430_000, 9_170_000) @ Affine.scale(0.05, -0.05)
PATCH_M = 1.6

USED = ("labelled", "unlabelled")


def prepared(root: Path, crs: str = UTM, transform: Affine = METRES, **options: Any) -> Path:
    """A mosaic of 20 x 20 patches."""
    write_gpkg(root, write_mosaic(root, "kebun", "peta", transform, 20, 20, **options), crs)
    return root


def square(**changes: Any) -> SplitRequest:
    return SplitRequest(spatial=SpatialPlan(**changes))


def parts_of(root: Path, crs: str = UTM) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for _, _, split, polygon in polygons(root / "patches.gpkg", crs):
        found.setdefault(split, []).append(polygon)
    return found


def assert_apart(root: Path, metres: float, crs: str = UTM) -> None:
    parts = parts_of(root, crs)
    trained = [polygon for role in USED for polygon in parts.get(role, [])]
    assert nearest(trained, parts["val"]) >= metres
    assert nearest(trained, parts["test"]) >= metres
    assert nearest(parts["val"], parts["test"]) >= metres


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, METRES),
        (UTM, METRES @ Affine.rotation(33)),
        ("EPSG:4326", Affine.translation(110.4, -7.6) @ Affine.scale(0.45e-6, -0.45e-6)),
        ("EPSG:3857", Affine.translation(12_290_000, -850_000) @ Affine.scale(0.05, -0.05)),
        ("EPSG:4326", Affine.translation(179.99999, -17) @ Affine.scale(0.45e-6, -0.45e-6)),
    ],
    ids=["utm", "rotated", "degrees", "mercator", "antimeridian"],
)
def test_a_mosaic_is_divided_and_the_parts_stay_a_patch_apart(tmp_path: Path, crs: str, transform: Affine) -> None:
    root = prepared(tmp_path, crs, transform, labelled=0.5)
    made = make_parts(root, SALAK, SplitRequest())
    assert made.by == "square"
    assert made.division is not None
    index = index_patches(root)
    assert index.patches == made.index.patches
    assert index.ground_blocks == set(index.photos())
    assert read_split(root / "splits.csv", index).roles == made.split.roles
    metric = {"EPSG:3857": UTM, "EPSG:4326": "EPSG:32760" if transform.c > 179 else UTM}.get(crs, crs)
    assert_apart(root, made.division.buffer_m - 0.01, metric)
    for role in (Role.LABELLED, Role.VAL, Role.TEST):
        assert made.split.patches(index, role)
    assert made.split.missing == ()
    written = {(folder, image): split for folder, image, split, _ in polygons(root / "patches.gpkg", metric)}
    uses = uses_of_patches(index, made.split)
    assert written == {(p.folder, p.image): use.value for p, use in zip(index.patches, uses, strict=True)}


def test_mosaics_of_the_same_ground_in_two_folders(tmp_path: Path) -> None:
    rows = write_mosaic(tmp_path, "2023", "lama", METRES, 20, 20, stride=20)
    shifted = METRES @ Affine.translation(14, 10) @ Affine.rotation(10)
    rows += write_mosaic(tmp_path, "2024", "baru", shifted, 16, 16, labelled=0.0)
    write_gpkg(tmp_path, rows, UTM)
    made = make_parts(tmp_path, SALAK, square(buffer_m=1.6))
    assert_apart(tmp_path, 1.6 - 0.001)
    names = {photo.name for photo in made.split.roles}
    both = [name for name in names if sum(photo.name == name for photo in made.split.roles) == 2]
    assert both  # a block of ground has one name, whatever shows it


def test_sites_far_apart_have_planes_of_their_own(tmp_path: Path) -> None:
    rows = write_mosaic(tmp_path, "a", "africa", Affine(0.45e-6, 0, -1.0, 0, -0.45e-6, 6.0), 12, 12)
    rows += write_mosaic(tmp_path, "b", "borneo", Affine(0.45e-6, 0, 115.0, 0, -0.45e-6, -1.0), 12, 12)
    write_gpkg(tmp_path, rows, "EPSG:4326")
    made = make_parts(tmp_path, SALAK, SplitRequest())
    assert made.ground is not None and set(made.ground.epsg_S) == {32630, 32750}
    box_N4 = made.ground.box_N4
    assert (box_N4[:, 2] - box_N4[:, 0]).max() < 1.02 * PATCH_M


def test_the_same_again_changes_nothing_and_another_grid_has_other_names(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    request = SplitRequest(overwrite=True)
    make_parts(root, SALAK, request)
    files = ["splits.csv", "blocks.csv", "patches.gpkg"]
    before = [(root / name).read_bytes() for name in files]
    names = {photo.name for photo in index_patches(root).photos()}
    make_parts(root, SALAK, request)
    assert [(root / name).read_bytes() for name in files] == before
    made = make_parts(root, SALAK, SplitRequest(overwrite=True, spatial=SpatialPlan(block_m=3.3)))
    assert not names & {photo.name for photo in made.split.roles}
    assert {file.name for file in root.iterdir()} == {*files, "kebun"}


def test_what_else_is_in_the_geopackage_stays(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    with sqlite3.connect(root / "patches.gpkg") as connection:
        connection.execute("CREATE TABLE layer_styles (name TEXT)")
        connection.execute("INSERT INTO layer_styles VALUES ('mine')")
    connection.close()
    make_parts(root, SALAK, SplitRequest())
    with sqlite3.connect(root / "patches.gpkg") as connection:
        assert connection.execute("SELECT name FROM layer_styles").fetchall() == [("mine",)]
    connection.close()
    frame = pyogrio.read_dataframe(root / "patches.gpkg", layer="patches")
    assert list(frame.columns[:8]) == ["folder", "image", "source", "row", "col", "split", "valid", "labelled"]
    found = pyogrio.read_dataframe(root / "patches.gpkg", bbox=tuple(frame.total_bounds))  # the spatial index
    assert len(found) == 400


def test_changes_that_another_program_has_not_put_into_the_file_yet_are_kept(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    path = root / "patches.gpkg"
    with closing(sqlite3.connect(path)) as other:  # as QGIS has it open
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE notes (word TEXT)")
        other.execute("INSERT INTO notes VALUES ('mine')")
        other.commit()
        assert path.with_name("patches.gpkg-wal").stat().st_size > 0
        make_parts(root, SALAK, SplitRequest())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT word FROM notes").fetchall() == [("mine",)]
        assert connection.execute("SELECT count(*) FROM patches WHERE split = ''").fetchone() == (0,)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    (root / "blocks.csv").mkdir()
    with pytest.raises(DataError, match="cannot take the split"):
        make_parts(root, SALAK, SplitRequest(overwrite=True))
    assert not (root / "splits.csv").exists()
    (root / "patches.gpkg").write_bytes(b"no GeoPackage at all, but something else")
    with pytest.raises(DataError, match=r"patches.gpkg cannot be written \(file is not a database\)"):
        write_parts(root / "patches.gpkg", index_patches(root, use_blocks=False), ["val"] * 400)
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_by_folder_or_number_there_are_no_blocks_any_more(tmp_path: Path) -> None:
    rows = [row for name in "abc" for row in write_mosaic(tmp_path, name, f"peta{name}", METRES, 12, 12)]
    write_gpkg(tmp_path, rows, UTM)
    make_parts(tmp_path, SALAK, SplitRequest())
    made = make_parts(tmp_path, SALAK, SplitRequest(by="folder", overwrite=True))
    assert not (tmp_path / "blocks.csv").exists()
    assert {photo.name for photo in made.split.roles} == {"petaa", "petab", "petac"}
    assert read_split(tmp_path / "splits.csv", index_patches(tmp_path)).roles == made.split.roles
    assert set(parts_of(tmp_path)) == {"labelled", "val", "test"}


# ---- what is refused


def test_a_split_that_is_there_is_kept(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    make_parts(root, SALAK, SplitRequest())
    before = (root / "splits.csv").read_bytes()
    with pytest.raises(DataError, match=r"splits.csv exists, .* replace it with --overwrite"):
        make_parts(root, SALAK, SplitRequest(spatial=SpatialPlan(seed=9)))
    assert (root / "splits.csv").read_bytes() == before
    (root / "splits.csv").unlink()
    with pytest.raises(DataError, match=r"blocks.csv exists"):
        make_parts(root, SALAK, SplitRequest())


def test_a_search_that_fails_leaves_the_old_split(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    make_parts(root, SALAK, SplitRequest())
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    with pytest.raises(DataError, match=r"too small or too scattered .* with 30 m between them; set --test-share 0"):
        make_parts(root, SALAK, SplitRequest(overwrite=True, spatial=SpatialPlan(buffer_m=30)))
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == before


def test_a_patch_without_a_place_is_named(tmp_path: Path) -> None:
    rows = write_mosaic(tmp_path, "kebun", "peta", METRES, 12, 12)
    write_gpkg(tmp_path, rows[1:], UTM)
    with pytest.raises(DataError, match=r"places of 1 of 144 patches are not known, the first is kebun.*_000_000.png"):
        make_parts(tmp_path, SALAK, SplitRequest())
    index = index_patches(tmp_path)
    assert known_ground(index) is None
    photo = write_photo(tmp_path / "photos" / "peta.jpg", 110.365, -7.508, focal=24)
    assert photo.is_file()
    made = make_parts(tmp_path, SALAK, SplitRequest(photos=tmp_path / "photos", footprint_m=1.0))
    assert made.ground is not None
    assert made.ground.source_N.count("photos") == 1


def nothing_labelled(root: Path) -> None:
    write_gpkg(root, write_mosaic(root, "kebun", "peta", METRES, 4, 4, labelled=0), UTM)


def no_crs(root: Path) -> None:
    write_gpkg(root, write_mosaic(root, "kebun", "peta", METRES, 4, 4), None)


def local_crs(root: Path) -> None:
    write_gpkg(root, write_mosaic(root, "kebun", "peta", METRES, 4, 4), 'LOCAL_CS["field",UNIT["metre",1]]')


def twice(root: Path) -> None:
    rows = write_mosaic(root, "kebun", "peta", METRES, 4, 4)
    write_gpkg(root, [*rows, rows[3]], UTM)


def other_columns(root: Path) -> None:
    rows = write_mosaic(root, "kebun", "peta", METRES, 4, 4)
    write_gpkg(root, [{key: row[key] for key in ("folder", "image", "geometry")} for row in rows], UTM)


def truncated(root: Path) -> None:
    no_crs(root)
    path = root / "patches.gpkg"
    path.write_bytes(path.read_bytes()[:5000])


def beyond_the_earth(root: Path) -> None:
    write_gpkg(root, write_mosaic(root, "kebun", "peta", METRES, 4, 4), "EPSG:4326")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nothing_labelled, "has no labelled patch"),
        (no_crs, r"patches.gpkg has no coordinate reference system, .* --by block"),
        (local_crs, r"patches.gpkg: its coordinates cannot be placed on the earth|has no coordinate reference system"),
        (twice, r"patches.gpkg places 'peta_patch_000_003.png' of folder 'kebun' twice"),
        (other_columns, r"patches.gpkg has no column 'source'"),
        (truncated, r"patches.gpkg cannot be read"),
        (beyond_the_earth, r"lie where .* has no meaning|Latitudes beyond 90 degrees"),
    ],
)
def test_what_cannot_be_divided(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        make_parts(tmp_path, SALAK, SplitRequest())
    assert not (tmp_path / "splits.csv").exists()


def test_squares_without_a_geopackage(plantation: Path) -> None:
    with pytest.raises(DataError, match=r"patches.gpkg does not exist, .* divide --by gps, block or folder"):
        # Another test may have divided the shared patches before
        make_parts(plantation, SALAK, SplitRequest(by="square", overwrite=True))


def test_multipolygons_and_missing_shapes(tmp_path: Path) -> None:
    rows = write_mosaic(tmp_path, "kebun", "peta", METRES, 12, 12)
    rows[5]["geometry"] = shapely.MultiPolygon([rows[5]["geometry"]])
    write_gpkg(tmp_path, rows, UTM)
    assert make_parts(tmp_path, SALAK, SplitRequest()).by == "square"
    rows[7]["geometry"] = None
    (tmp_path / "patches.gpkg").unlink()
    write_gpkg(tmp_path, rows, UTM)
    with pytest.raises(DataError, match="places of 1 of 144 patches"):
        make_parts(tmp_path, SALAK, SplitRequest(overwrite=True))


# ---- photos


def flown(root: Path, photos: Path, lines: int = 5, along: int = 14) -> None:
    """Patches of photos that were taken every 20 m on lines 30 m apart, of which every second has a mask."""
    for line in range(lines):
        for place in range(along):
            name = f"DJI_{line * along + place:04d}"
            write_photo(
                photos / f"{name}.JPG", 110.4 + place * 20 / 110_400, -7.6 - line * 30 / 110_570,
                height=40.0, focal=35, yaw=90.0, pitch=-90.0,
            )  # fmt: skip
            for col in range(2):
                _write_patch(root / "f" / "images" / f"{name}_patch_000_{col:03d}.png", col)
    generator = np.random.default_rng(0)
    (root / "f" / "masks").mkdir()
    for path in sorted((root / "f" / "images").glob("*_000.png")):
        Image.fromarray(generator.integers(0, 7, (8, 8)).astype(np.uint8)).save(root / "f" / "masks" / path.name)


def _write_patch(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade * 50, 90, 60)).save(path)


def test_photos_are_divided_by_where_they_were_taken(tmp_path: Path) -> None:
    root, photos = tmp_path / "patches", tmp_path / "photos"
    flown(root, photos)
    made = make_parts(root, SALAK, SplitRequest(photos=photos, spatial=SpatialPlan(block_m=60, test_share=0)))
    assert made.by == "gps"
    assert made.division is not None and made.division.buffer_m == 10.0
    assert made.ground is not None
    assert (made.ground.box_N4[:, 2:] - made.ground.box_N4[:, :2])[0] == pytest.approx([29.7, 39.6], rel=0.01)
    shapes = shapely.polygons(made.ground.corner_N42)
    uses = np.array([use.value for use in uses_of_patches(made.index, made.split)])
    trained, val = (shapes[np.isin(uses, roles)] for roles in (("labelled", "unlabelled"), ("val",)))
    assert nearest(list(trained), list(val)) >= 10 - 0.001
    stems = {patch.stem.split("_patch_")[0] for patch in made.index.patches}
    for stem in stems:  # all of a photo goes the same way
        assert len({patch.photo for patch in made.index.patches if patch.stem.startswith(stem + "_")}) == 1


def test_auto_takes_numbers_where_photos_lie_nowhere(plantation: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    shutil.copytree(plantation, root)
    made = make_parts(root, SALAK, SplitRequest(gap=1))
    assert made.by == "block"
    assert not (root / "blocks.csv").exists()
    (tmp_path / "photos" / "salak-1-1").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "salak-1-1" / "DJI_0460.jpg")
    request = SplitRequest(gap=1, photos=tmp_path / "photos", overwrite=True)
    assert make_parts(root, SALAK, request).by == "block"


@pytest.mark.parametrize("by", ["gps", "square"])
def test_photos_without_gps_are_asked_for(tmp_path: Path, by: By) -> None:
    _write_patch(tmp_path / "images" / "DJI_0001_patch_000_000.png", 0)
    _write_patch(tmp_path / "masks" / "DJI_0001_patch_000_000.png", 0)
    if by == "square":
        row = {"folder": "", "image": "other.png", "source": "x", "geometry": shapely.box(0, 0, 1, 1)}
        write_gpkg(tmp_path, [row], UTM)
    with pytest.raises(DataError, match=r"places of 1 of 1 patches are not known, .* with --photos, or divide --by"):
        make_parts(tmp_path, SALAK, SplitRequest(by=by))


# ---- the command


def test_the_command_makes_a_split_that_train_and_report_take(tmp_path: Path) -> None:
    root = prepared(tmp_path / "my patches", labelled=0.6)
    (tmp_path / "salakseg.toml").write_text('data_root = "my patches"\n', encoding="utf-8")
    done = command("splits", "make", "--seed", 2, "--val-share", 0.2, cwd=tmp_path)
    for text in ("labelled", "val", "gap", "Snake Fruit", "blocks of", "splits.csv, blocks.csv, splits.png"):
        assert text in done.output
    with Image.open(root / "splits.png") as picture:
        assert picture.format == "PNG" and picture.width > 600
    table = done.stdout
    (root / "splits.png").unlink()
    shown = command("splits", "show", root)
    assert shown.stdout == table
    assert (root / "splits.png").is_file()
    run = tmp_path / "run"
    done = command("train", "--checkpoint-dir", run, "--num-steps", 4, *TINY, cwd=tmp_path)
    assert "blocks of ground" in done.output and "photos" not in done.output.split("split:")[0]
    done = command("report", run, "--out", tmp_path / "report", cwd=tmp_path)
    assert "blocks of ground" in done.output
    with (tmp_path / "report" / "per_photo.csv").open(encoding="utf-8-sig", newline="") as file:
        assert all(row["photo"].startswith("peta.") for row in csv.DictReader(file))


def test_train_makes_no_split_of_blocks_by_itself(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    make_parts(root, SALAK, SplitRequest())
    (root / "splits.csv").unlink()
    done = command("train", "--data-root", root, "--checkpoint-dir", tmp_path / "run", *TINY, status=1)
    assert "run: salakseg splits make" in done.output
    assert not (root / "splits.csv").exists()


def test_the_command_on_numbered_photos(plantation: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    shutil.copytree(plantation, root)
    done = command("splits", "make", root, "--gap", 1, "--by", "block")
    assert "split by block: gap of 1 photos" in done.output
    assert (root / "splits.png").is_file()
    again = command("splits", "make", root, status=1)
    assert "replace it with --overwrite" in again.output
    assert (
        "split by folder" in command("splits", "make", root, "--by", "folder", "--test-share", 0, "--overwrite").output
    )


def test_the_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SALAKSEG_DATA_ROOT", raising=False)
    assert "Where are the patches?" in command("splits", "show", cwd=tmp_path, status=1).output
    assert "is no folder" in command("splits", "make", tmp_path / "nowhere", status=1).output
    root = prepared(tmp_path)
    shown = command("splits", "show", root, status=1)
    assert "splits.csv does not exist; make a split with: salakseg splits make" in shown.output
    shares = command("splits", "make", root, "--val-share", 0.5, "--test-share", 0.5, status=1)
    assert "leave too little to train on" in shares.output
    command("splits", "make", root, "--by", "moon", status=2)


def test_classes_that_miss_a_part_are_named(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    for number, path in enumerate(sorted((root / "kebun" / "masks").iterdir())):
        label_HW = np.zeros((32, 32), np.uint8)
        label_HW[0, 0] = 1 if number == 0 else 5
        Image.fromarray(label_HW).save(path)
    done = command("splits", "make", root)
    assert done.output.count("class 'Badan Air' has no pixel in the") == 2
