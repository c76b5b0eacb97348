"""The live view: what the panel reads from a log, and the lines where there is no terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from salakseg.classes import SALAK
from salakseg.cli import live
from salakseg.cli.live import LogTail, live_view
from salakseg.cli.live_panel import SPARKS, Glance, clock, panel, sparkline

RECORDS: list[dict[str, Any]] = [
    {"kind": "train", "iteration": 500, "loss": 0.8123, "loss_sup": 0.5, "learning_rate": 2.4e-4, "kept_share": 0.9975,
     "kept_pixels": [90, 5, 0, 0, 0, 0, 0], "pseudo_pixels": [100, 20, 0, 0, 0, 0, 0]},
    {"kind": "val", "iteration": 500, "miou_without_background": 0.62, "iou": [0.9, 0.2, None, 0.5, 0.5, 0.5, 0.5]},
    {"kind": "watch", "iteration": 500, "student_miou": 0.58, "teacher_miou": 0.61, "train_miou": 0.7,
     "pseudo_precision": 0.71, "pseudo_precision_of_class": [0.8, 0.25] + [None] * 5,
     "pseudo_precision_part": "calibration", "images_per_second": 22.0},
    {"kind": "event", "iteration": 500, "event": "alarm", "level": "warning", "seen": "Far too [red]many[/red]."},
    {"kind": "val", "iteration": 1000, "miou_without_background": 0.55, "iou": [0.9, 0.2, None, 0.5, 0.5, 0.5, 0.5]},
    {"kind": "event", "iteration": 1000, "event": "rollback"},
]  # fmt: skip


def shown(glance: Glance, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(panel(glance))
    return console.export_text()


def test_the_panel_shows_the_newest_of_everything() -> None:
    glance = Glance(SALAK, "v3: runs/[one]")
    glance.count(400, 4_000, 100.0)
    glance.count(1_000, 4_000, 160.0)
    glance.take(RECORDS)
    text = shown(glance)
    assert "v3: runs/[one]" in text
    assert "1,000 of 4,000 steps, 10 steps/s, 0:05:00 left" in text
    assert "█▁  0.550, best 0.620 at 500" in text
    assert "student 0.580, average 0.610, labelled patches 0.700" in text
    assert "kept 99.8 %, 71.0 % right on the calibration part, went back 1 times" in text
    (water,) = (line for line in text.splitlines() if "Badan Air" in line)
    assert water.split()[2:5] == ["█" * 4 + "·" * 14, "│"] or "25.0 %" in water
    assert all(figure in water for figure in ("25.0 %", "0.250", "0.200"))
    assert "at 500 warning Far too [red]many[/red]." in text


def test_an_empty_log_and_a_narrow_terminal_are_no_trouble() -> None:
    glance = Glance(SALAK, "v3")
    assert "0 of 0 steps" in shown(glance)
    glance.count(5, 10, 0.0)
    glance.take([{"kind": "val", "iteration": 5}, {"kind": "unheard", "iteration": 5}, *RECORDS])
    assert all(len(line) <= 50 for line in shown(glance, 50).splitlines())


def test_sparklines() -> None:
    assert sparkline([0.1, 0.2, 0.3, 0.45], 10) == "▁▃▅█"
    assert sparkline([float("nan"), 0.5, 0.5], 10) == SPARKS[0] * 2
    assert sparkline([], 10) == ""
    assert len(sparkline(list(range(100)), 10)) == 10
    assert clock(3_725.4) == "1:02:05"


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = LogTail(path)
    assert tail.new_records() == []
    first, second = (json.dumps(record) + "\n" for record in RECORDS[:2])
    path.write_text(first + second[:10])
    assert [record["kind"] for record in tail.new_records()] == ["train"]
    path.write_text(first + second + "no record\n")
    assert [record["kind"] for record in tail.new_records()] == ["val"]
    assert tail.new_records() == []


@pytest.mark.parametrize("terminal", [True, False])
def test_a_view_follows_a_run(tmp_path: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    monkeypatch.setattr(live, "stderr", console)
    monkeypatch.setattr("salakseg.cli.console.stderr", console)
    monkeypatch.setattr("salakseg.cli.console._LINE_EVERY", 0.0)
    path = tmp_path / "metrics.jsonl"
    with live_view(path, SALAK, "v3") as show:
        show(0, 10)
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
        show(10, 10)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    if terminal:
        assert "best 0.620 at 500" in text and "10 of 10 steps" in text
    else:
        assert "\x1b" not in text and "training: 10 of 10 steps" in text
