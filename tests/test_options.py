from __future__ import annotations

import threading

import pytest

from polyai.errors import OptionError
from polyai.options import Options, current, defaults, from_environment, options


def test_the_environment_sets_each_option():
    read = from_environment(
        {
            "POLYAI_NUM_THREADS": "3",
            "POLYAI_VECTOR_BITS": "256",
            "POLYAI_CACHE_DIR": "/somewhere",
            "POLYAI_CACHE_BYTES": "1000",
            "POLYAI_SCHEDULER": "isl",
            "POLYAI_BLAS": "never",
            "POLYAI_VERIFY": "1",
            "POLYAI_RECOMPILE_LIMIT": "3",
            "POLYAI_RESULT_BYTES": "2000",
        }
    )
    assert read == Options(3, 256, "/somewhere", 1000, "isl", "never", True, 3, result_bytes=2000)
    assert from_environment({"POLYAI_NUM_THREADS": ""}) == Options()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("POLYAI_NUM_THREADS", "two"),
        ("POLYAI_NUM_THREADS", "0"),
        ("POLYAI_NUM_THREADS", "-1"),
        ("POLYAI_NUM_THREADS", "100000"),
        ("POLYAI_VECTOR_BITS", "100"),
        ("POLYAI_CACHE_BYTES", "1e9"),
        ("POLYAI_CACHE_BYTES", "-5"),
        ("POLYAI_RESULT_BYTES", "-1"),
        ("POLYAI_SCHEDULER", "magic"),
        ("POLYAI_BLAS", "mkl"),
        ("POLYAI_VERIFY", "maybe"),
        ("POLYAI_RECOMPILE_LIMIT", "0"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(variable, text):
    with pytest.raises(OptionError) as caught:
        from_environment({variable: text})
    assert variable in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"num_threads": 0}, {"num_threads": True}, {"num_threads": 1.5}, {"blas": None}, {"cache_dir": ""}, {"verify": 1}]
)
def test_a_bad_value_is_refused_before_the_block(changes):
    with pytest.raises(OptionError), options(**changes):
        raise AssertionError("the block ran")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(OptionError, match="num_threads"):
        options(threads=3)


def test_blocks_nest_and_end_when_an_error_leaves_them():
    with options(num_threads=1) as outer:
        assert current() is outer and outer.num_threads == 1
        with pytest.raises(KeyError), options(blas="never") as inner:
            assert current() is inner and (inner.num_threads, inner.blas) == (1, "never")
            raise KeyError
        assert current() is outer
    assert current() is defaults()


def test_equal_options_are_one_object_so_that_a_pointer_tells_them_apart():
    with options(num_threads=1) as first:
        pass
    again = options(num_threads=1)
    with again as second, again as third:
        assert first is second is third


def test_a_block_holds_in_its_own_thread_only():
    seen = []
    with options(num_threads=1):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [defaults()]
