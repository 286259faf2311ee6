"""Every layer type in a net whose blobs share memory: what a layer does not say it reads is gone when it runs backward."""

from __future__ import annotations

from typing import Any

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS

from ..support.lean import assert_same_results
from .cases import CASES
from .harness import Case

EACH = [
    pytest.param(case if isinstance(case, Case) else Case(case), id=f"{type_}-{number}")
    for type_, cases in CASES.items()
    if type_ in LAYERS
    for number, case in enumerate(cases)
]


def wrapped(text: str) -> str:
    """The net with a layer that reads nothing backward behind each input and each output: for these alone never share."""
    net: Any = prototxt.parse(text, pb.NetParameter).message
    result = pb.NetParameter(force_backward=True)
    inputs = [layer for layer in net.layer if layer.type == "Input"]
    others = [layer for layer in net.layer if layer.type != "Input"]
    for layer in inputs:
        result.layer.add().CopyFrom(layer)
        for top in layer.top:
            result.layer.add(name=f"{top} in", type="Power", bottom=[top], top=[f"{top} in"])
    names = {top: f"{top} in" for layer in inputs for top in layer.top}
    left: dict[str, None] = {}
    for layer in others:
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for field in (copy.bottom, copy.top):
            field[:] = [names.get(name, name) for name in field]
        for name in copy.bottom:
            left.pop(name, None)
        left.update(dict.fromkeys(copy.top[1:] if LAYERS[copy.type].IS_LOSS else copy.top))
    for name in left:
        result.layer.add(name=f"{name} out", type="Power", bottom=[name], top=[f"{name} out"])
    return prototxt.write(result)


@pytest.mark.parametrize("case", EACH)
def test_layer_reads_only_what_it_says(case: Case) -> None:
    assert_same_results(wrapped(case.text), phase=case.phase, values=case.values)
