"""A network as an ONNX graph: built for one purpose, cleaned and folded.

Axes: B image, N head, K class, C channel, H row, W column.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from salakseg.errors import ExportError, first_line
from salakseg.export.fold import fold_batch_norm, remove_unused, spread_softmax, strip_notes
from salakseg.export.settings import ExportSettings, Outputs
from salakseg.network.heads import Logits, combine_heads
from salakseg.network.model import Segmenter

OPSET = 18
IR_VERSION = 9
"""ONNX Runtime 1.17, which the Deepness plugin pins, refuses newer files."""

INPUT = "image"

OUTPUT_NAMES: dict[Outputs, list[str]] = {
    "prob": ["probabilities"],
    "prob+confidence": ["probabilities", "confidence"],
    "argmax": ["classes"],
}
"""Names of a file's outputs: float32 [B, K, H, W], float32 [B, H, W], uint8 [B, H, W]."""

_EXAMPLE = (5, 6)  # rows and columns of the example for sizes that differ, in multiples: no two axes are alike


class Deployed(nn.Module):
    """A segmenter as it is used: images in, combined probabilities out, nothing computed that is not asked for.

    The mean of the heads' logits commutes with the upsampling, so it is taken before it: the logits of one head are
    upsampled instead of those of all. Heads that end in a plain 1x1 convolution even become one convolution.

    Args:
        network: The network in evaluation mode; left as it is.
        settings: Of the export.
        mean: Mean of red, green and blue on a scale of 0 to 1, for settings that bake the normalisation in.
        std: Standard deviation of the same.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: Segmenter, settings: ExportSettings, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.heads = _heads_in_use(network, settings.variant.heads)
        self.variant, self.outputs = settings.variant, settings.outputs
        self.baked = settings.normalisation == "baked"
        deviation = torch.tensor(std, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * deviation)).float())
        self.register_buffer("shift", (-torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1) / deviation).float())

    def forward(self, image_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The outputs that the settings ask for.

        Args:
            image_BCHW: float32 [B, 3, H, W], H and W multiples of the network's stride: normalised, or 0 to 255 where
                the normalisation is baked in.

        Returns:
            See `OUTPUT_NAMES`.
        """
        if self.baked:
            image_BCHW = image_BCHW * self.scale + self.shift
        features = self.decoder(self.encoder(image_BCHW))
        coarse = torch.cat([head(features) for head in self.heads], dim=1)
        fine = functional.interpolate(coarse, size=image_BCHW.shape[-2:], mode="bilinear", align_corners=False)
        heads_BNKHW = fine.unflatten(1, (len(self.heads), -1))
        way = self.variant.heads if self.variant.votes or self.variant.heads == "prob" else "mean"
        mean_BKHW = fine if len(self.heads) == 1 else heads_BNKHW.mean(dim=1)
        prob_BKHW = combine_heads(Logits(heads_BNKHW, mean_BKHW), way, self.variant.temperature)
        if self.outputs == "argmax":
            return prob_BKHW.argmax(dim=1).to(torch.uint8)
        return prob_BKHW if self.outputs == "prob" else (prob_BKHW, prob_BKHW.amax(dim=1))


class _MeanOfHeads(nn.Module):
    """The mean of the logits of several heads, [B, K, H, W]."""

    def __init__(self, heads: nn.ModuleList) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = sum(head(features) for head in self.heads)
        return logits / len(self.heads)


def build_graph(model: Deployed, settings: ExportSettings, size_multiple: int) -> onnx.ModelProto:
    """Exports a network: opset 18, IR version 9, dynamic batch, batch norms folded into convolutions.

    Args:
        model: The network in evaluation mode.
        settings: Size and outputs.
        size_multiple: What height and width must be multiples of.

    Raises:
        ExportError: torch's exporter cannot do it.
    """
    dimensions: dict[int, object] = {0: torch.export.Dim("batch", min=1)}
    if settings.size is None:
        dimensions[2] = size_multiple * torch.export.Dim("rows", min=1)
        dimensions[3] = size_multiple * torch.export.Dim("columns", min=1)
    height, width = (settings.size or times * size_multiple for times in _EXAMPLE)
    try:
        with _quiet_exporter(), _nothing_in_place(model):
            program = torch.onnx.export(
                model,
                # A batch of two: the exporter takes a dimension of one for a constant
                (torch.zeros(2, 3, height, width),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=OUTPUT_NAMES[settings.outputs],
                dynamic_shapes={"image_BCHW": dimensions},
            )
    # its passes raise errors of many kinds
    except Exception as error:
        raise ExportError(
            f"torch's ONNX exporter cannot convert this network ({first_line(error)}); try a static --size or another "
            "encoder."
        ) from error
    if program is None:
        raise ExportError("torch's ONNX exporter returned nothing; update torch.")
    return _cleaned(program.model_proto)


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    model.ir_version = IR_VERSION
    fold_batch_norm(model.graph)
    spread_softmax(model.graph, _ranks(model))
    remove_unused(model.graph)
    strip_notes(model)
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in zip((len(axes) - 2, len(axes) - 1), ("height", "width"), strict=True):
            if axes[axis].HasField("dim_param"):
                axes[axis].dim_param = name  # for "16*rows"
    onnx.checker.check_model(model)
    return model


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of axes of each value, as far as it can be told."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = [value for value in (*graph.value_info, *graph.output) if value.type.tensor_type.HasField("shape")]
    return {value.name: len(value.type.tensor_type.shape.dim) for value in known}


def _heads_in_use(network: Segmenter, way: str) -> nn.ModuleList:
    heads = list(network.heads)
    if way.isdecimal():
        return nn.ModuleList([heads[int(way) - 1]])
    if way != "mean" or len(heads) == 1:
        return nn.ModuleList(heads)
    last = [head[-1] for head in heads if isinstance(head, nn.Sequential) and len(head) == 2]
    if len(last) < len(heads) or not isinstance(last[0], nn.Conv2d):
        return nn.ModuleList([_MeanOfHeads(nn.ModuleList(heads))])
    merged, convolutions = deepcopy(last[0]), cast(list[nn.Conv2d], last)
    with torch.no_grad():
        merged.weight.copy_(torch.stack([head.weight for head in convolutions]).mean(dim=0))
        if merged.bias is not None:
            merged.bias.copy_(torch.stack([cast(Tensor, head.bias) for head in convolutions]).mean(dim=0))
    return nn.ModuleList([merged])


@contextmanager
def _nothing_in_place(model: nn.Module) -> Iterator[None]:
    """Activations give new tensors; for those that write into their inputs the exporter takes half as long again."""
    writing: list[Any] = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in writing:
        module.inplace = False
    try:
        yield
    finally:
        for module in writing:
            module.inplace = True


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
