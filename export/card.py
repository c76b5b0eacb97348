"""The model card: what the model is, what it was trained on, how good it is and what it is not for.

The text is in ``templates/card.md.jinja``. Names of classes and files come from users; in a table they must not break
its cells.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from salakseg.errors import ExportError
from salakseg.evaluate.formats import figure_text
from salakseg.evaluate.metrics import TITLES
from salakseg.evaluate.report import SCHEMA, VERSION
from salakseg.network import metadata as keys
from salakseg.network.variant import Variant

MEANS = ("miou_without_background", "miou_with_background")

OUTPUT_TEXTS = {
    "prob": "a probability for each class and pixel",
    "prob+confidence": "a probability for each class and pixel, and the highest of them",
    "argmax": "the id of the most probable class of each pixel",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of accuracy: a class or a mean, its IoU and the interval."""

    name: str
    value: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What is known of the accuracy.

    Attributes:
        caption: On what it was measured.
        rows: Classes, then means.
        intervals: Whether the rows have them.
        remarks: What a reader must know beside.
    """

    caption: str
    rows: tuple[Row, ...]
    intervals: bool
    remarks: tuple[str, ...] = ()


def read_report(path: Path) -> dict[str, Any]:
    """A report that `salakseg report` wrote.

    Args:
        path: report.json.

    Raises:
        ExportError: It is missing, or of another schema.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        fits = (report["schema"], report["version"]) == (SCHEMA, VERSION)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is no report of salakseg ({error}); make it with `salakseg report`.") from error
    if not fits:
        raise ExportError(f"{path} is a report of another version; make it anew with `salakseg report`.")
    return dict(report)


def model_card(
    about: Mapping[str, Any],
    name: str,
    report: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    split: str = "",
) -> str:
    """The card as Markdown.

    Args:
        about: Decoded metadata of the exported file.
        name: What the model is called.
        report: See `read_report`; None takes the validation that is stored in the file.
        notes: Sentences that a reader must know first, such as one on stand-in data; those of the report are added.
        split: A sentence on the data, if there is one.
    """
    known = [*notes, *([] if report is None else report["notes"])]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)
    environment.filters["cell"] = _cell
    source = (importlib.resources.files("salakseg.export") / "templates" / "card.md.jinja").read_text(encoding="utf-8")
    variant = Variant(about["salakseg.weights"], about["salakseg.heads"], about["salakseg.temperature"])
    return environment.from_string(source).render(
        name=name,
        notes=[_cell(note) for note in dict.fromkeys(known)],
        classes=[{**one, "name": _cell(one["name"])} for one in about[keys.CLASSES]],
        network=about["salakseg.network"],
        variant=variant,
        precision=about["salakseg.precision"],
        input_text=_input_text(about[keys.NORMALISATION]),
        gsd_m=about[keys.GSD],
        tile_text=_tile_text(about),
        output_text=OUTPUT_TEXTS[about[keys.OUTPUTS]],
        licence=_cell(about["salakseg.licence"]),
        training=about["salakseg.training"],
        versions=about["salakseg.versions"],
        accuracy=_accuracy(about, report, variant),
        parity_text=_parity_text(about),
        processor_text=_processor_text(about),
        split=split,
    )


def _input_text(normalisation: Mapping[str, Any]) -> str:
    told = normalisation.get("baked", normalisation)
    mean, std = (", ".join(f"{value:g}" for value in told[key]) for key in ("mean", "std"))
    if "baked" in normalisation:
        return f"0 to 255 as they are; the graph divides by {told['scale']}, takes off {mean} and divides by {std}"
    return f"divided by {told['scale']}, less {mean}, divided by {std}"


def _tile_text(about: Mapping[str, Any]) -> str:
    if keys.TILE in about:
        return f"{about[keys.TILE]} x {about[keys.TILE]} pixels"
    return f"any size in multiples of {about[keys.SIZE_MULTIPLE]} pixels, {about[keys.DEFAULT_TILE]} as a rule"


def _accuracy(about: Mapping[str, Any], report: Mapping[str, Any] | None, variant: Variant) -> Accuracy | None:
    found = _of_the_network(about, report, variant)
    precision = about["salakseg.precision"]
    if found is None or precision == "fp32":
        return found
    told = f"The figures are those of the network in float32. This file is {precision}"
    parity = about.get(keys.PARITY)
    if parity is None or parity["loss"] is None:
        return replace(found, remarks=(f"{told}, which may lose a little of it.", *found.remarks))
    return replace(found, remarks=(f"{told}{_loss_text(about, parity)}", *found.remarks))


def _loss_text(about: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    loss = parity["loss"]
    before, after = loss["miou_without_background"]
    names = {str(one["id"]): one["name"] for one in about[keys.CLASSES]}
    worst = min(loss["iou"], key=lambda k: loss["iou"][k][1] - loss["iou"][k][0])
    change = 100 * (loss["iou"][worst][1] - loss["iou"][worst][0])
    unjudged = ", ".join(map(_cell, loss["unjudged"]))
    return (
        f": on {parity['tiles']} tiles of the val part its mIoU without background is {after:.4f} where the network's "
        f"is {before:.4f} ({100 * (after - before):+.2f} points; {_cell(names[worst])} {change:+.2f})."
        + (f" Not judged, as no tile shows them: {unjudged}." if unjudged else "")
    )


def _parity_text(about: Mapping[str, Any]) -> str:
    parity = about.get(keys.PARITY)
    if parity is None:
        return "not measured"
    what = "tiles" if parity["real"] else "tiles of noise"
    return f"the same class on {100 * parity['agreement']:.4f} % of the pixels of {parity['tiles']} {what}"


def _processor_text(about: Mapping[str, Any]) -> str:
    """A limit of int8 files that were made on a newer processor than they may run on."""
    if about.get(keys.INT8_BITS) != 8:
        return ""
    return (
        "It uses all 8 bits of its weights: on x86 processors without VNNI (most from before 2019) sums overflow and "
        "maps are wrong; export it there anew, or take fp32."
    )


def _of_the_network(about: Mapping[str, Any], report: Mapping[str, Any] | None, variant: Variant) -> Accuracy | None:
    if report is not None:
        return _reported(report, variant)
    stored = about["salakseg.validation"]
    if stored is None:
        return None
    remarks = [] if variant.text == stored["of"] else [f"The figures are those of: {stored['of']}, not of this file's."]
    rows = [Row(_cell(one["name"]), _figure(iou)) for one, iou in zip(about[keys.CLASSES], stored["iou"], strict=True)]
    rows += [Row(f"**{TITLES[key]}**", _mean(stored[key])) for key in MEANS]
    caption = f"{stored['part']} part, {stored['patches']:,} patches, {stored['of']}."
    return Accuracy(caption, tuple(rows), False, (*remarks, _VALIDATION_FLATTERS))


_VALIDATION_FLATTERS = "The val split also helps to choose the checkpoint, so its figures can flatter the model."


def _reported(report: Mapping[str, Any], variant: Variant) -> Accuracy:
    findings, metrics = report["findings"], report["metrics"]
    intervals = {} if findings is None else findings["resampling"]["intervals"]
    rows = []
    for position, one in enumerate(report["classes"]):
        interval = _interval(intervals, "iou", position)
        rows.append(Row(_cell(one["name"]), _figure(metrics["iou"][position]), interval))
    rows += [Row(f"**{TITLES[key]}**", _mean(metrics[key]), _interval(intervals, key)) for key in MEANS]
    caption = f"{report['split']} part, {report['patches']:,} patches, {report['variant']['text']}."
    remarks = (
        []
        if report["variant"]["text"] == variant.text
        else [f"The figures are those of: {report['variant']['text']}. This file holds: {variant.text}."]
    )
    # The notes stand on top already, and a folder of ours tells a stranger nothing
    known = (*report["notes"], f"Measured on the patches in the folder {report['data']}.")
    said = [remark for remark in report["remarks"] if remark not in known]
    return Accuracy(caption, tuple(rows), bool(intervals), (*remarks, *said))


def _interval(intervals: Mapping[str, Any], name: str, position: int | None = None) -> str:
    if name not in intervals:
        return ""
    low, high = (
        intervals[name][end] if position is None else intervals[name][end][position] for end in ("low", "high")
    )
    return "unknown" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _mean(mean: Mapping[str, Any]) -> str:
    return f"{_figure(mean['value'])} ({mean['classes']} classes)"


def _figure(value: float | None) -> str:
    return figure_text(float("nan") if value is None else value)


def _cell(text: str) -> str:
    """Text of a user's within a line of Markdown: no cell, tag or emphasis of its own."""
    flat = " ".join(str(text).split())
    for sign in "\\|`*_<>[]":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
