"""A site's patches painted where they lie: their own pictures, tinted by part. Axes: H, W, C; N patches."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from salakseg.classes import Color
from salakseg.data.blocks import GAP_ENDING
from salakseg.data.masks import read_image
from salakseg.data.patches import PatchIndex
from salakseg.data.splits import Role
from salakseg.errors import DataError
from salakseg.prepare.parts.photo_places import SOURCE
from salakseg.prepare.parts.planes import Ground

# Okabe and Ito's colours, told apart by colour-blind people too; whatever trains is cool, what is held out warm
GROUND_COLORS: dict[Role, Color] = {
    Role.LABELLED: (0, 114, 178),
    Role.UNLABELLED: (120, 180, 225),
    Role.VAL: (230, 159, 0),
    Role.TEST: (204, 40, 90),
    Role.CALIBRATION: (240, 228, 66),
    Role.GAP: (110, 110, 110),
}

LONGER_SIDE = 1100
"""Pixels of a site's longer side."""

MOST_PICTURES = 3000
"""Patches whose pictures are read for the background; of more, some evenly spread ones."""

_PAPER: Color = (236, 236, 232)
_LINE: Color = (255, 255, 255)
_TINT = 0.45
_TINT_ON_PAPER = 0.85
_LINE_STRENGTH = 0.6
_RIM = 16

Ring = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class PaintedSite:
    """A site as a picture.

    Attributes:
        image_HWC: uint8 RGB, north at the top.
        metres_a_pixel: Metres that a pixel's side stands for.
        title: What is there.
    """

    image_HWC: NDArray[np.uint8]
    metres_a_pixel: float
    title: str


def paint_site(index: PatchIndex, uses: Sequence[Role], ground: Ground, site: int) -> PaintedSite:
    """Paints the patches of a site.

    Args:
        index: The patches.
        uses: What each is used for.
        ground: Where each lies.
        site: Which site.
    """
    inside = np.flatnonzero(ground.site_N == site)
    corner_M42 = ground.corner_N42[inside]
    west, south = corner_M42.min(axis=(0, 1))
    east, north = corner_M42.max(axis=(0, 1))
    metres = max(east - west, north - south) / LONGER_SIDE
    width, height = (max(1, round(side / metres)) for side in (east - west, north - south))
    outline_M42 = (corner_M42 - (west, north)) / (metres, -metres)
    canvas = Image.new("RGB", (width, height), _PAPER)
    # The patch of a photo lies somewhere in its photo's ground: there is nothing to be put together
    placed = np.array([ground.source_N[n] != SOURCE for n in inside])
    shown = np.flatnonzero(placed)
    if len(shown) > MOST_PICTURES:
        shown = shown[np.linspace(0, len(shown) - 1, MOST_PICTURES).astype(int)]
    for m in shown.tolist():
        _paste(canvas, index, int(inside[m]), outline_M42[m])
    roles = [uses[n] for n in inside.tolist()]
    sources = Counter(ground.source_N[n] for n in inside.tolist())
    _tint(canvas, outline_M42, roles, _TINT if len(shown) else _TINT_ON_PAPER)
    if index.ground_blocks:
        blocks = [index.patches[n].photo.removesuffix(GAP_ENDING) for n in inside.tolist()]
        _line_blocks(canvas, outline_M42, blocks)
    return PaintedSite(np.asarray(canvas), metres, _title(sources))


def _paste(canvas: Image.Image, index: PatchIndex, number: int, outline_42: NDArray[np.float64]) -> None:
    """Draws a patch's picture into its outline, whichever way it is turned."""
    try:
        picture = Image.fromarray(read_image(index.image_path(index.patches[number])))
    except DataError:
        return  # a broken picture is not this command's business, and must not cost the map
    left, top = np.floor(outline_42.min(axis=0)).astype(int)
    right, bottom = np.ceil(outline_42.max(axis=0)).astype(int)
    if right <= left or bottom <= top:
        return
    shrink = int(min(picture.width / max(right - left, 1), picture.height / max(bottom - top, 1)))
    if shrink > 1:
        picture = picture.reduce(shrink)
    # From canvas to picture, which gets a rim first: a pixel on its edge would come out black
    first, along, down = _axes(outline_42)
    matrix = np.linalg.inv(np.stack([along / picture.width, down / picture.height], axis=1))
    origin = matrix @ (np.array([left, top]) - first) + _RIM
    picture = Image.fromarray(np.pad(np.asarray(picture), ((_RIM, _RIM), (_RIM, _RIM), (0, 0)), "edge"))
    size = (int(right - left), int(bottom - top))
    coefficients = (matrix[0, 0], matrix[0, 1], origin[0], matrix[1, 0], matrix[1, 1], origin[1])
    turned = picture.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in outline_42.tolist()], fill=255)
    canvas.paste(turned, (int(left), int(top)), mask)


def _axes(outline_42: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Upper left corner, and the ways from it to the upper right and to the lower left one.

    An outline begins with the picture's upper left corner; which way round it runs differs.
    """
    first, along, down = outline_42[0], outline_42[1] - outline_42[0], outline_42[3] - outline_42[0]
    if along[0] * down[1] - along[1] * down[0] < 0:  # y runs downwards here
        along, down = down, along
    return first, along, down


def _tint(canvas: Image.Image, outline_M42: NDArray[np.float64], roles: Sequence[Role], strength: float) -> None:
    """Lays each part's colour over its patches; where patches overlap, the gap gives way."""
    order = (Role.GAP, Role.UNLABELLED, Role.LABELLED, Role.VAL, Role.TEST, Role.CALIBRATION)
    rings: dict[Role, dict[bytes, Ring]] = {role: {} for role in order}
    for outline_42, role in zip(outline_M42, roles, strict=True):
        rings[role][outline_42.tobytes()] = _ring(outline_42)  # all patches of a photo have its outline
    for role in order:
        cover = Image.new("L", canvas.size, 0)
        draw = ImageDraw.Draw(cover)
        for ring in rings[role].values():
            draw.polygon(ring, fill=round(255 * strength))
        canvas.paste(Image.new("RGB", canvas.size, GROUND_COLORS[role]), (0, 0), cover)


def _line_blocks(canvas: Image.Image, outline_M42: NDArray[np.float64], blocks: Sequence[str]) -> None:
    """Draws a line wherever one block meets another."""
    number: dict[str, int] = {}
    plane = Image.new("I", canvas.size, 0)
    draw = ImageDraw.Draw(plane)
    for outline_42, block in zip(outline_M42, blocks, strict=True):
        draw.polygon(_ring(outline_42), fill=number.setdefault(block, len(number) + 1))
    number_HW = np.asarray(plane)
    line_HW = np.zeros(number_HW.shape, np.uint8)
    line_HW[:, 1:] |= (number_HW[:, 1:] != number_HW[:, :-1]) & (number_HW[:, 1:] > 0) & (number_HW[:, :-1] > 0)
    line_HW[1:] |= (number_HW[1:] != number_HW[:-1]) & (number_HW[1:] > 0) & (number_HW[:-1] > 0)
    canvas.paste(Image.new("RGB", canvas.size, _LINE), (0, 0), Image.fromarray(line_HW * round(255 * _LINE_STRENGTH)))


def _ring(outline_42: NDArray[np.float64]) -> Ring:
    return [(float(x), float(y)) for x, y in outline_42.tolist()]


def _title(sources: Counter[str]) -> str:
    names = [name for name, _ in sources.most_common(3)]
    return ", ".join(names) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
