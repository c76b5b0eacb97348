"""``salakseg runs``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import say, stdout
from salakseg.cli.tables import score, show, table
from salakseg.errors import ProjectError

if TYPE_CHECKING:
    from salakseg.train.runs import RunSummary

_WORDS = ("run", "recipe", "state")
_COLUMNS = (*_WORDS, "steps", "best mIoU\nwithout bg.", "\nwith bg.", "\nat step", "last trained")


def runs(
    folder: Annotated[Path | None, typer.Argument(help="Folder with the runs; default: the project's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, paths in full.")] = False,
) -> None:
    """List the runs with their state and best mIoU, the one that was trained last first."""
    from salakseg.project import load_project
    from salakseg.train.runs import list_runs

    root = folder or load_project().runs_folder
    if folder is not None and not folder.is_dir():
        raise ProjectError(f"{folder} is no folder; name the one that holds the runs.")
    found = list_runs(root)
    if as_json:
        print(json.dumps([run.to_dict() for run in found], indent=2))
        return
    if not found:
        say(f"{root} holds no runs yet; start one with `salakseg train`")
        return
    show(stdout, table(_COLUMNS, [_row(run, root) for run in found], left=_WORDS, fold="run"))
    for run in found:
        if run.reason:
            stdout.print(f"{run.path.relative_to(root)}: {run.reason}", markup=False, soft_wrap=True)


def _row(run: "RunSummary", root: Path) -> list[str]:
    best = run.best
    return [
        str(run.path.relative_to(root)),
        run.recipe or "-",
        run.state.value,
        f"{run.iteration:,} of {run.planned:,}" if run.planned else f"{run.iteration:,}",
        score(None if best is None else best.miou_without_background),
        score(None if best is None else best.miou_with_background),
        "-" if best is None else f"{best.iteration:,}",
        run.trained_at.strftime("%Y-%m-%d %H:%M"),
    ]
