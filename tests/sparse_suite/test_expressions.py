"""Every case of the suite is right, or is refused with a remedy and listed in refused.txt. The list only shrinks."""

from __future__ import annotations

import pytest

from tests.sparse_suite import cases
from tests.sparse_suite.cases import Group

LISTED = cases.refused()
DEFAULT = cases.groups()
REST = tuple(g for g in cases.groups(full=True) if g not in set(DEFAULT))


@pytest.mark.parametrize("group", DEFAULT, ids=str)
def test_expressions(group: Group) -> None:
    outcome(group)


def test_more_formats(request: pytest.FixtureRequest) -> None:
    """The combinations of formats that are no part of the default: all with --sparse-full, a sample otherwise."""
    chosen = REST if request.config.getoption("--sparse-full") else REST[:: len(REST) // 20]
    for group in chosen:
        outcome(group)


def outcome(group: Group) -> None:
    reason, listed = cases.run(group), LISTED.get(str(group))
    if reason:
        assert listed is not None, f"{group} is refused, which it was not before: {reason}"
    else:
        assert listed is None, f"{group} works now: take it out of the list by `python -m tests.sparse_suite --update`"


def test_the_list_names_groups() -> None:
    assert set(LISTED) <= {str(g) for g in cases.groups(full=True)}


def test_the_suite_is_large() -> None:
    """Of its default part alone; a group's variants have different patterns, sizes or orders."""
    assert len(DEFAULT) >= 400 and sum(len(g.variants) for g in DEFAULT) >= 10_000
    families = {g.expression.family for g in DEFAULT}
    assert len(families) >= 15 and len({g.expression for g in DEFAULT}) >= 120
