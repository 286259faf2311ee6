"""What the tests of layers share: nets from text, inputs, comparison, the gradient check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net


@dataclass(frozen=True)
class Case:
    """A net around one layer, for the checks that run over the registry.

    text     prototxt; inputs by ``inputs(...)`` below
    phase    pb.TRAIN or pb.TEST
    values   input blobs that must hold something in particular; the others are drawn (see ``draw``)
    ignore   outputs that have no gradient (second tops of losses)
    """

    text: str
    phase: int = pb.TRAIN
    values: Mapping[str, object] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()


def inputs(**shapes: tuple[int, ...]) -> str:
    """Prototxt of an Input layer for each name."""
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + "".join(f"dim: {n} " for n in shape)
        + "} } }\n"
        for name, shape in shapes.items()
    )


def draw(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Values for an input blob, by the first letters of its name: label (whole numbers 0, 1, 2), positive (0.5 to 2),
    else normal."""
    if name.startswith("label"):
        return random.integers(0, 3, shape).astype(float)
    if name.startswith("positive"):
        return random.uniform(0.5, 2, shape)
    return random.standard_normal(shape)


def make_net(case: Case, *, dtype: type = np.float64, force_backward: bool = True) -> Net:
    """The case's net, run plainly, with its inputs in place and every parameter drawn anew (fillers leave zeros)."""
    text = ("force_backward: true\n" if force_backward else "") + case.text
    net = Net(prototxt.parse(text, pb.NetParameter), phase=case.phase, dtype=dtype, seed=1, plain=True)
    random = np.random.default_rng(7)
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = case.values[name] if name in case.values else draw(name, blob.shape, random)
    for param in net.learnable:
        if param.lr_mult:
            param.blob.data[...] = random.standard_normal(param.blob.shape)
    return net


class Objective:
    """A net as a function: its loss plus the sum of its other outputs, each value weighted by a fixed number."""

    def __init__(self, case: Case, net: Net) -> None:
        self.net = net
        self.states = {layer.name: layer.state() for layer in net.layers}
        random = np.random.default_rng(11)
        self.weights = {
            name: random.standard_normal(net.blobs[name].shape)
            for name in net.outputs
            if name not in net.loss_weights and name not in case.ignore
        }

    def value(self) -> float:
        """Forward from the same state as ever: random layers draw what they drew before."""
        self.net.set_layer_states(self.states)
        self.net.forward()
        return self.net.loss + sum(float((self.net.blobs[n].data * w).sum()) for n, w in self.weights.items())

    def backward(self) -> None:
        self.net.backward(**self.weights)

    def rounding(self) -> Iterator[float]:
        """What rounding to single precision may add to the value and to each gradient of ``variables``, where terms cancel.

        A sum of n terms, each off by k roundings, is off by at most about (n + k) u sum |term| in any order of summation,
        u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1 and problem 3.3): the terms
        count, for their sum may be zero, as that of a bias before BatchNorm is. The gradient of a parameter is a sum over
        its layer's outputs. With magnitudes instead of values the layer's own backward sums |term|: exactly so where the
        output is linear in the parameter. Inputs get no allowance. To be called after ``backward``, in float64; it spoils
        the net's values.
        """
        outputs = [self.net.blobs[name].data * w for name, w in self.weights.items()]
        yield _allowance(sum(y.size for y in outputs), sum(np.abs(y).sum() for y in outputs) + abs(self.net.loss))
        self.net.clear_param_diffs()
        for layer, bottoms, tops in zip(self.net.layers, self.net.bottoms, self.net.tops):
            params = [param for param in self.net.learnable if param.layer is layer and param.lr_mult]
            if params:
                for array in (*(b.data for b in bottoms), *(p.blob.data for p in params), *(t.diff for t in tops)):
                    np.abs(array, out=array)
                layer.backward(tops, [False] * len(bottoms), bottoms)
        outputs_of = {layer.name: sum(t.count for t in tops) for layer, tops in zip(self.net.layers, self.net.tops)}
        for param in self.net.learnable:
            if param.lr_mult:
                yield _allowance(outputs_of[param.layer.name], np.abs(param.blob.diff))
        yield from [0.0] * sum(1 for _ in self.variables())

    def variables(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, data, diff) of everything that has a gradient: parameters, and inputs that backward reaches."""
        for param in self.net.learnable:
            if param.lr_mult:
                yield param.name, param.blob.data, param.blob.diff
        for names, needs in zip(self.net.bottom_names, self.net.bottom_need_backward):
            for name, need in zip(names, needs):
                if need and name in self.net.inputs:
                    yield name, self.net.blobs[name].data, self.net.blobs[name].diff


ROUNDINGS = 16
"""Of one term, before it is summed."""


def _allowance(terms: int, magnitudes: np.ndarray | float) -> float:
    return float((terms + ROUNDINGS) * 2.0**-24 * np.max(magnitudes, initial=0))


def check_gradients(case: Case | str, *, step: float = 1e-5, tolerance: float = 1e-6) -> None:
    """Backward agrees with central differences, in float64, for every value of every input and parameter.

    tolerance  relative to the largest derivative of the array, or to 1 when all are smaller
    """
    case = Case(case) if isinstance(case, str) else case
    objective = Objective(case, make_net(case))
    objective.value()
    objective.net.clear_param_diffs()
    objective.backward()
    found = [(name, data, diff.copy()) for name, data, diff in objective.variables()]
    assert found, "nothing in this net has a gradient"
    for name, data, analytic in found:
        numeric = np.zeros_like(data)
        for place in np.ndindex(data.shape):
            kept = data[place]
            data[place] = kept + step
            above = objective.value()
            data[place] = kept - step
            below = objective.value()
            data[place] = kept
            numeric[place] = (above - below) / (2 * step)
        error = np.abs(analytic - numeric).max(initial=0)
        assert error <= tolerance * max(1.0, np.abs(numeric).max(initial=0)), (
            f"gradient of {name} is off by {error:g}:\nbackward\n{analytic}\ndifferences\n{numeric}"
        )


def assert_near(actual: np.ndarray, expected: np.ndarray, what: str, tolerance: float = 1e-4) -> None:
    """Equal within ``tolerance`` of the largest magnitude expected; values beyond 1e30 (-FLT_MAX) count apart.

    Against float64, what is expected may be rounding error itself: differences below 1e-7 are none.
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    huge = np.abs(expected) > 1e30
    np.testing.assert_allclose(actual[huge], expected[huge], rtol=1e-6, err_msg=what)
    rest = expected[~huge]
    scale = np.abs(rest).max(initial=0)
    limit = tolerance * scale if scale else 1e-6
    if actual.dtype == np.float64:
        limit = max(limit, 1e-7)
    np.testing.assert_allclose(actual[~huge], rest, rtol=0, atol=limit, err_msg=what)
