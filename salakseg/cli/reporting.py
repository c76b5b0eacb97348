"""``salakseg report``."""

from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.choices import Device, Part, Unit, Weights, as_choice
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.cli.patch_folder import is_from_environment

DATA = "What is measured"
STORE = "What is stored in the checkpoint, chosen on validation"


def report(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Checkpoint, bundle, or a run's folder for its best; more to compare with it. Default: the newest run."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report's files; default: report/ or report-val/ of the first run."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="SALAKSEG_DATA_ROOT",
            help="Where the patches are; default: where they were.",
            rich_help_panel=DATA,
        ),
    ] = None,
    class_mapping: Annotated[
        Path | None,
        typer.Option(
            envvar="SALAKSEG_CLASS_MAPPING", help="Checked against the checkpoint's classes.", rich_help_panel=DATA
        ),
    ] = None,
    split: Annotated[
        Part | None, typer.Option(help="Default: test, or val where there is no test part.", rich_help_panel=DATA)
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(help="Whose weights the report is on. Default: what it prefers, ema.", rich_help_panel=DATA),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="mean, prob, vote, diversenet, or the number of a head. Default: what it prefers, mean.",
            rich_help_panel=DATA,
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Try every variant with eight flips and turns as well.", rich_help_panel=DATA),
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Measure the mean of all checkpoints as well.", rich_help_panel=DATA),
    ] = False,
    unit: Annotated[
        Unit,
        typer.Option(
            help="What intervals resample: blocks of consecutive photos, photos or folders.", rich_help_panel=DATA
        ),
    ] = Unit.block,
    target: Annotated[
        str | None, typer.Option(help="Target to compare with: a name or a TOML file. Default: diversenet.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Show the recorded results of earlier trainers beside.")
    ] = False,
    precision: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Wanted share of right pseudo-labels, for recommended thresholds.")
    ] = 0.9,
    note: Annotated[
        list[str] | None, typer.Option(help="A sentence that readers must know; may be given several times.")
    ] = None,
    write_default: Annotated[
        bool, typer.Option("--write-default", help="The best variant, for export and predict.", rich_help_panel=STORE)
    ] = False,
    write_temperature: Annotated[
        bool,
        typer.Option("--write-temperature", help="The temperature that calibrates it.", rich_help_panel=STORE),
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
) -> None:
    """Say how good a checkpoint is, class by class, against the DiverseNet target, and where it fails."""
    from salakseg.classes import ClassMap
    from salakseg.cli.model_paths import checkpoint_at
    from salakseg.evaluate.files import check_folder, report_folder, write_report
    from salakseg.evaluate.judge import Question, judge
    from salakseg.evaluate.terminal import render_terminal
    from salakseg.network.device import pick_device
    from salakseg.project import load_project

    project = load_project()
    if not checkpoints:
        checkpoints = [project.newest_best()]
        say(f"newest run: {checkpoints[0]}")
    paths = [checkpoint_at(path) for path in checkpoints]
    fallback = project.data_root
    if is_from_environment(context, "data_root"):
        data_root, fallback = None, data_root
    if is_from_environment(context, "class_mapping"):
        class_mapping = None
    question = Question(
        target=target,
        data_root=data_root,
        fallback_root=fallback,
        class_map=None if class_mapping is None else ClassMap.from_csv(class_mapping),
        part=None if split is None else split.value,
        weights=as_choice(weights),
        heads=heads,
        tta=tta,
        ensemble=ensemble,
        unit=unit.value,
        wanted_precision=precision,
        write_default=write_default,
        write_temperature=write_temperature,
        recorded=history,
        notes=tuple(note or ()),
        device=pick_device(device.value),
    )
    folder = out or report_folder(paths[0], question.part)
    if paths[0].exists():
        check_folder(folder)
    result = judge(paths, question, lambda what: progress_bar(what, "patches"))
    written = write_report(result, folder, base_recipe(result.recipe))
    stdout.print(render_terminal(result))
    say(f"report: {written['report.html']}; beside it {len(written) - 1} files: tables, figures and report.json")


def base_recipe(own: str | None) -> str:
    """The recipe that recommended thresholds change: the run's own, if it self-trains and comes with the package."""
    from salakseg.train.recipe import load_recipe, recipe_names

    if own is None or own not in recipe_names() or not load_recipe(own).selftraining.enabled:
        return "phase2"
    return own
