"""``salakseg train``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salakseg.cli.choices import Device
from salakseg.cli.console import INTERRUPTED, progress_bar, say, stdout
from salakseg.cli.estimates import show_estimate
from salakseg.cli.ladder import climb_new, climb_on
from salakseg.cli.live import live_view
from salakseg.cli.patch_folder import is_from_environment
from salakseg.errors import ProjectError, RecipeError
from salakseg.shell import as_argument

if TYPE_CHECKING:
    from salakseg.project import Project
    from salakseg.train.loop import Trainer
    from salakseg.train.start import Request

_LADDER = "auto"
"""What ``--phase`` takes for all phases, one after the other."""

_RECIPE = "Recipe"
_TEAM = "Settings of the field team's notes"


def train(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(help="With --resume: folder of the run. Default: the newest unfinished one.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A name that `salakseg recipes` lists, or a TOML file.", rich_help_panel=_RECIPE),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            metavar="1|2|3|4|auto",
            help="Short for --recipe phase1 to phase4; auto: phase 1, then 2 and 3 while the best mIoU is too low.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="With --phase auto: a phase starts from the best weights of the one before.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to take network and first weights from, or starter; all else begins anew.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting, such as loss.dice=0.", rich_help_panel=_RECIPE
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="SALAKSEG_DATA_ROOT", help="Folder with the patches.")
    ] = None,
    class_mapping: Annotated[
        Path | None,
        typer.Option(
            envvar="SALAKSEG_CLASS_MAPPING", help="CSV file with the classes; default: the data root's, else salak."
        ),
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="File with the split, made if missing; default: splits.csv in the data root.")
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a dated one in the project's runs.")
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(min=1e-4, max=1000, help="Metres a pixel of the patches; default: what `prepare --gsd` said."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run exactly where it stopped; alone, with the newest one.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Pack the patches first, unless they are; see `salakseg pack`.")
    ] = False,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic/--no-deterministic", help="The same bits in every run; slower.")
    ] = None,
    find_batch: Annotated[
        bool,
        typer.Option("--find-batch", help="Try which is the largest --batch-size that fits the GPU; train nothing."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show recipe, data, time and memory, measured on three steps; write nothing."),
    ] = False,
    num_classes: Annotated[
        int | None, typer.Option(help="Checked against the class map.", rich_help_panel=_TEAM)
    ] = None,
    num_steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", rich_help_panel=_TEAM)] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Labelled patches a step, and as many unlabelled.", rich_help_panel=_TEAM)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of the encoder.", rich_help_panel=_TEAM)
    ] = None,
    warmup_iters: Annotated[
        int | None, typer.Option(min=0, help="Steps of the warm-up.", rich_help_panel=_TEAM)
    ] = None,
    early_stop_patience: Annotated[
        int | None, typer.Option(min=1, help="Evaluations without a new best before stopping.", rich_help_panel=_TEAM)
    ] = None,
    st_loss_weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of the self-training loss.", rich_help_panel=_TEAM)
    ] = None,
    scale_min: Annotated[
        int | None, typer.Option(help="Smallest side of a multi-scale batch.", rich_help_panel=_TEAM)
    ] = None,
    scale_max: Annotated[
        int | None, typer.Option(help="Largest side of a multi-scale batch.", rich_help_panel=_TEAM)
    ] = None,
    multi_scale: Annotated[
        bool | None,
        typer.Option("--multi-scale/--no-multi-scale", help="Resize every tenth batch.", rich_help_panel=_TEAM),
    ] = None,
) -> None:
    """Train a network on labelled and unlabelled patches; without --recipe or --phase by the v3 recipe."""
    from salakseg.project import load_project
    from salakseg.train.keys import nest
    from salakseg.train.recipe import parse_setting
    from salakseg.train.start import Request

    project = load_project()
    flags = {
        "schedule.iterations": num_steps,
        "schedule.warmup": warmup_iters,
        "data.batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "evaluation.patience": early_stop_patience,
        "selftraining.weight": st_loss_weight,
        "augment.scale_min": scale_min,
        "augment.scale_max": scale_max,
        "augment.multi_scale": multi_scale,
        "performance.deterministic": deterministic,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    if run is not None and not resume:
        raise RecipeError(f"What shall be done with {run}? Write --resume {as_argument(run)} to go on with it.")
    if resume:
        # What the environment says is of new runs; a run knows its own patches and classes
        in_environment = {name for name in ("data_root", "class_mapping") if is_from_environment(context, name)}
        others = [
            None if "class_mapping" in in_environment else class_mapping,
            recipe,
            phase,
            go_on,
            init,
            setting,
            checkpoint_dir,
            gsd,
            splits,
            num_classes,
            dry_run,
            find_batch,
            cache,
        ]
        if set(given) - {"evaluation.patience"} or any(others):
            raise RecipeError(
                "--resume keeps the run's recipe and folder; only --early-stop-patience, --data-root and --device "
                "may be given with it."
            )
        moved_to = None if "data_root" in in_environment else data_root
        _resume(run, project, moved_to, early_stop_patience, device.value)
        return
    name = _recipe_name(recipe, phase)
    root = data_root or project.data_root
    if root is None:
        raise ProjectError("Where are the patches? Give --data-root, or data_root in salakseg.toml.")
    changes = [*(nest(k, v) for k, v in given.items()), *map(parse_setting, setting or [])]
    if init is not None:
        from salakseg.cli.model_paths import checkpoint_at
        from salakseg.train.initial import network_settings

        init = checkpoint_at(init)
        changes.insert(0, network_settings(init))
    if go_on and name != _LADDER:
        raise RecipeError("--continue is for --phase auto; a single run starts from other weights with --init.")
    request = Request(
        recipe=name,
        changes=changes,
        data_root=root,
        runs=project.runs_folder,
        class_mapping=class_mapping or project.class_mapping,
        num_classes=num_classes,
        splits=splits,
        run_folder=checkpoint_dir,
        gsd_m=gsd,
        device=device.value,
        dry_run=dry_run or find_batch,
        cache=cache,
        init=init,
    )
    if find_batch:
        if name == _LADDER:
            raise RecipeError("--find-batch tries one recipe; name it with --phase 1 or --recipe.")
        _find_batch(_prepared(request, project.recipe))
    elif name == _LADDER:
        climb_new(request, project.recipe, go_on)
    else:
        _train_one(request, project.recipe)


def _recipe_name(recipe: str | None, phase: str | None) -> str:
    """The recipe that is asked for, or `_LADDER`."""
    from salakseg.train.recipe import PHASES

    if recipe is not None and phase is not None:
        raise RecipeError("--recipe and --phase name a recipe both; give one of them.")
    if phase is None:
        return recipe or "v3"
    names = {str(number): name for number, name in PHASES.items()} | {_LADDER: _LADDER}
    if phase not in names:
        raise typer.BadParameter(f"there is no phase {phase!r}; it takes {', '.join(names)}", param_hint="--phase")
    return names[phase]


def _train_one(request: "Request", project_recipe: Mapping[str, Any]) -> None:
    from salakseg.train.recipe import resolve

    trainer = _prepared(request, project_recipe)
    if request.dry_run:
        show_estimate(resolve(request.recipe, request.changes, _without_ladder(project_recipe)), trainer)
    else:
        _run(trainer)


def _prepared(request: "Request", project_recipe: Mapping[str, Any]) -> "Trainer":
    """A trainer that is ready to run, and a word on settings of the project that this recipe has no use for."""
    from salakseg.train.effect import idle_settings
    from salakseg.train.recipe import resolve
    from salakseg.train.start import start_run

    if any("ladder" in change for change in request.changes):
        raise RecipeError("The settings of ladder have no effect without --phase auto.")
    project = _without_ladder(project_recipe)
    resolved = resolve(request.recipe, request.changes, project)
    if idle := idle_settings(resolved):
        say(f"salakseg.toml: without effect in recipe {resolved.recipe.name}: {', '.join(one.text for one in idle)}")
    with progress_bar("reading masks", "masks") as progress:
        return start_run(replace(request, changes=[project, *request.changes]), say, progress)


def _without_ladder(project_recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in project_recipe.items() if key != "ladder"}


def _find_batch(trainer: "Trainer") -> None:
    from salakseg.train.find_batch import largest_batch

    best = largest_batch(trainer, lambda size, fits: say(f"{size}: {'fits' if fits else 'too large'}"))
    stdout.print(f"--batch-size {best} is the largest that fits {trainer.fabric.device}", markup=False)


def _resume(run: Path | None, project: "Project", data_root: Path | None, patience: int | None, device: str) -> None:
    from salakseg.train.ladder import is_ladder
    from salakseg.train.ladder_plan import read_plan
    from salakseg.train.start import resume_run
    from salakseg.train.unfinished import newest_unfinished

    path = run or newest_unfinished(project.runs_folder, say, patience)
    if run is None and is_ladder(path.parent):
        path = path.parent
    if is_ladder(path):
        if patience is not None:
            raise RecipeError("--early-stop-patience was fixed when the ladder began; resume one of its runs with it.")
        climb_on(path, read_plan(path), device, data_root)
        return
    with progress_bar("reading masks", "masks") as progress:
        trainer = resume_run(path, data_root, patience, device, say, progress)
    _run(trainer)


def _run(trainer: "Trainer") -> None:
    from salakseg.train.signals import Interrupted

    folder = trainer.run_folder
    try:
        with live_view(folder.metrics, trainer.data.class_map, f"{trainer.recipe.name}: {folder.path}") as progress:
            trainer.run(progress)
    except Interrupted:
        say(f"stopped after step {trainer.iteration:,}; go on with: salakseg train --resume {as_argument(folder.path)}")
        raise typer.Exit(INTERRUPTED) from None
    best = trainer.validation.best_score
    say(f"done; best validation mIoU without background {best:.4f}, next: salakseg report {as_argument(folder.best)}")
