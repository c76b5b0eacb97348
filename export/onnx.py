"""From a checkpoint to one ONNX file that carries its own instructions."""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salakseg.data.masks import read_image
from salakseg.data.patches import index_patches
from salakseg.errors import DataError, ExportError
from salakseg.export.metadata import model_metadata
from salakseg.export.parity import Parity, compare
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.digest import sha256_of
from salakseg.network.heads import combine_heads
from salakseg.network.model import Segmenter
from salakseg.network.variant import Variant, Weights

OPSET = 18
IR_VERSION = 9
"""ONNX Runtime 1.17, which the Deepness plugin pins, refuses newer files."""

REAL_TILES = 3
RANDOM_TILES = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and found right.

    Attributes:
        path: Where it lies.
        parity: Agreement with torch.
        real_tiles: How many of the compared tiles were real imagery.
        size_mb: Size of the file in megabytes.
    """

    path: Path
    parity: Parity
    real_tiles: int
    size_mb: float


class _Probabilities(nn.Module):
    """Normalised images in, class probabilities of the heads together out."""

    def __init__(self, network: Segmenter, variant: Variant) -> None:
        super().__init__()
        self.network = network
        self.variant = variant

    def forward(self, image: Tensor) -> Tensor:
        return combine_heads(self.network(image), self.variant.heads, self.variant.temperature)


def export_onnx(
    checkpoint_path: Path,
    out: Path,
    *,
    tile: int | None = 512,
    weights: Weights | None = None,
    heads: str | None = None,
    data_root: Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a checkpoint as ONNX and compares the file with torch.

    Opset 18, IR version 9, one file, dynamic batch, static square tiles; the heads are combined and go through the
    softmax inside. Normalisation is told in the metadata, not baked in.

    Args:
        checkpoint_path: The checkpoint.
        out: The file to write; it appears only after the comparison.
        tile: Side of the input in pixels, a multiple of the network's stride; None for the one that suits the network.
        weights: "ema" or "student"; None for what the checkpoint prefers.
        heads: See `combine_heads`; None for what the checkpoint prefers.
        data_root: Where real patches for the comparison are; None looks where they were at training time.
        overwrite: Whether `out` may exist.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        EngineError: The network has no such head.
        ExportError: The file exists, the size does not fit, the disk is full, or file and network disagree.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    variant = checkpoint.choose(weights, heads)
    network = checkpoint.build(variant.weights)
    tile = tile or checkpoint.default_tile
    _check_request(out, tile, network.size_multiple, overwrite)
    model = _Probabilities(network, variant).eval()
    temporary = out.with_name(f".{out.stem}.partial.onnx")
    try:
        _write(model, temporary, tile, model_metadata(checkpoint, tile, variant, sha256_of(checkpoint_path)))
        real = _real_tiles(checkpoint, data_root, tile)
        tiles = [*real, *_random_tiles(tile)]
        parity = compare(model, temporary, tiles, checkpoint.mean, checkpoint.std, votes=variant.votes)
        if not parity.holds:
            raise ExportError(
                f"{out} was not written: it agrees with torch on {100 * parity.agreement:.3f} % of the pixels only "
                f"(largest difference {parity.max_difference:.2g}); please report this with the checkpoint's recipe."
            )
        os.replace(temporary, out)
    except OSError as error:
        raise ExportError(f"{out} could not be written ({error}); is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(out, parity, len(real), out.stat().st_size / 1e6)


def _check_request(out: Path, tile: int, multiple: int, overwrite: bool) -> None:
    if tile < multiple or tile % multiple:
        raise ExportError(f"--size {tile} does not fit this network; take a multiple of {multiple}.")
    if out.exists() and not overwrite:
        raise ExportError(f"{out} exists; add --overwrite to replace it.")
    if not out.parent.is_dir():
        raise ExportError(f"The folder of {out} does not exist; make it first.")


def _write(model: nn.Module, path: Path, tile: int, metadata: dict[str, str]) -> None:
    # A batch of two: the exporter takes a dimension of one for a constant
    example = torch.zeros(2, 3, tile, tile)
    with _quiet_exporter():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
        )
    if program is None:
        raise ExportError("torch's ONNX exporter returned nothing; is the installed torch too old?")
    proto = program.model_proto
    proto.ir_version = IR_VERSION
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _real_tiles(checkpoint: Checkpoint, data_root: Path | None, tile: int) -> list[NDArray[np.uint8]]:
    """Patches of the run, laid side by side until a tile is full; none where the data is not at hand."""
    root = data_root or Path(checkpoint.data_root)
    if data_root is None and not root.is_dir():
        return []
    try:
        index = index_patches(root)
        chosen = index.patches[:: max(1, len(index.patches) // REAL_TILES)][:REAL_TILES]
        return [_fill_tile(read_image(index.image_path(patch)), tile) for patch in chosen]
    except DataError:
        if data_root is not None:
            raise
        return []


def _fill_tile(image_HWC: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
    repeats = [-(-tile // side) for side in image_HWC.shape[:2]]
    filled = np.tile(image_HWC, (*repeats, 1))[:tile, :tile]
    return np.ascontiguousarray(filled.transpose(2, 0, 1))


def _random_tiles(tile: int) -> Sequence[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (RANDOM_TILES, 3, tile, tile), dtype=np.uint8))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports its passes on stdout and warns of its own deprecations; a user can act on none of it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
