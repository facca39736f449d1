import copy
import dataclasses
import pickle

import pytest

from polyai.term.methods import PLAIN
from polyai.term.node import children, compiled, field_names, is_node, map_children, node, record, rewrite, walk


@node
class Leaf:
    value: int


@node
class Pair:
    left: object
    right: object
    note: str = ""


@node
class Many:
    parts: tuple[object, ...]


TREE = Pair(Many((Leaf(1), (Leaf(2), Leaf(3)))), Leaf(4), "n")


def test_nodes_are_values():
    assert Pair(Leaf(1), Leaf(2)) == Pair(Leaf(1), Leaf(2)) and hash(Leaf(1)) == hash(Leaf(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Leaf(1).value = 2
    assert not hasattr(Leaf(1), "__dict__")
    assert is_node(Leaf(1)) and not is_node((Leaf(1),)) and field_names(Pair) == ("left", "right", "note")


def test_walk_goes_parents_first_left_to_right_through_tuples():
    assert [n.value for n in walk(TREE) if isinstance(n, Leaf)] == [1, 2, 3, 4]
    assert next(iter(walk(TREE))) is TREE
    assert list(children(TREE)) == [TREE.left, Leaf(4)]
    assert list(children(TREE.left)) == [Leaf(1), Leaf(2), Leaf(3)]


def test_map_children_keeps_what_does_not_change():
    assert map_children(TREE, lambda n: n) is TREE
    changed = map_children(TREE, lambda n: Leaf(9) if n == Leaf(4) else n)
    assert changed == Pair(TREE.left, Leaf(9), "n") and changed.left is TREE.left
    assert map_children(Many(()), lambda n: Leaf(0)) == Many(())


def test_rewrite_is_bottom_up():
    doubled = rewrite(TREE, lambda n: Leaf(2 * n.value) if isinstance(n, Leaf) else n)
    assert [n.value for n in walk(doubled) if isinstance(n, Leaf)] == [2, 4, 6, 8]
    summed = rewrite(Pair(Pair(Leaf(1), Leaf(2)), Leaf(3)), lambda n: Leaf(n.left.value + n.right.value) if isinstance(n, Pair) else n)
    assert summed == Leaf(6)
    assert [n.value for n in walk(TREE) if isinstance(n, Leaf)] == [1, 2, 3, 4]


@node
class Sum:
    parts: tuple[object, ...] = ()
    name: str = "sum"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a sum has a name")


@record
class Counted:
    name: str
    uses: int = 0
    places: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("first", [repr, hash, lambda n: n == 3, lambda n: dataclasses.replace(n, right=5), lambda n: type(n)(1)])
def test_the_first_use_of_any_kind_is_as_good_as_the_second(first):
    @node
    class Fresh:
        left: object
        right: object = None

    restored = Fresh.__new__(Fresh)
    restored.__setstate__([1, 2])
    assert first(restored) == first(restored)
    assert restored == Fresh(1, 2) != Fresh(1) == Fresh(left=1, right=None) and hash(restored) == hash(Fresh(1, 2))
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Fresh(*wrong)


def test_nodes_are_dataclasses_to_who_asks():
    changed = dataclasses.replace(Sum((1,)), name="other")
    assert changed == Sum((1,), "other") and [f.name for f in dataclasses.fields(Sum)] == ["parts", "name"]
    assert dataclasses.is_dataclass(Many) and dataclasses.asdict(Leaf(3)) == {"value": 3}
    assert pickle.loads(pickle.dumps(TREE)) == TREE and copy.copy(TREE) == TREE
    with pytest.raises(ValueError):
        Sum(name="")


def test_records_change_and_own_their_defaults():
    first, second = Counted("a"), Counted("a")
    assert first == second and first.places is not second.places and not is_node(first)
    first.places.append(1)
    first.uses += 1
    assert first == Counted("a", 1, [1]) != second and dataclasses.replace(first, name="b") == Counted("b", 1, [1])
    with pytest.raises(TypeError):
        hash(first)
    assert pickle.loads(pickle.dumps(first)) == first


@pytest.mark.parametrize("method", PLAIN)
def test_methods_compiled_with_their_module_are_those_of_their_source(method):
    for fields, made in enumerate(PLAIN[method]):
        wanted, got = compiled(method, fields), made.__code__
        for what in ("co_code", "co_consts", "co_varnames", "co_names", "co_argcount"):
            assert getattr(got, what) == getattr(wanted, what), (fields, what)


@node
class Wide:
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    h: int
    i: int
    j: int
    k: int = 11
    l: tuple[int, ...] = ()  # noqa: E741


def test_classes_of_many_fields_have_methods_too():
    made = Wide(*range(10))
    assert (made.a, made.j, made.k, made.l) == (0, 9, 11, ())
    assert made == Wide(*range(10), k=11) and hash(made) == hash(Wide(*range(10))) and made != Wide(*range(10), l=(1,))


def test_a_missing_field_is_named():
    with pytest.raises(TypeError, match=r"Pair.__init__\(\) missing 1 required positional argument: 'right'"):
        Pair(Leaf(1))
