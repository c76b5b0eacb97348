"""The bars that phase4 is held against, on test images."""

import math

import numpy as np

from contest.figures import difference, gap_closed, mean_spread, rarest_class, seconds_per_step
from contest.groups import Group
from contest.methods import MAIN, TUNED
from contest.records import ENDS

GAP = 0.60
"""Share of the gap from 8 to 32 labelled images that phase4 shall close."""

RARE = 0.03
"""What phase4 shall have more than supervised training on the rarest class."""

STEP = 1.8
"""Largest ratio of phase4's step to v3's."""


def bar_lines(group: Group, images: str) -> list[str]:
    """What was aimed at and what came, for both states of the runs."""
    lines: list[str] = []
    for end in ENDS:
        rows = _rows(group, images, end)
        if rows:
            lines += [
                f"### Bars, {images.replace('-', ' ')}, {end}\n",
                "| what | bar | found | met |",
                "|---|---|---|---|",
            ]
            lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return lines


def _rows(group: Group, images: str, end: str) -> list[tuple[str, str, str, str]]:
    results = {method: group.results(method, images, end) for method in group.methods}
    ours, floor = results.get("phase4") or [], results.get("supervised") or []
    if not ours or not floor:
        return []
    rows = []
    if ceiling := results.get("supervised-all"):
        closed = gap_closed(ours, floor, ceiling)
        text = ", ".join(f"seed {seed}: {100 * share:.0f} %" for seed, share in closed.items())
        mean = mean_spread(list(closed.values()))[0] if closed else math.nan
        met = mean >= GAP and all(share > 0 for share in closed.values())
        bar = f"at least {100 * GAP:.0f} %, positive in every seed"
        rows.append(("gap from 8 to 32 labelled images closed", bar, f"{100 * mean:.0f} % ({text})", _met(met)))
    others = [m for m in results if m in {*MAIN, TUNED} - {"phase4", "supervised-all"} and results[m]]
    best = max(others, key=lambda method: mean_spread([r.miou() for r in results[method]])[0])
    rows.append(_over(f"phase4 over the best other ({best})", difference(ours, results[best])))
    rows.append(_over("phase4 over supervised", difference(ours, floor)))
    rare = rarest_class(ours[0])
    name = group.records[0]["classes"][rare]["name"]
    gain = float(np.mean([r.iou_K[rare] for r in ours]) - np.mean([r.iou_K[rare] for r in floor]))
    rows.append(
        (
            f"rarest class ({name}), over supervised",
            f"+{100 * RARE:.0f} points",
            f"{100 * gain:+.1f}",
            _met(gain >= RARE),
        )
    )
    if v3 := group.of("v3"):
        ratio = _step(group.of("phase4")) / _step(v3)
        rows.append(("time of a step over v3's", f"at most {STEP}", f"{ratio:.2f}", _met(ratio <= STEP)))
    return rows


def _over(what: str, gap: "object") -> tuple[str, str, str, str]:
    from contest.figures import Difference

    assert isinstance(gap, Difference)
    image, scene = (f"{100 * low:+.1f} to {100 * high:+.1f}" for low, high in (gap.by_image, gap.by_scene))
    text = f"{100 * gap.value:+.1f} points, 95 %: {image} by image, {scene} by scene"
    return what, "interval by image above 0", text, _met(gap.by_image[0] > 0)


def _step(records: list[dict[str, object]]) -> float:
    return mean_spread([seconds_per_step(record) for record in records])[0]


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
