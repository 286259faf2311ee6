"""Runs models in onnxruntime, if it is installed, to compare outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sslnet.errors import RunError, SslnetError, printable


def run_in_onnxruntime(
    model: bytes | str,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    *,
    error: type[SslnetError] = RunError,
) -> dict[str, np.ndarray] | None:
    """Runs a model, given as its bytes or the path of its file: the outputs by name; None if onnxruntime is not installed.

    The graph is not optimised: onnxruntime would compute constants ahead, also in branches that never run, with unbounded
    memory.

    raises `error` for a model that onnxruntime rejects
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return dict(zip(outputs, session.run(list(outputs), dict(inputs))))
    except MemoryError:
        raise
    except Exception as problem:  # its own exception classes have no other common base
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise error(f"onnxruntime rejects the model: {printable(lines[0][:300])}") from problem
