"""sslnet plot: what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from sslnet import cli
from sslnet.net.weights import save_arrays

METRICS = [
    {"type": "run"},
    {"type": "train", "iteration": 0, "loss": 2.0, "sparsity": {
        "conv1[0]": {"elements": {"kept": 4, "total": 9}, "filters": {"kept": 1, "total": 3}}}},
    {"type": "test", "iteration": 9, "net": 0, "outputs": {"accuracy": 0.97, "loss": 0.1}},
]  # fmt: skip


@pytest.fixture(autouse=True)
def files_in_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    conv, ip = random.standard_normal((4, 1, 3, 3)), random.standard_normal((5, 16))
    save_arrays({"conv1": [conv], "ip1": [ip]}, "dense.caffemodel", hdf5=False)
    conv[1:] = 0
    save_arrays({"conv1": [conv], "ip1": [ip]}, "small.caffemodel", hdf5=False)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in METRICS))
    Path("nets.csv").write_text("name,error,flops,layers\nfirst,0.1,1000,20\nsecond,0.2,500,18\n")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["filters", "dense.caffemodel", "small.caffemodel"], ["dense   4 of 4 filters", "small   1 of 4 filters"]),
        (["filters", "dense.caffemodel", "--titles", "before", "--scale", "each"], ["before   4 of 4 filters"]),
        (["connections", "dense.caffemodel"], ["dense", "16 of 16 pixels connected"]),
        (["connections", "dense.caffemodel", "--layer", "ip1", "--shape", "2,8"], ["16 of 16 pixels connected"]),
        (["error", "nets.csv", "--baseline", "12"], ["first", "second", "FLOPs per image", "layers with weights", "baseline"]),
        (["error", "a/metrics.jsonl", "b/metrics.jsonl", "--cost", "layers"], ["a", "b", "layers with weights"]),
        (["training", "a/metrics.jsonl", "--of", "elements"], ["at the end 3.00 %", "conv1", "elements left (%)"]),
        (["training", "a/metrics.jsonl", "b/metrics.jsonl"], ["a: 3.00 %", "b: 3.00 %", "filters left (%)"]),
    ],
)  # fmt: skip
def test_pictures_are_written_with_their_words(
    words: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plot", *words, "--output", "picture.svg"]) == 0
    assert capsys.readouterr().out == "picture.svg\n"
    text = Path("picture.svg").read_text()
    for word in shown:
        assert f"<!-- {word}" in text


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_other_formats_are_written_too(suffix: str) -> None:
    assert cli.main(["plot", "filters", "dense.caffemodel", "--output", f"picture.{suffix}"]) == 0
    assert Path(f"picture.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["filters", "none.caffemodel"], "none.caffemodel"),
        (["filters", "nets.csv"], "nets.csv"),
        (["filters", "dense.caffemodel", "--layer", "conv2"], 'no layer "conv2" has weights in it\n  did you mean "conv1"?'),
        (["connections", "dense.caffemodel", "--shape", "3,5"], "reads 16 numbers, not 15 (--shape 3,5)"),
        (["connections", "dense.caffemodel", "--shape", "wide"], "--shape cannot be read from 'wide'"),
        (["filters", "dense.caffemodel", "--shape", "3,3"], "--shape is for connections, not for filters"),
        (["training", "a/metrics.jsonl", "--bgr"], "--bgr is for filters, not for training"),
        (["filters", "dense.caffemodel", "--titles", "a,b"], "--titles names 2 of 1 files"),
        (["error", "nets.csv", "--cost", "money"], 'there is no cost "money"'),
        (["error", "nets.csv", "--cost", "parameters"], "--cost parameters: not every net has it\n  all have flops, layers"),
        (["error", "nets.csv", "a/metrics.jsonl", "--accuracy", "top"], 'there is no output "top"'),
        (["training", "nets.csv"], "line 1 is not one that sslnet train writes"),
        (["pictures", "nets.csv"], "invalid choice: 'pictures'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", *words, "--output", "picture.png"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("picture.png").exists()


def test_name_of_the_picture_says_its_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", "filters", "dense.caffemodel", "--output", "picture.gif"]) == 2
    assert "picture.gif must end in one of .png, .pdf, .svg" in capsys.readouterr().err
