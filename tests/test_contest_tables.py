"""Tables of the self-training benchmark, from a run that is in the repository."""

from copy import deepcopy
from pathlib import Path

from contest.groups import Group
from contest.methods import NO_GUARD
from contest.records import read_json
from contest.tables import ablation_lines

RUN = Path(__file__).parents[1] / "benchmarks" / "selftraining" / "runs" / "phase4-s0-cpu-3000.json"


def test_a_guard_that_never_acted_needs_no_run_without_it() -> None:
    whole = read_json(RUN)
    part = deepcopy(whole)
    part["key"]["method"] = "phase4-no-paste"
    lines = ablation_lines(Group("cpu", 3000, (whole, part), {}, {}))
    rows = {line.split("|")[1].split()[0]: line.split("|")[2:] for line in lines if line.startswith("| phase4")}
    assert set(rows) == {"phase4", "phase4-no-paste", NO_GUARD}
    assert rows[NO_GUARD] == rows["phase4"]
    acted = deepcopy(whole)
    acted["events"] = [*acted["events"], {"event": "rollback", "iteration": 100}]
    assert not any(NO_GUARD in line for line in ablation_lines(Group("cpu", 3000, (acted, part), {}, {})))
