"""Every layer against what Caffe, or PyTorch, computes: each pair of files in goldens/layers is a case (its README.md says how)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.net.net import Net

from .harness import assert_near

FOLDER = Path(__file__).parent.parent / "goldens" / "layers"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))
WAYS = {
    "float32": {"dtype": np.float32},
    "plain": {"dtype": np.float32, "plain": True},
    "float64": {"dtype": np.float64},
}


class Golden:
    """The arrays of one case, by the first part of their key."""

    def __init__(self, case: str) -> None:
        with np.load(FOLDER / f"{case}.npz") as arrays:
            self.arrays = dict(arrays)

    def under(self, *parts: str) -> dict[str, np.ndarray]:
        prefix = "/".join(parts) + "/"
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    @property
    def passes(self) -> list[str]:
        """Prefixes of the forward passes before the last, in order."""
        return sorted({key.split("/")[0] for key in self.arrays if key.startswith("pass")})

    @property
    def outputs(self) -> list[str]:
        return [str(name) for name in self.arrays["outputs"]]


def make_net(case: str, way: str) -> Net:
    definition = prototxt.read_net(FOLDER / f"{case}.prototxt")
    missing = sorted({layer.type for layer in definition.message.layer} - LAYERS.keys())
    if missing:
        pytest.skip(f"no layer type {', '.join(missing)} yet")
    state = definition.message.state
    return Net(definition, phase=state.phase if state.HasField("phase") else pb.TRAIN, seed=1, **WAYS[way])


def param(net: Net, key: str):
    layer, index = key.rsplit("/", 1)
    return net.params[layer][int(index)]


def forward(net: Net, inputs: dict[str, np.ndarray], tops: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    net.forward(**inputs)
    for name, expected in tops.items():
        assert_near(net.blobs[name].data, expected, f"data of {name}")
    for key, expected in after.items():
        assert_near(param(net, key).data, expected, f"parameter {key} after forward")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_layer_computes_what_its_golden_case_says(case, way):
    golden, net = Golden(case), make_net(case, way)
    assert sorted(net.outputs) == sorted(golden.outputs)
    for key, value in golden.under("param_data").items():
        param(net, key).data[...] = value
    for name in golden.passes:
        forward(net, golden.under(name, "input"), golden.under(name, "top"), golden.under(name, "param_after"))
    forward(net, golden.under("input"), golden.under("blob"), golden.under("param_after"))

    if not golden.under("top_diff"):
        return
    weights = {name: float(value) for name, value in golden.under("loss_weight").items()}
    assert net.loss_weights == pytest.approx(weights)
    net.clear_param_diffs()
    net.backward(**{name: value for name, value in golden.under("top_diff").items() if name not in weights})
    for kind in ("bottom_diff", "blob_diff"):
        for name, expected in golden.under(kind).items():
            assert_near(net.blobs[name].diff, expected, f"diff of {name}")
    for key, expected in golden.under("param_diff").items():
        assert_near(param(net, key).diff, expected, f"diff of parameter {key}")


def test_golden_files_come_in_pairs():
    assert sorted(path.stem for path in FOLDER.glob("*.prototxt")) == CASES
