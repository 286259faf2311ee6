"""A net whose layers work in place computes what the same net does with a blob for each of them, whatever the graph."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.net.net import Net

PARAMS = {
    "Clip": "clip_param { min: -0.5 max: 0.6 }",
    "Convolution": 'convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }',
    "Exp": "exp_param { scale: 0.3 }",
    "Log": "log_param { scale: 0.1 shift: 9 }",
    "Power": "power_param { scale: -0.7 shift: 0.1 }",
    "Reshape": "reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }",
    "Scale": 'scale_param { filler { type: "gaussian" std: 1 } bias_term: true }',
}
IN_PLACE = sorted(
    type_
    for type_, cls in LAYERS.items()
    if cls.IN_PLACE and cls.BOTTOMS[0] == 1 and type_ not in ("Python", "Threshold")
)
APART = ["Convolution", "Eltwise", "LRN", "MVN", "Reshape"]
PRODUCT = ["", "eltwise_param { operation: PROD }", "eltwise_param { operation: PROD stable_prod_grad: false }"]

Plan = list[tuple[str, list[str], str, str]]
"""(type, bottoms, top, parameters) of each layer; in place where the top is the first bottom."""


def draw(seed: int) -> Plan:
    """Some layers, each reading one of the newest blobs."""
    choose = random.Random(seed)
    plan: Plan = []
    blobs = ["c"]
    for number in range(choose.randint(4, 9)):
        bottom, top = choose.choice(blobs[-3:]), f"b{number}"
        if choose.random() < 0.6:
            type_ = choose.choice(IN_PLACE)
            plan.append((type_, [bottom], bottom, PARAMS.get(type_, "")))
            continue
        type_ = choose.choice(APART)
        bottoms = [bottom, choose.choice(blobs)] if type_ == "Eltwise" else [bottom]
        plan.append((type_, bottoms, top, choose.choice(PRODUCT) if type_ == "Eltwise" else PARAMS.get(type_, "")))
        blobs.append(top)
    return plan


def build(plan: Plan, in_place: bool) -> Net:
    text = (
        'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 5 dim: 5 } } }\n'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 1'
        ' weight_filler { type: "xavier" } } }\n'
    )
    newest: dict[str, str] = {}
    for number, (type_, bottoms, top, param) in enumerate(plan):
        names = [newest.get(bottom, bottom) for bottom in bottoms]
        own = f"v{number}" if top == bottoms[0] and not in_place else top
        newest[top] = own
        read = " ".join(f'bottom: "{name}"' for name in names)
        text += f'layer {{ name: "l{number}" type: "{type_}" {read} top: "{own}" {param} }}\n'
    return Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=3)


def results(net: Net) -> list[np.ndarray]:
    """Outputs, the diff of the input, those of the parameters."""
    random_ = np.random.default_rng(0)
    outputs = list(net.forward(x=random_.standard_normal((3, 4, 5, 5))).values())
    net.backward(**{name: random_.standard_normal(net.blobs[name].shape) for name in net.outputs})
    diffs = [net.blobs["x"].diff, *(param.blob.diff for param in net.learnable if param.lr_mult)]
    return [array.copy() for array in (*outputs, *diffs)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a product of Exp may overflow, in both nets alike
@pytest.mark.parametrize("seed", range(60))
def test_net_in_place_is_the_net_with_a_blob_for_each_layer(seed: int) -> None:
    plan = draw(seed)
    for found, expected in zip(results(build(plan, True)), results(build(plan, False)), strict=True):
        finite = np.isfinite(expected)  # 0 / 0 of stable_prod_grad: false is NaN, which a ReLU may take for a 0 or not
        scale = np.abs(expected[finite]).max(initial=1)
        np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-4, atol=1e-4 * scale)
