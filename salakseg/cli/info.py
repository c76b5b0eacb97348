"""``salakseg info``: what a model file says of itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salakseg.cli.console import stdout
from salakseg.errors import EngineError

if TYPE_CHECKING:
    from salakseg.export.onnx_file import OnnxFile
    from salakseg.network.checkpoint import Checkpoint


def info(
    model: Annotated[Path, typer.Argument(help="A .onnx or .pt file, or the folder of a bundle or a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for other programs.")] = False,
) -> None:
    """Say what a model is: classes, input, ground sampling distance, training, accuracy, licence.

    Of an .onnx of others it says what predict has to be told.
    """
    try:
        about = describe(model)
        if as_json:
            print(json.dumps(about, indent=1))
        else:
            _show(about)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise EngineError(f"{model} has metadata that cannot be read ({error!r}); export it anew.") from error


def describe(path: Path) -> dict[str, Any]:
    """A model file as plain values that JSON can hold.

    Raises:
        SalaksegError: It is none, or damaged.
    """
    from salakseg.cli.model_paths import checkpoint_at
    from salakseg.export.onnx_file import read_onnx
    from salakseg.network.bundle import MODEL
    from salakseg.network.checkpoint import load_checkpoint

    path = checkpoint_at(path)
    if path.is_dir():
        checkpoint = load_checkpoint(path)
        return {**describe_onnx(read_onnx(path / MODEL)), "kind": "bundle", "path": str(path)} | {
            "files": sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()),
            "parameters": _parameters(checkpoint),
            "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        }
    if path.suffix.lower() == ".onnx":
        return describe_onnx(read_onnx(path))
    if path.suffix.lower() in (".pt", ".pth"):
        return describe_checkpoint(load_checkpoint(path), path)
    raise EngineError(
        f"{path} is neither a checkpoint (.pt), nor an exported model (.onnx), nor the folder of a bundle."
    )


def describe_onnx(file: "OnnxFile") -> dict[str, Any]:
    """An ONNX file; its own metadata stand in groups, as they are in the file."""
    from salakseg.network import metadata as keys

    own = {key.removeprefix(keys.PREFIX): v for key, v in file.metadata.items() if key.startswith(keys.PREFIX)}
    others = {key: value for key, value in file.metadata.items() if not key.startswith(keys.PREFIX)}
    about: dict[str, Any] = {
        "kind": "onnx",
        "path": str(file.path),
        "bytes": file.bytes,
        "opset": file.opset,
        "ir_version": file.ir_version,
        "nodes": file.nodes,
        "inputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in file.inputs],
        "outputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in file.outputs],
        "salakseg": own or None,
        "other_metadata": others,
    }
    if not keys.says_its_use({key: "" for key in file.metadata}):
        about["predict_needs"] = [*keys.Told().missing, *_needs_tile(file)]
    return about


def describe_checkpoint(checkpoint: "Checkpoint", path: Path) -> dict[str, Any]:
    """A checkpoint, in the groups of an exported file."""
    from salakseg.export.metadata import own_values
    from salakseg.export.settings import ExportSettings
    from salakseg.network.digest import sha256_of

    # What an export would say, less what only the export decides
    values = own_values(checkpoint, ExportSettings(variant=checkpoint.variant), sha256_of(path), 1)
    undecided = ("tile", "size_multiple", "outputs", "precision", "licence", "overlap")
    own = {key.split(".", 1)[1]: value for key, value in values.items() if key.split(".", 1)[1] not in undecided}
    own["versions"] = own["versions"]["trained"]
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "parameters": _parameters(checkpoint),
        "salakseg": own | {"default_tile": checkpoint.default_tile},
    }


def _needs_tile(file: "OnnxFile") -> list[str]:
    dynamic = bool(file.inputs) and None in file.inputs[0].shape[2:]
    return ["--tile PIXELS"] if dynamic else []


def _parameters(checkpoint: "Checkpoint") -> int:
    weights = checkpoint.ema if checkpoint.variant.weights == "ema" else checkpoint.student
    running = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(running))


def _show(about: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    stdout.print(Text(f"{about['path']}: {about['kind']}, {about['bytes'] / 1e6:,.1f} MB"), soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _rows(about):
        table.add_row(Text(name), Text(text))  # Text: a class may be called [red]
    stdout.print(table)
    for one in (about.get("salakseg") or {}).get("classes", ()):
        swatch = Text("██ ", style="#" + "".join(f"{part:02x}" for part in one["color"]))
        stdout.print(Text("  ") + swatch + Text(f"{one['id']:>3} {one['name']}{_iou(about, one['id'])}"))
    if "predict_needs" in about:
        stdout.print(
            Text(f"It does not say how it is used; predict has to be told: {', '.join(about['predict_needs'])}")
        )
        stdout.print(Text("(and --logits if its output has not been through a softmax, --gsd METRES for its pixels)"))


def _rows(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if "opset" in about:
        rows.append(("format", f"ONNX opset {about['opset']}, IR {about['ir_version']}, {about['nodes']} nodes"))
        rows += [(what, _port(one)) for what in ("inputs", "outputs") for one in about[what]]
    if "parameters" in about:
        rows.append(("parameters", f"{about['parameters']:,}"))
    own = about.get("salakseg")
    if own and "normalisation" in own:
        rows += _own_rows(own)
    if about.get("other_metadata"):
        rows.append(("other keys", ", ".join(sorted(about["other_metadata"]))))
    if "files" in about:
        rows.append(("files", ", ".join(about["files"])))
    return rows


def _own_rows(own: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("normalisation", _normalisation(own["normalisation"]))]
    gsd = own.get("gsd_m")
    rows.append(("pixel", "ground sampling distance unknown" if gsd is None else f"{gsd:g} m on the ground"))
    if "tile" in own:
        rows.append(("tile", f"{own['tile']} pixels"))
    elif "size_multiple" in own:
        rows.append(("tile", f"any multiple of {own['size_multiple']} pixels, {own['default_tile']} as a rule"))
    if "network" in own:
        rows.append(("network", f"{own['network']['architecture']} with {own['network']['encoder']}"))
    rows += [
        (key.replace("_", " "), str(own[key]))
        for key in ("weights", "heads", "temperature", "outputs", "precision", "int8_weight_bits")
        if key in own
    ]
    if own.get("parity"):
        rows.append(("against torch", _parity(own["parity"])))
    if "training" in own:
        training = own["training"]
        told = f"recipe {training['recipe']}, iteration {training['iteration']:,}, {training['created']}"
        rows.append(("training", told))
    if own.get("validation"):
        rows += _validation(own["validation"])
    if "licence" in own:
        rows.append(("licence", str(own["licence"])))
    return rows


def _parity(parity: Mapping[str, Any]) -> str:
    told = f"{100 * parity['agreement']:.4f} % of the pixels agree"
    if parity["loss"] is None:
        return told
    before, after = parity["loss"]["miou_without_background"]
    return f"{told}, mIoU {after:.4f} for {before:.4f} on {parity['tiles']} val tiles"


def _validation(stored: Mapping[str, Any]) -> list[tuple[str, str]]:
    without, within = (stored[f"miou_{which}_background"] for which in ("without", "with"))
    return [
        ("validation", f"{stored['patches']:,} patches of the {stored['part']} part, {stored['of']}"),
        ("mIoU", f"{_figure(without['value'])} without background, {_figure(within['value'])} with it"),
    ]


def _normalisation(told: Mapping[str, Any]) -> str:
    inside = told.get("baked", told)
    numbers = "; ".join(f"{key} {', '.join(f'{value:g}' for value in inside[key])}" for key in ("mean", "std"))
    return f"colour / {inside.get('scale', 255):g}, {numbers}{' (in the graph)' if 'baked' in told else ''}"


def _port(one: Mapping[str, Any]) -> str:
    return f"{one['name']}: {one['dtype']} [{', '.join('any' if s is None else str(s) for s in one['shape'])}]"


def _iou(about: Mapping[str, Any], class_id: int) -> str:
    stored = about["salakseg"].get("validation")
    return f", IoU {_figure(stored['iou'][class_id])}" if stored else ""


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
