"""The picture of a map beside its orthomosaic."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from salakseg.classes import SALAK
from salakseg.errors import RasterError
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.preview import scale_length, write_preview
from salakseg.mapping.stretch import Stretch

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)


def random_labels(height: int, width: int, classes: int = 7) -> NDArray[np.uint8]:
    """Blocks of single classes with a corner that is not valid."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (height // 20 + 1, width // 20 + 1), dtype=np.uint8)
    label_HW = coarse.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    label_HW[: height // 4, : width // 4] = 255
    return label_HW


def make_map(
    folder: Path, label_HW: NDArray[np.uint8], transform: Affine = UTM, crs: str | None = "EPSG:32749"
) -> Path:
    height, width = label_HW.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255}
    with rasterio.open(folder / "map.tif", "w", crs=crs, transform=transform, **profile) as dataset:
        dataset.write(label_HW, 1)
    return folder / "map.tif"


def make_orthomosaic(path: Path, height: int, width: int, crs: str | None = "EPSG:32749") -> Path:
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", crs=crs, transform=UTM, **profile) as dataset:
        dataset.write(np.random.default_rng(0).integers(1, 256, (3, height, width), dtype=np.uint8))
        dataset.write(np.zeros((3, height // 4, width // 4), np.uint8), window=Window(0, 0, width // 4, height // 4))
    return path


@pytest.mark.parametrize("crs", ["EPSG:32749", None])
def test_the_preview_shows_both_and_the_classes_present(tmp_path: Path, crs: str | None) -> None:
    label_HW = random_labels(600, 400)
    label_HW[label_HW == 3] = 4  # class 3 is absent
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 600, 400, crs)
    write_preview(orthomosaic, make_map(tmp_path, label_HW, crs=crs), tmp_path / "preview.png", SALAK, max_side=600)
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    assert picture.shape[1] == 2 * 400 + 36
    shown_px = [(picture == land_class.color).all(axis=2).sum() for land_class in SALAK.classes]
    assert shown_px[3] == 0
    shown = picture[64 : 64 + 600, 424 : 424 + 400]  # below the title, right of the orthomosaic
    colors = np.concatenate([SALAK.colors, np.full((249, 3), 255, np.uint8)])  # transparent is white
    assert (shown == colors[label_HW]).all(axis=2)[2:-2, 2:-2].mean() > 0.999
    assert (picture[64 + 5 : 64 + 145, 17:107] == 255).all()  # so is the orthomosaic's invalid corner
    assert not (tmp_path / ".preview.png.part").exists()


@pytest.mark.parametrize(
    ("height", "width", "transform"),
    [
        (50, 40, UTM),
        (60, 42, UTM),
        (60, 40, UTM @ Affine.translation(0.6, 0)),
        (60, 40, UTM @ Affine.translation(0, -0.6)),
        (60, 40, UTM @ Affine.scale(1.05)),
        (60, 40, UTM @ Affine.rotation(5)),
        (30, 20, UTM),
        (27, 20, UTM @ Affine.scale(2)),
    ],
    ids=["lower", "wider", "shifted", "shifted up", "larger pixels", "turned", "a quarter", "coarse and lower"],
)
def test_the_preview_refuses_a_map_of_something_else(
    tmp_path: Path, height: int, width: int, transform: Affine
) -> None:
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 60, 40)
    other = make_map(tmp_path, random_labels(height, width), transform)
    with pytest.raises(RasterError, match=r"map\.tif does not cover the ground of .*o\.tif; name the map"):
        write_preview(orthomosaic, other, tmp_path / "preview.png", SALAK)
    assert not (tmp_path / "preview.png").exists()


@pytest.mark.parametrize(("step", "height", "width"), [(2, 300, 200), (7, 86, 58), (0.5, 1200, 800)])
def test_a_map_of_other_pixels_is_shown_in_its_place(tmp_path: Path, step: float, height: int, width: int) -> None:
    """The border of two classes across the middle, told in the orthomosaic's pixels."""
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 600, 400)
    label_HW = np.full((height, width), 1, np.uint8)
    label_HW[round(350 / step) :] = 2
    write_preview(
        orthomosaic,
        make_map(tmp_path, label_HW, UTM @ Affine.scale(step)),
        tmp_path / "preview.png",
        SALAK,
        max_side=600,
    )
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    shown = picture[64 : 64 + 600, 424 : 424 + 400]
    for class_id, rows in ((1, slice(2, 344)), (2, slice(356, 598))):
        assert (shown[rows, 2:-2] == SALAK.colors[class_id]).all()


def test_a_map_that_sticks_out_by_a_part_of_a_pixel_keeps_its_scale(tmp_path: Path) -> None:
    """Pixels so coarse that the last one lies mostly beyond the orthomosaic: what is below must not move up."""
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 600, 400)
    step = 110  # 6 rows cover 660 of the orthomosaic's, 4 columns 440
    label_HW = np.full((6, 4), 1, np.uint8)
    label_HW[4:] = 2  # from row 440 on
    land_cover = make_map(tmp_path, label_HW, UTM @ Affine.scale(step))
    write_preview(orthomosaic, land_cover, tmp_path / "preview.png", SALAK, max_side=600)
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    shown = picture[64 : 64 + 600, 424 : 424 + 400]
    for class_id, rows in ((1, slice(2, 435)), (2, slice(445, 598))):
        assert (shown[rows, 2:-2] == SALAK.colors[class_id]).all()


def test_an_orthomosaic_of_other_values_is_shown_by_its_range(tmp_path: Path) -> None:
    path = tmp_path / "o.tif"
    profile = {"driver": "GTiff", "count": 3, "height": 60, "width": 80, "dtype": "uint16", "crs": "EPSG:32749"}
    with rasterio.open(path, "w", transform=UTM, **profile) as dataset:
        dataset.write(np.full((3, 60, 80), 4095, np.uint16))
    land_cover = make_map(tmp_path, np.zeros((60, 80), np.uint8))
    with pytest.raises(RasterError, match="--scale"):
        write_preview(path, land_cover, tmp_path / "preview.png", SALAK)
    write_preview(path, land_cover, tmp_path / "preview.png", SALAK, SourceOptions(stretch=Stretch(0, 8190)))
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    left = (picture.shape[1] - 2 * 80 - 12) // 2
    assert set(picture[70 : 64 + 54, left + 5 : left + 75].ravel().tolist()) <= {127, 128}


@pytest.mark.parametrize(("width_m", "length_m"), [(100, 20), (79, 10), (8, 2), (4, 1), (50_000, 10_000), (0.5, 0.1)])
def test_scale_bars_are_round_and_short(width_m: float, length_m: float) -> None:
    assert scale_length(width_m) == pytest.approx(length_m)
