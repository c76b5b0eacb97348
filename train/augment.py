"""Weak views on the device: one warp and one change of colour for each sample, the same warp for image and label.

Axes: B image, C channel, H row, W column.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from salakseg.train.colour import MEAN, STD, change_colours, colour_change
from salakseg.train.data import Batch
from salakseg.train.drawing import Floats, send, spread, uniforms
from salakseg.train.settings_views import AugmentConfig

STRIDE = 16
"""Pixels from one side of multi-scale batches to the next."""

_OUTSIDE = 256
"""What a label says beyond the picture while it is warped; 255 is ignored, too, but inside."""


@dataclass(frozen=True, slots=True)
class View:
    """A batch that the network can learn from.

    Attributes:
        image_BCHW: Normalised, float32; a weak view is 0, the mean colour, outside the picture.
        label_BHW: Class ids, int64, 255 where ignored and where the view shows what lies outside the picture.
    """

    image_BCHW: Tensor
    label_BHW: Tensor


@torch.no_grad()
def weak_view(batch: Batch, config: AugmentConfig, crop: int, generator: np.random.Generator) -> View:
    """Random scale, crop, rotation, mirror and colour of every sample. The CPU does not wait for the device.

    Args:
        batch: Patches on the device; the sizes on the CPU.
        config: How far the changes go.
        crop: Side of the view in pixels.
        generator: Source of everything random.
    """
    size_B2, padded = np.asarray(batch.size_B2.numpy(), np.float64), batch.label_BHW.shape[1:]
    zoom, column, row, turn, angle, *colours = uniforms(generator, len(size_B2), 8)
    brightness, contrast, saturation = (spread(unit, config.jitter) for unit in colours)
    matrix_B23 = _view_to_picture(size_B2, config, crop, (zoom, column, row, turn, angle))
    change_BC7 = colour_change(brightness, contrast, saturation, np.full(3, 1 / 255))
    constants = (255 * MEAN, 1 / (255 * STD), -MEAN / STD, 1 / STD)
    drawn = [_in_grid_units(matrix_B23, padded), size_B2, change_BC7]
    matrix, size, change, *sent = send(batch.image_BCHW.device, [*drawn, *constants])
    mean_C11, scale_C11, shift_C11, inverse_C11 = (constant.view(3, 1, 1) for constant in sent)

    # Batches come with the channels innermost, which the warp on a CPU is twice as slow with
    image_BCHW, label_B1HW = batch.image_BCHW.contiguous() - mean_C11, batch.label_BHW.unsqueeze(1) - float(_OUTSIDE)
    if (size_B2 != padded).any():
        picture_B1HW = _without_padding(size, padded)
        image_BCHW, label_B1HW = image_BCHW * picture_B1HW, label_B1HW * picture_B1HW
    # Outside both are 0, which is also what the warp fills in
    grid_BHW2 = _grid(matrix, crop)
    image_BCHW = functional.grid_sample(image_BCHW, grid_BHW2, mode="bilinear", align_corners=False)
    label_B1HW = functional.grid_sample(label_B1HW, grid_BHW2, mode="nearest", align_corners=False)
    if config.jitter > 0:
        image_BCHW = torch.addcmul(shift_C11, change_colours(image_BCHW, change), inverse_C11)
        image_BCHW.mul_(label_B1HW != 0)
    else:
        image_BCHW.mul_(scale_C11)
    return View(image_BCHW, label_B1HW.squeeze(1).add_(_OUTSIDE).clamp_(max=255).long())


def resize_view(view: View, config: AugmentConfig, generator: np.random.Generator) -> View:
    """The whole view at a random side of `sides`: V3's multi-scale batches."""
    side = int(generator.choice(sides(config)))
    image = functional.interpolate(view.image_BCHW, size=(side, side), mode="bilinear", align_corners=False)
    label = functional.interpolate(view.label_BHW.unsqueeze(1).float(), size=(side, side), mode="nearest-exact")
    return View(image, label.squeeze(1).long())


def sides(config: AugmentConfig) -> list[int]:
    """Sides of multi-scale batches in pixels: from ``scale_min`` in steps of the encoders' stride, and ``scale_max``.

    Few, because a GPU plans its convolutions anew for every size that it has not seen.
    """
    return [*range(config.scale_min, config.scale_max, STRIDE), config.scale_max]


def source_side(config: AugmentConfig, crop: int) -> int:
    """Side in the picture's own pixels that a view needs at most: at the smallest zoom, turned furthest."""
    angle = math.radians(min(config.rotation, 45))
    return math.ceil(crop * (math.cos(angle) + math.sin(angle)) / config.zoom_min)


def _view_to_picture(size_B2: Floats, config: AugmentConfig, crop: int, units: tuple[Floats, ...]) -> Floats:
    """Matrices [B, 2, 3] from (x, y) about the middle of the view to pixel centres (x, y) of the picture.

    Seen from the picture: it is scaled, then a square is cut out, which is turned about its middle and mirrored.
    """
    zoom_unit, column, row, turn, angle_unit = units
    zoom = _zoom(zoom_unit, config)
    angle = np.radians(config.rotation) * (2 * angle_unit - 1)
    extent = crop * (np.abs(np.cos(angle)) + np.abs(np.sin(angle)))
    # Where the scaled picture is larger than the crop, its corner lies up to the surplus outside; else the picture lies
    # somewhere inside. Whole pixels, so that a view at its own scale is not blurred. A turned square keeps away from
    # the edges by what its corners need, as far as there is room.
    surplus_B2 = np.round(size_B2[:, ::-1] * zoom[:, None]) - crop
    free_B2 = np.maximum(surplus_B2, 0)
    margin_B2 = np.minimum(np.ceil((extent - crop) / 2 - 1e-9)[:, None], free_B2 // 2)
    low_B2, high_B2 = np.minimum(surplus_B2, 0) + margin_B2, free_B2 - margin_B2
    offset_B2 = low_B2 + np.floor(np.stack([column, row], axis=1) * (high_B2 - low_B2 + 1))
    middle_B2 = (crop / 2 + offset_B2) / zoom[:, None] - 0.5
    cos, sin = np.cos(angle), np.sin(angle)
    turned_B22 = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    linear_B22 = turned_B22 @ _mirrors(turn, config) / zoom[:, None, None]
    return np.concatenate([linear_B22, middle_B2[:, :, None]], axis=2)


def _zoom(unit: Floats, config: AugmentConfig) -> Floats:
    if config.zoom_step == 0:
        return config.zoom_min + unit * (config.zoom_max - config.zoom_min)
    steps = math.floor((config.zoom_max - config.zoom_min) / config.zoom_step + 1e-6)
    return config.zoom_min + config.zoom_step * np.floor(unit * (steps + 1))


def _mirrors(unit: Floats, config: AugmentConfig) -> Floats:
    """Of each sample one of the eight flips and turns of the square, of the two mirrors, or the identity; [B, 2, 2]."""
    choices = {"none": 1, "horizontal": 2, "dihedral": 8}[config.mirror]
    return _EIGHT[np.floor(unit * choices).astype(np.int64)]


_EIGHT = np.array(
    [
        np.diag([x, y]) @ swap
        for swap in (np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]))
        for y in (1.0, -1.0)
        for x in (1.0, -1.0)
    ]
)
"""The first is the identity, the second mirrors left and right."""


def _in_grid_units(matrix_B23: Floats, size: tuple[int, ...]) -> Floats:
    """The same matrices to the units of ``grid_sample``: -1 and 1 are the outer edges of the first and last pixel."""
    sides_2 = np.array(size[::-1], np.float64)
    grid_B23 = matrix_B23 * (2 / sides_2)[:, None]
    grid_B23[:, :, 2] += 1 / sides_2 - 1
    return grid_B23


def _grid(matrix_B23: Tensor, crop: int) -> Tensor:
    """Where in the picture each pixel of the view lies, [B, crop, crop, 2].

    ``affine_grid`` is a matrix product, which TF32 would round to ten bits, and several times slower.
    """
    steps = torch.arange(crop, device=matrix_B23.device) - (crop - 1) / 2
    by_x, by_y, at_middle = (matrix_B23[:, :, n, None, None] for n in range(3))
    rows_B2H1 = torch.addcmul(at_middle, steps.view(crop, 1), by_y)
    return torch.addcmul(rows_B2H1, steps, by_x).permute(0, 2, 3, 1)


def _without_padding(size_B2: Tensor, padded: tuple[int, ...]) -> Tensor:
    """Which pixels belong to the pictures and not to the padding of the smaller ones, bool [B, 1, H, W]."""
    height, width = (side.view(-1, 1, 1, 1) for side in size_B2.unbind(dim=1))
    rows, columns = (torch.arange(side, device=size_B2.device) for side in padded)
    return (rows.view(-1, 1) < height) & (columns < width)
