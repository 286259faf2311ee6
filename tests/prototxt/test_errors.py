"""Each file errors/CASE.prototxt is wrong in one way; errors/CASE.txt is what is said about it, to the letter.

Adding a case is adding the two files. solver_* are read as solvers, all others as nets.
"""

from pathlib import Path

import pytest

from sslnet import prototxt
from sslnet.errors import DefinitionError

FOLDER = Path(__file__).parent / "errors"
CASES = sorted(path.stem for path in FOLDER.glob("*.prototxt"))


@pytest.mark.parametrize("case", CASES)
def test_error_text_is_exact(case, monkeypatch):
    monkeypatch.chdir(FOLDER)
    read = prototxt.read_solver if case.startswith("solver_") else prototxt.read_net
    with pytest.raises(DefinitionError) as caught:
        read(f"{case}.prototxt")
    assert str(caught.value) + "\n" == (FOLDER / f"{case}.txt").read_text(encoding="utf-8")
    assert caught.value.exit_code == 2


def test_error_texts_all_have_their_prototxt():
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == CASES
