"""Damaged orthomosaics: refused with one sentence, or mapped around the damage.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odd_sources import (
    ColourEngine,
    colour_class,
    holes,
    mapped,
    refused,
    scene,
    vrt_mosaic,
)
from rasters import read_map, write_raster
from scipy import ndimage

from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stretch import Stretch

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


Place = tuple[int, int, int, int]


def damage(path: Path, block: tuple[int, int], band: int = 1) -> Place:
    """Overwrites the middle of one block on the disk; gives its row, column, height and width."""
    with rasterio.open(path) as dataset:
        name = f"{block[1]}_{block[0]}"
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{name}", "TIFF", bidx=band)) for what in ("OFFSET", "SIZE")
        )
        height, width = dataset.block_shapes[0]
        row, col = block[0] * height, block[1] * width
        place = row, col, min(height, dataset.height - row), min(width, dataset.width - col)
    with path.open("r+b") as file:
        file.seek(offset + size // 3)
        file.write(b"\xff" * (size // 3))
    return place


LAYOUTS: dict[str, tuple[dict[str, Any], tuple[int, int], int]] = {
    "tiled": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (1, 2), 1),
    "at the corner": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (2, 3), 1),
    "striped": ({"blockysize": 10}, (7, 0), 1),
    "band by band": ({"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}, (0, 1), 3),
    "alpha alone": ({"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}, (1, 1), 4),
    "transparent": ({"tiled": True, "blockxsize": 32, "blockysize": 32}, (2, 1), 1),
}


@pytest.mark.parametrize("scale", [None, "percentile"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_block_is_refused_or_mapped_around(tmp_path: Path, layout: str, scale: Any) -> None:
    options, block, band = LAYOUTS[layout]
    bands = np.random.default_rng(1).integers(1, 255, (3, 150, 210), dtype=np.uint8)
    transparent = layout in ("transparent", "alpha alone")
    if transparent:
        bands = np.concatenate([bands, np.where(holes(150, 210), 255, 0).astype(np.uint8)[None]])
    whole_HW, _ = mapped(write_raster(tmp_path / "whole" / "o.tif", bands), stretch=Stretch(6, 249) if scale else None)
    source = write_raster(tmp_path / "o.tif", bands, compress="deflate", **({"interleave": "pixel"} | options))
    row, col, height, width = place = damage(source, block, band)

    message = refused(source, "cannot be read", "damaged", "--skip-bad-blocks", midway=True, stretch=scale)
    found = re.search(r"at row (\d+), column (\d+);", message)
    assert found is not None
    if scale is None:  # the window of 48 pixels that was being read
        assert row - 48 < int(found[1]) < row + height
        assert col - 48 < int(found[2]) < col + width

    engine = ColourEngine()
    label_HW, summary = mapped(source, engine, stretch=scale, skip_bad_blocks=True)
    assert summary.bad_blocks == (place,)
    assert len(summary.warnings) == 1
    assert f"row {row} column {col}" in summary.warnings[0] and "1 block" in summary.warnings[0]
    inside = slice(row, row + height), slice(col, col + width)
    assert (label_HW[inside] == 255).all()
    if scale is not None:  # the range comes from other pixels, if only a few
        with rasterio.open(tmp_path / "map.tif") as made:
            low, high = map(float, made.tags()["scale"].split(","))
        known = np.ones((150, 210), np.bool_)
        known[inside] = False
        if transparent:
            known &= bands[3] > 0
        assert [low, high] == pytest.approx(np.percentile(bands[:3, known], [2, 98]), abs=1)
        expected_HW = mapped(tmp_path / "whole" / "o.tif", stretch=Stretch(low, high))[0]
    else:
        expected_HW = whole_HW
    different_HW = label_HW != expected_HW
    different_HW[inside] = False
    assert not different_HW.any()


@pytest.mark.parametrize("gsd_m", [0.1, 0.165, 0.03])
def test_a_bad_block_reaches_no_further_than_its_neighbourhood_when_resampled(tmp_path: Path, gsd_m: float) -> None:
    image_CHW = scene(150, 210)
    whole_HW, _ = mapped(write_raster(tmp_path / "whole" / "o.tif", image_CHW), ColourEngine(gsd_m=gsd_m))
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "interleave": "pixel"}
    source = write_raster(tmp_path / "o.tif", image_CHW, **options)
    row, col, height, width = place = damage(source, (1, 1))
    label_HW, summary = mapped(source, ColourEngine(gsd_m=gsd_m), skip_bad_blocks=True)
    assert summary.bad_blocks == (place,)
    bad_HW = np.zeros((150, 210), np.bool_)
    bad_HW[row : row + height, col : col + width] = True
    np.testing.assert_array_equal(label_HW == 255, bad_HW)
    # The model's pixels that touch the block, and those between whose centres it lies.
    reach = int(np.ceil(2 * max(1.0, gsd_m / 0.05)))
    near_HW = ndimage.binary_dilation(bad_HW, np.ones((2 * reach + 1, 2 * reach + 1)))
    np.testing.assert_array_equal(label_HW[~near_HW], whole_HW[~near_HW])
    assert (label_HW[near_HW & ~bad_HW] != 255).all()


def test_several_bad_blocks_are_all_listed(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}
    image_CHW = np.random.default_rng(1).integers(1, 255, (3, 150, 210), dtype=np.uint8)
    source = write_raster(tmp_path / "o.tif", image_CHW, **options)
    places = sorted(damage(source, block) for block in ((0, 0), (0, 6), (2, 3), (2, 4), (4, 6), (4, 0)))
    label_HW, summary = mapped(source, skip_bad_blocks=True)
    assert summary.bad_blocks == tuple(places)
    assert "6 blocks" in summary.warnings[0] and "1 more" in summary.warnings[0]
    expected_HW = colour_class(image_CHW)
    for row, col, height, width in places:
        expected_HW[row : row + height, col : col + width] = 255
    np.testing.assert_array_equal(label_HW, expected_HW)


def test_bad_blocks_of_an_earlier_run_are_listed_after_resuming(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}
    source = write_raster(tmp_path / "o.tif", scene(300, 100), **options)
    places = sorted(damage(source, block) for block in ((0, 1), (8, 2)))
    settings = MapSettings(source=SourceOptions(skip_bad_blocks=True))

    class FailingEngine(ColourEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            if len(self.seen) == 12:
                raise RuntimeError("out of memory")
            return super().predict(image_BCHW)

    with pytest.raises(RuntimeError):
        predict_map(source, tmp_path / "map.tif", FailingEngine(), settings)
    summary = predict_map(source, tmp_path / "map.tif", ColourEngine(), settings, resume=True)
    assert summary.resumed > 0
    assert summary.bad_blocks == tuple(places)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), mapped(source, skip_bad_blocks=True)[0])


@pytest.mark.parametrize("transparent", [True, False])
def test_a_missing_part_of_a_mosaic_is_never_mapped(tmp_path: Path, transparent: bool) -> None:
    image_CHW = scene().clip(128, 254)  # all of it class 6, so that black shows as what it is
    source = vrt_mosaic(tmp_path, image_CHW, np.ones((100, 120), np.bool_))
    if not transparent:
        alpha = re.compile(r'<VRTRasterBand dataType="Byte" band="4">.*?</VRTRasterBand>', re.DOTALL)
        source.write_text(alpha.sub("", source.read_text()))
    (tmp_path / "part-45-50.tif").unlink()
    refused(source, "cannot be read", "--skip-bad-blocks", midway=True)
    label_HW, summary = mapped(source, skip_bad_blocks=True)
    assert (label_HW[45:, 50:] == 255).all()
    assert set(np.unique(label_HW)) <= {6, 255}
    assert summary.bad_blocks and summary.warnings  # nothing is left out without a word
