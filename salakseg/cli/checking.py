"""``salakseg check`` and ``salakseg stats``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import progress_bar, say, stdout
from salakseg.cli.patch_folder import ClassMapping, Root, patch_folder
from salakseg.errors import DataError

if TYPE_CHECKING:
    from salakseg.project import Project

Splits = Annotated[Path | None, typer.Option(help="File with the split; default: splits.csv in the data root.")]


def check(
    root: Root = None,
    class_mapping: ClassMapping = None,
    splits: Splits = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Look at so many patches only, drawn evenly, for a quick look.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and check.html. Default: check in the data root.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for other programs.")] = False,
) -> None:
    """Find what would silently ruin a training: damaged files, strange masks, leaks, missing classes, odd folders.

    Every picture and mask is read once. The exit status is 1 if there are errors.
    """
    from salakseg.check.output import check_output_folder, to_json, write_check
    from salakseg.check.run import Question, check_patches
    from salakseg.check.terminal import render_check
    from salakseg.project import load_project

    root, class_map = patch_folder(root, class_mapping)
    folder = out or root / "check"
    check_output_folder(folder)
    question = Question(root, class_map, _splits(splits, root), sample, _gap(load_project()))
    with progress_bar("check", "patches") as progress:
        result = check_patches(question, progress)
    _, page = write_check(result, folder)
    if as_json:
        print(to_json(result, ensure_ascii=True))
    else:
        stdout.print(render_check(result))
    say(f"check: {page}, and check.json beside it")
    if result.has_errors:
        raise typer.Exit(1)


def stats(
    root: Root = None,
    class_mapping: ClassMapping = None,
    splits: Splits = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for other programs.")] = False,
) -> None:
    """Give figures of the patches: class shares and weights, mean and spread of the bands, by folder and in all."""
    from salakseg.check.scan import scan_patches
    from salakseg.check.stats import stats_of
    from salakseg.check.stats_terminal import render_stats
    from salakseg.data.patches import index_patches
    from salakseg.data.splits import read_split

    root, class_map = patch_folder(root, class_mapping)
    index = index_patches(root)
    path = _splits(splits, root)
    split = None if path is None else read_split(path, index)
    with progress_bar("stats", "patches") as progress:
        scan = scan_patches(index, class_map, progress=progress)
    found = stats_of(scan, split)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        stdout.print(render_stats(found, root.absolute().name))


def _splits(given: Path | None, root: Path) -> Path | None:
    """The file with the split that was named, or the one in the data root; None if there is none yet."""
    from salakseg.data.splits import SPLITS

    if given is not None and not given.is_file():
        raise DataError(f"{given} does not exist; name the file with the split, or leave --splits out.")
    return given or (root / SPLITS if (root / SPLITS).is_file() else None)


def _gap(project: "Project") -> int:
    """The gap that splits of this project are made with."""
    from salakseg.data.splits import SplitPlan

    data = project.recipe.get("data")
    gap = data.get("gap") if isinstance(data, dict) else None
    return gap if isinstance(gap, int) and gap >= 0 else SplitPlan().gap
