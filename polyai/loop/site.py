"""What a failed check means, in a file of its own: kernels from the cache on disk need it and nothing else of the loop nests."""

from __future__ import annotations

from polyai.term.node import node


@node
class Site:
    """What a failed Check means to the user: the error class by name, and the parts of its message.

    `what` may contain `{value}`, the culprit's number."""

    error: str
    what: str
    why: str = ""
    remedy: str = ""
