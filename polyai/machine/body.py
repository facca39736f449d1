"""The function being written with its surroundings: the runtime record, library functions, and space in the arena."""

from __future__ import annotations

from polyai.loop import nodes as lp
from polyai.machine import abi, memory
from polyai.machine.build import RARE, Function
from polyai.machine.expr import Scope

LIMIT = 2**62
"""No arena is this large: sizes whose product overflows count as this many bytes."""


class Body:
    """A function body: the entry, or the task of a parallel loop. `%rt` is the Runtime record in both."""

    def __init__(self, fn: Function, externs: dict[str, str], in_task: bool) -> None:
        self.fn = fn
        self.scope = Scope(fn)
        self.externs = externs
        self.in_task = in_task
        self.cursor = "0"
        self.thread = "0"
        self.once = False  # whether what comes next runs once, and there is much of it: see `apart`
        self.buffers: dict[int, memory.Array] = {}
        self.named: dict[str, lp.LoopExpr] = {}  # what names of indices stand for
        self.ascending: frozenset[tuple[str, str]] = frozenset()  # (x, y): values of which a branch around says x < y

    def nested(self, task: Function) -> Body:
        """The body of a task inside this one."""
        inner = Body(task, {}, in_task=True)
        inner.named = dict(self.named)
        return inner

    def field(self, name: str) -> str:
        """The address of a field of the Runtime record."""
        return self.fn.op(f"getelementptr i8, ptr %rt, i64 {8 * abi.RUNTIME.index(name)}")

    def read_field(self, name: str, kind: str = "i64") -> str:
        return self.fn.op(f"load {kind}, ptr {self.field(name)}")

    def leave_if(self, bad: str, code: str, report: tuple[str, str] | None = None) -> None:
        """Return `code` if the i1 `bad` is true, after writing `report` = (field, value)."""
        fn = self.fn
        leave, stay = fn.label("leave"), fn.label("stay")

        def write() -> None:
            if report is not None:
                fn.do(f"store i64 {report[1]}, ptr {self.field(report[0])}")
            fn.do(f"ret i64 {code}")

        fn.do(f"br i1 {fn.op(f'xor i1 {bad}, true')}, label %{stay}, label %{leave}, {RARE}")
        fn.aside(leave, write)
        fn.start(stay)

    def reserve(self, s: lp.Alloc) -> memory.Array:
        """Take space for `s` from the arena, or leave with NEED_ARENA."""
        fn = self.fn
        size, overflow = self._product([self.scope.index(e).re.ref for e in s.extents] + [str(s.dtype.bytes)])
        size = fn.op(f"and i64 {fn.op(f'add i64 {size}, {abi.ALIGN - 1}')}, {-abi.ALIGN}")
        total, more = size, "false"
        if s.space is lp.Space.THREAD:
            total, more = self._product([size, self.read_field("threads")])
        large = fn.op(f"icmp ugt i64 {size}, {LIMIT}")
        start = self.cursor
        end = fn.op(f"add i64 {start}, {total}")
        beyond = fn.op(f"icmp ugt i64 {end}, {LIMIT}")
        for other in (overflow, more, large):
            beyond = fn.op(f"or i1 {beyond}, {other}")
        needed = fn.op(f"select i1 {beyond}, i64 {LIMIT}, i64 {end}")
        small = fn.op(f"icmp ugt i64 {needed}, {self.read_field('arena_bytes')}")
        self.leave_if(small, str(abi.NEED_ARENA), ("needed", needed))
        self.cursor = end
        ref = fn.op(f"getelementptr i8, ptr {self.read_field('arena', 'ptr')}, i64 {start}")
        if s.zero:
            fn.module.declare("void", "llvm.memset.p0.i64", ("ptr", "i8", "i64", "i1"))
            fn.do(f"call void @llvm.memset.p0.i64(ptr align {abi.ALIGN} {ref}, i8 0, i64 {total}, i1 false)")
        return memory.Array(ref, s.dtype, stride=size if s.space is lp.Space.THREAD else None)

    def _product(self, factors: list[str]) -> tuple[str, str]:
        """The product of unsigned numbers, and whether it overflowed."""
        fn = self.fn
        total, overflow = factors[0], "false"
        for factor in factors[1:]:
            both = fn.intrinsic("llvm.umul.with.overflow.i64", "{i64, i1}", ("i64", total), ("i64", factor))
            total = fn.op(f"extractvalue {{i64, i1}} {both}, 0")
            overflow = fn.op(f"or i1 {overflow}, {fn.op(f'extractvalue {{i64, i1}} {both}, 1')}")
        return total, overflow
