"""The curve: validation mIoU without class 0 over labelled area, by strategy, as CSV and PNG."""

import csv
import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contest.records import read_json

from labelling.rounds import START, run_name
from salakseg.errors import DataError

NOTE = "Aerial images of Dubai (Humans in the Loop, CC0), a stand-in without salak palm. Validation; class 0 left out."
_NAME = re.compile(r"(?P<strategy>.+)-s(?P<seed>\d+)-r(?P<round>\d+)")
_MARKERS = (("o", "\N{BLACK CIRCLE}"), ("s", "\N{BLACK SQUARE}"), ("^", "\N{BLACK UP-POINTING TRIANGLE}"))
"""Marker of each seed, and the sign for it in the legend."""

_COLUMNS = ("strategy", "seed", "round", "squares", "labelled_pixels", "miou_without_background")


def write_curve(out: Path, say: Callable[[str], None]) -> None:
    """Writes curve.csv and curve.png from all rounds that are done.

    Args:
        out: Folder of results.
        say: Called with each line of the table.

    Raises:
        DataError: No round of a strategy is done.
    """
    rows = _rows(out)
    if not rows:
        raise DataError(f"{out} holds no finished round of a strategy; run suggest.py first.")
    classes = list(rows[0]["iou"])
    with (out / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *(f"iou {name}" for name in classes)])
        writer.writerows([*(row[name] for name in _COLUMNS), *(row["iou"][name] for name in classes)] for row in rows)
    _draw(out / "curve.png", rows)
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        for number in sorted({row["round"] for row in rows if row["strategy"] == strategy}):
            mine = [row for row in rows if (row["strategy"], row["round"]) == (strategy, number)]
            scores = [row["miou_without_background"] for row in mine]
            pixels = statistics.fmean(row["labelled_pixels"] for row in mine)
            say(f"{strategy:8} round {number}: {pixels:11,.0f} px, mIoU {_spread(scores)}")
    for line in _over_random(rows):
        say(line)


def _rows(out: Path) -> list[dict[str, Any]]:
    """Every round of every run, the shared first one repeated for each strategy."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for path in sorted((out / "runs").glob("*.json")):
        match = _NAME.fullmatch(path.stem)
        if match is not None and match["strategy"] != START:
            found[match["strategy"], int(match["seed"]), int(match["round"])] = read_json(path)
    for strategy, seed in {key[:2] for key in found}:
        found[strategy, seed, 0] = read_json(out / "runs" / f"{run_name(strategy, seed, 0)}.json")
    if len({json.dumps(record["setting"], sort_keys=True) for record in found.values()}) > 1:
        raise DataError(f"{out} holds rounds of several settings, which make no curve; name another folder with --out.")
    return [
        {
            "strategy": strategy,
            "seed": seed,
            "round": number,
            "squares": len(record["squares"]),
            "labelled_pixels": record["labelled_pixels"],
            "miou_without_background": record["miou_without_background"],
            "iou": dict(zip(record["classes"], record["iou"], strict=True)),
        }
        for (strategy, seed, number), record in sorted(found.items())
    ]


def _over_random(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each strategy's mean over all rounds less that of random squares, seed by seed, where both are whole."""
    rounds = max(row["round"] for row in rows)
    means: dict[str, dict[int, float]] = {}
    for strategy, seed in sorted({(row["strategy"], row["seed"]) for row in rows}):
        mine = [row for row in rows if (row["strategy"], row["seed"]) == (strategy, seed) and row["round"] > 0]
        if len(mine) == rounds:
            means.setdefault(strategy, {})[seed] = statistics.fmean(row["miou_without_background"] for row in mine)
    for strategy, of_seed in means.items():
        both = sorted(of_seed.keys() & means.get("random", {}).keys())
        if strategy != "random" and both:
            apart = [of_seed[seed] - means["random"][seed] for seed in both]
            told = ", ".join(f"{100 * value:+.1f}" for value in apart)
            yield (
                f"{strategy} over random, mean of {rounds} rounds: {told} points by seed, "
                f"{100 * statistics.fmean(apart):+.1f} in the mean"
            )


def _spread(scores: list[float]) -> str:
    spread = f" +- {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.4f}{spread} ({len(scores)} seed{'s' * (len(scores) != 1)})"


def _draw(path: Path, rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    seeds = sorted({row["seed"] for row in rows})
    for place, strategy in enumerate(dict.fromkeys(row["strategy"] for row in rows)):
        mine = [row for row in rows if row["strategy"] == strategy]
        for seed in seeds:
            axes.scatter(
                [row["labelled_pixels"] / 1e6 for row in mine if row["seed"] == seed],
                [row["miou_without_background"] for row in mine if row["seed"] == seed],
                s=18,
                color=f"C{place}",
                marker=_MARKERS[seed % len(_MARKERS)][0],
                alpha=0.5,
            )
        points = []
        for number in sorted({row["round"] for row in mine}):
            here = [row for row in mine if row["round"] == number]
            points.append(
                tuple(statistics.fmean(row[name] for row in here) for name in ("labelled_pixels", _COLUMNS[-1]))
            )
        axes.plot([x / 1e6 for x, _ in points], [y for _, y in points], color=f"C{place}", label=strategy)
    axes.set_xlabel("labelled pixels, millions")
    axes.set_ylabel("validation mIoU without class 0")
    signs = ", ".join(f"seed {seed} {_MARKERS[seed % len(_MARKERS)][1]}" for seed in seeds)
    figure.legend(title=f"mean over seeds; {signs}", loc="outside lower center", ncols=5)
    axes.set_title(NOTE, fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path)
