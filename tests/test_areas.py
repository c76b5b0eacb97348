"""True areas: what a pixel of a row stands for, and what a class covers, against geodesic polygons."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from helpers import SHARED_DATA
from numpy.typing import NDArray
from rasterio.crs import CRS

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.areas import ClassArea, areas_of, pixel_areas, write_areas

GEOD = pyproj.Geod(ellps="WGS84")
LATITUDES = (0.0, -7.6, 52.0, -33.0)
UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
US_SURVEY_FOOT_M = 1200 / 3937
OLD_WEB_MERCATOR = "+proj=merc +a=6378137 +b=6378137 +units=m +nadgrids=@null +wktext"  # as older software writes it
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def areas_in_rows(crs: Any, transform: Affine, height: int, width: int) -> NDArray[np.float64]:
    areas_H = pixel_areas(CRS.from_user_input(crs), transform, height, width)
    assert areas_H is not None
    assert areas_H.shape == (height,)
    assert areas_H.dtype == np.float64
    return areas_H


def geodesic_area(crs: Any, transform: Affine, row: int, col: int, rows: int = 1, cols: int = 1) -> float:
    """The ellipsoidal area of a rectangle of pixels, whose border follows the grid, square metres a pixel."""
    steps = np.linspace(0, 1, 20, endpoint=False)
    along, back, zeros = steps, 1 - steps, np.zeros(20)
    column = col + cols * np.concatenate([along, zeros + 1, back, zeros])
    line = row + rows * np.concatenate([zeros, along, zeros + 1, back])
    x = transform.a * column + transform.b * line + transform.c
    y = transform.d * column + transform.e * line + transform.f
    longitude, latitude = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return float(abs(GEOD.polygon_area_perimeter(longitude, latitude)[0]) / (rows * cols))


def place(crs: str, latitude: float, size: float, longitude: float = 110.3) -> Affine:
    """A transform with square pixels whose upper left corner lies at a latitude."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    return Affine(size, 0.0, x, 0.0, -size, y)


# --- what a pixel stands for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("latitude", LATITUDES)
@pytest.mark.parametrize(
    ("crs", "size"),
    [
        ("EPSG:4326", 2e-3),
        ("EPSG:3857", 200.0),
        (OLD_WEB_MERCATOR, 200.0),
        ("EPSG:3857+5773", 200.0),
        ("EPSG:3395", 200.0),
        ("EPSG:3994", 200.0),
        ("ESRI:54004", 200.0),
        ("+proj=merc +datum=WGS84 +k=0.9 +units=us-ft", 600.0),
    ],
    ids=[
        "degrees",
        "web Mercator",
        "web Mercator, PROJ string",
        "web Mercator with heights",
        "ellipsoidal Mercator",
        "Mercator true at 41 south",
        "ESRI's Mercator",
        "Mercator with a scale factor in feet",
    ],
)
def test_degrees_and_mercator_agree_with_geodesic_polygons(crs: str, size: float, latitude: float) -> None:
    transform = place(crs, latitude, size)
    areas_H = areas_in_rows(crs, transform, 1000, 60)  # some 200 km from north to south
    for row in (0, 250, 999):
        assert areas_H[row] == pytest.approx(geodesic_area(crs, transform, row, 0, cols=60), rel=1e-5)


def test_the_middle_column_may_lie_on_the_180th_meridian() -> None:
    crs = "EPSG:3832"  # Mercator of the Pacific, around 150 degrees east
    transform = place(crs, -17.0, 200.0, 180.0) @ Affine.translation(-30, 0)
    np.testing.assert_allclose(
        areas_in_rows(crs, transform, 3, 60), areas_in_rows(crs, place(crs, -17.0, 200.0), 3, 60), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("crs", "pixel", "expected"),
    [
        ("EPSG:32749", 0.05, 0.0025),
        ("EPSG:2264", 2.0, 4.0 * US_SURVEY_FOOT_M**2),
        ("EPSG:2222", 2.0, 4.0 * 0.3048**2),
        ("EPSG:6933", 30.0, 900.0),
    ],
    ids=["UTM", "US survey feet", "international feet", "equal area"],
)
def test_other_projections_are_taken_at_face_value(crs: str, pixel: float, expected: float) -> None:
    areas_H = areas_in_rows(crs, Affine(pixel, 0, 500_000, 0, -pixel, 600_000), 5, 7)
    np.testing.assert_allclose(areas_H, expected, rtol=1e-12)


@pytest.mark.parametrize("degrees", [30.0, 90.0, 137.0])
@pytest.mark.parametrize("crs", ["EPSG:32749", "EPSG:4326", "EPSG:3857"])
def test_a_rotated_raster_keeps_its_area(crs: str, degrees: float) -> None:
    straight = place(crs, -7.6, 1e-4 if crs == "EPSG:4326" else 10.0)
    turned = straight @ Affine.rotation(degrees)
    areas_H = areas_in_rows(crs, turned, 400, 300)
    if crs == "EPSG:32749":
        np.testing.assert_allclose(areas_H, 100.0, rtol=1e-12)
        return
    for row in (0, 399):
        assert areas_H[row] == pytest.approx(geodesic_area(crs, turned, row, 150), rel=1e-5)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_rows_may_run_northwards(crs: str) -> None:
    north_up = place(crs, -33.0, 2e-3 if crs == "EPSG:4326" else 200.0)
    south_up = north_up @ Affine.translation(0, 500) @ Affine.scale(1, -1)
    areas_H = areas_in_rows(crs, north_up, 500, 10)
    assert (np.diff(areas_H) < 0).all()  # southwards, away from the equator, pixels shrink
    np.testing.assert_allclose(areas_in_rows(crs, south_up, 500, 10), areas_H[::-1], rtol=1e-9)


def test_grads_and_other_angles_are_not_degrees() -> None:
    in_degrees = areas_in_rows("EPSG:4326", Affine(0.9e-3, 0, 2, 0, -0.9e-3, 45.0), 10, 10)
    in_grads = areas_in_rows("EPSG:4807", Affine(1e-3, 0, 2, 0, -1e-3, 50.0), 10, 10)
    np.testing.assert_allclose(in_grads, in_degrees, rtol=1e-9)


def test_without_a_place_there_is_no_area() -> None:
    assert pixel_areas(None, UTM, 5, 5) is None
    assert pixel_areas(CRS.from_epsg(4326), Affine.identity(), 5, 5) is None


def test_poles_do_not_yield_negative_areas() -> None:
    areas_H = areas_in_rows("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90.75), 5, 720)
    assert (areas_H >= 0).all()
    assert (np.diff(areas_H[1:]) > 0).all()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared imagery is not at hand")
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("orthomosaics/plantation_hills_3857.tif", 1e-5),
        ("orthomosaics/smallholding_3857.tif", 1e-5),
        ("geotiff-kinds/3420B_2010_328_RGB_LATLNG.tif", 1e-5),
        ("geotiff-kinds/ngi_rgb_byte_1.tif", 1e-3),
        ("geotiff-kinds/australia.tif", 1e-3),
        ("geotiff-kinds/dummy_fotomap_small.tif", 1e-3),
        ("geotiff-kinds/RGB.byte.tif", 3e-3),  # at the border of its zone: what "face value" means
    ],
)
def test_real_rasters_agree_with_geodesic_polygons(name: str, tolerance: float) -> None:
    with rasterio.open(SHARED_DATA / name) as dataset:
        crs, transform, (height, width) = dataset.crs, dataset.transform, dataset.shape
    areas_H = areas_in_rows(crs, transform, height, width)
    whole = geodesic_area(crs.to_wkt(), transform, 0, 0, height, width)
    assert areas_H.mean() == pytest.approx(whole, rel=tolerance)
    for row in (0, height - 1):
        one = geodesic_area(crs.to_wkt(), transform, row, 0, cols=width)
        assert areas_H[row] == pytest.approx(one, rel=tolerance)


# --- what a class covers ------------------------------------------------------------------------------------------


def random_labels(height: int = 700, width: int = 600) -> NDArray[np.uint8]:
    """Classes 0 to 5 in bands that lie differently from north to south, and a corner that is not valid."""
    rng = np.random.default_rng(0)
    label_HW = np.minimum(rng.integers(0, 6, (height, width)), np.arange(height)[:, None] // 100).astype(np.uint8)
    label_HW[: height // 3, : width // 2] = 255
    return label_HW


def write_map(path: Path, label_HW: NDArray[Any], crs: Any, transform: Affine, **profile: Any) -> Path:
    height, width = label_HW.shape
    defaults = {"driver": "GTiff", "count": 1, "dtype": label_HW.dtype, "nodata": 255}
    with rasterio.open(
        path, "w", height=height, width=width, crs=crs, transform=transform, **(defaults | profile)
    ) as dataset:
        dataset.write(label_HW, 1)
    return path


@pytest.mark.parametrize("blocks", [{}, {"tiled": True, "blockxsize": 256, "blockysize": 256}], ids=["strips", "tiled"])
@pytest.mark.parametrize(("crs", "size"), [("EPSG:4326", 2e-3), ("EPSG:3857", 200.0), ("EPSG:32749", 0.05)])
def test_class_areas_are_sums_over_their_pixels(tmp_path: Path, crs: str, size: float, blocks: dict[str, Any]) -> None:
    label_HW, transform = random_labels(), place(crs, 52.0, size)
    rows = areas_of(write_map(tmp_path / "map.tif", label_HW, crs, transform, **blocks), SALAK)
    areas_H = areas_in_rows(crs, transform, *label_HW.shape)
    areas_HW = np.broadcast_to(areas_H[:, None], label_HW.shape)
    valid_ha = areas_HW[label_HW != 255].sum() / 1e4
    for row, land_class in zip(rows, SALAK.classes, strict=True):
        expected = areas_HW[label_HW == land_class.id].sum() / 1e4
        assert (row.class_id, row.class_name) == (land_class.id, land_class.name)
        assert row.pixels == (label_HW == land_class.id).sum()
        assert row.hectares == pytest.approx(expected, rel=1e-12)
        assert row.share == pytest.approx(expected / valid_ha, rel=1e-12)
    assert sum(row.hectares or 0.0 for row in rows) == pytest.approx(valid_ha, rel=1e-12)
    assert rows[6] == ClassArea(6, "Tanah Terbuka", 0, 0.0, 0.0)


def test_shares_are_those_of_the_area_and_not_of_the_pixels(tmp_path: Path) -> None:
    label_HW = np.repeat([0, 1], 10).astype(np.uint8)[:, None].repeat(4, axis=1)
    transform = Affine(1.0, 0, 0, 0, -1.0, 70.0)  # class 0 from 70 to 60 degrees north, class 1 from 60 to 50
    north, south = areas_of(write_map(tmp_path / "map.tif", label_HW, "EPSG:4326", transform), SALAK)[:2]
    assert north.pixels == south.pixels
    zones = [abs(GEOD.polygon_area_perimeter(*_zone(top))[0]) for top in (70, 60)]
    assert north.share == pytest.approx(zones[0] / sum(zones), rel=1e-3)


def _zone(top: int) -> tuple[list[float], list[float]]:
    """Outline of 4 degrees of longitude and the 10 degrees of latitude below one, along the parallels."""
    east = np.linspace(0, 4, 200)
    return [*east, *east[::-1]], [float(top)] * 200 + [top - 10.0] * 200


def test_a_map_without_crs_is_counted_in_pixels(tmp_path: Path) -> None:
    label_HW = random_labels()
    rows = areas_of(write_map(tmp_path / "map.tif", label_HW, None, UTM), SALAK)
    assert {row.hectares for row in rows} == {None}
    assert [row.share for row in rows] == [
        pytest.approx((label_HW == class_id).sum() / (label_HW != 255).sum()) for class_id in range(7)
    ]


def test_a_map_of_nothing_has_shares_of_nought(tmp_path: Path) -> None:
    label_HW = np.full((20, 30), 255, np.uint8)
    rows = areas_of(write_map(tmp_path / "map.tif", label_HW, "EPSG:32749", UTM), SALAK)
    assert {(row.pixels, row.hectares, row.share) for row in rows} == {(0, 0.0, 0.0)}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(RasterError) as caught:
        areas_of(path, SALAK)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_what_is_no_map_of_these_classes_is_refused(tmp_path: Path) -> None:
    label_HW = random_labels(60, 40)
    refused(tmp_path / "nothing.tif", "cannot be read")
    refused(write_map(tmp_path / "16bit.tif", label_HW.astype(np.uint16), "EPSG:32749", UTM), "one band of class ids")
    refused(write_map(tmp_path / "rgb.tif", label_HW, "EPSG:32749", UTM, count=3), "one band of class ids")
    label_HW[5, 5] = 7
    refused(
        write_map(tmp_path / "more.tif", label_HW, "EPSG:32749", UTM),
        "holds class 7", "ends at 6", "name the class mapping",
    )  # fmt: skip


def test_a_truncated_map_is_refused(tmp_path: Path) -> None:
    label_HW = np.random.default_rng(0).integers(0, 7, (500, 500), dtype=np.uint8)
    whole = write_map(tmp_path / "whole.tif", label_HW, "EPSG:32749", UTM).read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "half.tif", "cannot be read")


# --- the file of areas --------------------------------------------------------------------------------------------

ROWS = (ClassArea(0, 'bare, "dry" soil', 10, 0.0000025, 0.25), ClassArea(1, "sawah 稻", 30, 0.123456789, 0.75))


def test_the_file_reads_back(tmp_path: Path) -> None:
    unknown = (ClassArea(0, "a", 5_000_000_000, None, 1.0),)
    write_areas(tmp_path / "areas.csv", {"north, plot": ROWS, "south": unknown})
    assert [path.name for path in tmp_path.iterdir()] == ["areas.csv"]
    with (tmp_path / "areas.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table == [
        ["map", "class_id", "class_name", "pixels", "hectares", "share"],
        ["north, plot", "0", 'bare, "dry" soil', "10", "0.000003", "0.250000"],
        ["north, plot", "1", "sawah 稻", "30", "0.123457", "0.750000"],
        ["south", "0", "a", "5000000000", "", "1.000000"],
    ]


def test_a_file_that_exists_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "areas.csv"
    path.write_text("mine")
    with pytest.raises(RasterError, match=r"areas\.csv exists; .*--overwrite"):
        write_areas(path, {"map": ROWS})
    assert path.read_text() == "mine"
    write_areas(path, {"map": ROWS}, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("map,class_id")


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match=r"areas\.csv cannot be written \(.*\); choose a folder"):
        write_areas(tmp_path / "missing" / "areas.csv", {"map": ROWS})


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "areas.csv"
    path.mkdir()  # nothing can be renamed onto a folder
    with pytest.raises(RasterError, match="cannot be written"):
        write_areas(path, {"map": ROWS}, overwrite=True)
    assert [left.name for left in tmp_path.iterdir()] == ["areas.csv"]


def test_names_of_a_class_map_reach_the_rows(tmp_path: Path) -> None:
    two = ClassMap((LandClass(0, "x", (0, 0, 0)), LandClass(1, "y", (1, 1, 1))))
    rows = areas_of(write_map(tmp_path / "m.tif", np.eye(8, dtype=np.uint8), "EPSG:32749", UTM), two)
    assert [(row.class_name, row.pixels) for row in rows] == [("x", 56), ("y", 8)]
