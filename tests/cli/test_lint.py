"""``sslnet lint``: exit codes, output and JSON; all problems of a file, in both phases, without data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sslnet
from sslnet.cli import main

GOOD = """layer { name: "d" type: "Data" top: "data" top: "label" transform_param { crop_size: 20 }
  data_param { source: "nowhere" batch_size: 5 backend: LMDB } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "i" type: "InnerProduct" bottom: "c" top: "i" inner_product_param { num_output: 3 } }
layer { name: "l" type: "SoftmaxWithLoss" bottom: "i" bottom: "label" top: "l" include { phase: TRAIN } }
"""
BAD = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "w" type: "Wonder" bottom: "x" top: "w" wonder_param { a: 1 } }
layer { name: "r" type: "ReLU" bottom: "w" top: "r" }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_outputs: 4 kernel_size: 3 } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 30 stride: 2 pad: 40 } }
layer { name: "q" type: "ReLU" bottom: "nothing" top: "q" include { phase: TEST } }
"""
SOLVER = 'net: "%s" base_lr: 0.1 lr_policy: "step" gamma: 0.1 stepsize: -3 max_iter: 5\nwonder: 1\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.prototxt").write_text(GOOD)
    (tmp_path / "bad.prototxt").write_text(BAD)
    (tmp_path / "solver.prototxt").write_text(SOLVER % "good.prototxt")
    return tmp_path


def test_lint_accepts_a_net_whose_data_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "good.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "assumed data 5 x 3 x 20 x 20, label 5 (from crop_size)" in out
    assert out.endswith("good.prototxt: runs (TRAIN 4 layers, TEST 3 layers)\n")


def test_lint_takes_shapes_and_infers_all_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "good.prototxt", "--shape", "data=2,1,8,10", "--json"]) == 0
    shapes = json.loads(capsys.readouterr().out)["files"][0]["shapes"]["TEST"]
    assert (shapes["data"], shapes["c"], shapes["i"]) == ([2, 1, 8, 10], [2, 4, 6, 8], [2, 3])


def test_lint_lists_all_problems_of_both_phases_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "bad.prototxt", "--json"]) == 2
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert [(problem["line"], problem["message"].split(":")[0]) for problem in file["problems"]] == [
        (2, 'unknown layer type "Wonder"'),
        (4, "num_output must be at least 1"),
        (4, 'ConvolutionParameter has no field "num_outputs"'),
        (5, "pad must be less than the kernel"),
        (6, 'unknown bottom "nothing"'),
    ]
    assert file["problems"][2]["hint"] == 'did you mean "num_output"?'
    assert main(["lint", "bad.prototxt"]) == 2
    assert capsys.readouterr().out.endswith("bad.prototxt: 5 problems\n")


def test_lint_of_a_solver_includes_its_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "solver.prototxt").write_text(SOLVER % "bad.prototxt")
    assert main(["lint", "solver.prototxt", "--json"]) == 2
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["kind"] == "solver"
    assert [problem["path"] for problem in file["problems"]] == ["solver.prototxt"] * 2 + ["bad.prototxt"] * 5


def test_lint_says_whether_weights_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD[GOOD.index('layer { name: "c"') : GOOD.index('layer { name: "l"')]
    data = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: %d dim: 20 } } }\n'
    for size in (20, 24):
        (folder / f"net{size}.prototxt").write_text(data % size + text)
    sslnet.Net("net20.prototxt", sslnet.TEST).save("w.caffemodel")
    assert main(["lint", "net20.prototxt", "w.caffemodel"]) == 0
    assert main(["lint", "net24.prototxt", "w.caffemodel", "--json"]) == 2
    out = capsys.readouterr().out
    problems = json.loads(out[out.index("{") :])["files"][1]["problems"]
    assert [(problem["layer"], problem["message"]) for problem in problems] == [
        ("i", "blob 0 has shape 3 x 1296 in the file and 3 x 1584 in the net (net24.prototxt)")
    ]


def test_lint_of_many_files_is_a_table_with_reasons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "good.prototxt", "bad.prototxt", "solver.prototxt", "missing.prototxt"]) == 2
    out = capsys.readouterr().out
    assert "1 of 4 files run" in out
    assert "What stops the others" in out
    assert 'unknown layer type "Wonder"' in out
    assert out.count("solver.prototxt") == 1


def test_lint_repeats_no_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = 'layer { name: "%d" type: "Wonder" bottom: "x" top: "%d" }\n'
    (folder / "many.prototxt").write_text(BAD.split("\n")[0] + "\n" + "".join(layer % (k, k) for k in range(5)))
    assert main(["lint", "many.prototxt"]) == 2
    out = capsys.readouterr().out
    assert out.count("unknown layer type") == 1
    assert "and 4 more of the kind: lines 3, 4, 5, 6" in out


def test_lint_wants_shapes_in_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "good.prototxt", "--shape", "data=1,x"]) == 2
    assert "--shape must be like data=1,3,300,300" in capsys.readouterr().err


def test_lint_allocates_no_weights(folder: Path) -> None:
    text = GOOD.replace("num_output: 3", 'num_output: 40000 weight_filler { type: "gaussian" }')
    (folder / "huge.prototxt").write_text(text)
    (check,) = sslnet.lint("huge.prototxt", shapes={"data": (1, 3, 1000, 1000)})
    assert check.accepted
    assert check.params["i"][0] == (40000, 4 * 998 * 998)


def test_train_reports_the_same_problems_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.prototxt").write_text((SOLVER % "bad.prototxt").replace("-3", "3").replace("wonder: 1\n", ""))
    assert main(["train", "--solver", "s.prototxt"]) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 2  # fields and types; shapes when these are mended
    assert 'no field "num_outputs"' in err
    assert 'unknown layer type "Wonder"' in err


def test_unknown_fields_are_ignored_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sslnet.prototxt import skip_unknown_fields

    (folder / "odd.prototxt").write_text(GOOD + "odd_field { a: 1 }\n")
    try:
        assert main(["lint", "odd.prototxt", "--ignore-unknown"]) == 0
    finally:
        skip_unknown_fields(False)
    assert "ignored fields that are not known: odd_field" in capsys.readouterr().out
