"""ONNX Runtime on the CPU, all graph optimisations on, the result written into an array made once (I/O binding)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnxruntime

from benchmarks.harness import Run
from benchmarks.peers.onnx_model import block_model, mlp_model, rowwise_model
from benchmarks.reference import EPS, HEADS


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self) -> None:
        self._threads = 1
        self.kernels = {"rowwise": self.rowwise}
        self.any_rows = {"mlp": lambda weights: self._session(mlp_model(weights)), "block": lambda weights: self._session(block_model(weights, HEADS, EPS))}

    def version(self) -> str:
        return str(onnxruntime.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        self._threads = count
        yield

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return options

    def _session(self, model: bytes) -> Callable[[np.ndarray], np.ndarray]:
        """A model for any number of rows."""
        session = onnxruntime.InferenceSession(model, self._options(), providers=["CPUExecutionProvider"])
        return lambda X: session.run(None, {"X": X})[0]

    def rowwise(self, X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
        session = onnxruntime.InferenceSession(
            rowwise_model(gamma, beta, eps, X.shape[0]), self._options(), providers=["CPUExecutionProvider"]
        )
        out = np.empty_like(X)
        binding = session.io_binding()
        binding.bind_cpu_input("X", X)
        binding.bind_output("Y", "cpu", 0, np.float32, out.shape, out.ctypes.data)

        def run() -> np.ndarray:
            session.run_with_iobinding(binding)
            return out

        return run


PEER = OnnxRuntime()
