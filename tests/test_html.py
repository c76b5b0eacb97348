"""The report as a page: it says it all, escapes what users named, needs nothing else, and works in a real browser."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from PIL import Image
from reports import measured_report, odd_names, some_findings, stored_report
from rich.console import Console

from salakseg.classes import SALAK, ClassMap
from salakseg.data.patches import Patch
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.examples import Picture, Wanted
from salakseg.evaluate.failures import ErrorPlaces
from salakseg.evaluate.formats import figure_text, points_range_text, range_text
from salakseg.evaluate.html import render_html
from salakseg.evaluate.judge import Question, judge
from salakseg.evaluate.metrics import OVERALL, TITLES, compute_metrics
from salakseg.evaluate.pictures import class_png, share_png
from salakseg.evaluate.recorded import load_recorded
from salakseg.evaluate.report import Report
from salakseg.evaluate.sentences import best_text, border_text, invention_text, verdict_of
from salakseg.evaluate.terminal import render_terminal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<img src=x onerror=alert(1)>\"'&"


class Parsed(HTMLParser):
    """Tags with their attributes, texts, and tags that were left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += f" {data}"

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def picture(kind: str = "class", classes: tuple[int, ...] = (2,), name: str = "DJI_0001_patch_000_000.png") -> Picture:
    generator = np.random.default_rng(1)
    label_HW = generator.integers(0, 7, (40, 60)).astype(np.uint8)
    label_HW[:10] = 255
    return Picture(
        wanted=Wanted(kind, classes, 12, Patch("salak-1-1", name, name, "DJI_0001")),  # type: ignore[arg-type]
        top=0,
        left=0,
        image_HWC=generator.integers(0, 255, (40, 60, 3)).astype(np.uint8),
        label_HW=label_HW,
        prediction_HW=generator.integers(0, 7, (40, 60)).astype(np.uint8),
        confidence_HW=generator.integers(0, 101, (40, 60)).astype(np.uint8),
        disagreement_HW=None if kind == "class" else generator.integers(0, 67, (40, 60)).astype(np.uint8),
    )


def assert_self_contained(page: str) -> None:
    for tag, attributes in Parsed(page).tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert (value or "").startswith(("data:", "#")), (tag, name, value)
        assert tag not in ("iframe", "object", "embed", "base", "form")
    outside_texts = re.sub(r">[^<]*<", "><", page)
    assert "http:" not in outside_texts and "https:" not in outside_texts and "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_the_page_says_what_was_measured() -> None:
    report = measured_report(recorded=load_recorded())
    page = Parsed(render_html(report))
    assert page.open == []
    for sentence in (report.title, report.caption, *report.remarks, verdict_of(report).text):
        assert " ".join(sentence.replace("`", "").split()) in page.words  # commands stand as code
    for name in OVERALL:
        assert f"{TITLES[name]} {figure_text(report.metrics.overall_value(name))}" in page.words
        assert range_text(*report.interval(name).ends) in page.words
    for c in report.class_map.classes:
        assert c.name in page.words and f"{int(report.metrics.support[c.id]):,}" in page.words
        for values in (report.metrics.iou, report.metrics.f1, report.metrics.precision, report.metrics.recall):
            assert figure_text(values[c.id]) in page.words
    assert report.findings is not None and report.diagnosis is not None and report.recorded is not None
    for contender in (*report.findings.variants, *report.findings.runs):
        assert contender.name in page.words
        if not contender.is_subject:
            assert points_range_text(*contender.interval.ends) in page.words
    for place in (*report.findings.folders, *report.findings.places):
        assert place.name in page.words
    for finding in report.diagnosis.findings:
        assert finding.band in page.words and finding.quantity in page.words and finding.sentence in page.words
    assert page.words.count(report.recorded.mark) > len(report.recorded.runs)
    assert report.recorded.remark in page.words and report.diagnosis.paragraph in page.words
    assert sum(tag == "svg" for tag, _ in page.tags) == 5


def test_a_best_variant_of_lower_miou_is_explained() -> None:
    """One invented pixel makes a class of IoU 0; the difference leaves such a class out."""
    report = measured_report()
    assert report.findings is not None
    variants = report.findings.variants
    assert not invention_text(variants) and "classes with true pixels" not in best_text(report.findings)
    counts_KK = np.zeros((7, 7), np.int64)
    counts_KK[1, 1] = counts_KK[2, 2] = 90
    counts_KK[2, 6] = 1  # which has no true pixel
    inventing = replace(variants[11], metrics=compute_metrics(ConfusionMatrix.from_counts(counts_KK)))
    findings = replace(report.findings, variants=(*variants[:11], inventing, *variants[12:]))
    assert findings.best is inventing
    assert "has the highest mIoU over the classes with true pixels of 12 variants" in best_text(findings)
    told = "a class that has no true pixel, which counts as 0 in their mIoU"
    assert told in render_html(replace(report, findings=findings)) and told not in render_html(report)
    shown = io.StringIO()
    Console(width=200, file=shown).print(render_terminal(replace(report, findings=findings)))
    assert told in " ".join(shown.getvalue().split())


def test_a_stored_report_says_so_and_has_no_empty_sections() -> None:
    page = Parsed(render_html(stored_report()))
    assert "stored at training time" in page.words
    ids = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert ids == {"summary", "classes", "confusion"}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {"#classes", "#confusion"}


def test_every_link_leads_somewhere() -> None:
    findings = some_findings(pictures=(picture(), picture("pair", (3, 4)), picture("disagreement", ())))
    page = Parsed(render_html(measured_report(findings=findings, recorded=load_recorded())))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"} <= set(ids)


def test_names_are_escaped_and_nothing_is_asked_of_the_network() -> None:
    findings = some_findings(pictures=(picture(name=EVIL), picture("pair", (1, 3), EVIL)))
    findings = replace(
        findings,
        variants=(replace(findings.variants[0], name=EVIL), *findings.variants[1:]),
        runs=(replace(findings.runs[0], name=EVIL), findings.runs[1]),
        places=(replace(findings.places[0], folder=EVIL, photo="http://example.org"),),
    )
    report = measured_report(
        class_map=odd_names(), title=EVIL, notes=(EVIL,), recipe=EVIL, data=EVIL, findings=findings
    )
    page = render_html(report)
    parsed = Parsed(page)
    assert_self_contained(page)
    assert EVIL not in page and html.escape(EVIL, quote=False).split(" ")[0] in page
    assert all(name in parsed.words for name in (*odd_names().names, EVIL)) and "49" not in odd_names().names
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not any(tag == "img" and attributes.get("src") == "x" for tag, attributes in parsed.tags)


def test_commands_stand_as_code_and_names_beside_them_are_escaped() -> None:
    page = render_html(measured_report(notes=(f"{EVIL} wants `salakseg report --split val`.",)))
    assert "<code>salakseg report --split val</code>" in page
    assert "`" not in Parsed(page).words and EVIL not in page


def test_only_the_page_s_own_script_may_run() -> None:
    page = render_html(stored_report())
    policy = next(a["content"] for t, a in Parsed(page).tags if t == "meta" and "http-equiv" in a)
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert "\r" not in page


@pytest.mark.parametrize("classes", [2, 25, 60])
def test_any_number_of_classes(classes: int) -> None:
    page = Parsed(render_html(measured_report(classes)))
    cells = [attributes for tag, attributes in page.tags if tag == "td" and "data-n" in attributes]
    assert len(cells) == classes**2
    numbered = any(tag == "table" and "numbered" in (a.get("class") or "") for tag, a in page.tags)
    assert numbered == (classes <= 25)


def test_undefined_figures_are_dashes() -> None:
    report = measured_report()
    page = render_html(report)
    assert not re.search(r"\b(nan|None)\b", Parsed(page).words)
    row = re.search(r'<tr>\s*<th scope="row" data-v="1">.*?</tr>', page, re.DOTALL)
    assert row is not None and row.group().count('data-v="">-<') >= 5
    assert "no true pixels" in page and "none reaches it" in page


def test_legend_colours_are_the_class_map_s() -> None:
    page = render_html(measured_report())
    for c in SALAK.classes:
        background, ink = re.search(rf"\.k{c.id}{{background:(#\w+);color:(#\w+)}}", page).groups()  # type: ignore[union-attr]
        assert background == "#{:02x}{:02x}{:02x}".format(*c.color)
        assert ink == ("#ffffff" if c.id in (0, 6) else "#000000")


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(-0.3, -0.1, "below"), (0.05, 0.1, "above"), (-0.3, 0.1, "open"), (np.nan, np.nan, "open")],
)
def test_verdict(low: float, high: float, side: str) -> None:
    measured = measured_report()
    assert measured.findings is not None
    value = measured.metrics.miou_without_background.value
    target = measured.target
    assert target is not None
    target = target.model_copy(update={"headline_miou": round(value - (low + high) / 2, 4) if low == low else 0.7})
    intervals = dict(measured.findings.intervals)
    intervals["miou_without_background"] = type(intervals["kappa"])(
        np.asarray(target.headline_miou + low), np.asarray(target.headline_miou + high)
    )
    report = replace(measured, findings=replace(measured.findings, intervals=intervals), target=target)
    verdict = verdict_of(report)
    assert verdict.side == side
    assert {"below": "Below", "above": "Above", "open": "cannot be told"}[side] in verdict.text
    other = replace(report, class_map=ClassMap(tuple(replace(c, name=f"X{c.id}") for c in SALAK.classes)))
    assert verdict_of(other).side == "none" and "other classes" in verdict_of(other).text
    assert verdict_of(replace(report, target=None)).side == "none"


@pytest.mark.parametrize(
    ("near", "by_chance", "told"),
    [(0.7, 0.2, "gather at outlines, 3.5 times"), (0.76, 0.46, "1.7 times as dense"), (0.4, 0.5, "no denser")],
)
def test_errors_at_borders_are_judged_against_chance(near: float, by_chance: float, told: str) -> None:
    assert told in border_text(ErrorPlaces(near, by_chance, (2, 3)))
    assert "2 to 3 pixels" in border_text(ErrorPlaces(near, by_chance, (2, 3)))
    assert border_text(ErrorPlaces(np.nan, by_chance, (2,))) == "There is no wrong pixel."


def test_label_maps_have_exactly_the_class_colours_and_stripes_for_no_label() -> None:
    class_HW = np.array([[0, 6, 255] * 4] * 12, np.uint8)
    with Image.open(io.BytesIO(class_png(class_HW, SALAK))) as png:
        pixels = np.asarray(png.convert("RGB"))
    assert (pixels[:, 0] == SALAK.classes[0].color).all() and (pixels[:, 1] == SALAK.classes[6].color).all()
    stripes = {tuple(color) for color in pixels[:, 2::3].reshape(-1, 3).tolist()}
    assert len(stripes) == 2 and not stripes & {c.color for c in SALAK.classes}


def test_shares_become_lighter() -> None:
    percent_HW = np.arange(101, dtype=np.uint8)[None]
    with Image.open(io.BytesIO(share_png(percent_HW, "viridis"))) as png:
        grey = np.asarray(png.convert("L"))[0].astype(int)
    assert (np.diff(grey) >= 0).all() and grey[-1] - grey[0] > 150


# ---- in a browser, on a report from a real checkpoint


@pytest.fixture(scope="module")
def report(tiny_checkpoint: Path) -> Report:
    return judge([tiny_checkpoint], Question(recorded=True))


@pytest.fixture(scope="module")
def page_file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(report), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: "Browser", page_file: Path) -> Iterator["Page"]:
    """The page, opened; at the end nothing may have gone wrong and nothing been fetched."""
    context = browser.new_context(viewport={"width": 1000, "height": 800}, color_scheme="light")
    page = context.new_page()
    said: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(page_file.as_uri())
    yield page
    assert said == []
    assert [url for url in fetched if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


def test_the_page_of_a_real_report_is_self_contained(page_file: Path, report: Report) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert_self_contained(page)
    assert report.findings is not None and len(report.findings.pictures) > 7
    assert sum(tag == "img" for tag, _ in Parsed(page).tags) == 5 * len(report.findings.pictures)
    assert len(page) < 5_000_000


def test_tables_sort_both_ways_with_the_undefined_last(page: "Page") -> None:
    heads = page.locator("#classes table").first.locator("thead th")
    column = heads.all_inner_texts().index(next(text for text in heads.all_inner_texts() if text.strip() == "IoU"))
    button = heads.nth(column).locator("button")
    cells = page.locator(f"#classes table >> nth=0 >> tbody tr > :nth-child({column + 1})")

    def values() -> list[float]:
        return [float(text) for text in cells.all_inner_texts() if text != "-"]

    before = values()
    button.click()
    assert values() == sorted(before) and heads.nth(column).get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(before, reverse=True) and heads.nth(column).get_attribute("aria-sort") == "descending"
    page.evaluate("document.querySelector('#classes tbody tr').cells[3].dataset.v = ''")
    for _ in range(2):
        button.click()
        assert page.evaluate("document.querySelector('#classes tbody').lastElementChild.cells[3].dataset.v") == ""
    heads.first.locator("button").click()
    names = page.locator("#classes table >> nth=0 >> tbody th").all_inner_texts()
    assert [name.strip() for name in names] == list(SALAK.names)  # by id


def test_counts_on_pointing_and_on_the_keyboard(page: "Page", report: Report) -> None:
    tip = page.locator("#tip")
    assert not tip.is_visible()
    counts = report.matrix.counts
    page.locator("#matrix tbody tr").nth(2).locator("td").nth(5).hover()
    assert f"Bangunan taken for Snake Fruit: {counts[2, 5]:,} pixels" in tip.inner_text()
    page.locator("h1").hover()
    assert not tip.is_visible()
    page.locator("#matrix td[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    page.wait_for_function("document.getElementById('tip').textContent.includes('Bangunan taken for Badan Air')")
    assert tip.is_visible() and f"{counts[2, 1]:,} pixels" in tip.inner_text()
    assert page.locator("#matrix td[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_counts_on_tapping(browser: "Browser", page_file: Path, report: Report) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.locator("#matrix tbody tr").nth(3).locator("td").nth(0).tap()
    tip = page.locator("#tip")
    assert f"Jalan taken for __background__: {report.matrix.counts[3, 0]:,} pixels" in tip.inner_text()
    box = tip.bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360
    context.close()


def test_slider_moves_by_pointer_and_keyboard_and_views_change(page: "Page") -> None:
    example = page.locator(".example").first
    slider, stage = example.locator(".slider"), example.locator(".stage")

    def at() -> str:
        return str(example.locator(".view.is-right").evaluate("view => getComputedStyle(view).clipPath"))

    assert at() == "inset(0px 0px 0px 50%)"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert at() == "inset(0px 0px 0px 51%)"
    box = stage.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    assert 15 <= float(at().split()[-1].rstrip("%)")) <= 25
    assert slider.get_attribute("aria-label")
    shown = example.locator(".view:visible").evaluate_all("views => views.map(view => view.dataset.key)")
    assert shown == ["photo", "prediction"]
    example.locator("[data-side=left]").select_option("label")
    example.locator("[data-side=right]").select_option("confidence")
    shown = example.locator(".view:visible").evaluate_all("views => views.map(view => view.dataset.key)")
    assert shown == ["label", "confidence"]
    page.locator("#all-sides [data-side=right]").select_option("disagreement")
    assert page.locator(".view.is-right[data-key=disagreement]").count() == page.locator(".example").count()


def test_no_sideways_scrolling_on_a_phone(page: "Page") -> None:
    for width in (320, 360, 768):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("classes", [2, 25, 60])
def test_long_names_and_many_classes_fit_a_phone(browser: "Browser", tmp_path: Path, classes: int) -> None:
    long = "Permanently_irrigated_terraces_" * 4
    report = stored_report(classes, title=long, notes=(long,))
    names = tuple(replace(c, name=f"{long}{c.id}") for c in report.class_map.classes)
    (tmp_path / "page.html").write_text(render_html(replace(report, class_map=ClassMap(names))), encoding="utf-8")
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_theme_follows_the_system_and_the_button(browser: "Browser", page_file: Path) -> None:
    schemes: tuple[tuple[Literal["light", "dark"], str], ...] = (("light", "Dark page"), ("dark", "Light page"))
    for scheme, button in schemes:
        page = browser.new_page(color_scheme=scheme)
        page.goto(page_file.as_uri())
        brightness = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
        ink = "Number(getComputedStyle(document.querySelector('svg text')).fill.match(/\\d+/)[0])"
        before, ink_before = page.evaluate(brightness), page.evaluate(ink)
        assert (before > 128) == (scheme == "light") and (ink_before < 128) == (scheme == "light")
        assert page.locator("#theme").inner_text() == button
        page.locator("#theme").click()
        assert (page.evaluate(brightness) > 128) != (before > 128) and (page.evaluate(ink) > 128) != (ink_before > 128)
        page.close()


def test_text_is_readable_in_both_themes(browser: "Browser", page_file: Path) -> None:
    """Contrast of 4.5 and more for every text, measured on the page as it is drawn."""
    measure = """() => {
      const parse = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (node) => {
        for (; node; node = node.parentElement) {
          const style = getComputedStyle(node);
          if (style.backgroundImage !== 'none') return null;
          const color = parse(style.backgroundColor);
          if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
      };
      const poor = [];
      for (const node of document.querySelectorAll('body *')) {
        if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
        if (node.closest('select, script, svg, [hidden]') || !node.getClientRects().length) continue;
        const below = ground(node);
        if (!below) continue;
        const pair = [light(parse(getComputedStyle(node).color)), light(below)].sort((a, b) => b - a);
        const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
        if (contrast < 4.5) poor.push(`${node.className} ${node.textContent.slice(0, 30)} ${contrast.toFixed(2)}`);
      }
      return poor;
    }"""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(page_file.as_uri())
        assert page.evaluate(measure) == [], scheme
        page.close()


def test_print_shows_every_picture_side_by_side_on_white(page: "Page", report: Report) -> None:
    assert report.findings is not None
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".view:visible").count() == 5 * len(report.findings.pictures)
    assert not page.locator(".slider:visible, select:visible, #theme:visible, nav:visible").count()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 38)"
    assert all(
        page.evaluate("[...document.querySelectorAll('.scroll')].map(box => box.scrollHeight - box.clientHeight <= 1)")
    )
    first = page.locator(".example").first.locator(".view")
    tops = {round(box["y"]) for number in range(5) if (box := first.nth(number).bounding_box())}
    assert len(tops) == 1


def test_without_scripts_everything_can_still_be_seen(browser: "Browser", page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator(".example").first.locator("figure:visible").count() == 5
    assert page.locator(".slider:visible").count() == 0
    context.close()
