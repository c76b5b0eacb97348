"""Which folder of patches a command works on, and by which classes its masks are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import say
from salakseg.errors import DataError, ProjectError

if TYPE_CHECKING:
    from salakseg.classes import ClassMap

Root = Annotated[
    Path | None,
    typer.Argument(
        metavar="[ROOT]", envvar="SALAKSEG_DATA_ROOT", help="Folder with the patches; default: the project's data_root."
    ),
]
ClassMapping = Annotated[
    Path | None,
    typer.Option(
        envvar="SALAKSEG_CLASS_MAPPING", help="CSV file with the classes; default: the data root's, else salak."
    ),
]


def is_from_environment(context: typer.Context, name: str) -> bool:
    """Whether an option was not typed, but stands in the environment, which is of new runs and not of old ones."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


def patch_folder(root: Path | None, class_mapping: Path | None) -> "tuple[Path, ClassMap]":
    """The folder that was named, or the project's, and its classes.

    Raises:
        ProjectError: Neither is there.
        DataError: It is no folder.
        ClassMapError: The class mapping cannot be read.
    """
    from salakseg.data.class_mapping import choose_class_map
    from salakseg.project import load_project

    project = load_project()
    folder = root or project.data_root
    if folder is None:
        raise ProjectError("Where are the patches? Name their folder, or data_root in salakseg.toml.")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the folder with the patches.")
    return folder, choose_class_map(class_mapping or project.class_mapping, folder, say)
