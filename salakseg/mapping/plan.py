"""The plan of a map: which pixels the model sees, which the map has, and into which units the work is cut.

Three grids of pixels cover the same ground from the same corner: the orthomosaic's own, the *model's*, whose pixels
have the ground sampling distance that the model was trained at, and the *map's*. Tiles lie on the model's grid. All of
it is arithmetic: a plan depends on sizes and settings alone and is the same on every machine.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from salakseg.mapping.resample import AxisResampler
from salakseg.mapping.tiling import TileGrid, WindowName

Step = tuple[float, float]
"""Pixels of the orthomosaic, down and across, that one pixel of another grid covers."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A range of the map's columns that is worked off from top to bottom before the next.

    Attributes:
        start: First column of the map.
        stop: Column of the map after the last.
        model_start: First of the model's columns that they depend on.
        model_stop: Column of the model after the last.
    """

    start: int
    stop: int
    model_start: int
    model_stop: int


@dataclass(frozen=True, slots=True)
class Section:
    """A unit of work: some stripes of one panel.

    Attributes:
        panel: Index of the panel.
        start: First stripe.
        stop: Stripe after the last.
    """

    panel: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Resampling:
    """From one grid to another, along both axes."""

    rows: AxisResampler
    cols: AxisResampler

    @property
    def identity(self) -> bool:
        """Whether both grids are the same."""
        return self.rows.identity and self.cols.identity


@dataclass(frozen=True, slots=True)
class MapPlan:
    """Where everything lies.

    A *stripe* is what becomes final in one panel when a row of tiles has been added: stripe r depends on no row of
    tiles below r.

    Attributes:
        grid: The tiles, on the model's grid.
        to_model: From the orthomosaic's pixels to the model's.
        to_map: From the model's pixels to the map's.
        source_to_map: From the orthomosaic's pixels to the map's.
        panels: The map's columns, cut so that one panel's probabilities fit into memory.
    """

    grid: TileGrid
    to_model: Resampling
    to_map: Resampling
    source_to_map: Resampling
    panels: tuple[Panel, ...]

    @property
    def height(self) -> int:
        """Rows of the map."""
        return self.to_map.rows.size_out

    @property
    def width(self) -> int:
        """Columns of the map."""
        return self.to_map.cols.size_out

    @property
    def stripes(self) -> int:
        """Stripes in a panel."""
        return self.grid.rows.count

    def all_stripes(self) -> Iterator[tuple[int, int]]:
        """Panel and stripe of every stripe of the map."""
        return ((panel, stripe) for panel in range(len(self.panels)) for stripe in range(self.stripes))

    def stripe_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The map's rows, first and after the last, that the stripes `start` to `stop` - 1 hold; there may be none."""
        return self._rows_above(start), self._rows_above(stop)

    def _rows_above(self, stripe: int) -> int:
        if stripe == 0:
            return 0
        rows = self.grid.rows  # the last row of tiles may reach beyond its stride
        return self.to_map.rows.ready(rows.size if stripe == rows.count else stripe * rows.stride)

    def first_tile_row(self, section: Section) -> int:
        """The first row of tiles that a section's stripes depend on."""
        start, stop = self.stripe_rows(section.start, section.stop)
        if start == stop:
            return section.stop
        needed = self.to_map.rows.needed(start, start + 1)[0]
        return self.grid.rows.touching(needed, needed + 1).start

    def tile_positions(self, section: Section) -> Iterator[tuple[int, int]]:
        """Grid row and grid column of the tiles that a section depends on, row by row."""
        cols = self._tile_cols(section)
        return ((row, col) for row in range(self.first_tile_row(section), section.stop) for col in cols)

    def tile_count(self, section: Section) -> int:
        """Number of `tile_positions`."""
        return (section.stop - self.first_tile_row(section)) * len(self._tile_cols(section))

    def _tile_cols(self, section: Section) -> range:
        panel = self.panels[section.panel]
        return self.grid.cols.touching(panel.model_start, panel.model_stop)


def make_plan(
    height: int,
    width: int,
    *,
    tile: int,
    overlap: int,
    panel_width: int,
    window: WindowName = "hann",
    model_step: Step = (1.0, 1.0),
    map_step: Step = (1.0, 1.0),
) -> MapPlan:
    """Plans the map of an orthomosaic of `height` x `width` pixels.

    Args:
        height: The orthomosaic's rows.
        width: Its columns.
        tile: Side of the model's tiles, in the model's pixels.
        overlap: Pixels that neighbouring tiles share.
        panel_width: The most of the model's columns that are blended at once.
        window: How a tile counts from its middle to its edge.
        model_step: Size of the model's pixels.
        map_step: Size of the map's pixels.

    Raises:
        ValueError: As `TileAxis`.
    """
    to_model, source_to_map = resample_by(height, width, model_step), resample_by(height, width, map_step)
    model = to_model.rows.size_out, to_model.cols.size_out
    to_map = Resampling(
        AxisResampler(model[0], source_to_map.rows.size_out, map_step[0] / model_step[0]),
        AxisResampler(model[1], source_to_map.cols.size_out, map_step[1] / model_step[1]),
    )
    return MapPlan(
        grid=TileGrid.over(*model, tile, overlap, window),
        to_model=to_model,
        to_map=to_map,
        source_to_map=source_to_map,
        panels=tuple(_panels(to_map.cols, panel_width)),
    )


def _size(pixels: int, step: float) -> int:
    """Pixels of another size that cover as much; one that would cover a thousandth of itself is left out."""
    return max(1, math.ceil(pixels / step - 1e-3))


def resample_by(height: int, width: int, step: Step) -> Resampling:
    """From a raster of `height` x `width` pixels to the grid on the same ground whose pixels are `step` of its own."""
    return Resampling(
        AxisResampler(height, _size(height, step[0]), step[0]), AxisResampler(width, _size(width, step[1]), step[1])
    )


def _panels(cols: AxisResampler, panel_width: int) -> Iterator[Panel]:
    width = panel_width
    if not cols.identity:  # what is resampled needs a pixel beyond each border
        width = math.floor((panel_width - 2) / cols.step) - 1
    width = max(1, width // 512 * 512 or width)  # whole blocks of the file where they fit
    for start in range(0, cols.size_out, width):
        stop = min(start + width, cols.size_out)
        yield Panel(start, stop, *cols.needed(start, stop))
