"""The last step of tracing: every size written in terms of the symbols that represent their classes, unused steps dropped.

    input A[A_d0, A_d1], X[X_d0, X_d1]; guard X_d0 == A_d1    ->    input A[A_d0, A_d1], X[A_d1, X_d1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyai.frontend.sizes import Sizes
from polyai.tensor import nodes as tn
from polyai.term.late import late

if TYPE_CHECKING:
    from polyai.tensor.passes import resize
else:
    resize = late("polyai.tensor.passes.resize")


def settled(program: tn.Program, sizes: Sizes) -> tn.Program:
    """`program` with sizes resolved, steps that no output needs dropped, facts about its own symbols kept."""
    return resize.Resize(sizes.resolve, sizes.texts.__contains__, program.facts).program(program)
