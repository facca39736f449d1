"""The last step of tracing: every size written in terms of the symbols that represent their classes, unused steps dropped.

    input A[A_d0, A_d1], X[X_d0, X_d1]; guard X_d0 == A_d1    ->    input A[A_d0, A_d1], X[A_d1, X_d1]
"""

from __future__ import annotations

from polyai.frontend.sizes import Sizes
from polyai.tensor import nodes as tn
from polyai.tensor.passes.resize import Resize


def settled(program: tn.Program, sizes: Sizes) -> tn.Program:
    """`program` with sizes resolved, steps that no output needs dropped, facts about its own symbols kept."""
    return Resize(sizes.resolve, sizes.texts.__contains__, program.facts).program(program)
