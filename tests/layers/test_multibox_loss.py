"""MultiBoxLoss against loops in float64 that are written from its definition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DefinitionError, ShapeError, SslnetError
from sslnet.net.net import Net

from .harness import inputs

CLASSES, PRIORS, IMAGES = 4, 14, 3


def net_of(
    param: str, loss: str = "", *, sets: int = 1, priors: int = PRIORS, rows: int = 5, dtype: Any = np.float64
) -> Net:
    text = inputs(
        loc=(IMAGES, 4 * priors * sets),
        conf=(IMAGES, priors * CLASSES),
        priors=(1, 2, 4 * priors),
        label=(1, 1, rows, 8),
    )
    text += (
        'layer { name: "l" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "label" top: "y"'
        " propagate_down: true propagate_down: true propagate_down: false propagate_down: false"
        f" loss_param {{ {loss} }} multibox_loss_param {{ num_classes: {CLASSES} {param} }} }}"
    )
    return Net(prototxt.parse("force_backward: true\n" + text, pb.NetParameter), phase=pb.TRAIN, dtype=dtype)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high)


def drawn(seed: int, sets: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    center, size = random.uniform(0.1, 0.9, (PRIORS, 2)), random.uniform(0.15, 0.5, (PRIORS, 2))
    priors = np.concatenate([center - size / 2, center + size / 2], axis=1)
    variances = np.tile([0.1, 0.1, 0.2, 0.2], (PRIORS, 1))
    rows = []
    for image, label in [(0, 1), (0, 3), (2, 2), (2, 2)]:
        first, wide = random.uniform(0, 0.5, 2), random.uniform(0.2, 0.5, 2)
        rows.append([image, label, 0, *first, *(first + wide), 0])
    rows[3][7] = 1
    rows.append([-1] * 8)
    return {
        "loc": random.normal(size=(IMAGES, PRIORS * sets * 4)) * 0.5,
        "conf": random.normal(size=(IMAGES, PRIORS * CLASSES)),
        "priors": np.stack([priors.ravel(), variances.ravel()])[None],
        "label": np.array(rows)[None, None],
    }


def matched(priors: np.ndarray, objects: list[np.ndarray], threshold: float) -> tuple[list[int], list[float]]:
    """The object of each prior, -1 for none, and its largest overlap."""
    table = [[overlap(p, o) for o in objects] for p in priors]
    match = [-1] * len(priors)
    left = set(range(len(objects)))
    while left:
        best = max(((table[i][j], -i, -j) for i in range(len(priors)) for j in left if match[i] < 0), default=(0, 0, 0))
        if best[0] <= 1e-6:
            break
        match[-best[1]] = -best[2]
        left.remove(-best[2])
    for i in range(len(priors)):
        if match[i] < 0 and objects and max(table[i]) >= threshold:
            match[i] = int(np.argmax(table[i]))
    return match, [max(row, default=0.0) for row in table]


def positive_loss(arrays: dict[str, np.ndarray], image: int, i: int, row: np.ndarray) -> float:
    """The loss of the location and the class of box i of an image, which has the object of this row."""
    priors, variances = arrays["priors"].reshape(2, -1, 4)
    p, o, v = priors[i], row[3:7], variances[i]
    pw, ph = p[2] - p[0], p[3] - p[1]
    target = [
        ((o[0] + o[2] - p[0] - p[2]) / 2 / pw) / v[0],
        ((o[1] + o[3] - p[1] - p[3]) / 2 / ph) / v[1],
        math.log((o[2] - o[0]) / pw) / v[2],
        math.log((o[3] - o[1]) / ph) / v[3],
    ]
    differences = [abs(a - b) for a, b in zip(arrays["loc"].reshape(IMAGES, -1, 4)[image, i], target)]
    scores = arrays["conf"].reshape(IMAGES, -1, CLASSES)[image, i]
    class_loss = math.log(sum(math.exp(s) for s in scores)) - scores[int(row[1])]
    return sum(d * d / 2 if d < 1 else d - 0.5 for d in differences) + class_loss


def expected(arrays: dict[str, np.ndarray], *, mining: str, ratio: float = 3, difficult: bool = True) -> float:
    """The loss with SMOOTH_L1, SOFTMAX, CENTER_SIZE, shared locations, divided by the number of matches."""
    priors = arrays["priors"].reshape(2, -1, 4)[0]
    conf = arrays["conf"].reshape(IMAGES, -1, CLASSES)
    loss, matches = 0.0, 0
    for image in range(IMAGES):
        rows = [r for r in arrays["label"].reshape(-1, 8) if r[0] == image and (difficult or not r[7])]
        match, best = matched(priors, [r[3:7] for r in rows], 0.5)
        nll = [math.log(sum(math.exp(v) for v in s)) - s[0] for s in conf[image]]
        positive = [i for i, m in enumerate(match) if m >= 0]
        negative = [i for i, m in enumerate(match) if m < 0 and best[i] < 0.5]
        if mining == "MAX_NEGATIVE":
            negative = sorted(negative, key=lambda i: -nll[i])[: int(ratio * len(positive))] if rows else []
        elif mining == "NONE":
            negative = [i for i, m in enumerate(match) if m < 0]

        if mining == "HARD_EXAMPLE":
            if not rows:
                continue
            both = {i: positive_loss(arrays, image, i, rows[m]) if m >= 0 else nll[i] for i, m in enumerate(match)}
            chosen = sorted(both, key=lambda i: -both[i])[:6]
            positive = [i for i in positive if i in chosen]
            negative = [i for i in chosen if match[i] < 0]
        matches += len(positive)
        loss += sum(positive_loss(arrays, image, i, rows[match[i]]) for i in positive) + sum(nll[i] for i in negative)
    return loss / max(1, matches)


@pytest.mark.parametrize(
    ("mining", "seed"), list(itertools.product(["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"], range(4)))
)
def test_loss_is_that_of_its_definition(mining: str, seed: int) -> None:
    arrays = drawn(seed)
    param = f"code_type: CENTER_SIZE mining_type: {mining} sample_size: 6 neg_pos_ratio: 1.5"
    found = float(net_of(param).forward(**arrays)["y"])
    assert found == pytest.approx(expected(arrays, mining=mining, ratio=1.5), rel=1e-9)


def test_difficult_objects_do_not_count_when_told_so() -> None:
    arrays = drawn(1)
    found = float(net_of("code_type: CENTER_SIZE use_difficult_gt: false").forward(**arrays)["y"])
    assert found == pytest.approx(expected(arrays, mining="MAX_NEGATIVE", difficult=False), rel=1e-9)


def test_normalisations_divide_by_matches_images_boxes_or_nothing() -> None:
    arrays = drawn(2)
    param = "code_type: CENTER_SIZE mining_type: NONE"
    plain = float(net_of(param, "normalization: NONE").forward(**arrays)["y"])
    for mode, divisor in (("BATCH_SIZE", IMAGES), ("FULL", IMAGES * PRIORS)):
        found = float(net_of(param, f"normalization: {mode}").forward(**arrays)["y"])
        assert found == pytest.approx(plain / divisor)
    assert float(net_of(param).forward(**arrays)["y"]) == pytest.approx(expected(arrays, mining="NONE"))


def test_variances_in_the_loss_scale_the_differences() -> None:
    """With the variances in the loss and predictions divided by them the loss is the same."""
    arrays = drawn(3)
    one = float(net_of("code_type: CENTER_SIZE").forward(**arrays)["y"])
    variances = arrays["priors"].reshape(2, -1, 4)[1]
    moved = arrays | {"loc": (arrays["loc"].reshape(IMAGES, -1, 4) * variances).reshape(IMAGES, -1)}
    other = float(net_of("code_type: CENTER_SIZE encode_variance_in_target: true").forward(**moved)["y"])
    assert other == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
def test_locations_that_decode_to_the_objects_have_no_loss(code: str) -> None:
    """Locations are encoded as DetectionOutput decodes them."""
    from sslnet.layers.boxes import decode, encode

    random = np.random.default_rng(0)
    first = random.uniform(0, 0.5, (2, 6, 2))
    boxes, priors = np.concatenate([first, first + random.uniform(0.1, 0.5, (2, 6, 2))], axis=2)
    variances = random.uniform(0.1, 0.3, (6, 4))
    kind = pb.DetectionOutputParameter.CodeType.Value(code)
    np.testing.assert_allclose(decode(encode(boxes, priors, variances, kind), priors, variances, kind), boxes)


def test_without_objects_there_is_no_loss_when_negatives_are_mined() -> None:
    arrays = drawn(0) | {"label": np.full((1, 1, 5, 8), -1.0)}
    net = net_of("code_type: CENTER_SIZE")
    assert float(net.forward(**arrays)["y"]) == 0
    net.backward()
    assert not net.blobs["loc"].diff.any() and not net.blobs["conf"].diff.any()


@pytest.mark.parametrize(
    "row",
    [[0, 4, 0, 0.1, 0.1, 0.5, 0.5, 0], [0, 0, 0, 0.1, 0.1, 0.5, 0.5, 0], [3, 1, 0, 0.1, 0.1, 0.5, 0.5, 0],
     [0, 1, 0, np.nan, 0.1, 0.5, 0.5, 0], [0, 1.5, 0, 0.1, 0.1, 0.5, 0.5, 0], [np.inf, 1, 0, 0.1, 0.1, 0.5, 0.5, 0]],
)  # fmt: skip
def test_objects_that_are_none_are_one_error(row: list[float]) -> None:
    arrays = drawn(0)
    arrays["label"][0, 0, 1] = row
    with pytest.raises(BatchError, match="object 1 of the labels is"):
        net_of("code_type: CENTER_SIZE").forward(**arrays)


def test_an_object_without_an_area_takes_no_box() -> None:
    arrays = drawn(0)
    without = arrays["label"].copy()
    arrays["label"][0, 0, 1] = [0, 3, 0, 0.4, 0.4, 0.4, 0.6, 0]
    without[0, 0, 1] = -1
    net = net_of("code_type: CENTER_SIZE")
    assert float(net.forward(**arrays)["y"]) == float(net.forward(**(arrays | {"label": without}))["y"])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("background_label_id: 4", "background_label_id must be below num_classes"),
        ("share_location: false", "mining_type must be NONE without share_location"),
        ("neg_pos_ratio: 0", "neg_pos_ratio must be above 0"),
        ("map_object_to_agnostic: true", "two classes"),
    ],
)
def test_parameters_without_a_meaning_are_refused(param: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        net_of(param)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="values an image"):
        net_of("share_location: false mining_type: NONE")


numbers = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1e30]))


@settings(max_examples=60)
@given(data=st.data())
def test_any_objects_give_a_number_or_one_error(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=5))
    heads = data.draw(st.lists(st.tuples(st.integers(-2, 4), st.integers(-1, 5)), min_size=5, max_size=5))
    table = np.full((5, 8), -1.0)
    for k, (row, head) in enumerate(zip(rows, heads)):
        table[k] = [head[0], head[1], 0, *row, 0]
    mining = data.draw(st.sampled_from(["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"]))
    arrays = drawn(0) | {"label": table[None, None]}
    net = net_of(f"code_type: CENTER_SIZE mining_type: {mining}")
    try:
        loss = float(net.forward(**arrays)["y"])
    except SslnetError as error:
        assert isinstance(error, BatchError)
        return
    net.backward()
    assert (
        math.isfinite(loss) and np.isfinite(net.blobs["loc"].diff).all() and np.isfinite(net.blobs["conf"].diff).all()
    )
