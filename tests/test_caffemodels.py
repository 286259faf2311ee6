"""Nets that others trained with Caffe give the outputs that another program computes of them.

Their files are found through SSLNET_TEST_DATA: caffemodels/MODEL/ref_NAME.npz holds inputs, what is done to them and the
outputs, caffemodels/README.md says where each comes from.
"""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet.net.net import Net

DATA = Path(os.environ.get("SSLNET_TEST_DATA", ""))
REFERENCES = sorted((DATA / "caffemodels").glob("*/ref_*.npz")) if str(DATA) != "." else []
TOLERANCE = 1e-4
"""Of the largest magnitude of the output: the reference adds up in another order."""

pytestmark = pytest.mark.data


class Reference:
    """One ref_*.npz: its kinds of input ("real", "seeded") and what comes of them."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        self.preparation: dict[str, Any] = json.loads(str(self.arrays["preproc"]))
        self.kinds = sorted(key.split("__")[1] for key in self.arrays if key.startswith("input_u8__"))

    def under(self, *parts: str) -> dict[str, np.ndarray]:
        prefix = "__".join(parts) + "__"
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def input(self, kind: str) -> np.ndarray:
        preparation = self.preparation
        result = self.arrays[f"input_u8__{kind}"].astype(np.float32)
        result = result * np.float32(preparation["scale"]) + np.float32(preparation["shift"])
        if "chan" in preparation:
            result += np.array(preparation["chan"], np.float32)[:, None, None]
        if preparation.get("mean"):
            result -= np.load(DATA / "data" / "cifar10" / "mean_image.npy").astype(np.float32)
        return result

    def net(self, tmp_path: Path) -> Net:
        weights = self.folder / self.preparation["caffemodel"]
        if not weights.exists():
            packed = weights.with_name(weights.name + ".xz")
            weights = tmp_path / weights.name
            weights.write_bytes(lzma.decompress(packed.read_bytes()))
        return Net(self.folder / self.preparation["prototxt"], weights)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a part of the largest magnitude."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem.removeprefix("ref_"))
def test_trained_net_gives_the_outputs_of_another_program(path: Path, tmp_path: Path) -> None:
    reference = Reference(path)
    net = reference.net(tmp_path)
    (name,) = net.inputs
    for kind in reference.kinds:
        data = reference.input(kind)
        net.blobs[name].reshape(data.shape)
        net.reshape()
        outputs = net.forward(**{name: data})
        for blob, expected in reference.under("out", kind).items():
            error = difference(np.array(outputs[blob]), expected)
            assert error <= TOLERANCE, f"{kind} {blob}: {error:.1e}"


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem.removeprefix("ref_"))
def test_trained_net_gives_the_blobs_of_another_program(path: Path, tmp_path: Path) -> None:
    reference = Reference(path)
    layers = reference.under("layer", "seeded")
    if not layers:
        pytest.skip("the reference has no inner blobs")
    net = reference.net(tmp_path)
    (name,) = net.inputs
    data = reference.input("seeded")[: len(next(iter(layers.values())))]
    net.blobs[name].reshape(data.shape)
    net.reshape()
    for layer, expected in layers.items():
        net.forward(**{name: data}, end=layer)
        (top,) = net.top_names[net.layer_names.index(layer)]
        error = difference(np.array(net.blobs[top].data), expected.reshape(net.blobs[top].shape))
        assert error <= TOLERANCE, f"{layer}: {error:.1e}"
