"""What has changed, counted: from two maps to a `Change`.

Axes: H row, W column, K class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.change.pair import Pair, strips
from salakseg.classes import IGNORE_INDEX
from salakseg.errors import RasterError
from salakseg.mapping.areas import SQUARE_METRES_A_HECTARE

UNSURE_BELOW = 60
"""Percent of confidence below which a pixel counts as unsure, unless asked otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What has become of each class.

    Attributes:
        pair: The maps and their grid.
        pixels_KK: Pixels of the grid by their class in the old map (row) and in the new one (column), int64.
        hectares_KK: The same in true hectares; None where the maps do not say where they lie.
        thin_pixels: Changed pixels in strips less than three pixels wide, as maps that do not lie exactly over each
            other have along every edge.
        unsure_below: Percent of confidence.
        unsure_pixels: Changed pixels where one of the maps is less sure than that; None without confidence rasters.
        told_pixels: Changed pixels whose confidence is known; None likewise.
        left_out_ha: True hectares of the old and of the new map that are not compared, since the other one shows
            nothing there; None where the maps do not say where they lie.
    """

    pair: Pair
    pixels_KK: NDArray[np.int64]
    hectares_KK: NDArray[np.float64] | None
    thin_pixels: int
    unsure_below: int
    unsure_pixels: int | None
    told_pixels: int | None
    left_out_ha: tuple[float, float] | None

    @property
    def changed_pixels(self) -> int:
        """Pixels whose class is another one."""
        return int(self.pixels_KK.sum() - np.trace(self.pixels_KK))

    @property
    def share(self) -> float:
        """Changed part of the compared ground, 0 to 1; of its pixels where the area is not known."""
        amounts = self.pixels_KK.astype(np.float64) if self.hectares_KK is None else self.hectares_KK
        return float(1 - np.trace(amounts) / amounts.sum())


def compare(
    pair: Pair,
    old_confidence: Path | None = None,
    new_confidence: Path | None = None,
    unsure_below: int = UNSURE_BELOW,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Change:
    """Counts pixels and hectares by old and new class.

    Args:
        pair: The maps.
        old_confidence: Raster of the old map's confidence in percent.
        new_confidence: The same of the new one.
        unsure_below: Percent below which a pixel is unsure.
        progress: Called with the rows done and the rows in all.

    Raises:
        RasterError: A file cannot be read, or no pixel has a class in both maps.
    """
    classes = len(pair.class_map)
    pixels_KK = np.zeros((classes, classes), np.int64)
    square_metres_KK = np.zeros((classes, classes))
    thin, unsure, told = _Thin(pair.width), 0, 0
    for strip in strips(pair, old_confidence, new_confidence):
        both_HW = (strip.old_HW != IGNORE_INDEX) & (strip.new_HW != IGNORE_INDEX)
        changed_HW = both_HW & (strip.old_HW != strip.new_HW)
        thin.add(changed_HW)
        for row, (old_W, new_W, both_W) in enumerate(zip(strip.old_HW, strip.new_HW, both_HW, strict=True)):
            codes = old_W[both_W].astype(np.int64) * classes + new_W[both_W]
            counts_KK = np.bincount(codes, minlength=classes**2).reshape(classes, classes)
            pixels_KK += counts_KK
            if pair.area_H is not None:
                square_metres_KK += counts_KK * pair.area_H[strip.row + row]
        if strip.confidence_HW is not None:
            known_HW = changed_HW & (strip.confidence_HW != IGNORE_INDEX)
            told += int(known_HW.sum())
            unsure += int((known_HW & (strip.confidence_HW < unsure_below)).sum())
        progress(strip.row + len(changed_HW), pair.height)
    if not pixels_KK.any():
        raise RasterError(
            f"{pair.old.path} and {pair.new.path} have no pixel with a class in common; nothing can be compared."
        )
    hectares_KK = None if pair.area_H is None else square_metres_KK / SQUARE_METRES_A_HECTARE
    with_confidence = old_confidence is not None or new_confidence is not None
    return Change(
        pair=pair,
        pixels_KK=pixels_KK,
        hectares_KK=hectares_KK,
        thin_pixels=thin.finish(),
        unsure_below=unsure_below,
        unsure_pixels=unsure if with_confidence else None,
        told_pixels=told if with_confidence else None,
        left_out_ha=_left_out(pair, hectares_KK),
    )


def _left_out(pair: Pair, hectares_KK: NDArray[np.float64] | None) -> tuple[float, float] | None:
    if hectares_KK is None or pair.old.hectares_K is None or pair.new.hectares_K is None:
        return None
    # The finer map's own area differs from that of the grid's pixels by their edges, so it may come out below nothing
    old, new = (max(0.0, float(one.hectares_K.sum() - hectares_KK.sum())) for one in (pair.old, pair.new))  # type: ignore[union-attr]
    return old, new


class _Thin:
    """Counts changed pixels that no square of three by three changed pixels covers (a morphological opening).

    Args:
        width: Columns.
    """

    def __init__(self, width: int) -> None:
        self._held = np.zeros((2, width), bool)  # the last two rows, whose fate the next ones decide
        self._open = np.zeros((2, width), bool)  # which of them a square covers already
        self._thin = 0

    def add(self, changed_HW: NDArray[np.bool_]) -> None:
        """Takes the next rows."""
        rows_HW = np.concatenate([self._held, changed_HW])
        covered_HW = np.concatenate([self._open, np.zeros_like(changed_HW)])
        if rows_HW.shape[1] >= 3:
            windows = [rows_HW[down : len(rows_HW) - 2 + down, right : rows_HW.shape[1] - 2 + right]
                       for down in range(3) for right in range(3)]  # fmt: skip
            square_HW = np.logical_and.reduce(windows)
            for down in range(3):
                for right in range(3):
                    covered_HW[down : len(rows_HW) - 2 + down, right : rows_HW.shape[1] - 2 + right] |= square_HW
        self._thin += int((rows_HW & ~covered_HW)[:-2].sum())
        self._held, self._open = rows_HW[-2:], covered_HW[-2:]

    def finish(self) -> int:
        """All of them."""
        return self._thin + int((self._held & ~self._open).sum())
