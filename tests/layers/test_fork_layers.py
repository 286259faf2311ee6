"""Layers of Caffe's forks for sequences, faces, optical flow and segmentation: against PyTorch (goldens/forks) and loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DefinitionError, RunError, ShapeError, SslnetError
from sslnet.layers.ctc_loss import path_sums
from sslnet.net.net import Net

from .fork_cases import layer
from .harness import inputs

with np.load(Path(__file__).parent.parent / "goldens" / "forks" / "torch.npz") as _stored:
    GOLDEN = dict(_stored)
LABELS: list[list[int]] = [[1, 1, 4, 2], [3], [], [2, 4, 2, 4]]


def make(text: str, phase: int = pb.TRAIN, dtype: type = np.float64, **settings: Any) -> Net:
    definition = prototxt.parse("force_backward: true\n" + text, pb.NetParameter)
    return Net(definition, phase=phase, dtype=dtype, seed=1, **settings)


def golden(prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix + "/"): v for k, v in GOLDEN.items() if k.startswith(prefix + "/")}


# -- sequences -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "lengths"), [("full", [7] * 4), ("ended", [7, 5, 6, 7])])
def test_path_sums_are_those_of_pytorch(name: str, lengths: list[int]) -> None:
    losses, gradient = path_sums(GOLDEN["ctc/scores"], LABELS, np.array(lengths), 0)
    np.testing.assert_allclose(losses, GOLDEN[f"ctc/{name}/losses"], rtol=1e-10)
    np.testing.assert_allclose(gradient, GOLDEN[f"ctc/{name}/gradient"], atol=1e-10)


def test_ctc_loss_of_both_forks() -> None:
    scores = GOLDEN["ctc/scores"]
    rows = np.array([each + [0] * (4 - len(each)) for each in LABELS])
    net = make(inputs(x=(7, 4, 5), label=(4, 4)) + layer("CtcLoss", "x label", "ctc_loss_param { alphabet_size: 5 }"))
    net.forward(x=scores, label=rows)
    assert net.loss == pytest.approx(GOLDEN["ctc/full/losses"].mean())
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, GOLDEN["ctc/full/gradient"], atol=1e-10)

    columns = np.array([each + [-1] * (4 - len(each)) for each in LABELS]).T
    cont = np.ones((7, 4))
    cont[0] = 0
    cont[5:, 1] = cont[6:, 2] = 0
    text = inputs(x=(7, 4, 5), cont=(7, 4), label=(4, 4)) + layer(
        "CTCLoss", "x cont label", "loss_weight: 3 ctc_loss_param { blank_index: 0 }"
    )
    net = make(text)
    net.forward(x=scores, cont=cont, label=columns)
    assert net.loss == pytest.approx(3 * GOLDEN["ctc/ended/losses"].mean())
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 3 * GOLDEN["ctc/ended/gradient"] / 4, atol=1e-10)


def test_labels_that_no_path_reads_as_are_an_error() -> None:
    net = make(inputs(x=(3, 1, 4), label=(1, 3)) + layer("CtcLoss", "x label"))
    with pytest.raises(BatchError, match="3 labels, which need 5 time steps, but has 3"):
        net.forward(x=np.zeros((3, 1, 4)), label=[[1, 1, 1]])
    with pytest.raises(BatchError, match="no class but the blank"):
        net.forward(x=np.zeros((3, 1, 4)), label=[[7, 0, 0]])
    with pytest.raises(BatchError, match="no class but the blank"):
        net.forward(x=np.zeros((3, 1, 4)), label=[[math.nan, 0, 0]])


@given(
    steps=st.integers(1, 6),
    labels=st.lists(st.lists(st.integers(-1, 4), max_size=4), min_size=1, max_size=3),
    blank=st.integers(-1, 4),
)
@settings(deadline=None, max_examples=60)
def test_any_labels_give_a_finite_loss_or_one_error(steps: int, labels: list[list[int]], blank: int) -> None:
    longest = max(1, *map(len, labels))
    rows = np.array([each + [-1] * (longest - len(each)) for each in labels], float).T
    try:
        net = make(
            inputs(x=(steps, len(labels), 4), label=rows.shape)
            + layer("CTCLoss", "x label", f"ctc_loss_param {{ blank_index: {blank} }}")
        )
        net.forward(x=np.random.default_rng(0).standard_normal((steps, len(labels), 4)), label=rows)
    except SslnetError:
        return
    net.backward()
    assert math.isfinite(net.loss) and net.loss >= -1e-12
    assert np.isfinite(net.blobs["x"].diff).all()


def test_lstm_of_rows_is_that_of_pytorch() -> None:
    wanted = golden("lstm")
    net = make(inputs(x=(10, 4)) + layer("Lstm", "x", "lstm_param { num_output: 3 batch_size: 2 }"))
    for blob, key in zip(net.params["l"], "whb"):
        blob.data[...] = wanted[key]
    net.forward(x=wanted["x"].reshape(10, 4))
    np.testing.assert_allclose(net.blobs["y"].data, wanted["y"].reshape(10, 3), atol=1e-12)
    net.clear_param_diffs()
    net.backward(y=wanted["dy"].reshape(10, 3))
    np.testing.assert_allclose(net.blobs["x"].diff, wanted["dx"].reshape(10, 4), atol=1e-12)
    for blob, key in zip(net.params["l"], ("dw", "dh", "db")):
        np.testing.assert_allclose(blob.diff, wanted[key], atol=1e-12)


def test_lstm_of_rows_goes_on_where_cont_is_1_and_its_diffs_are_clipped() -> None:
    wanted = golden("lstm")
    text = inputs(x=(2, 4), cont=(2,)) + layer("Lstm", "x cont", "lstm_param { num_output: 3 batch_size: 2 }")
    net = make(text)
    for blob, key in zip(net.params["l"], "whb"):
        blob.data[...] = wanted[key]
    for t in range(5):
        y = net.forward(x=wanted["x"][t], cont=[t > 0] * 2)["y"]
        np.testing.assert_allclose(y, wanted["y"][t], atol=1e-12)
    saved = net.layer_states()
    y = net.forward(x=wanted["x"][0], cont=[1, 1])["y"].copy()
    net.set_layer_states(saved)
    np.testing.assert_array_equal(net.forward(x=wanted["x"][0], cont=[1, 1])["y"], y)
    clipped = make(text.replace("batch_size: 2", "batch_size: 2 clipping_threshold: 0.01"))
    for blob, key in zip(clipped.params["l"], "whb"):
        blob.data[...] = wanted[key]
    clipped.forward(x=wanted["x"][0], cont=[0, 0])
    clipped.clear_param_diffs()
    clipped.backward(y=np.full((2, 3), 100.0))
    assert np.abs(clipped.params["l"][2].diff).max() == pytest.approx(0.02)


def test_lstm_unit_is_one_step_of_pytorchs() -> None:
    wanted = golden("lstm")
    net = make(inputs(c=(1, 2, 3), a=(1, 2, 12), cont=(1, 2)) + layer("LSTMUnit", "c a cont", "", "cell hidden"))
    hidden, cell = np.zeros((2, 2, 3))
    for t in range(5):
        a = wanted["x"][t] @ wanted["w"].T + hidden @ wanted["h"].T + wanted["b"]
        out = net.forward(c=cell[None], a=a[None], cont=[[t > 0] * 2])
        cell, hidden = out["cell"][0].copy(), out["hidden"][0].copy()
        np.testing.assert_allclose(hidden, wanted["y"][t], atol=1e-12)
    np.testing.assert_allclose(cell, wanted["last"][0], atol=1e-12)


def test_continuation_indicator_and_accuracy_of_sequences() -> None:
    net = make(layer("ContinuationIndicator", "", "continuation_indicator_param { time_step: 3 batch_size: 2 }"))
    assert net.forward()["y"].tolist() == [[0, 0], [1, 1], [1, 1]]
    paths = [[0, 1, 1, 0, 1], [2, 2, 0, 0, 0], [1, 2, 0, 2, 2], [0, 0, 0, 0, 0]]
    labels = [[1, 1, 0], [2, 2, 0], [1, 2, 2], [0, 0, 0]]
    net = make(inputs(x=(4, 5, 3), label=(4, 3)) + layer("LabelsequenceAccuracy", "x label"))
    assert net.forward(x=np.eye(3)[paths], label=labels)["y"] == pytest.approx(0.75)


@pytest.mark.parametrize(("param", "axes"), [("", (0,)), ("reverse_param { axis: 1 axis: -1 }", (1, 3))])
def test_reverse_is_flip_of_numpy(param: str, axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    net = make(inputs(x=x.shape) + layer("Reverse", "x", param))
    np.testing.assert_array_equal(net.forward(x=x)["y"], np.flip(x, axes))


# -- faces ---------------------------------------------------------------------------------------------------------------


def test_center_loss_moves_centres_towards_the_means() -> None:
    random = np.random.default_rng(0)
    x, labels, centres = random.standard_normal((5, 3)), [0, 2, 2, 0, 2], random.standard_normal((4, 3))
    text = inputs(x=(5, 3), label=(5,)) + layer("CenterLoss", "x label", "center_loss_param { num_output: 4 }")
    net = make(text)
    net.params["l"][0].data[...] = centres
    net.forward(x=x, label=labels)
    assert net.loss == pytest.approx(sum(((a - centres[k]) ** 2).sum() for a, k in zip(x, labels)) / 10)
    net.clear_param_diffs()
    net.backward()
    for k in range(4):
        mine = [centres[k] - a for a, label in zip(x, labels) if label == k]
        np.testing.assert_allclose(net.params["l"][0].diff[k], np.sum(mine, axis=0) / (1 + len(mine)) if mine else 0)
    with pytest.raises(BatchError, match="label 4"):
        net.forward(x=x, label=[0, 4, 0, 0, 0])


def psi(theta: float, order: int) -> float:
    part = min(int(order * theta / math.pi), order - 1)
    return (-1) ** part * math.cos(order * theta) - 2 * part


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_angular_margin_against_a_loop(order: int) -> None:
    random = np.random.default_rng(order)
    x, w, labels = random.standard_normal((40, 3)), random.standard_normal((5, 3)), random.integers(0, 5, 40)
    kind = ("SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE")[order - 1]
    param = f"type: {kind} num_output: 5 base: 2 gamma: 0.5 power: 2 lambda_min: 0.1 iteration: 3"
    text = layer("MarginInnerProduct", "x label", f"margin_inner_product_param {{ {param} }}", "y lambda")
    net = make(inputs(x=(40, 3), label=(40,)) + text)
    net.params["l"][0].data[...] = w
    out = net.forward(x=x, label=labels)
    weight = max(0.1, 2 * (1 + 0.5 * 4) ** -2)
    assert out["lambda"][0] == pytest.approx(weight)
    rows = w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(net.params["l"][0].data, rows)
    for i, k in enumerate(labels):
        length, plain = np.linalg.norm(x[i]), rows @ x[i]
        wanted = plain.copy()
        if order > 1:
            angle = math.acos(plain[k] / length)
            wanted[k] = (length * psi(angle, order) + weight * plain[k]) / (1 + weight)
        np.testing.assert_allclose(out["y"][i], wanted, rtol=1e-7)
    dy = random.standard_normal((40, 5))
    net.clear_param_diffs()
    net.backward(y=dy)
    np.testing.assert_allclose(net.params["l"][0].diff, dy.T @ x)
    step = 1e-6
    for i in range(8):  # the direction is that of the gradient, its length 1
        k, k_dy = labels[i], dy[i]
        slope = np.zeros(3)
        for v in range(3):
            ends = []
            for sign in (1, -1):
                moved = x[i].copy()
                moved[v] += sign * step
                length = np.linalg.norm(moved)
                ends.append(length * psi(math.acos(moved @ rows[k] / length), order))
            slope[v] = (ends[0] - ends[1]) / (2 * step)
        wanted = dy[i] @ rows
        if order > 1:
            row, own = _coefficients(x[i], rows[k], slope)
            part = slope / math.hypot(row, own)
            others = k_dy @ rows - k_dy[k] * rows[k]
            wanted = (others + k_dy[k] * part + weight * (k_dy @ rows)) / (1 + weight)
        np.testing.assert_allclose(net.blobs["x"].diff[i], wanted, atol=1e-4)


def _coefficients(x: np.ndarray, row: np.ndarray, slope: np.ndarray) -> tuple[float, float]:
    """The numbers a, b of slope = a row + b x."""
    found = np.linalg.lstsq(np.stack([row, x], axis=1), slope, rcond=None)[0]
    return float(found[0]), float(found[1])


def test_label_specific_add_adds_in_train_alone_and_counts_its_passes() -> None:
    x, labels = np.array([[0.5, 1.0], [0.1, -2.0]]), [1, 0]
    text = inputs(x=(2, 2), label=(2,)) + layer(
        "LabelSpecificAdd", "x label", "label_specific_add_param { bias: -0.35 }", "y bias"
    )
    np.testing.assert_allclose(make(text).forward(x=x, label=labels)["y"], [[0.5, 0.65], [0.1, -2.0]])
    np.testing.assert_array_equal(make(text, pb.TEST).forward(x=x, label=labels)["y"], x)
    fields = "bias_base: -0.1 bias_gamma: -0.1 bias_min: -0.25 bias_max: 0"
    net = make(text.replace("bias: -0.35", fields))
    found = [float(net.forward(x=x, label=labels)["bias"][0]) for _ in range(4)]
    assert found == pytest.approx([-0.1, -0.2, -0.25, -0.25])
    saved = net.layer_states()
    net.set_layer_states({})
    assert float(net.forward(x=x, label=labels)["bias"][0]) == pytest.approx(-0.1)
    net.set_layer_states(saved)
    assert net.layer_states() == saved


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_inner_distance_and_its_gradient_of_the_labels_rows_alone(kind: str) -> None:
    random = np.random.default_rng(0)
    x, w, dy = random.standard_normal((4, 3)), random.standard_normal((2, 3)), random.standard_normal((4, 2))
    labels = np.array([1, 0, 0, 1])
    param = f'inner_distance_param {{ num_output: 2 distance_type: "{kind}" update_center_only: true }}'
    net = make(inputs(x=(4, 3), label=(4,)) + layer("InnerDistance", "x label", param))
    net.params["l"][0].data[...] = w
    apart = x[:, None] - w
    wanted = np.abs(apart).sum(axis=2) if kind == "L1" else (apart**2).sum(axis=2)
    np.testing.assert_allclose(net.forward(x=x, label=labels)["y"], wanted)
    net.clear_param_diffs()
    net.backward(y=dy)
    slope = (np.sign(apart) if kind == "L1" else 2 * apart) * dy[:, :, None]
    np.testing.assert_allclose(net.blobs["x"].diff, slope.sum(axis=1))
    chosen = np.arange(2) == labels[:, None]
    np.testing.assert_allclose(net.params["l"][0].diff, -(slope * chosen[:, :, None]).sum(axis=0))


def test_channel_scale_with_one_number_keeps_a_running_mean() -> None:
    x, s = np.ones((2, 3, 1, 1)), np.array([1.0, 3.0])
    text = inputs(x=x.shape, s=(2,)) + layer("ChannelScale", "x s", "channel_scale_param { global_scale: true }", "y n")
    net = make(text)
    assert net.forward(x=x, s=s)["n"].tolist() == [2]
    assert net.forward(x=x, s=s * 2)["n"][0] == pytest.approx(0.99 * 2 + 0.01 * 4)
    test = make(text, pb.TEST, share=net)
    np.testing.assert_allclose(test.forward(x=x, s=s * 100)["y"], 2.02)


# -- optical flow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "most", "pad", "stride_1", "stride_2", "kind"),
    [
        (1, 2, 2, 1, 1, "MULTIPLY"),
        (3, 2, 3, 2, 2, "MULTIPLY"),
        (3, 1, 0, 1, 1, "SUBTRACT"),
        (1, 3, 1, 2, 2, "MULTIPLY"),
    ],
)
def test_correlation_against_a_loop(kernel: int, most: int, pad: int, stride_1: int, stride_2: int, kind: str) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 2, 3, 8, 9))
    fields = f"kernel_size: {kernel} max_displacement: {most} pad: {pad} stride_1: {stride_1} stride_2: {stride_2}"
    net = make(
        inputs(a=a.shape, b=b.shape)
        + layer("Correlation", "a b", f"correlation_param {{ {fields} correlation_type: {kind} }}")
    )
    found = net.forward(a=a, b=b)["y"]
    padded = [np.pad(each, [(0, 0), (0, 0), (pad, pad), (pad, pad)]) for each in (a, b)]
    radius, reach = most // stride_2, kernel // 2
    width = 2 * radius + 1
    assert found.shape[1] == width**2
    for number in range(width**2):
        down, right = ((number // width - radius) * stride_2, (number % width - radius) * stride_2)
        for i in range(found.shape[2]):
            for j in range(found.shape[3]):
                y, x = i * stride_1 + most + reach, j * stride_1 + most + reach  # the middle of the patch
                one = padded[0][:, :, y - reach : y + reach + 1, x - reach : x + reach + 1]
                y, x = y + down, x + right
                two = padded[1][:, :, y - reach : y + reach + 1, x - reach : x + reach + 1]
                wanted = (one * two if kind == "MULTIPLY" else np.abs(one - two)).sum(axis=(1, 2, 3))
                np.testing.assert_allclose(found[:, number, i, j], wanted / (kernel**2 * 3))


def test_flow_warp_is_grid_sample_of_pytorch() -> None:
    wanted = golden("warp")
    net = make(inputs(x=(2, 3, 5, 6), flow=(2, 2, 5, 6)) + layer("FlowWarp", "x flow"))
    np.testing.assert_allclose(net.forward(x=wanted["x"], flow=wanted["flow"])["y"], wanted["y"], atol=1e-6)
    net.backward(y=wanted["dy"])
    np.testing.assert_allclose(net.blobs["x"].diff, wanted["dx"], atol=1e-6)
    columns, rows = np.arange(6) + wanted["flow"][:, 0], np.arange(5)[:, None] + wanted["flow"][:, 1]
    inner = (columns < 5) & (rows < 4)  # beyond the last pixel PyTorch's border has no slope
    np.testing.assert_allclose(net.blobs["flow"].diff * inner[:, None], wanted["df"] * inner[:, None], atol=1e-5)
    text = inputs(x=(1, 1, 1, 1), flow=(1, 2, 1, 1)) + layer(
        "FlowWarp", "x flow", "flow_warp_param { fill_value: NOT_A_NUMBER }"
    )
    assert np.isnan(make(text).forward(x=np.ones((1, 1, 1, 1)), flow=np.full((1, 2, 1, 1), np.nan))["y"]).all()


def cubic(x: float) -> float:
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 12), (8, 6)])
@pytest.mark.parametrize("kind", ["LINEAR", "CUBIC", "NEAREST"])
@pytest.mark.parametrize("antialias", [True, False])
def test_resample_against_a_loop(height: int, width: int, kind: str, antialias: bool) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8))
    fields = f"height: {height} width: {width} type: {kind} antialias: {'true' if antialias else 'false'}"
    found = make(inputs(x=x.shape) + layer("Resample", "x", f"resample_param {{ {fields} }}")).forward(x=x)["y"][0, 0]
    fx, fy = 8 / width, 8 / height
    smooth = antialias and max(fx, fy) > 1
    ax, ay = (1 / fx, 1 / fy) if smooth else (1.0, 1.0)
    reach = [2 if f < 1 else math.ceil((4 if kind == "CUBIC" else 2) / a) for f, a in ((fx, ax), (fy, ay))]
    function = cubic if kind == "CUBIC" else lambda d: max(0.0, 1 - abs(d))
    for i in range(height):
        for j in range(width):
            px, py = j * fx + fy / 2 - 0.5, i * fy + fx / 2 - 0.5
            cx, cy = (int(math.copysign(math.floor(abs(p) + 0.5), p)) for p in (px, py))
            if kind == "NEAREST":
                assert found[i, j] == x[0, 0, min(max(cy, 0), 7), min(max(cx, 0), 7)]
                continue
            total = weights = 0.0
            for y in range(max(0, cy - reach[1]), min(7, cy + reach[1]) + 1):
                for k in range(max(0, cx - reach[0]), min(7, cx + reach[0]) + 1):
                    w = function(ax * (px - k)) * function(ay * (py - y))
                    total, weights = total + w * x[0, 0, y, k], weights + w
            assert found[i, j] == pytest.approx(total / weights)


# -- segmentation, sparse feature maps, channels -------------------------------------------------------------------------


def test_accuracies_of_pixels_against_a_loop() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.standard_normal((2, 4, 3, 3)), random.integers(0, 3, (2, 1, 3, 3)).astype(float)
    labels[0, 0, 0] = 255
    text = inputs(x=scores.shape, label=labels.shape)
    param = "seg_accuracy_param { ignore_label: 255 }"
    found = make(text + layer("SegAccuracy", "x label", param)).forward(x=scores, label=labels)["y"].reshape(-1)
    pairs = [
        (int(labels[n, 0, i, j]), int(scores[n, :, i, j].argmax()))
        for n in range(2)
        for i in range(3)
        for j in range(3)
        if labels[n, 0, i, j] != 255
    ]
    hits = [sum(p == (k, k) for p in pairs) for k in range(4)]
    rows, columns = ([sum(p[side] == k for p in pairs) for k in range(4)] for side in (0, 1))
    recalls = [h / r for h, r in zip(hits, rows) if r]
    unions = [h / (r + c - h) for h, r, c in zip(hits, rows, columns) if r + c]
    wanted = [sum(hits) / len(pairs), np.mean(recalls), np.mean(unions)]
    np.testing.assert_allclose(found, wanted)
    net = make(text + layer("SegAccuracy", "x label", param.replace("255", "255 reset: false")))
    np.testing.assert_allclose(net.forward(x=scores, label=labels)["y"].reshape(-1), wanted)
    other = random.standard_normal(scores.shape)
    net.forward(x=other, label=labels)
    both = make(inputs(x=(4, 4, 3, 3), label=(4, 1, 3, 3)) + layer("SegAccuracy", "x label", param))
    together = both.forward(x=np.concatenate([scores, other]), label=np.concatenate([labels, labels]))["y"]
    np.testing.assert_allclose(net.blobs["y"].data, together)
    with pytest.raises(BatchError, match="label 255 is out of range"):
        make(text + layer("SegAccuracy", "x label")).forward(x=scores, label=labels)


def test_sparsify_is_a_soft_threshold_with_an_l1_gradient() -> None:
    x, dy = np.array([[-2.0, -0.3, 0.0, 0.2, 1.0]]), np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    net = make(inputs(x=(1, 5)) + layer("Sparsify", "x", "sparsify_param { thre: 0.5 coef: 0.1 }"))
    np.testing.assert_allclose(net.forward(x=x)["y"], [[-1.5, 0, 0, 0, 0.5]])
    net.backward(y=dy)
    np.testing.assert_allclose(net.blobs["x"].diff, [[0.9, 0, 0, 0, 5.1]])
    net = make(inputs(x=(1, 5)) + layer("Sparsify", "x", "sparsify_param { coef: 0.1 }"))
    np.testing.assert_array_equal(net.forward(x=x)["y"], x)
    net.backward(y=dy)
    np.testing.assert_allclose(net.blobs["x"].diff, [[0.9, 1.9, 3, 4.1, 5.1]])


def test_auto_crop_takes_the_centre() -> None:
    x = np.arange(42.0).reshape(1, 1, 6, 7)
    net = make(inputs(x=x.shape, size=(1, 1, 3, 4)) + layer("AutoCrop", "x size"))
    np.testing.assert_array_equal(net.forward(x=x)["y"], x[:, :, 1:4, 1:5])


def test_filter_with_one_bottom_selects_channels() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    net = make(inputs(x=x.shape) + layer("Filter", "x", "filter_param { num_output: 2 }"))
    np.testing.assert_array_equal(net.forward(x=x)["y"], x[:, :2])
    net.params["l"][0].data[...] = [0, 1, 0, 0.5]
    np.testing.assert_array_equal(net.forward(x=x)["y"], x[:, [1, 3]])
    net.params["l"][0].data[...] = [0, 1, 0, 0]
    with pytest.raises(RunError, match="1 numbers of the blob are not 0, but num_output is 2"):
        net.forward(x=x)


def test_interp_takes_the_size_of_its_second_bottom() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
    text = inputs(x=x.shape, size=(1, 1, 5, 7)) + layer("Interp", "x size", "interp_param { use_blob_size: true }")
    plain = inputs(x=x.shape) + layer("Interp", "x", "interp_param { height: 5 width: 7 }")
    np.testing.assert_array_equal(make(text).forward(x=x)["y"], make(plain).forward(x=x)["y"])


WRONG = {
    "AutoCrop": ("x=(1, 1, 2, 2) size=(1, 1, 3, 3)", "", ShapeError),
    "CenterLoss": ("x=(3, 2) label=(3,)", "", DefinitionError),
    "ChannelScale": ("x=(3, 2) s=(2, 2)", "", ShapeError),
    "Correlation": ("a=(1, 1, 4, 4) b=(1, 1, 4, 4)", "correlation_param { kernel_size: 2 }", DefinitionError),
    "CtcLoss": ("x=(3, 2, 4) label=(3, 2)", "", ShapeError),
    "CTCLoss": ("x=(3, 2, 4) label=(3, 3)", "", ShapeError),
    "FlowWarp": ("x=(1, 1, 4, 4) flow=(1, 1, 4, 4)", "", ShapeError),
    "InnerDistance": ("x=(3, 2)", 'inner_distance_param { distance_type: "L3" }', DefinitionError),
    "LabelSpecificAdd": ("x=(3, 2) label=(2,)", "", ShapeError),
    "Lstm": ("x=(3, 2)", "lstm_param { num_output: 2 batch_size: 2 }", ShapeError),
    "LSTMUnit": ("c=(1, 2, 3) a=(1, 2, 9) cont=(1, 2)", "", ShapeError),
    "MarginInnerProduct": ("x=(3, 2) label=(2,)", "margin_inner_product_param { num_output: 2 }", ShapeError),
    "Resample": ("x=(1, 1, 4, 4)", "resample_param { height: 2 width: 2 type: AREA }", DefinitionError),
    "Reverse": ("x=(3, 2)", "reverse_param { axis: 2 }", SslnetError),
    "Sparsify": ("x=(3, 2)", "sparsify_param { thre: -1 }", DefinitionError),
}


@pytest.mark.parametrize("type_", WRONG)
def test_definitions_without_a_meaning_are_errors_of_the_layer(type_: str) -> None:
    shapes, param, error = WRONG[type_]
    sizes = eval(f"dict({shapes.replace(') ', '), ')})")
    tops = "y z" if type_ == "LSTMUnit" else "y"
    with pytest.raises(error) as caught:
        make(inputs(**sizes) + layer(type_, " ".join(sizes), param, tops))
    assert caught.value.layer == "l" or "axis" in str(caught.value)
