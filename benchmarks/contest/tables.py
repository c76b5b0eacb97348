"""The tables, in Markdown."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from contest.figures import best_minus_end, mean_spread, pseudo_at, stop_of, times_gone_back
from contest.groups import ORDER, Group
from contest.methods import ABLATIONS, NO_GUARD, OWN, PATIENCE, STRATEGIES, STRATEGY_METHODS, TUNING, V3_ITSELF
from contest.records import ENDS
from contest.settings import BUDGETS
from salakseg.evaluate.formats import finite_or_none, list_or_none


def main_lines(group: Group, images: str) -> list[str]:
    """Every method on one set of images, at both states: mIoUs, classes, decline, pseudo-labels, time."""
    methods = [m for m in group.methods if m not in {*ABLATIONS, *TUNING, *STRATEGY_METHODS}]
    lines: list[str] = []
    for end in ENDS:
        rows = [row for method in methods if (row := _row(group, method, images, end)) is not None]
        if rows:
            lines += [f"### {_set_title(images)}, {end_title(end)}\n", *table(_header(group), rows), ""]
    return lines


def ablation_lines(group: Group) -> list[str]:
    """What each part of phase4 gives, on validation."""
    parts = [method for method in ABLATIONS if group.of(method)]
    if not parts or not group.of("phase4"):
        return []
    rows = _gaps(group, parts, "phase4")
    if NO_GUARD not in parts and times_gone_back(group.of("phase4")[0]) == 0:
        rows.append([f"{NO_GUARD} (the same run: the guard never acted)", *rows[0][1:]])
    return ["### phase4 with one part switched off (validation, one seed)\n", *table(_GAP_HEADER, rows), ""]


def tuning_lines(group: Group) -> list[str]:
    """What v3-tuned was chosen from."""
    parts = [method for method in TUNING if group.of(method)]
    if not parts:
        return []
    rows = _gaps(group, parts, V3_ITSELF if group.of(V3_ITSELF) else parts[0])
    return ["### Choosing v3-tuned (validation, one seed; the highest best is taken)\n", *table(_GAP_HEADER, rows), ""]


def strategy_lines(group: Group) -> list[str]:
    """The field team's seven strategies, each alone, beside its forecast."""
    if not group.of(OWN):
        return []
    base = group.of(OWN)[0]
    before = max(p["miou_without_background"] for p in base["curve"])
    last = base["curve"][-1]["miou_without_background"]
    rows = [["-", "V3 as it is", "", _points(before), "", _points(last), ""]]
    for strategy in STRATEGIES:
        own = [str(strategy.number), strategy.text, strategy.forecast]
        if strategy.method is None:
            short, long = (stop_of(base, share) for share in PATIENCE.values())
            own[1] += f" (stops at {long[0]:,} instead of {short[0]:,})"
            rows.append([*own, _points(long[1]), f"{100 * (long[1] - short[1]):+.1f}", "", ""])
        elif group.of(strategy.method):
            curve = group.of(strategy.method)[0]["curve"]
            best, end = max(p["miou_without_background"] for p in curve), curve[-1]["miou_without_background"]
            rows.append(
                [*own, _points(best), f"{100 * (best - before):+.1f}", _points(end), f"{100 * (end - last):+.1f}"]
            )
    header = ["", "strategy, alone on V3", "forecast", "best", "gain", "end", "gain"]
    return [
        "### Which strategy helps? (validation mIoU without class 0, points, one seed)\n",
        "V3 with its own views and losses, under AdamW; the second strategy changes when the run stops, read off V3's "
        "curve.\n",
        *table(header, rows),
        "",
    ]


def decline_lines(groups: Sequence[Group]) -> list[str]:
    """From the best evaluation to the last, at every length."""
    rows = [
        [method, group.budget, f"{group.iterations:,}", str(len(runs)), *_fall(runs)]
        for group in groups
        for method in group.methods
        if method in ORDER and (runs := group.of(method))
    ]
    header = ["method", "budget", "iterations", "seeds", "largest fall", "went back"]
    lengths = ", ".join(f"{budget.name} {budget.long:,} steps" for budget in BUDGETS.values())
    title = "## Decline: best minus last validation mIoU without class 0, points\n"
    told = (
        f"The bar is 1.0 for phase4 in a long run ({lengths}). phase4 has a guard, which looks at the very "
        "figure that falls here and leads a run back to its best network; how often it did is in the last column (? "
        "where the record does not tell).\n"
    )
    return [title, told, *table(header, rows), ""]


def _fall(records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    back = ("?" if (times := times_gone_back(record)) is None else str(times) for record in records)
    return f"{100 * max(map(best_minus_end, records)):.1f}", ", ".join(back)


def summary_of(group: Group) -> dict[str, Any]:
    """All figures of a group as plain values."""
    summary: dict[str, Any] = {}
    for method in group.methods:
        records = group.of(method)
        own: dict[str, Any] = {
            "seeds": [record["key"]["seed"] for record in records],
            "best_minus_end": [best_minus_end(record) for record in records],
            "times_gone_back": [times_gone_back(record) for record in records],
            "seconds_per_step": group.timing.get(method),
        }
        for images in group.image_sets:
            for end in ENDS:
                results = group.results(method, images, end)
                own[f"{images} {end}"] = {
                    "seeds": [result.seed for result in results],
                    "miou_without_background": [finite_or_none(result.miou()) for result in results],
                    "miou_with_background": [finite_or_none(result.miou(True)) for result in results],
                    "miou_images_alike": [finite_or_none(result.miou_images_alike) for result in results],
                    "iou": [list_or_none(result.iou_K) for result in results],
                }
        for end in ENDS:
            pairs = [pseudo_at(record, end) for record in records]
            own[f"pseudo-labels {end}"] = {
                "kept_share": [finite_or_none(kept) for kept, _ in pairs],
                "precision": [finite_or_none(right) for _, right in pairs],
            }
        summary[method] = own
    return summary


def _header(group: Group) -> list[str]:
    names = [record["name"] for record in group.records[0]["classes"]]
    return [
        "method", "seeds", "mIoU without class 0", "mIoU with class 0", "images alike", *names[1:],
        "best - end (val)", "kept", "right", "s a step",
    ]  # fmt: skip


def _row(group: Group, method: str, images: str, end: str) -> list[str] | None:
    results = group.results(method, images, end)
    if not results:
        return None
    seeds = {result.seed for result in results}
    records = [record for record in group.of(method) if record["key"]["seed"] in seeds]
    with_0 = [result.miou(True) for result in results]
    iou_K = np.mean([result.iou_K for result in results], axis=0)
    kept, right = (_mean([pair[n] for record in records for pair in [pseudo_at(record, end)]]) for n in (0, 1))
    return [
        method,
        str(len(results)),
        f"**{_points_spread([result.miou() for result in results])}**",
        _points_spread(with_0),
        _points_spread([result.miou_images_alike for result in results]),
        *(_points(value) for value in iou_K[1:]),
        _points(_mean([best_minus_end(record) for record in records])),
        _points(kept),
        _points(right),
        f"{group.timing[method]:.2f}" if method in group.timing else "-",
    ]


_GAP_HEADER = ["method", "best", "gap", "end", "gap", "kept at the end", "right at the end"]


def _gaps(group: Group, methods: Sequence[str], reference: str) -> list[list[str]]:
    """Each method's first run beside the reference's of the same seed."""

    def ends(method: str, seed: int) -> list[float]:
        found = [group.results(method, "validation", end) for end in ENDS]
        return [result.miou() for results in found for result in results if result.seed == seed]

    first = group.of(reference)[0]["key"]["seed"]
    rows = []
    for method in dict.fromkeys([reference, *methods]):
        record = group.of(method)[0]
        seed = record["key"]["seed"]
        own, base, pseudo = ends(method, seed), ends(reference, seed), pseudo_at(record, "end")
        gaps = (
            [f"{100 * (a - b):+.1f}" for a, b in zip(own, base, strict=True)]
            if base and method != reference
            else ["", ""]
        )
        name = method if seed == first else f"{method} (seed {seed})"
        rows.append([name, _points(own[0]), gaps[0], _points(own[1]), gaps[1], *(_points(value) for value in pseudo)])
    return rows


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, a line each."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _set_title(images: str) -> str:
    if images == "validation":
        return "Validation"
    return f"Test, {images.replace('-', ' ')}"


def end_title(end: str) -> str:
    """One of `ENDS` for people."""
    return "state with the best validation" if end == "best" else "last step"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return mean_spread(known)[0] if known else math.nan


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _points_spread(values: Sequence[float]) -> str:
    mean, spread = mean_spread(values)
    return _points(mean) if math.isnan(spread) else f"{100 * mean:.1f} ± {100 * spread:.1f}"
