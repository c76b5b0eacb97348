"""The recorded results of the field team."""

from typing import Any

import pytest
from pydantic import ValidationError

from salakseg.evaluate.diagnosis import diagnose
from salakseg.evaluate.recorded import RecordedRun, load_recorded


def test_the_recorded_results_are_the_field_team_s() -> None:
    recorded = load_recorded()
    assert {run.name: (run.best_miou, run.iteration) for run in recorded.runs} == {
        "V1": (0.4977, None),
        "V2": (0.4318, None),
        "V3": (0.6214, 4_000),
        "V3.1": (0.6512, 53_000),
        "UNet++": (0.5301, None),
    }
    assert recorded.mark == "leaking split, recorded, not re-run"
    assert "background" in recorded.remark and "unclear" in recorded.remark


def test_the_points_are_what_can_be_drawn() -> None:
    runs = {run.name: run for run in load_recorded().runs}
    assert len(runs["V3"].points) == 14
    assert runs["V3"].points[0] == (500, 0.1166) and runs["V3"].points[-1] == (11_500, 0.5783)
    assert runs["V3.1"].points == ((53_000, 0.6512), (74_900, 0.6231))
    assert runs["V1"].points == ()


def test_a_recorded_run_can_be_diagnosed_and_says_that_background_is_unclear() -> None:
    v3 = next(run for run in load_recorded().runs if run.name == "V3")
    paragraph = diagnose(v3.history()).paragraph
    assert paragraph.startswith(
        "Recorded validation mIoU (whether with background is unclear) peaked at 4,000 of 50,000"
    )
    assert "Nothing that was logged explains the fall." in paragraph
    assert "Unknown, since not logged: learning rate," in paragraph


CURVE = [[1, 0.1], [2, 0.5], [3, 0.4]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"best_miou": 62.14}, "less than or equal to 1"),
        ({"best_miou": float("nan")}, "finite number"),
        ({"remark": ""}, "at least 1 character"),
        ({"last_miou": None}, "without the other"),
        ({"iteration": None}, "not the iteration of its best"),
        ({"curve": [[2, 0.5], [1, 0.1]]}, "rising iterations"),
        ({"curve": [[1, 0.6], [2, 0.5], [3, 0.4]]}, "another best or end"),
        ({"curve": [[1, 0.1], [2, 0.5], [4, 0.4]]}, "another best or end"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(change: dict[str, Any], reason: str) -> None:
    sound = {"name": "a", "best_miou": 0.5, "iteration": 2, "last_miou": 0.4, "last_iteration": 3, "remark": "b"}
    assert RecordedRun.model_validate({**sound, "curve": CURVE}).points[1] == (2, 0.5)
    with pytest.raises(ValidationError, match=reason):
        RecordedRun.model_validate({**sound, **change})
