"""Small real models in numpy that a map can be checked against exactly, and rasters for them.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.workplace import workplace_path


class BrightnessEngine:
    """Classifies each pixel by its own brightness: the plainest model that a map can be checked against exactly."""

    def __init__(self, tile: int = 32, gsd_m: float | None = None) -> None:
        self.tile = tile
        self.gsd_m = gsd_m
        self.class_map: ClassMap = SALAK
        self.name = "brightness"
        self.identity = {"model": "brightness"}
        self.runs_on = "numpy on the CPU"
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(image_BCHW.shape)
        label_BHW = brightness_class(image_BCHW)
        return np.moveaxis(np.eye(7, dtype=np.float32)[label_BHW] * 0.93 + 0.01, -1, 1).astype(np.float32)


class SmoothEngine(BrightnessEngine):
    """Looks at the neighbourhood: a box filter of `reach` pixels to each side, bright or dark against mid-grey."""

    reach = 4

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(image_BCHW.shape)
        prob_BKHW = np.zeros((len(image_BCHW), 7, self.tile, self.tile), np.float32)
        prob_BKHW[:, 1] = self.bright(image_BCHW)
        prob_BKHW[:, 0] = 1 - prob_BKHW[:, 1]
        return prob_BKHW

    def bright(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float64]:
        side = 2 * self.reach + 1
        mean: NDArray[np.float64] = ndimage.uniform_filter(
            image_BCHW.mean(axis=1, dtype=np.float64), (1, side, side), mode="constant"
        )
        return mean / 255


class FailingEngine(BrightnessEngine):
    """Works for some batches; the usual two are less than a row of tiles."""

    def __init__(self, failure: BaseException, batches: int = 2) -> None:
        super().__init__()
        self.failure = failure
        self.batches = batches

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(self.shapes) == self.batches:
            raise self.failure
        return super().predict(image_BCHW)


def brightness_class(image: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Class 0 to 6 of pictures [..., 3, H, W]."""
    label: NDArray[np.intp] = image.sum(axis=-3, dtype=np.intp) // 3 // 37
    return label


def random_rgb(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def blotches(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of soft light and dark blotches around mid-grey."""
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, height, width)), (0, 6, 6))
    return np.asarray(127.5 + 60 * soft / soft.std()).clip(0, 255).astype(np.uint8)


def round_alpha(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (height / 2)) ** 2 + ((x - width / 2) / (width / 2)) ** 2 < 0.8
    return np.where(inside, 255, 0).astype(np.uint8)[None]


def refused(source: Path, out: Path, *words: str, settings: MapSettings | None = None, **arguments: Any) -> None:
    before = content(out.parent)
    with pytest.raises(RasterError) as caught:
        predict_map(source, out, BrightnessEngine(), settings, **arguments)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(out.parent) == before


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too; an empty folder is worth an entry."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def kept(folder: Path, *others: str) -> list[str]:
    """The names of finished stripes beside files of which no other may be there."""
    found = content(folder)
    inside = [name for name in found if Path(name).parts[0] == ".map.tif.unfinished"]
    assert sorted(found.keys() - inside) == sorted(others)
    assert workplace_path(folder / "map.tif") == folder / ".map.tif.unfinished"
    return sorted(Path(name).name for name in inside if Path(name).name.startswith("stripe-"))
