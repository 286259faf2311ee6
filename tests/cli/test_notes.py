"""Commands read definitions and weights of an older Caffe, and say so once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslnet import cli
from sslnet import sslnet_pb2 as pb

NET = """\
layers { name: "data" type: DUMMY_DATA top: "data" dummy_data_param { num: 2 channels: 3 height: 1 width: 1
  data_filler { type: "gaussian" } } }
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" }
"""
NOTE = "old.prototxt: note: written for an older Caffe (3 layers of 2014), read in today's form"


@pytest.fixture(autouse=True)
def files_of_2014(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.prototxt").write_text(NET)
    weights = pb.NetParameter()
    ip = weights.layers.add(name="ip", type=pb.V1LayerParameter.INNER_PRODUCT)
    ip.blobs.add(num=1, channels=1, height=2, width=3, data=[1, 2, 3, 4, 5, 6])
    ip.blobs.add(num=1, channels=1, height=1, width=2, data=[0, 1])
    Path("old.caffemodel").write_bytes(weights.SerializeToString())


@pytest.mark.parametrize(
    "command",
    [
        "test --weights old.caffemodel --iterations 2",
        "time --weights old.caffemodel --iterations 1 --model2 old.prototxt",
        "compact --weights old.caffemodel --output new",
    ],
)
def test_command_reads_an_old_net_and_says_so_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = command.split()
    assert cli.main([name, "--model", "old.prototxt", *rest]) == 0
    assert capsys.readouterr().err.count(NOTE) == 1
