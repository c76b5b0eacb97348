"""Tables of the self-training benchmark, from a run that is in the repository."""

from copy import deepcopy
from pathlib import Path

from contest.figures import best_minus_end
from contest.groups import Group
from contest.methods import NO_GUARD
from contest.records import ENDS, read_json
from contest.tables import ablation_lines, main_lines

RUN = Path(__file__).parents[1] / "benchmarks" / "selftraining" / "runs" / "phase4-s0-cpu-3000.json"


def test_a_row_of_the_test_speaks_of_the_runs_that_were_scored() -> None:
    first = read_json(RUN)
    second = deepcopy(first)
    second["key"]["seed"] = 1
    second["curve"][0]["miou_without_background"] = 0.99  # falls far, and is not scored
    entry = {"weights": first["weights"], **{end: first["validation"][end]["images"] for end in ENDS}}
    group = Group("cpu", 3000, (first, second), {"parts-9": {"phase4-s0-cpu-3000": entry}}, {})
    scored, all_runs = (
        [cell.strip() for cell in next(line for line in main_lines(group, images) if "| phase4 |" in line).split("|")]
        for images in ("parts-9", "validation")
    )
    assert (scored[2], all_runs[2]) == ("1", "2")
    falls = [best_minus_end(record) for record in (first, second)]
    assert [scored[-5], all_runs[-5]] == [f"{100 * falls[0]:.1f}", f"{50 * sum(falls):.1f}"]


def test_a_guard_that_never_acted_needs_no_run_without_it() -> None:
    whole = read_json(RUN)
    part = deepcopy(whole)
    part["key"]["method"] = "phase4-no-paste"
    lines = ablation_lines(Group("cpu", 3000, (whole, part), {}, {}))
    rows = {line.split("|")[1].split()[0]: line.split("|")[2:] for line in lines if line.startswith("| phase4")}
    assert set(rows) == {"phase4", "phase4-no-paste", NO_GUARD}
    assert rows[NO_GUARD] == rows["phase4"]
    other = deepcopy(whole)  # without it in a seed in which it did act: held against that seed
    other["key"]["seed"] = 2
    without = deepcopy(other)
    without["key"]["method"] = NO_GUARD
    (row,) = [line for line in ablation_lines(Group("cpu", 3000, (whole, other, without), {}, {})) if NO_GUARD in line]
    assert row.startswith(f"| {NO_GUARD} (seed 2) |")
    assert [cell.strip() for cell in row.split("|")][3:6:2] == ["+0.0", "+0.0"]
    acted = deepcopy(whole)
    acted["events"] = [*acted["events"], {"event": "rollback", "iteration": 100}]
    assert not any(NO_GUARD in line for line in ablation_lines(Group("cpu", 3000, (acted, part), {}, {})))
