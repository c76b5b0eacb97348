"""What a file is made from: a checkpoint, its network, and the data it was trained on."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from salakseg.errors import ExportError
from salakseg.export.graph import Deployed, build_graph
from salakseg.export.metadata import model_metadata
from salakseg.export.parity import Channels, FileRunner, file_input
from salakseg.export.precision import to_half, to_int8
from salakseg.export.settings import LARGEST_SIZE, ExportSettings, Precision
from salakseg.export.tiles import FEW_TILES, RunData, Sides, Tile, open_run_data, random_tiles
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.digest import sha256_of
from salakseg.network.metadata import INT8_BITS
from salakseg.network.model import Segmenter
from salakseg.network.processor import int8_weight_bits
from salakseg.network.variant import check_heads

PIXELS = 24 * 512 * 512
"""Labelled pixels that files are compared on, and as many again to calibrate int8: half a minute for ResNet-50."""

RANDOM_TILES = 2


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that files of one checkpoint are made from and judged by.

    Attributes:
        checkpoint: The checkpoint.
        network: With the weights that the settings name, in evaluation mode on the CPU.
        settings: Of the export.
        data: What it was trained on; None where that is not at hand.
        sha256: Digest of the checkpoint's file.
    """

    checkpoint: Checkpoint
    network: Segmenter
    settings: ExportSettings
    data: RunData | None
    sha256: str

    @property
    def sides(self) -> Sides:
        """Height and width of the tiles that files are tried on, pixels."""
        multiple = self.network.size_multiple
        side = self.settings.size or -(-self.checkpoint.default_tile // multiple) * multiple
        return side, side

    @property
    def channels(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation of red, green and blue on a scale of 0 to 1."""
        return self.checkpoint.mean, self.checkpoint.std

    def graph(self) -> onnx.ModelProto:
        """The network in float32, cleaned and folded, without metadata.

        Raises:
            ExportError: torch's exporter cannot do it.
        """
        model = Deployed(self.network, self.settings, *self.channels).eval()
        return build_graph(model, self.settings, self.network.size_multiple)

    def write(self, graph: onnx.ModelProto, precision: Precision, path: Path) -> FileRunner:
        """Writes a graph in a precision, with its metadata, and opens it.

        Raises:
            ExportError: It cannot be converted, or int8 has nothing to be calibrated on.
            EngineError: ONNX Runtime cannot load it.
        """
        model = self._in_precision(graph, precision)
        onnx.helper.set_model_props(model, self.metadata(precision))
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return FileRunner(path, self.settings, *self.channels)

    def metadata(self, precision: Precision) -> dict[str, str]:
        """The metadata of a file in a precision."""
        settings = replace(self.settings, precision=precision)
        texts = model_metadata(self.checkpoint, settings, self.sha256, self.network.size_multiple)
        return texts | ({INT8_BITS: json.dumps(int8_weight_bits())} if precision == "int8" else {})

    def tiles(self, quick: bool) -> tuple[list[Tile], bool]:
        """What files are compared on: labelled tiles of the validation part, or a few others, or noise.

        Args:
            quick: Whether a few tiles are enough, labels or not.

        Returns:
            The tiles, and whether they are real imagery.
        """
        tiles: list[Tile] = []
        if self.data is not None and not quick:
            tiles = self.data.labelled_tiles(self.sides, _count(self.sides))
        if self.data is not None and not tiles:
            tiles = self.data.plain_tiles(self.sides, FEW_TILES)
        real = bool(tiles)
        tiles = tiles or random_tiles(self.sides, RANDOM_TILES)
        if self.settings.size is None:  # another size, and another one downwards than across
            multiple, first = self.network.size_multiple, tiles[0]
            part = slice(self.sides[0] - multiple), slice(self.sides[1] - 2 * multiple)
            tiles.append(Tile(first.image_CHW[:, *part], first.label_HW[part]))
        return tiles, real

    def _in_precision(self, graph: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
        if precision == "fp16":
            return to_half(graph)
        if precision == "int8":
            if self.data is None:
                raise ExportError(no_data("is calibrated on patches that the network was trained on"))
            tiles = self.data.training_tiles(self.sides, _count(self.sides))
            images = [file_input(np.stack([tile.image_CHW]), self.settings, *self.channels) for tile in tiles]
            return to_int8(graph, images, int8_weight_bits())
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        return copy


def open_source(checkpoint_path: Path, settings: ExportSettings, data_root: Path | None) -> Source:
    """Opens a checkpoint for export.

    Args:
        checkpoint_path: The checkpoint.
        settings: Of the export.
        data_root: Where the run's patches are; None looks where they were at training time.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: There are no patches at `data_root`.
        EngineError: The network has no such head.
        ExportError: The size does not fit the network.
    """
    digest = sha256_of(checkpoint_path)  # before the weights: a file that is replaced meanwhile is converted once more
    checkpoint = load_checkpoint(checkpoint_path)
    check_heads(settings.variant.heads, len(checkpoint.network.head_dropout))
    network = checkpoint.build(settings.variant.weights)
    size, multiple = settings.size, network.size_multiple
    if size is not None and (size < multiple or size % multiple or size > LARGEST_SIZE):
        raise ExportError(
            f"--size {size} does not fit the network of {checkpoint_path}; take a multiple of {multiple}, at most "
            f"{LARGEST_SIZE}."
        )
    return Source(checkpoint, network, settings, open_run_data(checkpoint, data_root), digest)


def no_data(why: str) -> str:
    """The sentence for int8 without what it needs."""
    return f"int8 {why}, and they are not at hand; name the run's patches with --data-root, or take --precision fp32."


def _count(sides: Sides) -> int:
    return max(4, PIXELS // (sides[0] * sides[1]))
