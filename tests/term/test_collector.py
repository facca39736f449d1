import gc

import pytest

from polyai.term.collector import paused


def test_the_collector_stands_still_inside_and_goes_on_after():
    assert gc.isenabled()
    with paused():
        assert not gc.isenabled()
        with paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_an_error_and_stays_off_where_it_was_off():
    with pytest.raises(ValueError), paused():
        raise ValueError
    assert gc.isenabled()
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


class Thing:
    pass


def test_what_was_made_inside_is_old_afterwards_unless_objects_are_frozen():
    with paused():
        thing = Thing()
    assert any(x is thing for x in gc.get_objects(generation=2))
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with paused():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()
