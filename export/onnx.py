"""From a checkpoint to one ONNX file that carries its own instructions."""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import onnx

from salakseg import replacing
from salakseg.errors import ExportError
from salakseg.export.parity import Parity, measure
from salakseg.export.settings import ExportSettings
from salakseg.export.source import Source, no_data, open_source
from salakseg.network.metadata import PARITY
from salakseg.replacing import may_write


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and found right.

    Attributes:
        path: Where it lies.
        settings: It was written with.
        parity: Agreement with torch.
        real: Whether it was compared on real imagery rather than noise.
        nodes: Number of nodes of the graph.
        size_mb: Size of the file in megabytes.
        default_tile: Side of the tiles that suit the network best, pixels.
    """

    path: Path
    settings: ExportSettings
    parity: Parity
    real: bool
    nodes: int
    size_mb: float
    default_tile: int


def export_onnx(
    checkpoint_path: Path,
    out: Path,
    settings: ExportSettings,
    *,
    data_root: Path | None = None,
    overwrite: bool = False,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Writes a checkpoint as ONNX and compares the file with torch.

    Opset 18, IR version 9, one file, dynamic batch; the heads are combined and go through the softmax inside.

    Args:
        checkpoint_path: The checkpoint.
        out: The file to write; it appears only after the comparison.
        settings: What kind of file.
        data_root: Where the run's patches are, for the comparison and for int8; None looks where they were at training
            time.
        overwrite: Whether `out` may exist.
        quick: Whether to compare on a few tiles even where labels are at hand; int8 needs the labels.
        progress: Called with tiles compared and to compare.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: There are no patches at `data_root`, or one cannot be read.
        EngineError: The network has no such head.
        ExportError: The file exists or cannot be written, the size does not fit, int8 lacks data, or file and network
            disagree.
    """
    _check_place(out, checkpoint_path, overwrite)
    source = open_source(checkpoint_path, settings, data_root)
    tiles, real = source.tiles(quick and settings.precision != "int8")
    labelled = any((tile.label_HW < len(source.checkpoint.classes)).any() for tile in tiles)
    if settings.precision == "int8" and not labelled:
        raise ExportError(no_data("is judged by its loss of mIoU on labelled patches of the validation part"))
    temporary = out.with_name(f".{out.stem}.{uuid4().hex}.partial.onnx")  # two may convert one checkpoint at a time
    try:
        runner = source.write(source.graph(), settings.precision, temporary)
        names = source.checkpoint.class_map.names
        (parity,) = measure(source.network, settings.variant, [runner], tiles, names, source.channels, progress)
        objection = parity.objection(settings.precision)
        if objection is not None:
            raise ExportError(f"{out} was not written: {objection}; {_remedy(source, real)}.")
        del runner  # Windows replaces no file that is open
        nodes = _write_parity(temporary, parity, real)
        size_mb = temporary.stat().st_size / 1e6
        replacing.replace(temporary, out)
    except OSError as error:
        remedy = "make room on the disk" if error.errno == errno.ENOSPC else "name a file elsewhere with --out"
        raise ExportError(f"{out} could not be written ({error.strerror or error}); {remedy}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(out, settings, parity, real, nodes, size_mb, source.checkpoint.default_tile)


def _write_parity(path: Path, parity: Parity, real: bool) -> int:
    """Stores in a file how far it agrees with the network; returns the number of its nodes."""
    model = onnx.load(path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, told | {PARITY: json.dumps({**parity.to_dict(), "real": real})})
    onnx.save(model, path)
    return len(model.graph.node)


def _check_place(out: Path, checkpoint_path: Path, overwrite: bool) -> None:
    if out.is_dir() or (out.exists() and not overwrite):
        remedy = "name a file in it" if out.is_dir() else "add --overwrite to replace it"
        raise ExportError(f"{out} exists; {remedy}.")
    if out.suffix.lower() != ".onnx" or out.resolve() == checkpoint_path.resolve():
        raise ExportError(f"{out} is no name for the exported file; give it one that ends in .onnx.")
    if not out.parent.is_dir():
        raise ExportError(f"The folder of {out} does not exist; make it first.")
    if not may_write(out.parent):
        raise ExportError(f"The folder of {out} cannot be written to; name a file elsewhere with --out.")


def _remedy(source: Source, real: bool) -> str:
    if not real:
        return "it was compared on noise, so name the run's patches with --data-root"
    if source.settings.precision == "fp32":
        return "please report this with the checkpoint's recipe"
    return "take --precision fp32"
