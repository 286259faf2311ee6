"""Random graphs with random zeros: the compacted net computes what the pruned net computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress import compact
from sslnet.errors import RunError, ShapeError
from sslnet.net import Net

IN_PLACE = ("ReLU", "PReLU", "Dropout", "BatchNorm", "Scale", "Bias")


class Graph:
    """A definition that grows layer by layer, its shapes known all the time.

    blobs  what layers may read: maps of 4 axes, the newest last
    fresh  blobs that nobody has read: the next layer may change them in place
    """

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.message = pb.NetParameter(name="random")
        data = self.message.layer.add(name="data", type="Input", top=["data"])
        data.input_param.shape.add().dim.extend([2, self.number(1, 3), self.number(5, 9), self.number(5, 9)])
        self.shapes = {"data": tuple(data.input_param.shape[0].dim)}
        self.blobs = ["data"]
        self.fresh: set[str] = set()

    def number(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def choose(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def add(self, kind: str, *bottoms: str, tops: int = 1, **fields: Any) -> list[str]:
        """Adds a layer and gives its tops; adds nothing and gives its bottoms where shapes do not fit."""
        name = f"{kind.lower()}{len(self.message.layer)}"
        in_place = kind in IN_PLACE and bottoms[0] in self.fresh and self.number(0, 1) == 1
        layer = pb.LayerParameter(name=name, type=kind, bottom=bottoms, **fields)
        layer.top.extend([bottoms[0]] if in_place else [name if i == 0 else f"{name}_{i}" for i in range(tops)])
        self.message.layer.append(layer)
        try:
            net = Net(self.message, seed=0)
        except ShapeError:  # a kernel larger than what is left of the image
            del self.message.layer[-1]
            return list(bottoms)
        self.shapes = {top: net.blobs[top].shape for param in self.message.layer for top in param.top}
        self.fresh.difference_update(bottoms)
        self.fresh.update(layer.top)
        return list(layer.top)

    def convolution(self, bottom: str, filters: int | None = None, **window: int) -> str:
        channels = self.shapes[bottom][1]
        group = self.choose(1, 1, 1, channels, 2 - channels % 2) if filters is None else 1
        param = pb.ConvolutionParameter(
            num_output=filters or group * self.number(1 + (group == 1), 5 if group == 1 else 2),
            group=group,
            kernel_size=[window.get("kernel", self.number(1, 3))],
            pad=[window.get("pad", self.number(0, 2))],
            stride=[window.get("stride", self.number(1, 2))],
            bias_term=self.number(0, 3) > 0,
        )
        return self.add("Convolution", bottom, convolution_param=param)[0]

    def grow(self) -> None:
        bottom = self.choose(*self.blobs) if self.number(0, 5) == 0 else self.blobs[-1]
        step = self.choose(
            *[self.convolution] * 5,
            *[self.simple] * 4,
            self.normalise,
            *[self.shortcut] * 2,
            self.join,
            self.cut,
            self.deconvolution,
        )
        top = step(bottom)
        if top not in self.blobs:
            self.blobs.append(top)

    def simple(self, bottom: str) -> str:
        pooling = pb.PoolingParameter(
            pool=self.choose(pb.PoolingParameter.MAX, pb.PoolingParameter.AVE),
            kernel_size=self.number(2, 3),
            stride=self.number(1, 2),
            pad=self.number(0, 1),
        )
        region = self.choose(*[pb.LRNParameter.WITHIN_CHANNEL] * 3, pb.LRNParameter.ACROSS_CHANNELS)
        kind, fields = self.choose(
            ("ReLU", {}),
            ("ReLU", {"relu_param": pb.ReLUParameter(negative_slope=0.1)}),
            ("PReLU", {}),
            ("Sigmoid", {}),
            ("Dropout", {}),
            ("Pooling", {"pooling_param": pooling}),
            ("LRN", {"lrn_param": pb.LRNParameter(norm_region=region, local_size=3)}),
        )
        return self.add(kind, bottom, **fields)[0]

    def normalise(self, bottom: str) -> str:
        top = self.add("BatchNorm", bottom)[0]
        return self.add("Scale", top, scale_param=pb.ScaleParameter(bias_term=True))[0]

    def shortcut(self, bottom: str) -> str:
        """A residual block: x, or a product or maximum with it, beside two convolutions of x."""
        inside = self.convolution(bottom, self.number(2, 4), kernel=3, pad=1, stride=1)
        inside = self.add("ReLU", inside)[0]
        inside = self.convolution(inside, self.shapes[bottom][1], kernel=3, pad=1, stride=1)
        sums, others = [pb.EltwiseParameter.SUM] * 4, [pb.EltwiseParameter.MAX, pb.EltwiseParameter.PROD]
        param = pb.EltwiseParameter(operation=self.choose(*sums, *others))
        if param.operation == pb.EltwiseParameter.SUM:
            param.coeff.extend(self.choose([], [], [1, -2], [0.5, 1]))
        return self.add("Eltwise", bottom, inside, eltwise_param=param)[0]

    def deconvolution(self, bottom: str) -> str:
        group = self.choose(1, 1, self.shapes[bottom][1])
        param = pb.ConvolutionParameter(
            num_output=group * self.number(1, 3),
            group=group,
            kernel_size=[self.number(1, 3)],
            pad=[self.number(0, 1)],
            stride=[self.number(1, 2)],
            bias_term=self.number(0, 3) > 0,
        )
        return self.add("Deconvolution", bottom, convolution_param=param)[0]

    def join(self, bottom: str) -> str:
        """Two convolutions of x, one behind the other in the channels."""
        branches = [self.convolution(bottom, self.number(2, 4), kernel=1 + 2 * i, pad=i, stride=1) for i in range(2)]
        return self.add("Concat", *branches)[0]

    def cut(self, bottom: str) -> str:
        """The channels in two parts, one of them changed, and joined again."""
        channels = self.shapes[bottom][1]
        if channels < 2:
            return bottom
        param = pb.SliceParameter(slice_point=[self.number(1, channels - 1)])
        first, second = self.add("Slice", bottom, tops=2, slice_param=param)
        return self.add("Concat", second, self.add("ReLU", first)[0])[0]

    def end(self) -> None:
        """Inner products behind the last blob, and sometimes behind another."""
        for bottom in sorted({self.blobs[-1], self.choose(*self.blobs)}):
            hidden = pb.InnerProductParameter(num_output=self.number(2, 5), transpose=self.number(0, 1) == 1)
            top = self.add("Flatten", bottom)[0] if self.number(0, 2) == 0 else bottom
            top = self.add("ReLU", self.add("InnerProduct", top, inner_product_param=hidden)[0])[0]
            self.add("InnerProduct", top, inner_product_param=pb.InnerProductParameter(num_output=3))


@st.composite
def graphs(draw: Any) -> Any:
    graph = Graph(draw)
    for _ in range(draw(st.integers(2, 6))):
        graph.grow()
    graph.end()
    return graph.message


def prune(net: Net, random: np.random.Generator) -> None:
    """Normal numbers everywhere, then zero rows and columns, never all; the biases of some convolutions are zero.

    Now and then a convolution is zero altogether: a branch that carries nothing.
    Inner products keep theirs, so that no output is a small difference of large numbers, which rounding alone changes.
    """
    for param in net.learnable:
        blob = param.blob.data
        blob[...] = random.standard_normal(blob.shape)
        if param.layer.TYPE == "BatchNorm":
            blob[...] = np.abs(blob) + 0.5
        elif blob.ndim > 1:
            blob /= np.sqrt(blob[0].size)
            for axis in (0, 1):
                gone = random.permutation(blob.shape[axis])[: int(random.uniform(0, 0.7) * blob.shape[axis])]
                blob[gone if axis == 0 else (slice(None), gone)] = 0
            if param.layer.TYPE != "InnerProduct" and random.random() < 0.2:
                blob[...] = 0
        elif param.layer.TYPE == "Convolution" and random.random() < 0.3:
            blob[...] = 0


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(message=graphs(), seed=st.integers(0, 2**32 - 1))
def test_compacted_random_net_equals_the_pruned_net(
    message: Any, seed: int, outputs_agree: Callable[[Any, Any, Any, Any], None]
) -> None:
    net = Net(message, seed=0)
    prune(net, np.random.default_rng(seed))
    weights = net.to_proto()
    try:
        result = compact(prototxt.parse(prototxt.write(message), pb.NetParameter), weights)
    except RunError as error:
        assert "would lose every channel" in error.message
        assume(False)
    outputs_agree(message, weights, result.message, result.weights)
