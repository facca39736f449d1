"""Modules that are imported when a name of theirs is first asked for.

    if TYPE_CHECKING:
        from polyai.runtime import archive       what the type checker and the test of the floors read
    else:
        archive = late("polyai.runtime.archive")     what happens

For what `import polyai` and most calls do without. The module is one of those that this package, or a library it depends on, has.
"""

from __future__ import annotations

import importlib
from typing import Any


class Late:
    """Stands for a module; its names become attributes of this object when the module has been imported."""

    def __init__(self, name: str) -> None:
        self.__dict__["__name__"] = name

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(self.__dict__["__name__"])
        found = getattr(module, name)
        self.__dict__[name] = found
        return found


def late(name: str) -> Any:
    """The module `name`, imported when it is first used."""
    return Late(name)
