"""The panel of the live view, from the records of a run's log."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from salakseg.classes import ClassMap, Color
from salakseg.evaluate.formats import count_text, figure_text, percent_text

SPARKS = "▁▂▃▄▅▆▇█"
_BAR = 18  # characters
_CURVE = 32
_ALARMS = 3
_DARK, _GREY = 60, 128
_STYLES = {"critical": "bold red", "warning": "yellow"}


class Glance:
    """What the panel shows, kept up to date.

    Args:
        class_map: Names and colours.
        title: What stands at the top.

    Attributes:
        done, total: Steps.
        steps, val, watch: The newest record of each kind, empty before there is one.
        scores: Validation mIoU without background by iteration.
        alarms: Alarms by rising iteration.
        rollbacks: How often the run went back.
    """

    def __init__(self, class_map: ClassMap, title: str) -> None:
        self.class_map = class_map
        self.title = title
        self.done = self.total = 0
        self.steps: Mapping[str, Any] = {}
        self.val: Mapping[str, Any] = {}
        self.watch: Mapping[str, Any] = {}
        self.scores: dict[int, float] = {}
        self.alarms: list[Mapping[str, Any]] = []
        self.rollbacks = 0
        self._start: tuple[float, int] | None = None
        self._now = 0.0

    def count(self, done: int, total: int, now: float) -> None:
        """Takes down steps done and to do at a time in seconds."""
        if self._start is None:  # a resumed run does not begin at nought
            self._start = (now, done)
        self.done, self.total, self._now = done, total, now

    def take(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Takes down new records of the log."""
        for record in records:
            kind = record["kind"]
            if kind == "train":
                self.steps = record
            elif kind == "val":
                self.val = record
                if math.isfinite(score := _number(record, "miou_without_background")):
                    self.scores[int(record["iteration"])] = score
            elif kind == "watch":
                self.watch = record
            elif kind == "event" and record.get("event") == "alarm":
                self.alarms.append(record)
            elif kind == "event" and record.get("event") == "rollback":
                self.rollbacks += 1

    @property
    def rate(self) -> float:
        """Steps a second since the view began, evaluations included; NaN at first."""
        if self._start is None or self._now <= self._start[0] or self.done <= self._start[1]:
            return math.nan
        return (self.done - self._start[1]) / (self._now - self._start[0])


def panel(glance: Glance) -> Panel:
    """The whole panel."""
    parts: list[RenderableType] = [_progress(glance), Text(), _figures(glance), Text(), _classes(glance)]
    if glance.alarms:
        parts += [Text(), _alarms(glance)]
    return Panel(Group(*parts), title=Text(glance.title), title_align="left", border_style="dim", width=100)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as small bars, from the lowest to the highest among them."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return SPARKS[0] * len(shown)
    return "".join(SPARKS[round((value - low) / (high - low) * (len(SPARKS) - 1))] for value in shown)


def clock(seconds: float) -> str:
    """A time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _progress(glance: Glance) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    words = f"{glance.done:,} of {glance.total:,} steps"
    if math.isfinite(glance.rate):
        words += f", {glance.rate:.3g} steps/s, {clock((glance.total - glance.done) / glance.rate)} left"
    row.add_row(ProgressBar(total=max(glance.total, 1), completed=glance.done, width=34), Text(words))
    return row


def _figures(glance: Glance) -> RenderableType:
    steps, watch = glance.steps, glance.watch
    table = Table.grid(padding=(0, 2))
    curve = Text(sparkline(list(glance.scores.values()), _CURVE), style="cyan")
    if glance.scores:
        at, best = max(glance.scores.items(), key=lambda entry: entry[1])
        now = list(glance.scores.values())[-1]
        curve.append(f"  {figure_text(now)}, best {figure_text(best)} at {at:,}", style="default")
    table.add_row(_label("validation mIoU"), curve)
    others = [
        ("student", _number(watch, "student_miou")),
        ("average", _number(watch, "teacher_miou")),
        ("labelled patches", _number(watch, "train_miou")),
    ]
    table.add_row(_label("on samples"), Text(_join(f"{name} {figure_text(v)}" for name, v in others if v >= 0) or "-"))
    names = {"loss": "all", "loss_sup": "labels", "loss_unsup": "pseudo-labels", "ce": "CE", "dice": "Dice"}
    losses = [(name, _number(steps, key)) for key, name in {**names, "focal": "focal"}.items()]
    table.add_row(_label("loss"), Text(_join(f"{name} {v:.3f}" for name, v in losses if math.isfinite(v)) or "-"))
    pace = [
        ("learning rate", "{:.2g}", _number(steps, "learning_rate")),
        ("gradient norm", "{:.3g}", _number(steps, "gradient_norm")),
        ("images/s", "{:.3g}", _number(watch, "images_per_second")),
        ("memory in GiB", "{:.1f}", _number(watch, "memory_gib")),
    ]
    table.add_row(_label("step"), Text(_join(f"{n} {f.format(v)}" for n, f, v in pace if math.isfinite(v)) or "-"))
    pseudo = [f"kept {percent_text(_number(steps, 'kept_share'))} %"] if "kept_share" in steps else []
    if (precision := _number(watch, "pseudo_precision")) >= 0:
        pseudo.append(f"{percent_text(precision)} % right on the {watch.get('pseudo_precision_part')} part")
    if glance.rollbacks:
        pseudo.append(f"went back {glance.rollbacks} times")
    table.add_row(_label("pseudo-labels"), Text(_join(pseudo) or "-"))
    return table


def _classes(glance: Glance) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("class", "kept of its pseudo-labels", ""):
        table.add_column(name)
    for name in ("pixels", "right", "IoU"):
        table.add_column(name, justify="right")
    kept_K, pseudo_K = (_row(glance.steps, key) for key in ("kept_pixels", "pseudo_pixels"))
    precision_K, iou_K = _row(glance.watch, "pseudo_precision_of_class"), _row(glance.val, "iou")
    for k, land_class in enumerate(glance.class_map.classes):
        kept, pseudo = _at(kept_K, k), _at(pseudo_K, k)
        share = kept / pseudo if pseudo > 0 else math.nan
        filled = 0 if math.isnan(share) else round(share * _BAR)
        bar = Text().append("█" * filled, style=_paint(land_class.color)).append("·" * (_BAR - filled), style="dim")
        table.add_row(
            Text(land_class.name, overflow="ellipsis", no_wrap=True),
            bar,
            f"{percent_text(share)} %" if share >= 0 else "-",
            count_text(round(kept)) if kept >= 0 else "-",
            figure_text(_at(precision_K, k)),
            figure_text(_at(iou_K, k)),
        )
    return table


def _alarms(glance: Glance) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for alarm in glance.alarms[-_ALARMS:]:
        level = str(alarm.get("level"))
        # What to change was said when it was raised, and would push the rest off the screen
        table.add_row(
            Text(f"at {alarm['iteration']:,}"),
            Text(level, style=_STYLES.get(level, "")),
            Text(str(alarm.get("seen", ""))),
        )
    return table


def _paint(color: Color) -> str:
    """A class's colour; one that is nearly black, as background often is, cannot be seen on a dark terminal."""
    red, green, blue = color if max(color) >= _DARK else (_GREY,) * 3
    return f"rgb({red},{green},{blue})"


def _label(text: str) -> Text:
    return Text(text, style="dim")


def _join(words: Iterable[str]) -> str:
    return ", ".join(words)


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _row(record: Mapping[str, Any], key: str) -> list[float]:
    row = record.get(key)
    return [math.nan if value is None else float(value) for value in row] if isinstance(row, list) else []


def _at(row: Sequence[float], k: int) -> float:
    return row[k] if k < len(row) else math.nan
