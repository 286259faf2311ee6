"""sslnet draw: where it writes, what it says, what it refuses."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from sslnet import cli

NET = """
name: "small"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "none_lmdb" backend: LMDB batch_size: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def net_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)


def words(path: str) -> list[str]:
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_draw_writes_beside_the_model_unless_told_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["draw", "net.prototxt", "--shape", "data=8,2,3,3"]) == 0
    assert capsys.readouterr().out == "net.svg: 3 layers\n"
    assert cli.main(["draw", "net.prototxt", "other.svg", "--shape", "data=8,2,3,3", "--phase", "TRAIN"]) == 0
    assert capsys.readouterr().out == "other.svg: 4 layers\n"
    assert "drop" in words("other.svg") and "drop" not in words("net.svg")


def test_shapes_given_stand_for_data_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["draw", "net.prototxt", "--shape", "data=8,2,3,3"]) == 0
    assert capsys.readouterr().err == ""
    assert {"data: 8 × 2 × 3 × 3", "label: 8", "8 × 5", "95 params"} <= set(words("net.svg"))


def test_missing_data_are_a_note_and_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["draw", "net.prototxt", "--rankdir", "LR"]) == 0
    error = capsys.readouterr().err
    assert 'note: some shapes are not known: there is no file "none_lmdb" (layer "d")\n' in error
    assert "--shape BLOB=N,C,H,W" in error
    assert "ip" in words("net.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.prototxt"], "none.prototxt: error: cannot be read"),
        (["net.prototxt", "net.png"], "error: net.png: the name of the picture must end in .svg"),
        (["net.prototxt", "--shape", "dat=1,2"], 'error: no data layer makes the blob "dat"\n  did you mean "data"?'),
        (["net.prototxt", "--shape", "data=1,x"], "error: --shape must be like data=64,3,32,32, not"),
        (["net.prototxt", "--shape", "data=0"], "error: --shape must be like data=64,3,32,32, not"),
    ],
)
def test_bad_input_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["draw", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(Path().glob("*.svg"))
