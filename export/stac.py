"""An exported model as a STAC item with the Machine Learning Model extension (MLM 1.6).

Catalogues and tools that know https://github.com/stac-extensions/mlm find in it what the model takes, how its input is
scaled, and what its output means.
"""

import re
from typing import Any

from salakseg.export.onnx_file import OnnxFile, Port
from salakseg.network import metadata as keys

MLM = "https://stac-extensions.github.io/mlm/v1.6.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"

COLORS = ("red", "green", "blue")

_ANY = -1
"""How the extension writes a size that may differ from call to call."""


def stac_item(model: OnnxFile, name: str) -> dict[str, Any]:
    """The item.

    Its geometry is null: a model has a place in no catalogue's space, and where it was trained is not known.

    Args:
        model: A file that `salakseg export` wrote.
        name: What the model is called, such as "model"; becomes the item's id.

    Returns:
        Plain values that JSON can hold.
    """
    about = model.metadata
    created = about["salakseg.training"]["created"]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, FILE, CLASSIFICATION],
        "id": name,
        "geometry": None,
        "properties": {
            "title": name,
            "description": f"Land cover from drone imagery in {len(about[keys.CLASSES])} classes.",
            "datetime": created,
            **_licence(about["salakseg.licence"]),
            **_properties(model, name),
        },
        "links": [],
        "assets": {"model": _asset(model)},
    }


def _licence(text: str) -> dict[str, str]:
    """STAC takes an SPDX identifier or "other"; nothing at all where nobody has said."""
    if text == "unspecified":
        return {}
    return {"license": text if re.fullmatch(r"[A-Za-z0-9.+-]+", text) else "other"}


def _name(name: str) -> str:
    """The name in the letters that the extension allows."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return plain if re.fullmatch(r"[a-zA-Z].+[a-zA-Z0-9]", plain) else f"salakseg-{plain or 'model'}"


def _properties(model: OnnxFile, name: str) -> dict[str, Any]:
    about = model.metadata
    network, training = about["salakseg.network"], about["salakseg.training"]
    return {
        "mlm:name": _name(name),
        "mlm:architecture": f"{network['architecture']} with {network['encoder']}",
        "mlm:framework": "ONNX",
        "mlm:framework_version": about["salakseg.versions"]["exported"]["onnx"],
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:pretrained": network["encoder_weights"] != "none",
        "mlm:pretrained_source": None if network["encoder_weights"] == "none" else network["encoder_weights"],
        "mlm:hyperparameters": {
            "recipe": training["recipe"],
            "iteration": training["iteration"],
            "weights": about["salakseg.weights"],
            "heads": about["salakseg.heads"],
            "precision": about["salakseg.precision"],
            "opset": model.opset,
        },
        "mlm:input": [_input(model)],
        "mlm:output": [_output(port, about[keys.CLASSES]) for port in model.outputs],
        # Bands that an input names must be told here, or by an extension; the asset has them as well
        "bands": _bands(),
        "file:size": model.bytes,
    } | ({} if about[keys.GSD] is None else {"gsd": about[keys.GSD]})


def _input(model: OnnxFile) -> dict[str, Any]:
    """Scaling is told for colours from 0 to 255, band by band, as the extension has it."""
    (port,) = model.inputs
    normalisation = model.metadata[keys.NORMALISATION]
    scale = normalisation["scale"]
    scaling = [
        {"type": "z-score", "mean": round(scale * mean, 6), "stddev": round(scale * std, 6)}
        for mean, std in zip(normalisation["mean"], normalisation["std"], strict=True)
    ]
    return {
        "name": port.name,
        "bands": list(COLORS),
        "input": {
            "shape": _sizes(port),
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": port.dtype,
        },
        "value_scaling": None if "baked" in normalisation else scaling,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(port: Port, classes: list[dict[str, Any]]) -> dict[str, Any]:
    order = ["batch", "class", "height", "width"]
    if len(port.shape) == 3:  # class ids or confidence without an axis of classes
        order.remove("class")
    told = [] if port.name == "confidence" else classes  # its values are no classes
    return {
        "name": port.name,
        "tasks": ["semantic-segmentation"],
        "result": {"shape": _sizes(port), "dim_order": order, "data_type": port.dtype},
        "classification:classes": [
            {
                "value": one["id"],
                "name": name,
                "description": one["name"],
                "color_hint": "".join(f"{part:02X}" for part in one["color"]),
            }
            for one, name in zip(told, _class_names(told), strict=True)
        ],
        "post_processing_function": None,
    }


def _class_names(classes: list[dict[str, Any]]) -> list[str]:
    """The classes' names in letters, digits, - and _, as the extension has them; with their ids where two are alike."""
    slugs = [re.sub(r"[^A-Za-z0-9_-]+", "-", one["name"]).strip("-") for one in classes]
    if all(slugs) and len({slug.lower() for slug in slugs}) == len(slugs):
        return slugs
    return [f"{slug or 'class'}-{one['id']}" for slug, one in zip(slugs, classes, strict=True)]


def _bands() -> list[dict[str, str]]:
    return [{"name": color} for color in COLORS]


def _asset(model: OnnxFile) -> dict[str, Any]:
    return {
        "href": f"./{model.path.name}",
        "title": "The model, with its instructions inside",
        "type": "application/octet-stream; framework=onnx; profile=onnx",
        "roles": ["mlm:model", "mlm:weights", "data"],
        "mlm:artifact_type": "onnx",
        "bands": _bands(),
        "file:size": model.bytes,
    }


def _sizes(port: Port) -> list[int]:
    return [_ANY if size is None else size for size in port.shape]
