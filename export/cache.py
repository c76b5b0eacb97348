"""A checkpoint as ONNX for this machine's own use: converted once, kept beside it, made anew when it changes.

torch is imported only when there is something to convert.
"""

from pathlib import Path

from salakseg.errors import ExportError
from salakseg.network.bundle import WEIGHTS
from salakseg.network.digest import sha256_of
from salakseg.network.metadata import SOURCE, VERSIONS
from salakseg.network.variant import WAYS, Weights, check_heads
from salakseg.replacing import may_write


def cached_onnx(
    checkpoint: Path, tile: int | None = None, weights: Weights | None = None, heads: str | None = None
) -> tuple[Path, bool]:
    """The ONNX file of a checkpoint.

    Args:
        checkpoint: The checkpoint, or a bundle's folder.
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
    from salakseg.network.checkpoint import load_checkpoint

    if heads is not None and heads not in WAYS and not heads.isdecimal():
        check_heads(heads, len(load_checkpoint(checkpoint, lazily=True).network.head_dropout))  # before it names a file
    source = sha256_of(checkpoint)
    asked = "".join(f".{part}" for part in (tile, weights, heads) if part is not None)
    checkpoint = checkpoint.resolve()  # a bundle may be named "."
    if checkpoint.is_dir():  # of one checkpoint there are full bundles and lean ones
        asked = f".{sha256_of(checkpoint / WEIGHTS)[:8]}{asked}"
    path = checkpoint.with_name(f"{checkpoint.name}{asked}.cache.onnx")
    if not may_write(checkpoint.parent):
        path = _users_cache(checkpoint) / f"{source[:16]}{asked}.cache.onnx"
    if path.is_file() and _is_current(path, source):
        return path, False
    from salakseg.export.onnx import export_onnx
    from salakseg.export.settings import ExportSettings

    loaded = load_checkpoint(checkpoint)
    settings = ExportSettings(variant=loaded.choose(weights, heads), size=tile or loaded.default_tile)
    try:
        return export_onnx(checkpoint, path, settings, overwrite=True, quick=True).path, True
    except ExportError as error:
        raise ExportError(
            f"{checkpoint} is converted for ONNX Runtime first, which failed: {error} Convert it by `salakseg export`, "
            "which has the options that this names, and take its file by --model."
        ) from error


def _users_cache(checkpoint: Path) -> Path:
    folder = Path.home() / ".cache" / "salakseg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{checkpoint} is converted for ONNX Runtime first, but neither {checkpoint.parent} nor {folder} can be "
            "written to; export it with `salakseg export` and name that file."
        ) from error
    return folder


def _is_current(path: Path, source: str) -> bool:
    """Whether a converted file is of this checkpoint, by this version; one that cannot be read is made anew."""
    from salakseg.export.metadata import exporter_versions
    from salakseg.export.onnx_file import read_onnx

    try:
        told = read_onnx(path).metadata
        return bool(
            told[SOURCE] == source and told[VERSIONS]["exported"]["salakseg"] == exporter_versions()["salakseg"]
        )
    except (ExportError, KeyError, TypeError):
        return False
