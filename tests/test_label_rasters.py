"""Label rasters: taken as they are on an equal grid, by the nearest pixel on another, and no value misread."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_files import PLACES, SOURCE, grid_at, opened, photo_grid, whole, write_raster
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform
from rasterio.windows import Window

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.data.masks import read_mask
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling import rasters
from salakseg.prepare.labelling.labels import LabelOptions, open_labels, summarise
from salakseg.prepare.labelling.raster_codes import Decoder

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN_READ = Decoder.read
NO_BLACK = ClassMap((LandClass(0, "none", (155, 155, 155)), LandClass(1, "water", (226, 169, 41))))


def random_labels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 7, (height, width)).astype(np.uint8)


def in_colors(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.moveaxis(SALAK.colors[label_HW], -1, 0)


@pytest.mark.parametrize("place_name", PLACES)
@pytest.mark.parametrize("kind", ["index", "float", "palette", "colours", "grey"])
def test_an_equal_grid_is_taken_as_it_is(tmp_path: Path, place_name: str, kind: str) -> None:
    grid = grid_at(place_name)
    label_HW = random_labels(grid.height, grid.width)
    path = tmp_path / "labels.tif"
    if kind == "palette":
        order = np.array([4, 0, 6, 1, 5, 3, 2])
        colormap = {index: tuple(map(int, SALAK.colors[class_id])) for index, class_id in enumerate(order)}
        write_raster(path, np.argsort(order)[label_HW].astype(np.uint8), grid, colormap)
    else:
        values: dict[str, NDArray[Any]] = {
            "index": label_HW,
            "float": label_HW.astype(np.float32),
            "colours": in_colors(label_HW),
            "grey": np.repeat(label_HW[None], 3, 0),
        }
        write_raster(path, values[kind], grid)
    labels = opened(path, grid)
    np.testing.assert_array_equal(whole(labels, grid), label_HW)
    wide = np.full((grid.height + 20, grid.width + 20), 255)
    wide[10:-10, 10:-10] = label_HW
    np.testing.assert_array_equal(labels.read(-10, -10, grid.height + 20, grid.width + 20), wide)
    labels.close()


@quick
@given(
    st.integers(0, 58), st.integers(0, 78), st.integers(1, 30), st.integers(1, 30), st.sampled_from(["32749", "4326"])
)
def test_windows_are_parts_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, col: int, height: int, width: int, epsg: str
) -> None:
    monkeypatch.setattr(rasters, "_LARGEST", 500)

    def read(decoder: Decoder, dataset: Any, path: Path, window: Window) -> NDArray[np.uint8]:
        assert window.height * window.width <= 500, "labels far finer than the source are read in parts"
        return PLAIN_READ(decoder, dataset, path, window)

    monkeypatch.setattr(Decoder, "read", read)
    grid = grid_at("rotated")
    place = Affine(0.03, 0, 430995, 0, -0.03, 9154005) if epsg == "32749" else PLACES["degrees"][1]
    if epsg == "4326":
        lon, lat = transform("EPSG:32749", "EPSG:4326", [430997.0], [9154006.0])
        place = Affine(3e-7, 0, lon[0], 0, -3e-7, lat[0])
    there = Grid(350, 350, place, CRS.from_epsg(epsg))
    path = write_raster(tmp_path / "labels.tif", random_labels(350, 350), there)
    labels = opened(path, grid)
    label_HW = whole(labels, grid)
    height, width = min(height, 60 - row), min(width, 80 - col)
    np.testing.assert_array_equal(labels.read(row, col, height, width), label_HW[row : row + height, col : col + width])
    assert len(np.unique(label_HW)) > 6


@pytest.mark.parametrize("to", ["UTM south", "rotated", "south up"])
@pytest.mark.parametrize("crs", ["EPSG:32749", "EPSG:4326", "EPSG:3857"])
def test_another_grid_is_aligned_by_nearest(tmp_path: Path, to: str, crs: str) -> None:
    """Compared with GDAL's exact warp; a pixel may differ only where a centre falls onto an edge of label pixels."""
    grid = grid_at(to)
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    (x,), (y,) = transform(grid.crs, crs, [x], [y])
    side = 1.3e-6 if crs == "EPSG:4326" else 0.13
    there = Grid(40, 40, Affine(side, 0, x - 20 * side, 0, -side, y + 20 * side), CRS.from_string(crs))
    stored = random_labels(40, 40, 1)
    path = write_raster(tmp_path / "labels.tif", stored, there)
    expected = np.full((grid.height, grid.width), 255, np.uint8)
    reproject(
        stored, expected, src_transform=there.transform, src_crs=there.crs, dst_transform=grid.transform,
        dst_crs=grid.crs, dst_nodata=255, init_dest_nodata=True, resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    label_HW = whole(opened(path, grid), grid)
    col, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (col.ravel(), row.ravel())
    there_x, there_y = transform(grid.crs, crs, x, y)
    there_x, there_y = ~there.transform @ (np.array(there_x), np.array(there_y))
    off_edge = np.minimum(abs(there_x - np.round(there_x)), abs(there_y - np.round(there_y))).reshape(label_HW.shape)
    clear = off_edge > 0.01
    assert clear.mean() > 0.95 and (label_HW != 255).mean() > 0.5
    np.testing.assert_array_equal(label_HW[clear], expected[clear])


@pytest.mark.parametrize("place_name", PLACES)
def test_centres_on_edges_do_not_speckle(tmp_path: Path, place_name: str) -> None:
    """Labels of half the pixel size: every centre falls onto a corner, and always takes the same neighbour."""
    grid = grid_at(place_name)
    fine = Grid(120, 160, grid.transform @ Affine.scale(0.5), grid.crs)
    stored = random_labels(120, 160)
    path = write_raster(tmp_path / "labels.tif", stored, fine)
    np.testing.assert_array_equal(whole(opened(path, grid), grid), stored[1::2, 1::2])


def test_labels_in_another_reference_system_keep_their_place_over_a_wide_mosaic(tmp_path: Path) -> None:
    """Rows of labels along parallels, which bend by several pixels over the 90 km of this mosaic."""
    grid = Grid(60, 3000, Affine(30.0, 0, 498000, 0, -30.0, 9154900), CRS.from_epsg(32749))
    there = Grid(40, 2, Affine(0.6, 0, 110.9, 0, -0.001, -7.63), CRS.from_epsg(4326))
    path = write_raster(tmp_path / "labels.tif", np.repeat(np.arange(40)[:, None] % 7, 2, 1).astype(np.uint8), there)
    col, row = np.meshgrid(np.arange(0, 3000, 50) + 0.5, np.arange(60) + 0.5)
    x, y = grid.transform @ (col.ravel(), row.ravel())
    _, latitude = transform(grid.crs, "EPSG:4326", x, y)
    at = (-7.63 - np.array(latitude).reshape(col.shape)) / 0.001
    clear = abs(at - np.round(at)) > 0.001
    label_HW = whole(opened(path, grid), grid)[:, ::50]
    np.testing.assert_array_equal(label_HW[clear], (np.floor(at) % 7)[clear])
    assert clear.mean() > 0.9


def test_what_is_beyond_the_raster_or_without_data_is_unlabelled(tmp_path: Path) -> None:
    grid = grid_at(height=4, width=6)
    stored = np.array([[1, 255, 9, 0], [2, 9, 9, 6]], np.uint8)
    path = write_raster(tmp_path / "labels.tif", stored, grid, nodata=9)
    assert whole(opened(path, grid), grid).tolist() == [
        [1, 255, 255, 0, 255, 255], [2, 255, 255, 6, 255, 255], [255] * 6, [255] * 6]  # fmt: skip
    # What is stored as 255 somebody wanted to be ignored; no data nobody has looked at.
    assert opened(path, grid, fill="background").read(0, 0, 2, 6).tolist() == [[1, 255, 0, 0, 0, 0], [2, 0, 0, 6, 0, 0]]
    far = Grid(4, 6, Affine(0.05, 0, 500000, 0, -0.05, 9154000), grid.crs)
    assert open_labels(path, far, SOURCE, SALAK, LabelOptions()) is None


def test_a_class_that_is_marked_as_no_data_is_told(tmp_path: Path) -> None:
    grid = grid_at(height=1, width=3)
    labels = opened(write_raster(tmp_path / "labels.tif", np.array([[0, 1, 2]], np.uint8), grid, nodata=0), grid)
    assert whole(labels, grid).tolist() == [[255, 1, 2]]
    assert "marks 0 as no data, so that '__background__' is nowhere in it" in "\n".join(summarise([labels.facts]))


def test_nodata_that_is_no_number(tmp_path: Path) -> None:
    grid = grid_at(height=1, width=3)
    path = write_raster(tmp_path / "labels.tif", np.array([[np.nan, 1, -9999]], np.float32), grid, nodata=-9999)
    assert whole(opened(path, grid), grid).tolist() == [[255, 1, 255]]


@pytest.mark.parametrize(("value", "dtype"), [(7, np.uint8), (254, np.uint8), (-1, np.int16), (2.5, np.float32)])
def test_an_index_that_is_no_class_is_named(tmp_path: Path, value: float, dtype: Any) -> None:
    grid = grid_at()
    stored = np.ones((60, 80), dtype)
    stored[41, 7] = value
    path = write_raster(tmp_path / "labels.tif", stored, grid)
    with pytest.raises(DataError, match=rf"labels\.tif holds the index {value} \(row 41, column 7\).*ids 0 to 6"):
        opened(path, grid)


def test_colours_in_no_class_are_ignored_counted_and_placed(tmp_path: Path) -> None:
    grid = grid_at()
    stored = in_colors(random_labels(60, 80))
    stored[:, 5, 70] = stored[:, 9, 3] = (1, 2, 3)
    path = write_raster(tmp_path / "labels.tif", stored, grid)
    labels = opened(path, grid, fill="background")
    assert labels.read(5, 70, 1, 1) == 255 and labels.read(9, 3, 1, 1) == 255
    told = "\n".join(summarise([labels.facts]))
    assert "Colour 1 2 3 is in no class: 2 pixels ignored (255), first in" in told
    assert "labels.tif (row 5, column 70)." in told


def test_transparent_label_pixels_are_unlabelled(tmp_path: Path) -> None:
    grid = grid_at(height=1, width=3)
    stored = np.concatenate([in_colors(np.array([[1, 2, 0]], np.uint8)), np.array([[[255, 0, 255]]], np.uint8)])
    path = write_raster(tmp_path / "labels.tif", stored, grid, photometric="RGB", alpha="YES")
    assert whole(opened(path, grid), grid).tolist() == [[1, 255, 0]]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 2, 2), np.uint8),
        np.full((3, 2, 2), 155, np.uint8),
        np.ones((3, 2, 2), np.uint8),
        np.array([[[226, 0]], [[169, 0]], [[41, 0]]], np.uint8),
        np.array([[[0, 255]], [[0, 255]], [[0, 255]]], np.uint8),
    ],
)
def test_black_and_grey_are_read_as_masks_are(tmp_path: Path, values: NDArray[np.uint8]) -> None:
    grid = grid_at(height=values.shape[1], width=values.shape[2])
    path = write_raster(tmp_path / "labels.tif", values, grid)
    Image.fromarray(np.ascontiguousarray(np.moveaxis(values, 0, -1))).save(tmp_path / "mask.png")
    labels = open_labels(path, grid, SOURCE, NO_BLACK, LabelOptions())
    assert labels is not None
    expected = read_mask(tmp_path / "mask.png", NO_BLACK)
    np.testing.assert_array_equal(whole(labels, grid), expected.label_HW)
    assert {color: stranger.pixels for color, stranger in labels.facts.strangers.items()} == expected.unknown


@pytest.mark.parametrize("telling", [True, False])
def test_palettes_count_by_class_colours_if_there_are_any(tmp_path: Path, telling: bool) -> None:
    grid = grid_at(height=1, width=3)
    colors = [SALAK.colors[2], (7, 7, 7), SALAK.colors[5]] if telling else [(9, 8, 7), (7, 7, 7), (200, 3, 9)]
    colormap = {index: tuple(map(int, color)) for index, color in enumerate(colors)}
    path = write_raster(tmp_path / "labels.tif", np.array([[0, 1, 2]], np.uint8), grid, colormap)
    labels = opened(path, grid)
    assert whole(labels, grid).tolist() == ([[2, 255, 5]] if telling else [[0, 1, 2]])
    assert list(labels.facts.strangers) == ([(7, 7, 7)] if telling else [])


def test_the_last_entry_of_a_palette_is_unlabelled_though_it_is_black(tmp_path: Path) -> None:
    grid = grid_at(height=1, width=3)
    colormap = {index: tuple(map(int, color)) for index, color in enumerate(SALAK.colors)}
    path = write_raster(tmp_path / "labels.tif", np.array([[0, 1, 255]], np.uint8), grid, colormap)
    labels = opened(path, grid)
    assert whole(labels, grid).tolist() == [[0, 1, 255]]
    assert not labels.facts.strangers


def test_a_raster_must_say_where_it_lies_or_fit(tmp_path: Path) -> None:
    grid = grid_at()
    source = write_raster(tmp_path / "mosaic.tif", np.zeros((3, 60, 80), np.uint8), grid)
    stored = random_labels(60, 80)
    path = write_raster(tmp_path / "mosaic_mask.tif", stored)
    np.testing.assert_array_equal(whole(opened(path, grid, source), grid), stored)
    small = write_raster(tmp_path / "small.tif", stored[:30])
    with pytest.raises(
        DataError, match=r"small\.tif does not say where it lies, and its 30 x 80 pixels are not the 60 x"
    ):
        opened(small, grid, source)
    with pytest.raises(DataError, match=r"missing\.tif cannot be read .* so its labels find no place"):
        opened(small, grid, tmp_path / "missing.tif")


def test_a_mask_of_a_mosaic_that_is_cut_at_another_resolution(tmp_path: Path) -> None:
    grid = grid_at()
    source = write_raster(tmp_path / "mosaic.tif", np.zeros((3, 60, 80), np.uint8), grid)
    stored = random_labels(60, 80)
    path = write_raster(tmp_path / "mosaic_mask.tif", stored)
    coarse = Grid(20, 27, grid.transform @ Affine.scale(3.0), grid.crs)
    label_HW = whole(opened(path, coarse, source), coarse)
    np.testing.assert_array_equal(label_HW[:, :26], stored[1::3, 1:-3:3])
    assert (label_HW[:, 26] == stored[1::3, 79]).all()


def test_bands_that_are_no_labels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", np.zeros((5, 60, 80), np.uint8), grid_at())
    with pytest.raises(DataError, match=r"labels\.tif has 5 bands of uint8; labels are one band"):
        opened(path, grid_at())
    path = write_raster(tmp_path / "deep.tif", np.zeros((3, 60, 80), np.uint16), grid_at())
    with pytest.raises(DataError, match=r"deep\.tif has 3 bands of uint16"):
        opened(path, grid_at())
    path = write_raster(tmp_path / "waves.tif", np.zeros((60, 80), np.complex64), grid_at())
    with pytest.raises(DataError, match=r"waves\.tif has 1 band of complex64"):
        opened(path, grid_at())


def test_damaged_rasters_are_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", random_labels(600, 800), grid_at(height=600, width=800), tiled=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"labels\.tif cannot be read at row 0, column 0; the file is damaged"):
        opened(path, grid_at())
    path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"labels\.tif is no raster that can be read"):
        opened(path, grid_at())


def test_columns_and_layers_are_for_polygons(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", random_labels(60, 80), grid_at())
    for option in ("class_column", "layer", "priority_column"):
        settings: dict[str, Any] = {option: "x"}
        flag = "--" + option.replace("_", "-")
        with pytest.raises(DataError, match=rf"labels\.tif has no columns and layers; leave out {flag}"):
            opened(path, grid_at(), **settings)


def test_a_picture_without_a_place_takes_a_raster_of_its_size(tmp_path: Path) -> None:
    stored = random_labels(60, 80)
    write_raster(tmp_path / "part.tif", stored)
    (tmp_path / "photo.vrt").write_text(
        '<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">part.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    labels = opened(tmp_path / "photo.vrt", photo_grid(), Path("photo.jpg"))
    np.testing.assert_array_equal(whole(labels, photo_grid()), stored)
    with pytest.raises(DataError, match=r"the mask has 60 x 80 pixels \(rows x columns\), photo\.jpg has 60 x 81"):
        opened(tmp_path / "photo.vrt", photo_grid(60, 81), Path("photo.jpg"))


def test_a_raster_without_a_place_is_of_the_mosaic_of_its_name(tmp_path: Path) -> None:
    """The tiles of an orthomosaic have one size, so the size says nothing."""
    grid = grid_at(height=20, width=30)
    label_HW = random_labels(20, 30)
    path = tmp_path / "north.png"
    Image.fromarray(label_HW).save(path)
    north, south = (write_raster(tmp_path / f"{name}.tif", label_HW, grid) for name in ("north", "south"))
    np.testing.assert_array_equal(whole(opened(path, grid, north), grid), label_HW)
    with pytest.raises(DataError, match=r"for south\.tif name it south\.png"):
        opened(path, grid, south)


@pytest.mark.parametrize("kind", ["colours", "palette"])
def test_a_class_that_counts_as_no_data_is_told_in_colours_as_well(tmp_path: Path, kind: str) -> None:
    grid = grid_at(height=20, width=30)
    label_HW = random_labels(20, 30)
    colormap = {number: tuple(map(int, color)) for number, color in enumerate(SALAK.colors)}
    values, palette = (in_colors(label_HW), None) if kind == "colours" else (label_HW, colormap)
    write_raster(tmp_path / "labels.tif", values, grid, palette)
    with rasterio.open(tmp_path / "labels.tif", "r+") as dataset:
        dataset.nodata = 0
    labels = opened(tmp_path / "labels.tif", grid)
    assert (whole(labels, grid)[label_HW == 0] == 255).all()
    assert "marks 0 as no data, so that '__background__' is nowhere" in "\n".join(summarise([labels.facts]))
