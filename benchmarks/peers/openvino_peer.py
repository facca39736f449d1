"""OpenVINO on the CPU in f32 (no bf16 behind the user's back), latency mode, input and output tensors shared with NumPy."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import openvino

from benchmarks.harness import Run
from benchmarks.peers.onnx_model import block_model, mlp_model, rowwise_model
from benchmarks.reference import EPS, HEADS


class OpenVino:
    name = "openvino"

    def __init__(self) -> None:
        self._threads = 1
        self.kernels = {"rowwise": self.rowwise}
        self.any_rows = {"mlp": lambda weights: self._request(mlp_model(weights)), "block": lambda weights: self._request(block_model(weights, HEADS, EPS))}

    def version(self) -> str:
        return str(openvino.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        self._threads = count
        yield

    def _compiled(self, model: bytes) -> openvino.InferRequest:
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings).create_infer_request()

    def _request(self, model: bytes) -> Callable[[np.ndarray], np.ndarray]:
        """A model for any number of rows."""
        request = self._compiled(model)
        return lambda X: next(iter(request.infer({0: X}, share_inputs=True).values()))

    def rowwise(self, X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
        request = self._compiled(rowwise_model(gamma, beta, eps, X.shape[0]))
        out = np.empty_like(X)
        request.set_input_tensor(openvino.Tensor(X, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run() -> np.ndarray:
            request.infer()
            return out

        return run


PEER = OpenVino()
