"""Maps as files that other programs understand: cloud-optimised, with their colours, put together from stripes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rio_cogeo.cogeo import cog_validate

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.assemble import Georeference, assemble
from salakseg.mapping.layers import CLASSES, CONFIDENCE, PROBABILITIES, Layers
from salakseg.mapping.plan import MapPlan, make_plan
from salakseg.mapping.stripes import StripeFolder, StripeRecord

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
ODD_NAMES = ClassMap(
    (
        LandClass(0, "none <0>", (1, 2, 3)),
        LandClass(1, 'Tom & "Jerry"', (4, 5, 6)),
        LandClass(2, "Überschwemmung, sawah 稻", (7, 8, 9)),
    )
)
TAGS = {"model": "model.onnx", "orthomosaic": 'a <b> & "c" 稻.tif'}


def random_labels(height: int, width: int, classes: int = 7) -> NDArray[np.uint8]:
    """Blocks of single classes with a corner that is not valid."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (height // 20 + 1, width // 20 + 1), dtype=np.uint8)
    label_HW = coarse.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    label_HW[: height // 4, : width // 4] = 255
    return label_HW


def make_stripes(
    folder: Path, values: Mapping[str, NDArray[np.generic]], layers: Layers, panel_width: int = 100_000
) -> tuple[StripeFolder, MapPlan]:
    """Layers [bands, H, W] cut into stripes and panels, as the mapping leaves them; written a few rows at a time."""
    height, width = values[CLASSES].shape[1:]
    plan = make_plan(height, width, tile=128, overlap=38, panel_width=panel_width)
    stripes = StripeFolder(folder, layers)
    for panel, stripe in plan.all_stripes():
        cols = plan.panels[panel]
        start, stop = plan.stripe_rows(stripe, stripe + 1)
        record = StripeRecord(start, cols.start, stop - start, cols.stop - cols.start)
        opened = stripes.open_stripe(panel, stripe, record)
        for row in range(start, stop, 25):
            part = slice(row, min(row + 25, stop))
            opened.write(row, {layer: array[:, part, cols.start : cols.stop] for layer, array in values.items()})
        opened.commit()
    return stripes, plan


def make_map(
    folder: Path,
    label_HW: NDArray[np.uint8],
    class_map: ClassMap = SALAK,
    place: Georeference | None = None,
    panel_width: int = 100_000,
) -> Path:
    stripes, plan = make_stripes(folder, {CLASSES: label_HW[None]}, Layers(len(class_map)), panel_width)
    place = place or Georeference(rasterio.CRS.from_epsg(32749), UTM)
    assemble(stripes, CLASSES, folder / "map.tif", plan, place, class_map, TAGS)
    return folder / "map.tif"


def test_a_map_is_a_valid_cog_made_from_nothing(tmp_path: Path) -> None:
    label_HW = random_labels(1300, 1100)
    path = make_map(tmp_path, label_HW)
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), label_HW)
        assert (dataset.count, dataset.dtypes, dataset.nodata) == (1, ("uint8",), 255)
        assert dataset.mask_flag_enums == ([MaskFlags.nodata],)  # no alpha, no mask band
        assert dataset.compression.name == "lzw"
        assert dataset.crs.to_epsg() == 32749
        assert dataset.transform == UTM
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, label_HW != 255)


def test_colours_are_those_of_the_class_map_in_the_overviews_too(tmp_path: Path) -> None:
    path = make_map(tmp_path, random_labels(1300, 1100))
    for options in ({}, {"overview_level": 0}, {"overview_level": 1}):
        with rasterio.open(path, **options) as dataset:
            assert dataset.colorinterp == (ColorInterp.palette,)
            table = dataset.colormap(1)
        assert [table[class_id][:3] for class_id in range(7)] == [land_class.color for land_class in SALAK.classes]
        assert all(table[class_id][3] == 255 for class_id in range(7))
        assert table[255][3] == 0


def test_overviews_hold_classes_and_no_averages(tmp_path: Path) -> None:
    greys = ClassMap(tuple(LandClass(i, f"grey {i}", (100 * i, 100 * i, 100 * i)) for i in range(3)))
    label_HW = np.zeros((1024, 1024), np.uint8)
    label_HW[:, ::2] = 2  # averaged, be it ids or colours, the two would be class 1
    path = make_map(tmp_path, label_HW, greys)
    with rasterio.open(path, overview_level=0) as dataset:
        overview_HW = dataset.read(1)
    assert set(np.unique(overview_HW)) <= {0, 2}


def test_a_map_tells_how_it_was_made(tmp_path: Path) -> None:
    with rasterio.open(make_map(tmp_path, random_labels(60, 60))) as dataset:
        assert dataset.tags().items() >= TAGS.items()


@pytest.mark.parametrize("panel_width", [512, 90])
def test_stripes_and_panels_leave_no_trace(tmp_path: Path, panel_width: int) -> None:
    """Their borders lie within blocks; nothing of it shows, and every pixel is in its place."""
    label_HW = np.random.default_rng(1).integers(0, 7, (700, 620), dtype=np.uint8)
    label_HW[300:500, 200:] = 255
    path = make_map(tmp_path, label_HW, panel_width=panel_width)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), label_HW)
        overviews = [dataset.read(1, out_shape=(350, 310))]
    (tmp_path / "whole").mkdir()
    with rasterio.open(make_map(tmp_path / "whole", label_HW)) as dataset:
        np.testing.assert_array_equal(dataset.read(1, out_shape=(350, 310)), overviews[0])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(2.5e-7, 0, 110.123456789, 0, -2.5e-7, -7.654321)),
        ("EPSG:32749", Affine(0.04, 0.03, 431000.123, 0.03, -0.04, 9154000.456)),
        (None, Affine.identity()),
    ],
    ids=["degrees", "rotated", "nowhere"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_lies_where_it_is_told_to_the_last_digit(tmp_path: Path, crs: str | None, transform: Affine) -> None:
    place = Georeference(None if crs is None else rasterio.CRS.from_string(crs), transform)
    with rasterio.open(make_map(tmp_path, random_labels(60, 80), place=place)) as dataset:
        assert dataset.crs == place.crs
        assert dataset.transform == transform


def test_confidence_and_probabilities_are_cogs_with_averages(tmp_path: Path) -> None:
    height, width = 1100, 1050
    label_HW = random_labels(height, width, 3)
    rng = np.random.default_rng(0)
    percent = rng.integers(0, 101, (1, height, width), dtype=np.uint8)
    shares = rng.integers(0, 2, (3, height, width)).astype(np.float32)  # 0 and 1 are exact in float16
    percent[0, label_HW == 255], shares[:, label_HW == 255] = 255, np.nan
    values: dict[str, NDArray[Any]] = {CLASSES: label_HW[None], CONFIDENCE: percent, PROBABILITIES: shares}
    stripes, plan = make_stripes(tmp_path, values, Layers(3, True, "float16"), panel_width=512)
    place = Georeference(rasterio.CRS.from_epsg(32749), UTM)
    names = ("confidence, percent",), ("none <0>", 'Tom & "Jerry"', "Überschwemmung, sawah 稻")
    for layer, described in zip((CONFIDENCE, PROBABILITIES), names, strict=True):
        path = tmp_path / f"{layer}.tif"
        assemble(stripes, layer, path, plan, place, ODD_NAMES, TAGS)
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(), values[layer])
            assert dataset.descriptions == described
            np.testing.assert_array_equal(dataset.dataset_mask() > 0, label_HW != 255)
        with rasterio.open(path, overview_level=0) as dataset:
            found = dataset.read(1)[400:, 400:]  # valid throughout, away from the odd last column
            mean = values[layer][0].astype(float)[:, :].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
            np.testing.assert_allclose(found, mean[400:, 400:], atol=0.51 if layer == CONFIDENCE else 1e-3)
    with rasterio.open(tmp_path / "probabilities.tif") as dataset:
        assert dataset.dtypes == ("float32",) * 3


def test_float16_keeps_every_value_that_it_has(tmp_path: Path) -> None:
    shares = np.random.default_rng(0).random((2, 60, 80)).astype(np.float16).astype(np.float32)
    values: dict[str, NDArray[Any]] = {CLASSES: np.zeros((1, 60, 80), np.uint8), PROBABILITIES: shares}
    stripes, plan = make_stripes(tmp_path, values, Layers(2, False, "float16"))
    two = ClassMap(SALAK.classes[:2])
    assemble(stripes, PROBABILITIES, tmp_path / "p.tif", plan, Georeference(None, UTM), two, {})
    with rasterio.open(tmp_path / "p.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), shares)


def test_a_map_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    stripes, plan = make_stripes(tmp_path, {CLASSES: random_labels(60, 60)[None]}, Layers(7))
    place = Georeference(rasterio.CRS.from_epsg(32749), UTM)
    with pytest.raises(RasterError, match=r"map\.tif cannot be written \(.*\); is the disk full"):
        assemble(stripes, CLASSES, tmp_path / "none" / "map.tif", plan, place, SALAK, {})


# --- stripes ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_stripe_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    stripes = StripeFolder(tmp_path, Layers(7))
    label_HW = random_labels(40, 50)
    record = StripeRecord(100, 20, 40, 50, bad_blocks=[(0, 128, 128, 128)])
    opened = stripes.open_stripe(1, 2, record)
    opened.write(100, {CLASSES: label_HW[None, :15]})
    assert not stripes.is_done(1, 2)
    opened.close()
    assert not stripes.is_done(1, 2)
    opened = stripes.open_stripe(1, 2, StripeRecord(100, 20, 40, 50, bad_blocks=[(0, 128, 128, 128)]))
    opened.write(100, {CLASSES: label_HW[None, :15]})
    opened.write(115, {CLASSES: label_HW[None, 15:]})
    opened.commit()
    assert stripes.is_done(1, 2)
    assert not stripes.is_done(2, 1)
    found = stripes.record(1, 2)
    assert (found.row, found.col, found.height, found.width) == (100, 20, 40, 50)
    assert found.counts == np.bincount(label_HW.ravel(), minlength=256).tolist()
    assert found.bad_blocks == [(0, 128, 128, 128)]
    with rasterio.open(stripes.file(CLASSES, 1, 2)) as dataset:
        np.testing.assert_array_equal(dataset.read(1), label_HW)


def test_a_stripe_whose_writing_failed_never_gets_its_name(tmp_path: Path) -> None:
    stripes = StripeFolder(tmp_path, Layers(7))
    opened = stripes.open_stripe(0, 0, StripeRecord(0, 0, 40, 50))
    opened.write(0, {CLASSES: random_labels(20, 50)[None]})
    with pytest.raises(ValueError, match="shape"):
        opened.write(20, {CLASSES: np.zeros((2, 20, 50), np.uint8)})  # a band too many
    opened.commit()
    assert not stripes.is_done(0, 0)
    assert not stripes.file(CLASSES, 0, 0).exists()


def test_a_stripe_without_rows_has_a_record_alone(tmp_path: Path) -> None:
    stripes = StripeFolder(tmp_path, Layers(7))
    stripes.open_stripe(0, 3, StripeRecord(40, 0, 0, 50)).commit()
    assert stripes.is_done(0, 3)
    assert [path.name for path in tmp_path.iterdir()] == [stripes.record_file(0, 3).name]
