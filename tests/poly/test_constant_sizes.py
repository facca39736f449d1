"""Programs without a symbolic size: isl's texts have no parameters there."""

from __future__ import annotations

import dataclasses

import islpy as isl
import pytest

from polyai.errors import ScheduleError
from polyai.lower.tensor_to_poly import lower
from polyai.poly.deps import dependences
from polyai.poly.legal import check
from polyai.poly.nodes import Scop
from polyai.poly.passes.schedule import scheduled
from polyai.scalar import dtype as dt
from polyai.scalar.build import apply, const
from polyai.scalar.expr import Load, Var
from polyai.tensor.nodes import Comprehension, Index, Input, Program, TensorType

INDEX, VECTOR = Var("i", dt.i64), TensorType(dt.f64, (100,))


def running_sum() -> Scop:
    one, zero = const(1, dt.i64), const(0, dt.i64)
    before = apply("where", apply("gt", INDEX, zero), Load("y", (apply("sub", INDEX, one),), dt.f64), const(0.0, dt.f64))
    step = Comprehension("y", VECTOR, (Index("i", 100),), apply("add", before, Load("x", (INDEX,), dt.f64)))
    return lower(Program("running", (Input("x", VECTOR),), (step,), ("y",)))


def test_a_recurrence_is_scheduled() -> None:
    scop = running_sum()
    done, _ = scheduled(scop, {})
    check(done, dependences(scop))
    assert "y[i] -> [(i)]" in str(done.schedule)


@pytest.mark.parametrize(("mark", "place"), [("", "-i"), ('mark: "parallel", child: ', "i"), ('mark: "vector", child: ', "i")])
def test_illegal_schedules_are_refused(mark: str, place: str) -> None:
    scop = running_sum()
    band = f'schedule: "[{{ y[i] -> [({place})] }}]"'
    inner = f"{{ {mark}{{ {band} }} }}" if mark else f"{{ {band} }}"
    schedule = isl.Schedule.read_from_str(isl.DEFAULT_CONTEXT, f'{{ domain: "{{ y[i] : 0 <= i < 100 }}", child: {inner} }}')
    with pytest.raises(ScheduleError, match=r"y runs before y|is carried by the"):
        check(dataclasses.replace(scop, schedule=schedule), dependences(scop))
