"""Training views on the device: one warp for each sample of the batch, the same for image and label.

The parameters are drawn on the CPU from a generator that depends on seed and step alone, so that a view does not depend
on the device or on what was drawn before.

Axes: B image, C channel, H row, W column.
"""

import math
from dataclasses import dataclass

import kornia.enhance
import numpy as np
import torch
from kornia.geometry.transform import warp_affine
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from salakseg.network.model import normalise
from salakseg.train.data import Batch
from salakseg.train.settings import AugmentConfig


@dataclass(frozen=True, slots=True)
class View:
    """A batch that the network can learn from.

    Attributes:
        image_BCHW: Normalised, float32.
        label_BHW: Class ids, int64, 255 where ignored and where the view shows what lies outside the picture.
    """

    image_BCHW: Tensor
    label_BHW: Tensor


def weak_view(batch: Batch, config: AugmentConfig, crop: int, generator: np.random.Generator) -> View:
    """Random scale, crop, mirror and colour of every sample.

    Args:
        batch: Patches on the device.
        config: How far the changes go.
        crop: Side of the view in pixels.
        generator: Source of everything random.
    """
    matrices = [_source_to_view(size, config, crop, generator) for size in batch.size_B2.tolist()]
    matrix_B23 = torch.from_numpy(np.stack(matrices)[:, :2].astype(np.float32)).to(batch.image_BCHW.device)
    image_BCHW = batch.image_BCHW.float() / 255
    if config.jitter > 0:
        image_BCHW = _jitter(image_BCHW, config.jitter, generator)
    image_BCHW = warp_affine(normalise(image_BCHW), matrix_B23, (crop, crop), mode="bilinear")
    # The warp fills with 0, which is a class: labels are moved up by one, so that the fill becomes ignore. 255 + 1
    # wraps round to the same 0.
    shifted_B1HW = (batch.label_BHW.unsqueeze(1) + 1).float()
    label_BHW = warp_affine(shifted_B1HW, matrix_B23, (crop, crop), mode="nearest").squeeze(1).long()
    return View(image_BCHW, torch.where(label_BHW == 0, 255, label_BHW - 1))


def resize_view(view: View, config: AugmentConfig, generator: np.random.Generator) -> View:
    """The whole view at a random side from ``scale_min`` to ``scale_max``: V3's multi-scale batches."""
    side = int(generator.integers(config.scale_min, config.scale_max + 1))
    image = functional.interpolate(view.image_BCHW, size=(side, side), mode="bilinear", align_corners=False)
    label = functional.interpolate(view.label_BHW.unsqueeze(1).float(), size=(side, side), mode="nearest-exact")
    return View(image, label.squeeze(1).long())


def _source_to_view(
    size: list[int], config: AugmentConfig, crop: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Matrix [3, 3] from pixel centres (x, y) of the picture to those of the view."""
    height, width = size
    zoom = _draw_zoom(config, generator)
    # Where the scaled picture is larger than the crop, its corner lies up to the surplus outside; else the picture lies
    # somewhere inside. Whole pixels, so that a view at its own scale is not blurred.
    surplus = [round(side * zoom) - crop for side in (width, height)]
    offset_x, offset_y = (int(generator.integers(min(s, 0), max(s, 0) + 1)) for s in surplus)
    scale_crop = np.array(
        [[zoom, 0, 0.5 * zoom - 0.5 - offset_x], [0, zoom, 0.5 * zoom - 0.5 - offset_y], [0, 0, 1]], dtype=np.float64
    )
    return _mirror(config, crop, generator) @ scale_crop


def _draw_zoom(config: AugmentConfig, generator: np.random.Generator) -> float:
    if config.zoom_step == 0:
        return float(generator.uniform(config.zoom_min, config.zoom_max))
    steps = math.floor((config.zoom_max - config.zoom_min) / config.zoom_step + 1e-6)
    return config.zoom_min + config.zoom_step * int(generator.integers(0, steps + 1))


def _mirror(config: AugmentConfig, crop: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """One of the square's flips and turns about the middle of the view."""
    flip_x, flip_y, transpose = (int(bit) for bit in generator.integers(0, 2, size=3))
    linear = np.eye(2)
    if config.mirror in ("horizontal", "dihedral") and flip_x:
        linear = np.diag([-1.0, 1.0]) @ linear
    if config.mirror == "dihedral":
        linear = (np.diag([1.0, -1.0]) if flip_y else np.eye(2)) @ linear
        linear = (np.array([[0.0, 1.0], [1.0, 0.0]]) if transpose else np.eye(2)) @ linear
    middle = np.full(2, (crop - 1) / 2)
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ middle
    return matrix


def _jitter(image_BCHW: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor from 1 - strength to 1 + strength."""
    factors = 1 + strength * generator.uniform(-1, 1, size=(3, len(image_BCHW)))
    brightness, contrast, saturation = torch.from_numpy(factors.astype(np.float32)).to(image_BCHW.device)
    image_BCHW = (image_BCHW * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
    image_BCHW = kornia.enhance.adjust_contrast_with_mean_subtraction(image_BCHW, contrast)
    return kornia.enhance.adjust_saturation_with_gray_subtraction(image_BCHW, saturation)
