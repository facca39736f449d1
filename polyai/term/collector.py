"""Python's cyclic garbage collector stands still while a program is compiled.

A compile makes some hundred thousand small objects, nearly all of which are trees without cycles. The collector would walk all that
the process has loaded, over and over, to find nothing: a tenth of the time of a first call.

What was made meanwhile would be walked once more right after, as the youngest generation. It is handed over to the oldest one instead,
by `gc.freeze()` and `gc.unfreeze()`, which join lists and walk nothing: most of it lives as long as the process, and a cycle that was
left behind goes with the next full collection.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No collection inside, and the collector as it was afterwards; what is alive then is old. May be nested.

    Objects that somebody has frozen stay frozen: then nothing is handed over."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()
