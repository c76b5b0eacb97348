"""How the assessment of a map is shown in a terminal."""

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from salakseg.evaluate.assess import Assessment
from salakseg.evaluate.formats import figure_text
from salakseg.evaluate.olofsson import Estimate

_WIDEST_MATRIX = 12  # classes; more columns do not fit 80 characters


def render_assessment(assessment: Assessment) -> RenderableType:
    """The assessment for `rich`; names of files and classes stay as they are, readable from 80 columns on."""
    parts: list[RenderableType] = [
        Text(assessment.land_cover.path.name, style="bold"),
        Text(f"{assessment.caption}. Behind each ± is what lies to either side in the 95 % interval."),
        Text(),
        _class_table(assessment),
        Text(),
        Text("user's: share of what the map shows that is there; producer's: share of what is there that it shows."),
        _summary(assessment),
        Text(),
        _matrix_table(assessment),
    ]
    if assessment.remarks:
        remarks = Table.grid(padding=(0, 1))
        for remark in assessment.remarks:
            remarks.add_row("-", Text(remark))
        parts += [Text(), Text("Remarks", style="bold"), remarks]
    return Group(*parts)


def _class_table(assessment: Assessment) -> Table:
    estimates, unit = assessment.estimates, assessment.unit
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    for heading in ("id", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    for heading in (f"mapped {unit}", f"adjusted {unit}", "±", "user's", "±", "producer's", "±"):
        table.add_column(heading, justify="right", no_wrap=True)
    mapped_K = assessment.mapped_K
    for c in assessment.land_cover.class_map.classes:
        swatch = Text("  ", Style(bgcolor="rgb({},{},{})".format(*c.color)))
        cells = [_area_text(mapped_K[c.id], assessment), _area_text(estimates.areas.value[c.id], assessment)]
        cells.append(_area_text(estimates.areas.half_width[c.id], assessment))
        for figure in (estimates.users, estimates.producers):
            cells += [figure_text(figure.value[c.id]), figure_text(figure.half_width[c.id])]
        table.add_row(Text(str(c.id)), swatch, Text(c.name), *map(Text, cells))
    return table


def _summary(assessment: Assessment) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_row(Text("overall accuracy"), Text(_with_interval(assessment.estimates.overall), style="bold"))
    total = _area_text(float(assessment.mapped_K.sum()), assessment)
    table.add_row(Text("mapped in all"), Text(f"{total} {assessment.unit}", style="bold"))
    return table


def _matrix_table(assessment: Assessment) -> RenderableType:
    classes = assessment.land_cover.class_map.classes
    if len(classes) > _WIDEST_MATRIX:
        return Text(f"The points by mapped class and label are too many columns to print ({len(classes)}); see --out.")
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    for c in classes:
        table.add_column(str(c.id), justify="right", no_wrap=True, min_width=4)
    table.add_column("all", justify="right", no_wrap=True, min_width=5)
    for c, counts in zip(classes, assessment.counts_KK.tolist(), strict=True):
        cells = [Text(str(count)) for count in counts]
        cells[c.id].stylize("bold")
        table.add_row(Text(str(c.id)), Text(c.name), *cells, Text(str(sum(counts))))
    return Group(Text("Points: the map's class of a row, by the label's id", style="bold"), table)


def _with_interval(figure: Estimate) -> str:
    return f"{figure_text(float(figure.value))} ± {figure_text(float(figure.half_width))}"


def _area_text(area: float, assessment: Assessment) -> str:
    """Square metres of a farm of some hectares, no more digits than a landscape needs; pixels are whole."""
    if assessment.unit == "px":
        return f"{area:,.0f}"
    return f"{area:,.{3 if assessment.mapped_K.sum() < 1000 else 1}f}"
