"""A picture of a split: patches on their ground, coloured by part, or the photos of each folder along their flight.

Axes: N patches, H rows and W columns of the picture, C red green blue (alpha).
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salakseg.data.patches import PatchIndex, Photo, natural_key
from salakseg.data.splits import Role, Split, flight_places
from salakseg.errors import DataError
from salakseg.mapping.files import put_bytes
from salakseg.prepare.parts.part_ground import GROUND_COLORS, paint_site
from salakseg.prepare.parts.planes import Ground
from salakseg.prepare.parts.splitting import uses_of_patches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#1b1f26"
_NAMES = {
    Role.LABELLED: "train, labelled",
    Role.UNLABELLED: "train, unlabelled",
    Role.VAL: "validation",
    Role.TEST: "test",
    Role.CALIBRATION: "calibration",
    Role.GAP: "gap, used nowhere",
}
_PANEL = 6.4  # inches, the longer side of a site
_MOST_SITES = 6
_DPI = 130


def draw_parts(path: Path, index: PatchIndex, split: Split, ground: Ground | None) -> None:
    """Draws a split as a PNG file, which appears only when it is whole.

    Args:
        path: The file.
        index: The patches.
        split: Their roles.
        ground: Where they are; None draws photos along their flight instead.

    Raises:
        DataError: The file cannot be written.
    """
    figure = _on_flights(split, index) if ground is None else _on_ground(index, split, ground)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    try:
        put_bytes(path, buffer.getvalue())
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); see that its folder can be written to."
        ) from error


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _on_ground(index: PatchIndex, split: Split, ground: Ground) -> "Figure":
    """A map for each site, the largest first."""
    uses = uses_of_patches(index, split)
    sites = np.argsort(-np.bincount(ground.site_N), kind="stable")
    shown = sites[:_MOST_SITES].tolist()
    maps = [paint_site(index, uses, ground, site) for site in shown]
    sizes = []
    for painted in maps:
        height, width = painted.image_HWC.shape[:2]
        scale = _PANEL / max(height, width)
        sizes.append((width * scale, height * scale))
    left, top, between, legend = 0.35, 0.5, 0.7, 1.0
    columns = min(len(maps), 2)
    rows = [list(range(start, min(start + columns, len(maps)))) for start in range(0, len(maps), columns)]
    width = max(sum(sizes[n][0] for n in row) + between * (len(row) - 1) for row in rows) + 2 * left
    width = max(width, 6.2)
    heights = [max(sizes[n][1] for n in row) for row in rows]
    height = sum(heights) + top * len(rows) + legend
    figure = _new_figure(width, height)
    y = height + 0.1
    for row, row_height in zip(rows, heights, strict=True):
        y -= top
        x = left
        for n in row:
            panel_width, panel_height = sizes[n]
            box = (x / width, (y - panel_height) / height, panel_width / width, panel_height / height)
            axes = figure.add_axes(box)
            axes.imshow(maps[n].image_HWC, interpolation="none", aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("#d8dde3")
            title = maps[n].title if len(sites) == 1 else f"{maps[n].title} (site {n + 1} of {len(sites)})"
            axes.set_title(title, loc="left", fontsize=10, color=_INK, parse_math=False)
            _scale_bar(axes, maps[n].metres_a_pixel, maps[n].image_HWC.shape[1], panel_width)
            x += panel_width + between
        y -= row_height
    _legend(figure, _patch_counts(uses))
    return figure


def _scale_bar(axes: Any, metres_a_pixel: float, width_px: int, inches: float) -> None:  # noqa: ANN401
    """A round length below the map to the left, an arrow to the north to the right."""
    wanted = metres_a_pixel * width_px / 4
    power = 10 ** np.floor(np.log10(wanted))
    length = float(power * max(step for step in (1, 2, 5) if step * power <= wanted))
    share = length / metres_a_pixel / width_px
    inch = 1 / axes.get_position().height / axes.figure.get_size_inches()[1]
    ends = {"transform": axes.transAxes, "clip_on": False, "color": _INK}
    axes.plot([0, share], [-0.1 * inch] * 2, linewidth=2.5, solid_capstyle="butt", **ends)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    words = {"transform": axes.transAxes, "fontsize": 9, "color": _INK}
    axes.text(share + 0.08 / inches, -0.1 * inch, text, va="center", ha="left", **words)
    axes.annotate(
        "N", xy=(1 - 0.1 / inches, -0.02 * inch), xytext=(1 - 0.1 / inches, -0.34 * inch), xycoords="axes fraction",
        textcoords="axes fraction", ha="center", va="center", fontsize=9, color=_INK, annotation_clip=False,
        arrowprops={"arrowstyle": "-|>", "color": _INK, "lw": 1.2},
    )  # fmt: skip


def _on_flights(split: Split, index: PatchIndex) -> "Figure":
    """A strip for each folder, its photos in the order of their numbers."""
    folders: dict[str, list[Photo]] = {}
    for photo in split.roles:
        folders.setdefault(photo.folder, []).append(photo)
    names = sorted(folders, key=natural_key)
    strip, gap, left, width = 0.3, 0.36, 0.4, 9.0
    height = 0.55 + len(names) * (strip + gap) + 0.75
    figure = _new_figure(width, height)
    places = flight_places(list(split.roles))
    for n, name in enumerate(names):
        photos = sorted(folders[name], key=lambda photo: places[photo])
        colors = np.array([[GROUND_COLORS[split.roles[photo]] for photo in photos]], np.uint8)
        bottom = height - 0.55 - n * (strip + gap) - strip
        axes = figure.add_axes((left / width, bottom / height, 1 - 2 * left / width, strip / height))
        axes.imshow(colors, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        what = "blocks of ground" if photos[0] in index.ground_blocks else "photos"
        ends = f", {photos[0].name} to {photos[-1].name}" if len(photos) > 1 else f", {photos[0].name}"
        title = f"{name or index.root.name}: {len(photos):,} {what}{ends}"
        axes.set_title(title, loc="left", fontsize=9, color=_INK, parse_math=False)
    _legend(figure, _patch_counts(uses_of_patches(index, split)))
    return figure


def _patch_counts(uses: Sequence[Role]) -> dict[Role, int]:
    return {role: count for role in _NAMES if (count := uses.count(role))}


def _legend(figure: "Figure", counts: Mapping[Role, int]) -> None:
    from matplotlib.patches import Patch as Swatch

    def color(role: Role) -> tuple[float, float, float]:
        red, green, blue = GROUND_COLORS[role]
        return red / 255, green / 255, blue / 255

    handles = [
        Swatch(facecolor=color(role), label=f"{_NAMES[role]}: {count:,} patches") for role, count in counts.items()
    ]
    narrow = figure.get_size_inches()[0] < 11
    figure.legend(
        handles=handles, loc="lower center", ncols=3 if narrow else 5, fontsize=9, frameon=False, labelcolor=_INK,
        handlelength=1.2, columnspacing=1.4, bbox_to_anchor=(0.5, 0.0),
    )  # fmt: skip
