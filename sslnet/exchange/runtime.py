"""onnxruntime, where it is installed: the other opinion on what a model computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def run_in_onnxruntime(
    model: bytes | str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """The outputs of a model, given as its bytes or the path of its file, by name; None when onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), dict(inputs))))
