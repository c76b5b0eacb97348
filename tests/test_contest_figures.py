"""Statistics and bars of the self-training benchmark, against plain arithmetic."""

from typing import Any

import numpy as np
import pytest
from contest.bars import bar_lines
from contest.figures import Result, best_minus_end, difference, gap_closed, rarest_class, stop_of
from contest.groups import Group
from contest.records import RunKey
from contest_records import record_of

from salakseg.evaluate.bootstrap import draw_units, interval_of


def results(counts: list[list[list[list[int]]]], method: str) -> list[Result]:
    """A run for each seed; images of two scenes in turn."""
    return [
        Result.of(method, seed, {f"Tile {n % 2}/{n}": matrix for n, matrix in enumerate(images)})
        for seed, images in enumerate(counts)
    ]


def test_paired_bootstrap_against_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(1, 60, (2, 6, 3, 3)) for _ in range(2))
    a += 30 * np.eye(3, dtype=np.int64)
    gap = difference(results(a.tolist(), "a"), results(b.tolist(), "b"))

    def miou(counts: Any) -> float:
        ious = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in (1, 2)]
        return float(sum(ious) / 2)

    order = np.argsort([f"Tile {n % 2}/{n}" for n in range(6)])
    mean_a, mean_b = a.mean(axis=0)[order], b.mean(axis=0)[order]
    assert gap.value == pytest.approx(miou(mean_a.sum(axis=0)) - miou(mean_b.sum(axis=0)))
    gaps = [
        miou(sum(n * m for n, m in zip(draw, mean_a, strict=True)))
        - miou(sum(n * m for n, m in zip(draw, mean_b, strict=True)))
        for draw in draw_units(6)
    ]
    assert gap.by_image == pytest.approx(interval_of(np.array(gaps), 6).ends)
    assert np.isnan(gap.by_scene).all()  # two scenes are too few for an interval


def test_a_method_over_itself_is_nothing() -> None:
    own = results(np.random.default_rng(1).integers(1, 60, (1, 6, 3, 3)).tolist(), "a")
    assert difference(own, own).by_image == (0.0, 0.0)


def test_gap_closed_by_seed() -> None:
    def run(right: int) -> Result:
        return Result.of("m", 0, {"Tile 1/1": [[0, 0], [10 - right, right]]})

    assert gap_closed([run(6)], [run(4)], [run(8)]) == {0: pytest.approx(0.5)}
    assert gap_closed([run(2)], [run(8)], [run(4)]) == gap_closed([run(2)], [run(8)], [run(8)]) == {}  # no way to go
    assert rarest_class(Result.of("m", 0, {"Tile 1/1": [[1, 0, 0, 0], [0, 9, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]]})) == 2


def test_a_small_image_counts_as_much_as_a_large_one_where_all_are_alike() -> None:
    large, small = [[0, 0, 0], [0, 90, 10], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 1, 3]]
    run = Result.of("m", 0, {"Tile 1/1": large, "Tile 2/1": small})
    assert run.miou() == pytest.approx((90 / 101 + 3 / 14) / 2)
    assert run.miou_images_alike == pytest.approx((0.9 / 1.25 + 0.75 / 1.1) / 2)
    low, high = (
        Result.of("m", 0, {"Tile 1/1": large, "Tile 2/1": [[0, 0, 0], [0, 0, 0], [0, 4 - n, n]]}) for n in (2, 4)
    )
    share = gap_closed([run], [low], [high], lambda result: result.miou_images_alike)[0]
    ends = [result.miou_images_alike for result in (low, high)]
    assert share == pytest.approx((run.miou_images_alike - ends[0]) / (ends[1] - ends[0]))
    assert share != pytest.approx(gap_closed([run], [low], [high])[0], abs=0.01)


def test_fall_and_early_stop() -> None:
    record = record_of(RunKey("v3", 0, "cpu", 100), [0.1, 0.4, 0.3, 0.3, 0.3, 0.5, 0.45])
    assert best_minus_end(record) == pytest.approx(0.05)
    assert stop_of(record, patience=0.3) == (50, 0.4)  # 30 of 100 iterations after the best at 20
    assert stop_of(record, patience=0.5) == (100, 0.5)


def test_a_bar_is_open_until_there_are_three_seeds() -> None:
    good, bad = [[5, 0, 0], [0, 95, 0], [0, 0, 50]], [[5, 0, 0], [0, 60, 35], [0, 10, 40]]
    middle = [[5, 0, 0], [0, 88, 7], [0, 2, 48]]

    def verdicts(seeds: int, of_the_ceiling: int) -> list[str]:
        records, entries = [], {}
        for method, matrix in {"supervised": bad, "supervised-all": good, "v3": bad, "phase4": middle}.items():
            for seed in range(of_the_ceiling if method == "supervised-all" else seeds):
                record = record_of(RunKey(method, seed, "cpu", 100), [0.5])
                record |= {"weights": {"end": f"{method} {seed}"}, "classes": [{"name": name} for name in "abc"]}
                images = {f"Tile {n // 2}/{n}": matrix for n in range(8)}
                entries[f"{method}-s{seed}-cpu-100"] = {"weights": record["weights"], "best": images, "end": images}
                records.append(record)
        group = Group("cpu", 100, tuple(records), {"parts-6": entries}, {"v3": 1.0, "phase4": 2.0})
        rows = [line for line in bar_lines(group, "parts-6") if line.startswith("| ") and "---" not in line]
        found = [row.split(" | ")[-1].removesuffix(" |") for row in rows[1 : len(rows) // 2]]
        return [met.partition(" v3, phase1")[0] if seeds < 3 else met.partition(" phase1")[0] for met in found]

    # The best of the others is not known while some of them, such as phase1, have no run
    assert verdicts(1, 1) == ["open: too few seeds", "-", "open: without supervised,", "open: too few seeds", "**no**"]
    assert verdicts(3, 1) == ["open: too few seeds", "-", "open: without", "yes", "**no**"]
    assert verdicts(3, 0) == ["open: without", "yes", "**no**"]
    assert verdicts(3, 3) == ["yes", "-", "open: without", "yes", "**no**"]
