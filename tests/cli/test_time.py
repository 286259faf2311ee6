"""sslnet time: tables, JSON and pictures of one net, of two, and of the forms of layers with zeros."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.net.net import Net
from sslnet.timing import layerwise as timing
from sslnet.timing import sparse_forms as forms

from ..support.small_nets import conv_net, renamed


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    prototxt.save(conv_net({"conv": {"num_output": 4}}), path)
    return str(path)


@pytest.fixture
def smaller(tmp_path: Path) -> str:
    path = tmp_path / "small.prototxt"
    prototxt.save(conv_net({"conv": {"num_output": 2}}), path)
    return str(path)


@pytest.fixture
def sparse(model: str, tmp_path: Path) -> str:
    """Weights of the model, conv's with a zero row and zero columns."""
    net = Net(model, phase=pb.TRAIN, seed=0)
    weights = net.params["conv"][0].data.reshape(4, -1)
    weights[0] = 0
    weights[:, ::3] = 0
    net.save(tmp_path / "sparse.caffemodel")
    return str(tmp_path / "sparse.caffemodel")


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["time", *arguments, "--iterations", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_time_json_has_every_layer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--model", model)
    assert (result["iterations"], len(result["nets"])) == (2, 1)
    net = result["nets"][0]
    assert (net["name"], net["phase"], net["batch"]) == ("tiny", "TRAIN", 3)
    assert [layer["name"] for layer in net["layers"]] == ["data", "conv", "ip", "loss"]
    data, conv = net["layers"][:2]
    assert not data["timed"] and data["forward_ms"] is None
    assert set(conv["forward_ms"]) == set(conv["backward_ms"]) == {"median", "low", "high"}
    assert conv["flops"] == conv["flops_left"] == 3 * 16 * 4 * 18 * 2
    assert conv["filters"] == {"kept": 4, "total": 4}
    assert "speedup" not in result


def test_time_json_of_two_nets_has_speedups_beside_flops(
    model: str, smaller: str, capsys: pytest.CaptureFixture[str]
) -> None:
    speedup = as_json(capsys, "--model", model, "--compare", smaller)["speedup"]
    assert set(speedup["layers"]) == {"conv", "ip", "loss"}
    assert speedup["layers"]["conv"]["flops"] == 2
    assert speedup["layers"]["loss"]["flops"] is None
    assert speedup["whole"]["time"] > 0


def test_time_reads_weights_phase_and_batch(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(model, phase=pb.TEST, seed=0)
    net.params["conv"][0].data[:3] = 0
    weights = tmp_path / "net.caffemodel"
    net.save(weights)
    found = as_json(
        capsys, "-model", model, "-weights", str(weights), "--phase", "TEST", "--batch", "5", "--forward-only"
    )
    assert (found["nets"][0]["phase"], found["nets"][0]["batch"]) == ("TEST", 5)
    assert found["nets"][0]["backward_ms"] is None
    assert found["nets"][0]["layers"][1]["filters"] == {"kept": 1, "total": 4}


def test_time_table_lists_layers_and_the_whole(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", model, "--iterations", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[3:7]] == ["data", "conv", "ip", "loss"]
    assert any(line.startswith("whole net") for line in lines)


def test_time_table_of_two_nets_has_the_flop_ratio(
    model: str, smaller: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", model, "--model2", smaller, "--iterations", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    conv = next(line for line in lines if line.startswith("conv"))
    assert conv.endswith("2.00x")
    assert [line[:3] for line in lines if ", batch " in line] == ["A: ", "B: "]


def test_time_refuses_weights_of_no_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", model, "--weights2", "x.caffemodel"]) == 2
    assert "--weights2 needs --model2" in capsys.readouterr().err


def test_comparison_fits_a_terminal_of_80_columns(
    model: str, smaller: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["time", "--model", model, "--model2", smaller, "--iterations", "1"]) == 0
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"]) :]
    assert table[0].split() == ["layer", *["A", "ms", "B", "ms", "speedup"] * 2, "ratio"]
    assert max(map(len, table)) <= 80


def test_filters_are_not_counted_in_a_net_whose_fillers_make_nothing_but_zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deploy.prototxt"
    net = conv_net({"conv": {"num_output": 4}})
    for layer in net.layer:
        layer.convolution_param.ClearField("weight_filler")
        layer.inner_product_param.ClearField("weight_filler")
    prototxt.save(net, path)
    layers = as_json(capsys, "--model", str(path))["nets"][0]["layers"]
    assert [layer["filters"] for layer in layers] == [None] * 4


def test_forms_in_json_have_times_speedups_and_limits(
    model: str, sparse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = as_json(capsys, "--model", model, "--weights", sparse, "--forms", "--threads", "1")
    assert (result["batch"], result["threads"], result["iterations"]) == (3, 1, 2)
    conv, ip = result["layers"]
    assert conv["filters"] == {"kept": 3, "total": 4} and conv["columns"] == {"kept": 12, "total": 18}
    assert list(conv["forms"]) == ["dense", "kept", "csr", "direct"] and list(ip["forms"]) == ["dense"]
    kept = conv["forms"]["kept"]
    assert kept["flop_limit"] == 2 and kept["speedup"]["forward"] > 0 and kept["share_of_peak"]["gemm"] > 0
    assert kept["kernel"].startswith("kept") and kept["gemm_library"] == "BLAS"
    assert set(kept["forward_ms"]) == {"median", "low", "high"}
    assert conv["forms"]["direct"]["gemm_ms"] is None and conv["forms"]["csr"]["backward_ms"] is None
    assert set(result["whole_net"]) == {"dense", "kept", "csr", "direct"}
    assert result["all_layers"]["fastest"]["forward_ms"] > 0


def test_forms_table_has_a_line_per_form(model: str, sparse: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", model, "--weights", sparse, "--iterations", "1", "--forms", "kept", "csr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("conv"))
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["kept", "CSR"]
    assert "2.00x" in lines[first + 1]
    assert any(line.startswith("Backward") for line in lines)


def test_forms_fit_a_terminal_of_100_columns(
    model: str, sparse: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["time", "--model", model, "--weights", sparse, "--iterations", "1", "--forms"]) == 0
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if "FLOP" in line) :]
    assert {"ms", "quartiles", "speedup", "limit", "kernel"} <= set(table[1].split())
    assert max(map(len, table)) <= 100


def test_several_threads_and_batches_are_timed_one_after_the_other(
    model: str, sparse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", model, "--weights", sparse, "--threads", "1", "2", "--batch", "1", "4"]
    found = as_json(capsys, *options, "--forms")["timings"]
    assert [(timing["threads"], timing["batch"]) for timing in found] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    found = as_json(capsys, *options)["timings"]
    assert [(timing["threads"], timing["nets"][0]["batch"]) for timing in found] == [(1, 1), (1, 4), (2, 1), (2, 4)]


@pytest.mark.parametrize("options", [(), ("--forms",)])
def test_interrupt_prints_what_was_measured(
    options: tuple[str, ...],
    model: str,
    sparse: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0

    def later(steps: Any, backward: bool = False) -> float:
        nonlocal calls
        calls += 1
        if calls > 300:
            raise KeyboardInterrupt
        return 1.0

    for module in (timing, forms):
        monkeypatch.setattr(module, "seconds_of", later)
    arguments = ["time", "--model", model, "--weights", sparse, "--iterations", "500", "--threads", "1", "2", *options]
    assert main(arguments) == 130
    out, err = capsys.readouterr()
    assert "conv" in out and "1 thread" in out and "2 threads" not in out
    assert re.search(r"interrupted after \d+ of 500 runs", err)


def test_interrupt_before_anything_was_measured_prints_nothing(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def at_once(steps: Any, backward: bool = False) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "seconds_of", at_once)
    assert main(["time", "--model", model]) == 130
    assert capsys.readouterr().out == ""


def test_peak_is_not_measured_where_no_table_shows_it(
    model: str, smaller: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured() -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(timing, "peak_flops", measured)
    assert main(["time", "--model", model, "--model2", smaller, "--iterations", "1"]) == 0


@pytest.mark.parametrize("way", ["one", "two", "forms", "several"])
def test_time_draws_bars(way: str, model: str, smaller: str, sparse: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = {
        "one": [],
        "two": ["--model2", smaller],
        "forms": ["--weights", sparse, "--forms"],
        "several": ["--weights", sparse, "--forms", "--batch", "1", "2"],
    }[way]
    picture = tmp_path / "time.png"
    assert main(["time", "--model", model, "--iterations", "1", "--plot", str(picture), *options]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--forms", "--model2", "other.prototxt"], "--forms times one net"),
        (["--forms"], "no weight is zero"),
        (["--forms", "lowered"], "invalid choice"),
        (["--threads", "1", "0"], "--threads must be at least 1, not 0"),
        (["--batch", "-3"], "--batch must be at least 1, not -3"),
        (["--iterations", "0"], "--iterations must be at least 1, not 0"),
        (["--plot", "missing/time.png"], "there is no folder missing"),
        (["--plot", "time.jpeg2000"], "must end in one of"),
    ],
)
def test_bad_options_are_one_error(
    options: list[str], message: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", model, *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_weights_of_another_net_are_refused(
    model: str, smaller: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.prototxt"
    prototxt.save(renamed(conv_net({"conv": {"num_output": 4}}), conv="other", ip="inner"), other)
    Net(str(other), phase=pb.TEST, seed=0).save(tmp_path / "other.caffemodel")
    assert main(["time", "--model", model, "--weights", str(tmp_path / "other.caffemodel")]) == 2
    assert "no layer of the net" in capsys.readouterr().err
