"""sslnet classify: its scores against the same steps written out; what it prints; what it refuses."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.sources.mean import write_mean

REFERENCE = Path(os.environ.get("SSLNET_TEST_DATA", ""))

HEIGHT, WIDTH, CLASSES = 4, 6, 7
NET = """
layer {{ name: "in" type: "Input" top: "image" input_param {{ shape {{ dim: 3 dim: {channels} dim: 4 dim: 6 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "image" top: "scores" inner_product_param {{ num_output: 7 bias_term: false }} }}
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(channels: int = 3) -> np.ndarray:
    """net.prototxt and net.caffemodel; the weights (classes, channels, height, width)."""
    Path("net.prototxt").write_text(NET.format(channels=channels))
    weights = np.random.default_rng(3).standard_normal((CLASSES, channels, HEIGHT, WIDTH)).astype(np.float32)
    message = pb.NetParameter()
    blob = message.layer.add(name="ip", type="InnerProduct").blobs.add(data=weights.ravel().tolist())
    blob.shape.dim.extend([CLASSES, weights[0].size])
    Path("net.caffemodel").write_bytes(message.SerializeToString())
    return weights


def photo(name: str = "a.png", height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Writes an image of noise, gives it as (height, width, 3) red, green, blue."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(name)
    return pixels


def bgr(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, ::-1].transpose(2, 0, 1).astype(np.float64)


def classify(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert cli.main(["classify", "net.prototxt", "net.caffemodel", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["predictions"]


def assert_scores(prediction: dict, scores: np.ndarray, top: int = 5) -> None:
    order = np.argsort(-scores)[:top]
    assert [item["class"] for item in prediction["top"]] == order.tolist()
    np.testing.assert_allclose([item["score"] for item in prediction["top"]], scores[order], rtol=1e-4, atol=1e-2)


def scores_of(weights: np.ndarray, planes: np.ndarray) -> np.ndarray:
    return np.tensordot(weights.astype(np.float64), planes, axes=3)


def test_colour_images_enter_as_blue_green_red_from_0_to_255(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo()
    (prediction,) = classify(capsys, "a.png")
    assert prediction["image"] == "a.png"
    assert_scores(prediction, scores_of(weights, bgr(pixels)))


def test_mean_values_scales_and_channel_order_are_applied_in_caffes_order(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo()
    options = ["--mean", "0.1,0.2,0.3", "--raw-scale", "1", "--input-scale", "2", "--channel-swap", "0,1,2"]
    (prediction,) = classify(capsys, "a.png", *options, "--top", "3")
    planes = (pixels.transpose(2, 0, 1) / 255 - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)) * 2
    assert_scores(prediction, scores_of(weights, planes), top=3)


@pytest.mark.parametrize("name", ["mean.binaryproto", "mean.npy"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (8, 9)])
def test_mean_image_is_taken_off_or_of_another_size_its_channel_means(
    name: str, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    weights, pixels = make(), photo()
    mean = np.random.default_rng(5).random((3, *size)).astype(np.float32) * 200
    write_mean(name, mean)
    (prediction,) = classify(capsys, "a.png", "--mean", name)
    expected = mean if size == (HEIGHT, WIDTH) else mean.mean(axis=(1, 2), keepdims=True)
    assert_scores(prediction, scores_of(weights, bgr(pixels) - expected))


def test_grey_nets_get_grey_images(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(channels=1), photo()
    Image.fromarray(pixels[:, :, 0]).save("grey.png")
    colour, grey = classify(capsys, "a.png", "grey.png", "--mean", "10")
    assert_scores(grey, scores_of(weights, pixels[None, :, :, 0].astype(float) - 10))
    luma = np.rint(pixels @ [0.299, 0.587, 0.114])[None]
    scores = scores_of(weights, luma - 10)
    np.testing.assert_allclose(colour["top"][0]["score"], scores.max(), atol=np.abs(weights).sum(axis=(1, 2, 3)).max())


def test_colour_nets_take_grey_images(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo()
    Image.fromarray(pixels[:, :, 0]).save("grey.png")
    (prediction,) = classify(capsys, "grey.png")
    assert_scores(prediction, scores_of(weights, np.repeat(pixels[None, :, :, 0], 3, axis=0).astype(float)))


def test_image_dims_crops_the_centre_and_oversample_averages_ten_crops(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo(height=8, width=10)
    planes = bgr(pixels)
    (centre,) = classify(capsys, "a.png", "--image-dims", "8,10")
    assert_scores(centre, scores_of(weights, planes[:, 2:6, 2:8]))
    (ten,) = classify(capsys, "a.png", "--image-dims", "8,10", "--oversample")
    crops = [planes[:, y : y + 4, x : x + 6] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))]
    crops += [crop[:, :, ::-1] for crop in crops]
    assert_scores(ten, np.mean([scores_of(weights, crop) for crop in crops], axis=0))


def test_more_images_than_a_batch_are_all_classified_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sslnet.cli.classify.IMAGES_AT_ONCE", 5)
    weights = make()
    images = [photo(f"{i}.png", seed=i) for i in range(7)]
    predictions = classify(capsys, *(f"{i}.png" for i in range(7)))
    assert [prediction["image"] for prediction in predictions] == [f"{i}.png" for i in range(7)]
    for prediction, pixels in zip(predictions, images):
        assert_scores(prediction, scores_of(weights, bgr(pixels)))


def test_nets_that_fix_their_batch_keep_it(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo()
    reshape = """layer { name: "r" type: "Reshape" bottom: "image" top: "r" reshape_param { shape { dim: 3 dim: 3 dim: 4 dim: 6 } } }"""
    text = NET.format(channels=3).replace('bottom: "image" top: "scores"', 'bottom: "r" top: "scores"')
    lines = text.strip().splitlines()
    Path("net.prototxt").write_text("\n".join([lines[0], reshape, lines[1]]))
    (prediction,) = classify(capsys, "a.png")
    assert_scores(prediction, scores_of(weights, bgr(pixels)))


def test_text_is_that_of_caffes_example(capsys: pytest.CaptureFixture[str]) -> None:
    weights, pixels = make(), photo()
    Path("names.txt").write_text("".join(f"n{i} thing {i}\n" for i in range(CLASSES)) + "\n")
    scores = scores_of(weights, bgr(pixels))
    order = np.argsort(-scores)
    arguments = ["classify", "net.prototxt", "net.caffemodel", "a.png", "--top", "2"]
    assert cli.main(arguments) == 0
    plain = capsys.readouterr().out.splitlines()
    assert cli.main([*arguments, "--labels", "names.txt"]) == 0
    named = capsys.readouterr().out.splitlines()
    assert plain[0] == named[0] == "---------- Prediction for a.png ----------"
    for i in range(2):
        number, name = plain[i + 1].split(" - ")
        assert abs(float(number) - scores[order[i]]) < 0.01 and name == str(order[i])
        assert named[i + 1] == f'{number} - "n{order[i]} thing {order[i]}"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png: error: cannot be read: No such file"),
        (["net.prototxt"], "net.prototxt: error: the image cannot be decoded"),
        (["a.png", "--top", "0"], "error: --top must be at least 1, not 0"),
        (["a.png", "--oversample"], "error: --oversample takes crops of a larger image: give --image-dims too"),
        (["a.png", "--image-dims", "8"], 'error: --image-dims must be 2 whole numbers like 256,256, not "8"'),
        (["a.png", "--image-dims", "2,2"], "error: image_dims 2 x 2 are smaller than the net's input"),
        (["a.png", "--channel-swap", "3,1,0"], "error: --channel-swap must be 3 whole numbers like 2,1,0, not"),
        (["a.png", "--mean", "1,2"], "error: --mean has 2 numbers, but the net's input 3 channels"),
        (["a.png", "--mean", "none.npy"], "none.npy: error: cannot be read"),
        (
            ["a.png", "--mean", "grey.npy"],
            "grey.npy: error: the mean image is 1 x 4 x 6, but the net's input 3 x 4 x 6",
        ),
        (["a.png", "--labels", "names.txt"], "names.txt: error: there are 1 class names, but the net has 7 classes"),
        (["a.png", "--labels", "none.txt"], "none.txt: error: cannot be read"),
    ],
)
def test_bad_input_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    photo()
    np.save("grey.npy", np.zeros((1, HEIGHT, WIDTH), np.float32))
    Path("names.txt").write_text("cat\n")
    assert cli.main(["classify", "net.prototxt", "net.caffemodel", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_weights_of_another_net_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    make()
    photo()
    message = pb.NetParameter()
    message.layer.add(name="other", type="InnerProduct").blobs.add(data=[1]).shape.dim.append(1)
    Path("net.caffemodel").write_bytes(message.SerializeToString())
    assert cli.main(["classify", "net.prototxt", "net.caffemodel", "a.png"]) == 2
    assert "it has other" in capsys.readouterr().err


@pytest.mark.data
def test_squeezenet_sees_a_fox_in_the_cat(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = REFERENCE / "caffemodels" / "squeezenet_v1.0_deepcompression"
    weights = tmp_path / "net.caffemodel"
    weights.write_bytes(lzma.decompress((folder / "decompressed_SqueezeNet.caffemodel.xz").read_bytes()))
    image = str(REFERENCE / "data" / "images" / "cat.jpg")
    model = str(folder / "SqueezeNet_deploy.prototxt")
    assert cli.main(["classify", model, str(weights), image, "--mean", "104,117,123", "--json", "--top", "3"]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
    assert [item["class"] for item in prediction["top"]] == [278, 277, 263]
