"""The files of a report, put in place all together or not at all."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from salakseg import replacing
from salakseg.errors import ReportError
from salakseg.evaluate.report import Report
from salakseg.evaluate.thresholds import recipe_fragment

_STAGING = ".report-"

CHARTS = ("figure_iou", "figure_variants", "figure_thresholds", "figure_calibration", "figure_history")

FILES = (
    "confusion.csv",
    "confusion_normalised.csv",
    "per_class.csv",
    "per_photo.csv",
    "variants.csv",
    "thresholds.toml",
    "report.png",
    *(f"{name}.{kind}" for name in CHARTS for kind in ("png", "svg")),
    "report.html",
    "report.json",
)
"""Every file that a report may have, in the order in which they are put in place; report.json is last."""


def report_folder(checkpoint: Path, part: str | None = None) -> Path:
    """Where the report on a checkpoint lies unless somebody asks otherwise: ``report/``, or ``report-val/``.

    Args:
        checkpoint: Of a run, beside whose ``checkpoints/`` it lies; or copied out of one; or a bundle, in which it
            lies.
        part: What it is evaluated on, if that was asked for; a report on validation does not replace one on test.
    """
    folder = checkpoint.resolve() if checkpoint.is_dir() else checkpoint.resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / (
        "report" if part in (None, "test") else f"report-{part}"
    )


def write_report(report: Report, folder: Path, base_recipe: str = "phase2") -> dict[str, Path]:
    """Writes a report, replacing an older one in the folder.

    Every file is finished before the first is put in place, and if one cannot be, the older report is restored. Files
    that only the older report had are removed; all other files of the folder are left alone.

    Args:
        report: The report.
        folder: Where the files go; made if missing.
        base_recipe: Recipe that ``thresholds.toml``, the recommended thresholds, changes.

    Returns:
        The path of each file under its name, such as ``paths["report.html"]``.

    Raises:
        ReportError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"{_STAGING}*"):  # of a report whose writing was killed
            shutil.rmtree(left_over, ignore_errors=True)
        # Inside the folder rather than beside it: a move within one file system is all or nothing.
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder) as temporary:
            staged = Path(temporary)
            _write_all(report, staged, base_recipe)
            written = [name for name in FILES if (staged / name).exists()]
            _put_in_place(staged, folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return {name: folder / name for name in written}


def check_folder(folder: Path) -> None:
    """Finds out whether a report could be written, before the work for it is done; leaves nothing behind.

    Raises:
        ReportError: It could not.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(2**20))
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> ReportError:
    return ReportError(
        f"The report cannot be written to {folder} ({error}); close its files elsewhere or name another folder."
    )


def _write_all(report: Report, folder: Path, base_recipe: str) -> None:
    # matplotlib takes a second to import, which only the writing of a report needs
    from salakseg.evaluate.charts import save_charts
    from salakseg.evaluate.figures import write_figure
    from salakseg.evaluate.html import render_html
    from salakseg.evaluate.tables import write_tables

    write_tables(report, folder)
    write_figure(report, folder / "report.png")
    save_charts(report, folder)
    if report.findings is not None and report.split == "val":
        fragment = recipe_fragment(report.findings.thresholds, report.class_map, base_recipe)
        if fragment is not None:
            (folder / "thresholds.toml").write_text(fragment, encoding="utf-8", errors="replace")
    (folder / "report.html").write_text(render_html(report), encoding="utf-8", errors="replace")
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8", errors="replace")


def _put_in_place(staged: Path, folder: Path) -> None:
    """Moves the older files aside and the new ones in; on any failure everything goes back."""
    replaced = staged / "replaced"
    replaced.mkdir()
    new = [name for name in FILES if (staged / name).exists()]
    try:
        for name in FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")
            if (folder / name).exists():
                replacing.replace(folder / name, replaced / name)
            if name in new:
                replacing.replace(staged / name, folder / name)
    except BaseException:
        _put_back(staged, replaced, folder, new)
        raise


def _put_back(staged: Path, replaced: Path, folder: Path, new: Sequence[str]) -> None:
    # Where each file is now says what was done to it; a list of steps could lag behind an interrupt.
    for name in FILES:
        if (replaced / name).exists():
            replacing.replace(replaced / name, folder / name)
        elif name in new and not (staged / name).exists():
            (folder / name).unlink(missing_ok=True)
