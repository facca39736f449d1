"""python -m benchmarks [SUITE ...] [--data FOLDER] [--threads 1,2] [--rounds R] [--quick | --check] [--out FOLDER]"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

# OpenMP threads of one library that keep spinning would be timed with the next; read when the libraries are loaded.
os.environ.setdefault("KMP_BLOCKTIME", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "100000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks import machine as machines
from benchmarks import peers as adapters
from benchmarks import report, suites
from benchmarks.harness import SUBJECT, Peer, Result, Settings, Unavailable, judge, measure
from benchmarks.suites import Limit, Suite

BUSY = 0.5


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure PolyAI against other libraries.")
    parser.add_argument("suite", nargs="*", help=f"which suites (all): {', '.join(suites.ALL)}")
    parser.add_argument("--data", help="folder with matrix files (.mtx, .mtx.gz, .npz, .smtx, .smtx.gz)")
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas (1,2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per case (9)")
    parser.add_argument("--peers", help="measure against these only, separated by commas")
    parser.add_argument("--quick", action="store_true", help="few matrices, few rounds")
    parser.add_argument("--check", action="store_true", help="check PolyAI's results on every case, time nothing; status 1 if one is wrong")
    parser.add_argument("--out", default="build/benchmarks", help="folder for results.json, results.md, roofline.png")
    parser.add_argument("--no-roofline", action="store_true", help="skip measuring the machine")
    options = parser.parse_args(argv)
    unknown = [s for s in options.suite if s not in suites.ALL]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; known are {', '.join(suites.ALL)}")
    try:
        options.threads = tuple(int(t) for t in options.threads.split(","))
    except ValueError:
        parser.error(f"--threads {options.threads}: write numbers separated by commas")
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    return options


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load_peers(chosen: list[Suite], only: str | None) -> dict[str, Peer]:
    """Adapters that the suites want and this environment has, in the order of adapters.ALL."""
    wanted = {SUBJECT} | {p for s in chosen for p in s.peers}
    if only is not None:
        wanted &= {SUBJECT, *only.split(",")}
    out: dict[str, Peer] = {}
    for name in adapters.ALL:
        if name in wanted:
            try:
                out[name] = adapters.load(name)
            except Unavailable as reason:
                note(f"not measured: {reason}")
    return out


def run_suite(suite: Suite, peers: dict[str, Peer], settings: Settings) -> list[Result]:
    """All results of one suite; a line per case on stderr."""
    if suite.run is not None:
        return suite.run(settings)
    assert suite.cases is not None
    mine = [peers[n] for n in (SUBJECT, *suite.peers) if n in peers]
    if suite.wrap is not None:
        mine = suite.wrap(mine)
    results = []
    for case in suite.cases(settings):
        for threads in suite.threads or settings.threads:
            result = measure(suite.name, case, mine, threads, settings)
            results.append(result)
            shown = "  ".join(f"{t.peer} {report.human(t.median) if t.times else t.problem}" for t in result.timings.values())
            note(f"  {case.name} [{threads}]  {shown}")
    note_untimed(results)
    return results


def note_untimed(results: list[Result]) -> None:
    """How many results of the subject are missing, and why: a suite that refuses every case must not look like one without cases."""
    problems = Counter(r.timings[SUBJECT].problem for r in results if SUBJECT in r.timings and r.timings[SUBJECT].problem)
    for problem, count in problems.most_common():
        note(f"  {SUBJECT} not timed in {count} of {len(results)}: {problem}")


def limit_entry(title: str, limit: Limit, results: list[Result]) -> dict[str, Any]:
    """A limit held against the results, as a row of the summary."""
    timed = [(r.timings[limit.contender].median, r.case) for r in results if r.case.startswith(limit.case) and limit.contender in r.timings]
    worst, _ = max(((t, c) for t, c in timed if t == t), default=(math.nan, ""))
    return {
        "suite": title,
        "against": limit.case,
        "threads": 0,
        "cases": str(len(timed)),
        "figure": report.human(worst),
        "worst": "-",
        "target": f"<= {report.human(limit.seconds)}",
        "met": worst <= limit.seconds,
        "seconds": worst,
    }


def line(entry: dict[str, Any]) -> str:
    return f"{entry['against']} [{entry['threads'] or '-'}] {entry['figure']}, worst {entry['worst']}; {entry['target']}: {'met' if entry['met'] else 'NOT met'}"


def check(chosen: list[Suite], settings: Settings) -> int:
    """Hold PolyAI's results on every case against the references; the number of wrong ones decides the status."""
    subject = adapters.load(SUBJECT)
    wrong, refused, total = 0, 0, 0
    for suite in chosen:
        worst = 0.0
        for case in suite.cases(settings) if suite.cases is not None else ():
            for threads in settings.threads:
                timing = measure(suite.name, case, [subject], threads, settings).timings[SUBJECT]
                total += 1
                worst = max(worst, timing.error)
                if timing.problem:
                    refused += timing.unsupported
                    wrong += not timing.unsupported
                    note(f"  {suite.name} {case.name} [{threads}]: {timing.problem}")
        note(f"{suite.name}: largest error {worst:.3g} times the bound")
    print(f"{total - refused} results checked, {wrong} wrong; {refused} cases not supported")
    return int(wrong > 0)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.check:
        chosen = [suites.load(name) for name in options.suite or suites.ALL]
        return check(chosen, Settings(rounds=0, threads=options.threads, quick=options.quick, data=options.data))
    settings = Settings(
        rounds=3 if options.quick else options.rounds,
        block_s=0.01 if options.quick else 0.02,
        threads=options.threads,
        quick=options.quick,
        data=options.data,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )
    if settings.load is not None and settings.load > BUSY:
        note(f"the load average is {settings.load:.1f}: other programs are running, and times will show it")
    chosen = [suites.load(name) for name in options.suite or suites.ALL]
    peers = load_peers(chosen, options.peers)
    machine = None if options.no_roofline else machines.measure(options.threads)
    sections: list[str] = []
    everything: list[Result] = []
    entries: list[dict[str, Any]] = []
    for suite in chosen:
        note(f"{suite.name}: {suite.title}")
        begin = time.perf_counter()
        try:
            results = run_suite(suite, peers, settings)
        except Unavailable as reason:
            note(f"  left out: {reason}")
            sections.append(f"## {suite.title}\n\nLeft out: {reason}\n")
            continue
        verdicts = [v for t in suite.targets for v in judge(t, results)]
        mine = [report.entry_of(suite.title, v) for v in verdicts] + [limit_entry(suite.title, limit, results) for limit in suite.limits]
        names = list(dict.fromkeys(t for r in results for t in r.timings))
        remarks = suite.remarks(results) if suite.remarks is not None else []
        sections.append("\n\n".join((report.suite_markdown(suite.title, names, results, verdicts), *remarks)))
        everything += results
        entries += mine
        note(f"  {len(results)} results in {time.perf_counter() - begin:.0f} s")
        for entry in mine:
            note("  " + line(entry))
        for remark in remarks:
            note("  " + remark)
    versions = {name: peer.version() for name, peer in peers.items()}
    for path in report.write(Path(options.out), sections, everything, entries, machine, versions, settings):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
