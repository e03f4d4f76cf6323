"""Integer weights in ONNX graphs: the float weights of a graph are replaced by codes and by what makes them of these.

Weights of 8 bits are int8 with DequantizeLinear along the output channels, which runtimes know together with integer
activations (QDQ). Weights of 4 bits that are factors of a product are of the type INT4 (ONNX, DequantizeLinear, opset
21), in blocks of inputs, for which onnxruntime has a product that unpacks them as it goes (MatMulNBits). Those of 2
bits are four to a byte; a table of what each byte holds makes values of them as the graph is loaded, and these are INT4
for the same product: the type INT2 (opset 25) is known to few runtimes. Convolutions of few bits become int8 as the
graph is loaded, which saves file size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import ModelError
from ropes_ros.nested import ZERO, byte_digits, digit_values, pack, slice_codes, values_of

OPSET = 21
"""Of graphs with weights of type INT4."""
MOST_BLOCK, LEAST_BLOCK = 32, 16
"""Inputs that share a scale in a product of INT4: powers of two between which onnxruntime has kernels."""
LEAST_OUTPUTS = 64
"""Of such a product: it rounds its inputs to 8 bits, which a narrow one, as the last layers are, gains nothing by."""
INT4_VALUES = 16


class NestedWeight(NamedTuple):
    """A weight as it is stored.

    Attributes:
        codes: Of 8 bits, uint8, of the weight's shape, the output channel first.
        scale: float32 [O].
        bits: That are served.
        extra: Whether slices have the extra value.
        last: Whether the output channel is the last axis instead, as in the factor of a product.
        folded: Whether it meets float activations: where it is no product of few bits, it is made into plain weights as
            the graph is loaded.
    """

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    bits: int
    extra: bool = False
    last: bool = False
    folded: bool = False

    @property
    def whole(self) -> bool:
        """Whether the graph has it as int8, beside activations that are integers."""
        return self.bits == 8 and not self.folded

    @property
    def factor(self) -> bool:
        """Whether it becomes the second factor [inputs, outputs] of a product, and is stored so."""
        return self.codes.ndim == 2 and (self.bits < 8 or self.whole)

    @property
    def block(self) -> int:
        """Inputs that share a scale where a product is served as INT4; 0 where it is not."""
        wide = self.codes.ndim == 2 and self.last and self.codes.shape[1] >= LEAST_OUTPUTS
        if not wide or values_of(self.bits, extra=self.extra) > INT4_VALUES:
            return 0
        most = int(np.gcd(self.codes.shape[0], MOST_BLOCK))
        return most if most >= LEAST_BLOCK else 0

    def as_factor(self) -> NestedWeight:
        """Of a linear layer [outputs, inputs], as [inputs, outputs]."""
        return self._replace(codes=np.ascontiguousarray(self.codes.T), last=True)

    def digits(self) -> NDArray[np.uint8]:
        """Of the bits that are served, uint8 of the codes' shape."""
        return slice_codes(self.codes, self.bits, extra=self.extra)

    def values(self) -> NDArray[np.float32]:
        """What is served, float32 of the codes' shape."""
        return digit_values(self.bits, extra=self.extra)[self.digits()] * self.unit()

    def unit(self) -> NDArray[np.float32]:
        """The scale as it is multiplied with."""
        return self.scale if self.last else self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))


def replace_weights(model: Any, weights: Mapping[str, NestedWeight]) -> None:
    """Take float initialisers out of a model and put integer ones in.

    Args:
        model: onnx.ModelProto of opset `OPSET`, changed in place.
        weights: By the initialisers' names.

    Raises:
        ModelError: The graph has no such initialiser, or one of another shape.
    """
    graph = model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    for name, weight in weights.items():
        if name not in found or tuple(found[name].dims) != weight.codes.shape:
            raise ModelError(f"the exported graph has no weight {name!r} of shape {weight.codes.shape}; report this")
        graph.initializer.remove(found[name])
        if weight.factor and not weight.last:
            _split_product(graph, name)
            weight = weight.as_factor()
        tensors, made = _whole(name, weight) if weight.whole else _packed(name, weight)
        graph.initializer.extend(tensors)
        nodes += made
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


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


def _whole(name: str, weight: NestedWeight) -> tuple[list[Any], list[Any]]:
    """Initialisers and nodes of a weight of 8 bits, whose value the node gives under the weight's name."""
    from onnx import helper

    codes = (weight.codes.astype(np.int16) - ZERO).astype(np.int8)
    tensors: dict[str, NDArray[Any]] = {f"{name}.codes": codes, f"{name}.scale": weight.scale}
    axis = weight.codes.ndim - 1 if weight.last else 0
    return _tensors(tensors), [helper.make_node("DequantizeLinear", list(tensors), [name], axis=axis)]


def _packed(name: str, weight: NestedWeight) -> tuple[list[Any], list[Any]]:
    """The same of a weight of few bits, or one that is made a plain one."""
    from onnx import TensorProto, helper

    count = values_of(weight.bits, extra=weight.extra)
    if weight.block and count == INT4_VALUES:
        # a digit d of 4 bits is the integer d - 8: the same bits but the first
        signed = pack(weight.digits() ^ np.uint8(INT4_VALUES // 2), count).tobytes()
        made = helper.make_tensor(f"{name}.packed", TensorProto.INT4, weight.codes.shape, signed, raw=True)
        tensors, nodes = _blocks(name, f"{name}.packed", weight)
        return [made, *tensors], nodes
    worth = digit_values(weight.bits, extra=weight.extra)
    # a digit in units of its own, where the scale is, too
    values = worth / np.float32(1 << (8 - weight.bits)) if weight.block else worth
    size, shape = np.array([weight.codes.size], dtype=np.int64), np.array(weight.codes.shape, dtype=np.int64)
    start, flat = np.zeros(1, dtype=np.int64), np.array([-1], dtype=np.int64)
    tensors = _tensors(
        {
            f"{name}.packed": pack(weight.digits(), count),
            f"{name}.table": values[byte_digits(count)],
            f"{name}.size": size,
            f"{name}.shape": shape,
            f"{name}.start": start,
            f"{name}.flat": flat,
        }
    )
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [f"{name}.packed"], "index", {"to": TensorProto.INT32}),
        ("Gather", [f"{name}.table", f"{name}.index"], "digits", {"axis": 0}),
        ("Reshape", [f"{name}.digits", f"{name}.flat"], "line", {}),
        ("Slice", [f"{name}.line", f"{name}.start", f"{name}.size"], "whole", {}),
        ("Reshape", [f"{name}.whole", f"{name}.shape"], "shaped", {}),
    ]
    nodes = [helper.make_node(kind, inputs, [f"{name}.{out}"], **more) for kind, inputs, out, more in steps]
    if weight.folded and not weight.block:
        tensors += _tensors({f"{name}.unit": weight.unit()})
        return tensors, [*nodes, helper.make_node("Mul", [f"{name}.shaped", f"{name}.unit"], [name])]
    one, zero, integers = f"{name}.one", f"{name}.zero", f"{name}.integers"
    kind = TensorProto.INT4 if weight.block else TensorProto.INT8
    tensors += [*_tensors({one: np.float32(1.0)}), helper.make_tensor(zero, kind, [], [0])]
    nodes.append(helper.make_node("QuantizeLinear", [f"{name}.shaped", one, zero], [integers]))
    if weight.block:
        more_tensors, last = _blocks(name, integers, weight)
        return [*tensors, *more_tensors], [*nodes, *last]
    tensors += _tensors({f"{name}.unit": weight.scale})
    return tensors, [*nodes, helper.make_node("DequantizeLinear", [integers, f"{name}.unit"], [name], axis=0)]


def _blocks(name: str, integers: str, weight: NestedWeight) -> tuple[list[Any], list[Any]]:
    """What makes the factor of a product of INT4: the channels' scales, the same for each block of inputs."""
    from onnx import helper

    step = np.float32(1 << (8 - weight.bits))
    count = np.array([weight.codes.shape[0] // weight.block, weight.codes.shape[1]], dtype=np.int64)
    tensors = _tensors({f"{name}.unit": (weight.scale * step)[None], f"{name}.blocks": count})
    spread = helper.make_node("Expand", [f"{name}.unit", f"{name}.blocks"], [f"{name}.scales"])
    inputs = [integers, f"{name}.scales"]
    return tensors, [spread, helper.make_node("DequantizeLinear", inputs, [name], axis=0, block_size=weight.block)]


def _tensors(values: Mapping[str, NDArray[Any] | np.float32]) -> list[Any]:
    from onnx import numpy_helper

    return [numpy_helper.from_array(np.asarray(value), key) for key, value in values.items()]


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
