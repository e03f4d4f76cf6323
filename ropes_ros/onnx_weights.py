"""Integer weights in ONNX graphs: the float weights of a graph are replaced by codes and by what makes them of these.

Weights of 8 bits are int8 with DequantizeLinear along the output channels, which runtimes know together with integer
activations (QDQ). Weights of 4 and 2 bits are several to a byte, and a table of what each byte holds makes values of
them; ONNX has types for them since opsets 21 and 25 (ONNX operators, DequantizeLinear), but a table runs in every
onnxruntime that we support, and is folded into plain weights as the graph is loaded. So these save file size, not time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import ModelError
from ropes_ros.nested import ZERO, byte_digits, digit_values, pack, slice_codes, values_of


class NestedWeight(NamedTuple):
    """A weight as it is stored.

    Attributes:
        codes: Of 8 bits, uint8, of the weight's shape, the output channel first.
        scale: float32 [O].
        bits: That are served.
        extra: Whether slices have the extra value.
        last: Whether scales are along the last axis instead.
        folded: Whether 8 bits, too, are made into plain weights as the graph is loaded: what meets float activations.
    """

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    bits: int
    extra: bool = False
    last: bool = False
    folded: bool = False

    @property
    def meets_integers(self) -> bool:
        """Whether the graph has it as int8, beside activations that are integers."""
        return self.bits == 8 and not self.folded

    def values(self) -> NDArray[np.float32]:
        """What is served, float32 of the weight's shape."""
        digits = slice_codes(self.codes, self.bits, extra=self.extra)
        return digit_values(self.bits, extra=self.extra)[digits] * self._unit()

    def _unit(self) -> NDArray[np.float32]:
        return self.scale if self.last else self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))


def replace_weights(model: Any, weights: Mapping[str, NestedWeight]) -> None:
    """Take float initialisers out of a model and put integer ones in.

    Args:
        model: onnx.ModelProto, changed in place.
        weights: By the initialisers' names.

    Raises:
        ModelError: The graph has no such initialiser, or one of another shape.
    """
    from onnx import numpy_helper

    graph = model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    for name, weight in weights.items():
        if name not in found or tuple(found[name].dims) != weight.codes.shape:
            raise ModelError(f"the exported graph has no weight {name!r} of shape {weight.codes.shape}; report this")
        graph.initializer.remove(found[name])
        if weight.meets_integers and weight.codes.ndim == 2:
            _split_product(graph, name)
            weight = weight._replace(codes=np.ascontiguousarray(weight.codes.T), last=not weight.last)
        tensors, made = _stored(name, weight)
        graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in tensors.items())
        nodes += made
    whole = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *whole])


def _split_product(graph: Any, name: str) -> None:
    """A Gemm with a weight [outputs, inputs] as a product with its transpose, less the negative bias.

    onnxruntime computes a product of integers with a float result (MatMulIntegerToFloat), but a Gemm of integers only
    with an integer result; and a product to which a constant is added is made a Gemm, before anything else.
    """
    from onnx import helper, numpy_helper

    found = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        if node.op_type == "Gemm" and node.input[1] == name:
            product = helper.make_node("MatMul", node.input[:2], [f"{name}.product"], name=f"{node.name}/product")
            bias = node.input[2]
            graph.initializer.append(numpy_helper.from_array(-numpy_helper.to_array(found[bias]), f"{bias}.negative"))
            graph.initializer.remove(found[bias])
            inputs = [f"{name}.product", f"{bias}.negative"]
            added = helper.make_node("Sub", inputs, node.output[:], name=f"{node.name}/sum")
            graph.node.remove(node)
            graph.node.insert(place, product)
            graph.node.insert(place + 1, added)
            return
    raise ModelError(f"the exported graph has no product with the weight {name!r}; report this")


def _stored(name: str, weight: NestedWeight) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Initialisers and nodes of one weight, whose value the last node gives under the weight's name."""
    from onnx import helper

    axis = weight.codes.ndim - 1 if weight.last else 0
    if weight.meets_integers:
        codes = (weight.codes.astype(np.int16) - ZERO).astype(np.int8)
        tensors: dict[str, NDArray[Any]] = {f"{name}.codes": codes, f"{name}.scale": weight.scale}
        return tensors, [helper.make_node("DequantizeLinear", list(tensors), [name], axis=axis)]
    count = values_of(weight.bits, extra=weight.extra)
    digits = slice_codes(weight.codes, weight.bits, extra=weight.extra)
    values = digit_values(weight.bits, extra=weight.extra)
    table = values[byte_digits(count)]
    tensors = {
        f"{name}.packed": pack(digits, count),
        f"{name}.table": table.astype(np.float32),
        f"{name}.size": np.array([weight.codes.size], dtype=np.int64),
        f"{name}.shape": np.array(weight.codes.shape, dtype=np.int64),
        f"{name}.unit": weight._unit().astype(np.float32),
    }
    start, flat = np.zeros(1, dtype=np.int64), np.array([-1], dtype=np.int64)
    tensors |= {f"{name}.start": start, f"{name}.flat": flat}
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [f"{name}.packed"], "index", {"to": 6}),
        ("Gather", [f"{name}.table", f"{name}.index"], "digits", {"axis": 0}),
        ("Reshape", [f"{name}.digits", f"{name}.flat"], "line", {}),
        ("Slice", [f"{name}.line", f"{name}.start", f"{name}.size"], "whole", {}),
        ("Reshape", [f"{name}.whole", f"{name}.shape"], "shaped", {}),
    ]
    nodes = [helper.make_node(kind, inputs, [f"{name}.{out}"], **more) for kind, inputs, out, more in steps]
    nodes.append(helper.make_node("Mul", [f"{name}.shaped", f"{name}.unit"], [name]))
    return tensors, nodes


def quantise_biases(model: Any) -> None:
    """Give convolutions whose inputs and weights are integers integer biases, of the products' unit.

    As runtimes ask for to compute in integers throughout (onnxruntime, "Quantize ONNX models", QDQ).

    Args:
        model: onnx.ModelProto, changed in place.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    made_by = {out: node for node in graph.node for out in node.output}
    found = {tensor.name: tensor for tensor in graph.initializer}
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}

    def scale_of(tensor: str) -> NDArray[np.float32] | None:
        node = made_by.get(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        stored = found.get(node.input[1]) or constants.get(node.input[1])
        return None if stored is None else numpy_helper.to_array(stored)

    nodes = []
    for node in graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in found:
            continue
        seen, weight = scale_of(node.input[0]), scale_of(node.input[1])
        if seen is None or weight is None:
            continue
        name = node.input[2]
        unit = (seen.reshape(-1)[:1] * weight).astype(np.float32)
        bias = np.rint(numpy_helper.to_array(found[name]).astype(np.float64) / unit)
        graph.initializer.remove(found[name])
        values = {f"{name}.codes": np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32), f"{name}.scale": unit}
        graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in values.items())
        nodes.append(helper.make_node("DequantizeLinear", list(values), [name], axis=0))
    whole = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *whole])
