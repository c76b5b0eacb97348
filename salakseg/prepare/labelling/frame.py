"""A source's own pixels, in which masks and labelling tools count."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.errors import RasterioError

from salakseg.errors import DataError
from salakseg.mapping.opening import without_place
from salakseg.prepare.grid import Grid


@dataclass(frozen=True, slots=True)
class Frame:
    """A source's own pixels, which pictures of labels are made for.

    Attributes:
        height: Rows.
        width: Columns.
        to_source: From the grid's (column, row) to the source's.
    """

    height: int
    width: int
    to_source: Affine


def source_frame(grid: Grid, source: Path) -> Frame:
    """The source's own pixels: the grid's, unless the grid is finer or coarser.

    Raises:
        DataError: The source cannot be read.
    """
    if grid.crs is None and grid.transform.is_identity:
        return Frame(grid.height, grid.width, Affine.identity())
    try:
        with without_place(), rasterio.open(source) as dataset:
            height, width, transform = dataset.height, dataset.width, dataset.transform
    except RasterioError as error:
        raise DataError(f"{source} cannot be read ({error}), so its labels find no place; copy it anew.") from error
    if (height, width) == (grid.height, grid.width):
        return Frame(height, width, Affine.identity())
    return Frame(height, width, grid.transform if transform.is_identity else ~transform @ grid.transform)


def check_size(path: Path, what: str, size: tuple[int, int], frame: Frame, source: Path) -> None:
    """Refuses labels of a picture of another size than the source.

    Args:
        path: The label file.
        what: What in it has the size, such as "the mask".
        size: Rows and columns.
        frame: The source's pixels.
        source: The source.

    Raises:
        DataError: The sizes differ.
    """
    if size == (frame.height, frame.width):
        return
    turned = size == (frame.width, frame.height)
    remedy = (
        "one of them was turned by its EXIF orientation: save the picture upright and label it again"
        if turned
        else "label the picture itself, not a smaller or cropped copy"
    )
    raise DataError(
        f"{path}: {what} has {size[0]} x {size[1]} pixels (rows x columns), {source.name} has {frame.height} x "
        f"{frame.width}; {remedy}."
    )


def check_stated_size(
    path: Path, what: str, record: Mapping[str, Any], sides: tuple[str, str], frame: Frame, source: Path
) -> None:
    """As `check_size` where a file states rows and columns under two names; those that state none pass."""
    height, width = (_pixels(record.get(side)) for side in sides)
    if height is not None and width is not None:
        check_size(path, what, (height, width), frame, source)


def _pixels(value: object) -> int | None:
    """A number of pixels as tools write it, such as 512, 512.0 or "512"; None for what is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None
