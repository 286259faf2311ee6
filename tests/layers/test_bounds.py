"""Layer.bounds: every value that a layer computes, from inputs of the box and its corners, lies in its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers.bounds import ChannelBox, bent_at_zero, mapped, multiplied, scaled, weighted_sums
from sslnet.layers.channels import channel_axis
from sslnet.net.net import Net
from sslnet.sources.transformer import DataTransformer

from .cases import CASES
from .harness import Case, draw, inputs

SILENT = {
    "ArrayData",
    "Data",
    "HDF5Data",
    "ImageData",
    "ImageFolderData",
    "MemoryData",
    "WindowData",
    "HDF5Output",
    "Python",
}
"""Types whose nets need files."""


def by_channel(values: np.ndarray, blob) -> tuple[np.ndarray, np.ndarray]:
    axis = channel_axis(blob)
    others = tuple(n for n in range(blob.num_axes) if n != axis)
    return np.atleast_1d(values.min(axis=others)), np.atleast_1d(values.max(axis=others))


def check(net: Net, boxes_of_inputs: dict[str, ChannelBox], values: list[dict[str, np.ndarray]]) -> int:
    """Runs the net on the inputs and compares each top of each layer; returns how many channels had a finite bound."""
    bounded = 0
    for given_values in values:
        for name, array in given_values.items():
            net.blobs[name].data[...] = array
        boxes = dict(boxes_of_inputs)
        for i, layer in enumerate(net.layers):
            bottom, top, names = net.bottoms[i], net.tops[i], net.top_names[i]
            found = layer.bounds([boxes[name] for name in net.bottom_names[i]], top)
            if not layer.IS_SOURCE:
                layer.forward(bottom, top)
            assert len(found) == len(top)
            for name, blob, box in zip(names, top, found):
                if layer.IS_SOURCE and name in boxes:
                    continue
                boxes[name] = box
                if not blob.count:
                    continue
                low, high = by_channel(blob.data.astype(np.float64), blob)
                assert box.size == low.size, layer.TYPE
                assert (low >= box.low).all(), f"{layer.TYPE} {layer.name}: {low.min()} below"
                assert (high <= box.high).all(), f"{layer.TYPE} {layer.name}"
                bounded += int((np.isfinite(box.low) & np.isfinite(box.high)).sum())
    return bounded


def input_values(net: Net, case: Case, low: float, high: float, random: np.random.Generator) -> list[dict]:
    """Random numbers of the box, and its corners: each value at one of the ends."""
    result = []
    for kind in ("inside", "corners", "low", "high"):
        values = {}
        for name in net.inputs:
            shape = net.blobs[name].shape
            if name in case.values or name.startswith("label"):
                values[name] = np.asarray(case.values.get(name, draw(name, shape, random)))
                continue
            floor = 0.5 if name.startswith("positive") else low
            inside = random.uniform(floor, high, shape)
            corner = np.where(random.random(shape) < 0.5, floor, high)
            values[name] = {"inside": inside, "corners": corner, "low": np.full(shape, floor)}.get(
                kind, np.full(shape, high)
            )
        result.append(values)
    return result


CASES_HERE = [
    pytest.param(type_, case, id=f"{type_}-{k}")
    for type_, cases in CASES.items()
    if type_ not in SILENT
    for k, case in enumerate(cases)
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("type_", "case"), CASES_HERE)
def test_values_of_every_layer_lie_in_its_bounds(type_, case, dtype):
    case = case if isinstance(case, Case) else Case(case)
    random = np.random.default_rng(3)
    for phase in {case.phase, pb.TEST}:
        net = Net(prototxt.parse(case.text, pb.NetParameter), phase=phase, dtype=dtype, seed=1, plain=True)
        for param in net.learnable:
            if param.layer.TYPE != "Filter":  # its numbers choose channels
                param.blob.data[...] = random.standard_normal(param.blob.shape)
            if param.layer.TYPE == "BatchNorm":
                param.blob.data[...] = random.uniform(0.5, 2, param.blob.shape)
        for low, high in ((-1.5, 2.0), (0.25, 0.75), (-0.75, -0.25)):
            boxes = {}
            for name in net.inputs:
                axis = channel_axis(net.blobs[name])
                count = net.blobs[name].shape[axis] if net.blobs[name].num_axes else 1
                floor = 0.5 if name.startswith("positive") else low
                boxes[name] = ChannelBox.of(min(floor, high), max(floor, high), count)
                if name in case.values or name.startswith("label"):
                    boxes[name] = ChannelBox.unknown(count)
            values = input_values(net, case, low, max(high, 0.5) if "positive" in case.text else high, random)
            for name in net.inputs:
                if name.startswith("positive"):
                    boxes[name] = ChannelBox.of(0.5, max(high, 0.5), boxes[name].size)
            check(net, boxes, values)


BOUNDED = {
    "AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Concat", "Convolution", "ConvolutionDepthwise", "Crop", "Deconvolution",
    "DepthwiseConvolution", "Dropout", "ELU", "Eltwise", "Exp", "Flatten", "HardSigmoid", "InnerProduct", "Interp", "LRN",
    "PReLU", "Pooling", "Power", "ReLU", "ReLU6", "Reshape", "SELU", "Scale", "Sigmoid", "Slice", "Softmax", "Split",
    "TanH", "Upsample",
}  # fmt: skip


@pytest.mark.parametrize("type_", sorted(BOUNDED))
def test_layers_that_have_bounds_have_them(type_):
    """In phase TEST, from an input between -1 and 1: at least one of the layer's cases is bounded in all channels."""
    found = False
    for case in CASES[type_]:
        case = case if isinstance(case, Case) else Case(case)
        net = Net(prototxt.parse(case.text, pb.NetParameter), phase=pb.TEST, seed=1, plain=True)
        boxes: dict[str, ChannelBox] = {}
        for i, layer in enumerate(net.layers):
            if layer.IS_SOURCE:
                tops = [ChannelBox.of(-1, 1, b.shape[channel_axis(b)] if b.num_axes else 1) for b in net.tops[i]]
            else:
                tops = layer.bounds([boxes[name] for name in net.bottom_names[i]], net.tops[i])
            if type_ == layer.TYPE:
                found |= bool(np.isfinite(tops[0].low).all() and np.isfinite(tops[0].high).all())
            boxes.update(zip(net.top_names[i], tops))
    assert found


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3)]),
    stride=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    group=st.sampled_from([1, 2]),
    pad=st.sampled_from(["", "pad: 1", "pad_type: SAME"]),
    kind=st.sampled_from(["Convolution", "Deconvolution"]),
    ends=st.tuples(st.floats(-3, 3, width=32), st.floats(0, 3, width=32)),
    seed=st.integers(0, 99),
)
def test_bound_of_a_convolution_is_met_at_a_corner(kernel, stride, group, pad, kind, ends, seed):
    """No value lies outside, and without padding some input of the box comes near each end: the bound is no larger than
    it must be. As the plan runs it, Winograd included."""
    if pad == "pad: 1" and min(kernel) == 1:
        pad = ""
    low, high = np.float32(ends[0]), np.float32(ends[0]) + np.float32(ends[1])
    param = f"num_output: 4 group: {group} kernel_size: {kernel[0]} kernel_size: {kernel[1]} stride: {stride[0]} stride: {stride[1]} {pad}"
    text = f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" convolution_param {{ {param} }} }}'
    net = Net(prototxt.parse(inputs(x=(2, 4, 9, 8)) + text, pb.NetParameter), phase=pb.TEST, seed=1)
    random = np.random.default_rng(seed)
    for blob in net.params["l"]:
        blob.data[...] = random.standard_normal(blob.shape)
    layer = net.layers[-1]
    (box,) = layer.bounds([ChannelBox.of(low, high, 4)], net.tops[-1])
    shape = net.blobs["x"].shape
    for x in (random.uniform(low, high, shape), np.where(random.random(shape) < 0.5, low, high)):
        least, most = by_channel(
            net.forward(x=x.astype(np.float32).clip(low, high))["y"].astype(np.float64), net.blobs["y"]
        )
        assert (least >= box.low).all()
        assert (most <= box.high).all()
    if kind == "Convolution" and not pad:
        for f in range(4):
            weights = layer.blobs[0].data[f]
            first = f // (4 // group) * (4 // group)
            x = np.zeros(shape, np.float32)
            x[:, first : first + len(weights), : kernel[0], : kernel[1]] = np.where(weights > 0, high, low)
            y = net.forward(x=x)["y"][0, f, 0, 0]
            size = (np.abs(weights).sum() * max(abs(low), abs(high)) + abs(float(layer.blobs[1].data[f])) + 1) * 3e-3
            assert abs(y - box.high[f]) <= size


def test_box_of_an_average_over_zeros_is_zero_and_of_another_constant_is_not_exact():
    text = (
        inputs(x=(1, 2, 4, 4))
        + 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: AVE kernel_size: 3 } }'
    )
    net = Net(prototxt.parse(text, pb.NetParameter), phase=pb.TEST)
    (box,) = net.layers[-1].bounds([ChannelBox(np.array([0.0, 0.3]), np.array([0.0, 0.3]))], net.tops[-1])
    assert box.constant.tolist() == [True, False]


def test_zero_weights_make_zero_of_a_channel_without_a_bound():
    box = ChannelBox(np.array([-np.inf, 1.0]), np.array([np.inf, 2.0]))
    weights = np.array([[[0.0], [2.0]], [[1.0], [0.0]], [[0.0], [0.0]]])
    found = weighted_sums(box, weights, np.array([0.5, 0.0, 0.25]), dtype=np.dtype(np.float32), terms=2)
    assert found.low[0] == pytest.approx(2.5, rel=1e-5) and found.high[0] == pytest.approx(4.5, rel=1e-5)
    assert (found.low[1], found.high[1]) == (-np.inf, np.inf)
    assert found.low[2] == found.high[2] == 0.25, "products of zeros and the bias alone are exact"


def test_box_arithmetic_by_hand():
    box = ChannelBox(np.array([-1.0, 2.0, -np.inf]), np.array([3.0, 2.0, 1.0]))
    assert box.constant.tolist() == [False, True, False]
    negative = scaled(box, np.array([-2.0, 0.0, 0.0]))
    assert negative.low.tolist() == [-6, 0, 0] and negative.high.tolist() == [2, 0, 0]
    product = multiplied(box, ChannelBox.of(-1, 2, 3))
    assert product.low.tolist() == [-3, -2, -np.inf] and product.high.tolist() == [6, 4, np.inf]
    single = np.dtype(np.float32)
    relu = bent_at_zero(ChannelBox.of(-2, 1, 1), single, lambda x: np.maximum(x, 0))
    assert (relu.low[0], relu.high[0]) == (0, 1)
    third = mapped(ChannelBox.of(1 / 3, 1 / 3, 1), single, lambda x: -x)
    assert third.low[0] < -1 / 3 < third.high[0], "a third is no float32: the ends are rounded outwards"


@pytest.mark.parametrize(
    ("fields", "box"),
    [
        ("", (0, 255)),
        ("scale: 0.00390625", (0, 0.99609375)),
        ("mean_value: 100 scale: -2", (-310, 200)),
        ("crop_size: 4 brightness: 10", (-10, 265)),
        ("crop_size: 4 contrast: 0.5", (-127.5, 382.5)),
        ("standardize: true", (-math.sqrt(3 * 25 - 1), math.sqrt(3 * 25 - 1))),
        ("mean_value: 100 std_value: 50", (-2, 3.1)),
        ("mean_value: 100 std_value: 50 crop_size: 4 brightness: 10", (-2.2, 3.3)),
        ("mean_value: -10 erasing { probability: 1 }", (0, 265)),
    ],
)
def test_box_of_transformed_bytes(fields, box):
    """By hand, and reached or kept by images of two values."""
    param = prototxt.parse(fields, pb.TransformationParameter).message
    transformer = DataTransformer(
        param, (3, 5, 5), train=True, dtype=np.float32, error=lambda *words: ValueError(words)
    )
    low, high = transformer.bounds(0, 255)
    assert low == pytest.approx(np.full(3, box[0]), rel=1e-3, abs=1e-3)
    assert high == pytest.approx(np.full(3, box[1]), rel=1e-3, abs=1e-3)
    random = np.random.default_rng(1)
    images = (random.random((50, 3, 5, 5)) < random.random((50, 1, 1, 1))).astype(np.uint8) * 255
    images[0] = 0
    images[0, 0, 2, 2] = 255
    out = np.empty((50, *transformer.shape), np.float32)
    transformer(images, out, transformer.draw(random, 50))
    assert out.min() >= low.min() and out.max() <= high.max()


@pytest.mark.parametrize(
    "fields", ["crop_size: 4 rotation: 10", "saturation: 0.5", "hue: 0.1", "resize_shorter: 6 crop_size: 5"]
)
def test_images_that_are_moved_or_recoloured_have_no_box(fields):
    param = prototxt.parse(fields, pb.TransformationParameter).message
    transformer = DataTransformer(
        param, (3, 5, 5), train=True, dtype=np.float32, error=lambda *words: ValueError(words)
    )
    assert transformer.bounds(0, 255) is None
