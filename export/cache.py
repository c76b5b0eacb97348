"""A checkpoint as ONNX for this machine's own use: converted once, kept beside it, made anew when it changes.

torch is imported only when there is something to convert.
"""

import json
import os
from pathlib import Path

from salakseg.network.digest import sha256_of
from salakseg.network.metadata import SOURCE
from salakseg.network.variant import Weights


def cached_onnx(
    checkpoint: Path, tile: int | None = None, weights: Weights | None = None, heads: str | None = None
) -> tuple[Path, bool]:
    """The ONNX file of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        tile: Side of the input in pixels; None for the one that suits the network.
        weights: "ema" or "student"; None for what the checkpoint prefers.
        heads: See `combine_heads`; None for what the checkpoint prefers.

    Returns:
        The file, such as ``best.pt.cache.onnx`` or ``best.pt.512.cache.onnx``, beside the checkpoint (or in the user's
        cache folder, under a name of its own, where the checkpoint's folder cannot be written), and whether it was made
        just now.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        EngineError: The network has no such head.
        ExportError: The file cannot be written, or file and network disagree.
    """
    source = sha256_of(checkpoint)
    asked = "".join(f".{part}" for part in (tile, weights, heads) if part is not None)
    path = checkpoint.with_name(f"{checkpoint.name}{asked}.cache.onnx")
    if not os.access(checkpoint.parent, os.W_OK):
        folder = Path.home() / ".cache" / "salakseg"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{source[:16]}{asked}.cache.onnx"
    if path.is_file() and _source_of(path) == source:
        return path, False
    from salakseg.export.onnx import export_onnx
    from salakseg.export.settings import ExportSettings
    from salakseg.network.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    settings = ExportSettings(variant=loaded.choose(weights, heads), size=tile or loaded.default_tile)
    return export_onnx(checkpoint, path, settings, overwrite=True, quick=True).path, True


def _source_of(path: Path) -> str | None:
    """The digest that a converted file names; None for a file that cannot be read and is made anew."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        return next((str(json.loads(p.value)) for p in model.metadata_props if p.key == SOURCE), None)
    # a damaged file fails in protobuf, which has errors of its own
    except Exception:
        return None
