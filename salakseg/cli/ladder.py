"""``salakseg train --phase auto``: one phase after the other, and the table at their end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salakseg.cli.console import INTERRUPTED, progress_bar, say, stdout
from salakseg.cli.estimates import show_estimate
from salakseg.cli.tables import duration, score, show, table
from salakseg.shell import as_argument

if TYPE_CHECKING:
    from rich.table import Table

    from salakseg.train.ladder import Rung
    from salakseg.train.ladder_plan import Plan
    from salakseg.train.start import Request


def climb_new(request: "Request", project_recipe: Mapping[str, Any], go_on: bool) -> None:
    """Plans the phases, and climbs them or shows what they would take."""
    from salakseg.train.ladder import open_ladder
    from salakseg.train.ladder_plan import RUNGS, make_plan
    from salakseg.train.recipe import resolve
    from salakseg.train.start import start_run

    plan = make_plan(replace(request, run_folder=None), request.changes, project_recipe, go_on, say)
    if not request.dry_run:
        folder = open_ladder(plan, request.run_folder, request.runs, say)
        climb_on(folder, plan, request.device, None, request.cache)
        return
    for rung in RUNGS:
        resolved = resolve(rung, [plan.changes[rung]])
        with progress_bar("reading masks", "masks") as progress:
            trainer = start_run(replace(request, recipe=rung, changes=[plan.changes[rung]]), say, progress)
        show_estimate(resolved, trainer)
        del trainer


def climb_on(folder: Path, plan: "Plan", device: str, data_root: Path | None, cache: bool = False) -> None:
    """Goes on with a ladder wherever it stands, and tells of it."""
    from salakseg.train.ladder import CAVEAT, best_rung, climb
    from salakseg.train.signals import Interrupted

    say(f"attention: {CAVEAT}")
    try:
        rungs = climb(folder, plan, device, say, progress_bar, data_root, cache)
    except Interrupted:
        say(f"stopped; go on with the same command, or with: salakseg train --resume {as_argument(folder)}")
        raise typer.Exit(INTERRUPTED) from None
    show(stdout, _summary(rungs))
    for rung in rungs:
        stdout.print(f"{rung.run.path.name}: {rung.verdict}", markup=False, soft_wrap=True)
        if rung.run.reason:
            stdout.print(f"  {rung.run.state.value}: {rung.run.reason}", markup=False, soft_wrap=True)
    say(f"done; next: salakseg report {as_argument(best_rung(rungs) / 'checkpoints' / 'best.pt')}")


def _summary(rungs: "Sequence[Rung]") -> "Table":
    """The table at the end of a ladder."""
    rows = []
    for rung in rungs:
        run, best = rung.run, rung.run.best
        figures = ["-", "-", "-"]
        if best is not None:
            figures = [score(best.miou_without_background), score(best.miou_with_background), f"{best.iteration:,}"]
        steps = f"{run.iteration:,} of {run.planned:,}"
        rows.append([run.path.name, steps, *figures, duration(run.seconds), run.state.value])
    columns = ("phase", "steps", "best mIoU\nwithout bg.", "\nwith bg.", "\nat step", "time", "ended")
    return table(columns, rows, left=("phase", "ended"))
