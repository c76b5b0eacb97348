"""Smaller and faster forms of a graph: half precision, and 8-bit integers.

Axes: B image, C channel, H row, W column.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from salakseg.errors import ExportError
from salakseg.export.fold import before_first_convolution, from_last_convolutions, skip_round_trips, sort_nodes
from salakseg.export.graph import INPUT

KEPT_IN_FLOAT32 = (
    "Softmax",
    "ReduceMax",
    "ReduceSum",
    "LayerNormalization",
    "InstanceNormalization",
    "ReduceMean",
    "ReduceL2",
    "GlobalAveragePool",
    "Erf",
    "Exp",
    "Pow",
    "Sqrt",
    "Resize",
)
"""Operators whose sums or steep curves lose too much at 11 bits of mantissa; none of them holds many weights."""

QUANTISED = ("Conv", "MatMul", "Gemm", "Relu", "Clip", "Add", "Mul", "Concat", "MaxPool", "GlobalAveragePool")
"""Operators that ONNX Runtime computes in integers; what is left out, such as attention's softmax, stays float32."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with weights and most operators in float16; input and outputs stay as they are.

    So do the last convolution, what follows it, and a normalisation that is part of the graph.

    Raises:
        ExportError: ONNX Runtime's converter cannot do it.
    """
    from onnxruntime.transformers import float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values too small for it, which become 6e-8
            half = float16.convert_float_to_float16(
                copy,
                keep_io_types=True,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT32],
                node_block_list=_decisive(model.graph),
            )
    # the converter has no errors of its own
    except Exception as error:
        raise ExportError(f"This network cannot be written in float16 ({error}); take --precision fp32.") from error
    del half.graph.value_info[:]
    sort_nodes(half.graph)  # the converter puts its casts at the end, one for each reader
    skip_round_trips(half.graph)
    checked: onnx.ModelProto = half
    return checked


def to_int8(model: onnx.ModelProto, images_BCHW: Sequence[NDArray[np.float32]], weight_bits: int) -> onnx.ModelProto:
    """A copy in 8-bit integers: weights per channel, activations by the range they take on the given images.

    Static quantisation with pairs of QuantizeLinear and DequantizeLinear (QDQ), weights int8, activations uint8. The
    last convolution, whose logits decide between classes, what follows it, and a normalisation that is part of the
    graph stay in float32.

    Args:
        model: In float32.
        images_BCHW: Inputs as the file takes them, float32, in which the ranges are looked for.
        weight_bits: 8, or 7 for processors whose sums would overflow: see `int8_weight_bits`.

    Raises:
        ExportError: ONNX Runtime's quantisation cannot do it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(prefix="salakseg-") as folder, _quiet_logging():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), source)
        try:
            quantize_static(
                source,
                target,
                _Images(images_BCHW),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                reduce_range=weight_bits < 8,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_decisive(model.graph),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"QuantizeBias": True},
            )
        # the quantiser has no errors of its own
        except Exception as error:
            raise ExportError(f"This network cannot be quantised ({error}); take --precision fp32.") from error
        quantised = onnx.load(target)
    quantised.ir_version = model.ir_version
    del quantised.graph.value_info[:]
    return quantised


class _Images:
    """Feeds images to the calibration one by one, as ONNX Runtime asks for them."""

    def __init__(self, images_BCHW: Sequence[NDArray[np.float32]]) -> None:
        self._images = images_BCHW
        self._next = iter(images_BCHW)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._next, None)
        return None if image is None else {INPUT: image}

    def rewind(self) -> None:
        self._next = iter(self._images)

    def __iter__(self) -> "_Images":
        return self

    def __next__(self) -> dict[str, NDArray[np.float32]]:
        feed = self.get_next()
        if feed is None:
            raise StopIteration
        return feed


def _decisive(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that stay in float32: where inputs reach 255, and where little differences decide."""
    return [*before_first_convolution(graph), *from_last_convolutions(graph)]


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """The quantiser logs advice on the root logger that a user cannot follow."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
