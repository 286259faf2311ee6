"""Layers of detection nets against OpenCV 4.10 (goldens/detection) and against loops in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DefinitionError, ShapeError
from sslnet.net.net import Net

from .harness import inputs

FOLDER = Path(__file__).parent.parent / "goldens" / "detection"
CASES = sorted(path.stem for path in FOLDER.glob("*.prototxt"))


def make(text: str, phase: int = pb.TRAIN, **settings: object) -> Net:
    return Net(prototxt.parse("force_backward: true\n" + text, pb.NetParameter), phase=phase, **settings)


@pytest.mark.parametrize("case", CASES)
def test_layers_give_what_opencv_gives(case: str) -> None:
    with np.load(FOLDER / f"{case}.npz") as stored:
        arrays = dict(stored)
    wanted = arrays.pop("out")
    net = Net(prototxt.read_net(FOLDER / f"{case}.prototxt"), phase=pb.TEST)
    found = net.forward(**arrays)["y"]
    if case.startswith("detection"):  # OpenCV orders by score alone, and fills up with rows of zeros
        found, wanted = (rows.reshape(-1, 7)[rows.reshape(-1, 7)[:, 2] > 0] for rows in (found, wanted))
        found, wanted = (rows[np.lexsort((-rows[:, 2], rows[:, 0]))] for rows in (found, wanted))
    assert found.size == wanted.size > 0
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)


def rounded(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else -math.floor(0.5 - value)


REGIONS = np.array(
    [
        [0, 0, 0, 7, 7],
        [1, 2, 3, 5, 4],
        [1, -6, -2, 30, 9],
        [0, 6, 6, 2, 2],
        [0, 40, 40, 50, 50],
        [1, 1.5, 2.5, 4.4, 6.6],
    ]
)


def pooled(x: np.ndarray, regions: np.ndarray, rows: int, columns: int, scale: float) -> np.ndarray:
    out = np.zeros((len(regions), x.shape[1], rows, columns))
    for r, (image, x1, y1, x2, y2) in enumerate(regions):
        left, top, right, bottom = (rounded(v * scale) for v in (x1, y1, x2, y2))
        wide, high = max(right - left + 1, 1), max(bottom - top + 1, 1)
        for c, i, j in np.ndindex(out.shape[1:]):
            values = [
                x[int(image), c, h, w]
                for h in range(math.floor(i * high / rows) + top, math.ceil((i + 1) * high / rows) + top)
                for w in range(math.floor(j * wide / columns) + left, math.ceil((j + 1) * wide / columns) + left)
                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
            ]
            out[r, c, i, j] = max(values, default=0)
    return out


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_roi_pooling_is_the_largest_value_of_each_window(scale: float) -> None:
    text = inputs(x=(2, 3, 8, 9), rois=(6, 5)) + (
        'layer { name: "l" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y"'
        f" roi_pooling_param {{ pooled_h: 2 pooled_w: 4 spatial_scale: {scale} }} }}"
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9))
    found = make(text, dtype=np.float64).forward(x=x, rois=REGIONS)["y"]
    np.testing.assert_allclose(found, pooled(x, REGIONS, 2, 4, scale))


def test_psroi_pooling_is_the_mean_of_each_window_of_its_own_channel() -> None:
    text = inputs(x=(2, 8, 8, 9), rois=(6, 5)) + (
        'layer { name: "l" type: "PSROIPooling" bottom: "x" bottom: "rois" top: "y"'
        " psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 2 } }"
    )
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 9))
    found = make(text, dtype=np.float64).forward(x=x, rois=REGIONS)["y"]
    for r, (image, x1, y1, x2, y2) in enumerate(REGIONS):
        left, top = rounded(x1) * 0.5, rounded(y1) * 0.5
        wide = max((rounded(x2) + 1) * 0.5 - left, 0.1) / 2
        high = max((rounded(y2) + 1) * 0.5 - top, 0.1) / 2
        for c, i, j in np.ndindex(2, 2, 2):
            values = [
                x[int(image), (c * 2 + i) * 2 + j, h, w]
                for h in range(max(0, math.floor(i * high + top)), min(8, math.ceil((i + 1) * high + top)))
                for w in range(max(0, math.floor(j * wide + left)), min(9, math.ceil((j + 1) * wide + left)))
            ]
            assert found[r, c, i, j] == pytest.approx(np.mean(values) if values else 0)


@pytest.mark.parametrize("bad", [[2, 0, 0, 3, 3], [-1, 0, 0, 3, 3], [0, np.nan, 0, 3, 3], [0, 0, 0, np.inf, 3]])
@pytest.mark.parametrize("kind", ["ROIPooling", "PSROIPooling"])
def test_regions_that_are_none_are_one_error(kind: str, bad: list[float]) -> None:
    param = {
        "ROIPooling": "roi_pooling_param { pooled_h: 2 pooled_w: 2 }",
        "PSROIPooling": "psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }",
    }[kind]
    text = inputs(x=(2, 4, 5, 5), rois=(2, 5))
    net = make(text + f'layer {{ name: "l" type: "{kind}" bottom: "x" bottom: "rois" top: "y" {param} }}')
    with pytest.raises(BatchError, match="region 1 is"):
        net.forward(x=np.ones((2, 4, 5, 5)), rois=[[0, 0, 0, 1, 1], bad])


def test_no_regions_give_no_images() -> None:
    text = inputs(x=(2, 4, 5, 5), rois=(0, 5))
    net = make(
        text
        + 'layer { name: "l" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y" roi_pooling_param { pooled_h: 2 pooled_w: 2 } }'
    )
    assert net.forward()["y"].shape == (0, 4, 2, 2)
    net.backward()
    assert not net.blobs["x"].diff.any()


@pytest.mark.parametrize("weights", [0, 1, 2])
@pytest.mark.parametrize("kind", ["SmoothL1Loss", "SmoothL1LossOHEM"])
def test_smooth_l1_loss_is_squared_then_linear(kind: str, weights: int) -> None:
    names = ["a", "b", "inside", "outside"][: 2 + weights]
    text = inputs(**dict.fromkeys(names, (3, 4, 2, 1)))
    bottoms = " ".join(f'bottom: "{name}"' for name in names)
    text += (
        f'layer {{ name: "l" type: "{kind}" {bottoms} top: "loss" top: "each" smooth_l1_loss_param {{ sigma: 1.5 }} }}'
    )
    random = np.random.default_rng(1)
    values = {name: random.standard_normal((3, 4, 2, 1)) for name in names}
    net = make(text, dtype=np.float64)
    net.forward(**values)
    wanted, each = 0.0, np.zeros((3, 1, 2, 1))
    for place in np.ndindex(3, 4, 2, 1):
        d = values["a"][place] - values["b"][place]
        d *= values["inside"][place] if weights else 1
        value = 0.5 * 1.5**2 * d * d if abs(d) < 1 / 1.5**2 else abs(d) - 0.5 / 1.5**2
        value *= values["outside"][place] if weights > 1 else 1
        wanted += value
        each[place[0], 0, place[2], place[3]] += value
    assert float(net.blobs["loss"].data) == pytest.approx(wanted / (3 if kind == "SmoothL1Loss" else 6))
    np.testing.assert_allclose(net.blobs["each"].data, each)


def test_smooth_l1_loss_takes_a_fixed_normalizer() -> None:
    text = inputs(a=(2, 3), b=(2, 3)) + (
        'layer { name: "l" type: "SmoothL1Loss" bottom: "a" bottom: "b" top: "loss"'
        " loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 256 } }"
    )
    net = make(text)
    net.forward(a=np.full((2, 3), 3.0), b=np.zeros((2, 3)))
    assert float(net.blobs["loss"].data) == pytest.approx(6 * 2.5 / 256)


@pytest.mark.parametrize("reverse", [False, True])
def test_reorg_has_the_order_of_darknet(reverse: bool) -> None:
    shape = (2, 8, 3, 5) if reverse else (2, 8, 4, 6)
    flag = "reverse: true" if reverse else ""
    net = make(inputs(x=shape) + f'layer {{ name: "l" type: "Reorg" bottom: "x" top: "y" reorg_param {{ {flag} }} }}')
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = net.forward(x=x)["y"].reshape(2, -1)
    n, c, h, w = shape
    wanted = np.zeros((n, c * h * w), np.float32)
    for b in range(n):
        flat = x[b].reshape(-1)
        for k, j, i in np.ndindex(c, h, w):
            c2, offset = k % (c // 4), k // (c // 4)
            there = (i * 2 + offset % 2) + w * 2 * ((j * 2 + offset // 2) + h * 2 * c2)
            here = i + w * (j + h * k)
            wanted[b, there if reverse else here] = flat[here if reverse else there]
    np.testing.assert_array_equal(found, wanted)
    assert net.blobs["y"].shape == ((2, 2, 6, 10) if reverse else (2, 32, 2, 3))


def test_detections_without_any_box_are_a_row_an_image() -> None:
    text = inputs(loc=(2, 8), conf=(2, 4), priors=(1, 2, 8))
    text += (
        'layer { name: "l" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"'
        " detection_output_param { num_classes: 2 code_type: CENTER_SIZE confidence_threshold: 0.9 nms_param { } } }"
    )
    net = make(text.replace("force_backward", "debug_info"), pb.TEST)
    found = net.forward(loc=np.zeros((2, 8)), conf=np.zeros((2, 4)), priors=np.zeros((1, 2, 8)))["y"]
    assert found.tolist() == [[[[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]]]]


def test_detections_of_boxes_without_area_and_scores_that_are_no_numbers() -> None:
    text = inputs(loc=(1, 16), conf=(1, 8), priors=(1, 2, 16))
    text += (
        'layer { name: "l" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"'
        " detection_output_param { num_classes: 2 nms_param { nms_threshold: 0.5 } keep_top_k: 3 } }"
    )
    net = make(text, pb.TEST)
    conf = np.array([[0.1, 0.9, 0.2, 0.8, 0.3, np.nan, 0.4, 0.6]])
    found = net.forward(loc=np.zeros((1, 16)), conf=conf, priors=np.zeros((1, 2, 16)))["y"][0, 0]
    np.testing.assert_allclose(found[:, 2], [0.9, 0.8, 0.6], rtol=1e-6)


def test_annotator_keeps_the_regions_with_the_largest_losses_of_each_image() -> None:
    text = inputs(rois=(6, 5), losses=(6,), labels=(6,), weights=(6, 2))
    bottoms = " ".join(f'bottom: "{name}"' for name in ("rois", "losses", "labels", "weights"))
    text += (
        f'layer {{ name: "l" type: "BoxAnnotatorOHEM" {bottoms} top: "kept" top: "kept_weights"'
        " box_annotator_ohem_param { roi_per_img: 2 ignore_label: -1 } }"
    )
    rois = np.zeros((6, 5))
    rois[:, 0] = [0, 0, 0, 1, 1, 1]
    net = make(text)
    net.forward(rois=rois, losses=[1, 3, 2, 5, 5, 5], labels=[1, 2, 3, 4, 5, 6], weights=np.ones((6, 2)))
    assert net.blobs["kept"].data.tolist() == [-1, 2, 3, 4, 5, -1]
    assert net.blobs["kept_weights"].data[:, 1].tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithLossOHEM"])
def test_softmax_loss_gives_the_loss_of_each_label(kind: str) -> None:
    text = inputs(x=(3, 4, 2), label=(3, 2)) + (
        f'layer {{ name: "l" type: "{kind}" bottom: "x" bottom: "label" top: "loss" top: "p" top: "each"'
        " loss_param { ignore_label: 3 } loss_weight: 1 loss_weight: 0 loss_weight: 0 }"
    )
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((3, 4, 2)), np.array([[0, 3], [2, 1], [3, 0]])
    net = make(text, dtype=np.float64)
    net.forward(x=x, label=labels)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    wanted = [[0 if k == 3 else -math.log(p[n, k, j]) for j, k in enumerate(row)] for n, row in enumerate(labels)]
    np.testing.assert_allclose(net.blobs["each"].data, wanted)
    assert float(net.blobs["loss"].data) == pytest.approx(np.sum(wanted) / 4)


BN = inputs(x=(4, 3, 2, 2)) + 'layer { name: "b" type: "BN" bottom: "x" top: "y" bn_param { %s } }'


def test_bn_with_slope_bias_mean_and_variance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    slope, bias, mean, variance = random.uniform(0.5, 2, (4, 3))
    weights = pb.NetParameter()
    layer = weights.layer.add(name="b")
    for vector in (slope, bias, mean, variance):
        layer.blobs.add(data=vector).shape.dim.extend([1, 3, 1, 1])
    (tmp_path / "w.caffemodel").write_bytes(weights.SerializeToString())
    x = random.standard_normal((4, 3, 2, 2))
    for fields, phase, batch in (
        ("slope_filler { value: 1 }", pb.TEST, False),
        ("slope_filler { value: 1 } eps: 0.1", pb.TRAIN, True),
        ("frozen: true", pb.TRAIN, False),
    ):
        net = make(BN % fields, phase)
        net.copy_from(str(tmp_path / "w.caffemodel"))
        m = x.mean(axis=(0, 2, 3)) if batch else mean
        v = x.var(axis=(0, 2, 3)) if batch else variance
        eps = 0.1 if "eps" in fields else 1e-5
        wanted = np.stack([slope[c] * (x[:, c] - m[c]) / math.sqrt(v[c] + eps) + bias[c] for c in range(3)], axis=1)
        np.testing.assert_allclose(net.forward(x=x)["y"], wanted, rtol=1e-4, atol=1e-5)
        assert all(param.lr_mult == 0 for param in net.learnable) == ("frozen" in fields)


@pytest.mark.parametrize("mode", ["LEARN", "INFERENCE"])
def test_bn_with_scale_and_shift(tmp_path: Path, mode: str) -> None:
    random = np.random.default_rng(0)
    scale, shift = random.uniform(0.5, 2, (2, 3))
    weights = pb.NetParameter()
    layer = weights.layer.add(name="b")
    for vector in (scale, shift):
        layer.blobs.add(data=vector).shape.dim.extend([1, 3, 1, 1])
    (tmp_path / "w.caffemodel").write_bytes(weights.SerializeToString())
    net = make(BN % f"scale_filler {{ value: 1 }} shift_filler {{ value: 0.001 }} bn_mode: {mode}", pb.TEST)
    net.copy_from(str(tmp_path / "w.caffemodel"))
    x = random.standard_normal((4, 3, 2, 2))
    centered = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    wanted = (centered if mode == "LEARN" else x) * scale[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(net.forward(x=x)["y"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            'type: "ROIPooling" bottom: "x" bottom: "r" roi_pooling_param { pooled_h: 2 }',
            DefinitionError,
            "pooled_w must",
        ),
        (
            'type: "ROIPooling" bottom: "x" bottom: "x" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
            ShapeError,
            "five numbers",
        ),
        (
            'type: "PSROIPooling" bottom: "x" bottom: "r" psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 3 }',
            ShapeError,
            "= 18",
        ),
        ('type: "Reorg" bottom: "x" reorg_param { stride: 3 }', ShapeError, "must divide"),
        ('type: "Transpose" bottom: "x" transpose_param { dim: 0 dim: 1 }', ShapeError, "once"),
        ('type: "Flip" bottom: "r"', ShapeError, "images"),
        ('type: "PriorBox" bottom: "x" bottom: "x" prior_box_param { }', DefinitionError, "min_size is missing"),
        (
            'type: "PriorBox" bottom: "x" bottom: "x" prior_box_param { min_size: 5 max_size: 4 }',
            DefinitionError,
            "max_size must be above",
        ),
        ('type: "SmoothL1Loss" bottom: "x" bottom: "r"', ShapeError, "one shape"),
    ],
)
def test_wrong_settings_are_one_error(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(inputs(x=(2, 8, 4, 4), r=(3, 5)) + f'layer {{ name: "l" top: "y" {text} }}')


def test_dead_channels_in_front_of_a_region_pooling_are_removed(tmp_path: Path) -> None:
    text = inputs(x=(1, 3, 8, 8), rois=(2, 5)) + (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }\n'
        'layer { name: "l" type: "ROIPooling" bottom: "c" bottom: "rois" top: "y" roi_pooling_param { pooled_h: 2 pooled_w: 2 } }\n'
        'layer { name: "i" type: "InnerProduct" bottom: "y" top: "i" inner_product_param { num_output: 3 } }\n'
    )
    (tmp_path / "net.prototxt").write_text(text)
    net = sslnet.Net(str(tmp_path / "net.prototxt"), sslnet.TEST)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.standard_normal(blob.shape)
    net.params["c"][0].data[1] = net.params["c"][1].data[1] = 0
    from sslnet.compress.compaction.needed_channels import find_channels

    (view,) = find_channels([net], run=True)
    assert view.tops[net.layer_names.index("c")][0].keep.tolist() == [0, 2, 3]
