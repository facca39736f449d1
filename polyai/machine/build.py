"""Writes LLVM IR as text: a module that collects declarations and helpers, and functions that collect instructions.

Text is an order of magnitude faster to make than objects of a builder library, and needs no import.
"""

from __future__ import annotations

from collections.abc import Callable

from polyai.machine.cpu import Target
from polyai.machine.types import mangled, vector

RARE = "!prof !1"
"""Attached to a conditional branch whose first target is the usual one."""

STABLE = ", !invariant.load !0"
"""Attached to a load of memory that nothing writes while the kernel runs."""


EVEN = ", !unpredictable !0"
"""Attached to a select that shall not become a branch."""

MAX_INLINED = 300
"""Instructions that inlining one short function may add to a module."""


STRAIGHT = 150
"""Lines from which a function without loops is translated as it stands: it runs once in a call, and its many values, all of them alive
from call to call, take LLVM longer than loops of that length."""


class Module:
    """The text of one module. `helper` writes an internal function once, whoever asks first."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.functions: list[str] = []
        self._declared: dict[str, None] = {}
        self._helpers: dict[str, int] = {}
        self._tasks: dict[str, str] = {}
        self._count = 0

    def declare(self, result: str, name: str, params: tuple[str, ...]) -> None:
        self._declared[f"declare {result} @{name}({', '.join(params)})"] = None

    def helper(self, name: str, write: Callable[[], str]) -> None:
        """Count a use of the function `name`, whose text `write` returns; the first use adds it."""
        if name not in self._helpers:
            self._helpers[name] = 0
            self.functions.append(write())
        self._helpers[name] += 1

    def task(self, name: str, text: str) -> str:
        """Add the function `name`; the name of one that does the same, if there is one: all that differs between loops of one form comes
        in through their contexts."""
        form = text.replace(f"@{name}(", "@(", 1)
        if form not in self._tasks:
            self._tasks[form] = name
            self.functions.append(text)
        return self._tasks[form]

    def fresh(self, stem: str) -> str:
        """A function name not used yet in this module."""
        self._count += 1
        return f"{stem}{self._count}"

    def text(self) -> str:
        attributes = 'nounwind "no-trapping-math"="true"'
        if self.target.vector_bits > 128:
            width = self.target.vector_bits
            attributes += f' "prefer-vector-width"="{width}" "min-legal-vector-width"="{width}"'
        functions = [self._inlined_or_not(text) for text in self.functions]
        parts = [f'target triple = "{self.target.triple}"', *functions, *self._declared]
        parts.append(f"attributes #0 = {{ {attributes} }}\nattributes #1 = {{ alwaysinline {attributes} }}\nattributes #2 = {{ optnone noinline {attributes} }}")
        parts.append('!0 = !{}\n!1 = !{!"branch_weights", i32 4000, i32 1}\n!2 = !{i32 1}\n')
        return "\n".join(parts)

    def _inlined_or_not(self, text: str) -> str:
        """A short function (attributes #1) is inlined unless its uses would make the code too long to compile."""
        head = text[: text.index("\n")]
        if not head.endswith("#1 {"):
            return text
        uses = self._helpers[head.partition("@")[2].partition("(")[0]]
        return text if uses * text.count("\n") <= MAX_INLINED else text.replace("#1 {", "#0 {", 1)


class Function:
    """One function under construction: instructions are appended to the block that is open."""

    def __init__(self, module: Module, head: str) -> None:
        """`head` is the definition's first line without attributes, such as `define i64 @f(ptr %args)`."""
        self.module = module
        self.body: list[str] = []
        self.at = "entry"
        self.name = head.partition("@")[2].partition("(")[0]
        self._head = head
        self._allocas: list[str] = []
        self._cold: list[str] = []
        self._count = 0
        self._known: dict[str, str] = {}
        self._epoch = 0
        self.loops = False  # whether there is a loop in it that may take time

    @property
    def lines(self) -> int:
        """Lines so far."""
        return len(self.body) + len(self._cold)

    def op(self, text: str) -> str:
        """Append an instruction with a result, unless the same one was written where it can be seen from here; returns the
        result's name. Loads and calls are written each time; see `read` and `intrinsic`."""
        if text.startswith(("load", "call")):
            return self._write(text)
        ref = self._known.get(text)
        if ref is None:
            ref = self._known[text] = self._write(text)
        return ref

    def _write(self, text: str) -> str:
        self._count += 1
        ref = f"%v{self._count}"
        self.body.append(f"  {ref} = {text}")
        return ref

    def read(self, text: str, stable: bool) -> str:
        """A load that may be shared with an equal one if no memory was written between them (ever, if `stable`)."""
        key = text if stable else f"{self._epoch} {text}"
        ref = self._known.get(key)
        if ref is None:
            ref = self._known[key] = self._write(text)
        return ref

    def written(self) -> None:
        """Memory may have changed: loads before this are not shared with loads after it."""
        self._epoch += 1

    def enter(self) -> dict[str, str]:
        """Begin blocks that do not dominate what follows them; give the result to `leave` at their end."""
        known = self._known
        self._known = dict(known)
        self._epoch += 1
        return known

    def leave(self, known: dict[str, str]) -> None:
        self._known = known
        self._epoch += 1

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self.body.append("  " + text)

    def label(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def start(self, label: str) -> None:
        """Open the block `label`; the one before must have ended in a branch."""
        self.body.append(f"{label}:")
        self.at = label

    def alloca(self, kind: str) -> str:
        """A stack slot in the entry block."""
        self._count += 1
        ref = f"%v{self._count}"
        self._allocas.append(f"  {ref} = alloca {kind}")
        return ref

    def slot(self, ref: str, kind: str) -> None:
        """A stack slot with a name chosen before its type was known."""
        self._allocas.append(f"  {ref} = alloca {kind}")

    def phi(self, kind: str) -> tuple[str, Callable[[list[tuple[str, str]]], None]]:
        """A phi whose (value, block) pairs are given later; to be placed right after `start`."""
        self._count += 1
        ref, body, where = f"%v{self._count}", self.body, len(self.body)
        body.append("")

        def close(incoming: list[tuple[str, str]]) -> None:
            pairs = ", ".join(f"[ {value}, %{block} ]" for value, block in incoming)
            body[where] = f"  {ref} = phi {kind} {pairs}"

        return ref, close

    def aside(self, label: str, write: Callable[[], None]) -> None:
        """Write the block `label` at the end of the function, out of the way of the usual path."""
        hot, at, epoch = self.body, self.at, self._epoch
        known = self.enter()
        self.body = []
        self.start(label)
        write()
        self._cold += self.body
        self.body, self.at = hot, at
        self._known, self._epoch = known, epoch

    def intrinsic(self, name: str, result: str, *args: tuple[str, str]) -> str:
        """Call `@name`, which reads no memory, with (type, value) pairs, declaring it."""
        self.module.declare(result, name, tuple(kind for kind, _ in args))
        text = f"call {result} @{name}({', '.join(f'{kind} {value}' for kind, value in args)})"
        pure = name.startswith("llvm.")
        ref = self._known.get(text) if pure else None
        if ref is None:
            ref = self._known[text] = self._write(text)
        return ref

    def same(self, name: str, elem: str, lanes: int, *values: str) -> str:
        """Call `llvm.NAME` on arguments of one type, which is the result's too."""
        kind = vector(elem, lanes)
        return self.intrinsic(f"llvm.{name}.{mangled(elem, lanes)}", kind, *((kind, value) for value in values))

    def splat(self, value: str, elem: str, lanes: int) -> str:
        """`value` in all lanes."""
        kind = vector(elem, lanes)
        first = self.op(f"insertelement {kind} poison, {elem} {value}, i64 0")
        return self.op(f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")

    def shuffle(self, kind: str, a: str, b: str, picks: list[int]) -> str:
        """The picked lanes of a and b, vectors of type `kind`."""
        chosen = ", ".join(f"i32 {k}" for k in picks)
        return self.op(f"shufflevector {kind} {a}, {kind} {b}, <{len(picks)} x i32> <{chosen}>")

    def text(self, attributes: str = "#0") -> str:
        """The definition. `attributes`: #0 as usual, #1 to be inlined, #2 to be translated as it stands."""
        return "\n".join([self._head + f" {attributes} {{", "entry:", *self._allocas, *self.body, *self._cold, "}"])
