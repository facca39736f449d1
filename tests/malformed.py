"""Matrices and operands broken in many ways, in memory that ends where no one may read: for tests of what calls refuse.

Run as a program it tries N random calls: `python -m tests.malformed N [SEED]`. Each call must raise a PolyAIError, or its
arguments are well formed, by a definition of its own, and the result is that of NumPy. Reading or writing past the end of an
argument ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

import polyai as pa

PAGE = mmap.PAGESIZE


def fenced(array: Any) -> Any:
    """A copy whose last byte is followed by a page that cannot be touched, as the page before it."""
    array = np.ascontiguousarray(array)
    if sys.platform == "win32":
        return array.copy()
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for page in (0, pages + 1):
        assert protect(start + page * PAGE, PAGE, 0) == 0
    out: Any = np.frombuffer(memory, array.dtype, array.size, (pages + 1) * PAGE - array.nbytes).reshape(array.shape)
    out[...] = array
    return out


@dataclass
class Parts:
    """The arrays of a scipy.sparse value, free to be wrong. `pointers` is None for COO, `minor` then the columns."""

    kind: str
    shape: tuple[int, ...]
    values: Any
    minor: Any
    pointers: Any = None
    major: Any = None

    def build(self) -> Any:
        """The SciPy value, made without SciPy's checks."""
        made = getattr(sp, f"{self.kind}_array")((1, 1), dtype=np.float64)
        made.data = self.values
        if self.kind == "coo":
            made.coords = (self.major, self.minor)
        else:
            made.indices, made.indptr = self.minor, self.pointers
        made._shape = self.shape
        return made

    def coordinates(self) -> tuple[Any, Any, Any] | None:
        """Rows, columns and values of what is stored; None if the parts describe no matrix."""
        index = [self.minor, self.major if self.kind == "coo" else self.pointers]
        if any(a.ndim != 1 or a.dtype.kind not in "iu" for a in index) or self.values.ndim != 1:
            return None
        minor, other = (np.array([int(v) for v in a], object) for a in index)
        rows, columns = self.shape[::-1] if self.kind == "csc" else self.shape
        if self.kind == "coo":
            if not len(minor) == len(other) == len(self.values):
                return None
            major, values = other, self.values
        else:
            if len(other) != rows + 1 or other[0] != 0 or (np.diff(other) < 0).any() or other[-1] > min(len(minor), len(self.values)):
                return None
            major = np.repeat(np.arange(rows), np.diff(other).astype(np.int64))
            minor, values = minor[: other[-1]], self.values[: other[-1]]
        if any(v < 0 or v >= rows for v in major) or any(v < 0 or v >= columns for v in minor):
            return None
        first, second = major.astype(np.int64), minor.astype(np.int64)
        return (second, first, values.astype(np.float64)) if self.kind == "csc" else (first, second, values.astype(np.float64))


def good(rng: np.random.Generator, kind: str, n: int, m: int, index: Any) -> Parts:
    """A valid matrix: often with empty rows, sometimes unsorted, sometimes with repeated entries, sometimes empty."""
    count = 0 if n * m == 0 else int(rng.integers(0, min(3 * max(n, m), n * m) + 1))
    if rng.random() < 0.25 and count:
        flat = rng.integers(0, n * m, count)
    else:
        flat = rng.permutation(n * m)[:count]
    rows, columns = np.divmod(flat, max(m, 1))
    major, minor = (columns, rows) if kind == "csc" else (rows, columns)
    order = np.lexsort((minor, major)) if rng.random() < 0.7 else np.argsort(major, kind="stable")
    major, minor = major[order].astype(index), minor[order].astype(index)
    values = rng.standard_normal(count)
    if kind == "coo":
        if rng.random() < 0.3:
            order = rng.permutation(count)
            major, minor = major[order], minor[order]
        return Parts(kind, (n, m), values, minor, None, major)
    extent = m if kind == "csc" else n
    pointers = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=extent))]).astype(index)
    return Parts(kind, (n, m), values, minor, pointers)


# --- ways to break a matrix -------------------------------------------------------------------------------------------------

WILD = (-1, -2, -(1 << 31), (1 << 31) - 1, -(1 << 63), (1 << 63) - 1, 1 << 32, -(1 << 32), 1 << 40, 7, 100)
Break = Callable[[np.random.Generator, Parts], None]


def wild(rng: np.random.Generator, array: Any, extent: int) -> int:
    """A number that is likely no index below `extent`, and fits the array's type."""
    limits = np.iinfo(array.dtype)
    fits = [v for v in (*WILD, extent, extent + 1, extent - 1, -extent) if limits.min <= v <= limits.max]
    return fits[int(rng.integers(len(fits)))]


def an_index(rng: np.random.Generator, p: Parts) -> None:
    array = p.minor if p.major is None or rng.random() < 0.5 else p.major
    if len(array):
        array[rng.integers(len(array))] = wild(rng, array, max(p.shape))


def many_indices(rng: np.random.Generator, p: Parts) -> None:
    p.minor[...] = rng.integers(-3, max(p.shape) + 3, len(p.minor))


def a_pointer(rng: np.random.Generator, p: Parts) -> None:
    if p.pointers is not None:
        p.pointers[rng.integers(len(p.pointers))] = wild(rng, p.pointers, len(p.values))


def swapped_pointers(rng: np.random.Generator, p: Parts) -> None:
    if p.pointers is not None:
        at = rng.integers(0, len(p.pointers), 2)
        p.pointers[at] = p.pointers[at[::-1]]


def all_pointers(rng: np.random.Generator, p: Parts) -> None:
    if p.pointers is not None:
        p.pointers[1:-1] = rng.integers(-2, len(p.values) + 3, max(0, len(p.pointers) - 2))


def pointers_up(rng: np.random.Generator, p: Parts) -> None:
    if p.pointers is not None:
        p.pointers[int(rng.integers(len(p.pointers))) :] += int(rng.integers(1, 4))


def lengths(rng: np.random.Generator, p: Parts) -> None:
    name = ("values", "minor", "pointers" if p.pointers is not None else "major")[int(rng.integers(3))]
    array = getattr(p, name)
    if rng.random() < 0.5:
        setattr(p, name, array[: max(0, len(array) - int(rng.integers(1, 3)))])
    else:
        setattr(p, name, np.concatenate([array, array[:1], array[:2]]))


def shapes(rng: np.random.Generator, p: Parts) -> None:
    p.shape = tuple(max(0, s + int(rng.integers(-2, 3))) for s in p.shape)


def ranks(rng: np.random.Generator, p: Parts) -> None:
    name = ("values", "minor")[int(rng.integers(2))]
    setattr(p, name, getattr(p, name)[:, None])


def floats_as_indices(rng: np.random.Generator, p: Parts) -> None:
    p.minor = p.minor.astype(np.float64)


def other_widths(rng: np.random.Generator, p: Parts) -> None:
    wanted = (np.int64, np.uint32, np.uint64, np.int16)[int(rng.integers(4))]
    p.minor = p.minor.astype(wanted)


def strided(rng: np.random.Generator, p: Parts) -> None:
    name = ("values", "minor")[int(rng.integers(2))]
    setattr(p, name, np.repeat(getattr(p, name), 2)[::2])


def other_byte_order(rng: np.random.Generator, p: Parts) -> None:
    name = ("values", "minor")[int(rng.integers(2))]
    array = getattr(p, name)
    setattr(p, name, array.astype(array.dtype.newbyteorder()))


def read_only(rng: np.random.Generator, p: Parts) -> None:
    for array in (p.values, p.minor):
        array.flags.writeable = False


def unaligned(rng: np.random.Generator, p: Parts) -> None:
    raw = np.zeros(p.values.nbytes + 1, np.uint8)[1:].view(p.values.dtype)
    raw[...] = p.values
    p.values = raw


def nothing(rng: np.random.Generator, p: Parts) -> None:
    pass


IN_PLACE: tuple[Break, ...] = (an_index, an_index, many_indices, a_pointer, a_pointer, swapped_pointers, all_pointers, pointers_up)
REPLACED: tuple[Break, ...] = (
    lengths, lengths, shapes, ranks, floats_as_indices, other_widths, strided, other_byte_order, read_only, unaligned, nothing, nothing,
)  # fmt: skip


# --- what is called, and what it means ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """`fn` of a matrix and dense operands of the given shapes, where n, m are the matrix's and k a third size.

    `meaning` takes rows, columns, values, shape and the operands. `linear` ones allow a coordinate to be stored twice.
    """

    fn: Callable[..., Any]
    operands: tuple[str, ...]
    meaning: Callable[..., Any]
    linear: bool = True


def _times(r: Any, c: Any, v: Any, shape: tuple[int, int], x: Any) -> Any:
    out = np.zeros((shape[0], *x.shape[1:]))
    np.add.at(out, r, v.reshape(-1, *[1] * (x.ndim - 1)) * x[c])
    return out


def _placed(r: Any, c: Any, v: Any, shape: tuple[int, int]) -> Any:
    out = np.zeros(shape)
    np.add.at(out, (r, c), v)
    return out


def _weights(r: Any, scores: Any, n: int) -> Any:
    top = np.full(n, -np.inf)
    np.maximum.at(top, r, scores)
    e = np.exp(scores - top[r])
    total = np.zeros(n)
    np.add.at(total, r, e)
    return e / total[r]


def _scores(r: Any, c: Any, q: Any, k: Any) -> Any:
    return (q[r] * k[c]).sum(axis=1)


OPERATIONS: dict[str, Operation] = {
    "spmv": Operation(lambda a, x: a @ x, ("m",), _times),
    "spmm": Operation(lambda a, x: a @ x, ("mk",), _times),
    "transposed": Operation(lambda a, x: a.T @ x, ("nk",), lambda r, c, v, s, x: _times(c, r, v, s[::-1], x)),
    "from the left": Operation(lambda a, x: x @ a, ("kn",), lambda r, c, v, s, x: _times(c, r, v, s[::-1], x.T).T),
    "sddmm": Operation(lambda a, q, k: pa.sddmm(q, k, a), ("nk", "mk"), lambda r, c, v, s, q, k: _placed(r, c, v * _scores(r, c, q, k), s)),
    "softmax": Operation(lambda a: pa.softmax(a), (), lambda r, c, v, s: _placed(r, c, _weights(r, v, s[0]), s), False),
    "relu": Operation(lambda a, x: pa.relu(a) @ x, ("mk",), lambda r, c, v, s, x: _times(r, c, np.maximum(v, 0), s, x), False),
    "attention": Operation(
        lambda a, q, k, v: pa.sparse_attention(q, k, v, a, scale=1.0), ("nk", "mk", "ml"),
        lambda r, c, v, s, q, k, x: _times(r, c, _weights(r, _scores(r, c, q, k), s[0]), s, x), False,
    ),
    "layer": Operation(lambda a, x, w: pa.relu(a @ (x @ w)), ("mk", "kl"), lambda r, c, v, s, x, w: np.maximum(_times(r, c, v, s, x @ w), 0)),
}  # fmt: skip

KINDS = ("csr", "csc", "coo")
INDICES = (np.int32, np.int64)


def dense(result: Any) -> Any:
    return result.toarray() if sp.issparse(result) else result


class Fuzz:
    """Random calls. The compiled functions are kept, so that most calls take the native dispatcher."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.functions = {name: pa.jit(o.fn, name=name.replace(" ", "_")) for name, o in OPERATIONS.items()}
        self.seen: Counter[str] = Counter()

    def one_of(self, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def operands(self, shapes: tuple[str, ...], n: int, m: int, k: int) -> list[Any]:
        size = {"n": n, "m": m, "k": k, "l": 2}
        return [fenced(self.rng.standard_normal(tuple(size[s] for s in shape))) for shape in shapes]

    def broken_operand(self, x: Any) -> Any:
        """Another shape, or the same numbers in another layout."""
        way = int(self.rng.integers(5))
        if way == 0:
            axis = int(self.rng.integers(x.ndim))
            return fenced(np.delete(x, 0, axis)) if x.shape[axis] else x
        if way == 1:
            return fenced(np.concatenate([x, x[:1]], 0)) if len(x) else x
        if way == 2:
            return np.asfortranarray(x)
        if way == 3:
            return x.astype(">f8")
        return np.repeat(x, 2, axis=0)[::2]

    def call(self) -> None:
        """One call, and what must be true of it."""
        name, kind, index = self.one_of(list(OPERATIONS)), self.one_of(KINDS), self.one_of(INDICES)
        operation, function = OPERATIONS[name], self.functions[name]
        n, m, k = (int(v) for v in self.rng.choice([0, 1, 2, 3, 5, 8, 17], 3))
        parts = good(self.rng, kind, n, m, index)
        for field in ("values", "minor", "pointers", "major"):
            if getattr(parts, field) is not None:
                setattr(parts, field, fenced(getattr(parts, field)))
        operands = self.operands(operation.operands, n, m, k)
        if self.rng.random() < 0.5:  # broken after a good call, behind the back of SciPy
            matrix = parts.build()
            self.check(name, function, parts, matrix, operands)
            self.one_of(IN_PLACE)(self.rng, parts)
        else:
            self.one_of((*IN_PLACE, *REPLACED))(self.rng, parts)
            matrix = parts.build()
            if operands and self.rng.random() < 0.3:
                at = int(self.rng.integers(len(operands)))
                operands[at] = self.broken_operand(operands[at])
        self.check(name, function, parts, matrix, operands)

    def check(self, name: str, function: Any, parts: Parts, matrix: Any, operands: list[Any]) -> None:
        wanted = self.wanted(name, parts, operands)
        before = [x.copy() for x in operands]
        out = None
        if isinstance(wanted, np.ndarray) and name not in ("sddmm", "softmax") and self.rng.random() < 0.3:
            out = fenced(np.zeros(wanted.shape))
        try:
            got = function(matrix, *operands, out=out) if out is not None else function(matrix, *operands)
        except pa.errors.PolyAIError as error:
            self.seen[type(error).__name__] += 1
            if wanted is not None:
                raise AssertionError(f"{name} of a well formed {parts.kind} was refused: {parts}") from error
        else:
            self.seen["results"] += 1
            assert out is None or got is out
            if wanted is None and not self.nothing_to_read(parts, operands):
                raise AssertionError(f"{name} took a malformed {parts.kind}: {parts}, {[x.shape for x in operands]}")
            if wanted is not None:
                np.testing.assert_allclose(dense(got), wanted, rtol=1e-9, atol=1e-9)
        for x, old in zip(operands, before):
            np.testing.assert_array_equal(x, old)

    def nothing_to_read(self, parts: Parts, operands: list[Any]) -> bool:
        """A size is 0, or nothing is stored by the matrix's own account: then a kernel may not look at it at all."""
        stored = len(parts.values) if parts.pointers is None else parts.pointers[-1]
        return not stored or 0 in (*parts.shape, *(e for x in operands for e in x.shape))

    def wanted(self, name: str, parts: Parts, operands: list[Any]) -> Any:
        """The result, or None if the call must be refused."""
        operation = OPERATIONS[name]
        found = parts.coordinates()
        if found is None:
            return None
        sizes: dict[str, int] = {"n": parts.shape[0], "m": parts.shape[1]}
        for shape, x in zip(operation.operands, operands):
            if x.ndim != len(shape):
                return None
            for letter, extent in zip(shape, x.shape):
                if sizes.setdefault(letter, extent) != extent:
                    return None
        r, c, v = found
        if not operation.linear and len(set(zip(r.tolist(), c.tolist()))) != len(r):
            return None
        with np.errstate(all="ignore"):
            return operation.meaning(r, c, v, parts.shape, *operands)


def main(arguments: list[str]) -> None:
    calls, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    fuzz = Fuzz(seed)
    for _ in range(calls):
        fuzz.call()
    print(f"{calls} calls:", dict(sorted(fuzz.seen.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
