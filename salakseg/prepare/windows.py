"""Where patches lie on a grid: row r and column c of a patch's name stand for the pixel (r * stride, c * stride).

The patches of the last row and column are those that reach the grid's end, as a rule beyond it: there they are black
and labelled 255, and so are pixels that are not valid. A patch is kept where enough of it is valid. Nothing is
shifted to fit, so that every patch is found again by its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

STRIP_PIXELS = 8 * 2**20
"""The most that is read at once, unless a single patch has more: 40 MB with valid pixels and labels."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Patches of one row that are read together.

    Attributes:
        row: Their row.
        first: The first's column.
        stop: Column after the last.
    """

    row: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Windows:
    """The patches of a grid.

    Attributes:
        height: Rows of the grid, above 0.
        width: Columns of the grid, above 0.
        patch: Side of a patch, pixels, above 0.
        stride: Pixels from a patch to the next, above 0; patches overlap where it is smaller than they are.
    """

    height: int
    width: int
    patch: int
    stride: int

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return self._count(self.height)

    @property
    def cols(self) -> int:
        """Columns of patches."""
        return self._count(self.width)

    def __len__(self) -> int:
        return self.rows * self.cols

    def _count(self, size: int) -> int:
        # Up to the one that reaches the end; with gaps between the patches the end may lie in a gap.
        return min(1 + max(0, -(-(size - self.patch) // self.stride)), -(-size // self.stride))

    def strips(self) -> Iterator[Strip]:
        """The patches from top to bottom, in portions that fit into memory."""
        many = max(1, (STRIP_PIXELS // self.patch - self.patch) // self.stride + 1)
        for row in range(self.rows):
            for first in range(0, self.cols, many):
                yield Strip(row, first, min(first + many, self.cols))

    def span(self, strip: Strip) -> tuple[int, int, int, int]:
        """The pixels of a strip: first row, first column, height, width. It may reach beyond the grid."""
        width = (strip.stop - strip.first - 1) * self.stride + self.patch
        return strip.row * self.stride, strip.first * self.stride, self.patch, width


def patch_stem(name: str, row: int, col: int) -> str:
    """Name of a patch's files without ending; with three digits at least, so that most listings are in order."""
    return f"{name}_patch_{row:03d}_{col:03d}"
