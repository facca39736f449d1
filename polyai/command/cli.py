"""The command `polyai`: demo, bench, spy, explain, cache, info. Exit status 0, 1 after an error, 2 for a wrong command line."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import polyai as pa
from polyai import datasets, measure, progress
from polyai.command import demo, plot, spy
from polyai.errors import OptionError, PolyAIError, TraceError, UnsupportedError
from polyai.machine import cpu
from polyai.measure import Measured
from polyai.options import current, options

Maker = Callable[[], demo.Problem]
GRAPHS_AT_MOST = 2
GENERATED_GRAPHS = ("rmat-14", "bigbird-2048")
POLYNOMIAL = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the status the process should end with."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] | None = getattr(chosen, "run", None)
    if command is None:
        parser.print_help()
        return 2
    try:
        return command(chosen)
    except KeyboardInterrupt:
        print("polyai: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (PolyAIError, OSError, ArithmeticError) as error:
        print(f"polyai: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polyai", description="Compile sparse and dynamic-shape tensor programs.")
    parser.add_argument("--version", action="version", version=f"polyai {pa.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    shown = commands.add_parser("demo", help="a graph network, sparse attention and products on real matrices, checked and timed")
    _measuring(shown, rounds=5)
    shown.add_argument("--out", type=Path, default=Path("polyai-demo"), help="folder for explain.html and roofline.png (polyai-demo)")
    shown.set_defaults(run=_demo)

    bench = commands.add_parser("bench", help="time SpMV, SpMM and SDDMM against SciPy on every matrix of a folder")
    _measuring(bench, rounds=9)
    bench.set_defaults(run=_bench)

    spied = commands.add_parser("spy", help="show a matrix: a picture, its facts, the layout that suits it with the time of each")
    spied.add_argument("file", type=Path, metavar="FILE", help="a matrix or graph: .mtx, .npz or .smtx, also with .gz")
    spied.add_argument("--threads", type=int, help="threads to choose for (all processors)")
    spied.add_argument("--no-measure", action="store_true", help="predict only: compile and time nothing")
    spied.add_argument("--png", type=Path, metavar="FILE", help="also write a picture")
    spied.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    spied.set_defaults(run=_spy)

    explain = commands.add_parser(
        "explain",
        help="show every stage of one compilation",
        description="SCRIPT is a Python file that defines FUNCTION, decorated or not, and its arguments: example_FUNCTION() or "
        "example(), returning a tuple of arguments (or a dict of keyword arguments).",
    )
    explain.add_argument("target", metavar="SCRIPT:FUNCTION")
    explain.add_argument("--stage", help="print this section only")
    explain.add_argument("--html", type=Path, metavar="FILE", help="write a page instead of text")
    explain.set_defaults(run=_explain)

    cache = commands.add_parser("cache", help="show, list or clear the cache of compiled code")
    what = cache.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="every entry: size, last use, key")
    what.add_argument("--clear", action="store_true", help="remove every entry")
    cache.add_argument("action", nargs="?", choices=("export", "import"), help="write all entries to FILE, or take those of FILE")
    cache.add_argument("file", nargs="?", type=Path, metavar="FILE")
    cache.set_defaults(run=_cache)

    info = commands.add_parser("info", help="versions, processor, threads, cache directory")
    info.set_defaults(run=_info)
    return parser


def _measuring(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--data", type=Path, help="a folder with .mtx, .mtx.gz, .npz or .smtx files instead of the shipped matrices")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds per problem ({rounds})")
    parser.add_argument("--threads", type=int, help="threads to use (all processors)")


# -- demo and bench


def _matrices(folder: Path | None) -> dict[str, Any]:
    """The shipped matrices, or those of a folder."""
    found: Mapping[str, Any] = datasets.load_demo() if folder is None else dict(datasets.walk(folder))
    return demo.usable(found)


def _measured(makers: Sequence[Maker], chosen: argparse.Namespace) -> list[Measured]:
    """Every problem, measured; each is made when its turn comes."""
    if chosen.rounds < 1:
        raise OptionError(f"--rounds {chosen.rounds}", "at least one round is needed", "leave it out for the default")
    with _threads(chosen.threads):
        return [demo.run(make(), chosen.rounds) for make in progress.bar(makers, len(makers), "measuring")]


def _demo(chosen: argparse.Namespace) -> int:
    matrices = _matrices(chosen.data)
    makers: list[Maker] = []
    shown: demo.Problem | None = None
    if chosen.data is None:
        digits = datasets.digits()
        shown, accuracy = demo.fitted_network("digits", digits.adjacency, digits.features, digits.labels)
        makers += [partial(_same, shown), partial(demo.sparse_attention, "digits", digits.adjacency)]
        print(f"graph network on digits: {accuracy(pa.jit(shown.program)(*shown.arguments)):.1%} of the held-out nodes are right")
        others = {name: m for name, m in matrices.items() if name in GENERATED_GRAPHS}
    else:
        square = {name: m for name, m in matrices.items() if m.shape[0] == m.shape[1]}
        others = dict(sorted(square.items(), key=lambda item: -item[1].nnz)[:GRAPHS_AT_MOST])
        if others:
            shown = demo.graph_network(*next(iter(others.items())))
    for name, graph in others.items():
        makers += [partial(demo.graph_network, name, graph), partial(demo.sparse_attention, name, graph)]
    results = _measured(makers + demo.products(matrices), chosen)
    _print_table(results)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if shown is not None:
        page = pa.explain(shown.program, *shown.arguments).save(chosen.out / "explain.html")
        print(f"every stage of the graph network: {page}")
    try:
        picture = plot.roofline(chosen.out / "roofline.png", results, ("polyai", "scipy"), *_roofs(chosen.threads))
        print(f"roofline: {picture}")
    except UnsupportedError as error:
        print(f"no roofline: {error.why}; {error.remedy}")
    return 0


def _same(problem: demo.Problem) -> demo.Problem:
    return problem


def _bench(chosen: argparse.Namespace) -> int:
    _print_table(_measured(demo.products(_matrices(chosen.data)), chosen))
    return 0


def _roofs(threads: int | None) -> tuple[float, float]:
    """Bandwidth and peak: the better of NumPy and a kernel of ours for the first, a kernel of ours for the second."""

    def add(a: Any, b: Any) -> Any:
        return a + b

    def polynomial(x: Any) -> Any:
        y = x
        for _ in range(POLYNOMIAL):
            y = y * x + x
        return y

    with _threads(threads):
        bandwidth = max(measure.memory_bandwidth(f) for f in (np.add, pa.jit(add)))
        return bandwidth, measure.peak_f32(pa.jit(polynomial), POLYNOMIAL, repeats=20)


def _threads(count: int | None) -> options:
    return options() if count is None else options(num_threads=count)


def _print_table(results: Sequence[Measured]) -> None:
    width = max(len(m.name) for m in results)
    print(f"{'':{width}}  {'polyai':>10}  {'scipy':>10}  {'scipy/polyai':>12}  {'GFLOP/s':>8}  {'first call':>10}  {'error/bound':>11}")
    for m in results:
        ours, theirs = m.of("polyai"), m.of("scipy")
        print(
            f"{m.name:{width}}  {_time(ours):>10}  {_time(theirs):>10}  {m.ratio:>11.2f}x  {m.flops / ours / 1e9:>8.2f}"
            f"  {_time(m.first_call):>10}  {m.error:>11.2g}"
        )
    print("median of interleaved rounds; every result checked against float64 first (error/bound at most 1)")


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


# -- spy


def _spy(chosen: argparse.Namespace) -> int:
    found = spy.spy(chosen.file, threads=chosen.threads, measure=not chosen.no_measure)
    print(found.text())
    for path in spy.save(found, chosen.png, chosen.html):
        print(f"written: {path}")
    return 0


# -- explain


def _explain(chosen: argparse.Namespace) -> int:
    path, _, name = chosen.target.rpartition(":")
    if not path or not name.isidentifier():
        raise OptionError(f"{chosen.target!r} names no function", "", "write SCRIPT:FUNCTION, such as model.py:layer")
    module = _load(Path(path))
    function = getattr(module, name, None)
    if not callable(function):
        functions = sorted(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise OptionError(f"{path} defines no function {name}", f"it defines {', '.join(functions) or 'none'}", "check the name")
    args, kwargs = _example(module, name, path)
    explanation = pa.explain(function, *args, **kwargs)
    if chosen.html is not None:
        print(explanation.save(chosen.html))
    elif chosen.stage is not None:
        if chosen.stage not in explanation.stages:
            raise OptionError(f"no section {chosen.stage!r}", f"there are {', '.join(explanation.stages)}", "choose one of these")
        print(explanation[chosen.stage])
    else:
        print(explanation)
    return 0


def _load(path: Path) -> ModuleType:
    """The script as a module, under a name of its own so that `if __name__ == "__main__"` does not run."""
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() and path.suffix == ".py" else None
    if spec is None or spec.loader is None:
        raise OptionError(f"{path} is no Python file", "" if path.exists() else "it does not exist", "give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _example(module: ModuleType, name: str, path: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What example_NAME() or example() returns, as positional and keyword arguments."""
    maker = getattr(module, f"example_{name}", None) or getattr(module, "example", None)
    if not callable(maker):
        raise TraceError(
            f"{path} does not say what to call {name} with",
            f"it defines neither example_{name}() nor example()",
            f"add `def example_{name}(): return (A, X)`, returning the arguments",
        )
    given = maker()
    if isinstance(given, dict):
        return (), given
    return (tuple(given) if isinstance(given, (tuple, list)) else (given,)), {}


# -- cache and info


def _cache(chosen: argparse.Namespace) -> int:
    if chosen.action is not None:
        if chosen.file is None:
            raise OptionError(f"cache {chosen.action} needs a file", "", f"write polyai cache {chosen.action} FILE")
        if chosen.action == "export":
            print(f"{pa.cache_export(chosen.file)} entries written to {chosen.file}")
            return 0
        imported = pa.cache_import(chosen.file)
        print(imported)
        return 0 if imported.taken or not imported.refused else 1
    if chosen.clear:
        print(f"{pa.cache_clear()} entries removed")
        return 0
    info = pa.cache_info()
    if chosen.list:
        for entry in info["kernels"]:
            print(f"{entry.bytes:>9}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(entry.used))}  {entry.key}")
        return 0
    print(f"directory  {info['directory'] or 'none: nothing is kept on disk'}")
    print(f"entries    {info['entries']}")
    print(f"bytes      {info['bytes']} of at most {info['limit']}")
    return 0


def _info(chosen: argparse.Namespace) -> int:
    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    host = cpu.host()
    chosen_options = current()
    rows = {
        "polyai": pa.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()}) on {platform.platform()}",
        **{p: version(p) for p in ("numpy", "scipy", "islpy", "llvmlite", "sympy", "matplotlib")},
        "machine": host.triple,
        "vector width": f"{chosen_options.vector_bits or host.vector_bits} bits",
        "threads": str(chosen_options.num_threads or host.cores),
        "scheduler": chosen_options.scheduler,
        "cache": f"{pa.cache_info()['directory']}, at most {chosen_options.cache_bytes >> 20} MiB",
    }
    for name, value in rows.items():
        print(f"{name:13} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
