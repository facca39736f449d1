"""The first call of a graph convolution in a fresh process: nothing cached, served from the disk cache, and the import alone.

Times are taken inside the fresh process after NumPy and SciPy are imported, since the user has them already; the first call counts
from the end of `import polyai`, and so includes what the compiler imports when it is first needed. Python's byte code is kept, as an
installed package has it; the process that fills the disk cache, which is not measured, makes it where it is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import SUBJECT, Result, Settings, Timing
from benchmarks.suites import Limit, Suite

SCRIPT = '''
import json, time
import numpy as np
import scipy.sparse as sp

rng = np.random.default_rng(0)
A = sp.random_array((2000, 2000), density=0.005, format="csr", dtype=np.float32, rng=rng)
X, W, b = (rng.standard_normal(s).astype(np.float32) for s in ((2000, 128), (128, 64), (64,)))

begin = time.perf_counter()
import polyai as pa
imported = time.perf_counter()

@pa.jit
def gcn(A, X, W, b):
    return pa.relu(A @ (X @ W) + b)

Y = gcn(A, X, W, b)
done = time.perf_counter()
expected = np.maximum(A.astype(float) @ (X.astype(float) @ W) + b, 0)
assert np.abs(np.asarray(Y) - expected).max() <= 1e-4 * np.abs(expected).max()
print(json.dumps({"import": imported - begin, "first call": done - imported}))
'''

COLD, CACHED, IMPORT = "first call, empty cache", "first call, from the disk cache", "import polyai"


def _fresh(cache: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"POLYAI_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the fresh process failed")
    out: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return out


def run(settings: Settings) -> list[Result]:
    rounds = 3 if settings.quick else max(settings.rounds, 7)
    timings = {name: Timing(SUBJECT) for name in (COLD, CACHED, IMPORT)}
    try:
        with tempfile.TemporaryDirectory() as warm:
            _fresh(warm)
            for number in range(rounds):
                with tempfile.TemporaryDirectory() as empty:
                    cold = _fresh(str(Path(empty) / str(number)))
                cached = _fresh(warm)
                timings[COLD].times.append(cold["first call"])
                timings[CACHED].times.append(cached["first call"])
                timings[IMPORT].times.append(cached["import"])
    except (RuntimeError, subprocess.TimeoutExpired) as reason:
        for timing in timings.values():
            timing.problem = timing.problem or str(reason)
    return [Result("cold_start", name, 0, {SUBJECT: timing}) for name, timing in timings.items()]


SUITE = Suite(
    "cold_start",
    "Fresh processes",
    run=run,
    limits=(Limit(SUBJECT, COLD, 0.250), Limit(SUBJECT, CACHED, 0.025), Limit(SUBJECT, IMPORT, 0.060)),
)
