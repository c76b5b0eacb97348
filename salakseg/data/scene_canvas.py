"""The canvas on which `salakseg.data.scene` paints: ground covers below, stamped objects with cast shadows above.

Arrays carry their axes: H rows, W columns, C red green blue.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.data.scene_textures import Floats, Mask, mixed, soft


@dataclass(frozen=True, slots=True)
class Stamp:
    """A drawn object, to be pasted with its middle at some pixel.

    Attributes:
        image_HWC: float32 colours, 0 to 1.
        opacity_HW: float32, 0 to 1.
        outline_HW: bool, what a person would draw around as this object.
    """

    image_HWC: Floats
    opacity_HW: Floats
    outline_HW: Mask


@dataclass(slots=True)
class Canvas:
    """The scene while it is painted.

    Attributes:
        image_HWC: float32 colours in full light, 0 to 1.
        valid_HW: bool, the flown area.
        sun: Direction that light comes from, radians.
        label_HW: uint8 class ids.
        shadow_HW: float32, 0 in full light to 1 in a cast shadow.
    """

    image_HWC: Floats
    valid_HW: Mask
    sun: float
    label_HW: NDArray[np.uint8] = field(init=False)
    shadow_HW: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.label_HW = np.full(self.valid_HW.shape, BACKGROUND, np.uint8)
        self.shadow_HW = np.zeros(self.valid_HW.shape, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.valid_HW.shape[0], self.valid_HW.shape[1])

    def pixels(self, share: float) -> int:
        """The number of pixels that makes up this share of the flown area."""
        return int(share * np.count_nonzero(self.valid_HW))

    def cover(self, image_HWC: Floats, distance_HW: Floats, class_id: int) -> None:
        """Paints a ground cover over the whole scene wherever `distance_HW`, in pixels, is negative."""
        self.image_HWC = mixed(self.image_HWC, image_HWC, soft(distance_HW, 2.0))
        self.label_HW[distance_HW < 0] = class_id

    def paste(self, stamp: Stamp, row: int, column: int, class_id: int, tall: float) -> int:
        """Sets an object down with its middle at a pixel.

        Args:
            stamp: The object.
            row: Row of its middle.
            column: Column of its middle.
            class_id: Its class.
            tall: Length of its shadow in pixels.

        Returns:
            The number of flown pixels that the class has gained.
        """
        for step in np.linspace(1, 0, 2 + int(tall / 6))[:-1]:
            down, right = -np.sin(self.sun) * tall * step, -np.cos(self.sun) * tall * step
            here, there = _windows(self.shape, stamp.opacity_HW.shape, row + round(down), column + round(right))
            self.shadow_HW[here] = np.maximum(self.shadow_HW[here], stamp.opacity_HW[there])
        here, there = _windows(self.shape, stamp.opacity_HW.shape, row, column)
        opacity = stamp.opacity_HW[there]
        self.image_HWC[here] = mixed(self.image_HWC[here], stamp.image_HWC[there], opacity)
        self.shadow_HW[here] *= 1 - opacity
        gained = stamp.outline_HW[there] & self.valid_HW[here] & (self.label_HW[here] != class_id)
        self.label_HW[here][stamp.outline_HW[there]] = class_id
        return int(np.count_nonzero(gained))


Window = tuple[slice, slice]


def _windows(shape: tuple[int, int], stamp_shape: tuple[int, ...], row: int, column: int) -> tuple[Window, Window]:
    """Where a stamp with its middle at a pixel meets the scene, as slices of the scene and of the stamp."""
    here, there = [], []
    for size, extent, middle in zip(shape, stamp_shape, (row, column), strict=True):
        first = middle - extent // 2
        start, stop = min(max(first, 0), size), min(max(first + extent, 0), size)
        here.append(slice(start, stop))
        there.append(slice(start - first, stop - first))
    return (here[0], here[1]), (there[0], there[1])
