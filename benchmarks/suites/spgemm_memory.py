"""Peak memory of C = A B in a fresh process: what the call adds to the resident set, with the operands, against what it must hold.

The allowance is 1.5 times operands + result + one dense accumulator per thread (values and marks). Peaks are read from
VmHWM of /proc/self/status, reset before the call; a small product before it loads what the first call loads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from benchmarks.harness import SUBJECT, Result, Settings, Target, Timing, Unavailable
from benchmarks.sparse_results import product_work
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, structure
from benchmarks.suites.sparse_cases import products

ALLOWED = "allowance"
FACTOR = 1.5
PER_COLUMN = 8 + 4
"""Bytes of an accumulator per column: a value and a mark."""
LEAST_WORK = 4_000_000
"""Multiplications from which on the product outweighs what a process holds anyway."""

SCRIPT = """
import json, sys
import numpy as np
import scipy.sparse as sp

who, threads, left, right = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
A = sp.load_npz(left)
B = A if right == left else sp.load_npz(right)

def resident(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

def product(A, B):
    return A @ B

if who == "polyai":
    import polyai as pa
    call = pa.jit(product)
else:
    call = product

small = A[:64, :64].copy()
def run():
    call(small, small)
    before = resident("VmRSS:")
    open("/proc/self/clear_refs", "w").write("5")
    C = call(A, B)
    return C, resident("VmHWM:") - before

try:
    if who == "polyai":
        with pa.options(num_threads=threads):
            C, peak = run()
    else:
        C, peak = run()
    print(json.dumps({"peak": peak, "result": C.data.nbytes + C.indices.nbytes + C.indptr.nbytes}))
except Exception as failure:
    print(json.dumps({"problem": type(failure).__name__ + ": " + (str(failure).splitlines() or [""])[0]}))
"""


def measured(who: str, threads: int, left: str, right: str) -> dict[str, Any]:
    """Peak growth and result bytes of one fresh process, or the problem it met."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, who, str(threads), left, right], capture_output=True, text=True, timeout=600)
    if done.returncode:
        return {"problem": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"}
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


def run(settings: Settings) -> list[Result]:
    if not Path("/proc/self/clear_refs").exists():
        raise Unavailable("peak memory is read from /proc, which only Linux has")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, A, B in products(settings):
            if product_work(A, B) < LEAST_WORK:
                continue
            left, right = str(Path(folder) / "left.npz"), str(Path(folder) / "right.npz")
            for matrix, path in ((A, left), (B, right)):
                sp.save_npz(path, matrix, compressed=False)
            held = structure(A) + (0 if A is B else structure(B))
            for threads in settings.threads:
                timings = {SUBJECT: Timing(SUBJECT), "scipy": Timing("scipy"), ALLOWED: Timing(ALLOWED)}
                for who in ("scipy", SUBJECT):
                    found = measured(who, threads, left, left if A is B else right)
                    timings[who].problem = found.get("problem", "")
                    if "peak" in found:
                        timings[who].times.append(held + found["peak"])
                        allowed = FACTOR * (held + found["result"] + threads * PER_COLUMN * B.shape[1])
                        timings[ALLOWED].times = [allowed]
                results.append(Result("spgemm_memory", name, threads, timings, facts=facts(A), unit="B"))
    return results


SUITE = Suite(
    "spgemm_memory",
    "Peak memory of sparse times sparse, operands included (above 1: within the allowance)",
    run=run,
    targets=(Target(ALLOWED, 1.0, floor=1.0),),
)
