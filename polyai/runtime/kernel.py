"""A compiled kernel: what its slots mean, its object code, and the address to call.

A kernel that is written down is JSON metadata and object bytes; loading one needs neither the compiler nor LLVM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polyai import errors
from polyai.errors import PolyAIError, VerifyError
from polyai.loop.site import Site
from polyai.machine.abi import SITE
from polyai.machine.load import Loaded, load
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.loop import nodes as lp
else:
    lp = late("polyai.loop.nodes")


@node
class Parameter:
    """One slot of the kernel: a size (`rank` None), or an array of `rank` dimensions. `role`: size, input, output."""

    name: str
    dtype: str
    role: str
    rank: int | None = None


@node
class Signature:
    """All that a caller must know of a kernel. `parallel` kernels want a pool; `extra` is the compiler's own, as JSON."""

    name: str
    parameters: tuple[Parameter, ...]
    sites: tuple[Site, ...] = ()
    externs: tuple[str, ...] = ()
    parallel: bool = False

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "name": self.name,
            "parameters": [[p.name, p.dtype, p.role, p.rank] for p in self.parameters],
            "sites": [[s.error, s.what, s.why, s.remedy] for s in self.sites],
            "externs": list(self.externs),
            "parallel": self.parallel,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Signature:
        """The inverse of `to_json`. Raises VerifyError for anything else."""
        try:
            return Signature(
                str(data["name"]),
                tuple(Parameter(str(n), str(d), str(r), None if k is None else int(k)) for n, d, r, k in data["parameters"]),
                tuple(Site(*map(str, site)) for site in data["sites"]),
                tuple(map(str, data["externs"])),
                bool(data["parallel"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise VerifyError("the metadata of a kernel is malformed", repr(error)) from None


def signature_of(kernel: lp.Kernel, externs: tuple[str, ...] = (), parallel: bool = False) -> Signature:
    """The signature of a loop kernel; `externs` in the order of `machine.emit.externs`."""
    parameters = tuple(
        Parameter(p.name, p.dtype.name, p.role, None if p.extents is None else len(p.extents)) for p in kernel.params
    )
    return Signature(kernel.name, parameters, kernel.sites, externs, parallel)


class Kernel:
    """Code in memory. `extra` is whatever the compiler wants to find again beside the code; `known` what a caller worked out from it."""

    __slots__ = ("_loaded", "address", "code", "extern_addresses", "extra", "known", "signature")

    def __init__(self, signature: Signature, code: bytes, extra: dict[str, Any], extern_addresses: tuple[int, ...] = ()) -> None:
        self.signature = signature
        self.code = code
        self.extra = extra
        self.known: Any = None
        self.extern_addresses = extern_addresses
        self._loaded: Loaded = load(code, (signature.name,))
        self.address = self._loaded.addresses[signature.name]

    def failure(self, code: int, culprit: int) -> PolyAIError:
        """The error that a result of the kernel stands for."""
        site = code - SITE
        if 0 <= site < len(self.signature.sites):
            return site_error(self.signature.sites[site], culprit)
        return PolyAIError(
            f"kernel {self.signature.name} failed with code {code}",
            "a library function it called returned this code" if self.signature.externs else "no check of it has this number",
        )


def site_error(site: Site, culprit: int) -> PolyAIError:
    """The exception of a failed check, with the offending number filled in."""
    found = getattr(errors, site.error, PolyAIError)
    kind: type[PolyAIError] = found if isinstance(found, type) and issubclass(found, PolyAIError) else PolyAIError
    parts = (text.replace("{value}", str(culprit)) for text in (site.what, site.why, site.remedy))
    return kind(*parts)
