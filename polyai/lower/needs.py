"""Which tensors of a program need an array of their own: whose elements are wanted elsewhere, and bases that nobody else needs."""

from __future__ import annotations

from collections.abc import Iterator

from polyai.scalar.expr import Load, Var
from polyai.tensor import nodes as tn
from polyai.tensor.bodies import loads


def _steps(program: tn.Program) -> Iterator[tn.Comprehension | tn.Scatter]:
    return (s for s in program.body if isinstance(s, (tn.Comprehension, tn.Scatter)))


def _reads(step: tn.Comprehension | tn.Scatter) -> Iterator[Load]:
    for root in (step.body, *(step.at if isinstance(step, tn.Scatter) else ())):
        yield from loads(root)


def needless_bases(program: tn.Program) -> Iterator[tuple[str, str]]:
    """Bases of scatters that nothing else needs: (base, the scatter's target); their array becomes the target's."""
    made = {s.target: s for s in _steps(program)}
    reads = [load.array for s in _steps(program) for load in _reads(s)]
    bases = [s.base for s in _steps(program) if isinstance(s, tn.Scatter) and s.base is not None]
    final: dict[str, str] = {}
    for step in reversed(tuple(_steps(program))):
        if not isinstance(step, tn.Scatter) or step.base is None or step.base not in made or step.base in program.outputs:
            continue
        if step.base in reads or bases.count(step.base) > 1 or made[step.base].type != step.type:
            continue
        final[step.base] = final.get(step.target, step.target)
    yield from final.items()


def read_elsewhere(program: tn.Program) -> Iterator[str]:
    """Tensors whose elements are wanted outside the point that makes them: outputs, bases, what is read along other indices, and products
    that meet another one, `silu(x @ a) * (x @ b)`: one nest makes one product, and the last one has the meeting in its nest."""
    yield from program.outputs
    products: dict[str, None] = {}
    for step in _steps(program):
        own = {i.name for i in step.indices}
        met = {load.array for load in _reads(step)}
        yield from [name for name in products if name in met][:-1]
        if _is_product(step):
            products[step.target] = None
        for load in _reads(step):
            if not all(isinstance(i, Var) and i.name in own for i in load.indices):
                yield load.array
        if isinstance(step, tn.Scatter) and step.base is not None:
            yield step.base


def _is_product(step: tn.Comprehension | tn.Scatter) -> bool:
    """A dense matrix of sums over two others."""
    if not isinstance(step, tn.Comprehension) or not isinstance(step.body, tn.Reduce) or step.within or step.body.within or len(step.indices) < 2:
        return False
    return len({load.array for load in loads(step.body.body) if len(load.indices) > 1}) > 1
