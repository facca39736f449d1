import dataclasses

import pytest

from polyai.term.node import children, field_names, is_node, map_children, node, rewrite, walk


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
