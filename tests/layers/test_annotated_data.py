"""AnnotatedData: images and boxes of a database of SSD, transformed together; against the steps written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError, SslnetError
from sslnet.net.net import Net
from sslnet.sources.annotated import COLUMNS, annotated_datum, mirrored, project
from sslnet.sources.box_sampler import draw_part
from sslnet.sources.images import encode_image, resize_image
from sslnet.sources.lmdb import write_lmdb

OBJECTS = [
    np.array([[1, 0, 0.25, 0.25, 0.5, 0.75, 0], [2, 0, 0.5, 0, 1, 0.5, 1]]),
    np.zeros((0, COLUMNS)),
    np.array([[3, 0, 0.125, 0.5, 0.25, 1, 0]]),
]


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (3, 16 + 4 * index, 24)).astype(np.uint8)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("annotated") / "lmdb"
    records = [(b"%08d" % i, annotated_datum(encode_image(pixels(i), "PNG"), each)) for i, each in enumerate(OBJECTS)]
    write_lmdb(path, records)
    return str(path)


def make(
    database: str,
    transform: str = "",
    annotated: str = "max_objects: 4",
    phase: int = pb.TRAIN,
    batch: int = 3,
    **settings: Any,
) -> Net:
    text = (
        'layer { name: "data" type: "AnnotatedData" top: "data" top: "label"'
        f" transform_param {{ {transform} }} annotated_data_param {{ {annotated} }}"
        f' data_param {{ source: "{database}" batch_size: {batch} backend: LMDB }} }}'
    )
    return Net(prototxt.parse(text, pb.NetParameter), phase=phase, **settings)


RESIZE = "resize_param { height: 12 width: 20 }"


def rows_of(found: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.column_stack([np.full(len(each), i), each]) for i, each in enumerate(found)])


def test_batch_has_images_of_one_size_and_the_objects_of_all(database: str) -> None:
    found = make(database, RESIZE + " mean_value: 100 scale: 0.5", phase=pb.TEST).forward()
    wanted = [(resize_image(pixels(i), 12, 20).astype(np.float32) - 100) * 0.5 for i in range(3)]
    np.testing.assert_allclose(found["data"], wanted)
    assert found["label"].shape == (1, 1, 12, 8)
    np.testing.assert_allclose(found["label"][0, 0, :3], rows_of(OBJECTS))
    assert (found["label"][0, 0, 3:] == -1).all()


def test_mirrored_images_have_mirrored_boxes(database: str) -> None:
    net, seen = make(database, RESIZE + " mirror: true"), set()
    for _ in range(8):
        found = net.forward()
        for i in range(3):
            plain = resize_image(pixels(i), 12, 20)
            flipped = bool((found["data"][i] == plain[:, :, ::-1]).all())
            assert flipped or (found["data"][i] == plain).all()
            label = found["label"][0, 0]
            own = label[label[:, 0] == i][:, 1:]
            np.testing.assert_allclose(own, mirrored(OBJECTS[i]) if flipped else OBJECTS[i])
            seen.add(flipped)
    assert seen == {True, False}


def test_image_is_padded_and_boxes_follow(database: str) -> None:
    found = make(
        database, "resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 24 width: 24 }", phase=pb.TEST
    ).forward()
    assert not found["data"][0, :, :4].any() and not found["data"][0, :, 20:].any()
    np.testing.assert_array_equal(found["data"][0, :, 4:20], pixels(0))
    wanted = OBJECTS[0].copy()
    wanted[:, [3, 5]] = (wanted[:, [3, 5]] * 16 + 4) / 24
    np.testing.assert_allclose(found["label"][0, 0, :2, 1:], wanted, rtol=1e-6)


def test_crop_keeps_the_part_of_boxes_that_it_shows(database: str) -> None:
    found = make(database, "crop_size: 12", phase=pb.TEST).forward()
    np.testing.assert_array_equal(found["data"][0], pixels(0)[:, 2:14, 6:18])
    wanted = project(OBJECTS[0], np.array([6 / 24, 2 / 16, 18 / 24, 14 / 16]))
    np.testing.assert_allclose(found["label"][0, 0, :2, 1:], wanted, rtol=1e-6)
    np.testing.assert_allclose(wanted[0, 2:6], [0, (4 - 2) / 12, 0.5, (12 - 2) / 12])


def test_part_of_the_sampler_is_cut_out_and_boxes_follow(database: str) -> None:
    sampler = "batch_sampler { sampler { min_scale: 0.5 max_scale: 0.9 } max_sample: 1 max_trials: 50 } max_objects: 4"
    net = make(database, RESIZE + " emit_constraint { emit_type: CENTER }", sampler, seed=5)
    shown = 0
    for _ in range(4):
        label = net.forward()["label"][0, 0]
        boxes = label[label[:, 0] >= 0][:, 3:7]
        shown += len(boxes)
        assert ((boxes >= 0) & (boxes <= 1)).all()
    assert 0 < shown < 12


def test_expanded_image_lies_in_the_mean(database: str) -> None:
    net = make(database, RESIZE + " mean_value: 50 expand_param { prob: 1 max_expand_ratio: 4 }", seed=1)
    found = net.forward()
    assert (found["data"] == 0).mean() > 0.2
    label = found["label"][0, 0]
    for row in label[label[:, 0] == 0]:
        wanted = next(each for each in OBJECTS[0] if each[0] == row[1])
        assert row[5] - row[3] < wanted[4] - wanted[2]  # smaller than in the whole image


def test_colours_stay_bytes_and_boxes_stay(database: str) -> None:
    distort = (
        "distort_param { brightness_prob: 1 brightness_delta: 32 contrast_prob: 1 contrast_lower: 0.5 contrast_upper: 1.5"
        " hue_prob: 1 hue_delta: 18 saturation_prob: 1 saturation_lower: 0.5 saturation_upper: 1.5 random_order_prob: 1 }"
    )
    plain, found = make(database, RESIZE).forward(), make(database, RESIZE + distort).forward()
    np.testing.assert_array_equal(found["label"], plain["label"])
    assert (found["data"] == np.rint(found["data"])).all() and found["data"].min() >= 0 and found["data"].max() <= 255
    assert (found["data"] != plain["data"]).mean() > 0.5


EVERYTHING = (
    RESIZE
    + " mirror: true mean_value: 100 expand_param { prob: 0.5 max_expand_ratio: 2 } emit_constraint { emit_type: CENTER }"
    " distort_param { brightness_prob: 0.5 brightness_delta: 32 hue_prob: 0.5 hue_delta: 18 }"
)
SAMPLERS = (
    "batch_sampler { max_sample: 1 max_trials: 1 } batch_sampler { sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5"
    " max_aspect_ratio: 2 } sample_constraint { min_jaccard_overlap: 0.3 } max_sample: 1 max_trials: 50 } max_objects: 4"
)


def test_numbers_depend_on_seed_and_place_alone(database: str) -> None:
    """Batches of another size, a resumed run, and one that reads nothing ahead give the same images."""
    one = make(database, EVERYTHING, SAMPLERS, batch=2, seed=3)
    batches = [{k: v.copy() for k, v in one.forward().items()} for _ in range(3)]
    other = make(database, EVERYTHING, SAMPLERS, batch=1, seed=3)
    for i in range(6):
        np.testing.assert_array_equal(other.forward()["data"][0], batches[i // 2]["data"][i % 2])
    resumed = make(database, EVERYTHING, SAMPLERS, batch=2, seed=3)
    resumed.forward()
    state = resumed.layers[0].state()
    again = make(database, EVERYTHING, SAMPLERS, batch=2, seed=3)
    again.layers[0].set_state(state)
    np.testing.assert_array_equal(again.forward()["label"], batches[1]["label"])
    assert (make(database, EVERYTHING, SAMPLERS, batch=2, seed=4).forward()["data"] != batches[0]["data"]).any()


def test_labels_of_yolo(database: str) -> None:
    found = make(database, RESIZE, "yolo_data_type: 1 yolo_data_jitter: 0 train_diffcult: false").forward()["label"]
    assert found.shape == (3, 1, 300, 5)
    np.testing.assert_allclose(found[0, 0, 0], [0, 0.375, 0.5, 0.25, 0.5])
    np.testing.assert_allclose(found[2, 0, 0], [2, 0.1875, 0.75, 0.125, 0.5])
    assert not found[0, 0, 1:].any() and not found[1].any()


def test_more_objects_than_rows_are_one_error_that_names_the_field(tmp_path: Path) -> None:
    crowd = np.concatenate([OBJECTS[0], OBJECTS[2]])
    write_lmdb(tmp_path / "crowd", [(b"0", annotated_datum(encode_image(pixels(0), "PNG"), crowd))])
    with pytest.raises(DataError, match="a batch has 3 objects, more than the 1 rows") as error:
        make(str(tmp_path / "crowd"), annotated="max_objects: 1", batch=1).forward()
    assert "max_objects: 3" in (error.value.hint or "")


def test_a_part_keeps_objects_by_their_centre_or_their_share() -> None:
    part = np.array([0.0, 0, 0.5, 1])
    boxes = np.array([[1, 0, 0.3, 0, 0.6, 1, 0], [2, 0, 0.4, 0, 0.8, 1, 0], [3, 0, 0.6, 0, 0.9, 1, 0]])
    assert project(boxes, part)[:, 0].tolist() == [1, 2]
    assert project(boxes, part, pb.EmitConstraint(emit_type="CENTER"))[:, 0].tolist() == [1]
    assert project(boxes, part, pb.EmitConstraint(emit_type="MIN_OVERLAP", emit_overlap=0.2))[:, 0].tolist() == [1, 2]
    np.testing.assert_allclose(project(boxes, part)[0, 2:6], [0.6, 0, 1, 1])


def test_parts_fulfil_their_constraint() -> None:
    boxes, random = np.array([[0.3, 0.3, 0.6, 0.7]]), np.random.default_rng(0)
    sampler = pb.BatchSampler(max_sample=1, max_trials=200)
    sampler.sampler.min_scale, sampler.sampler.max_scale = 0.2, 1
    sampler.sampler.min_aspect_ratio, sampler.sampler.max_aspect_ratio = 0.5, 2
    sampler.sample_constraint.min_jaccard_overlap = 0.5
    for _ in range(30):
        part = draw_part([sampler], boxes, random)
        assert part is not None
        first, last = np.maximum(part[:2], boxes[0, :2]), np.minimum(part[2:], boxes[0, 2:])
        common = np.prod(np.maximum(last - first, 0))
        assert common / (np.prod(part[2:] - part[:2]) + 0.12 - common) >= 0.5
        assert (part >= 0).all() and (part <= 1 + 1e-12).all()


@pytest.mark.parametrize(
    ("transform", "annotated", "message"),
    [
        ("rotation: 5", "", "rotation is not for images with boxes"),
        ("resize_param { height: 0 width: 4 }", "", "height must be"),
        ("resize_param { height: 4 width: 4 resize_mode: FIT_SMALL_SIZE }", "", "needs crop_size"),
        (RESIZE + " distort_param { contrast_lower: 2 contrast_upper: 1 }", "", "contrast_lower <= contrast_upper"),
        (RESIZE + " expand_param { max_expand_ratio: 0.5 }", "", "max_expand_ratio must be at least 1"),
        (RESIZE, "batch_sampler { sampler { min_scale: 0.5 max_scale: 1.5 } }", "min_scale <= max_scale <= 1"),
        (RESIZE, "max_objects: 0", "max_objects must be"),
        (RESIZE, "yolo_data_type: 2", "yolo_data_type must be 0 or 1"),
    ],
)
def test_fields_without_a_meaning_are_refused(database: str, transform: str, annotated: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make(database, transform, annotated)


def test_database_of_plain_datums_is_told(tmp_path: Path) -> None:
    datum = pb.Datum(channels=1, height=2, width=2, data=b"abcd", label=3)
    write_lmdb(tmp_path / "plain", [(b"0", datum.SerializeToString())])
    with pytest.raises(DataError, match="AnnotatedDatum"):
        make(str(tmp_path / "plain"))


numbers = st.one_of(st.floats(-0.5, 1.5, width=32), st.sampled_from([0.0, 1.0, float("nan"), float("inf"), -1e30]))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-3, 5), *[numbers] * 4, st.booleans()), max_size=4), cut=st.integers(0, 40))
def test_any_record_gives_boxes_in_the_image_or_one_error(
    rows: list[tuple[Any, ...]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    objects = np.array([[r[0], 0, *r[1:5], r[5]] for r in rows], np.float64).reshape(-1, COLUMNS)
    value = annotated_datum(encode_image(pixels(0), "PNG"), objects)
    path = tmp_path_factory.mktemp("any") / "lmdb"
    write_lmdb(path, [(b"0", value[: len(value) - cut] if cut > 30 else value)])
    try:
        label = make(str(path), EVERYTHING, SAMPLERS, batch=1).forward()["label"][0, 0]
    except SslnetError as error:
        assert isinstance(error, DataError)
        return
    boxes = label[label[:, 0] >= 0][:, 3:7]
    assert np.isfinite(label).all() and ((boxes >= 0) & (boxes <= 1)).all()
