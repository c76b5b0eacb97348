"""Polygon files as labels: the same pixels as GDAL burns, whatever the windows, and no shape lost in silence."""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from helpers import SHARED_DATA
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from label_files import PLACES, SOURCE, burned, grid_at, opened, photo_grid, whole, write_json, write_shapes
from rasterio.crs import CRS
from rasterio.warp import transform, transform_geom

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling import shapes as shapes_module
from salakseg.prepare.labelling.labels import LabelOptions, open_labels, summarise
from salakseg.prepare.labelling.placing import place
from salakseg.prepare.labelling.shapes import ShapeLabels, burn, clean_polygons, needed_vertices

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = SALAK.names


def blob(generator: np.random.Generator, height: int, width: int, corners: int) -> Any:
    """A star-shaped polygon in pixel coordinates that may reach beyond the grid."""
    angle = np.sort(generator.uniform(0, 2 * np.pi, corners))
    radius = generator.uniform(0.3, 1.0, corners) * generator.uniform(2, 0.7 * max(height, width))
    x, y = generator.uniform(-5, width + 5), generator.uniform(-5, height + 5)
    return shapely.Polygon(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)).buffer(0)


def blobs(seed: int, grid: Grid, count: int = 6, corners: int = 12) -> list[Any]:
    """Polygons in the grid's coordinates, every second one with a hole."""
    generator = np.random.default_rng(seed)
    found: list[Any] = []
    while len(found) < count:
        polygon = blob(generator, grid.height, grid.width, corners)
        if len(found) % 2 and not polygon.is_empty:
            polygon = polygon.difference(shapely.affinity.scale(polygon, 0.5, 0.5))
        if polygon.geom_type == "Polygon" and not polygon.is_empty:
            found.append(polygon)
    t = grid.transform
    return [shapely.affinity.affine_transform(p, [t.a, t.b, t.d, t.e, t.c, t.f]) for p in found]


@pytest.mark.parametrize("place_name", PLACES)
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb"])
def test_polygons_equal_gdal_to_the_pixel(tmp_path: Path, place_name: str, suffix: str) -> None:
    grid = grid_at(place_name)
    shapes = blobs(3, grid)
    ids = [0, 3, 1, 5, 2, 6]
    path = write_shapes(tmp_path / f"labels{suffix}", shapes, PLACES[place_name][0], kind=[NAMES[i] for i in ids])
    if suffix == ".fgb":  # stores features in an order of its own
        stored = gpd.read_file(path)
        shapes, ids = list(stored.geometry), [NAMES.index(name) for name in stored["kind"]]
    label_HW = whole(opened(path, grid), grid)
    np.testing.assert_array_equal(label_HW, burned(shapes, ids, grid))
    assert len(np.unique(label_HW)) > 3 and (label_HW == 255).any()


@quick
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(PLACES)),
    st.tuples(st.integers(-20, 70), st.integers(-20, 90), st.integers(1, 60), st.integers(1, 60)),
    st.booleans(),
)
def test_any_window_equals_gdal_on_the_whole(
    monkeypatch: pytest.MonkeyPatch, seed: int, place_name: str, window: tuple[int, int, int, int], touched: bool
) -> None:
    monkeypatch.setattr(shapes_module, "BLOCK_HEIGHT", 16)
    monkeypatch.setattr(shapes_module, "BLOCK_WIDTH", 32)
    monkeypatch.setattr(shapes_module, "_MANY", 4)
    grid = grid_at(place_name)
    shapes = blobs(seed, grid)
    ids = [(seed + i) % 7 for i in range(len(shapes))]
    placed, chosen = place(np.array(shapes), None, grid)
    labels = ShapeLabels(placed, np.array(ids, np.uint8)[chosen], grid.height, grid.width, touched)
    row, col, height, width = window
    found = shapes_module.read_within(labels.read, (grid.height, grid.width), row, col, height, width)
    wide = np.full((grid.height + 200, grid.width + 200), 255, np.uint8)
    wide[100 : 100 + grid.height, 100 : 100 + grid.width] = burned(shapes, ids, grid, touched)
    np.testing.assert_array_equal(found, wide[100 + row : 100 + row + height, 100 + col : 100 + col + width])


@quick
@example([(0, 1), (1, 0), (0, 0), (1, 5), (0, 5)], (2, 0, 1, 1))
@example([(0, 1), (2, 1), (-1, 0), (1, 5), (0, 5), (0, 0)], (2, 0, 1, 1))
@given(
    st.lists(st.tuples(st.integers(-8, 48), st.integers(-8, 48)), min_size=3, max_size=30),
    st.tuples(st.integers(0, 19), st.integers(0, 19), st.integers(1, 20), st.integers(1, 20)),
)
def test_edges_through_pixel_centres_fall_the_same_way_in_every_window(
    monkeypatch: pytest.MonkeyPatch, corners: list[tuple[int, int]], window: tuple[int, int, int, int]
) -> None:
    """Corners on half pixels put edges exactly through centres, and outlines that cross themselves need no mending."""
    monkeypatch.setattr(shapes_module, "_MANY", 4)
    polygon = shapely.Polygon(np.array(corners) / 2)
    row, col, height, width = window
    part_HW = np.full((height, width), 255, np.uint8)
    burn(part_HW, np.array([polygon]), np.array([1], np.uint8), row, col)
    on_all = burned([polygon], [1], Grid(40, 40, Affine.identity()))
    np.testing.assert_array_equal(part_HW, on_all[row : row + height, col : col + width])


def test_pixels_are_of_the_polygon_that_holds_their_centre(tmp_path: Path) -> None:
    """An oracle that shares nothing with GDAL: shapely on the centre of every pixel."""
    grid = grid_at("rotated")
    shapes = blobs(11, grid, count=4)
    path = write_shapes(tmp_path / "labels.gpkg", shapes, kind=[NAMES[i + 1] for i in range(4)])
    col, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (col, row)
    expected = np.full(col.shape, 255, np.uint8)
    for class_id, shape in enumerate(shapes, start=1):
        expected[shapely.contains_xy(shape, x, y)] = class_id
    np.testing.assert_array_equal(whole(opened(path, grid), grid), expected)


def test_a_ring_keeps_what_a_window_needs_and_little_more() -> None:
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    ring = shapely.get_coordinates(shapely.Polygon(np.stack([500 + 400 * np.cos(angle), 500 + 400 * np.sin(angle)], 1)))
    kept = needed_vertices(ring, 850, 450, 950, 550)
    assert len(kept) < 250
    assert {tuple(p) for p in kept} <= {tuple(p) for p in ring}
    assert len(needed_vertices(ring + 2000, 850, 450, 950, 550)) == 0


@pytest.mark.parametrize(
    ("label_crs", "grid"),
    [
        ("EPSG:4326", grid_at("UTM south", 300, 400)),
        ("EPSG:3857", grid_at("rotated", 300, 400)),
        ("EPSG:32749", grid_at("degrees", 300, 400)),
        ("EPSG:32749", Grid(300, 400, Affine(30.0, 0, 500000, 0, -30.0, 9154000), CRS.from_epsg(32750))),
        ("EPSG:4326", Grid(300, 400, Affine(300.0, 0, 400000, 0, -300.0, 9200000), CRS.from_epsg(32749))),
    ],
)
def test_labels_in_another_reference_system(tmp_path: Path, label_crs: str, grid: Grid) -> None:
    """Compared with the densest outlines that GDAL reprojects; only pixels whose centre lies on an edge may differ."""
    there = [
        shapely.geometry.shape(transform_geom(grid.crs, label_crs, shapely.geometry.mapping(s)))
        for s in blobs(5, grid, corners=4)
    ]
    path = write_shapes(tmp_path / "labels.gpkg", there, label_crs, kind=[NAMES[i] for i in range(6)])
    label_HW = whole(opened(path, grid), grid)
    dense = [shapely.segmentize(s, s.length / 20000) for s in there]
    dense = [shapely.geometry.shape(transform_geom(label_crs, grid.crs, shapely.geometry.mapping(s))) for s in dense]
    expected = burned(dense, list(range(6)), grid)
    differing = np.argwhere(label_HW != expected)
    edges = shapely.union_all([s.boundary for s in dense])
    size = np.sqrt(abs(grid.transform.determinant))
    for row, col in differing:
        point = shapely.Point(grid.transform @ (col + 0.5, row + 0.5))
        assert edges.distance(point) < 0.1 * size
    assert len(differing) < 60
    assert len(np.unique(label_HW)) > 3


def test_a_long_straight_edge_follows_its_bend(tmp_path: Path) -> None:
    """An edge along a parallel leaves its chord by some pixels over the width of this mosaic."""
    grid = Grid(400, 6000, Affine(10.0, 0, 498000, 0, -10.0, 9156000), CRS.from_epsg(32749))
    path = write_shapes(tmp_path / "labels.gpkg", [shapely.box(110.0, -8.0, 112.0, -7.65)], "EPSG:4326")
    label_HW = whole(opened(path, grid), grid)[:, ::40]
    col, row = np.meshgrid(np.arange(0, 6000, 40) + 0.5, np.arange(400) + 0.5)
    x, y = grid.transform @ (col.ravel(), row.ravel())
    _, latitude = transform(grid.crs, "EPSG:4326", x, y)
    above = (np.array(latitude).reshape(col.shape) + 7.65) * 110600 / 10  # pixels to the north of the edge
    assert (label_HW[above < -0.1] == 3).all() and (label_HW[above > 0.1] == 255).all()
    assert (label_HW == 3).any() and (label_HW == 255).any()


def test_labels_of_half_the_world_cover_a_mosaic(tmp_path: Path) -> None:
    """Corners at the poles and beyond the projection's reach do not matter."""
    path = write_shapes(tmp_path / "labels.gpkg", [shapely.box(-180, -90, 180, 90)], "EPSG:4326")
    grid = grid_at("UTM south")
    assert (whole(opened(path, grid), grid) == 3).all()


def test_a_later_feature_lies_on_top_unless_told_otherwise(tmp_path: Path) -> None:
    grid = grid_at()
    x, y = grid.transform.c, grid.transform.f
    box = shapely.box(x, y - 2, x + 2, y)
    path = write_shapes(
        tmp_path / "labels.gpkg", [box, box, box], kind=["Jalan", "Bangunan", "Badan Air"], rank=[2.0, 3.0, None]
    )
    assert opened(path, grid).read(0, 0, 1, 1) == 1
    assert opened(path, grid, priority_column="rank").read(0, 0, 1, 1) == 2
    assert opened(path, grid, priority=("bangunan", "3")).read(0, 0, 1, 1) == 3
    assert opened(path, grid, priority=("bangunan",)).read(0, 0, 1, 1) == 2
    with pytest.raises(DataError, match=r"order of overlaps names 'lake', which is no class"):
        opened(path, grid, priority=("lake",))
    with pytest.raises(DataError, match=r"names 'Jalan' twice"):
        opened(path, grid, priority=("jalan", "3"))
    with pytest.raises(DataError, match=r"no column 'Rank' with priorities; its columns are 'kind', 'rank'"):
        opened(path, grid, priority_column="Rank")
    with pytest.raises(DataError, match=r"column 'kind' holds priorities that are no numbers"):
        opened(path, grid, priority_column="kind")


def test_fill_ignore_and_reviewed(tmp_path: Path) -> None:
    grid = grid_at(height=4, width=4)
    x, y = grid.transform.c, grid.transform.f

    def columns(first: int, last: int) -> Any:
        return shapely.box(x + first * 0.05, y - 0.2, x + last * 0.05, y)

    path = write_shapes(tmp_path / "labels.gpkg", [columns(0, 2), columns(1, 2)], kind=["Jalan", "__ignore__"])
    assert opened(path, grid).read(0, 0, 1, 4).tolist() == [[3, 255, 255, 255]]
    filled = opened(path, grid, fill="background")
    assert filled.read(0, 0, 1, 4).tolist() == [[3, 255, 0, 0]]
    assert filled.read(-1, -1, 2, 6).tolist() == [[255] * 6, [255, 3, 255, 0, 0, 255]]
    reviewed = write_shapes(tmp_path / "reviewed.gpkg", [columns(0, 3)], note=["done"])
    assert opened(path, grid, fill="background", reviewed=reviewed).read(0, 0, 1, 4).tolist() == [[3, 255, 0, 255]]
    far = write_shapes(tmp_path / "far.gpkg", [shapely.box(0, 0, 1, 1)], note=["done"])
    assert open_labels(path, grid, SOURCE, SALAK, LabelOptions(reviewed=far)) is None


def test_a_file_for_many_mosaics_labels_those_that_it_reaches(tmp_path: Path) -> None:
    grid = grid_at()
    path = write_shapes(tmp_path / "labels.gpkg", [shapely.box(431000, 9153990, 431001, 9154000)])
    assert opened(path, grid).facts.shapes == {"Jalan": 1}
    elsewhere = Grid(60, 80, Affine(0.05, 0, 432000, 0, -0.05, 9154000), grid.crs)
    assert open_labels(path, elsewhere, SOURCE, SALAK, LabelOptions()) is None
    beside = Grid(60, 20, Affine(0.05, 0, 431001, 0, -0.05, 9154000), grid.crs)
    assert open_labels(path, beside, SOURCE, SALAK, LabelOptions()) is None, "they share a border alone"
    assert open_labels(None, grid, SOURCE, SALAK, LabelOptions()) is None


def test_what_cannot_be_used_is_counted_and_told(tmp_path: Path) -> None:
    grid = grid_at()
    x, y = grid.transform.c, grid.transform.f
    bow_tie = shapely.Polygon([(x, y), (x + 2, y - 2), (x + 2, y), (x, y - 2)])
    sliver = shapely.box(x + 3, y - 0.01, x + 3.01, y)
    shapes = [bow_tie, shapely.Point(x, y), shapely.LineString([(x, y), (x + 1, y)]), None, sliver, sliver]
    path = write_shapes(tmp_path / "labels.gpkg", shapes, kind=["Jalan", *["Bangunan"] * 4, None])
    labels = opened(path, grid)
    facts = labels.facts
    assert facts.shapes == {"Jalan": 1, "Bangunan": 1} and facts.column == "kind"
    assert facts.left_out == {"that are points or lines": 2, "without geometry": 1, "without a class": 1}
    assert (facts.mended, facts.slivers) == (1, 1)
    lines = "\n".join(summarise([facts, facts]))
    for told in ("polygons, ", "column 'kind'", "Jalan 1, Bangunan 1", "2 shapes that are points or lines, first in",
                 "1 shape with an outline that is not valid", "2 shapes below a pixel's area"):  # fmt: skip
        assert told in lines
    assert labels.read(10, 2, 1, 1) == 3 and labels.read(2, 20, 1, 1) == 255 and labels.read(10, 38, 1, 1) == 3


def test_memory_does_not_grow_with_the_mosaic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_module, "BLOCK_HEIGHT", 2)
    monkeypatch.setattr(shapes_module, "BLOCK_WIDTH", 10)
    labels = ShapeLabels(np.array([shapely.box(0, 0, 40, 400)]), np.array([3], np.uint8), 400, 40)
    for row in range(0, 400, 3):
        assert (labels.read(row, 0, min(3, 400 - row), 40) == 3).all()
        assert len(labels._blocks) <= 4 + 2 * 5


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not part of the repository")
@pytest.mark.parametrize("name", ["ngi_mosaic_rgb_byte.vrt", "australia.tif", "3420B_2010_328_RGB_LATLNG.tif"])
def test_polygons_over_real_mosaics(tmp_path: Path, name: str) -> None:
    """One of them in a reference system without a code, which a GeoPackage writes in its own words."""
    source = SHARED_DATA / "geotiff-kinds" / name
    with rasterio.open(source) as dataset:
        grid = Grid(dataset.height, dataset.width, dataset.transform, dataset.crs)
    shapes = blobs(2, grid, corners=30)
    path = write_shapes(tmp_path / "labels.gpkg", shapes, grid.crs.to_wkt(), kind=[NAMES[i] for i in range(6)])
    differing = whole(opened(path, grid, source), grid) != burned(shapes, list(range(6)), grid)
    assert differing.sum() <= 2, "an edge through a centre, where the reference system is taken for another"


def test_parts_that_overlap_are_one_and_holes_stay() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 6, 6), shapely.box(3, 3, 9, 9)])
    cleaned = clean_polygons(np.array([parts, shapely.box(0, 0, 3, 3).difference(shapely.box(1, 1, 2, 2))]))
    label_HW = np.full((9, 9), 255, np.uint8)
    burn(label_HW, cleaned.parts_P, np.ones(len(cleaned.parts_P), np.uint8))
    assert (label_HW[3:6, 3:6] == 1).all() and cleaned.mended == 1
    hole = np.full((3, 3), 255, np.uint8)
    burn(hole, cleaned.parts_P[cleaned.shape_P == 1], np.array([2], np.uint8))
    assert hole.tolist() == [[2, 2, 2], [2, 255, 2], [2, 2, 2]]


BOX = shapely.box(431000, 9153999, 431001, 9154000)


def column_taken(tmp_path: Path, **columns: Any) -> str | None:
    count = len(next(iter(columns.values())))
    path = write_shapes(tmp_path / "labels.gpkg", [BOX] * count, **columns)
    return opened(path, grid_at()).facts.column


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ({"note": ["a", "b"], "Kelas": ["SNAKE_FRUIT", "badan air "]}, "Kelas"),
        ({"id": [1, 2], "kind": ["jalan", "Jalan"]}, "kind"),
        ({"value": [3, 5], "area": [3.5, 2.5]}, "value"),
        ({"value": ["3", "5.0"]}, "value"),
        ({"a": ["Jalan", None], "b": ["jalan", None]}, "a"),
        ({"kind": ["Jalan", "5"], "n": [1, 2]}, "kind"),
        ({"id": [3, 3]}, "id"),
        ({"kind": ["Jalan", "background"]}, "kind"),
    ],
)
def test_the_column_is_found_by_its_content(tmp_path: Path, columns: dict[str, Any], taken: str) -> None:
    assert column_taken(tmp_path, **columns) == taken


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"a": ["Jalan", "Jalan"], "b": ["Jalan", "Bangunan"]},
            r"several columns .* 'a', 'b'; say which with --class-co",
        ),
        ({"a": ["road", "house"], "n": [8.5, 9]}, r"no column whose values .* columns are 'a', 'n'.* --class-column"),
        (
            {"a": ["Jalan", "Jaln"], "n": [8, 9]},
            r"column 'a' names what is no class: 'Jaln' \(1\); the classes are 0 __b",
        ),
        ({"id": [1, 2]}, r"column 'id' holds numbers that could be class ids or just count"),
        ({"a": [None, None]}, r"no column with values"),
    ],
)
def test_a_column_in_doubt_is_asked_for(tmp_path: Path, columns: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.gpkg.*{told}"):
        column_taken(tmp_path, **columns)


def test_a_class_may_be_called_ignore(tmp_path: Path) -> None:
    class_map = ClassMap((LandClass(0, "none", (0, 0, 0)), LandClass(1, "Ignore", (1, 1, 1))))
    path = write_shapes(tmp_path / "labels.gpkg", [BOX], kind=["ignore"])
    labels = open_labels(path, grid_at(), SOURCE, class_map, LabelOptions())
    assert labels is not None and labels.read(0, 0, 1, 1) == 1


def test_names_that_differ_by_a_space_alone(tmp_path: Path) -> None:
    class_map = ClassMap((LandClass(0, "wet land", (0, 0, 0)), LandClass(1, "wetland", (1, 1, 1))))
    path = write_shapes(tmp_path / "labels.gpkg", [BOX], kind=["Wetland"])
    labels = open_labels(path, grid_at(), SOURCE, class_map, LabelOptions())
    assert labels is not None and labels.read(0, 0, 1, 1) == 1
    with pytest.raises(DataError, match=r"'wet_land' \(1\)"):
        path = write_shapes(tmp_path / "doubt.gpkg", [BOX], kind=["wet_land"])
        open_labels(path, grid_at(), SOURCE, class_map, LabelOptions(class_column="kind"))


def test_a_column_that_is_named(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "labels.gpkg", [BOX, BOX], id=[1, 2], kind=["Jalan", "lake"])
    assert opened(path, grid_at(), class_column="ID").facts.shapes == {"Badan Air": 1, "Bangunan": 1}
    with pytest.raises(DataError, match=r"column 'kind' names what is no class: 'lake' \(1\)"):
        opened(path, grid_at(), class_column="kind")
    with pytest.raises(DataError, match=r"no column 'class'; its columns are 'id', 'kind'"):
        opened(path, grid_at(), class_column="class")


def test_layers(tmp_path: Path) -> None:
    path = tmp_path / "labels.gpkg"
    frame = gpd.GeoDataFrame({"kind": ["Jalan"]}, geometry=[BOX], crs="EPSG:32749")
    frame.to_file(path, layer="roads")
    gpd.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(0, 0)], crs="EPSG:32749").to_file(path, layer="points")
    assert opened(path, grid_at()).facts.shapes == {"Jalan": 1}
    frame.assign(kind="Bangunan").to_file(path, layer="houses")
    with pytest.raises(DataError, match=r"several layers of shapes: roads, houses; name one with --layer"):
        opened(path, grid_at())
    assert opened(path, grid_at(), layer="houses").facts.shapes == {"Bangunan": 1}
    with pytest.raises(DataError, match=r"no layer 'water'"):
        opened(path, grid_at(), layer="water")


def test_where_polygons_lie_is_never_guessed(tmp_path: Path) -> None:
    nowhere = write_shapes(tmp_path / "nowhere.gpkg", [BOX], None)
    with pytest.raises(DataError, match=r"nowhere\.gpkg names no coordinate reference system; set it in QGIS"):
        opened(nowhere, grid_at())
    metres = write_json(tmp_path / "metres.geojson", json.loads(gpd.GeoSeries([BOX]).to_json()))
    content = json.loads(metres.read_text())
    content["features"][0]["properties"] = {"kind": "Jalan"}
    write_json(metres, content)
    with pytest.raises(DataError, match=r"metres\.geojson is read as degrees, .* up to 431001, 9\.154e\+06; export"):
        opened(metres, grid_at())
    with pytest.raises(DataError, match=r"lies in EPSG:32749, but photo\.jpg does not say where it lies"):
        opened(write_shapes(tmp_path / "utm.gpkg", [BOX]), photo_grid(), Path("photo.jpg"))


@pytest.mark.parametrize("upside_down", [False, True])
def test_polygons_in_the_pixels_of_a_photo(tmp_path: Path, upside_down: bool) -> None:
    """QGIS shows a picture without a place beneath the x axis."""
    sign = -1 if upside_down else 1
    box = {"type": "Polygon", "coordinates": [[[1, sign], [3, sign], [3, 4 * sign], [1, 4 * sign], [1, sign]]]}
    features = [{"type": "Feature", "geometry": box, "properties": {"kind": "Jalan"}}]
    path = write_json(tmp_path / "photo.json", {"type": "FeatureCollection", "features": features})
    label_HW = whole(opened(path, photo_grid(6, 5), Path("photo.jpg")), photo_grid(6, 5))
    expected = np.full((6, 5), 255, np.uint8)
    expected[1:4, 1:3] = 3
    np.testing.assert_array_equal(label_HW, expected)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"my labels{suffix}"
    path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"my labels\.\w+ cannot be read as polygons"):
        opened(path, grid_at())
    with pytest.raises(DataError, match=r"nothing\.gpkg does not exist; name the labels"):
        opened(tmp_path / "nothing.gpkg", grid_at())


def test_a_shapefile_without_its_table(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "labels.shp", [BOX])
    (tmp_path / "labels.dbf").unlink()
    with pytest.raises(DataError, match=r"labels\.shp has no column with values.*\.dbf lies beside it"):
        opened(path, grid_at())


def test_a_shapefile_that_is_cut_off(tmp_path: Path) -> None:
    """GDAL reads what is missing as shapes without geometry."""
    path = write_shapes(tmp_path / "labels.shp", [BOX] * 10)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"labels\.shp cannot be read as polygons \(it is cut off\); copy or export"):
        opened(path, grid_at())


def test_a_geopackage_that_is_cut_off(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "labels.gpkg", [BOX] * 400)
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(DataError, match=r"labels\.gpkg cannot be read as polygons"):
        opened(path, grid_at())


def test_a_file_without_any_polygon_is_refused(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "points.gpkg", [shapely.Point(431000, 9154000)] * 2)
    with pytest.raises(DataError, match=r"points\.gpkg has shapes but no polygon .*\(2 that are points or lines\)"):
        opened(path, grid_at())


def test_coordinates_that_are_no_numbers(tmp_path: Path) -> None:
    x, y = 431000, 9154000
    shapes = [shapely.Polygon([(x, y), (x + 1, bad), (x + 1, y - 1), (x, y)]) for bad in (np.nan, np.inf)]
    labels = opened(write_shapes(tmp_path / "labels.gpkg", [*shapes, BOX]), grid_at())
    assert labels.facts.left_out == {"with coordinates that are no numbers": 2}
    assert labels.facts.shapes == {"Jalan": 1}


def test_columns_of_lists_and_dates_are_no_classes(tmp_path: Path) -> None:
    properties = {"kind": "Jalan", "list": [1, 2], "when": "2020-01-01T00:00:00", "more": {"a": 1}, "done": True}
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(BOX), "properties": properties}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32749"}}
    path = write_json(tmp_path / "l.geojson", {"type": "FeatureCollection", "crs": crs, "features": [feature] * 2})
    assert opened(path, grid_at()).facts.column == "kind"


def test_heights_and_collections_are_no_hindrance(tmp_path: Path) -> None:
    inner = shapely.GeometryCollection([shapely.MultiPolygon([BOX]), shapely.Point(431000, 9154000)])
    for name, shape in (("z", shapely.force_3d(BOX, 5.0)), ("c", shapely.GeometryCollection([inner]))):
        labels = opened(write_shapes(tmp_path / f"{name}.gpkg", [shape]), grid_at())
        np.testing.assert_array_equal(whole(labels, grid_at()), burned([BOX], [3], grid_at()))


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "labels.geojson", [BOX])
    pyogrio.read_info(path)
    assert opened(path, grid_at()).facts.shapes == {"Jalan": 1}
    write_shapes(path, [BOX, BOX])
    assert opened(path, grid_at()).facts.shapes == {"Jalan": 2}


def test_a_file_without_features_labels_nothing(tmp_path: Path) -> None:
    empty = gpd.GeoDataFrame({"kind": np.array([], object)}, geometry=np.array([], object), crs="EPSG:32749")
    pyogrio.write_dataframe(empty, tmp_path / "empty.gpkg", geometry_type="Polygon")
    assert open_labels(tmp_path / "empty.gpkg", grid_at(), SOURCE, SALAK, LabelOptions()) is None
