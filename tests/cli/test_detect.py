"""sslnet detect: boxes as text, as JSON and drawn; what it refuses. And mAP by sslnet test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.sources import shapes
from sslnet.sources.annotated import annotated_datum
from sslnet.sources.images import encode_image
from sslnet.sources.lmdb import write_lmdb

PRIORS = [[0.1, 0.2, 0.5, 0.6], [0.4, 0.5, 0.9, 1.0]]
"""Two boxes of every image: of class 1 and of class 2, as the weights say."""
HEAD = """
layer { name: "loc" type: "InnerProduct" bottom: "data" top: "loc" inner_product_param { num_output: 8 } }
layer { name: "conf" type: "InnerProduct" bottom: "data" top: "conf" inner_product_param { num_output: 6 } }
layer { name: "priors" type: "Parameter" top: "flat" parameter_param { shape { dim: 1 dim: 2 dim: 8 } } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "flat" top: "found"
  detection_output_param { num_classes: 3 code_type: CORNER nms_param { nms_threshold: 0.5 } keep_top_k: 9 confidence_threshold: 0.01 } }
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
LABELS = (
    'item { name: "none" label: 0 } item { name: "cat" label: 1 display_name: "a cat" } item { name: "dog" label: 2 }'
)


@pytest.fixture(autouse=True)
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """net.prototxt and net.caffemodel find both boxes in every image; labels.prototxt names their classes."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INPUT + HEAD)
    Path("labels.prototxt").write_text(LABELS)
    weights = pb.NetParameter()
    scores = [0.1, 0.9, 0.0, 0.3, 0.0, 0.6]
    for name, arrays in {
        "loc": [np.zeros((8, 192)), np.zeros(8)],
        "conf": [np.zeros((6, 192)), np.array(scores)],
        "priors": [np.stack([np.ravel(PRIORS), np.ones(8)])[None]],
    }.items():
        layer = weights.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add(data=array.ravel().tolist())
            blob.shape.dim.extend(array.shape)
    Path("net.caffemodel").write_bytes(weights.SerializeToString())
    for name, size in (("a.png", (40, 20)), ("b.png", (10, 30))):
        Image.new("RGB", size, (9, 9, 9)).save(name)


def test_boxes_are_printed_in_pixels_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["detect", "net.prototxt", "net.caffemodel", "a.png", "--labels", "labels.prototxt", "-o", "out.png"])
        == 0
    )
    text = capsys.readouterr().out
    assert "a.png: 2 boxes, drawn in out.png" in text
    assert "0.9000 a cat  x 4 to 20, y 4 to 12" in text and "0.6000 dog  x 16 to 36, y 10 to 20" in text
    drawn = np.asarray(Image.open("out.png").convert("RGB"))
    assert drawn.shape == (20, 40, 3)
    assert (drawn[8, 4] != 9).any() and (drawn[15, 36] != 9).any() and (drawn[18, 2] == 9).all()


def test_json_has_classes_scores_and_corners(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["detect", "net.prototxt", "net.caffemodel", "a.png", "b.png", "--threshold", "0.7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["detections"]
    assert [each["image"] for each in found] == ["a.png", "b.png"]
    assert [len(each["boxes"]) for each in found] == [1, 1]
    assert found[1]["boxes"][0]["name"] == "class 1"
    np.testing.assert_allclose(found[1]["boxes"][0]["box"], [1, 6, 5, 18], rtol=1e-5)


def test_several_images_are_drawn_into_a_folder() -> None:
    assert cli.main(["detect", "net.prototxt", "net.caffemodel", "a.png", "b.png", "-o", "found"]) == 0
    assert sorted(path.name for path in Path("found").iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], "gone.png"),
        (["a.png", "-o", "out"], "no ending"),
        (["a.png", "b.png", "-o", "."], "would overwrite the image"),
        (["a.png", "--labels", "net.prototxt"], "LabelMap"),
        (["a.png", "--mean", "1,2"], "--mean has 2 numbers"),
    ],
)
def test_what_cannot_be_is_one_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["detect", "net.prototxt", "net.caffemodel", *arguments]) != 0
    assert message in capsys.readouterr().err


def test_net_without_detections_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(INPUT + HEAD[: HEAD.index('layer { name: "found"')])
    assert cli.main(["detect", "net.prototxt", "net.caffemodel", "a.png"]) == 2
    assert "one of detections is needed" in capsys.readouterr().err


def test_test_prints_the_mean_average_precision(capsys: pytest.CaptureFixture[str]) -> None:
    """Of both classes one object a batch is found: of class 2 in one image of two, with a wrong box in the other one."""
    objects = [np.array([[1, 0, *PRIORS[0], 0], [2, 0, *PRIORS[1], 0]]), np.array([[1, 0, *PRIORS[0], 0]])]
    image = encode_image(np.zeros((3, 8, 8), np.uint8), "PNG")
    write_lmdb("lmdb", [(b"%d" % i, annotated_datum(image, each)) for i, each in enumerate(objects)])
    data = (
        'layer { name: "data" type: "AnnotatedData" top: "data" top: "label"'
        ' data_param { source: "lmdb" batch_size: 1 backend: LMDB }'
        ' annotated_data_param { max_objects: 3 label_map_file: "labels.prototxt" } }'
    )
    evaluate = (
        'layer { name: "e" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "map"'
        " detection_evaluate_param { num_classes: 3 } }"
    )
    Path("test.prototxt").write_text(data + HEAD + evaluate)
    assert cli.main(["test", "--model", "test.prototxt", "--weights", "net.caffemodel"]) == 0
    text = capsys.readouterr()
    shown = text.out + text.err
    assert "a cat: 1.0000" in shown and "dog: 1.0000" in shown and "map: mAP 1.0000 (11point, 2 classes)" in shown
    arguments = ["--ap-version", "Integral", "--json", "--iterations", "2"]
    assert cli.main(["test", "--model", "test.prototxt", "--weights", "net.caffemodel", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["average_precision"]["map"] == {"mean": 1.0, "classes": {"a cat": 1.0, "dog": 1.0}}


def test_drawn_shapes_are_the_same_for_everybody_and_lie_in_their_images() -> None:
    for part in shapes.PARTS:
        image, objects = shapes.draw_image(part, 3)
        again, _ = shapes.draw_image(part, 3)
        np.testing.assert_array_equal(image, again)
        assert 1 <= len(objects) <= shapes.MOST_SHAPES
        assert set(objects[:, 0]) <= {1, 2, 3, 4}
        assert ((objects[:, 2:6] >= 0) & (objects[:, 2:6] <= 1)).all()
        assert ((objects[:, 4:6] - objects[:, 2:4]) > 0.05).all()
