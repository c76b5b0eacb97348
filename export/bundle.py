"""A release: one folder that holds a model in every form, and opens without running foreign code.

    model.onnx             for predict, QGIS and any other runtime
    weights.safetensors    tensors alone, for going on with training or another export
    config.json            everything else that the checkpoint held
    class_mapping.csv      ids, names and colours
    README.md, model.stac.json, inference.py
    report/                the files of `salakseg report`, if there are any

The state of the optimizer and the folder where the data lay are left out.
"""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from salakseg.classes import ClassMap
from salakseg.errors import ClassMapError, ExportError
from salakseg.evaluate.files import FILES
from salakseg.export.onnx_file import read_onnx
from salakseg.export.sidecars import BUNDLED, write_sidecars
from salakseg.network import metadata as keys
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.config import NetworkConfig
from salakseg.network.digest import sha256_of
from salakseg.network.variant import Variant

SCHEMA = "salakseg.bundle"
SCHEMA_VERSION = 1

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
CLASSES = "class_mapping.csv"

_NAMES = {MODEL, WEIGHTS, CONFIG, CLASSES, BUNDLED.stac, BUNDLED.card, BUNDLED.script, "report"}

_TENSORS = ("student", "ema")
_LEFT_OUT = {"training": {}, "data_root": ""}


def write_bundle(
    checkpoint_path: Path,
    model: Path,
    folder: Path,
    *,
    report: Path | None = None,
    notes: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes a release folder, which appears under its name only when it is whole.

    Args:
        checkpoint_path: The checkpoint.
        model: The ONNX file that was exported from it.
        folder: The folder to make.
        report: report.json of the checkpoint, whose folder's report comes along.
        notes: Sentences that a reader must know first, such as one on stand-in data.
        overwrite: Whether an older bundle in `folder` may be replaced; another folder never is.

    Returns:
        The folder.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ExportError: The model is of another checkpoint, the folder exists, or the disk is full.
    """
    check_folder(folder, overwrite)
    checkpoint = load_checkpoint(checkpoint_path)
    if read_onnx(model).metadata.get(keys.SOURCE) != sha256_of(checkpoint_path):
        raise ExportError(f"{model} was not exported from {checkpoint_path} as it is now; export it anew.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            staged = Path(temporary) / "bundle"
            staged.mkdir()
            shutil.copyfile(model, staged / MODEL)
            write_sidecars(staged / MODEL, checkpoint, report, notes, BUNDLED, folder.resolve().name)
            _write_checkpoint(checkpoint, staged)
            if report is not None:
                _copy_report(report.parent, staged / "report")
            _put_in_place(staged, folder, Path(temporary) / "replaced")
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{folder} could not be written ({error}); is the disk full?") from error
    return folder


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that cannot become a bundle.

    Raises:
        ExportError: It exists and is not to be replaced or no bundle, or the folder above is missing.
    """
    if not folder.resolve().parent.is_dir():
        raise ExportError(f"The folder of {folder} does not exist; make it first.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / CONFIG).is_file():
        raise ExportError(f"{folder} exists and is no bundle; name another folder.")
    _read_config(folder)
    if not overwrite:
        raise ExportError(f"{folder} exists; add --overwrite to replace it.")
    strangers = sorted({path.name for path in folder.iterdir()} - _NAMES)
    if strangers:
        raise ExportError(
            f"{folder} holds more than a bundle ({', '.join(strangers[:3])}), which replacing it would delete; move "
            "that elsewhere or name another folder."
        )


def load_bundle(folder: Path) -> Checkpoint:
    """The checkpoint of a bundle, without the state of its optimizer; nothing is unpickled.

    Raises:
        ExportError: The folder is no bundle, or damaged.
    """
    config = _read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
        values = {**config["checkpoint"], **_LEFT_OUT}
        values["network"] = NetworkConfig.model_validate(values["network"])
        values["variant"] = Variant.from_dict(values["variant"])
        for name in ("mean", "std"):
            values[name] = tuple(values[name])
        for name in _TENSORS:
            start = f"{name}."
            values[name] = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
        checkpoint = Checkpoint(**values)
        _ = checkpoint.class_map
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ClassMapError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{folder} is an incomplete bundle ({reason}); copy it again.") from error
    return checkpoint


def class_mapping_csv(class_map: ClassMap) -> str:
    """The classes in a layout that `ClassMap.from_csv` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class_id", "class_name", "class_color"])
    writer.writerows([one.id, one.name, " ".join(map(str, one.color))] for one in class_map.classes)
    return text.getvalue()


def _put_in_place(staged: Path, folder: Path, aside: Path) -> None:
    if folder.exists():
        os.replace(folder, aside)
    try:
        os.replace(staged, folder)
    except BaseException:  # an interrupt between the two must not leave neither
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)
        raise


def _write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    plain = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name not in (*_TENSORS, *_LEFT_OUT)}
    plain |= {"network": checkpoint.network.model_dump(mode="json"), "variant": checkpoint.variant.to_dict()}
    config = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "checkpoint": plain}
    tensors: dict[str, Tensor] = {
        f"{name}.{key}": tensor.detach().clone().contiguous()  # safetensors takes no two that share memory
        for name in _TENSORS
        for key, tensor in getattr(checkpoint, name).items()
    }
    # save_file makes a file that nobody else may read
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CLASSES).write_text(class_mapping_csv(checkpoint.class_map), encoding="utf-8")


def _copy_report(source: Path, folder: Path) -> None:
    folder.mkdir()
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        schema, found = config["schema"], config["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{folder} is no bundle of `salakseg export --bundle` ({CONFIG}: {error}).") from error
    if schema != SCHEMA:
        raise ExportError(f"{folder} is no bundle of salakseg; make one with `salakseg export --bundle`.")
    if found != SCHEMA_VERSION:
        raise ExportError(f"{folder} has bundle schema {found}, this version reads {SCHEMA_VERSION}; update salakseg.")
    return dict(config)
