"""``salakseg sample`` and ``salakseg accuracy`` as users type them: from map to points to figures, and all refusals."""

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from helpers import command
from land_covers import UTM, blotches, write_map
from numpy.typing import NDArray

from salakseg.classes import SALAK
from salakseg.evaluate.olofsson import estimate
from salakseg.evaluate.points import DESIGN_KEY, LAYER

DEGREES = Affine(4.5e-7, 0.0, 110.36, 0.0, -4.5e-7, -7.65)
NAMES = SALAK.names


def edit(path: Path, change: Callable[[Any], Any], crs: str | None = None, keep_design: bool = True) -> None:
    """Changes points as a GIS does: the layer's metadata stay unless it is exported."""
    metadata = pyogrio.read_info(path, layer=LAYER)["layer_metadata"]
    table = change(pyogrio.read_dataframe(path, layer=LAYER))
    path.unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        pyogrio.write_dataframe(
            table if crs is None else table.to_crs(crs), path, layer=LAYER, driver="GPKG", geometry_type="Point",
            layer_metadata=metadata if keep_design else None,
        )  # fmt: skip


def labels_of(table: Any, truth_HW: NDArray[np.uint8], grid: Affine) -> NDArray[np.int64]:
    """What is really there."""
    col_N, row_N = np.floor(np.array([~grid @ (point.x, point.y) for point in table.geometry]).T).astype(int)
    return np.asarray(truth_HW[row_N, col_N], np.int64)


def fill(path: Path, truth_HW: NDArray[np.uint8], grid: Affine = UTM, ids: bool = False, **options: Any) -> None:
    """Labels all points by the truth."""

    def change(table: Any) -> Any:
        class_N = labels_of(table, truth_HW, grid)
        table["label"] = class_N if ids else np.array(NAMES, np.object_)[class_N]
        return table

    edit(path, change, **options)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint8], NDArray[np.uint8]]:
    """A map, its labels, and a truth from which one pixel in six differs; not to be changed."""
    label_HW = blotches(240, 300)
    generator = np.random.default_rng(1)
    other_HW = generator.integers(0, 5, label_HW.shape).astype(np.uint8)  # 4 is in no map
    truth_HW = np.where(generator.random(label_HW.shape) < 1 / 5, other_HW, label_HW % 255)
    path = write_map(tmp_path_factory.mktemp("scene") / "map.tif", label_HW)
    return path, label_HW, truth_HW.astype(np.uint8)


Scene = tuple[Path, NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture
def labelled(scene: Scene, tmp_path: Path) -> Path:
    """Labelled points of the scene."""
    command("sample", scene[0], "--out", tmp_path / "points.gpkg", "--seed", 3)
    fill(tmp_path / "points.gpkg", scene[2])
    return tmp_path / "points.gpkg"


def refused(*arguments: object) -> str:
    """The sentence of an error."""
    done = command(*arguments, status=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return str(done.stderr)


# --- the way through ----------------------------------------------------------------------------------------------


def test_from_map_to_points_to_figures(scene: Scene, tmp_path: Path) -> None:
    land_cover, label_HW, truth_HW = scene
    points = tmp_path / "points.gpkg"
    told = command("sample", land_cover, "--out", points, "--points", 600, "--seed", 7)
    assert "points.qml" in told.stderr
    assert "Snake Fruit" in told.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.gpkg", "points.qml"]

    blind = gpd.read_file(points)
    assert list(blind.columns) == ["point", "label", "geometry"]  # no class of the map
    assert blind["label"].isna().all()
    assert blind["point"].tolist() == list(range(1, 601))
    assert blind.crs.to_epsg() == 32749
    steps = np.array([~UTM @ (point.x, point.y) for point in blind.geometry]) - 0.5
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)  # centres of pixels
    design = json.loads(pyogrio.read_info(points)["layer_metadata"][DESIGN_KEY])
    assert design["map_name"] == "map.tif"
    assert design["seed"] == 7
    assert sum(design["stratum_points"]) == 600

    fill(points, truth_HW)
    done = command("accuracy", points, land_cover, "--out", tmp_path / "report")
    mapped_N, true_N = labels_of(blind, label_HW, UTM), labels_of(blind, truth_HW, UTM)
    counts_KK = np.bincount(mapped_N * 7 + true_N, minlength=49).reshape(7, 7)
    pixels_K = np.bincount(label_HW[label_HW != 255], minlength=7)
    expected = estimate(counts_KK, pixels_K * 0.0025 / 1e4, pixels_K)
    record = json.loads((tmp_path / "report" / "accuracy.json").read_text(encoding="utf-8"))
    assert record["counts"] == counts_KK.tolist()
    assert record["unit"] == "ha"
    assert record["design"] == "stratified"
    assert record["overall"]["value"] == pytest.approx(float(expected.overall.value))
    np.testing.assert_allclose(record["areas"]["value"], expected.areas.value)
    np.testing.assert_allclose(record["areas"]["half_width"], expected.areas.half_width)
    assert record["users"]["value"][4] is None  # in no map
    assert record["producers"]["value"][4] == 0
    with (tmp_path / "report" / "per_class.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["area_ha"]) == pytest.approx(expected.areas.value[2], abs=1e-6)
    assert rows[4]["users_accuracy"] == ""
    assert f"overall accuracy {expected.overall.value:.3f} ± {expected.overall.half_width:.3f}" in done.stdout
    assert "a stratified random sample that salakseg drew (seed 7)" in done.stdout.replace("\n", " ").replace("  ", " ")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert abs(expected.overall.value - (label_HW == truth_HW)[label_HW != 255].mean()) < 0.05


def test_the_form_offers_the_classes_in_qgis(scene: Scene, tmp_path: Path) -> None:
    command("sample", scene[0], "--out", tmp_path / "points.gpkg")
    root = ElementTree.parse(tmp_path / "points.qml").getroot()
    widget = root.find("fieldConfiguration/field[@name='label']/editWidget")
    assert widget is not None
    assert widget.get("type") == "ValueMap"
    entries = widget.findall("config/Option/Option[@name='map']/Option/Option")
    assert [entry.get("value") for entry in entries[1:]] == list(NAMES)


@pytest.mark.parametrize("ids", [False, True])
def test_labels_may_be_ids_and_points_in_another_crs(scene: Scene, labelled: Path, tmp_path: Path, ids: bool) -> None:
    plain = command("accuracy", labelled, scene[0]).stdout
    fill(labelled, scene[2], ids=ids, crs="EPSG:4326")
    assert command("accuracy", labelled, scene[0]).stdout == plain

    def rename(table: Any) -> Any:
        return table.rename(columns={"label": "truth"})

    edit(labelled, rename)
    assert command("accuracy", labelled, scene[0], "--label-column", "truth").stdout == plain
    assert "has no column 'label'; name one of its own (point, truth)" in refused("accuracy", labelled, scene[0])


def test_degrees_have_areas_and_no_place_has_pixels(scene: Scene, tmp_path: Path) -> None:
    _, label_HW, truth_HW = scene
    valid = (label_HW != 255).sum()
    for name, crs, transform, grid in (
        ("degrees", "EPSG:4326", DEGREES, DEGREES),
        ("nowhere", None, Affine.identity(), Affine.scale(1, -1)),
    ):
        land_cover = write_map(tmp_path / f"{name}.tif", label_HW, crs, transform)
        points = tmp_path / f"{name}_points.gpkg"
        command("sample", land_cover, "--out", points)
        y_N = gpd.read_file(points).geometry.y
        assert (y_N < 0).all()  # of what lies nowhere too: so QGIS shows it
        fill(points, truth_HW, grid)
        done = command("accuracy", points, land_cover, "--out", tmp_path / name)
        record = json.loads((tmp_path / name / "accuracy.json").read_text(encoding="utf-8"))
        if name == "degrees":
            assert record["unit"] == "ha"
            assert sum(record["areas"]["value"]) == pytest.approx(valid * 0.0497 * 0.0497 / 1e4, rel=0.01)
        else:
            assert record["unit"] == "px"
            assert sum(record["areas"]["value"]) == pytest.approx(valid)
            assert "mapped px" in done.stdout


def test_without_all_labels_the_others_count_and_it_is_said(scene: Scene, labelled: Path) -> None:
    def forget(table: Any) -> Any:
        table.loc[:9, "label"] = [None, "", " "] + [None] * 7
        return table.drop(index=[20, 21])

    before = len(gpd.read_file(labelled))
    edit(labelled, forget)
    told = " ".join(command("accuracy", labelled, scene[0]).stdout.split())
    assert f"{before - 12} labelled points" in told
    assert f"12 of {before} points have no label (2 of them deleted)" in told
    assert "if the hard ones were left out, they are too good" in told


def test_agreement_of_all_points_is_not_sold_as_certainty(scene: Scene, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    command("sample", scene[0], "--out", points)
    fill(points, scene[1])
    told = " ".join(command("accuracy", points, scene[0]).stdout.split())
    assert "overall accuracy 1.000 ± 0.000" in told
    assert "which is not certainty: with 50 points up to 6 %" in told


def test_a_class_of_one_pixel_is_known_when_it_is_drawn(tmp_path: Path) -> None:
    label_HW = blotches(100, 100)
    label_HW[50, 50] = 6
    land_cover = write_map(tmp_path / "map.tif", label_HW)
    command("sample", land_cover, "--out", tmp_path / "points.gpkg")
    fill(tmp_path / "points.gpkg", label_HW)
    assert "1.000 ± 0.000" in command("accuracy", tmp_path / "points.gpkg", land_cover).stdout


def test_names_with_markup_stay_as_they_are(tmp_path: Path) -> None:
    land_cover = write_map(tmp_path / "map.tif", blotches(100, 100), tagged=False)
    mapping = tmp_path / "classes.csv"
    mapping.write_text("class_name\n[red]a[/red]\n[b\nwide &<>\nd\n", encoding="utf-8")
    assert "name them with --class-mapping" in refused("sample", land_cover, "--out", tmp_path / "points.gpkg")
    told = command("sample", land_cover, "--out", tmp_path / "points.gpkg", "--class-mapping", mapping)
    assert "[red]a[/red]" in told.stdout
    assert f"points.gpkg {land_cover} --class-mapping {mapping}" in " ".join(told.stderr.split())

    def label(table: Any) -> Any:
        table["label"] = " WIDE &<>"
        return table

    edit(tmp_path / "points.gpkg", label)
    told = command("accuracy", tmp_path / "points.gpkg", land_cover, "--class-mapping", mapping)
    assert "[red]a[/red]" in told.stdout
    mapping.write_text("class_name\na\nb\nc\nd\n", encoding="utf-8")

    def by_id(table: Any) -> Any:
        table["label"] = 2
        return table

    edit(tmp_path / "points.gpkg", by_id)
    told = refused("accuracy", tmp_path / "points.gpkg", land_cover, "--class-mapping", mapping)
    assert "give the same --class-mapping as then" in told


# --- refusals of sample -------------------------------------------------------------------------------------------


def test_sample_leaves_alone_what_is_there(scene: Scene, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    command("sample", scene[0], "--out", points)
    before = points.read_bytes()
    assert "points.gpkg exists" in refused("sample", scene[0], "--out", points)
    assert points.read_bytes() == before
    command("sample", scene[0], "--out", points, "--seed", 1, "--overwrite")
    assert points.read_bytes() != before
    points.unlink()
    assert "points.qml exists" in refused("sample", scene[0], "--out", points)
    assert not points.exists()


def test_sample_refuses_names_that_do_harm(scene: Scene, tmp_path: Path) -> None:
    assert "is not named .gpkg" in refused("sample", scene[0], "--out", tmp_path / "points.shp")
    assert "does not exist; create it first" in refused("sample", scene[0], "--out", tmp_path / "no" / "points.gpkg")
    land_cover = write_map(tmp_path / "map.tif", scene[1])
    assert "would share its style map.qml" in refused("sample", land_cover, "--out", tmp_path / "map.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_sample_refuses_what_is_no_map(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "points.gpkg"
    assert "does not exist" in refused("sample", tmp_path / "gone.tif", "--out", out)
    (tmp_path / "text.tif").write_text("no raster")
    assert "cannot be read as a land-cover map" in refused("sample", tmp_path / "text.tif", "--out", out)
    empty = write_map(tmp_path / "empty.tif", np.full((50, 50), 255, np.uint8))
    assert "holds no pixel with a class" in refused("sample", empty, "--out", out)
    other = write_map(tmp_path / "other.tif", blotches(50, 50), nodata=0)
    assert "gdalwarp -dstnodata 255" in refused("sample", other, "--out", out)
    mapping = tmp_path / "classes.csv"
    mapping.write_text("class_name\na\nb\n", encoding="utf-8")
    assert "leave out --class-mapping" in refused("sample", scene[0], "--out", out, "--class-mapping", mapping)
    assert "not 100; ask for more --points" in refused("sample", scene[0], "--out", out, "--points", 100)
    assert not out.exists()
    command("sample", scene[0], "--out", out, "--points", 300, "--standard-error", 0.02, status=2)


def test_a_full_disk_leaves_nothing(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pyogrio, "write_dataframe", fail)
    assert "No space left" in refused("sample", scene[0], "--out", tmp_path / "points.gpkg")
    assert list(tmp_path.iterdir()) == []


# --- refusals of accuracy -----------------------------------------------------------------------------------------


def test_points_without_labels_or_with_strange_ones(scene: Scene, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    command("sample", scene[0], "--out", points)
    assert "has no label in its column 'label'" in refused("accuracy", points, scene[0])

    def strange(table: Any) -> Any:
        table["label"] = "Snake Fruit"
        table.loc[[1, 2, 4, 5], "label"] = "Padi"
        table.loc[6, "label"] = "255"
        return table

    edit(points, strange)
    told = refused("accuracy", points, scene[0])
    assert "has the label 'Padi' (points 2, 3, 5 and 1 more), and 1 more such labels, which is no class" in told


def test_files_that_are_no_points(scene: Scene, labelled: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused("accuracy", tmp_path / "gone.gpkg", scene[0])
    (tmp_path / "text.gpkg").write_text("no database")
    assert "cannot be read as a file of points" in refused("accuracy", tmp_path / "text.gpkg", scene[0])

    def areas(table: Any) -> Any:
        return table.set_geometry(table.buffer(1))

    metadata = pyogrio.read_dataframe(labelled)
    pyogrio.write_dataframe(areas(metadata), tmp_path / "areas.gpkg", layer="points", driver="GPKG")
    assert "no single points" in refused("accuracy", tmp_path / "areas.gpkg", scene[0])
    for layer in ("a", "b"):
        pyogrio.write_dataframe(metadata, tmp_path / "two.gpkg", layer=layer, driver="GPKG")
    assert "has 2 layers (a, b)" in refused("accuracy", tmp_path / "two.gpkg", scene[0])
    edit(labelled, lambda table: table.set_crs(None, allow_override=True))
    assert "names no coordinate reference system" in refused("accuracy", labelled, scene[0])


def test_points_of_another_map(scene: Scene, labelled: Path, tmp_path: Path) -> None:
    other_HW = scene[1].copy()
    other_HW[100:, 100:] = 2
    other = write_map(tmp_path / "other.tif", other_HW)
    for design in ((), ("--design", "stratified"), ("--design", "simple")):
        told = refused("accuracy", labelled, other, *design)
        assert "was drawn from another map (map.tif, 300 x 240 pixels), not from" in told
    assert "leave out --design simple" in refused("accuracy", labelled, scene[0], "--design", "simple")
    assert "that salakseg drew" in " ".join(
        command("accuracy", labelled, scene[0], "--design", "stratified").stdout.split()
    )


def test_points_that_were_moved_or_added(scene: Scene, labelled: Path) -> None:
    def move(table: Any) -> Any:
        x, y = UTM @ (150.5, 120.5)
        table.loc[table["point"] == 17, "geometry"] = shapely.Point(x, y)
        return table.loc[[*table.index, 4]]  # a copy of point 5

    def shake(table: Any) -> Any:  # within the pixel
        return table.set_geometry(table.translate(0.02, -0.02))

    edit(labelled, shake)
    command("accuracy", labelled, scene[0])
    edit(labelled, move)
    told = refused("accuracy", labelled, scene[0])
    assert "point 17 moved to other pixels, 1 point added" in told
    assert "no probability sample any more" in told
    told = " ".join(command("accuracy", labelled, scene[0], "--design", "stratified").stdout.split())
    assert "is what --design says; only that they do not lie in clusters was checked" in told


def test_points_of_others_need_a_design(scene: Scene, tmp_path: Path) -> None:
    land_cover, label_HW, truth_HW = scene
    points = tmp_path / "points.gpkg"
    command("sample", land_cover, "--out", points)
    fill(points, truth_HW, keep_design=False)
    told = refused("accuracy", points, land_cover)
    assert "was not drawn by `salakseg sample`" in told
    assert "a 95 % interval needs a probability sample" in told
    told = " ".join(command("accuracy", points, land_cover, "--design", "stratified").stdout.split())
    assert "a stratified random sample by --design" in told

    generator = np.random.default_rng(4)
    pixel = generator.choice(np.flatnonzero(label_HW != 255), 300, replace=False)
    row_N, col_N = np.divmod(pixel, 300)
    write_points_of(points, row_N, col_N, truth_HW)
    done = command("accuracy", points, land_cover, "--design", "simple", "--out", tmp_path / "report")
    told = " ".join(done.stdout.split())
    assert "is poststratified by the classes of the map" in told
    assert "300 labelled points, a simple random sample by --design" in told
    record = json.loads((tmp_path / "report" / "accuracy.json").read_text(encoding="utf-8"))
    expected = estimate(record["counts"], record["mapped_pixels"])  # drawn by others: with replacement or not
    np.testing.assert_allclose(record["users"]["half_width"][:4], expected.users.half_width[:4])
    assert record["seed"] is None


def write_points_of(
    path: Path, row_N: NDArray[np.int64], col_N: NDArray[np.int64], truth_HW: NDArray[np.uint8]
) -> None:
    """Points at the centres of pixels, as somebody else writes them."""
    path.unlink(missing_ok=True)
    x_N, y_N = UTM.c + 0.05 * (col_N + 0.5), UTM.f - 0.05 * (row_N + 0.5)
    names = np.array([*NAMES, *[""] * 249], np.object_)[truth_HW[row_N, col_N]]
    table = gpd.GeoDataFrame({"label": names}, geometry=shapely.points(x_N, y_N), crs="EPSG:32749")
    pyogrio.write_dataframe(table, path, layer="anything", driver="GPKG")


def test_pixels_of_patches_are_no_sample(scene: Scene, tmp_path: Path) -> None:
    land_cover, _, truth_HW = scene
    generator = np.random.default_rng(0)
    corner = np.array([[60, 20], [150, 200], [200, 90]])[generator.integers(0, 3, 400)]
    row_N, col_N = (corner + generator.integers(0, 32, (400, 2))).T
    points = tmp_path / "patches.gpkg"
    write_points_of(points, row_N, col_N, truth_HW)
    for design in ("stratified", "simple"):
        told = refused("accuracy", points, land_cover, "--design", design, "--out", tmp_path / "report")
        assert "lie in clusters (0." in told
        assert "needs a probability sample of the whole map" in told
        assert "`salakseg report`, which resamples photos" in told
    assert not (tmp_path / "report").exists()


def test_a_few_clustered_points_on_each_class_are_seen_together(tmp_path: Path) -> None:
    row, col = np.mgrid[:400, :400]
    label_HW = ((row // 4 + col // 4) % 4).astype(np.uint8)  # every patch holds all classes
    land_cover = write_map(tmp_path / "map.tif", label_HW)
    generator = np.random.default_rng(0)
    inside = [np.argwhere(label_HW[200:240, 200:240] == class_id) + 200 for class_id in range(4)]
    row_N, col_N = np.concatenate([generator.choice(pixels, 3, replace=False) for pixels in inside]).T
    write_points_of(tmp_path / "points.gpkg", row_N, col_N, label_HW)
    told = refused("accuracy", tmp_path / "points.gpkg", land_cover, "--design", "stratified")
    assert "the points on all classes together lie in clusters" in told


def test_points_nowhere_are_named(scene: Scene, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    rows, cols = np.arange(0, 240, 12), np.arange(0, 300, 15)  # two on the corner that is not valid, one beyond
    write_points_of(points, np.append(rows, 30), np.append(cols, 280), scene[2])
    edit_plain = pyogrio.read_dataframe(points)
    edit_plain.loc[len(edit_plain) - 1, "geometry"] = shapely.Point(0, 0)
    edit_plain["label"] = "Jalan"
    pyogrio.write_dataframe(edit_plain, points, layer="anything", driver="GPKG")
    told = refused("accuracy", points, scene[0], "--design", "simple")
    assert "points fid 1, fid 2, fid 3 and 2 more of 21 lie beyond" in told


def test_too_few_points_on_a_class(scene: Scene, labelled: Path) -> None:
    land_cover, label_HW, _ = scene

    def keep_one(table: Any) -> Any:
        rare = np.flatnonzero(labels_of(table, label_HW, UTM) == 3)
        table.loc[rare[1:], "label"] = None
        return table

    edit(labelled, keep_one)
    told = refused("accuracy", labelled, land_cover)
    assert "has 1 labelled point where the map shows Jalan" in told
    assert "label more of the points" in told


def test_accuracy_leaves_alone_what_is_there(scene: Scene, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    command("accuracy", labelled, scene[0], "--out", out)
    assert "exists; name another folder" in refused("accuracy", labelled, scene[0], "--out", out)
    command("accuracy", labelled, scene[0], "--out", out, "--overwrite")
    assert "is a file; --out names a folder" in refused("accuracy", labelled, scene[0], "--out", labelled)
