"""Passes over an ONNX graph that torch's exporter leaves to others."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float32]


def fold_batch_norm(graph: onnx.GraphProto) -> None:
    """Writes each batch norm into the convolution before it, or as one product and one sum where there is none.

    With mean m, variance v, gain g and offset b a batch norm computes s (x - m) + b, s = g / sqrt(v + epsilon); after a
    convolution with weights w and bias c that is a convolution with weights s w and bias s (c - m) + b.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    users = _users(graph)
    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "BatchNormalization":
            continue
        scale, offset = _line_of(node, constants)
        before = maker.get(node.input[0])
        # who asks for the shape only may as well ask the batch norm's output
        others = [user for user in users[node.input[0]] if user is not node and user.op_type != "Shape"]
        foldable = before is not None and before.op_type == "Conv" and before.input[1] in constants
        if before is not None and foldable and not others and len(users[before.input[1]]) == 1:
            _into_convolution(graph, before, node, scale, offset, constants)
            graph.node.remove(node)
        else:
            _as_line(graph, position, node, scale, offset)


def spread_softmax(graph: onnx.GraphProto, ranks: Mapping[str, int]) -> None:
    """Writes each softmax over the classes of a picture as what it is made of: exp(x - max x) / sum exp(x - max x).

    ONNX Runtime turns pictures so that the classes come last, takes the softmax of seven values at a time, and turns
    them back: a fifth to a third of the time of a small network. A softmax over the last axis, as in attention, stays.

    Args:
        graph: Sorted.
        ranks: Number of axes of each value.
    """
    for node in [node for node in graph.node if node.op_type == "Softmax"]:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        source, target = node.input[0], node.output[0]
        rank = ranks.get(source)
        if rank is None or axis % rank == rank - 1:
            continue
        names = {part: f"{target}_{part}" for part in ("axis", "max", "centred", "exp", "sum")}
        graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), names["axis"]))
        parts = [
            ("ReduceMax", [source, names["axis"]], names["max"]),  # both keep the axis unless told otherwise
            ("Sub", [source, names["max"]], names["centred"]),
            ("Exp", [names["centred"]], names["exp"]),
            ("ReduceSum", [names["exp"], names["axis"]], names["sum"]),
            ("Div", [names["exp"], names["sum"]], target),
        ]
        position = list(graph.node).index(node)
        graph.node.remove(node)
        for place, (kind, inputs, output) in enumerate(parts, start=position):
            graph.node.insert(place, helper.make_node(kind, inputs, [output], name=f"{output}_{kind}"))


def remove_unused(graph: onnx.GraphProto) -> None:
    """Removes identities, nodes whose outputs nobody reads, and constants that nobody reads.

    Args:
        graph: Sorted.
    """
    outputs = {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type in ("Identity", "Dropout")]:
        if node.output[0] not in outputs:
            for user in graph.node:
                user.input[:] = [node.input[0] if name == node.output[0] else name for name in user.input]
    needed = set(outputs)
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def strip_notes(model: onnx.ModelProto) -> None:
    """Removes what the exporter noted for its own debugging: half of a small file, and paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]


def skip_round_trips(graph: onnx.GraphProto) -> None:
    """Joins what a cast to float16 and one back to float32 divide, between two nodes that both compute in float32.

    Args:
        graph: Sorted.
    """
    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    down, up = ({n.output[0]: n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == k} for k in kinds)
    outputs = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    for name, back in up.items():
        there = down.get(back.input[0])
        if there is not None:
            original, replaced = there.input[0], name
            if name in outputs:  # a graph's output keeps its name
                original, replaced = name, there.input[0]
                graph.node.remove(back)
            renamed[replaced] = original

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    for node in graph.node:
        node.input[:] = map(final, node.input)
        if node.op_type != "Cast":
            node.output[:] = map(final, node.output)
    remove_unused(graph)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node behind those that it reads from, as ONNX wants it, and drops those that are there twice."""
    made = {name for node in graph.node for name in node.output}
    waiting = list({(node.op_type, *node.input, *node.output): node for node in graph.node}.values())
    ordered: list[onnx.NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if made.isdisjoint(node.input):
                made.difference_update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError("the graph has a circle")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def before_first_convolution(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes up to the first convolution: a normalisation that is part of the graph."""
    names: list[str] = []
    for node in graph.node:
        if node.op_type == "Conv":
            break
        names.append(node.name)
    return names


def from_last_convolutions(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolutions or matrix products whose logits decide between classes, and of all nodes after them."""
    maker = {name: node for node in graph.node for name in node.output}
    waiting = [output.name for output in graph.output]
    names: set[str] = set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in names:
            continue
        names.add(node.name)
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            waiting.extend(node.input)
    return sorted(names)


def _users(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    return users


def _line_of(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Array, Array]:
    """Slope and offset [C] of a batch norm."""
    gain, bias, mean, variance = (numpy_helper.to_array(constants[n]).astype(np.float64) for n in node.input[1:5])
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    scale = gain / np.sqrt(variance + epsilon)
    return scale.astype(np.float32), (bias - scale * mean).astype(np.float32)


def _into_convolution(
    graph: onnx.GraphProto,
    convolution: onnx.NodeProto,
    node: onnx.NodeProto,
    scale: Array,
    offset: Array,
    constants: dict[str, onnx.TensorProto],
) -> None:
    weight = numpy_helper.to_array(constants[convolution.input[1]])
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = numpy_helper.to_array(constants[convolution.input[2]]) if len(convolution.input) > 2 else np.float32(0)
    name = convolution.input[1]
    constants[name].CopyFrom(numpy_helper.from_array(folded.astype(np.float32), name))
    graph.initializer.append(numpy_helper.from_array((scale * bias + offset).astype(np.float32), f"{name}.offset"))
    convolution.input[:] = [*convolution.input[:2], f"{name}.offset"]
    passed = convolution.output[0]
    for user in graph.node:
        user.input[:] = [node.output[0] if given == passed else given for given in user.input]
    convolution.output[0] = node.output[0]


def _as_line(graph: onnx.GraphProto, position: int, node: onnx.NodeProto, scale: Array, offset: Array) -> None:
    name = node.output[0]
    for part, values in (("scale", scale), ("offset", offset)):
        graph.initializer.append(numpy_helper.from_array(values.reshape(1, -1, 1, 1), f"{name}.{part}"))
    product = helper.make_node("Mul", [node.input[0], f"{name}.scale"], [f"{name}.product"], name=f"{name}.mul")
    total = helper.make_node("Add", [f"{name}.product", f"{name}.offset"], [name], name=f"{name}.add")
    graph.node.remove(node)
    graph.node.insert(position, product)
    graph.node.insert(position + 1, total)
