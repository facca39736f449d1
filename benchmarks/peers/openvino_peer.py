"""OpenVINO on the CPU in f32 (no bf16 behind the user's back), latency mode, input and output tensors shared with NumPy."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openvino

from benchmarks.harness import Run
from benchmarks.peers.onnx_model import rowwise_model


class OpenVino:
    name = "openvino"

    def __init__(self) -> None:
        self._threads = 1
        self.kernels = {"rowwise": self.rowwise}

    def version(self) -> str:
        return str(openvino.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        self._threads = count
        yield

    def rowwise(self, X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
        core = openvino.Core()
        model = core.read_model(io.BytesIO(rowwise_model(gamma, beta, eps, X.shape[0])))
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        out = np.empty_like(X)
        request.set_input_tensor(openvino.Tensor(X, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run() -> np.ndarray:
            request.infer()
            return out

        return run


PEER = OpenVino()
