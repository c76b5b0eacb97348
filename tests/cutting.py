"""Imagery and labels to cut, and patches put together again. Axes: C red, green, blue; H rows; W columns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, SALAK
from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import index_patches
from salakseg.prepare.grid import Grid, Labels
from salakseg.prepare.request import LabelSource

UTM_SOUTH = Affine(0.05, 0, 431000, 0, -0.05, 9154000)
DEGREES = Affine(4.5e-7, 0, 110.4, 0, -4.5e-7, -7.6)
ROTATED = Affine.translation(431000, 9154000) @ Affine.rotation(30) @ Affine.scale(0.05, -0.05)


@dataclass(slots=True)
class ArrayLabels:
    """Labels that are all in memory."""

    label_HW: NDArray[np.uint8]
    closed: bool = False

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        found_HW = np.full((height, width), IGNORE_INDEX, np.uint8)
        part_HW = self.label_HW[row : row + height, col : col + width]
        found_HW[: part_HW.shape[0], : part_HW.shape[1]] = part_HW
        return found_HW

    def close(self) -> None:
        self.closed = True


def label_source(label_of: Callable[[Grid, Path], Labels | None] | NDArray[np.uint8], **options: Any) -> LabelSource:
    """Labels of one array for every source, or of a function."""
    if isinstance(label_of, np.ndarray):
        return LabelSource(options, lambda grid, path: ArrayLabels(label_of), lambda path: {})
    return LabelSource(options, label_of, lambda path: {})


def random_image(height: int, width: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (3, height, width), dtype=np.uint8)


def random_label(height: int, width: int, labelled: float = 0.7, seed: int = 2) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    label_HW = generator.integers(0, len(SALAK), (height, width), dtype=np.uint8)
    label_HW[generator.random((height, width)) > labelled] = IGNORE_INDEX
    return label_HW


def write_mosaic(path: Path, bands: NDArray[Any], **profile: Any) -> Path:
    """A GeoTIFF, in UTM zone 49 south at 5 cm if nothing else is said."""
    count, height, width = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    meanings = profile.pop("colorinterp", None)
    defaults = {"driver": "GTiff", "crs": "EPSG:32749", "transform": UTM_SOUTH, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", count=count, height=height, width=width, **(defaults | profile)) as dataset:
        if meanings is not None:
            dataset.colorinterp = meanings
        dataset.write(bands)
    return path


def write_photo(path: Path, image_CHW: NDArray[np.uint8], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image_CHW.transpose(1, 2, 0))).save(path, **options)
    return path


def stitch(
    root: Path, source: str, height: int, width: int, stride: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """What the patches of a source say of its pixels, by their names alone: image, label, and where a patch is.

    Patches that overlap must agree.
    """
    image_CHW = np.zeros((3, height, width), np.uint8)
    label_HW = np.full((height, width), IGNORE_INDEX, np.uint8)
    seen_HW = np.zeros((height, width), np.bool_)
    index = index_patches(root)
    for patch in index.patches:
        if patch.photo != source:
            continue
        row, col = (int(part) * stride for part in Path(patch.image).stem.split("_patch_")[1].split("_"))
        pixels_CHW = read_image(index.image_path(patch)).transpose(2, 0, 1)
        there = slice(row, min(row + pixels_CHW.shape[1], height)), slice(col, min(col + pixels_CHW.shape[2], width))
        inside = slice(0, there[0].stop - row), slice(0, there[1].stop - col)
        ids_HW = np.full(pixels_CHW.shape[1:], IGNORE_INDEX, np.uint8)
        if patch.mask is not None:
            mask = read_mask(index.mask_path(patch), SALAK)
            assert not mask.unknown
            ids_HW = mask.label_HW
        beyond_HW = np.ones(ids_HW.shape, np.bool_)
        beyond_HW[inside] = False
        assert not pixels_CHW[:, beyond_HW].any()
        assert (ids_HW[beyond_HW] == IGNORE_INDEX).all()
        again_HW = seen_HW[there]
        assert (image_CHW[:, *there][:, again_HW] == pixels_CHW[:, *inside][:, again_HW]).all()
        assert (label_HW[there][again_HW] == ids_HW[inside][again_HW]).all()
        image_CHW[:, *there], label_HW[there], seen_HW[there] = pixels_CHW[:, *inside], ids_HW[inside], True
    return image_CHW, label_HW, seen_HW


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def times(root: Path) -> dict[str, int]:
    """When every file below a folder was last changed."""
    return {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
