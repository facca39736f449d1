"""The row-wise chain as an ONNX file in memory. The few protobuf fields it needs are written here by hand, so that no ONNX
package is needed beside the runtimes under test. Field numbers are those of onnx.proto."""

from __future__ import annotations

import struct

import numpy as np

FLOAT, OPSET, IR_VERSION = 1, 20, 9


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
    return dims + _int(2, FLOAT) + _bytes(8, name) + _bytes(9, array.astype("<f4").tobytes())


def _value(name: str, dims: tuple[int | str, ...]) -> bytes:
    shape = b"".join(_bytes(1, _int(1, d) if isinstance(d, int) else _bytes(2, d)) for d in dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, _int(1, FLOAT) + _bytes(2, shape)))


def _attribute(name: str, value: int | float) -> bytes:
    body = _int(3, value) + _int(20, 2) if isinstance(value, int) else _float(2, value) + _int(20, 1)
    return _bytes(1, name) + body


def _node(op: str, inputs: tuple[str, ...], output: str, **attributes: int | float) -> bytes:
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
