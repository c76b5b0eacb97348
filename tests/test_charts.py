"""The charts: which of them a report has, that they are well-formed, and that they follow a page's theme."""

import math
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from reports import measured_report, odd_names, stored_report

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.evaluate.chart_style import INK, inline_svg, paint
from salakseg.evaluate.charts import chart_files, draw_calibration, draw_iou, save_charts
from salakseg.evaluate.charts_training import MOST_PANELS, draw_history, draw_thresholds
from salakseg.evaluate.contrast import READABLE, contrast, css_color, heat_ramp, readable_ink
from salakseg.evaluate.diagnosis import diagnose
from salakseg.evaluate.history import TrainingHistory
from salakseg.evaluate.recorded import load_recorded

SVG = "{http://www.w3.org/2000/svg}"


def texts(figure: Figure) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(inline_svg(figure, "test")).iter("text")]


def said(figure: Figure) -> str:
    return " ".join(" ".join(texts(figure)).split())


def test_a_measured_report_has_every_chart_as_png_and_svg(tmp_path: Path) -> None:
    report = measured_report(recorded=load_recorded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = save_charts(report, tmp_path)
    names = [f"figure_{name}" for name in ("iou", "variants", "thresholds", "calibration", "history")]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert 400 < picture.width < 2400 and 200 < picture.height < 4000
                edges = np.asarray(picture.convert("RGB"))
            assert all((edge == 255).all() for edge in (edges[0], edges[-1], edges[:, 0], edges[:, -1])), path.name
        else:
            assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"


def test_a_stored_report_has_only_what_is_known() -> None:
    assert list(chart_files(stored_report())) == ["figure_iou"]
    assert list(chart_files(stored_report(recorded=load_recorded()))) == ["figure_iou", "figure_history"]


def test_charts_of_the_same_report_are_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        save_charts(measured_report(), tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_inline_charts_share_no_id_and_refer_to_nothing_outside() -> None:
    seen: set[str] = set()
    for name, figure in chart_files(measured_report()).items():
        text = inline_svg(figure, name)
        root = ElementTree.fromstring(text)
        assert root.tag == "svg" and "http" not in text and "<!" not in text and "<style" not in text
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(ids) == len(set(ids)) and not seen & set(ids)
        seen |= set(ids)
        used = set(re.findall(r"url\(#([^)]*)\)", text)) | {
            element.attrib["href"].removeprefix("#") for element in root.iter("use")
        }
        assert used <= set(ids)


def test_ink_follows_the_page_and_class_colours_do_not() -> None:
    text = inline_svg(chart_files(stored_report())["figure_iou"], "x")
    assert "currentColor" in text and "var(--line)" in text and INK not in text and "font-family" not in text
    assert all(css_color(c.color) in text for c in SALAK.classes if c.id not in (0, 1))  # black is left out, as default
    ink = tuple(int(INK[i : i + 2], 16) for i in (1, 3, 5))
    assert paint((ink[0], ink[1], ink[2])) != INK


def test_class_names_are_taken_literally() -> None:
    report = stored_report(class_map=odd_names())
    found = said(chart_files(report)["figure_iou"]).replace(" ", "")
    for name in ("<script>alert(1)</script>", "\"&'", "$a$ and $b$"):
        assert name.replace(" ", "") in found


def test_iou_chart_says_what_the_table_says() -> None:
    report = measured_report()
    found = said(chart_files(report)["figure_iou"])
    low, high = report.interval("iou")[3].ends
    assert f"{report.metrics.iou[3]:.3f}" in found and f"{low:.2f}-{high:.2f}" in found
    assert "absent" in found and "target (DiverseNet, estimates)" in found
    bare = draw_iou(SALAK, report.metrics, stored_report().interval("iou"), None)
    assert "whiskers" not in said(bare) and "target" not in said(bare)


def test_variants_chart_begins_with_the_report_s_own() -> None:
    report = measured_report()
    found = texts(chart_files(report)["figure_variants"])
    assert report.findings is not None
    own = next(v for v in report.findings.variants if v.is_subject)
    assert "this report" in found
    rows = [text for text in found if text in {v.name for v in report.findings.variants}]
    assert rows[0] == own.name and len(rows) == len(report.findings.variants)


@pytest.mark.parametrize("classes", [2, 25, 60])
def test_threshold_panels(classes: int) -> None:
    report = measured_report(classes)
    assert report.findings is not None
    found = texts(draw_thresholds(report.findings.thresholds, report.class_map))
    panels = [name for name in report.class_map.names if name in found]
    absent = int(np.isnan(report.findings.thresholds.coverage).all(axis=1).sum())
    assert len(panels) == min(MOST_PANELS, classes - absent)
    assert any("classes; report.json has them all" in text for text in found) == (classes > MOST_PANELS)
    assert "the recipe's present threshold" in found


def test_calibration_without_pixels_is_drawn_too() -> None:
    report = measured_report()
    assert report.findings is not None
    calibration = report.findings.calibration
    empty = type(calibration)(
        confidence=np.full(15, math.nan),
        accuracy=np.full(15, math.nan),
        share=np.zeros(15),
        ece=math.nan,
        interval=calibration.interval,
        temperature=1.0,
    )
    assert "ECE -" in texts(draw_calibration(empty))


def test_history_marks_peak_and_stop() -> None:
    history = TrainingHistory(
        stopped_early=True,
        val_miou=((500, 0.3), (1000, 0.62), (1500, 0.5)),
        kept_share=((500, 0.9975),),
        learning_rate=((500, 2e-4), (1000, 1e-4)),
    )
    figure = draw_history(history, diagnose(history), None)
    assert figure is not None
    found = texts(figure)
    assert "best 0.6200 at 1,000" in found and "stopped early" in " ".join(found) and "self-training" in found
    assert "loss" not in found


def test_recorded_runs_carry_their_mark() -> None:
    figure = draw_history(None, None, load_recorded())
    assert figure is not None
    found = texts(figure)
    assert f"Recorded runs: {load_recorded().mark}" in found and "V3" in found and "V3.1, best and last only" in found
    assert draw_history(None, None, None) is None
    assert draw_history(TrainingHistory(), None, None) is None


def test_text_is_readable_on_any_colour() -> None:
    colors = [(r, g, b) for r in range(0, 256, 15) for g in range(0, 256, 15) for b in range(0, 256, 15)]
    assert min(contrast(readable_ink(color), color) for color in colors) >= READABLE
    for dark in (False, True):
        ramp = heat_ramp(dark)
        assert len(set(ramp)) == 21
        assert min(contrast(ground, ink) for ground, ink in ramp) >= READABLE


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)  # the standard's known example


def test_pale_classes_keep_their_colour_and_get_an_edge() -> None:
    pale = ClassMap(tuple(LandClass(i, f"Class {i}", (255 - i, 255, 255)) for i in range(7)))
    text = inline_svg(chart_files(stored_report(class_map=pale))["figure_iou"], "pale")
    assert "fill: #fdffff; stroke: currentColor" in text
