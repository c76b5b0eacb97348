"""What an exported model says about itself: the keys of the Deepness plugin for QGIS, and our own.

Every value in an ONNX file's metadata is text; all of ours is JSON.
"""

import json
from typing import TYPE_CHECKING

from salakseg.network.variant import Variant

if TYPE_CHECKING:  # its module imports torch, which a file that is already converted does not need
    from salakseg.network.checkpoint import Checkpoint

SOURCE_KEY = "salakseg.source_sha256"

TILE_OVERLAP_PERCENT = 25


def model_metadata(checkpoint: "Checkpoint", tile: int, variant: Variant, source_sha256: str) -> dict[str, str]:
    """Metadata of an exported checkpoint.

    Args:
        checkpoint: What is exported.
        tile: Side of the input in pixels.
        variant: Which weights and heads the file holds, at which temperature.
        source_sha256: Digest of the checkpoint file, by which a converted file is known to be up to date.

    Returns:
        JSON text by key. `resolution`, in centimetres a pixel, is left out where the ground sampling distance is
        unknown, because the plugin cannot read a null.
    """
    values: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {str(c.id): c.name for c in checkpoint.class_map.classes},
        "standardization_mean": list(checkpoint.mean),
        "standardization_std": list(checkpoint.std),
        # Deepness reads tile_size; its documentation says tiles_size
        "tile_size": tile,
        "tiles_size": tile,
        "tiles_overlap": TILE_OVERLAP_PERCENT,
        # Anything else sends unsure pixels to class 0, or blurs class ids
        "seg_thresh": 0,
        "seg_small_segment": 0,
        "salakseg.classes": checkpoint.classes,
        "salakseg.normalisation": {"scale": 255, "mean": list(checkpoint.mean), "std": list(checkpoint.std)},
        "salakseg.gsd_m": checkpoint.gsd_m,
        SOURCE_KEY: source_sha256,
        **{f"salakseg.{name}": value for name, value in variant.to_dict().items()},
        "salakseg.recipe": checkpoint.recipe_name,
        "salakseg.iteration": checkpoint.iteration,
        "salakseg.versions": checkpoint.versions,
    }
    if checkpoint.gsd_m is not None:
        values["resolution"] = round(100 * checkpoint.gsd_m, 6)
    return {key: json.dumps(value) for key, value in values.items()}
