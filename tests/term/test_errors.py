"""The classes of errors: text, pickling, and the built-in exceptions they count as."""

import pickle

import pytest

from polyai import errors
from polyai.errors import PolyAIError

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PolyAIError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_text_and_pickling(cls):
    error = cls("A is wrong", "A is 3, B is 4", "make them equal")
    assert str(error) == "A is wrong\n  why: A is 3, B is 4\n  try: make them equal"
    assert str(cls("A is wrong")) == "A is wrong" and str(cls("w", remedy="r")) == "w\n  try: r"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls and (back.what, back.why, back.remedy) == (error.what, error.why, error.remedy)
    assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [(errors.ShapeError, ValueError), (errors.DTypeError, TypeError), (errors.IndexOutOfRangeError, IndexError),
     (errors.UnsupportedError, NotImplementedError), (errors.OptionError, ValueError), (errors.VerifyError, AssertionError)],
)  # fmt: skip
def test_they_can_be_caught_as_built_in_ones(cls, builtin):
    with pytest.raises(builtin):
        raise cls("x")
