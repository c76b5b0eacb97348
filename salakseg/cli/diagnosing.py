"""``salakseg diagnose``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salakseg.cli.console import stdout
from salakseg.errors import ReportError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from salakseg.train.alarms import Judgement


def diagnose(
    curve: Annotated[
        Path,
        typer.Argument(help="A run's metrics.jsonl or folder, or a curve as CSV or JSON: iteration, miou, ..."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe that it was trained by. Default: the run's recipe.toml, if any."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay a training curve through the trainer's rules: which alarms there were, at which iteration, and why."""
    from rich.text import Text

    from salakseg.evaluate.history import Plan
    from salakseg.train.alarms import alarms_of, replay
    from salakseg.train.curves import read_curve
    from salakseg.train.recipe import Recipe, load_recipe

    path = curve / "metrics.jsonl" if curve.is_dir() else curve
    beside = path.with_name("recipe.toml")
    name = recipe or (str(beside) if path.suffix == ".jsonl" and beside.is_file() else None)
    known = None if name is None else load_recipe(name)
    plan = Plan() if known is None else Plan.from_recipe(known.model_dump(mode="json"))
    records = read_curve(path, plan)
    try:
        judged = replay(records, plan, (known or Recipe()).health.falling, str(path))
    except ValueError as error:
        raise ReportError(f"{path} is damaged ({error}).") from error
    alarms = alarms_of(judged)
    if as_json:
        now = [judgement.to_dict() for judgement in judged[-1]]
        content = {
            "curve": str(path),
            "recipe": None if known is None else known.name,
            "evaluations": len(judged),
            "alarms": [alarm.to_dict() for alarm in alarms],
            "at_the_end": now,
        }
        print(json.dumps(content, indent=2))
        return
    for part in _page(path, judged, alarms):
        stdout.print(part, soft_wrap=isinstance(part, Text))


def _page(path: Path, judged: list[list["Judgement"]], alarms: list["Judgement"]) -> list["RenderableType"]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from salakseg.evaluate.formats import counted

    parts: list[Any] = [
        Text(f"{path}: {counted(len(judged), 'evaluation', 'evaluations')}, {counted(len(alarms), 'alarm', 'alarms')}")
    ]
    styles = {"critical": "bold red", "warning": "yellow", "good": "green", "between": ""}
    for alarm in alarms:
        head = Text.assemble(f"\nat {alarm.iteration:,}  ", (alarm.level, styles[alarm.level]), f"  {alarm.quantity}")
        told = Table.grid(padding=(0, 1))
        for label, text in (("seen", alarm.seen), ("why", alarm.why), ("change", alarm.change)):
            if text:
                told.add_row(Text(label, style="dim"), Text(text))
        parts += [head, Padding(told, (0, 0, 0, 2))]
    table = Table(box=None, pad_edge=False, title="\nAt the last evaluation", title_justify="left", show_header=False)
    for judgement in judged[-1]:
        level = Text(judgement.level, style=styles[judgement.level])
        table.add_row(Text(judgement.quantity), level, Text(judgement.seen))
    return [*parts, table]
