"""A picture of a land-cover map beside its orthomosaic, for a first look and for reports."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.classes import ClassMap, Color
from salakseg.errors import RasterError
from salakseg.mapping.areas import areas_of
from salakseg.mapping.opening import SourceOptions, without_place
from salakseg.mapping.raster import Orthomosaic, gdal_settings, reduced_shape
from salakseg.replacing import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
MARGIN = 12
TITLE_HEIGHT = 64
LEGEND_ROW = 24
LEGEND_LETTER = 8
"""Sizes on the page, pixels."""


def write_preview(
    orthomosaic: Path,
    land_cover: Path,
    out: Path,
    class_map: ClassMap,
    options: SourceOptions | None = None,
    max_side: int = 900,
) -> None:
    """Draws orthomosaic and map side by side, with a legend of the classes present and a scale bar.

    Args:
        orthomosaic: The orthomosaic that was mapped.
        land_cover: Its map, at any resolution.
        out: The PNG to write.
        class_map: Names and colours.
        options: How the orthomosaic is read.
        max_side: Longer side of each picture, pixels.

    Raises:
        RasterError: A file cannot be read or written, or the map is not one of this orthomosaic.
    """
    with gdal_settings(), Orthomosaic(orthomosaic, options or SourceOptions(allow_no_crs=True)) as source:
        source.settle_stretch()
        shape = reduced_shape(source.height, source.width, max_side)
        label_HW, map_pixels = _read_labels(land_cover, source, shape)
        image_CHW, valid_HW = source.read_small(*shape)
        size, gsd_m, pixel_m = (source.height, source.width), source.gsd_m, source.pixel_m
        areas = areas_of(land_cover, class_map)
    image_HWC = np.where(valid_HW[..., None], np.moveaxis(image_CHW, 0, -1), 255).astype(np.uint8)
    legend = [
        (f"{area.class_name}  {_percent(area.share)}", land_class.color)
        for area, land_class in zip(areas, class_map.classes, strict=True)
        if area.pixels
    ]
    gsd = "" if gsd_m is None else f", {gsd_m:.3g} m a pixel"
    mapped = _percent(sum(area.pixels for area in areas) / map_pixels)
    title = f"{orthomosaic.name}\n{size[1]:,} x {size[0]:,} pixels{gsd}, {mapped} mapped"
    metres_a_column = None if pixel_m is None else pixel_m[0] * size[1] / label_HW.shape[1]
    _draw(out, title, image_HWC, _paint(label_HW, class_map), legend, metres_a_column)


def _read_labels(path: Path, source: Orthomosaic, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
    """The map [H, W], brought to another size without mixing class ids, and the pixels that it really has."""
    try:
        with without_place():
            with rasterio.open(path) as dataset:
                if not _same_ground(dataset, source):
                    raise RasterError(
                        f"{path} does not cover the ground of {source.path}; name the map that was made from it."
                    )
                pixels = dataset.width * dataset.height
                # Its last pixels may stick out beyond the orthomosaic.
                right, bottom = (~dataset.transform @ source.transform) @ (source.width, source.height)
                covered = Window(0, 0, min(right, dataset.width), min(bottom, dataset.height))
                label_HW: NDArray[np.uint8] = dataset.read(
                    1, window=covered, out_shape=shape, resampling=Resampling.nearest
                )
    except RasterioError as error:
        raise RasterError(f"{path} cannot be read as a land-cover map; make it again.") from error
    return label_HW, pixels


def _same_ground(dataset: Any, source: Orthomosaic) -> bool:  # noqa: ANN401
    """Whether a map, whose pixels may be of another size, has the orthomosaic's corners to a pixel."""
    to_source = ~source.transform @ dataset.transform
    left, top = to_source @ (0, 0)
    right, bottom = to_source @ (dataset.width, dataset.height)
    across, down = max(1.0, to_source.a), max(1.0, to_source.e)
    return bool(
        max(abs(left), abs(top)) < 0.5 and abs(right - source.width) <= across and abs(bottom - source.height) <= down
    )


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
    figure.text(
        MARGIN / width,
        1 - TITLE_HEIGHT / 2 / height,
        title,
        va="center",
        fontsize=11,
        linespacing=1.4,
        parse_math=False,
    )
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
        replace(hidden, out)
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
    axes.text(1 + length_m / metres_a_column + 8, 14, text, va="center", fontsize=10, parse_math=False)


def _draw_legend(axes: "Axes", legend: list[tuple[str, Color]], cols: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    for position, (text, color) in enumerate(legend):
        row, col = divmod(position, cols)
        x, y = MARGIN + col * column, MARGIN + row * LEGEND_ROW
        face = tuple(part / 255 for part in color)
        axes.add_patch(Rectangle((x, y + 3), 26, LEGEND_ROW - 8, facecolor=face, edgecolor="0.4", linewidth=0.5))
        axes.text(x + 34, y + LEGEND_ROW / 2 - 1, text, va="center", fontsize=10, parse_math=False)


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
