"""Runs two nets on the same random inputs and compares their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.net.net import Net


def random_input(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers; for inputs of these names 0, 1 or 2 (words, labels), 0 or 1 (cont)."""
    most = {"words": 3, "label": 3, "cont": 2}.get(name.rstrip("0123456789"))
    return random.standard_normal(shape) if most is None else random.integers(0, most, shape)


def assert_same_outputs(first: Net, second: Net, *, tolerance: float = 1e-5, runs: int = 3) -> None:
    """Fails unless both nets, with inputs of the same names and shapes, give the same outputs.

    tolerance  largest difference, as a part of the largest value of the output
    """
    assert first.outputs == second.outputs
    random = np.random.default_rng(7)
    for _ in range(runs):
        inputs: dict[str, Any] = {name: random_input(random, name, first.blobs[name].shape) for name in first.inputs}
        expected = {name: data.copy() for name, data in first.forward(**inputs).items()}
        for name, data in second.forward(**inputs).items():
            most = tolerance * max(np.abs(expected[name]).max(), 1e-30)
            np.testing.assert_allclose(data, expected[name], rtol=0, atol=most, err_msg=name)
