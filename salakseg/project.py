"""The project file ``salakseg.toml``: where data, runs and the newest best checkpoint are.

    data_root = "patches"
    class_mapping = "class_mapping.csv"
    runs = "runs"

    [recipe.schedule]          # settings of every run in this folder, on top of the recipe's
    iterations = 20000

Every key is optional, paths are relative to the file. Flags beat environment variables (``SALAKSEG_DATA_ROOT``,
``SALAKSEG_CLASS_MAPPING``, ``SALAKSEG_RUNS``), which beat the file.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from salakseg.errors import ProjectError

FILE_NAME = "salakseg.toml"


class Project(BaseModel):
    """What a project folder says about itself; all of it is empty without a project file.

    Attributes:
        folder: Folder of the project file, or the current one.
        data_root: Folder with the patches.
        class_mapping: CSV file with the classes.
        runs: Folder for the run folders.
        recipe: Settings that go on top of every recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    data_root: Path | None = None
    class_mapping: Path | None = None
    runs: Path = Path("runs")
    recipe: dict[str, Any] = {}

    @property
    def runs_folder(self) -> Path:
        """Where new runs go."""
        return self.folder / self.runs

    def newest_best(self) -> Path:
        """The best checkpoint of the newest run.

        Raises:
            ProjectError: There is none.
        """
        found = self.newest_best_or_none()
        if found is None:
            raise ProjectError(
                f"{self.runs_folder} holds no finished evaluation of a run; train first, or name a model."
            )
        return found

    def newest_best_or_none(self) -> Path | None:
        """The best checkpoint of the newest run, None if there is none."""
        return _newest_best(self.runs_folder)


def load_project(start: Path | None = None) -> Project:
    """Reads the project file of a folder or the nearest one above it.

    Args:
        start: Where to look first; the current folder by default.

    Raises:
        ProjectError: The file cannot be read, or has an unknown key.
    """
    start = (start or Path.cwd()).resolve()
    found = next((folder / FILE_NAME for folder in (start, *start.parents) if (folder / FILE_NAME).is_file()), None)
    project = Project(folder=start) if found is None else _read(found)
    runs = os.environ.get("SALAKSEG_RUNS")
    return project.model_copy(update={"runs": Path(runs).absolute()}) if runs else project


def _newest_best(runs: Path) -> Path | None:
    # of single runs, and of the rungs of ladders
    found = [*runs.glob("*/checkpoints/best.pt"), *runs.glob("*/*/checkpoints/best.pt")]
    return max(found, key=_last_trained, default=None)


def _last_trained(best: Path) -> float:
    """When a run was last trained: by its log, since a report can write a checkpoint of an old run anew."""
    log = best.parent.parent / "metrics.jsonl"
    return (log if log.exists() else best).stat().st_mtime


def _read(path: Path) -> Project:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProjectError(f"{path} is no valid TOML ({error}).") from error
    try:
        project = Project.model_validate({**table, "folder": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ProjectError(
            f"{path}: {key}: {first['msg']}; the keys are data_root, class_mapping, runs and [recipe]."
        ) from error
    return project.model_copy(
        update={
            "data_root": None if project.data_root is None else path.parent / project.data_root,
            "class_mapping": None if project.class_mapping is None else path.parent / project.class_mapping,
        }
    )
