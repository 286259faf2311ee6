"""Random graphs for property tests: definitions that grow layer by layer, of all that compaction knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import ShapeError
from sslnet.net.net import Net

IN_PLACE = ("ReLU", "PReLU", "Dropout", "BatchNorm", "Scale", "Bias", "Sigmoid", "Power", "ELU")
POOL = pb.PoolingParameter


class Graph:
    """A definition that grows layer by layer, its shapes known all the time.

    blobs  what layers may read: maps of 4 axes, the newest last
    fresh  blobs that nobody has read: the next layer may change them in place
    """

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.message = pb.NetParameter(name="random")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.blobs = [self.input("data", 2, self.number(1, 3), self.number(5, 9), self.number(5, 9))]
        self.fresh: set[str] = set()

    def number(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def choose(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def input(self, name: str, *shape: int) -> str:
        layer = self.message.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(shape)
        self.shapes[name] = shape
        return name

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
            *[self.convolution] * 7,
            *[self.simple] * 6,
            *[self.moved] * 2,
            *[self.normalise] * 2,
            *[self.shortcut] * 3,
            *[self.gate] * 2,
            *[self.join] * 2,
            self.cut,
            self.twins,
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
            *[("ReLU", {})] * 3,
            ("ReLU", {"relu_param": pb.ReLUParameter(negative_slope=0.1)}),
            ("PReLU", {"prelu_param": pb.PReLUParameter(channel_shared=self.number(0, 3) == 0)}),
            ("Sigmoid", {}),
            ("ELU", {}),
            ("BNLL", {}),
            ("Dropout", {}),
            ("Power", {"power_param": pb.PowerParameter(scale=self.choose(0, 0.5), shift=self.choose(0, 1))}),
            *[("Pooling", {"pooling_param": pooling})] * 2,
            ("LRN", {"lrn_param": pb.LRNParameter(norm_region=region, local_size=3)}),
            ("MVN", {"mvn_param": pb.MVNParameter(across_channels=self.number(0, 3) == 0)}),
            ("Softmax", {}),
            ("Bias", {}),
            ("Scale", {"scale_param": pb.ScaleParameter(bias_term=self.number(0, 1) == 1)}),
        )
        return self.add(kind, bottom, **fields)[0]

    def moved(self, bottom: str) -> str:
        """The same values, or copies or a part of them, in other places."""
        _, channels, height, width = self.shapes[bottom]
        shape = pb.BlobShape(dim=[0, 0, self.choose(1, height), -1])
        order = self.choose([0, 1, 3, 2], [0, 1, 3, 2], [0, 2, 3, 1])
        group = max(d for d in (1, 2, 3) if channels % d == 0)
        kind, fields = self.choose(
            ("Reshape", {"reshape_param": pb.ReshapeParameter(shape=shape)}),
            ("Permute", {"permute_param": pb.PermuteParameter(order=order)}),
            ("ShuffleChannel", {"shuffle_channel_param": pb.ShuffleChannelParameter(group=group)}),
            ("Upsample", {"upsample_param": pb.UpsampleParameter(scale=2)}),
            ("Interp", {"interp_param": pb.InterpParameter(height=height + 1, width=width + 2)}),
            ("Tile", {"tile_param": pb.TileParameter(axis=self.choose(1, 2), tiles=2)}),
            ("Slice", {"slice_param": pb.SliceParameter(axis=2), "tops": 2 - height % 2}),
            ("Split", {"tops": 2}),
        )
        tops = self.add(kind, bottom, **fields)
        if kind == "Slice" and len(tops) == 2:
            return self.add("Concat", *tops, concat_param=pb.ConcatParameter(axis=self.choose(1, 2)))[0]
        return tops[0]

    def normalise(self, bottom: str) -> str:
        if self.number(0, 3) == 0:
            across, shared = self.number(0, 1) == 1, self.number(0, 1) == 1
            param = pb.NormalizeParameter(across_spatial=across, channel_shared=shared)
            return self.add("Normalize", bottom, norm_param=param)[0]
        top = self.add("BatchNorm", bottom)[0]
        return self.add("Scale", top, scale_param=pb.ScaleParameter(bias_term=self.number(0, 3) > 0))[0]

    def gate(self, bottom: str) -> str:
        """Squeeze and excitation: each channel times a number that is computed from all of them; with a shortcut at times."""
        channels = self.shapes[bottom][1]
        if self.number(0, 1):
            inside = self.add("Pooling", bottom, pooling_param=POOL(pool=POOL.AVE, global_pooling=True))[0]
        else:
            inside = self.add("Reduction", bottom, reduction_param=pb.ReductionParameter(operation=4, axis=2))[0]
        for outputs in (self.number(2, 4), channels):
            param = pb.InnerProductParameter(num_output=outputs, bias_term=self.number(0, 2) > 0)
            inside = self.add("InnerProduct", inside, inner_product_param=param)[0]
        inside = self.add(self.choose("Sigmoid", "ReLU"), inside)[0]
        if self.number(0, 2) == 0:
            return self.add("Axpy", inside, bottom, self.convolution(bottom, channels, kernel=1, pad=0, stride=1))[0]
        return self.add(
            "Scale", bottom, inside, scale_param=pb.ScaleParameter(axis=0, bias_term=self.number(0, 3) == 0)
        )[0]

    def twins(self, bottom: str) -> str:
        """Two convolutions with the same weights behind one another, or side by side."""
        channels, names = self.shapes[bottom][1], [f"{what}{len(self.message.layer)}" for what in "wb"]
        param = pb.ConvolutionParameter(num_output=channels, kernel_size=[3], pad=[1])
        specs = [pb.ParamSpec(name=name) for name in names]
        first = self.add("Convolution", bottom, convolution_param=param, param=specs)[0]
        second = self.add("ReLU", first)[0] if self.number(0, 1) else bottom
        second = self.add("Convolution", second, convolution_param=param, param=specs)[0]
        return self.add("Concat", first, second)[0] if self.number(0, 1) else second

    def shortcut(self, bottom: str) -> str:
        """A residual block: x, or a product or maximum with it, beside two convolutions of x."""
        inside = self.convolution(bottom, self.number(2, 4), kernel=3, pad=1, stride=1)
        inside = self.add("ReLU", inside)[0]
        inside = self.convolution(inside, self.shapes[bottom][1], kernel=3, pad=1, stride=1)
        if self.number(0, 3) == 0:
            inside = self.add(self.choose("Sigmoid", "TanH", "Power"), inside)[0]
        sums, others = [pb.EltwiseParameter.SUM] * 3, [pb.EltwiseParameter.MAX, *[pb.EltwiseParameter.PROD] * 2]
        param = pb.EltwiseParameter(operation=self.choose(*sums, *others))
        if param.operation == pb.EltwiseParameter.SUM:
            param.coeff.extend(self.choose([], [], [1, -2], [0.5, 1]))
        third = [self.convolution(bottom, self.shapes[bottom][1], kernel=1, pad=0, stride=1)] * (self.number(0, 4) == 0)
        param.coeff.extend([0.5] * (len(third) if param.coeff else 0))
        return self.add("Eltwise", bottom, inside, *third, eltwise_param=param)[0]

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
        """Inner products behind the last blob, and sometimes behind another; or a sequence layer that it is told to."""
        for bottom in sorted({self.blobs[-1], self.choose(*self.blobs)}):
            if self.number(0, 4) == 0:
                self.sequence(bottom)
                continue
            if self.number(0, 5) == 0:
                bottom = self.add("SPP", bottom, spp_param=pb.SPPParameter(pyramid_height=self.number(1, 2)))[0]
            hidden = pb.InnerProductParameter(num_output=self.number(2, 5), transpose=self.number(0, 1) == 1)
            top = self.add("Flatten", bottom)[0] if self.number(0, 2) == 0 else bottom
            top = self.add("ReLU", self.add("InnerProduct", top, inner_product_param=hidden)[0])[0]
            self.add("InnerProduct", top, inner_product_param=pb.InnerProductParameter(num_output=3))

    def sequence(self, bottom: str) -> None:
        """Words that become vectors, and a layer that reads them one after the other, beside the image."""
        number, steps = len(self.message.layer), 3
        words = self.input(f"words{number}", steps, 2)
        cont = self.input(f"cont{number}", steps, 2)
        table = pb.EmbedParameter(num_output=self.number(2, 4), input_dim=3)
        vectors = self.add("Embed", words, embed_param=table)[0]
        param = pb.RecurrentParameter(num_output=self.number(2, 3))
        self.add(self.choose("LSTM", "RNN"), vectors, cont, bottom, recurrent_param=param)

    def train(self) -> None:
        """A loss in phase TRAIN, a measure in phase TEST, behind the last blob."""
        score = self.message.layer[-1].top[0]
        label = self.input("label", 2)
        for kind, phase in (("SoftmaxWithLoss", pb.TRAIN), ("Accuracy", pb.TEST)):
            layer = self.message.layer.add(name=kind, type=kind, bottom=[score, label], top=[kind])
            layer.include.add(phase=phase)


@st.composite
def graphs(draw: Any) -> Any:
    graph = Graph(draw)
    for _ in range(draw(st.integers(2, 6))):
        graph.grow()
    graph.end()
    if graph.message.layer[-1].type == "InnerProduct" and draw(st.booleans()):
        graph.train()
    return graph.message


def fill_param(param: Any, random: np.random.Generator) -> None:
    """Normal numbers, of matrices and windows small enough for sums of size 1; BatchNorm's statistics are positive."""
    blob = param.blob.data
    blob[...] = random.standard_normal(blob.shape)
    if param.layer.TYPE == "BatchNorm":
        blob[...] = np.abs(blob) + 0.5
    elif blob.ndim > 1:
        blob /= np.sqrt(blob[0].size)
