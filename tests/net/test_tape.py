"""Forward passes as tapes: the same bits as step by step, for every layer type, and whatever changes between two runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import RunError, UsageError
from sslnet.kernels.runtime.native import works
from sslnet.kernels.runtime.tape import set_taping
from sslnet.kernels.runtime.threads import set_deterministic, set_num_threads
from sslnet.layers import LAYERS
from sslnet.net.net import Net
from sslnet.net.steps.taped import TAPED
from sslnet.net.taping import TapedPass

from ..layers.cases import CASES
from ..layers.harness import Case, draw
from ..support.model_nets import MODELS
from ..support.small_nets import images

pytestmark = pytest.mark.skipif(not works(), reason="kernels cannot be called natively with this Numba")


@pytest.fixture(autouse=True)
def two_threads():
    set_num_threads(2)
    set_taping(True)
    yield
    set_num_threads(None)
    set_taping(None)
    set_deterministic(None)


CONV = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1" convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2" convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "c2" bottom: "p1" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""

BROKEN = CONV.replace('bottom: "sum" top: "ip"', 'bottom: "shuffled" top: "ip"').replace(
    'layer { name: "ip"',
    'layer { name: "shuffle" type: "ShuffleChannel" bottom: "sum" top: "shuffled" shuffle_channel_param { group: 2 } }\n'
    'layer { name: "ip"',
)
"""With a layer in the middle that runs in Python."""


def make(text: str = CONV, *, lean: bool = True, phase: int = pb.TEST, **settings: Any) -> Net:
    """The net with all parameters and inputs drawn: the same in every call."""
    net = Net(prototxt.parse(text, pb.NetParameter), phase=phase, seed=3, lean=lean, **settings)
    random = np.random.default_rng(5)
    for name, blobs in net.params.items():
        for blob in blobs if net.layer_dict[name].TYPE != "Filter" else ():  # its numbers choose channels
            blob.data[...] = (
                np.abs(random.normal(size=blob.shape)) if blob.num_axes == 1 else random.normal(size=blob.shape)
            )
    fill(net, 0)
    return net


def fill(net: Net, seed: int, values: Any = None) -> None:
    random = np.random.default_rng(seed)
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = values[name] if values and name in values else draw(name, blob.shape, random)


def outputs(net: Net, *, taped: bool | None = None, **inputs: Any) -> dict[str, np.ndarray]:
    """Copies of the outputs and the loss of one run; taped: whether it must, or must not, use a tape."""
    before = count(net)
    found = {name: array.copy() for name, array in net.forward(**inputs).items()}
    if taped is not None:
        assert (count(net) > before) is taped
    return found | {"loss": np.array(net.loss)}


def count(net: Net) -> int:
    """Runs of tapes so far, counted where they are run."""
    return getattr(net, "tape_runs", 0)


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    from sslnet.net.taping import TapedPass

    run = TapedPass.run

    def counting(self):
        owner = next((net for net in nets if net.plan(True).taped is self), None)
        if owner is not None:
            owner.tape_runs = count(owner) + 1
        return run(self)

    nets: list[Any] = []
    init = Net.__init__

    def noting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        nets.append(self)

    monkeypatch.setattr(Net, "__init__", noting)
    monkeypatch.setattr(TapedPass, "run", counting)


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def step_by_step(net: Net, **inputs: Any) -> dict[str, np.ndarray]:
    set_taping(False)
    try:
        return outputs(net, taped=False, **inputs)
    finally:
        set_taping(True)


EACH = [
    pytest.param(type_, case if isinstance(case, Case) else Case(case), id=f"{type_}-{number}")
    for type_, cases in CASES.items()
    if type_ in LAYERS
    for number, case in enumerate(cases)
]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "whole"])
@pytest.mark.parametrize("type_, case", EACH)
def test_every_layer_computes_the_same_bits_on_new_values(type_: str, case: Case, lean: bool) -> None:
    """The tape is recorded with other values than those it is run with: nothing of them may be left in it."""
    net, plain = make(case.text, lean=lean), make(case.text, lean=lean)
    for seed in range(4):
        for one in (net, plain):
            fill(one, seed, case.values)
        assert_equal(outputs(net), step_by_step(plain))
    if any(issubclass(LAYERS[type_], kind) for kind in TAPED) and not lean:
        for name in net.blobs:  # what users see, and what a backward pass reads
            np.testing.assert_array_equal(net.blobs[name].data, plain.blobs[name].data, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("fixed", [False, True], ids=["", "deterministic"])
@pytest.mark.parametrize("text", [CONV, BROKEN], ids=["whole", "broken"])
def test_any_number_of_threads_computes_the_same_bits(text: str, fixed: bool, threads: int) -> None:
    set_deterministic(fixed)
    set_num_threads(threads)
    net, plain = make(text), make(text)
    for seed in range(4):
        x = images(2, (3, 12, 12), seed)
        assert_equal(outputs(net, taped=seed > 0, data=x), step_by_step(plain, data=x))
    for many in (threads + 1, threads):
        set_num_threads(many)
        outputs(net, taped=False or None)
        assert_equal(outputs(net), step_by_step(plain))


@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_models_compute_the_same_bits(name: str) -> None:
    text = (MODELS / name / "deploy.prototxt").read_text()
    net, plain = make(text), make(text)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=net.blobs[net.inputs[0]].shape)
        assert_equal(outputs(net, **{net.inputs[0]: x}), step_by_step(plain, **{net.inputs[0]: x}))
    assert count(net) == 2


def test_segments_of_a_net_with_a_python_step() -> None:
    net = make(BROKEN)
    outputs(net), outputs(net)
    taped = net.plan(True).taped
    assert len(taped.tapes) == 2 and len(taped._segments) == 3
    whole = make(CONV)
    outputs(whole), outputs(whole)
    assert len(whole.plan(True).taped.tapes) == len(whole.plan(True).taped._segments) == 1


def test_weights_may_change_between_runs() -> None:
    net, plain = make(), make()
    for seed in range(4):
        for one in (net, plain):
            one.params["c1"][0].data[...] = np.random.default_rng(seed).normal(size=(8, 3, 3, 3))
            one.params["ip"][1].data[...] = seed
        assert_equal(outputs(net, taped=seed > 0), step_by_step(plain))


def test_zeros_of_the_weights_choose_another_loop_nest() -> None:
    net, plain = make(), make()
    for kept in (8, 8, 2, 2, 8, 8):
        for one in (net, plain):
            weights = np.random.default_rng(3).normal(size=(8, 3, 3, 3))
            weights[kept:] = 0
            one.params["c1"][0].data[...] = weights
        assert_equal(outputs(net), step_by_step(plain))


@pytest.mark.parametrize("mode", ["LOWERED_CSRMM", "DIRECT_SCONV"])
def test_lists_of_weights_may_grow(mode: str) -> None:
    text = CONV.replace("kernel_size: 3 pad: 1", f"kernel_size: 3 pad: 1 conv_mode: {mode}")
    net, plain = make(text), make(text)
    for share in (0.1, 0.1, 0.9, 1.0, 0.3):
        for one in (net, plain):
            random = np.random.default_rng(3)
            one.params["c2"][0].data[...] = random.normal(size=(8, 8, 3, 3)) * (random.random((8, 8, 3, 3)) < share)
        assert_equal(outputs(net), step_by_step(plain))


def test_held_weights_are_read_again_when_held_again() -> None:
    net, plain = make(), make()
    for seed in range(5):
        for one in (net, plain):
            one.params["c1"][0].data[...] = np.random.default_rng(seed // 2).normal(size=(8, 3, 3, 3))
            if seed % 2 == 0:
                one.plan(True).hold_weights(True)
        assert_equal(outputs(net), step_by_step(plain))


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "whole"])
def test_batches_of_other_sizes(lean: bool) -> None:
    net, plain = make(lean=lean), make(lean=lean)
    for seed, size in enumerate([2, 2, 5, 5, 5, 2, 2, 2, 1, 5, 1, 5]):
        for one in (net, plain):
            one.blobs["data"].reshape(size, 3, 12, 12)
        x = images(size, (3, 12, 12), seed)
        assert_equal(outputs(net, data=x), step_by_step(plain, data=x))
    assert count(net) >= 4


def test_an_input_that_adopts_other_arrays_is_followed() -> None:
    net, plain = make(), make()
    batches = [np.ascontiguousarray(images(2, (3, 12, 12), seed), np.float32) for seed in range(3)]
    for seed in (0, 1, 2, 0, 2):
        for one in (net, plain):
            one.blobs["data"].adopt_data(batches[seed])
        assert_equal(outputs(net), step_by_step(plain))
    assert count(net) == 4


DATA = """
layer { name: "digits" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 20 } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("follows", [True, False])
def test_each_pass_computes_the_batch_that_its_data_layer_hands_over(
    lean: bool, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a tape cannot follow the new batch in the middle of a pass, and its steps run one by one."""
    message = prototxt.parse(DATA, pb.NetParameter)
    taped = Net(message, phase=pb.TEST, seed=3, lean=lean)
    if not follows:
        original = TapedPass._follows
        monkeypatch.setattr(TapedPass, "_follows", lambda self: self._moved is Blob.moved and original(self))
    found = [{name: data.copy() for name, data in taped.forward(["ip"]).items()} for _ in range(9)]
    set_taping(False)
    plain = Net(message, phase=pb.TEST, seed=3, lean=lean)
    for outputs_ in found:
        assert_equal(outputs_, {name: data.copy() for name, data in plain.forward(["ip"]).items()})


def test_kept_blobs_are_returned() -> None:
    net, plain = make(), make()
    for _ in range(2):
        outputs(net)
    for _ in range(3):
        assert_equal(
            {k: v.copy() for k, v in net.forward(blobs=["p1", "c2"]).items()},
            {k: v.copy() for k, v in plain.forward(blobs=["p1", "c2"]).items()},
        )
    with pytest.raises(UsageError, match="no longer available"):
        _ = net.blobs["sum"].data


def test_lean_blobs_stay_unreadable_after_a_tape() -> None:
    net = make()
    for _ in range(4):
        outputs(net)
        with pytest.raises(UsageError, match="no longer available"):
            _ = net.blobs["c1"].data


def test_nets_that_share_memory_take_turns() -> None:
    train = make(CONV, phase=pb.TRAIN)
    test, other = make(CONV, share=train), make(CONV.replace("dim: 2", "dim: 9", 1), share=train)
    plain = [make(CONV), make(CONV.replace("dim: 2", "dim: 9", 1))]
    for one in plain:
        one.share_with(train)
    for seed in range(4):
        train.forward()
        train.backward()
        for net, reference in zip((test, other), plain):
            fill(net, seed), fill(reference, seed)
            assert_equal(outputs(net), step_by_step(reference))


def test_backward_in_phase_test_follows_a_taped_pass() -> None:
    text = "force_backward: true\n" + CONV
    net, plain = make(text, lean=False), make(text, lean=False)
    for seed in range(3):
        for one, on in ((net, True), (plain, False)):
            set_taping(on)
            fill(one, seed)
            one.forward()
            one.clear_param_diffs()
            one.backward(prob=np.random.default_rng(seed).normal(size=(2, 5)))
        set_taping(True)
        for a, b in zip((*net.blobs.values(), *net.params["c1"]), (*plain.blobs.values(), *plain.params["c1"])):
            np.testing.assert_array_equal(a.diff, b.diff)
    assert count(net) == 2


def test_a_part_of_the_net_after_a_taped_pass() -> None:
    net, plain = make(lean=False), make(lean=False)
    for seed in range(3):
        for one, on in ((net, True), (plain, False)):
            set_taping(on)
            fill(one, seed)
            one.forward()
            one.blobs["c2"].data[...] *= 2
        set_taping(True)
        np.testing.assert_array_equal(
            net.forward(start="sum")["prob"].copy(), plain.forward(start="sum")["prob"].copy()
        )


def test_losses_and_labels_run_in_python_between_tapes() -> None:
    text = (
        CONV.replace('layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }', "")
        + 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }'
        + 'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }'
    )
    net, plain = make(text), make(text)
    for seed in range(4):
        fill(net, seed), fill(plain, seed)
        found = outputs(net, taped=seed > 0)
        assert found["loss"] != 0
        assert_equal(found, step_by_step(plain))
    net.blobs["label"].data[...] = 9
    with pytest.raises(Exception, match="loss") as error:
        net.forward()
    assert getattr(error.value, "layer", "") == "loss"


def test_a_kernel_that_fails_names_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from sslnet.kernels.runtime import tape

    net = make()
    outputs(net), outputs(net)
    launch = net.plan(True).taped.tapes[0]._launches[0]
    row = next(row for row in launch.alone_rows if row.label.layer.name == "p1")
    monkeypatch.setattr(type(launch), "run", lambda self: row)
    with pytest.raises(RunError, match="a kernel has failed") as error:
        net.forward()
    assert error.value.layer == "p1"
    assert tape.KernelFailed


@pytest.mark.parametrize(
    "phase, settings", [(pb.TRAIN, {}), (pb.TEST, {"plain": True}), (pb.TEST, {"dtype": np.float64})]
)
def test_other_nets_run_step_by_step(phase: int, settings: dict[str, Any]) -> None:
    net = make(phase=phase, **settings)
    for _ in range(3):
        outputs(net, taped=False)


def test_systems_without_workers_run_step_by_step_with_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslnet.kernels.runtime.tape.available", lambda: False)
    net, plain = make(), make()
    for _ in range(3):
        assert_equal(outputs(net, taped=False), step_by_step(plain))
    set_num_threads(1)
    for seed in range(3):
        assert_equal(outputs(net, taped=seed > 0 or None), step_by_step(plain))


def test_without_native_calls_nets_run_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslnet.net.taping.works", lambda: False)
    net, plain = make(), make()
    for _ in range(3):
        assert_equal(outputs(net, taped=False), step_by_step(plain))


def test_watched_nets_run_step_by_step() -> None:
    net = make(lean=False)
    outputs(net), outputs(net, taped=True)
    seen: list[Any] = []
    net.on_step = lambda i, forward: seen.append(i)
    outputs(net, taped=False)
    assert seen == list(range(len(net.layers)))
    net.on_step = None
    lines: list[str] = []
    net.on_debug = lines.append
    outputs(net, taped=False)
    assert lines
    net.on_debug = None
    outputs(net)
    outputs(net, taped=True)


def test_two_nets_in_two_threads() -> None:
    nets, plain = [make() for _ in range(3)], make()
    inputs = [images(2, (3, 12, 12), seed) for seed in range(6)]
    wanted = [step_by_step(plain, data=x) for x in inputs]
    failures: list[BaseException] = []

    def work(net: Net, first: int) -> None:
        try:
            for k in range(60):
                found = {name: a.copy() for name, a in net.forward(data=inputs[(first + k) % 6]).items()}
                np.testing.assert_array_equal(found["prob"], wanted[(first + k) % 6]["prob"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(net, k)) for k, net in enumerate(nets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
