"""ROIAlign, BoxOutput, DecodeBBox and DetectionEvaluate against loops in float64 written from their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DataError, DefinitionError, ShapeError
from sslnet.net.average_precision import average_precision
from sslnet.net.net import Net

from .harness import inputs
from .test_detection import REGIONS


def make(type_: str, param: str, phase: int = pb.TEST, tops: str = 'top: "y"', **shapes: tuple[int, ...]) -> Net:
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    text = inputs(**shapes) + f'layer {{ name: "l" type: "{type_}" {bottoms} {tops} {param} }}'
    return Net(prototxt.parse(text, pb.NetParameter), phase=phase, dtype=np.float64)


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    i, j = int(y), int(x)
    k, m = min(i + 1, height - 1), min(j + 1, width - 1)
    upper = plane[i, j] * (1 - x + j) + plane[i, m] * (x - j)
    lower = plane[k, j] * (1 - x + j) + plane[k, m] * (x - j)
    return float(upper * (1 - y + i) + lower * (y - i))


@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_roi_align_is_the_mean_of_bilinear_values(ratio: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9))
    param = f"roi_align_param {{ pooled_h: 2 pooled_w: 3 spatial_scale: 0.6 sampling_ratio: {ratio} }}"
    found = make("ROIAlign", param, x=x.shape, rois=(6, 5)).forward(x=x, rois=REGIONS)["y"]
    for r, (image, x1, y1, x2, y2) in enumerate(REGIONS * [1, 0.6, 0.6, 0.6, 0.6]):
        wide, high = max(x2 - x1, 1), max(y2 - y1, 1)
        ny, nx = ratio or math.ceil(high / 2), ratio or math.ceil(wide / 3)
        for c, i, j in np.ndindex(3, 2, 3):
            points = [
                bilinear(x[int(image), c], y1 + (i + (a + 0.5) / ny) * high / 2, x1 + (j + (b + 0.5) / nx) * wide / 3)
                for a in range(ny)
                for b in range(nx)
            ]
            assert found[r, c, i, j] == pytest.approx(np.mean(points), abs=1e-12)


@pytest.mark.parametrize("kind", ["IOU", "IOFU", "IOMU"])
def test_box_output(kind: str) -> None:
    random = np.random.default_rng(0)
    maps = {"a": random.normal(size=(2, 7, 6, 8)), "b": random.normal(size=(2, 7, 3, 4))}
    param = (
        f'box_output_param {{ fg_thr: 0.5 iou_thr: 0.3 nms_type: "{kind}" field_h: 40 field_h: 80 field_w: 30 field_w: 70'
        " downsample_rate: 16 downsample_rate: 32 field_whr: 2 field_xyr: 2 max_nms_num: 40 max_post_nms_num: 9 min_size: 20 }"
        " bbox_reg_param { bbox_mean: 0.1 bbox_mean: 0 bbox_mean: 0 bbox_mean: -0.1 bbox_std: 0.3 bbox_std: 0.2 bbox_std: 0.5 bbox_std: 0.4 }"
    )
    shapes = {name: each.shape for name, each in maps.items()}
    found = make("BoxOutput", param, tops='top: "y" top: "z"', **shapes).forward(**maps)
    wanted = []
    for image in range(2):
        rows = []
        for data, (fh, fw, step) in zip(maps.values(), ((40, 30, 16), (80, 70, 32))):
            _, _, height, width = data.shape
            for i, j in np.ndindex(height, width):
                v = data[image, :, i, j]
                score = max(v[1:3]) - v[0]
                x, y, w, h = v[3:] * [0.3, 0.2, 0.5, 0.4] + [0.1, 0, 0, -0.1]
                cx = (j + 0.5) * step + min(max(x, -0.5), 0.5) * fw
                cy = (i + 0.5) * step + min(max(y, -0.5), 0.5) * fh
                w, h = (f * math.exp(min(max(v, -math.log(2)), math.log(2))) for f, v in ((fw, w), (fh, h)))
                left, top = max(cx - w / 2, 0), max(cy - h / 2, 0)
                w, h = min(w, width * step - left), min(h, height * step - top)
                if score >= 0.5 and w >= 20 and h >= 20:
                    rows.append([left, top, left + w, top + h, score])
        rows = sorted(rows, key=lambda r: -r[4])[:40]
        left_over: list[list[float]] = []
        for row in rows:
            for other in left_over:
                common = max(0, min(row[2], other[2]) - max(row[0], other[0])) * max(
                    0, min(row[3], other[3]) - max(row[1], other[1])
                )
                area, first = ((r[2] - r[0]) * (r[3] - r[1]) for r in (row, other))
                if common / {"IOU": area + first - common, "IOFU": first, "IOMU": area}[kind] > 0.3:
                    break
            else:
                left_over.append(row)
        wanted += [[image, *row] for row in left_over[:9]]
    np.testing.assert_allclose(found["z"].reshape(-1, 6), wanted, rtol=1e-9)
    np.testing.assert_allclose(found["y"].reshape(-1, 5), np.array(wanted)[:, :5], rtol=1e-9)


def test_box_output_without_a_box_gives_the_authors_region() -> None:
    param = "box_output_param { fg_thr: 9 field_h: 40 field_w: 30 downsample_rate: 16 }"
    found = make("BoxOutput", param, tops='top: "y" top: "z"', a=(2, 6, 3, 4)).forward(a=np.zeros((2, 6, 3, 4)))
    np.testing.assert_array_equal(found["y"].reshape(-1), [0, 1, 1, 10, 10])
    assert not found["z"].any()


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_decode_bbox(phase: int) -> None:
    random = np.random.default_rng(0)
    numbers, objects = random.normal(size=(7, 8)), np.zeros((7, 5))
    regions = np.column_stack([np.arange(7) % 2, *random.uniform(0, 40, (2, 7)), *random.uniform(40, 90, (2, 7))])
    numbers[3, 6] = -9  # as narrow as a pixel less: x2 < x1
    regions[3, 3] = regions[3, 1]
    objects[5, -1] = 0.97
    param = "bbox_reg_param { bbox_mean: 0 bbox_mean: 0 bbox_mean: 0.1 bbox_mean: 0 bbox_std: 0.1 bbox_std: 0.1 bbox_std: 0.2 bbox_std: 0.2 }"
    arrays = {"d": numbers, "rois": regions} | ({"gt": objects} if phase == pb.TRAIN else {})
    found = make("DecodeBBox", param, phase, **{k: a.shape for k, a in arrays.items()}).forward(**arrays)["y"]
    wanted = []
    for k, (image, x1, y1, x2, y2) in enumerate(regions):
        w, h = x2 - x1 + 1, y2 - y1 + 1
        x, y, dw, dh = numbers[k, 4:] * [0.1, 0.1, 0.2, 0.2] + [0, 0, 0.1, 0]
        nw, nh = w * math.exp(dw), h * math.exp(dh)
        left, top = (x1 + x2) / 2 + x * w - (nw - 1) / 2, (y1 + y2) / 2 + y * h - (nh - 1) / 2
        row = [image, left, top, left + nw - 1, top + nh - 1]
        if phase == pb.TEST or not (row[1] > row[3] or row[2] > row[4] or objects[k, -1] >= 0.95):
            wanted.append(row)
    assert len(wanted) == (5 if phase == pb.TRAIN else 7)
    np.testing.assert_allclose(found.reshape(-1, 5), wanted, rtol=1e-9)


DETECTIONS = [
    [0, 1, 0.9, 0.1, 0.1, 0.5, 0.5],
    [0, 1, 0.8, 0.12, 0.1, 0.5, 0.5],  # the same object again
    [0, 1, 0.7, 0.6, 0.6, 0.9, 0.9],  # a difficult object
    [0, 2, 0.6, 0.1, 0.1, 0.5, 0.5],  # the wrong class
    [1, 2, 0.5, 0.2, 0.2, 0.4, 0.4],  # no object in this image
]
OBJECTS = [[0, 1, 0, 0.1, 0.1, 0.5, 0.48, 0], [0, 1, 1, 0.6, 0.6, 0.9, 0.88, 1], [2, 2, 0, 0, 0, 1, 1, 0], [-1] * 8]


@pytest.mark.parametrize("difficult", [True, False])
def test_detection_evaluate(difficult: bool) -> None:
    param = f"detection_evaluate_param {{ num_classes: 3 evaluate_difficult_gt: {str(difficult).lower()} }}"
    net = make("DetectionEvaluate", param, d=(1, 1, 5, 7), label=(1, 1, 4, 8))
    rows = net.forward(d=[[DETECTIONS]], label=[[OBJECTS]])["y"][0, 0]
    heads = [[-1, 1, 2 if difficult else 1, -1, -1], [-1, 2, 1, -1, -1]]
    third = [1, 0] if difficult else [0, 0]
    wanted = [[0, 1, 0.9, 1, 0], [0, 1, 0.8, 0, 1], [0, 1, 0.7, *third], [0, 2, 0.6, 0, 1], [1, 2, 0.5, 0, 1]]
    np.testing.assert_allclose(rows, heads + wanted)


def test_detection_evaluate_measures_pixels_with_the_sizes_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "sizes.txt").write_text("first 10 10\nsecond 1000 1000\n")
    param = (
        f'detection_evaluate_param {{ num_classes: 2 overlap_threshold: 0.42 name_size_file: "{tmp_path}/sizes.txt" }}'
    )
    rows = [[i, 1, 0.9, 0.1, 0.1, 0.3, 0.3] for i in (0, 1)]
    objects = [[i, 1, 0, 0.1, 0.1, 0.3, 0.6, 0] for i in (0, 1)]
    net = make("DetectionEvaluate", param, d=(1, 1, 2, 7), label=(1, 1, 2, 8))
    found = net.forward(d=[[rows]], label=[[objects]])["y"][0, 0]
    # 3 x 3 pixels of 3 x 6 overlap by 1 / 2, 201 x 201 of 201 x 501 by 0.4
    np.testing.assert_array_equal(found[1:, 3], [1, 0])
    (tmp_path / "sizes.txt").write_text("first ten ten\n")
    with pytest.raises(DataError, match="each line must be a name, a height and a width"):
        make("DetectionEvaluate", param, d=(1, 1, 2, 7), label=(1, 1, 2, 8)).forward(d=[[rows]], label=[[objects]])


def test_detections_of_no_class_are_one_error() -> None:
    net = make("DetectionEvaluate", "detection_evaluate_param { num_classes: 3 }", d=(1, 1, 1, 7), label=(1, 1, 4, 8))
    with pytest.raises(BatchError, match="a detection is 0, 7,"):
        net.forward(d=[[[[0, 7, 0.5, 0, 0, 1, 1]]]][0], label=[[OBJECTS]])


def test_average_precision_by_hand() -> None:
    """Right, wrong, right, right, wrong of five objects: precisions 1, 1/2, 2/3, 3/4, 3/5, recalls 1/5, 1/5, 2/5, 3/5, 3/5."""
    scores, right = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 0], bool)
    assert average_precision(scores, right, 5, "Integral") == pytest.approx((1 + 2 / 3 + 3 / 4) / 5)
    assert average_precision(scores, right, 5, "11point") == pytest.approx((3 * 1 + 4 * 0.75) / 11)
    # SSD's: from a detection to the next one with the largest precision from the former on
    assert average_precision(scores, right, 5, "MaxIntegral") == pytest.approx((1 + 0.75 + 0.75) / 5)
    shuffled = np.array([3, 0, 4, 1, 2])
    assert average_precision(scores[shuffled], right[shuffled], 5, "11point") == pytest.approx(6 / 11)
    assert average_precision(np.empty(0), np.empty(0, bool), 5) == 0


@pytest.mark.parametrize(
    ("type_", "param", "shapes", "error", "message"),
    [
        ("ROIAlign", "roi_align_param { }", {"x": (1, 2, 3, 3), "r": (1, 5)}, DefinitionError, "pooled_h must be"),
        ("BoxOutput", "box_output_param { }", {"x": (1, 6, 3, 3)}, DefinitionError, "field_h is given 0 times"),
        ("DecodeBBox", "", {"x": (2, 4), "r": (2, 5)}, ShapeError, "must be"),
        ("DetectionEvaluate", "", {"d": (1, 1, 1, 7), "l": (1, 1, 1, 8)}, DefinitionError, "num_classes"),
        (
            "DetectionEvaluate",
            "detection_evaluate_param { num_classes: 2 }",
            {"d": (1, 6), "l": (1, 8)},
            ShapeError,
            "seven numbers",
        ),
        ("Proposal", "", {"s": (1, 18, 2, 2), "d": (1, 36, 2, 3), "i": (1, 3)}, ShapeError, "anchors a pixel"),
    ],
)
def test_parameters_and_shapes_without_a_meaning_are_refused(
    type_: str, param: str, shapes: dict[str, tuple[int, ...]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(type_, param, **shapes)
