"""What an exported model says about itself: the keys of the Deepness plugin for QGIS, and our own.

Every value in an ONNX file's metadata is text; all of ours is JSON. `salakseg.network.metadata` reads it back.

The plugin divides colours by 255, takes mean and standard deviation from the metadata, cuts the raster into tiles of
the file's own size and takes the class with the highest probability. Only a file that fits this carries its keys:
static size, normalisation in the metadata, probabilities as the one output. All others carry our keys alone, so that
the plugin does not open them with settings that are quietly wrong.
"""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import list_or_none
from salakseg.evaluate.metrics import compute_metrics
from salakseg.export.settings import ExportSettings
from salakseg.network import metadata as keys
from salakseg.network.variant import Variant

if TYPE_CHECKING:  # its module imports torch, which a file that is already converted does not need
    from salakseg.network.checkpoint import Checkpoint

OVERLAP = 3 / 16
"""Share of a tile that neighbouring tiles have in common: the default of `salakseg predict`."""

TILE_OVERLAP_PERCENT = 19
"""The same for Deepness, which takes whole percent: the nearest to 18.75, 97 pixels of a 512-pixel tile, not 96."""


def model_metadata(
    checkpoint: "Checkpoint", settings: ExportSettings, source_sha256: str, size_multiple: int
) -> dict[str, str]:
    """Metadata of an exported checkpoint.

    Args:
        checkpoint: What is exported.
        settings: How.
        source_sha256: Digest of the checkpoint file, by which a converted file is known to be up to date.
        size_multiple: What height and width of a dynamic file must be multiples of, pixels.

    Returns:
        JSON text by key.
    """
    values = own_values(checkpoint, settings, source_sha256, size_multiple)
    if fits_deepness(settings):
        values = deepness_values(checkpoint, settings) | values
    return {key: json.dumps(value) for key, value in values.items()}


def fits_deepness(settings: ExportSettings) -> bool:
    """Whether the plugin can use a file that is exported so."""
    return settings.size is not None and settings.normalisation == "metadata" and settings.outputs == "prob"


def deepness_values(checkpoint: "Checkpoint", settings: ExportSettings) -> dict[str, Any]:
    """The keys of the Deepness plugin.

    `resolution`, in centimetres a pixel, is left out where the ground sampling distance is unknown, because the plugin
    cannot read a null.
    """
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(c.id): c.name for c in checkpoint.class_map.classes},
        "standardization_mean": list(checkpoint.mean),
        "standardization_std": list(checkpoint.std),
        # Deepness reads tile_size; its documentation says tiles_size
        "tile_size": settings.size,
        "tiles_size": settings.size,
        "tiles_overlap": TILE_OVERLAP_PERCENT,
        # Anything else sends unsure pixels to class 0, or blurs class ids
        "seg_thresh": 0,
        "seg_small_segment": 0,
    }
    if checkpoint.gsd_m is not None:
        values["resolution"] = round(100 * checkpoint.gsd_m, 6)
    return values


def own_values(
    checkpoint: "Checkpoint", settings: ExportSettings, source_sha256: str, size_multiple: int
) -> dict[str, Any]:
    """Our own keys: how the model is used, where it comes from and how good it was in validation.

    ``salakseg.normalisation`` holds for every file: input = (8-bit colour / scale - mean) / std. For a baked one that
    changes nothing, and ``baked`` says what the graph does instead.
    """
    told = {"scale": 255, "mean": list(checkpoint.mean), "std": list(checkpoint.std)}
    nothing = {"scale": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
    values: dict[str, Any] = {
        keys.CLASSES: checkpoint.classes,
        keys.NORMALISATION: told if settings.normalisation == "metadata" else nothing | {"baked": told},
        keys.GSD: checkpoint.gsd_m,
        keys.SIZE_MULTIPLE: size_multiple,
        keys.OUTPUTS: settings.outputs,
        keys.SOURCE: source_sha256,
        "salakseg.overlap": OVERLAP,
        "salakseg.precision": settings.precision,
        **{f"salakseg.{name}": value for name, value in settings.variant.to_dict().items()},
        "salakseg.network": checkpoint.network.published(),
        "salakseg.training": {
            "recipe": checkpoint.recipe_name,
            "iteration": checkpoint.iteration,
            "created": checkpoint.created,
        },
        "salakseg.validation": validation_of(checkpoint),
        keys.VERSIONS: {"trained": checkpoint.versions, "exported": exporter_versions()},
        "salakseg.licence": settings.licence,
    }
    if settings.size is not None:
        values[keys.TILE] = settings.size
    else:
        values[keys.DEFAULT_TILE] = -(-checkpoint.default_tile // size_multiple) * size_multiple
    return values


def validation_of(checkpoint: "Checkpoint") -> dict[str, Any] | None:
    """The validation that the checkpoint stores, as plain values; None if it has none.

    Training validates the moving average's mean of logits, whatever variant is exported: ``of`` says so.
    """
    stored = checkpoint.evaluation
    if not stored:
        return None
    metrics = compute_metrics(ConfusionMatrix.from_counts(stored["matrix"]))
    return {
        "of": Variant().text,
        "part": stored["part"],
        "patches": stored["patches"],
        "miou_without_background": metrics.miou_without_background.to_dict(),
        "miou_with_background": metrics.miou_with_background.to_dict(),
        "iou": list_or_none(metrics.iou),
    }


def exporter_versions() -> dict[str, str]:
    """Versions of the packages that decide about an exported file."""
    found = {}
    for name in ("salakseg", "torch", "onnx", "onnxscript"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            found[name] = "not installed"
    return found
