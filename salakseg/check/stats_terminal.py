"""Figures of a patch folder for the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from salakseg.check.finding import counted
from salakseg.check.stats import Figures, Stats, balanced_weights


def render_stats(stats: Stats, root_name: str) -> RenderableType:
    """Tables of classes, folders and colours for `rich`.

    Args:
        stats: The figures.
        root_name: What the only folder of the plain layout is called.
    """
    trained = stats.trained
    of = "the part that training learns from" if trained is not stats.everything else "all labelled pixels"
    parts: list[RenderableType] = [
        Text(f"{stats.everything.patches:,} patches, {stats.everything.labelled:,} with a mask", style="bold"),
        Text(),
        Text(f"Classes, of {of}", style="bold"),
        _class_table(stats, trained),
        Text('weight: 1 / (classes x share), what training takes with [loss] class_weights = "balanced", the default'),
    ]
    if stats.parts:
        parts += [Text(), Text("Percent of the labelled pixels by part", style="bold"), _shares(stats, stats.parts)]
    folders = [folder for folder in stats.folders if folder.labelled]
    if len(folders) > 1:
        named = "Percent of the labelled pixels by folder"
        parts += [Text(), Text(named, style="bold"), _shares(stats, folders)]
    colours = "Mean and standard deviation of the bands, 0 to 255"
    parts += [Text(), Text(colours, style="bold"), _colours(stats, root_name)]
    if stats.unreadable or stats.unknown:
        files = counted(stats.unreadable, "file that cannot be used", "files that cannot be used")
        pixels = counted(stats.unknown, "pixel in a colour of no class", "pixels in colours of no class")
        parts += [Text(), Text(f"Left out: {files} and {pixels}; salakseg check tells more.")]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in columns:
        if heading in ("class", "folder"):
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def _class_table(stats: Stats, figures: Figures) -> Table:
    table = _table("id", "class", "pixels", "%", "weight")
    weights_K = balanced_weights(figures.pixels_K)
    for c in stats.class_map.classes:
        pixels = int(figures.pixels_K[c.id])
        weight = f"{weights_K[c.id]:.3f}" if pixels else "-"
        table.add_row(str(c.id), Text(c.name), f"{pixels:,}", _percent(figures, c.id), weight)
    return table


def _shares(stats: Stats, columns: Sequence[Figures]) -> Table:
    """Classes across, as far as they fit: rows are parts or folders."""
    table = _table("folder", *(str(c.id) for c in stats.class_map.classes))
    table.columns[0].header = ""
    for figures in columns:
        shares = (_percent(figures, c.id) for c in stats.class_map.classes)
        table.add_row(Text(figures.name or "."), *shares)
    return table


def _percent(figures: Figures, class_id: int) -> str:
    """Two decimals, since rare classes matter; a zero without decimals means none at all."""
    if not figures.pixels_K.any():
        return "-"
    return f"{100 * figures.shares_K[class_id]:.2f}" if figures.pixels_K[class_id] else "0"


def _colours(stats: Stats, root_name: str) -> Table:
    table = _table("folder", "patches", "red", "green", "blue", "std red", "green", "blue")
    rows = [*stats.folders, stats.everything] if len(stats.folders) > 1 else list(stats.folders)
    for figures in rows:
        name = "all" if figures is stats.everything else figures.name or root_name
        values = (*figures.mean_C.tolist(), *figures.std_C.tolist())
        table.add_row(Text(name), f"{figures.patches:,}", *("-" if v != v else f"{v:.1f}" for v in values))
    return table
