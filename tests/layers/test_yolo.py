"""The layers of YOLO against loops in float64 that are written from their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DefinitionError, ShapeError, SslnetError
from sslnet.layers.yolov3_iou import overlap, slope
from sslnet.net.net import Net

from .harness import inputs

BIASES = [1.1, 0.9, 2.3, 3.1, 1.7, 0.6]
PIXELS = [10.0, 14, 40, 22, 30, 61, 70, 50, 90, 110, 20, 20]
H, W, CLASSES = 4, 5, 3


def many(name: str, values: Any) -> str:
    return " ".join(f"{name}: {v}" for v in values)


def make(type_: str, param: str, phase: int = pb.TRAIN, **shapes: tuple[int, ...]) -> Net:
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    text = inputs(**shapes) + f'layer {{ name: "l" type: "{type_}" {bottoms} top: "y" {param} }}'
    return Net(prototxt.parse("force_backward: true\n" + text, pb.NetParameter), phase=phase, dtype=np.float64)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def iou(a: list[float], b: list[float]) -> float:
    """Of boxes by centre and size."""
    wide = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    high = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    common = wide * high if wide > 0 and high > 0 else 0.0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def labels(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    table = np.zeros((2, 1, 6, 5))
    for image, count in ((0, 3), (1, 1)):
        for k in range(count):
            table[image, 0, k] = [
                random.integers(CLASSES),
                *random.uniform(0.05, 0.95, 2),
                *random.uniform(0.1, 0.7, 2),
            ]
    return table


def kept(rows: list[list[float]], threshold: float) -> list[list[float]]:
    """Rows class, score, centre and size after suppression whatever the class, the best first, with corners."""
    rows = sorted(rows, key=lambda r: -r[1])
    left: list[list[float]] = []
    for row in rows:
        if all(iou(row[2:], other[2:]) < threshold for other in left):
            left.append(row)
    return [[c, s, x - w / 2, y - h / 2, x + w / 2, y + h / 2] for c, s, x, y, w, h in left]


def test_yolo_detection_output() -> None:
    x = np.random.default_rng(0).normal(size=(2, 2 * (5 + CLASSES), H, W))
    param = (
        f"num_classes: {CLASSES} num_box: 2 confidence_threshold: 0.25 nms_threshold: 0.3 {many('biases', BIASES[:4])}"
    )
    found = make("YoloDetectionOutput", f"yolo_detection_output_param {{ {param} }}", pb.TEST, x=x.shape).forward(x=x)[
        "y"
    ]
    wanted = []
    for image in range(2):
        rows = []
        for a, i, j in np.ndindex(2, H, W):
            v = x[image, a * (5 + CLASSES) : (a + 1) * (5 + CLASSES), i, j]
            part = [math.exp(u) for u in v[5:]]
            score = sigma(v[4]) * max(part) / sum(part)
            box = [(j + sigma(v[0])) / W, (i + sigma(v[1])) / H, math.exp(v[2]) * BIASES[2 * a] / W,
                   math.exp(v[3]) * BIASES[2 * a + 1] / H]  # fmt: skip
            if score >= 0.25:
                rows.append([1 + int(np.argmax(part)), score, *box])
        wanted += [[image, *row] for row in kept(rows, 0.3)]
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-9)


@pytest.mark.parametrize("gaussian", [False, True])
def test_yolov3_detection_output(gaussian: bool) -> None:
    random, numbers = np.random.default_rng(1), 9 if gaussian else 5
    maps = {
        "a": random.normal(size=(2, 2 * (numbers + CLASSES), H, W)),
        "b": random.normal(size=(2, 2 * (numbers + CLASSES), 8, 10)),
    }
    mask, scales = [2, 1, 0, 3], [16, 8]
    param = (
        f"num_classes: {CLASSES} num_box: 2 confidence_threshold: 0.35 nms_threshold: 0.4 mask_group_num: 2"
        f" {many('biases', PIXELS[:8])} {many('mask', mask)} {many('anchors_scale', scales)} gaussian_box: {str(gaussian).lower()}"
    )
    shapes = {name: array.shape for name, array in maps.items()}
    net = make("Yolov3DetectionOutput", f"yolov3_detection_output_param {{ {param} }}", pb.TEST, **shapes)
    found = net.forward(**maps)["y"]
    wanted = []
    for image in range(2):
        rows = []
        for k, data in enumerate(maps.values()):
            height, width = data.shape[2:]
            for i, j, a in np.ndindex(height, width, 2):
                v = data[image, a * (numbers + CLASSES) : (a + 1) * (numbers + CLASSES), i, j]
                x, y, w, h = v[0:8:2] if gaussian else v[:4]
                doubt = sum(sigma(u) for u in v[1:8:2]) / 4 if gaussian else 0
                n = mask[2 * k + a]
                box = [(j + sigma(x)) / width, (i + sigma(y)) / height, math.exp(w) * PIXELS[2 * n] / (width * scales[k]),
                       math.exp(h) * PIXELS[2 * n + 1] / (height * scales[k])]  # fmt: skip
                for c in range(CLASSES):
                    score = sigma(v[numbers - 1]) * (1 - doubt) * sigma(v[numbers + c])
                    if score > 0.35:
                        rows.append([c + 1, score, *box])
        wanted += [[image, *row] for row in kept(rows, 0.4)]
    assert len(wanted) > 5
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-9)


def test_without_a_box_each_image_has_a_row_of_its_own() -> None:
    param = f"num_classes: {CLASSES} num_box: 2 confidence_threshold: 0.9 {many('biases', BIASES[:4])}"
    shape = (2, 2 * (5 + CLASSES), H, W)
    net = make("YoloDetectionOutput", f"yolo_detection_output_param {{ {param} }}", pb.TEST, x=shape)
    found = net.forward(x=np.full(shape, -9.0))["y"]
    np.testing.assert_array_equal(found[0, 0], [[0, *[-1] * 6], [1, *[-1] * 6]])


@pytest.mark.parametrize(("rescore", "match"), [(1, 1), (0, 0)])
def test_region_loss(rescore: int, match: int) -> None:
    x, table = np.random.default_rng(2).normal(size=(2, 3 * (5 + CLASSES), H, W)), labels(2)
    param = (
        f"num_class: {CLASSES} num: 3 rescore: {rescore} bias_match: {match} object_scale: 5 class_scale: 1.5 noobject_scale: 0.7"
        f" coord_scale: 2 thresh: 0.3 {many('biases', BIASES)}"
    )
    net = make("RegionLoss", f"region_loss_param {{ {param} }}", x=x.shape, label=table.shape)
    loss = float(net.forward(x=x, label=table)["y"])
    net.backward()
    data = x.reshape(2, 3, 5 + CLASSES, H, W)
    wanted = np.zeros_like(data)

    def box(image: int, a: int, i: int, j: int) -> list[float]:
        v = data[image, a, :, i, j]
        return [(j + sigma(v[0])) / W, (i + sigma(v[1])) / H, math.exp(v[2]) * BIASES[2 * a] / W,
                math.exp(v[3]) * BIASES[2 * a + 1] / H]  # fmt: skip

    for image in range(2):
        objects = [row for row in table[image, 0] if row[3]]
        for a, i, j in np.ndindex(3, H, W):
            s = sigma(data[image, a, 4, i, j])
            if max((iou(box(image, a, i, j), list(o[1:])) for o in objects), default=0) <= 0.3:
                wanted[image, a, 4, i, j] = 0.7 * s * s * (1 - s)
        for c, ox, oy, ow, oh in objects:
            j, i = int(ox * W), int(oy * H)
            sizes = [[BIASES[2 * a] / W, BIASES[2 * a + 1] / H] if match else box(image, a, i, j)[2:] for a in range(3)]
            a = int(np.argmax([iou([0, 0, *s], [0, 0, ow, oh]) for s in sizes]))
            v, d = data[image, a, :, i, j], wanted[image, a, :, i, j]
            factor = 2 * (1 if rescore else 2 - ow * oh)
            for k, target in enumerate((ox * W - j, oy * H - i)):
                d[k] = factor * (sigma(v[k]) - target) * sigma(v[k]) * (1 - sigma(v[k]))
            d[2] = factor * (v[2] - math.log(ow * W / BIASES[2 * a]))
            d[3] = factor * (v[3] - math.log(oh * H / BIASES[2 * a + 1]))
            s = sigma(v[4])
            d[4] = 5 * (s - (iou(box(image, a, i, j), [ox, oy, ow, oh]) if rescore else 1)) * s * (1 - s)
            total = sum(math.exp(u) for u in v[5:])
            d[5:] = [1.5 * (math.exp(u) / total - (k == c)) for k, u in enumerate(v[5:])]
    assert loss == pytest.approx((wanted**2).sum() / 2, rel=1e-9)
    np.testing.assert_allclose(net.blobs["x"].diff.reshape(data.shape), wanted / 2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("logic", [False, True])
@pytest.mark.parametrize("focal", [False, True])
def test_yolov3_loss(logic: bool, focal: bool) -> None:
    x, table = np.random.default_rng(3).normal(size=(2, 2 * (5 + CLASSES), H, W)), labels(3)
    mask, scale = [1, 3], 16
    param = (
        f"num_class: {CLASSES} num: 2 object_scale: 5 class_scale: 1.5 coord_scale: 2 thresh: 0.4 iou_thresh: 0.6 anchors_scale: 16"
        f" use_logic_gradient: {str(logic).lower()} use_focal_loss: {str(focal).lower()} label_smooth_eps: 0.2"
        f" {many('biases', PIXELS)} {many('mask', mask)}"
    )
    net = make("Yolov3", f"yolov3_param {{ {param} }}", x=x.shape, label=table.shape)
    loss = float(net.forward(x=x, label=table)["y"])
    net.backward()
    data = x.reshape(2, 2, 5 + CLASSES, H, W)
    wanted = np.zeros_like(data)
    hits = 0
    for image in range(2):
        objects = [row for row in table[image, 0] if row[3]]
        for a, i, j in np.ndindex(2, H, W):
            v, n = data[image, a, :, i, j], mask[a]
            box = [(j + sigma(v[0])) / W, (i + sigma(v[1])) / H, math.exp(v[2]) * PIXELS[2 * n] / (W * scale),
                   math.exp(v[3]) * PIXELS[2 * n + 1] / (H * scale)]  # fmt: skip
            if max((iou(box, list(o[1:])) for o in objects), default=0) <= 0.4:
                wanted[image, a, 4, i, j] = sigma(v[4])
        done = set()
        for c, ox, oy, ow, oh in objects:
            j, i = int(ox * W), int(oy * H)
            shapes = [
                iou([0, 0, PIXELS[2 * n] / (W * scale), PIXELS[2 * n + 1] / (H * scale)], [0, 0, ow, oh])
                for n in range(6)
            ]
            best = int(np.argmax(shapes))
            for n in [best] * (best in mask) + [n for n in mask if n != best and shapes[n] > 0.6]:
                hits += 1
                a = mask.index(n)
                v, d = data[image, a, :, i, j], wanted[image, a, :, i, j]
                targets = [
                    ox * W - j,
                    oy * H - i,
                    math.log(ow * W * scale / PIXELS[2 * n]),
                    math.log(oh * H * scale / PIXELS[2 * n + 1]),
                ]
                active = [sigma(v[0]), sigma(v[1]), v[2], v[3]]
                d[:4] = [2 * (2 - ow * oh) * (p - t) for p, t in zip(active, targets)]
                d[4] = (sigma(v[4]) - 1) * (5 if logic else 1)
                for k in range(CLASSES):
                    hot = float(k == c)
                    smooth = hot * 0.8 + 0.1
                    if (a, i, j) in done:
                        d[5 + k] = 1.5 * (sigma(v[5 + k]) - smooth) if hot else d[5 + k]
                    elif focal:
                        p = sigma(v[5 + int(c)])
                        d[5 + k] = 1.5 * (sigma(v[5 + k]) - hot) * 0.5 * -(1 - p) * (2 * p * math.log(p) + p - 1)
                    else:
                        d[5 + k] = 1.5 * (sigma(v[5 + k]) - smooth)
                done.add((a, i, j))
    assert hits
    assert loss == pytest.approx((wanted**2).sum() / 2, rel=1e-9)
    if logic:
        active = 1 / (1 + np.exp(-data))
        factor = active * (1 - active)
        factor[:, :, 2:4] = 1
        wanted = wanted * factor
    np.testing.assert_allclose(net.blobs["x"].diff.reshape(data.shape), wanted / 2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", ["IOU", "GIOU", "DIOU", "CIOU"])
@pytest.mark.parametrize("seed", range(6))
def test_slopes_of_overlaps_are_their_derivatives(kind: str, seed: int) -> None:
    """By the centre exactly, except DIOU's exponent; by the size twice the part of the overlap, for boxes that meet."""
    random, number = np.random.default_rng(seed), pb.Yolov3Parameter.IOU_LOSS.Value(kind)
    box, truth = random.uniform(0.4, 0.6, 4), random.uniform(0.4, 0.6, 4)
    found = slope(box, truth, number)

    def derivative(which: int, kind: int, power: bool = False) -> np.ndarray:
        result = np.zeros(4)
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-6
            result[k] = (value(box + step, which, kind) - value(box - step, which, kind)) / 2e-6
        return result

    def value(at: np.ndarray, which: int, kind: int) -> float:
        plain = overlap(at, truth, pb.Yolov3Parameter.IOU)
        if which == 0:
            return plain
        if kind == pb.Yolov3Parameter.GIOU:
            return overlap(at, truth, kind)
        low, high = (
            np.minimum(at[:2] - at[2:] / 2, truth[:2] - truth[2:] / 2),
            np.maximum(at[:2] + at[2:] / 2, truth[:2] + truth[2:] / 2),
        )
        return -float(((at[:2] - truth[:2]) ** 2).sum() / ((high - low) ** 2).sum())

    if kind in ("IOU", "GIOU"):
        wanted = derivative(0 if kind == "IOU" else 1, number) * [1, 1, 2, 2]
    else:
        wanted = derivative(0, number) * [1, 1, 2, 2] + derivative(1, number)
        if kind == "CIOU":
            turn = math.atan(truth[2] / truth[3]) - math.atan(box[2] / box[3])
            v = 4 / math.pi**2 * turn**2
            alpha = v / (1 - overlap(box, truth, pb.Yolov3Parameter.IOU) + v + 1e-6)
            wanted[2:] += alpha * 8 / math.pi**2 * turn * np.array([box[3], -box[2]])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["IOU", "GIOU", "DIOU", "CIOU"])
def test_yolov3_with_an_overlap_as_loss_pulls_boxes_to_their_objects(kind: str) -> None:
    table, random = labels(3), np.random.default_rng(0)
    param = f"num_class: {CLASSES} num: 2 iou_loss: {kind} iou_thresh: 1 {many('biases', PIXELS)} mask: 1 mask: 3 anchors_scale: 16"
    shape = (2, 2 * (5 + CLASSES), H, W)
    net = make("Yolov3", f"yolov3_param {{ {param} }}", x=shape, label=table.shape)
    x = random.normal(size=shape) * 0.1
    first = float(net.forward(x=x, label=table)["y"])
    for _ in range(200):
        net.forward(x=x, label=table)
        net.backward()
        x = x - 0.2 * net.blobs["x"].diff
    assert float(net.forward(x=x, label=table)["y"]) < first


YOLO_PARAMS = {
    "RegionLoss": f"region_loss_param {{ num_class: {CLASSES} num: 2 {many('biases', BIASES[:4])} }}",
    "Yolov3": f"yolov3_param {{ num_class: {CLASSES} num: 2 {many('biases', PIXELS)} mask: 1 mask: 3 iou_loss: GIOU }}",
}


@pytest.mark.parametrize("type_", YOLO_PARAMS)
@pytest.mark.parametrize("row", [[3, 0.5, 0.5, 0.1, 0.1], [-1, 0.5, 0.5, 0.1, 0.1], [0, 1.5, 0.5, 0.1, 0.1], [0, 0.5, 0.5, 0.1, -1],
                                 [0, math.nan, 0.5, 0.1, 0.1], [0, 0.5, 0.5, math.inf, 0.1]])  # fmt: skip
def test_labels_that_are_none_are_one_error(type_: str, row: list[float]) -> None:
    table = labels(0)
    table[1, 0, 0] = row
    shape = (2, 2 * (5 + CLASSES), H, W)
    with pytest.raises(BatchError, match="object 0 of image 1 is"):
        make(type_, YOLO_PARAMS[type_], x=shape, label=table.shape).forward(x=np.zeros(shape), label=table)


any_number = st.one_of(st.floats(-0.2, 1.2), st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf, 1e30]))


@settings(max_examples=40)
@given(
    type_=st.sampled_from(sorted(YOLO_PARAMS)), rows=st.lists(st.lists(any_number, min_size=5, max_size=5), max_size=4)
)
def test_any_labels_give_a_number_or_one_error(type_: str, rows: list[list[float]]) -> None:
    table = np.zeros((1, 1, 4, 5))
    for k, row in enumerate(rows):
        table[0, 0, k] = row
    shape = (1, 2 * (5 + CLASSES), H, W)
    net = make(type_, YOLO_PARAMS[type_], x=shape, label=table.shape)
    try:
        loss = float(net.forward(x=np.random.default_rng(0).normal(size=shape), label=table)["y"])
    except SslnetError as error:
        assert isinstance(error, BatchError)
        return
    net.backward()
    assert math.isfinite(loss) and np.isfinite(net.blobs["x"].diff).all()


@settings(max_examples=40)
@given(values=st.lists(st.sampled_from([0.0, 5.0, -5.0, 1e4, math.nan, math.inf, -math.inf]), min_size=16, max_size=16))
def test_any_numbers_give_detections_without_nan(values: list[float]) -> None:
    shape = (1, 2 * (5 + CLASSES), 1, 1)
    biases = many("biases", BIASES[:4])
    v2 = f"yolo_detection_output_param {{ num_classes: {CLASSES} num_box: 2 {biases} }}"
    v3 = f"yolov3_detection_output_param {{ num_classes: {CLASSES} num_box: 2 mask_group_num: 1 mask: 0 mask: 1 anchors_scale: 8 {biases} }}"
    for type_, param in (("YoloDetectionOutput", v2), ("Yolov3DetectionOutput", v3)):
        with np.errstate(invalid="ignore"):
            found = make(type_, param, pb.TEST, x=shape).forward(x=np.reshape(values, shape))["y"]
        assert found.shape[3] == 7 and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("type_", "param", "error", "message"),
    [
        ("YoloDetectionOutput", "yolo_detection_output_param { num_box: 2 }", DefinitionError, "biases are two numbers a box"),
        ("YoloDetectionOutput", f"yolo_detection_output_param {{ num_classes: 9 num_box: 2 {many('biases', BIASES)} }}",
         ShapeError, "for 2 boxes of 14 numbers"),
        ("Yolov3DetectionOutput", "yolov3_detection_output_param { }", DefinitionError, "mask_group_num is 2 for 1 bottoms"),
        ("Region", "region_param { coords: 5 }", DefinitionError, "coords must be 4"),
    ],
)  # fmt: skip
def test_parameters_without_a_meaning_are_refused(type_: str, param: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(type_, param, pb.TEST, x=(1, 16, H, W))
