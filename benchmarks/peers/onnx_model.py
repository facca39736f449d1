"""The row-wise chain, a multi-layer perceptron and a transformer block as ONNX files in memory. The few protobuf fields it needs are written here by hand, so that no ONNX
package is needed beside the runtimes under test. Field numbers are those of onnx.proto."""

from __future__ import annotations

import struct

import numpy as np

FLOAT, INT64, OPSET, IR_VERSION = 1, 7, 20, 9


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value & (1 << 64) - 1)


def _bytes(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_int(1, d) for d in array.shape)
    whole = array.dtype.kind == "i"
    return dims + _int(2, INT64 if whole else FLOAT) + _bytes(8, name) + _bytes(9, array.astype("<i8" if whole else "<f4").tobytes())


def _value(name: str, dims: tuple[int | str, ...]) -> bytes:
    shape = b"".join(_bytes(1, _int(1, d) if isinstance(d, int) else _bytes(2, d)) for d in dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, _int(1, FLOAT) + _bytes(2, shape)))


def _attribute(name: str, value: int | float | tuple[int, ...]) -> bytes:
    if isinstance(value, tuple):
        return _bytes(1, name) + b"".join(_int(8, v) for v in value) + _int(20, 7)
    body = _int(3, value) + _int(20, 2) if isinstance(value, int) else _float(2, value) + _int(20, 1)
    return _bytes(1, name) + body


def _node(op: str, inputs: tuple[str, ...], output: str, **attributes: int | float | tuple[int, ...]) -> bytes:
    return (
        b"".join(_bytes(1, i) for i in inputs)
        + _bytes(2, output)
        + _bytes(4, op)
        + b"".join(_bytes(5, _attribute(k, v)) for k, v in attributes.items())
    )


def rowwise_model(gamma: np.ndarray, beta: np.ndarray, eps: float, rows: int | str = "rows") -> bytes:
    """softmax(gelu(layernorm(X))) with X of shape (rows, len(gamma)); `rows` may be a symbol."""
    width = gamma.shape[0]
    graph = (
        _bytes(1, _node("LayerNormalization", ("X", "gamma", "beta"), "N", axis=-1, epsilon=eps))
        + _bytes(1, _node("Gelu", ("N",), "G"))
        + _bytes(1, _node("Softmax", ("G",), "Y", axis=-1))
        + _bytes(2, "rowwise")
        + _bytes(5, _tensor("gamma", gamma))
        + _bytes(5, _tensor("beta", beta))
        + _bytes(11, _value("X", (rows, width)))
        + _bytes(12, _value("Y", (rows, width)))
    )
    return _int(1, IR_VERSION) + _bytes(8, _bytes(1, "") + _int(2, OPSET)) + _bytes(7, graph)


def _model(nodes: list[bytes], weights: dict[str, np.ndarray], width: int) -> bytes:
    """A graph from X (rows, width) to Y of the same shape, for any number of rows."""
    graph = (
        b"".join(_bytes(1, n) for n in nodes)
        + _bytes(2, "model")
        + b"".join(_bytes(5, _tensor(name, array)) for name, array in weights.items())
        + _bytes(11, _value("X", ("rows", width)))
        + _bytes(12, _value("Y", ("rows", width)))
    )
    return _int(1, IR_VERSION) + _bytes(8, _bytes(1, "") + _int(2, OPSET)) + _bytes(7, graph)


def mlp_model(weights: dict[str, np.ndarray]) -> bytes:
    """gelu(X @ w1 + b1) @ w2 + b2."""
    nodes = [
        _node("MatMul", ("X", "w1"), "h"), _node("Add", ("h", "b1"), "hb"), _node("Gelu", ("hb",), "g"),
        _node("MatMul", ("g", "w2"), "o"), _node("Add", ("o", "b2"), "Y"),
    ]  # fmt: skip
    return _model(nodes, weights, weights["w1"].shape[0])


def block_model(weights: dict[str, np.ndarray], heads: int, eps: float) -> bytes:
    """A transformer block over one sequence: h = X + attention(norm(X)) @ wo; h + gelu(norm(h) @ w1 + b1) @ w2 + b2."""
    width = weights["wq"].shape[0]
    extra = {
        "split": np.array([0, heads, width // heads], np.int64), "join": np.array([0, width], np.int64),
        "scale": np.array((width // heads) ** -0.5, np.float32),
    }  # fmt: skip
    nodes = [_node("LayerNormalization", ("X", "g1", "n1"), "a", axis=-1, epsilon=eps)]
    for name in "qkv":
        nodes += [_node("MatMul", ("a", f"w{name}"), f"{name}0"), _node("Reshape", (f"{name}0", "split"), f"{name}1")]
        nodes += [_node("Transpose", (f"{name}1",), name, perm=(1, 2, 0) if name == "k" else (1, 0, 2))]
    nodes += [
        _node("MatMul", ("q", "k"), "s0"), _node("Mul", ("s0", "scale"), "s"), _node("Softmax", ("s",), "p", axis=-1),
        _node("MatMul", ("p", "v"), "c0"), _node("Transpose", ("c0",), "c1", perm=(1, 0, 2)), _node("Reshape", ("c1", "join"), "c"),
        _node("MatMul", ("c", "wo"), "o"), _node("Add", ("X", "o"), "h"),
        _node("LayerNormalization", ("h", "g2", "n2"), "m", axis=-1, epsilon=eps),
        _node("MatMul", ("m", "w1"), "f0"), _node("Add", ("f0", "b1"), "f1"), _node("Gelu", ("f1",), "f"),
        _node("MatMul", ("f", "w2"), "e0"), _node("Add", ("e0", "b2"), "e"), _node("Add", ("h", "e"), "Y"),
    ]  # fmt: skip
    return _model(nodes, weights | extra, width)
