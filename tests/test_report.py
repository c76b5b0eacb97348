"""The report: what a terminal shows, what the files hold, and that a failure leaves the older report alone."""

import csv
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text
from PIL import Image
from rich.console import Console

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import ReportError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.figures import write_figure
from salakseg.evaluate.files import write_report
from salakseg.evaluate.report import Report
from salakseg.evaluate.targets import load_target
from salakseg.evaluate.terminal import render_terminal
from salakseg.evaluate.variants import Way
from salakseg.network.variant import Variant

ODD_NAMES = (
    "__background__",
    "[red]x",
    "<b>Tanah</b>",
    "[/]",
    "cost $a$ and $b$ 100%",
    "Permanently irrigated terraces",
)


def salak_report(**changes: object) -> Report:
    """A salak model that never meets nor predicts water, and one pixel of soil in the truth."""
    counts = np.random.default_rng(3).integers(0, 4_000, (7, 7)) + np.diag([900_000, 0, 80_000, 9_000, 7_000, 10**6, 1])
    counts[1] = counts[:, 1] = 0
    counts[6] = 0
    counts[6, 6] = 1
    facts: dict[str, Any] = {
        "title": "best.pt",
        "split": "test",
        "patches": 2571,
        "class_map": SALAK,
        "matrix": ConfusionMatrix.from_counts(counts),
        "way": Way(Variant()),
        "iteration": 53_000,
        "recipe": "phase2",
        "target": load_target("diversenet"),
        "notes": ("These are stand-in data.",),
    }
    facts.update(changes)
    return Report(**facts)


def odd_report(classes: int = len(ODD_NAMES), **changes: object) -> Report:
    names = (*ODD_NAMES, *(f"Class {i}" for i in range(len(ODD_NAMES), classes)))[:classes]
    class_map = ClassMap(tuple(LandClass(i, name, (255 - i, 255, 255)) for i, name in enumerate(names)))
    matrix = ConfusionMatrix.from_counts(np.random.default_rng(0).integers(0, 1000, (classes, classes)))
    return salak_report(class_map=class_map, matrix=matrix, **changes)


def rendered(report: Report, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(render_terminal(report))
    return stream.getvalue()


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_says_it_all_within_the_width(width: int) -> None:
    report = salak_report()
    text = rendered(report, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    caption = "test split, 2,571 patches, EMA, mean of the logits, iteration 53,000, recipe phase2"
    assert caption in " ".join(text.split())
    metrics = report.metrics
    road = next(line.split() for line in lines if "Jalan" in line)
    assert road[:2] == ["3", "Jalan"]
    figures = (metrics.iou, metrics.precision, metrics.recall)
    assert road[4:7] == [f"{figure[3]:.3f}" for figure in figures]
    assert road[7:] == ["0.80", "est.", f"{100 * (metrics.iou[3] - 0.80):+.1f}"]
    water = next(line.split() for line in lines if "Badan Air" in line)
    assert water == ["1", "Badan", "Air", "0", "0", "-", "-", "-", "0.50", "est."]
    miou = " ".join(text.split())
    assert f"mIoU without background {metrics.miou_without_background.value:.3f} (5 classes)" in miou
    assert f"mIoU with background {metrics.miou_with_background.value:.3f} (6 classes)" in miou
    assert f"overall accuracy {metrics.overall_accuracy:.3f}" in miou
    gap = 100 * (metrics.miou_without_background.value - 0.70)
    assert f"target DiverseNet mIoU 0.70 est. without background: gap {gap:+.1f} points" in miou
    for sentence in ("These are stand-in data.", "in no mean: Badan Air.", "own mean is 0.760 with and 0.728 without"):
        assert sentence in miou


def test_terminal_matrix_is_percent_of_the_row() -> None:
    report = salak_report()
    table = rendered(report).split("Confusion:")[1].splitlines()
    row = next(line.split() for line in table if "Bangunan" in line)
    shares = report.matrix.counts[2] / report.matrix.counts[2].sum()
    assert row == ["2", "Bangunan", *("0" if share == 0 else f"{100 * share:.1f}" for share in shares)]


def test_class_names_and_title_are_shown_literally() -> None:
    text = rendered(odd_report(title="[bold]best[/bold].pt", notes=("[link=x]note",)), width=120)
    for shown in (*ODD_NAMES, "[bold]best[/bold].pt", "[link=x]note"):
        assert shown in text


def test_terminal_needs_no_unicode() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=80, force_terminal=True, color_system="truecolor").print(render_terminal(salak_report()))
    stream.flush()


def test_terminal_shows_the_colours_and_the_sign() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    console.print(render_terminal(salak_report()))
    text = stream.getvalue()
    assert "\x1b[48;2;50;167;255m  " in text  # the salak palm's swatch
    assert "\x1b[31m-" in text and "\x1b[32m+" in text


def test_without_common_classes_or_target_there_are_no_target_columns() -> None:
    assert "only its headline 0.70 is compared" in " ".join(rendered(odd_report(), 120).split())
    assert "gap pts" not in rendered(odd_report())
    assert "target" not in rendered(salak_report(target=None))
    assert "gap pts" in rendered(salak_report())


def test_many_classes_point_to_the_file() -> None:
    assert "see confusion.csv" in rendered(odd_report(classes=13))
    assert "see confusion.csv" not in rendered(odd_report(classes=12))


def test_remarks_name_what_flatters_or_distorts() -> None:
    counts = salak_report().matrix.counts.copy()
    counts[5, 1] = 12
    report = salak_report(split="val", matrix=ConfusionMatrix.from_counts(counts))
    text = " ".join(report.remarks)
    assert "stored at training time" in text and "figures stored at training time" in report.caption
    assert "can flatter the model" in text
    assert "so IoU 0 in the mean: Badan Air." in text
    assert "in no mean" not in text


def test_json_holds_the_matrix_and_its_figures(tmp_path: Path) -> None:
    report = odd_report()
    paths = write_report(report, tmp_path / "runs" / "report")
    record = json.loads(paths["report.json"].read_text(encoding="utf-8"))
    assert (record["schema"], record["version"]) == ("salakseg.report", 3)
    assert record["confusion"] == report.matrix.counts.tolist()
    assert record["metrics"] == report.metrics.to_dict()
    assert record == report.to_dict()


# What can be written of figures that were stored at training time
STORED = {"confusion.csv", "confusion_normalised.csv", "per_class.csv", "report.png", "report.html", "report.json"}
STORED |= {"figure_iou.png", "figure_iou.svg"}


def test_csv_files_hold_the_counts_and_figures(tmp_path: Path) -> None:
    report = odd_report(target=load_target("diversenet"))
    paths = write_report(report, tmp_path)
    assert set(paths) == STORED == {path.name for path in tmp_path.iterdir()}
    header, *rows = read_csv(paths["confusion.csv"])
    assert header == ["truth \\ prediction", *ODD_NAMES]
    assert [row[0] for row in rows] == list(ODD_NAMES)
    assert [[int(cell) for cell in row[1:]] for row in rows] == report.matrix.counts.tolist()
    shares = np.array([row[1:] for row in read_csv(paths["confusion_normalised.csv"])[1:]], dtype=np.float64)
    np.testing.assert_allclose(shares, report.matrix.normalised(), atol=1e-6)
    with paths["per_class.csv"].open(encoding="utf-8", newline="") as file:
        figures = list(csv.DictReader(file))
    assert [row["class_name"] for row in figures] == list(ODD_NAMES)
    np.testing.assert_allclose([float(row["iou"]) for row in figures], report.metrics.iou, atol=1e-6)
    assert [int(row["predicted"]) for row in figures] == report.metrics.predicted.tolist()


def test_undefined_figures_are_empty_cells(tmp_path: Path) -> None:
    paths = write_report(salak_report(), tmp_path)
    with paths["per_class.csv"].open(encoding="utf-8", newline="") as file:
        water = list(csv.DictReader(file))[1]
    assert (water["iou"], water["recall"], water["gap"], water["target_iou"]) == ("", "", "", "0.500000")
    assert read_csv(paths["confusion_normalised.csv"])[2] == ["Badan Air", *[""] * 7]


@pytest.mark.parametrize("classes", [2, 6, 12, 30])
def test_picture_is_a_png_of_sensible_size(tmp_path: Path, classes: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report(odd_report(classes=classes), tmp_path)
    with Image.open(paths["report.png"]) as picture:
        assert picture.format == "PNG"
        assert 1200 <= picture.width <= 2400
        assert 400 <= picture.height <= 2000
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[0] == 255).all() and (pixels[:, 0] == 255).all() and (pixels[:, -1] == 255).all()  # nothing cut off


def test_picture_shows_the_class_colours(tmp_path: Path) -> None:
    report = salak_report()
    with Image.open(write_report(report, tmp_path)["report.png"]) as picture:
        seen = {color for _, color in picture.convert("RGB").getcolors(picture.width * picture.height) or []}
    visible = [c.color for c in SALAK.classes if report.metrics.iou[c.id] > 0.05]
    assert len(visible) == 5 and seen.issuperset(visible)
    assert SALAK.classes[1].color not in seen  # water is undefined and has no bar


def drawn_texts(report: Report, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Draws the picture and notes every text that goes into it."""
    texts: list[str] = []
    draw = Text.draw

    def note(text: Text, renderer: RendererBase) -> None:
        if text.get_visible() and text.get_text():
            assert text.get_parse_math() is False or "$" not in text.get_text()
            texts.append(text.get_text())
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    write_figure(report, path)
    return texts


def test_picture_says_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = salak_report()
    texts = drawn_texts(report, tmp_path / "report.png", monkeypatch)
    metrics = report.metrics
    assert (
        f"mIoU {metrics.miou_without_background.value:.3f} (5 classes) without background, "
        f"{metrics.miou_with_background.value:.3f} (6 classes) with background"
    ) in texts
    whole = " ".join("\n".join(texts).split())
    assert f"best.pt: {report.caption}" in whole and "Target DiverseNet: mIoU 0.70 est. without background" in whole
    for name in SALAK.names:
        assert texts.count(name) == 2  # beside its bar and over its column
    assert texts.count("not in the truth, never predicted") == 1
    assert {"0.95 est.", f"{metrics.iou[3]:.3f}", f"{100 * (metrics.iou[3] - 0.80):+.1f}"} <= set(texts)
    assert f"{100 * metrics.recall[3]:.1f}" in texts
    for remark in report.remarks:
        assert remark in whole


def test_picture_takes_names_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(odd_report(title="$\\frac$.pt"), tmp_path / "report.png", monkeypatch)
    assert {"[red]x", "<b>Tanah</b>", "[/]", "cost $a$ and $b$ 100%"} <= set(texts)
    assert any("$\\frac$.pt" in text for text in texts)


def test_an_empty_matrix_is_reported_too(tmp_path: Path) -> None:
    report = salak_report(matrix=ConfusionMatrix(7))
    write_report(report, tmp_path)
    assert "nothing measured" in rendered(report)


def test_a_failing_picture_leaves_the_older_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(salak_report(), tmp_path)
    before = contents(tmp_path)

    def fail(report: Report, path: Path) -> None:
        path.write_bytes(b"half a pict")
        raise OSError("disk full")

    monkeypatch.setattr("salakseg.evaluate.figures.write_figure", fail)
    with pytest.raises(ReportError, match="disk full"):
        write_report(odd_report(), tmp_path)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(before)


@pytest.mark.parametrize("older", [True, False])
def test_a_file_that_cannot_be_replaced_undoes_the_others(tmp_path: Path, older: bool) -> None:
    if older:
        write_report(salak_report(), tmp_path)
        (tmp_path / "report.png").unlink()
    (tmp_path / "report.png").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ReportError, match=r"report\.png is a folder"):
        write_report(odd_report(), tmp_path)
    assert contents(tmp_path) == before
    assert (tmp_path / "report.png").is_dir()


def test_a_new_report_replaces_the_older_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_report(salak_report(), tmp_path)
    (tmp_path / "variants.csv").write_text("of an older report that had more")
    paths = write_report(odd_report(), tmp_path)
    assert len(read_csv(paths["confusion.csv"])) == 7
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {*STORED, "notes.txt"}


def test_a_file_in_the_folder_s_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(ReportError, match="name another folder"):
        write_report(salak_report(), tmp_path / "report")


def test_a_report_is_not_touched_by_later_counting() -> None:
    matrix = ConfusionMatrix.from_counts(np.eye(7, dtype=np.int64))
    report = salak_report(matrix=matrix)
    matrix.update(np.array([1]), np.array([2]))
    assert report.matrix.counts.sum() == 7


@pytest.mark.parametrize("wrong", [{"matrix": ConfusionMatrix(6)}, {"split": "train"}])
def test_impossible_reports_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        salak_report(**wrong)


def test_matplotlib_is_not_loaded_before_a_report_is_written() -> None:
    check = "import sys, salakseg.evaluate.judge, salakseg.evaluate.files; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
