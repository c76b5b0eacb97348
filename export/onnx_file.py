"""What can be read off an ONNX file without running it: inputs, outputs, size, and what it says of itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from salakseg.errors import ExportError
from salakseg.shell import as_argument

Shape = tuple[int | None, ...]
"""Sizes of a tensor; None for one that may differ from call to call."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output.

    Attributes:
        name: Its name in the graph.
        dtype: Such as "float32".
        shape: Sizes along its axes.
    """

    name: str
    dtype: str
    shape: Shape

    @property
    def text(self) -> str:
        """The port for people."""
        return f"{self.name}: {self.dtype} [{', '.join('any' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file.

    Attributes:
        path: Where it lies.
        bytes: Its size.
        opset: Version of the operators.
        ir_version: Version of the file format.
        nodes: Number of operations.
        inputs: What it takes.
        outputs: What it gives.
        metadata: Decoded values by key; text that is no JSON stays as it is.
    """

    path: Path
    bytes: int
    opset: int
    ir_version: int
    nodes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, Any]


def read_onnx(path: Path) -> OnnxFile:
    """Reads the description of a model file.

    Raises:
        ExportError: It is missing or no ONNX model.
    """
    if not path.is_file():
        remedy = f"salakseg export ckpt.pt --out {as_argument(path.name)}"
        raise ExportError(f"{path} does not exist; make it with `{remedy}`.")
    try:
        model = onnx.load(path, load_external_data=False)
    # protobuf has errors of its own
    except Exception as error:
        raise ExportError(f"{path} is no ONNX model, or it is damaged; export or copy it again.") from error
    if not model.graph.output or not model.opset_import:
        raise ExportError(f"{path} is no ONNX model, or it is damaged; export or copy it again.")
    weights = {tensor.name for tensor in model.graph.initializer}
    return OnnxFile(
        path=path,
        bytes=path.stat().st_size,
        opset=next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        nodes=len(model.graph.node),
        inputs=tuple(_port(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_port(value) for value in model.graph.output),
        metadata={entry.key: _decoded(entry.value) for entry in model.metadata_props},
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "unknown"
    return Port(value.name, dtype, shape)


def _decoded(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return text
