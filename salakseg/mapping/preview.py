"""A picture of a land-cover map beside its orthomosaic, for a first look and for reports."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from salakseg.classes import ClassMap, Color
from salakseg.errors import RasterError
from salakseg.mapping.landcover import count_classes
from salakseg.mapping.raster import Orthomosaic, reduced_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
MARGIN = 12
TITLE_HEIGHT = 64
LEGEND_ROW = 24
LEGEND_LETTER = 8
"""Sizes on the page, pixels."""


def write_preview(orthomosaic: Path, land_cover: Path, out: Path, class_map: ClassMap, max_side: int = 900) -> None:
    """Draws orthomosaic and map side by side, with a legend of the classes present and a scale bar.

    Args:
        orthomosaic: The orthomosaic that was mapped.
        land_cover: Its map, of the same size.
        out: The PNG to write.
        class_map: Names and colours.
        max_side: Longer side of each picture, pixels.

    Raises:
        RasterError: A file cannot be read or written, or the map is not one of this orthomosaic.
    """
    # Within an Env, GDAL's warnings go to the log instead of straight to the terminal.
    with rasterio.Env(), Orthomosaic(orthomosaic, allow_no_crs=True) as source:
        image_CHW, valid_HW = source.read_small(max_side)
        size, gsd_m, pixel_m = (source.height, source.width), source.gsd_m, source.pixel_m
    label_HW = _read_labels(land_cover, orthomosaic, size, max_side)
    image_HWC = np.where(valid_HW[..., None], np.moveaxis(image_CHW, 0, -1), 255).astype(np.uint8)
    shares = count_classes(land_cover, len(class_map)) / max(1, size[0] * size[1])
    valid_share = float(shares.sum())
    legend = [
        (f"{land_class.name}  {_percent(shares[land_class.id] / valid_share)}", land_class.color)
        for land_class in class_map.classes
        if shares[land_class.id] > 0
    ]
    gsd = "" if gsd_m is None else f", {gsd_m:.3g} m a pixel"
    title = f"{orthomosaic.name}\n{size[1]:,} x {size[0]:,} pixels{gsd}, {_percent(valid_share)} mapped"
    metres_a_column = None if pixel_m is None else pixel_m[0] * size[1] / label_HW.shape[1]
    _draw(out, title, image_HWC, _paint(label_HW, class_map), legend, metres_a_column)


def _read_labels(path: Path, orthomosaic: Path, size: tuple[int, int], max_side: int) -> NDArray[np.uint8]:
    """The map [H, W], reduced without mixing class ids."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                if dataset.shape != size:
                    raise RasterError(
                        f"{path} has {dataset.width} x {dataset.height} pixels, {orthomosaic} {size[1]} x {size[0]}; "
                        "name the map that was made from this orthomosaic."
                    )
                shape = reduced_shape(*size, max_side)
                label_HW: NDArray[np.uint8] = dataset.read(1, out_shape=shape, resampling=Resampling.nearest)
    except RasterioError as error:
        raise RasterError(f"{path} cannot be read as a land-cover map; make it again.") from error
    return label_HW


def _paint(label_HW: NDArray[np.uint8], class_map: ClassMap) -> NDArray[np.uint8]:
    """Class ids as colours [H, W, 3]; white where there is no class."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(class_map)] = class_map.colors
    return palette[label_HW]


def _draw(
    out: Path,
    title: str,
    image_HWC: NDArray[np.uint8],
    map_HWC: NDArray[np.uint8],
    legend: list[tuple[str, Color]],
    metres_a_column: float | None,
) -> None:
    from matplotlib.figure import Figure

    rows, cols = map_HWC.shape[:2]
    width = max(2 * cols + 3 * MARGIN, 640)
    legend_column = 50 + LEGEND_LETTER * max((len(text) for text, _ in legend), default=0)
    legend_cols = max(1, (width - 2 * MARGIN) // legend_column)
    legend_height = LEGEND_ROW * max(1, -(-len(legend) // legend_cols)) + 2 * MARGIN
    scale_height = 0 if metres_a_column is None else 44
    height = TITLE_HEIGHT + rows + scale_height + legend_height
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    figure.text(MARGIN / width, 1 - TITLE_HEIGHT / 2 / height, title, va="center", fontsize=11, linespacing=1.4)
    left = (width - 2 * cols - MARGIN) // 2
    for position, picture in enumerate((image_HWC, map_HWC)):
        box = ((left + position * (cols + MARGIN)) / width, (legend_height + scale_height) / height)
        axes = figure.add_axes((*box, cols / width, rows / height))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="0.7", linewidth=0.5)
    if metres_a_column is not None:
        box = (left / width, legend_height / height)
        _draw_scale(figure.add_axes((*box, cols / width, scale_height / height)), cols, scale_height, metres_a_column)
    legend_axes = figure.add_axes((0, 0, 1, legend_height / height))
    _pixel_axes(legend_axes, width, legend_height)
    _draw_legend(legend_axes, legend, legend_cols, legend_column)
    hidden = out.with_name(f".{out.name}.part")
    try:
        figure.savefig(hidden, format="png")
        hidden.replace(out)
    except OSError as error:
        raise RasterError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to."
        ) from error
    finally:
        hidden.unlink(missing_ok=True)


def _draw_scale(axes: "Axes", cols: int, height: int, metres_a_column: float) -> None:
    length_m = scale_length(cols * metres_a_column)
    _pixel_axes(axes, cols, height)
    axes.plot([1, 1 + length_m / metres_a_column], [14, 14], color="black", linewidth=4, solid_capstyle="butt")
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    axes.text(1 + length_m / metres_a_column + 8, 14, text, va="center", fontsize=10)


def _draw_legend(axes: "Axes", legend: list[tuple[str, Color]], cols: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    for position, (text, color) in enumerate(legend):
        row, col = divmod(position, cols)
        x, y = MARGIN + col * column, MARGIN + row * LEGEND_ROW
        face = tuple(part / 255 for part in color)
        axes.add_patch(Rectangle((x, y + 3), 26, LEGEND_ROW - 8, facecolor=face, edgecolor="0.4", linewidth=0.5))
        axes.text(x + 34, y + LEGEND_ROW / 2 - 1, text, va="center", fontsize=10)


def _pixel_axes(axes: Any, width: int, height: int) -> None:  # noqa: ANN401
    """Makes the axes count in pixels of the page from the upper left corner and draw no frame."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")


def scale_length(width_m: float) -> float:
    """A round length of 1, 2 or 5 times a power of ten, metres, at most a quarter of the picture's width."""
    power = 10.0 ** math.floor(math.log10(width_m / 4))
    return max((step * power for step in (1, 2, 5) if step * power <= width_m / 4), default=power)


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
