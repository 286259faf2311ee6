"""Predictor: the net's outputs for any batch, from any thread."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError, WeightsError
from sslnet.net.net import Net

from ..support.small_nets import conv_net, images, renamed, write_net

TRAINED = conv_net({"conv": {"num_output": 6}}, classes=4, rectified={"conv"})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_net(tmp_path, TRAINED)


def expected(files: tuple[Path, Path], x: np.ndarray) -> np.ndarray:
    net = Net(*files, pb.TEST, plain=True)
    net.blobs["data"].reshape(*x.shape)
    net.blobs["label"].reshape(len(x))
    net.blobs["data"].data[...] = x
    net.forward(start="conv", end="ip")
    scores = np.exp(net.blobs["ip"].data - net.blobs["ip"].data.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 3, 8, 21])
def test_any_batch_gives_the_net_s_outputs(count: int, files: tuple[Path, Path]) -> None:
    predict = sslnet.Predictor(*files, max_batch=8)
    x = images(count)
    found = predict(x)
    assert list(found) == ["prob"]
    np.testing.assert_allclose(found["prob"], expected(files, x), atol=1e-6)
    np.testing.assert_array_equal(predict(data=x)["prob"], found["prob"])


def test_results_are_the_caller_s_own(files: tuple[Path, Path]) -> None:
    predict = sslnet.Predictor(*files, outputs=["conv", "prob"])
    first = predict(images(2))
    kept = {name: array.copy() for name, array in first.items()}
    predict(images(2, seed=1))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    assert (first["conv"] >= 0).all()


def test_threads_share_weights_and_do_not_disturb_each_other(files: tuple[Path, Path]) -> None:
    predict = sslnet.Predictor(*files)
    inputs = [images(2 + k % 3, seed=k) for k in range(12)]
    wanted = [expected(files, x) for x in inputs]
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for _ in range(8):
                for k in range(first % 3, 12, 3):
                    np.testing.assert_allclose(predict(inputs[k])["prob"], wanted[k], atol=1e-6)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert 1 <= len(predict._idle) <= 16
    nets = [copy.net for copy in predict._idle]
    assert all(net.params["conv"][0].data is nets[0].params["conv"][0].data or np.shares_memory(
        net.params["conv"][0].data, nets[0].params["conv"][0].data) for net in nets)  # fmt: skip


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda predict: predict(), "the net needs data; given: none"),
        (lambda predict: predict(image=images(1)), "the net needs data; given: image"),
        (lambda predict: predict(images(1), images(1)), "give the inputs by name: data"),
        (lambda predict: predict(images(1)[0]), 'input "data" must be N x 2 x 6 x 6, not 2 x 6 x 6'),
        (lambda predict: predict(images(0)), "at least one"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(call, message: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=message):
        call(sslnet.Predictor(*files))


def test_net_without_its_weights_is_an_error(files: tuple[Path, Path]) -> None:
    prototxt.save(renamed(TRAINED, ip="other"), files[0])
    with pytest.raises(WeightsError, match="no weights for a layer of the net: other"):
        sslnet.Predictor(*files)
    with pytest.raises(UsageError, match='no blob "conf"'):
        prototxt.save(TRAINED, files[0])
        sslnet.Predictor(*files, outputs=["conf"])
