"""The field team's ladder: phase 1; phase 2 where that was not good enough; phase 3 where that was not either.

The rungs are runs in folders of one ladder folder, with ``ladder.json`` beside them: what was asked for. How far the
ladder is, the rungs' own files say (`runs.py`), so that it goes on after any interruption, and repeats nothing.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from salakseg import replacing
from salakseg.errors import TrainingError
from salakseg.shell import as_argument
from salakseg.train.ladder_plan import FILE, RUNGS, LadderConfig, Plan, read_json, read_plan
from salakseg.train.run import RunFolder
from salakseg.train.runs import RunSummary, State, is_run, read_run
from salakseg.train.signals import Interrupted
from salakseg.train.start import Request, fresh_folder, resume_run, start_run

CAVEAT = (
    "The field team's limits were set on a split that leaks; an honest split gives lower figures for the same network, "
    "so a ladder on one climbs further than the team's would have."
)

Say = Callable[[str], None]
Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar from what is being done and the unit that is counted."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung that is done.

    Attributes:
        run: Its run.
        verdict: Why the ladder went on from it, or ended with it.
    """

    run: RunSummary
    verdict: str


def open_ladder(plan: Plan, folder: Path | None, runs: Path, say: Say) -> Path:
    """The folder of a ladder: the one that was asked for the same and is not done yet, or a new one.

    Raises:
        TrainingError: The folder holds something else, or cannot be written.
    """
    wanted = plan.to_dict()
    if folder is None:
        for path in sorted(runs.glob(f"*/{FILE}"), reverse=True):
            if read_json(path) == wanted and not is_done(path.parent):
                say(f"going on with the ladder {path.parent}")
                return path.parent
        folder = fresh_folder(runs, "ladder")
    elif (folder / FILE).exists():
        found = read_json(folder / FILE)
        if found != wanted:
            other = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
            raise TrainingError(
                f"{folder} holds a ladder that was asked for otherwise ({', '.join(other)}); go on with it by "
                f"`salakseg train --resume {as_argument(folder)}`, or name another folder with --checkpoint-dir."
            )
        say(f"going on with the ladder {folder}")
        return folder
    RunFolder(folder).refuse_taken()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{FILE}.partial"
        partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        replacing.replace(partial, folder / FILE)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}); name another folder.") from error
    return folder


def is_ladder(folder: Path) -> bool:
    """Whether a folder is that of a ladder."""
    return (folder / FILE).is_file()


def is_done(folder: Path) -> bool:
    """Whether nothing is left to do."""
    try:
        return next_rung(folder, read_plan(folder))[1] is None
    except TrainingError:
        return True  # nothing can be done about it


def is_left(folder: Path) -> bool:
    """Whether a folder is that of a ladder with a rung left to train that no process trains now."""
    if not is_ladder(folder) or is_done(folder):
        return False
    _, recipe = next_rung(folder, read_plan(folder))
    return recipe is not None and read_run(folder / recipe).state is not State.RUNNING


def next_rung(folder: Path, plan: Plan) -> tuple[list[Rung], str | None]:
    """The rungs that are done, and the recipe of the next one, begun or not; None where the ladder is done.

    Raises:
        TrainingError: The files of a rung are damaged.
    """
    done: list[Rung] = []
    for number, recipe in enumerate(RUNGS):
        run = read_run(folder / recipe) if is_run(folder / recipe) else None
        if run is not None and run.state is State.DAMAGED:
            raise TrainingError(f"{run.path} is damaged: {run.reason}; mend it, or move it away to train it anew.")
        if run is None or not run.state.is_over:
            return done, recipe
        climbs, verdict = _judge(run, plan.config, RUNGS[number + 1 : number + 2])
        done.append(Rung(run, verdict))
        if not climbs:
            return done, None
    return done, None


def climb(
    folder: Path, plan: Plan, device: str, say: Say, bar: Bar, data_root: Path | None = None, cache: bool = False
) -> list[Rung]:
    """Trains the rungs that are left.

    Args:
        folder: Of the ladder.
        plan: What was asked.
        device: "auto", "cpu", "cuda" or "mps".
        say: Called with a line worth reading.
        bar: Makes progress bars.
        data_root: Where the patches are now; None means where they were.
        cache: Pack the patches first, unless they are.

    Returns:
        All rungs with what was decided after each.

    Raises:
        Interrupted: The ladder can be gone on with.
        SalaksegError: Whatever is wrong with data or folder, or a rung that failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "A ladder trains in one process; with torchrun start its phases one by one, with --phase 1 and so on, and "
            "--init for the best weights of the one before."
        )
    asked_to_stop = False
    while True:
        done, recipe = next_rung(folder, plan)
        if done:
            say(f"{done[-1].run.path.name}: best mIoU without background {done[-1].verdict}")
        if recipe is None:
            return done
        if asked_to_stop:  # while the rung before was ending
            raise Interrupted
        asked_to_stop = _train(folder, plan, recipe, done, device, say, bar, data_root, cache)


def best_rung(rungs: Sequence[Rung]) -> Path:
    """Folder of the run with the best mIoU without background; of equal ones the first."""
    return max(rungs, key=lambda rung: _score(rung.run)).run.path


def _train(
    folder: Path,
    plan: Plan,
    recipe: str,
    done: Sequence[Rung],
    device: str,
    say: Say,
    bar: Bar,
    data_root: Path | None,
    cache: bool,
) -> bool:
    """Trains a rung to its end; whether somebody asked to stop meanwhile."""
    run = RunFolder(folder / recipe)
    with bar("reading masks", "masks") as progress:
        if run.last.exists() or run.previous.exists():
            trainer = resume_run(run.path, data_root, None, device, say, progress)
        else:
            trainer = start_run(_request(plan, recipe, run, done, device, data_root, cache), say, progress)
    with bar(f"training {recipe}", "steps") as progress:
        trainer.run(progress)
    if not read_run(run.path).state.is_over:
        raise TrainingError(f"{run.path} ended, but its log does not say how; look at {run.metrics}.")
    return trainer.asked_to_stop


def _request(
    plan: Plan, recipe: str, run: RunFolder, done: Sequence[Rung], device: str, data_root: Path | None, cache: bool
) -> Request:
    init = RunFolder(done[-1].run.path).best if plan.go_on and done else plan.request.init
    return replace(
        plan.request,
        recipe=recipe,
        changes=[plan.changes[recipe]],
        run_folder=run.path,
        init=init,
        device=device,
        data_root=data_root or plan.request.data_root,
        cache=cache,
    )


def _judge(run: RunSummary, config: LadderConfig, following: Sequence[str]) -> tuple[bool, str]:
    """Whether the ladder climbs on from a rung, and why."""
    score, limit = _score(run), config.limit(run.path.name)
    if limit is None or not following:
        return False, f"{score:.4f}; this is the last phase"
    if score < limit:
        return True, f"{score:.4f} is below {limit:.4f}: on to {following[0]}"
    return False, f"{score:.4f} is not below {limit:.4f}: no further phase"


def _score(run: RunSummary) -> float:
    """Best mIoU without background, 0 where nothing was evaluated."""
    return 0.0 if run.best is None else run.best.miou_without_background
