"""The array that a traced function sees: NumPy's operators, attributes and protocols over the functions of the surface."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from polyai.errors import TraceError
from polyai.frontend.core import Composite
from polyai.frontend.methods import SparseMethods
from polyai.frontend.surface import elementwise as ew
from polyai.frontend.surface import linalg
from polyai.scalar import dtype as dt
from polyai.shapes.expr import symbol
from polyai.sparse import interop
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.frontend import protocol, stored
    from polyai.frontend.surface import functions, indexing, reductions, selecting, shaping, sparse
else:
    functions, protocol = late("polyai.frontend.surface.functions"), late("polyai.frontend.protocol")
    indexing = late("polyai.frontend.surface.indexing")
    reductions = late("polyai.frontend.surface.reductions")
    selecting = late("polyai.frontend.surface.selecting")
    shaping = late("polyai.frontend.surface.shaping")
    sparse, stored = late("polyai.frontend.surface.sparse"), late("polyai.frontend.stored")

_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift", "eq", "ne", "lt", "le", "gt", "ge")


def _yields(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`operator`, but what several arrays act as one says itself what it means beside an array."""

    @functools.wraps(operator)
    def method(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, Composite) else operator(self, other)

    return method


def _beside_composites(cls: type[Any]) -> type[Any]:
    for name in _BINARY:
        setattr(cls, f"__{name}__", _yields(cls.__dict__[f"__{name}__"]))
    return cls


def _matrix_product(left: Any, right: Any) -> bool:
    """Whether `left * right` is the matrix product: the first of them that is sparse is a SciPy matrix, and both have dimensions."""
    if not getattr(left, "ndim", 0) or not getattr(right, "ndim", 0):
        return False
    for value in (left, right):
        if isinstance(value, LazyArray):
            if value.is_sparse:
                return value.is_matrix
        elif interop.is_sparse(value):
            return sparse.is_scipy_matrix(value)
    return False


def _asked_by_scipy() -> str | None:
    """The function of scipy.sparse that asks for a value; None if it is somebody else."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]:
        frame = frame.f_back
    return protocol.scipy_asks(frame)


@_beside_composites
class LazyArray(SparseMethods):
    """A dense or sparse tensor of the program being traced. Its values are not known; its shape and dtype are."""

    __slots__ = ()

    # -- what is known

    @property
    def dtype(self) -> Any:
        """The NumPy dtype."""
        return dt.to_numpy(self.type.dtype)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Ints and symbolic sizes, which compare and convert like ints and then record a guard."""
        return tuple(map(self.tracer.sizes.value, self.type.shape))

    @property
    def ndim(self) -> int:
        return self.rank

    @property
    def size(self) -> Any:
        """The number of elements; of a sparse array the number stored, as in SciPy."""
        if self.is_sparse:
            return sparse.nnz_of(self)
        out: Any = 1
        for extent in self.extents:
            out = out * extent
        return self.tracer.sizes.value(out)

    @property
    def nnz(self) -> Any:
        """The number of stored elements."""
        return sparse.nnz_of(self)

    @property
    def format(self) -> str | None:
        """The storage format's name of a sparse array; None for a dense one."""
        owner = None if self.type.pattern is None else self.tracer.types[self.type.pattern.owner].format
        if owner is None or self.type.pattern is None:
            return None
        turned = self.type.pattern.dims == (1, 0)
        return {"csr": "csc", "csc": "csr"}.get(owner.name, owner.name) if turned else owner.name

    def __len__(self) -> int:
        if not self.rank:
            raise TypeError("len() of a scalar array")
        return int(self.shape[0])

    def __repr__(self) -> str:
        kind = "sparse " if self.is_sparse else ""
        return f"<{kind}{self.type.dtype} {self.tracer.shape_text(self)}>"

    # -- what is not known

    def _value(self, wanted: str) -> Any:
        """The value of a Python int or bool argument, fixed by a guard. Raises TraceError for every other array."""
        hint = self.tracer.scalars.get(self.name)
        if hint is None:
            self._no_value(wanted)
        name = f"{self.name}.value"
        if name not in self.tracer.sizes.texts:
            self.tracer.sizes.add(name, self.tracer.text(self), int(hint), low=-(2**63))
        return type(hint)(self.tracer.sizes.number(symbol(name), f"{wanted} of it was taken"))

    def __format__(self, spec: str) -> str:
        if spec:
            self._no_value("format")
        return repr(self)

    def _no_value(self, wanted: str) -> NoReturn:
        asked = _asked_by_scipy()
        if asked is not None:
            raise TraceError(
                f"{'a constructor' if asked == '__init__' else asked + '()'} of scipy.sparse on {self.tracer.text(self)} while tracing",
                "its values are known only when the kernel runs",
                "write operators (A @ x, A * x), methods of A, or polyai's functions; stored values are put into a copy: B = A.copy(); B.data = ...",
            )
        remedies = {
            "bool": "use where(condition, a, b), or cond for a whole branch",
            "float": "keep it an array, or mark the argument static",
            "int": "mark the argument static, or use a size taken from a shape",
            "format": "print it outside the compiled function",
            "array": "use polyai's functions, or compute it outside the compiled function",
        }
        raise TraceError(
            f"{wanted}() of {self.tracer.text(self)} while tracing", "its value is known only when the kernel runs", remedies.get(wanted, "")
        )

    def __bool__(self) -> bool:
        return bool(self._value("bool"))

    def __index__(self) -> int:
        value = self._value("int")
        return int(value)

    __int__ = __index__

    def __float__(self) -> float:
        if self.weak and self.type.dtype.kind in "bi" and self.name in self.tracer.scalars:
            return float(self._value("float"))
        self._no_value("float")

    def __complex__(self) -> complex:
        self._no_value("complex")

    def item(self, *args: Any) -> NoReturn:
        """Not available while tracing."""
        self._no_value("item")

    tolist = item

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """An array that holds this object, for an operator of SciPy: it then leaves the operation to us. Nobody else gets one."""
        asked = protocol.scipy_asks(sys._getframe(1))
        if asked is not None and asked.startswith("__"):
            whole = np.empty((), object)
            whole[()] = self
            return whole
        if asked is not None:
            raise TraceError(
                f"{asked}() of scipy.sparse on {self.tracer.text(self)} while tracing",
                "its values are known only when the kernel runs",
                "write operators (A @ x, A * x) or polyai's functions, or pass the sparse array as an argument",
            )
        self._no_value("array")

    def __iter__(self) -> Iterator[Any]:
        if not self.rank:
            raise TypeError("iteration over a scalar array")
        for n in range(self.tracer.sizes.number(self.type.shape[0], "iterated over")):
            yield self[n]

    def __contains__(self, item: Any) -> bool:
        self._no_value("bool")

    def __setitem__(self, key: Any, value: Any) -> None:
        listed = self.tracer.data_of.get(id(self))
        if listed is not None:
            return stored.assigned(*listed, key, value)
        raise TraceError(
            f"{self.tracer.text(self)}[...] = ... while tracing", "traced arrays are not changed in place", "write x = x.at[...].set(value)"
        )

    def __hash__(self) -> int:
        return id(self)

    # -- indexing

    def __getitem__(self, key: Any) -> Any:
        return indexing.getitem(self, key)

    @property
    def at(self) -> indexing.At:
        """Functional updates: `x.at[i].set(v)`, `.add(v)`, `.mul(v)`, `.max(v)`, `.min(v)`."""
        return indexing.At(self)

    # -- operators

    def __add__(self, other: Any) -> Any:
        return ew.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return ew.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return ew.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return ew.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return linalg.matmul(self, other) if _matrix_product(self, other) else ew.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return linalg.matmul(other, self) if _matrix_product(other, self) else ew.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return ew.divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return ew.divide(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return ew.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return ew.floor_divide(other, self)

    def __mod__(self, other: Any) -> Any:
        return ew.remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return ew.remainder(other, self)

    def __divmod__(self, other: Any) -> Any:
        return ew.divmod(self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return ew.divmod(other, self)

    def __pow__(self, other: Any) -> Any:
        return linalg.matrix_power(self, other) if self.is_matrix else ew.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return ew.pow(other, self)

    def __matmul__(self, other: Any) -> Any:
        return linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return linalg.matmul(other, self)

    def __neg__(self) -> Any:
        return ew.negative(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return ew.absolute(self)

    def __round__(self, decimals: int = 0) -> Any:
        return ew.round(self, decimals)

    def __invert__(self) -> Any:
        return ew.bitwise_invert(self)

    def __and__(self, other: Any) -> Any:
        return ew.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Any:
        return ew.bitwise_and(other, self)

    def __or__(self, other: Any) -> Any:
        return ew.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Any:
        return ew.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Any:
        return ew.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Any:
        return ew.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Any:
        return ew.left_shift(self, other)

    def __rlshift__(self, other: Any) -> Any:
        return ew.left_shift(other, self)

    def __rshift__(self, other: Any) -> Any:
        return ew.right_shift(self, other)

    def __rrshift__(self, other: Any) -> Any:
        return ew.right_shift(other, self)

    def __eq__(self, other: Any) -> Any:
        return ew.equal(self, other)

    def __ne__(self, other: Any) -> Any:
        return ew.not_equal(self, other)

    def __lt__(self, other: Any) -> Any:
        return ew.less(self, other)

    def __le__(self, other: Any) -> Any:
        return ew.less_equal(self, other)

    def __gt__(self, other: Any) -> Any:
        return ew.greater(self, other)

    def __ge__(self, other: Any) -> Any:
        return ew.greater_equal(self, other)

    # -- protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and self.is_matrix and ufunc is np.multiply:
            return ew.multiply(*inputs)
        return protocol.ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return protocol.function(function, args, kwargs)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return importlib.import_module(functions.__name__)

    # -- methods

    @property
    def T(self) -> Any:
        """All dimensions in reverse."""
        return shaping.permute_dims(self)

    @property
    def mT(self) -> Any:
        """The last two dimensions exchanged."""
        return linalg.matrix_transpose(self)

    @property
    def real(self) -> Any:
        return ew.real(self)

    @property
    def imag(self) -> Any:
        return ew.imag(self)

    def conj(self) -> Any:
        return ew.conj(self) if self.type.dtype.is_complex else self

    conjugate = conj

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        return ew.astype(self, dtype)

    def copy(self, order: Any = None) -> Any:
        """An array of its own: what is put into one (`B.data = ...`) is not in the other."""
        if not self.is_sparse:
            return self
        out = self.tracer.array_type(self.tracer, self.region, self.name, self.type, self.weak, self.is_matrix)
        self.tracer.copies[id(out)] = out
        return out

    def reshape(self, *shape: Any) -> Any:
        return shaping.reshape(self, *shape)

    def flatten(self) -> Any:
        return shaping.flatten(self)

    ravel = flatten

    def transpose(self, *axes: Any) -> Any:
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return shaping.permute_dims(self, order or None)

    def swapaxes(self, axis1: Any, axis2: Any) -> Any:
        return shaping.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Any:
        return shaping.squeeze(self, axis)

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        return shaping.repeat(self, repeats, axis)

    def nonzero(self) -> Any:
        return selecting.nonzero(self)

    def compress(self, condition: Any, axis: Any = None) -> Any:
        return selecting.compress(condition, self, axis)

    def take(self, indices: Any, axis: Any = None) -> Any:
        return indexing.take(self, indices, axis)

    def round(self, decimals: int = 0) -> Any:
        return ew.round(self, decimals)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        return ew.clip(self, min, max)

    def dot(self, other: Any) -> Any:
        return linalg.matmul(self, other) if self.is_sparse else linalg.dot(self, other)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return reductions.sum(self, axis, dtype, keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return reductions.prod(self, axis, dtype, keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return reductions.mean(self, axis, dtype, keepdims)

    def var(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Any:
        return reductions.var(self, axis, dtype, ddof, keepdims)

    def std(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Any:
        return reductions.std(self, axis, dtype, ddof, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.min(self, axis, keepdims)

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.argmax(self, axis, keepdims)

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.argmin(self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.any(self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return reductions.all(self, axis, keepdims)

    def cumsum(self, axis: Any = None, dtype: Any = None) -> Any:
        flat = self if axis is not None else shaping.reshape(self, -1)
        return reductions.cumulative_sum(flat, 0 if axis is None else axis, dtype)

    def diagonal(self, offset: int = 0) -> Any:
        return linalg.diagonal(self, offset)

    def trace(self, offset: int = 0) -> Any:
        return linalg.trace(self, offset)
