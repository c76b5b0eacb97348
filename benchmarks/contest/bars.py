"""The bars that phase4 is held against, on test images."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from contest.figures import Difference, Result, difference, gap_closed, mean_spread, rarest_class
from contest.groups import Group
from contest.methods import MAIN, THREE, TUNED
from contest.records import ENDS
from contest.tables import end_title, table

GAP = 0.60
"""Share of the gap from 8 to 32 labelled images that phase4 shall close."""

RARE = 0.03
"""What phase4 shall have more than supervised training on the rarest class."""

STEP = 1.8
"""Largest ratio of phase4's step to v3's."""

SEEDS = 3
"""Runs of a method from which on a bar counts as met or missed."""

_OPEN = "open: too few seeds"

_RIVALS = {*MAIN, TUNED} - {"phase4", "supervised-all"}

Row = tuple[str, str, str, str]


def bar_lines(group: Group, images: str) -> list[str]:
    """What was aimed at and what came, for both states of the runs."""
    lines: list[str] = []
    for end in ENDS:
        rows = _rows(group, images, end)
        if rows:
            title = f"### Bars, {images.replace('-', ' ')}, {end_title(end)}\n"
            lines += [title, *table(("what", "bar", "found", "met"), rows), ""]
    return lines


def _rows(group: Group, images: str, end: str) -> list[Row]:
    results = {method: found for method in group.methods if (found := group.results(method, images, end))}
    if not {"phase4", "supervised"} <= results.keys():
        return []
    ours, floor = results["phase4"], results["supervised"]
    others = [method for method in results if method in _RIVALS]
    best = max(others, key=lambda method: mean_spread([r.miou() for r in results[method]])[0])
    seeds = f"{len(results[best])} seed{'s' if len(results[best]) > 1 else ''}"
    rows = _gap_rows(ours, floor, results.get("supervised-all", []))
    over = _over(f"phase4 over the best other ({best}, {seeds})", difference(ours, results[best]))
    rows.append((*over[:3], _missing(results) or over[3]))
    if best != "supervised":
        rows.append(_over("phase4 over supervised", difference(ours, floor)))
    rows.append(_rare_row(group, ours, floor))
    if min(len(ours), len(floor)) < SEEDS:
        rows = [(*row[:3], row[3] if row[3].startswith(("-", "open")) else _OPEN) for row in rows]
    return rows + _step_rows(group)


def _missing(results: Mapping[str, Sequence[Result]]) -> str:
    """What keeps the best of the others open: another method may be better; empty where all have their seeds."""
    wanted = {method: SEEDS if method in THREE else 1 for method in _RIVALS}
    missing = [method for method in (*MAIN, TUNED) if len(results.get(method, [])) < wanted.get(method, 0)]
    return f"open: without {', '.join(missing)}" if missing else ""


def _gap_rows(ours: list[Result], floor: list[Result], ceiling: list[Result]) -> list[Row]:
    """The gap by the pixels of all images, and, without a bar, with all images alike; nothing without a ceiling."""
    closed, found = _closed(gap_closed(ours, floor, ceiling))
    if not closed:
        return []
    met = _met(float(np.mean(closed)) >= GAP and min(closed) > 0) if len(closed) >= SEEDS else _OPEN
    _, alike = _closed(gap_closed(ours, floor, ceiling, lambda result: result.miou_images_alike))
    what, bar = "gap from 8 to 32 labelled images closed", f"at least {100 * GAP:.0f} %, positive in every seed"
    return [(what, bar, found, met), (f"{what}, images alike", "-", alike, "-")]


def _closed(shares: dict[int, float]) -> tuple[list[float], str]:
    mean = mean_spread(list(shares.values()))[0] if shares else math.nan
    text = ", ".join(f"seed {seed}: {100 * share:.0f} %" for seed, share in shares.items())
    return list(shares.values()), f"{100 * mean:.0f} % ({text})"


def _over(what: str, gap: Difference) -> Row:
    image, scene = (f"{100 * low:+.1f} to {100 * high:+.1f}" for low, high in (gap.by_image, gap.by_scene))
    text = f"{100 * gap.value:+.1f} points, 95 %: {image} by image, {scene} by scene"
    low = gap.by_image[0]
    return what, "interval by image above 0", text, "open: too few images" if math.isnan(low) else _met(low > 0)


def _rare_row(group: Group, ours: list[Result], floor: list[Result]) -> Row:
    rare = rarest_class(ours[0])
    name = group.records[0]["classes"][rare]["name"]
    gain = float(np.mean([r.iou_K[rare] for r in ours]) - np.mean([r.iou_K[rare] for r in floor]))
    what, bar = f"rarest class ({name}) over supervised", f"at least +{100 * RARE:.0f} points"
    return what, bar, f"{100 * gain:+.1f}", _met(gain >= RARE)


def _step_rows(group: Group) -> list[Row]:
    """Of alternating steps; how long runs took says more of what else a machine did."""
    what, bar = "time of a step over v3's", f"at most {STEP}"
    if not {"phase4", "v3"} <= group.timing.keys():
        return [(what, bar, "-", "open: not measured")]
    ratio = group.timing["phase4"] / group.timing["v3"]
    return [(what, bar, f"{ratio:.2f} (alternating steps)", _met(ratio <= STEP))]


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
