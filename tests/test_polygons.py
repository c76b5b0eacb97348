"""Land-cover maps as polygons: no seams, no gaps, the right place, the right area."""

import math
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pyproj import Geod
from rasterio import features
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from salakseg.classes import SALAK
from salakseg.errors import RasterError
from salakseg.mapping import geopackage
from salakseg.mapping.dissolve import polygonize
from salakseg.mapping.geopackage import LAYER
from salakseg.mapping.polygons import DEFAULT_TOLERANCE_PX, PolygonSummary, write_polygons

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
PLACES = {
    "UTM south": ("EPSG:32749", UTM),
    "UTM north": ("EPSG:32649", Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 846000.0)),
    "degrees": ("EPSG:4326", Affine(4.5e-7, 0.0, 110.36, 0.0, -4.5e-7, -7.65)),
    "rotated": (
        "EPSG:32749",
        Affine.translation(431000.0, 9154000.0) @ Affine.rotation(30) @ Affine.scale(0.05, -0.05),
    ),
    "south up": ("EPSG:32749", Affine(0.05, 0.0, 431000.0, 0.0, 0.05, 9153000.0)),
    "no CRS": (None, Affine.identity()),
}

labels = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255])
)
chunks = st.integers(1, 16)


def blobs(height: int, width: int, sigma: float = 2.0, classes: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    """Round patches of classes from 0 with a corner that is not valid."""
    noise_KHW = np.random.default_rng(seed).standard_normal((classes, height, width))
    label_HW: NDArray[np.uint8] = ndimage.gaussian_filter(noise_KHW, (0, sigma, sigma)).argmax(axis=0).astype(np.uint8)
    label_HW[: height // 4, : width // 3] = 255
    return label_HW


def polygonized(label_HW: NDArray[np.uint8], chunk: int, tolerance_px: float) -> tuple[Any, NDArray[np.uint8]]:
    def read(row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        assert row >= 0 and col >= 0 and row + height <= label_HW.shape[0] and col + width <= label_HW.shape[1]
        return label_HW[row : row + height, col : col + width]

    parts = list(polygonize(read, *label_HW.shape, chunk=chunk, tolerance_px=tolerance_px))
    return np.concatenate([polygons for polygons, _ in parts]), np.concatenate([ids for _, ids in parts])


def count_regions(label_HW: NDArray[np.uint8]) -> int:
    return sum(ndimage.label(label_HW == class_id)[1] for class_id in np.unique(label_HW) if class_id != 255)


def write_map(path: Path, label_HW: NDArray[np.uint8], place: str = "UTM south") -> Path:
    crs, transform = PLACES[place]
    height, width = label_HW.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", count=1, height=height, width=width, crs=crs, transform=transform,
            nodata=255, tiled=True, blockxsize=64, blockysize=64,
        ) as dataset:  # fmt: skip
            dataset.write(label_HW, 1)
    return path


def to_polygons(
    folder: Path, label_HW: NDArray[np.uint8], place: str = "UTM south", **options: Any
) -> tuple[PolygonSummary, Any]:
    """Writes a map and its polygons, and reads these back."""
    land_cover = write_map(folder / "map.tif", label_HW, place)
    summary = write_polygons(land_cover, folder / "map.gpkg", SALAK, **options)
    assert sorted(entry.name for entry in folder.iterdir()) == ["map.gpkg", "map.tif"]  # no scratch, no journal
    return summary, gpd.read_file(folder / "map.gpkg", layer=LAYER)


def shown(place: str) -> Any:
    """Where the polygons are to lie; a map without a place has its rows at negative y, where QGIS shows it."""
    return Affine.scale(1, -1) if place == "no CRS" else PLACES[place][1]


def burn(table: Any, label_HW: NDArray[np.uint8], place: str) -> NDArray[np.uint8]:
    """The polygons as a raster again: a pixel belongs to the polygon that holds its centre."""
    pairs = list(zip(table.geometry, table.class_id, strict=True))
    out_HW = np.full(label_HW.shape, 255, np.uint8)
    return features.rasterize(pairs, out=out_HW, transform=shown(place)) if pairs else out_HW


# What one chunk, or many, make of labels


@settings(max_examples=60, deadline=None)
@given(label_HW=labels, chunk=chunks)
def test_every_region_is_one_polygon_equal_to_that_of_the_whole_raster(label_HW: NDArray[np.uint8], chunk: int) -> None:
    polygons, class_ids = polygonized(label_HW, chunk, 0.0)
    assert len(polygons) == count_regions(label_HW)
    assert shapely.is_valid(polygons).all() and shapely.coverage_is_valid(polygons)
    pixels = np.bincount(label_HW.ravel(), minlength=256)[:255]
    np.testing.assert_array_equal(np.bincount(class_ids, shapely.area(polygons), 255), pixels)

    shapes = features.shapes(label_HW, mask=label_HW != 255, connectivity=4)
    expected = {(int(value), shapely.geometry.shape(shape).normalize()) for shape, value in shapes}
    # shapely.simplify with tolerance 0 drops the vertices of T-junctions, which GDAL does not set
    found = {(int(i), shapely.normalize(shapely.simplify(p, 0))) for p, i in zip(polygons, class_ids, strict=True)}
    assert found == {(value, shapely.normalize(shapely.simplify(shape, 0))) for value, shape in expected}


@settings(max_examples=40, deadline=None)
@given(label_HW=labels, chunk=chunks)
def test_borders_between_chunks_leave_no_vertex_behind(label_HW: NDArray[np.uint8], chunk: int) -> None:
    def vertices(chunk: int) -> list[bytes]:
        polygons, _ = polygonized(label_HW, chunk, 0.0)
        return sorted(shapely.to_wkb(shapely.normalize(polygons)))

    assert vertices(chunk) == vertices(100)


@settings(max_examples=60, deadline=None)
@given(label_HW=labels, chunk=chunks, tolerance_px=st.sampled_from([0.8, DEFAULT_TOLERANCE_PX, 2.0, 5.0]))
def test_simplified_polygons_share_their_edges_and_none_is_lost(
    label_HW: NDArray[np.uint8], chunk: int, tolerance_px: float
) -> None:
    polygons, _ = polygonized(label_HW, chunk, tolerance_px)
    assert len(polygons) == count_regions(label_HW)
    assert shapely.is_valid(polygons).all() and (shapely.area(polygons) > 0).all()
    assert shapely.coverage_is_valid(polygons)
    if not (label_HW == 255).any():  # without gaps or overlaps the areas add up to the raster's rectangle, exactly
        assert shapely.area(polygons).sum() == label_HW.size
        assert shapely.union_all(polygons).area == label_HW.size


@pytest.mark.parametrize("axis", [0, 1])
def test_a_straight_boundary_through_many_chunks_is_one_line(axis: int) -> None:
    label_HW = np.zeros((40, 40), np.uint8)
    label_HW[(slice(None), slice(13, None))[:: 1 - 2 * axis]] = 1
    for tolerance_px in (0.0, DEFAULT_TOLERANCE_PX):
        polygons, _ = polygonized(label_HW, 7, tolerance_px)
        assert shapely.get_num_coordinates(polygons).tolist() == [5, 5]


def test_chunks_change_a_smoothed_map_only_where_they_meet() -> None:
    label_HW = blobs(300, 260, sigma=6.0)
    whole, whole_ids = polygonized(label_HW, 1000, DEFAULT_TOLERANCE_PX)
    parts, part_ids = polygonized(label_HW, 64, DEFAULT_TOLERANCE_PX)
    assert len(whole) == len(parts)
    area = np.bincount(whole_ids, shapely.area(whole))
    np.testing.assert_allclose(np.bincount(part_ids, shapely.area(parts)), area, rtol=2e-3)
    differs = shapely.symmetric_difference(
        shapely.union_all(whole[whole_ids == 1]), shapely.union_all(parts[part_ids == 1])
    )
    border = shapely.union_all(
        [shapely.LineString([(at, 0), (at, 300)]) for at in range(64, 260, 64)]
        + [shapely.LineString([(0, at), (260, at)]) for at in range(64, 300, 64)]
    )
    assert differs.area > 0  # else the next line says nothing
    assert differs.area < 0.1 * border.length


# The default tolerance


def test_the_default_tolerance_makes_a_diagonal_straight() -> None:
    label_HW = np.tri(100, 100, dtype=np.uint8)
    polygons, _ = polygonized(label_HW, 1000, DEFAULT_TOLERANCE_PX)
    assert shapely.get_num_coordinates(polygons).max() <= 7  # of 200
    assert shapely.get_num_coordinates(polygonized(label_HW, 1000, 0.0)[0]).min() > 190


@pytest.mark.parametrize("angle", [0, 5, 17, 30, 45, 63])
def test_the_default_tolerance_keeps_the_area_of_a_narrow_road(angle: int) -> None:
    road = shapely.affinity.rotate(shapely.box(-100, 98.5, 300, 101.5), angle)
    label_HW = features.rasterize([(road, 3)], out_shape=(200, 200), dtype="uint8")
    polygons, class_ids = polygonized(label_HW, 1000, DEFAULT_TOLERANCE_PX)
    assert (class_ids == 3).sum() == 1
    assert shapely.area(polygons[class_ids == 3]).sum() == pytest.approx((label_HW == 3).sum(), rel=0.03)


# The file


@pytest.mark.parametrize("place", list(PLACES))
def test_polygons_burnt_back_are_the_map(tmp_path: Path, place: str) -> None:
    label_HW = blobs(90, 70)
    summary, table = to_polygons(tmp_path, label_HW, place, min_area_m2=0.0, tolerance_px=0.0, chunk=32)
    np.testing.assert_array_equal(burn(table, label_HW, place), label_HW)
    crs, transform = PLACES[place][0], shown(place)
    corners = [transform @ corner for corner in ((0, 0), (70, 0), (70, 90), (0, 90))]
    hull = shapely.Polygon(corners)
    invalid = shapely.Polygon([transform @ corner for corner in ((0, 0), (23, 0), (23, 22), (0, 22))])
    valid = shapely.union_all(table.geometry.values)
    assert valid.symmetric_difference(hull.difference(invalid)).area < 1e-6 * hull.area  # edges, not centres of pixels
    assert table.geometry.is_valid.all() and shapely.coverage_is_valid(table.geometry.values)
    assert all(polygon.exterior.is_ccw for polygon in table.geometry)
    assert (table.crs is None) if crs is None else table.crs == crs
    assert summary.sieved_px == 0
    np.testing.assert_array_equal(summary.area_px[:4], np.bincount(label_HW.ravel())[:4])


@pytest.mark.parametrize("place", ["degrees", "rotated", "south up"])
def test_smoothed_polygons_stay_valid_in_their_place(tmp_path: Path, place: str) -> None:
    _, table = to_polygons(tmp_path, blobs(200, 200), place, min_area_m2=0.0, chunk=64)
    assert table.geometry.is_valid.all() and shapely.coverage_is_valid(table.geometry.values)


def test_attributes_and_summary_tell_the_same(tmp_path: Path) -> None:
    label_HW = blobs(200, 150)
    summary, table = to_polygons(tmp_path, label_HW, chunk=64)
    info = pyogrio.read_info(tmp_path / "map.gpkg", layer=LAYER)
    assert (info["geometry_type"], info["features"]) == ("Polygon", summary.polygons)
    assert pyogrio.list_layers(tmp_path / "map.gpkg")[:, 0].tolist() == ["land_cover"]
    assert list(table.columns) == ["class_id", "class_name", "area_m2", "area_ha", "geometry"]
    assert [SALAK.names[class_id] for class_id in table.class_id] == table.class_name.tolist()
    np.testing.assert_allclose(table.area_m2, table.area)  # UTM: the plane's areas
    np.testing.assert_allclose(table.area_ha, table.area_m2 / 1e4)
    assert summary.area_m2 is not None
    np.testing.assert_allclose(summary.area_m2, np.bincount(table.class_id, table.area_m2, len(SALAK)))
    np.testing.assert_allclose(summary.area_m2, summary.area_px * 0.0025)
    np.testing.assert_array_equal(summary.class_polygons, np.bincount(table.class_id, minlength=len(SALAK)))


def test_areas_in_degrees_are_those_on_the_ellipsoid(tmp_path: Path) -> None:
    crs, transform = "EPSG:4326", Affine(1e-3, 0.0, 110.0, 0.0, -1e-3, 60.0)  # 5 km high at 60 degrees north
    label_HW = np.repeat(np.arange(5, dtype=np.uint8), 10)[:, None].repeat(20, axis=1)
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", dtype="uint8", count=1, height=50, width=20, crs=crs,
        transform=transform,
    ) as dataset:  # fmt: skip
        dataset.write(label_HW, 1)
    write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", SALAK, chunk=16)
    table = gpd.read_file(tmp_path / "map.gpkg")
    geod = Geod(ellps="WGS84")
    expected = [geod.geometry_area_perimeter(shapely.segmentize(polygon, 1e-3))[0] for polygon in table.geometry]
    np.testing.assert_allclose(table.area_m2, expected, rtol=1e-6)


def test_a_map_without_crs_counts_pixels(tmp_path: Path) -> None:
    label_HW = np.zeros((20, 20), np.uint8)
    label_HW[3:6, 3:6], label_HW[10:12, 10:14] = 1, 2  # 9 and 8 pixels
    summary, table = to_polygons(tmp_path, label_HW, "no CRS", min_area_m2=9.0, tolerance_px=0.0)
    assert list(table.columns) == ["class_id", "class_name", "area_px", "geometry"]
    assert dict(zip(table.class_id, table.area_px, strict=True)) == {0: 391.0, 1: 9.0}
    assert (summary.area_m2, summary.sieved_px) == (None, 8)
    assert table.geometry[list(table.class_id).index(1)].bounds == (3, -6, 6, -3)  # where QGIS shows the map


@pytest.mark.parametrize("place", ["UTM south", "no CRS"])
@pytest.mark.parametrize("min_area_m2", [0.0, 1.0])
def test_an_empty_map_gives_an_empty_layer(tmp_path: Path, place: str, min_area_m2: float) -> None:
    summary, table = to_polygons(tmp_path, np.full((50, 40), 255, np.uint8), place, min_area_m2=min_area_m2, chunk=16)
    assert (summary.polygons, len(table), summary.sieved_px) == (0, 0, 0)
    areas = ["area_px"] if place == "no CRS" else ["area_m2", "area_ha"]
    assert list(table.columns) == ["class_id", "class_name", *areas, "geometry"]
    info = pyogrio.read_info(tmp_path / "map.gpkg", layer=LAYER)
    assert (info["geometry_type"], info["ogr_types"][0]) == ("Polygon", "OFTInteger")


def test_batches_together_hold_every_polygon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_HW = blobs(100, 100)
    monkeypatch.setattr(geopackage, "BATCH_VERTICES", 60)
    _, table = to_polygons(tmp_path, label_HW, min_area_m2=0.0, tolerance_px=0.0, chunk=16)
    assert len(table) == count_regions(label_HW)
    np.testing.assert_array_equal(burn(table, label_HW, "UTM south"), label_HW)


def test_progress_counts_chunks(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    to_polygons(tmp_path, blobs(50, 40), chunk=16, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(13)]


# The sieve


def plain_sieve(label_HW: NDArray[np.uint8], smallest: int) -> NDArray[np.uint8]:
    """Patches in a sea of one class: those that are too small become sea, or stay where nodata surrounds them."""
    sieved_HW = label_HW.copy()
    for class_id in np.unique(label_HW[(label_HW != 0) & (label_HW != 255)]):
        patch_HW, count = ndimage.label(label_HW == class_id)
        for patch in range(1, count + 1):
            inside_HW = patch_HW == patch
            around_HW = ndimage.binary_dilation(inside_HW) & ~inside_HW
            if inside_HW.sum() < smallest and (label_HW[around_HW] == 0).any():
                sieved_HW[inside_HW] = 0
    return sieved_HW


@pytest.mark.parametrize("chunk", [8, 25, 1000])
def test_small_patches_vanish_wherever_chunks_meet(tmp_path: Path, chunk: int) -> None:
    generator = np.random.default_rng(1)
    label_HW = np.zeros((120, 130), np.uint8)
    for row in range(2, 112, 8):
        for col in range(2, 122, 8):  # patches of 1 to 36 pixels that do not touch each other
            height, width = generator.integers(1, 7, 2)
            label_HW[row : row + height, col : col + width] = generator.choice([1, 2, 3, 255])
    label_HW[40:60, 40:60] = 255
    label_HW[50:52, 50:52] = 4  # an island within nodata has no neighbour to go to
    expected_HW = plain_sieve(label_HW, 12)
    summary, table = to_polygons(tmp_path, label_HW, min_area_m2=12 * 0.0025, tolerance_px=0.0, chunk=chunk)
    np.testing.assert_array_equal(burn(table, label_HW, "UTM south"), expected_HW)
    assert summary.sieved_px == (label_HW != expected_HW).sum() > 300


@settings(max_examples=15, deadline=None)
@given(label_HW=labels, chunk=chunks, smallest=st.integers(0, 250))
def test_the_sieve_is_gdals_on_the_whole_array(
    tmp_path_factory: pytest.TempPathFactory, label_HW: NDArray[np.uint8], chunk: int, smallest: int
) -> None:
    folder = tmp_path_factory.mktemp("sieve")
    summary, table = to_polygons(folder, label_HW, "no CRS", min_area_m2=smallest, tolerance_px=0.0, chunk=chunk)
    size = min(max(smallest, 1), label_HW.size)
    expected_HW = features.sieve(label_HW, size, mask=label_HW != 255, connectivity=4)
    np.testing.assert_array_equal(burn(table, label_HW, "no CRS"), expected_HW)
    assert summary.sieved_px == (label_HW != expected_HW).sum()
    assert ((expected_HW == 255) == (label_HW == 255)).all()


def test_the_smallest_patch_is_meant_in_square_metres(tmp_path: Path) -> None:
    label_HW = np.zeros((60, 60), np.uint8)
    label_HW[5:25, 5:25] = 1  # 400 pixels of 5 cm: one square metre
    label_HW[30:50, 30:50] = 2
    label_HW[30, 30] = 0
    _, table = to_polygons(tmp_path, label_HW, tolerance_px=0.0)
    assert dict(zip(table.class_id, table.area_m2.round(4), strict=True)) == {0: 8.0, 1: 1.0}


def test_a_map_smaller_than_the_smallest_patch_survives(tmp_path: Path) -> None:
    label_HW = np.full((6, 5), 255, np.uint8)
    label_HW[1:3, 1:4], label_HW[5, 4] = 3, 2
    _, table = to_polygons(tmp_path, label_HW, min_area_m2=1000.0, tolerance_px=0.0)
    np.testing.assert_array_equal(burn(table, label_HW, "UTM south"), label_HW)


# What a user can do wrong, and what the world can


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "map.gpkg"
    out.write_text("mine")
    for ending in ("-wal", "-shm", "-journal"):
        (tmp_path / f"map.gpkg{ending}").write_text("of the old file")
    land_cover = write_map(tmp_path / "map.tif", blobs(30, 30))
    with pytest.raises(RasterError, match=r"map\.gpkg exists; .*--overwrite"):
        write_polygons(land_cover, out, SALAK)
    assert out.read_text() == "mine"
    write_polygons(land_cover, out, SALAK, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.gpkg", "map.tif"]
    assert len(gpd.read_file(out)) > 0


def test_requests_that_cannot_work_are_refused(tmp_path: Path) -> None:
    land_cover = write_map(tmp_path / "map.tif", blobs(30, 30))
    (tmp_path / "folder.gpkg").mkdir()
    (tmp_path / "text.tif").write_text("no raster")
    with rasterio.open(
        tmp_path / "rgb.tif", "w", driver="GTiff", dtype="uint8", count=3, height=2, width=2, transform=UTM
    ) as dataset:
        dataset.write(np.zeros((3, 2, 2), np.uint8))
    before = sorted(tmp_path.iterdir())
    for source, out, message in (
        (land_cover, tmp_path / "map.shp", r"map\.shp is not named \.gpkg"),
        (land_cover, tmp_path / "folder.gpkg", "is a folder"),
        (land_cover, tmp_path / "absent" / "map.gpkg", "absent does not exist; create it"),
        (tmp_path / "absent.tif", tmp_path / "map.gpkg", r"absent\.tif does not exist"),
        (tmp_path / "text.tif", tmp_path / "map.gpkg", r"text\.tif cannot be read as a land-cover map"),
        (tmp_path / "rgb.tif", tmp_path / "map.gpkg", r"rgb\.tif is not one band of class ids"),
    ):
        with pytest.raises(RasterError, match=message):
            write_polygons(source, out, SALAK)
    for options in ({"min_area_m2": -1.0}, {"tolerance_px": math.nan}, {"chunk": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            write_polygons(land_cover, tmp_path / "map.gpkg", SALAK, **options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("min_area_m2", [0.0, 1.0])
def test_a_map_of_other_classes_is_refused(tmp_path: Path, min_area_m2: float) -> None:
    label_HW = blobs(30, 30)
    label_HW[20, 20] = 7
    land_cover = write_map(tmp_path / "map.tif", label_HW)
    with pytest.raises(RasterError, match=r"holds class 7, but the built-in salak class map ends at 6; name the class"):
        write_polygons(land_cover, tmp_path / "map.gpkg", SALAK, min_area_m2=min_area_m2)
    assert list(tmp_path.iterdir()) == [land_cover]


@pytest.mark.parametrize("min_area_m2", [0.0, 1.0])
def test_a_torn_map_leaves_nothing_behind(tmp_path: Path, min_area_m2: float) -> None:
    land_cover = write_map(tmp_path / "map.tif", blobs(300, 300))
    land_cover.write_bytes(land_cover.read_bytes()[:40_000])
    with pytest.raises(RasterError, match=r"map\.tif cannot be read as a land-cover map; make it again"):
        write_polygons(land_cover, tmp_path / "map.gpkg", SALAK, min_area_m2=min_area_m2)
    assert list(tmp_path.iterdir()) == [land_cover]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, writing fails once a file has so many bytes."""
    import resource  # POSIX only

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize(("min_area_m2", "size"), [(0.0, 150_000), (0.0, 50_000), (1.0, 50_000)])
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path, min_area_m2: float, size: int) -> None:
    land_cover = write_map(tmp_path / "map.tif", blobs(300, 300, sigma=1.0))
    out = tmp_path / "map.gpkg"
    out.write_text("mine")
    with largest_file(size), pytest.raises(RasterError, match=r"map\.gpkg c.* written .*is the disk full\?"):
        write_polygons(land_cover, out, SALAK, min_area_m2=min_area_m2, tolerance_px=0.0, overwrite=True)
    assert out.read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.gpkg", "map.tif"]
