"""``salakseg train`` and ``salakseg recipes``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from salakseg.cli.choices import Device
from salakseg.cli.console import INTERRUPTED, progress_bar, say, stdout
from salakseg.cli.live import live_view
from salakseg.errors import ProjectError, RecipeError

_RECIPE = "Recipe"
_TEAM = "Settings of the field team's notes"


def train(
    run: Annotated[
        Path | None, typer.Argument(help="With --resume: folder of the run. Default: the newest unfinished one.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="v3, phase1, phase2, phase3, quick, or a TOML file.", rich_help_panel=_RECIPE)
    ] = None,
    phase: Annotated[
        int | None, typer.Option(min=1, max=3, help="Short for --recipe phase1, 2 or 3.", rich_help_panel=_RECIPE)
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
        float | None, typer.Option(min=1e-4, max=1000, help="Metres a pixel of the patches; kept in the checkpoint.")
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the recipe, write and train nothing.")
    ] = False,
    num_classes: Annotated[
        int | None, typer.Option(help="Checked against the class map.", rich_help_panel=_TEAM)
    ] = None,
    num_steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", rich_help_panel=_TEAM)] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Labelled patches a step, and as many unlabelled.", rich_help_panel=_TEAM)
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
    from salakseg.train.guard import Interrupted
    from salakseg.train.recipe import PHASES, parse_setting, recipe_toml
    from salakseg.train.start import Request, resume_run, start_run
    from salakseg.train.unfinished import newest_unfinished

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
    if recipe is not None and phase is not None:
        raise RecipeError("--recipe and --phase name a recipe both; give one of them.")
    if run is not None and not resume:
        raise RecipeError(f"What shall be done with {run}? Write --resume {run} to go on with it.")
    with progress_bar("reading masks", "masks") as progress:
        if resume:
            others = [recipe, phase, setting, checkpoint_dir, gsd, splits, num_classes, dry_run, cache]
            if set(given) - {"evaluation.patience"} or any(others):
                raise RecipeError(
                    "--resume keeps the run's recipe and folder; only --early-stop-patience, --data-root and --device "
                    "may be given with it."
                )
            path = run or newest_unfinished(project.runs_folder, say)
            trainer = resume_run(path, data_root, early_stop_patience, device.value, say, progress)
        else:
            root = data_root or project.data_root
            if root is None:
                raise ProjectError("Where are the patches? Give --data-root, or data_root in salakseg.toml.")
            request = Request(
                recipe=recipe or (PHASES[phase] if phase else "v3"),
                changes=[project.recipe, *(_nest(k, v) for k, v in given.items()), *map(parse_setting, setting or [])],
                data_root=root,
                runs=project.runs_folder,
                class_mapping=class_mapping or project.class_mapping,
                num_classes=num_classes,
                splits=splits,
                run_folder=checkpoint_dir,
                gsd_m=gsd,
                device=device.value,
                dry_run=dry_run,
                cache=cache,
            )
            trainer = start_run(request, say, progress)
    if dry_run:
        stdout.print(recipe_toml(trainer.recipe), markup=False, soft_wrap=True)
        return
    folder = trainer.run_folder
    try:
        with live_view(folder.metrics, trainer.data.class_map, f"{trainer.recipe.name}: {folder.path}") as show:
            trainer.run(show)
    except Interrupted:
        say(f"stopped after step {trainer.iteration:,}; go on with: salakseg train --resume {folder.path}")
        raise typer.Exit(INTERRUPTED) from None
    best = trainer.validation.best_score
    say(f"done; best validation mIoU without background {best:.4f}, next: salakseg report {folder.best}")


def recipes(
    name: Annotated[str | None, typer.Argument(help="Recipe to show in full.")] = None,
) -> None:
    """List the recipes, or show every setting of one."""
    from salakseg.train.recipe import load_recipe, recipe_names, recipe_toml

    for line in recipe_names() if name is None else recipe_toml(load_recipe(name)).splitlines():
        stdout.print(line, markup=False)


def _nest(key: str, value: object) -> dict[str, Any]:
    section, setting = key.split(".")
    return {section: {setting: value}}
