"""The notice that kernels are compiled: given when they are, not when they are ready; how far it is; Ctrl-C on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numba import cfunc, njit, types

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli.compiling import NOTICE, Compiling
from sslnet.solver.solver import Solver

NET = """
layer { name: "data" type: "DummyData" top: "x" dummy_data_param { shape { dim: 4 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }
"""
SOLVER = f'net_param {{ {NET} }} base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false'


def fresh_kernel() -> None:
    """Compiles a kernel that no cache has."""

    @njit
    def add_one(x):
        return x + 1

    assert add_one(1) == 2


def test_notice_is_given_once_when_kernels_are_compiled() -> None:
    said: list[str] = []
    with Compiling(said.append):
        fresh_kernel()
        fresh_kernel()
    assert said == [NOTICE]


def test_c_functions_count_as_kernels() -> None:
    said: list[str] = []
    with Compiling(said.append):
        cfunc(types.void(types.int64))(lambda x: None)
    assert said == [NOTICE]


def test_notice_is_not_given_when_kernels_are_ready() -> None:
    @njit
    def add_three(x):
        return x + 3

    add_three(1)
    said: list[str] = []
    with Compiling(said.append):
        assert add_three(1) == 4
    assert said == []


def test_steps_of_the_first_iteration_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers forward, of which two run backward; each compiles something here."""
    from sslnet.layers.inner_product import InnerProduct
    from sslnet.layers.reduction import Reduction

    for layer in (InnerProduct, Reduction):
        for name in ("forward", "backward"):
            usual = getattr(layer, name)
            monkeypatch.setattr(layer, name, lambda *a, usual=usual: (fresh_kernel(), usual(*a))[1])
    said: list[str] = []
    shown: list[str] = []
    compiling = Compiling(said.append, shown.append)
    with compiling:
        solver = Solver(prototxt.parse(SOLVER, pb.SolverParameter), monitor=compiling, plain=True)
        solver.solve()
    steps = [f"compiling kernels, once: {step}" for step in ("2/5 (ip)", "3/5 (loss)", "4/5 (loss)", "5/5 (ip)")]
    assert len(shown) > 3
    assert shown == [*steps[1 - len(shown) :], ""]
    (line,) = said
    assert line.startswith("kernels compiled in ")
    assert solver.net.on_step is None


def test_giving_up_is_only_possible_until_something_has_been_learned() -> None:
    compiling = Compiling(lambda text: None)
    given_up: list[bool] = []
    with compiling:
        solver = Solver(prototxt.parse(SOLVER, pb.SolverParameter), monitor=compiling)
        fresh_kernel()
        given_up.append(compiling.give_up())
        solver.step(1)
        compiling.follow(solver.net)
        assert compiling.give_up()
        with pytest.raises(KeyboardInterrupt):
            fresh_kernel()
        with pytest.raises(KeyboardInterrupt):
            solver.step(1)
    assert given_up == [False]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupt_while_kernels_are_compiled_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(
        'net_param { layer { name: "digits" type: "Data" top: "data" top: "label" '
        'data_param { source: "digits/train" backend: BUILTIN batch_size: 8 } } '
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
        "convolution_param { num_output: 8 kernel_size: 5 } } "
        'layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 10 } } '
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" } } '
        'base_lr: 0.01 lr_policy: "fixed" max_iter: 100000000 snapshot_prefix: "run/x"'
    )
    environment = os.environ | {
        "PYTHONPATH": str(Path(sslnet.__file__).parent.parent),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt", "--threads", "2"]
    with open(tmp_path / "err", "w") as err:
        run = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=err,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            end = time.monotonic() + 100
            while "Solving" not in (tmp_path / "err").read_text() and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.3)  # into the first kernels; which ones they are does not matter
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=100) == 130
        finally:
            run.kill()
    text = (tmp_path / "err").read_text()
    assert text.endswith("interrupted\n")
    assert "Iteration 0" not in text
    assert not list(tmp_path.glob("run/*.caffemodel"))
