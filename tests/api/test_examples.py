"""The examples in docs/python.md and in the docstrings of the public functions run as they stand."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from pathlib import Path

import pytest

import sslnet

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
FUNCTIONS = ("compact", "prune", "low_rank", "teach", "evaluate", "export_onnx", "import_onnx")
"""Not compress_net: its example trains for minutes. That in docs/python.md is short."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the repository's models and solvers."""
    for name in ("models", "solvers"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_of_the_page_run_in_their_order(folder: Path) -> None:
    pytest.importorskip("onnx")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["probabilities"].shape == (5, 10)
    assert names["scores"]["prob"].shape == (2, 10)
    assert names["image"].shape == (1, 10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example_of_a_docstring_runs(name: str, folder: Path) -> None:
    pytest.importorskip("onnx")
    net = sslnet.Net("models/digits/train_test.prototxt", phase=sslnet.TRAIN, seed=0)
    net.save("digits.caffemodel")
    net.params["conv1"][0].data[:8] = 0
    net.save("pruned.caffemodel")
    Path("small").mkdir()
    shutil.copy("models/digits/train_test.prototxt", "small/digits.prototxt")
    shutil.copy("pruned.caffemodel", "small/digits.caffemodel")
    sslnet.export_onnx("models/digits/deploy.prototxt", "digits.caffemodel").save("resnet.onnx")
    text = inspect.getdoc(getattr(sslnet, name)) or ""
    found = re.search(r"\n\n((?:    .*\n)+)", text)
    assert found, f"the docstring of {name} has no example"
    exec(compile(textwrap.dedent(found[1]), name, "exec"), {"sslnet": sslnet})


@pytest.mark.parametrize("name", sslnet.__all__)
def test_public_names_stand_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}`", PAGE), f"docs/python.md does not name {name}"
