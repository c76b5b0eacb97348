"""The pixels of a source, and what labels say of them.

Axes: H rows from the top, W columns from the left.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Grid:
    """Square or oblong pixels that patches are cut from.

    Attributes:
        height: Rows.
        width: Columns.
        transform: From (column, row) to coordinates; the identity for a photo, which lies nowhere.
        crs: Coordinate reference system, a `rasterio.crs.CRS`; None for a photo.
    """

    height: int
    width: int
    transform: Affine
    crs: Any = None

    def window(self, row: int, col: int, height: int, width: int) -> "Grid":
        """A part of the grid, which may reach beyond it."""
        return replace(self, height=height, width=width, transform=self.transform @ Affine.translation(col, row))


class Labels(Protocol):
    """What is known of the classes on a grid."""

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """Class ids of a window, which may lie partly or wholly beyond the grid.

        Args:
            row: First row; may be negative.
            col: First column; may be negative.
            height: Rows of the window.
            width: Columns of the window.

        Returns:
            uint8 [height, width]; 255 where nobody labelled.

        Raises:
            DataError: The labels cannot be read.
        """
        ...

    def close(self) -> None:
        """Closes what is open."""
        ...
