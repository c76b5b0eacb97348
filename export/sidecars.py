"""The files beside an exported model: STAC item, model card and inference script."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salakseg.data.splits import Role
from salakseg.errors import ExportError
from salakseg.evaluate.files import report_folder
from salakseg.export.card import model_card, read_report
from salakseg.export.onnx_file import read_onnx
from salakseg.export.script import inference_script
from salakseg.export.stac import stac_item
from salakseg.mapping.files import put_bytes
from salakseg.network import metadata as keys
from salakseg.network.checkpoint import Checkpoint
from salakseg.network.config import file_name


@dataclass(frozen=True, slots=True)
class SidecarNames:
    """What the files are called.

    Attributes:
        stac: The STAC item.
        card: The model card.
        script: The inference script.
    """

    stac: str
    card: str
    script: str

    @classmethod
    def beside(cls, model: Path) -> "SidecarNames":
        """Names that begin with the model's, so that no README of somebody else's is in the way."""
        return cls(f"{model.stem}.stac.json", f"{model.stem}.README.md", f"{model.stem}.inference.py")

    @property
    def all(self) -> tuple[str, str, str]:
        """The three names."""
        return self.stac, self.card, self.script


BUNDLED = SidecarNames("model.stac.json", "README.md", "inference.py")
"""What the files are called in a bundle, which is a folder of their own."""


def find_report(checkpoint_path: Path, checkpoint: Checkpoint) -> Path | None:
    """The report.json of a checkpoint, where `salakseg report` puts it: on test, else on validation.

    Returns:
        None if there is none, or one on another checkpoint.
    """
    for part in (None, "val"):
        path = report_folder(checkpoint_path, part) / "report.json"
        if path.is_file() and _is_on(read_report(path), checkpoint):
            return path
    return None


def check_sidecars(model: Path, overwrite: bool) -> None:
    """Refuses files that exist, before hours are spent.

    Raises:
        ExportError: One exists and is not to be replaced.
    """
    for name in SidecarNames.beside(model).all:
        if model.with_name(name).exists() and not overwrite:
            raise ExportError(f"{model.with_name(name)} exists; add --overwrite to replace it.")


def write_sidecars(
    model: Path,
    checkpoint: Checkpoint,
    report: Path | None = None,
    notes: Sequence[str] = (),
    names: SidecarNames | None = None,
    title: str | None = None,
) -> tuple[Path, ...]:
    """Writes the three files beside a model, each of them whole, replacing older ones.

    Args:
        model: A file that `salakseg export` wrote.
        checkpoint: What it was made from.
        report: report.json of that checkpoint; None for the validation that is stored.
        notes: Sentences that a reader of the card must know first, such as one on stand-in data.
        names: What the files are called; None for names that begin with the model's.
        title: What the model is called; None for its file's name without the ending.

    Returns:
        The files.

    Raises:
        ExportError: The model is not ours, the report is on another checkpoint, or a file cannot be written.
    """
    names = names or SidecarNames.beside(model)
    texts = _texts(model, checkpoint, report, notes, names, title or model.stem)
    try:
        for name, text in texts.items():
            put_bytes(model.with_name(name), text.encode("utf-8"))
    except OSError as error:
        raise ExportError(
            f"{model.parent} cannot be written to ({error.strerror}); choose a folder that you may write to, with "
            "space left."
        ) from error
    return tuple(model.with_name(name) for name in texts)


def _texts(
    model: Path, checkpoint: Checkpoint, report: Path | None, notes: Sequence[str], names: SidecarNames, title: str
) -> dict[str, str]:
    described = read_onnx(model)
    if keys.CLASSES not in described.metadata or "salakseg.training" not in described.metadata:
        raise ExportError(f"{model} says nothing of itself; export it anew with `salakseg export`.")
    measured = None if report is None else read_report(report)
    if measured is not None and not _is_on(measured, checkpoint):
        raise ExportError(
            f"{report} is on another checkpoint than {model.name} was made from; report on that one anew with "
            "`salakseg report`."
        )
    item = json.dumps(stac_item(described, title), indent=1, ensure_ascii=False, allow_nan=False)
    return {
        names.stac: f"{item}\n",
        names.card: model_card(described.metadata, title, measured, notes, data_text(checkpoint)),
        names.script: inference_script(model, names.script),
    }


def data_text(checkpoint: Checkpoint) -> str:
    """A sentence on the photos of a run; empty if the checkpoint does not say."""
    roles = [row[-1] for row in checkpoint.split]
    counts = {role.value: roles.count(role.value) for role in Role if role.value in roles}
    if not counts:
        return ""
    folders = len({row[0] for row in checkpoint.split})
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    named = file_name(checkpoint.data_root.rstrip("\\/"))
    where = f" of `{named}`" if named and "`" not in named else ""
    return f"Data{where}: photos of {folders} folder{'s' * (folders != 1)}: {parts}."


def _is_on(report: dict[str, Any], checkpoint: Checkpoint) -> bool:
    """Whether a report's figures are those of a checkpoint, as far as both tell."""
    names = tuple(one["name"] for one in report["classes"])
    training = (report["recipe"], report["iteration"], report.get("validation"))
    own = (checkpoint.recipe_name, checkpoint.iteration, checkpoint.evaluation)
    return names == checkpoint.class_map.names and training == own
