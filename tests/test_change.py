"""What has changed between two maps."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from helpers import command
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.transform import array_bounds, from_origin
from rasterio.warp import calculate_default_transform, reproject

import salakseg.change.pair as pair_module
from salakseg.change.compare import UNSURE_BELOW, Change, compare
from salakseg.change.pair import open_pair
from salakseg.change.raster import transitions
from salakseg.classes import ClassMap, LandClass
from salakseg.cli import differing
from salakseg.errors import RasterError

THREE = ClassMap(
    (LandClass(0, "none", (0, 0, 0)), LandClass(1, "tree", (0, 200, 0)), LandClass(2, "soil", (150, 90, 0)))
)
UTM = "EPSG:32749"
PLACE = from_origin(430000, 9160000, 10, 10)
OLD = np.array([[1, 1, 2, 2], [1, 1, 2, 255], [0, 0, 2, 2]], np.uint8)
NEW = np.array([[1, 2, 2, 2], [1, 1, 1, 2], [0, 2, 255, 2]], np.uint8)
BY_HAND = [[1, 0, 1], [0, 3, 1], [0, 1, 3]]


def write_map(
    path: Path, label_HW: NDArray[np.uint8], crs: str | None = UTM, place: Any = PLACE, classes: ClassMap = THREE
) -> Path:
    height, width = label_HW.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": height, "width": width, "nodata": 255}
    with rasterio.open(path, "w", crs=crs, transform=place, **profile) as file:
        file.write(label_HW, 1)
        file.update_tags(classes=json.dumps(classes.to_records()))
    return path


def change_of(folder: Path, old: NDArray[np.uint8], new: NDArray[np.uint8], **place: Any) -> Change:
    return compare(open_pair(write_map(folder / "old.tif", old, **place), write_map(folder / "new.tif", new, **place)))


def test_hectares_in_metres_are_those_by_hand(tmp_path: Path) -> None:
    change = change_of(tmp_path, OLD, NEW)
    assert change.pixels_KK.tolist() == BY_HAND
    assert change.hectares_KK is not None
    np.testing.assert_allclose(change.hectares_KK, np.array(BY_HAND) * 100 / 10_000)
    assert change.share == pytest.approx(3 / 10)
    assert change.left_out_ha == pytest.approx((0.01, 0.01))  # a pixel of each that the other does not know


def test_hectares_in_degrees_are_those_of_the_ellipsoid(tmp_path: Path) -> None:
    step, west, north = 0.01, 110.0, -7.0
    change = change_of(tmp_path, OLD, NEW, crs="EPSG:4326", place=from_origin(west, north, step, step))
    wanted_KK = np.zeros((3, 3))
    for row, col in np.ndindex(OLD.shape):
        if 255 not in (OLD[row, col], NEW[row, col]):
            x, y = west + step * np.array([col, col + 1]), north - step * np.array([row, row + 1])
            area, _ = Geod(ellps="WGS84").polygon_area_perimeter(x[[0, 1, 1, 0]], y[[0, 0, 1, 1]])
            wanted_KK[OLD[row, col], NEW[row, col]] += abs(area) / 10_000
    assert change.hectares_KK is not None
    np.testing.assert_allclose(change.hectares_KK, wanted_KK, rtol=1e-6)


def test_the_coarser_grid_is_taken_and_classes_are_found_by_name(tmp_path: Path) -> None:
    turned = ClassMap(
        (LandClass(0, "soil", (1, 1, 1)), LandClass(1, "none", (2, 2, 2)), LandClass(2, "tree", (3, 3, 3)))
    )
    to_turned = np.array([1, 2, 0] + 252 * [9] + [255], np.uint8)
    fine = to_turned[NEW].repeat(2, 0).repeat(2, 1)
    fine[0, 2:4] = 2  # tree in two of the four parts of a pixel that is soil, and in one of another
    fine[0, 4] = 2
    fine = np.pad(fine, ((6, 2), (4, 8)), constant_values=1)
    place = from_origin(430000 - 20, 9160000 + 30, 5, 5)
    old, new = write_map(tmp_path / "old.tif", OLD), write_map(tmp_path / "new.tif", fine, place=place, classes=turned)
    pair = open_pair(old, new)
    assert (pair.grid_of, pair.height, pair.width) == ("old", 3, 4)
    pixels_KK = compare(pair).pixels_KK
    assert pixels_KK.sum() == 10
    assert pixels_KK[2].tolist() == BY_HAND[2]
    back = compare(open_pair(new, old))
    assert (back.pair.grid_of, back.pixels_KK.sum()) == ("new", 10)
    assert back.left_out_ha is not None
    assert back.left_out_ha[0] > 0.2  # the margin of the fine map


def test_maps_of_other_reference_systems_meet(tmp_path: Path) -> None:
    label_HW = np.random.default_rng(0).integers(0, 3, (6, 6)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    old = write_map(tmp_path / "old.tif", label_HW)
    with rasterio.open(old) as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:4326", nodata=255) as warped:
        place, again = warped.transform, warped.read(1)
    change = compare(open_pair(old, write_map(tmp_path / "new.tif", again, "EPSG:4326", place)))
    assert change.share < 0.1  # along the edges of the squares alone
    assert change.thin_pixels == change.changed_pixels
    assert change.hectares_KK is not None
    assert change.hectares_KK.sum() == pytest.approx(36, rel=0.03)


@pytest.mark.parametrize("rows", [2, 3, 512])
def test_thin_change_is_what_no_square_of_three_covers(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_module, "STRIP", rows)
    old, new = np.ones((12, 12), np.uint8), np.ones((12, 12), np.uint8)
    new[1:6, 1:5] = 2  # a block
    new[:, 8] = 2  # a line of twelve
    new[7, 1:4] = 2  # three more
    change = change_of(tmp_path, old, new)
    assert (change.changed_pixels, change.thin_pixels) == (20 + 12 + 3, 15)


def test_unsure_change_is_that_of_the_less_sure_map(tmp_path: Path) -> None:
    old, new = write_map(tmp_path / "old.tif", OLD), write_map(tmp_path / "new.tif", NEW)
    sure = np.full(OLD.shape, 90, np.uint8)
    first, second = sure.copy(), sure.copy()
    first[0, 1], second[1, 2], second[2, 1], first[0, 0] = 40, 59, 255, 10
    paths = [write_map(tmp_path / f"{n}.tif", one) for n, one in enumerate((first, second))]
    change = compare(open_pair(old, new), paths[0], paths[1])
    assert (change.told_pixels, change.unsure_pixels) == (2, 2)
    assert compare(open_pair(old, new), paths[0], paths[1], unsure_below=50).unsure_pixels == 1


def test_the_legend_holds_what_occurs_the_largest_first(tmp_path: Path) -> None:
    old, new = np.zeros((3, 4), np.uint8), np.array([[1, 1, 1, 2], [0, 0, 0, 0], [2, 2, 0, 0]], np.uint8)
    old[0, 3] = 1
    legend, value_KK = transitions(change_of(tmp_path, old, new))
    assert legend.names == ("unchanged", "none > tree", "none > soil", "tree > soil")
    assert (value_KK[0, 1], value_KK[0, 2], value_KK[1, 2], value_KK[2, 1]) == (1, 2, 3, 0)
    same, _ = transitions(change_of(tmp_path, old, old))
    assert same.names == ("unchanged", "changed")


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("classes", "only .*new.tif has road"),
        ("far", "show different ground"),
        ("lost", "new.tif does not say where it lies"),
        ("nothing", "no pixel with a class in common"),
    ],
)
def test_what_cannot_be_compared(kind: str, complaint: str, tmp_path: Path) -> None:
    roads = ClassMap((*THREE.classes[:2], LandClass(2, "road", (9, 9, 9))))
    old, new = write_map(tmp_path / "old.tif", OLD), tmp_path / "new.tif"
    if kind == "classes":
        write_map(new, NEW, classes=roads)
    elif kind == "far":
        write_map(new, NEW, place=from_origin(530000, 9160000, 10, 10))
    elif kind == "lost":
        write_map(new, NEW, crs=None)
    else:
        write_map(new, np.where(OLD == 255, 1, 255).astype(np.uint8))
    with pytest.raises(RasterError, match=complaint):
        compare(open_pair(old, new))


def test_the_command(tmp_path: Path) -> None:
    assert differing.UNSURE_BELOW == UNSURE_BELOW
    write_map(tmp_path / "old.tif", OLD)
    write_map(tmp_path / "new.tif", NEW)
    files = ["--out", "change.tif", "--polygons", "change.gpkg", "--matrix", "change.csv", "--min-area", "0"]
    told = " ".join(command("diff", "old.tif", "new.tif", *files, cwd=tmp_path).output.split())
    assert "changed: 30.00 %" in told
    with rasterio.open(tmp_path / "change.tif") as file:
        value_HW = file.read(1)
        assert (file.nodata, file.transform, file.crs) == (255, PLACE, rasterio.CRS.from_string(UTM))
    assert ((value_HW == 0) == ((OLD == NEW) & (OLD != 255))).all()
    assert ((value_HW == 255) == ((OLD == 255) | (NEW == 255))).all()
    drawn = pyogrio.read_dataframe(tmp_path / "change.gpkg")
    assert sorted(drawn.class_name) == ["none > soil", "soil > tree", "tree > soil"]
    assert drawn.area_m2.sum() == pytest.approx(300)
    assert (tmp_path / "change.csv").read_text().splitlines()[1] == "none,0.01,0.0,0.01"
    assert (tmp_path / "change.qml").is_file()
    command("diff", "old.tif", "new.tif", *files, cwd=tmp_path, status=1)
    (tmp_path / "change.tif.aux.xml").write_text("<PAMDataset/>")  # class names of a map that had this name
    command("diff", "old.tif", "new.tif", *files, "--overwrite", cwd=tmp_path)
    assert not (tmp_path / "change.tif.aux.xml").exists()
    found = json.loads(command("diff", "old.tif", "new.tif", "--json", cwd=tmp_path).stdout)
    assert found["pixels"] == BY_HAND


def test_small_polygons_are_left_out_and_no_transition_takes_in_another(tmp_path: Path) -> None:
    old = np.ones((12, 12), np.uint8)
    new = old.copy()
    new[1, 1] = 2  # 0.25 square metres on their own
    new[4:8, 4:8] = 2  # four
    new[8, 4] = 0  # another transition beside these
    half = from_origin(430000, 9160000, 0.5, 0.5)
    write_map(tmp_path / "old.tif", old, place=half)
    write_map(tmp_path / "new.tif", new, place=half)
    for least, wanted in ((100, []), (1, [("tree > soil", 4.0)]), (0, 3)):
        flags = ["--out", "c.tif", "--polygons", "c.gpkg", "--min-area", least, "--overwrite"]
        command("diff", "old.tif", "new.tif", *flags, cwd=tmp_path)
        drawn = pyogrio.read_dataframe(tmp_path / "c.gpkg")
        found = list(zip(drawn.class_name, drawn.area_m2.round(6), strict=True))
        assert found == wanted if isinstance(wanted, list) else len(found) == wanted


def test_a_finer_map_in_another_reference_system_counts_by_its_most_frequent_class(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(1, 3, (8, 8)).astype(np.uint8)
    write_map(tmp_path / "old.tif", truth)
    fine = truth.repeat(20, 0).repeat(20, 1)
    speckled = np.where(np.random.default_rng(1).random(fine.shape) < 0.2, 0, fine).astype(np.uint8)
    place = from_origin(430000, 9160000, 0.5, 0.5)
    degrees, width, height = calculate_default_transform(UTM, "EPSG:4326", 160, 160, *array_bounds(160, 160, place))
    warped = np.full((height, width), 255, np.uint8)
    reproject(
        speckled, warped, src_transform=place, src_crs=UTM, dst_transform=degrees, dst_crs="EPSG:4326", dst_nodata=255
    )
    write_map(tmp_path / "new.tif", warped, crs="EPSG:4326", place=degrees)
    change = compare(open_pair(tmp_path / "old.tif", tmp_path / "new.tif"))
    assert change.pixels_KK.sum() == 64
    assert change.share == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--out", "same.tif", "--matrix", "same.tif"], "would be written twice"),
        (["--out", "c.tif", "--polygons", "c.shp"], "is not named .gpkg"),
        (["--out", "same.gpkg", "--polygons", "same.gpkg"], "would be written twice"),
        (["--out", "same.qml"], "would be written twice"),
        (["--out", "sure.tif", "--old-confidence", "sure.tif", "--overwrite"], "is the input itself"),
        (["--out", "styled.tif"], r"styled\.qml exists"),
        (["--old-confidence", "gone.tif"], r"gone\.tif does not exist"),
        (["--old-confidence", "old.tif"], "no raster of confidence in percent"),
        (["--new-confidence", "beyond.tif"], "holds 180, and confidence is 0 to 100 percent"),
    ],
)
def test_files_that_are_mixed_up_are_refused_and_stay(tmp_path: Path, flags: list[str], reason: str) -> None:
    for name in ("old", "new"):
        write_map(tmp_path / f"{name}.tif", OLD if name == "old" else NEW)
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            file.write_colormap(1, {one.id: (*one.color, 255) for one in THREE.classes})
    for name, percent in (("sure", 90), ("beyond", 180)):
        write_map(tmp_path / f"{name}.tif", np.full((3, 4), percent, np.uint8))
    (tmp_path / "styled.qml").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    told = " ".join(command("diff", "old.tif", "new.tif", *flags, cwd=tmp_path, status=1).output.split())
    assert re.search(reason, told), told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_maps_without_a_reference_system_lie_where_their_transforms_say(tmp_path: Path) -> None:
    old = write_map(tmp_path / "old.tif", OLD, crs=None)
    assert compare(open_pair(old, write_map(tmp_path / "new.tif", NEW, crs=None))).pixels_KK.tolist() == BY_HAND
    moved = write_map(tmp_path / "moved.tif", NEW, crs=None, place=from_origin(430010, 9160000, 10, 10))
    with pytest.raises(RasterError, match="lie at different places and name no reference system"):
        open_pair(old, moved)
