"""From flags to a trainer that is ready to run: data, split, run folder, and a run to be resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from salakseg.classes import ClassMap
from salakseg.data.class_mapping import choose_class_map
from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, Split
from salakseg.errors import ClassMapError, DataError, TrainingError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.prepare.manifest import gsd_of
from salakseg.train.effect import BEGINS, ENABLED
from salakseg.train.initial import judged_by_what_was_learned, load_initial, start_from
from salakseg.train.keeping import clear_leftovers, load_newest
from salakseg.train.loop import Trainer
from salakseg.train.parallel import make_fabric
from salakseg.train.parts import Progress, Say, is_unreadable, keep_split, read_data, survey_labelled
from salakseg.train.recipe import Recipe, load_recipe
from salakseg.train.run import RunFolder
from salakseg.train.schedule import selftraining_weight
from salakseg.train.state import is_same_data, restore
from salakseg.train.stopping import stop_reason
from salakseg.train.validate import scores_of


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        recipe: Name of a recipe or a TOML file.
        changes: Settings on top, nested tables, later ones win.
        data_root: Folder with the patches.
        runs: Folder in which a new run folder is made.
        class_mapping: CSV file; None looks into the data root, then takes the built-in salak classes.
        num_classes: What the user believes; checked against the class map.
        splits: File with the split, made where it is missing; None means ``splits.csv`` in the data root.
        run_folder: Folder of the run; None makes a dated one.
        gsd_m: Ground sampling distance of the patches in metres a pixel; None takes the one that they were cut at.
        device: "auto", "cpu", "cuda" or "mps".
        dry_run: Write nothing.
        cache: Pack the patches first, unless they are.
        init: A checkpoint whose moving average the network starts from, in the encoder's weights' place.
    """

    recipe: str
    changes: Sequence[Mapping[str, Any]]
    data_root: Path
    runs: Path
    class_mapping: Path | None = None
    num_classes: int | None = None
    splits: Path | None = None
    run_folder: Path | None = None
    gsd_m: float | None = None
    device: str = "auto"
    dry_run: bool = False
    cache: bool = False
    init: Path | None = None


def start_run(request: Request, say: Say, progress: Progress) -> Trainer:
    """Prepares a new run.

    Args:
        request: What the user asked for.
        say: Called with a line worth reading.
        progress: Called with masks done and to do.

    Raises:
        SalaksegError: Whatever is wrong with recipe, classes, data or folder, before anything is written.
    """
    recipe = load_recipe(request.recipe, request.changes)
    class_map = choose_class_map(request.class_mapping, request.data_root, say)
    check_num_classes(class_map, request.num_classes)
    if recipe.selftraining.enabled and recipe.selftraining.keep == "fixed":
        recipe.selftraining.threshold_of_each(len(class_map))  # refuse a wrong number before the masks are read
    initial = None if request.init is None else load_initial(request.init, recipe.network)
    run = RunFolder(request.run_folder or fresh_folder(request.runs, recipe.name))
    fabric = make_fabric(request.device, recipe)
    if fabric.is_global_zero:
        run.refuse_taken()
    else:
        say = _silent
    gsd_m = _gsd(request, say)
    data, new_split = read_data(
        request.data_root,
        class_map,
        recipe.data,
        recipe.seed,
        splits=request.splits,
        gsd_m=gsd_m,
        cache=request.cache and not request.dry_run,
        say=say,
        progress=progress,
    )
    if recipe.selftraining.enabled and not data.part(Role.UNLABELLED):
        raise DataError(
            f"{request.data_root} has no unlabelled patch to train on; add some, or take "
            "--set selftraining.enabled=false."
        )
    say(f"{recipe.schedule.iterations:,} steps of recipe {recipe.name} on {fabric.device}; the run is {run.path}")
    if (caution := _too_short(recipe)) is not None:
        say(f"attention: {caution}")
    trainer = Trainer(recipe, data, run, fabric, say, load_weights=initial is None)
    if initial is not None:
        unknown = start_from(trainer, initial)
        say(f"weights: the moving average of {request.init}, step {initial.iteration:,}; all else begins anew")
        if unknown:
            say(f"attention: it does not know {', '.join(unknown)}; their part of the heads begins anew, too")
        if flattering := judged_by_what_was_learned(trainer):
            say(
                f"attention: it has learned from {len(flattering):,} photos of the parts that judge this run, such as "
                f"{flattering[0]}, so validation flatters and a report leaves them out; take that run's split with "
                "--splits"
            )
    if not request.dry_run and fabric.is_global_zero:
        if new_split is not None:
            keep_split(data.split, new_split, say)
        run.create(recipe, data, fabric.device)
    return trainer


def resume_run(
    path: Path, data_root: Path | None, patience: int | None, device: str, say: Say, progress: Progress
) -> Trainer:
    """Prepares a run for going on exactly where it stopped.

    Args:
        path: The run's folder, or a checkpoint in it; of a damaged ``last.pt`` the one before is taken.
        data_root: Where the patches are now; None means where they were.
        patience: A new patience, the one setting that may change.
        device: "auto", "cpu", "cuda" or "mps".
        say: Called with a line worth reading.
        progress: Called with masks done and to do.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
        TrainingError: The run is finished.
    """
    checkpoint_path = (path if path.suffix == ".pt" else RunFolder(path).last).resolve()
    run = RunFolder(checkpoint_path.parent.parent)
    newest = checkpoint_path == run.last
    if checkpoint_path.exists() and checkpoint_path not in (run.last, run.previous, run.best):
        raise TrainingError(f"{path} lies in no run folder; resume the run itself, such as --resume runs/NAME.")
    if run.last.parent.is_dir():
        with run.glance():  # refuse early what another process trains
            clear_leftovers(run)
    checkpoint = load_newest(run, say) if newest else load_checkpoint(checkpoint_path)
    recipe = _recipe_of(checkpoint, checkpoint_path, patience)
    if checkpoint.iteration >= recipe.schedule.iterations:
        raise TrainingError(f"{path} is finished: all {checkpoint.iteration:,} steps are done; start a new run.")
    if not checkpoint.training:
        raise TrainingError(
            f"{checkpoint_path} holds no optimizer, so nothing can go on from it; use the run's last.pt."
        )
    if (reason := stop_reason(scores_of(checkpoint.history), recipe.evaluation)) is not None:
        raise TrainingError(f"{path} stopped early: {reason}; give a larger --early-stop-patience to go on.")
    fabric = make_fabric(device, recipe)
    say = say if fabric.is_global_zero else _silent
    index = index_patches(data_root or Path(checkpoint.data_root))
    split = Split.from_rows(checkpoint.split)
    if not any(photo in split.roles for photo in index.photos()):
        raise DataError(
            f"{index.root} holds none of the photos that {path} was trained on; name them by --data-root, or, where "
            "they were blocks of ground, put its blocks.csv back."
        )
    late = [photo for photo in index.photos() if photo not in split.roles]
    if late:
        say(
            f"attention: {index.root} holds {len(late):,} photos that came after the run began, such as "
            f"{late[0].name}; it goes on without them"
        )
        split = Split({**split.roles, **dict.fromkeys(late, Role.GAP)})
    data = survey_labelled(index, split, checkpoint.class_map, checkpoint.gsd_m, recipe.data, say, progress)
    trainer = Trainer(recipe, data, run, fabric, say, load_weights=False)
    trainer.skipped.look_again(partial(is_unreadable, data))
    restore(trainer, checkpoint)
    if checkpoint.iteration > 0 and (patience is not None or not newest):
        trainer.keeper.saved = -1  # state and patience become the newest before the log is cut to its step
    found, before = trainer.data_digest, checkpoint.training["data"]
    if found["blocks"] != before.get("blocks", found["blocks"]):
        raise DataError(
            f"The patches of {index.root} lie in other blocks of ground than when {path} began, so it would learn from "
            "what judges it; put its blocks.csv back, or start a new run."
        )
    if not is_same_data(found, before):
        say("attention: patches or masks have changed since the run began, so it goes on otherwise than it would have")
    if fabric.is_global_zero:
        run.go_on(recipe, data, fabric.device, checkpoint.iteration, say)
    say(f"going on after step {checkpoint.iteration:,} of {recipe.schedule.iterations:,} on {fabric.device}")
    return trainer


def check_num_classes(class_map: ClassMap, num_classes: int | None) -> None:
    """Refuses a number of classes that is not the class map's.

    Raises:
        ClassMapError: The numbers differ.
    """
    if num_classes is not None and num_classes != len(class_map):
        raise ClassMapError(
            f"--num-classes is {num_classes}, but {class_map.source} has {len(class_map)} classes (background counts); "
            "leave the flag out or name another --class-mapping."
        )


def _too_short(recipe: Recipe) -> str | None:
    """A sentence for the user where a run ends before its self-training has its full weight."""
    config, steps = recipe.selftraining, recipe.schedule.iterations
    if not ENABLED.holds(recipe):
        return None
    if not BEGINS.holds(recipe):
        return (
            f"self-training begins after step {config.start:,} and the run ends at {steps:,}, so it learns from labels "
            "alone; take more steps or a smaller selftraining.start."
        )
    share = selftraining_weight(steps - 1, config) / config.weight if config.weight else 1.0
    if share < 1:
        return (
            f"the run ends before self-training has its full weight, at {share:.0%} of it; take more steps or smaller "
            "values of selftraining.start and selftraining.ramp."
        )
    return None


def _gsd(request: Request, say: Say) -> float | None:
    """Metres a pixel, from the user or from where the patches were cut; maps are made at that resolution."""
    if request.gsd_m is not None:
        return request.gsd_m
    found = gsd_of(request.data_root)
    if found is None:
        say(
            "attention: nobody says how many metres a pixel the patches have (--gsd), so maps will be made of whatever "
            "pixels an orthomosaic has"
        )
    else:
        say(f"{found:g} m a pixel, as the patches were cut")
    return found


def _silent(_: str) -> None:
    """What the processes beside the first have to say."""


def _recipe_of(checkpoint: Checkpoint, path: Path, patience: int | None) -> Recipe:
    try:
        recipe = Recipe.model_validate(checkpoint.recipe)
    except ValidationError as error:
        raise TrainingError(f"{path} holds a recipe that this version does not know; start a new run.") from error
    return recipe if patience is None else recipe.with_patience(patience)


def fresh_folder(runs: Path, name: str) -> Path:
    """A dated folder that is not there yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = runs / f"{stamp}-{name}"
    number = 1
    while folder.exists():
        number += 1
        folder = runs / f"{stamp}-{name}-{number}"
    return folder
