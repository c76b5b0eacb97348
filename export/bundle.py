"""A release: one folder that holds a model in every form, and opens without running foreign code.

    model.onnx             for predict, QGIS and any other runtime
    weights.safetensors    tensors alone, for reports and further exports
    config.json            everything else that the checkpoint held
    class_mapping.csv      ids, names and colours
    README.md, model.stac.json, inference.py
    report/                the files of `salakseg report`, if there are any

The state of the optimizer is left out, and where data and encoder weights lay on the machine that trained it.
`salakseg.network.bundle` reads a bundle back as a checkpoint.
"""

import csv
import errno
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from salakseg import replacing
from salakseg.classes import ClassMap
from salakseg.errors import CheckpointError, ExportError
from salakseg.evaluate.files import FILES
from salakseg.export.onnx_file import read_onnx
from salakseg.export.sidecars import BUNDLED, write_sidecars
from salakseg.network import metadata as keys
from salakseg.network.bundle import (
    CONFIG,
    LEFT_OUT,
    MODEL,
    SCHEMA,
    SCHEMA_VERSION,
    TENSORS,
    WEIGHTS,
    is_bundle,
    read_config,
)
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.config import published_recipe
from salakseg.network.digest import sha256_of

CLASSES = "class_mapping.csv"

_NAMES = {MODEL, WEIGHTS, CONFIG, CLASSES, BUNDLED.stac, BUNDLED.card, BUNDLED.script, "report"}


def write_bundle(
    checkpoint_path: Path,
    model: Path,
    folder: Path,
    *,
    report: Path | None = None,
    notes: Sequence[str] = (),
    overwrite: bool = False,
    lean: bool = False,
) -> Path:
    """Writes a release folder, which appears under its name only when it is whole.

    Args:
        checkpoint_path: The checkpoint.
        model: The ONNX file that was exported from it.
        folder: The folder to make.
        report: report.json of the checkpoint, whose folder's report comes along.
        notes: Sentences that a reader must know first, such as one on stand-in data.
        overwrite: Whether an older bundle in `folder` may be replaced; another folder never is.
        lean: Whether the weights are the moving average's alone, in float16: a quarter of the size.

    Returns:
        The folder.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ExportError: The model is of another checkpoint, or of the student where the bundle is to be lean; the folder
            exists, or the disk is full.
    """
    check_folder(folder, overwrite)
    checkpoint = load_checkpoint(checkpoint_path)
    source = sha256_of(checkpoint_path)
    told = read_onnx(model).metadata
    if lean and told["salakseg.weights"] != "ema":
        raise ExportError("A lean bundle holds the moving average alone; add --weights ema, or leave --lean out.")
    if told.get(keys.SOURCE) != source:
        raise ExportError(f"{model} was not exported from {checkpoint_path} as it is now; export it anew.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            staged = Path(temporary) / "bundle"
            staged.mkdir()
            shutil.copyfile(model, staged / MODEL)
            write_sidecars(staged / MODEL, checkpoint, report, notes, BUNDLED, folder.resolve().name)
            _write_checkpoint(checkpoint, source, staged, lean)
            if report is not None:
                _copy_report(report.parent, staged / "report")
            _put_in_place(staged, folder, Path(temporary) / "replaced")
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = "make room on the disk" if full else "name a folder that you may write to"
        raise ExportError(f"{folder} could not be written ({error}); {remedy}.") from error
    return folder


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that cannot become a bundle.

    Raises:
        ExportError: It exists and is not to be replaced or no bundle, or the folder above is missing or not to be
            written to.
    """
    above = folder.resolve().parent
    if not above.is_dir():
        raise ExportError(f"The folder of {folder} does not exist; make it first.")
    if folder.resolve() in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise ExportError(f"{folder} is the folder that you are in, or above it; name a new one, such as release.")
    if is_bundle(above):
        raise ExportError(f"{folder} would lie in another bundle, {above}; name a folder elsewhere.")
    if not replacing.may_write(above):
        raise ExportError(f"The folder of {folder} cannot be written to; name one elsewhere.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / CONFIG).is_file():
        raise ExportError(f"{folder} exists and is no bundle; name another folder.")
    try:
        read_config(folder)
    except CheckpointError as error:
        raise ExportError(f"{folder} exists and is no bundle that this version knows; name another folder.") from error
    if not overwrite:
        raise ExportError(f"{folder} exists; add --overwrite to replace it.")
    strangers = sorted({path.name for path in folder.iterdir()} - _NAMES)
    if strangers:
        raise ExportError(
            f"{folder} holds more than a bundle ({', '.join(strangers[:3])}), which replacing it would delete; move "
            "that elsewhere or name another folder."
        )


def class_mapping_csv(class_map: ClassMap) -> str:
    """The classes in a layout that `ClassMap.from_csv` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class_id", "class_name", "class_color"])
    writer.writerows([one.id, one.name, " ".join(map(str, one.color))] for one in class_map.classes)
    return text.getvalue()


def _put_in_place(staged: Path, folder: Path, aside: Path) -> None:
    if folder.exists():
        replacing.replace(folder, aside)
    try:
        replacing.replace(staged, folder)
    except BaseException:  # an interrupt between the two must not leave neither
        if aside.exists() and not folder.exists():
            replacing.replace(aside, folder)
        raise


def _write_checkpoint(checkpoint: Checkpoint, source: str, folder: Path, lean: bool) -> None:
    plain = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name not in (*TENSORS, *LEFT_OUT)}
    plain |= {
        "network": checkpoint.network.published(),
        "recipe": published_recipe(checkpoint.recipe),
        "variant": (checkpoint.choose("ema") if lean else checkpoint.variant).to_dict(),
    }
    config = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "source_sha256": source, "checkpoint": plain}
    tensors: dict[str, Tensor] = {
        f"{name}.{key}": _rounded(tensor) if lean else tensor.detach().clone().contiguous()  # no two share memory
        for name in (("ema",) if lean else TENSORS)
        for key, tensor in getattr(checkpoint, name).items()
    }
    # save_file makes a file that nobody else may read
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CLASSES).write_text(class_mapping_csv(checkpoint.class_map), encoding="utf-8")


def _rounded(tensor: Tensor) -> Tensor:
    """A copy in float16, where it holds fractions.

    Variances of batch normalisation may exceed float16; they would be infinite, and so are clipped to its range.
    """
    if not tensor.is_floating_point():
        return tensor.detach().clone().contiguous()
    limits = torch.finfo(torch.float16)
    return tensor.detach().clamp(limits.min, limits.max).half().contiguous()


def _copy_report(source: Path, folder: Path) -> None:
    folder.mkdir()
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
