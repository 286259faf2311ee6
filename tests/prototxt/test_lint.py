"""Each file lint/CASE.prototxt is a solver with its net in place; lint/CASE.txt is all that is said about it.

Adding a case is adding the two files; an empty text is a case in which nothing may be said.
"""

import os
from pathlib import Path

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError

FOLDER = Path(__file__).parent / "lint"
CASES = sorted(path.stem for path in FOLDER.glob("*.prototxt"))


def lint(solver):
    return prototxt.lint_solver(solver, solver.part("net_param"))


@pytest.mark.parametrize("case", CASES)
def test_lint_says_exactly_this(case, monkeypatch):
    monkeypatch.chdir(FOLDER)
    notes = lint(prototxt.read_solver(f"{case}.prototxt"))
    assert "".join(f"{note}\n" for note in notes) == (FOLDER / f"{case}.txt").read_text(encoding="utf-8")
    assert {note.level for note in notes} <= {"error", "warning"}


def test_lint_texts_all_have_their_prototxt():
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == CASES


def test_lint_note_is_an_error_with_the_same_place():
    (note,) = lint(prototxt.read_solver(FOLDER / "decay_with_a_mult_in_test_alone.prototxt"))
    assert isinstance(note.error, DefinitionError)
    assert (note.error.line, note.error.column) == (5, 1)
    assert str(note.error) == str(note)


def test_lint_of_a_field_from_the_command_line_names_the_option():
    solver = prototxt.parse("net_param { }\nbreadth_decay: 0", pb.SolverParameter, path="solver.prototxt")
    (note,) = lint(prototxt.apply_overrides(solver, ["breadth_decay=-1"]))
    assert str(note) == (
        "solver.prototxt: error: breadth_decay must be a finite number, 0 or above, not -1\n"
        "  set by --set breadth_decay=-1"
    )


def test_lint_of_a_net_that_was_made_has_no_places():
    net = pb.NetParameter()
    net.layer.add(name="ip", type="InnerProduct").param.add(breadth_decay_mult=1)
    (note,) = prototxt.lint_solver(prototxt.Definition(pb.SolverParameter()), prototxt.Definition(net))
    assert str(note) == ('warning: breadth_decay_mult does nothing: the solver has no breadth_decay\n  layer "ip"')


REFERENCE = Path(os.environ.get("SSLNET_TEST_DATA", "")) / "goldens"
PAIRS = sorted(REFERENCE.glob("scnn/solver_*.prototxt")) + sorted(REFERENCE.glob("solvers/*_solver.prototxt"))


@pytest.mark.data
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_lint_finds_no_error_in_what_caffe_and_the_authors_ran(path):
    solver = prototxt.read_solver(path)
    net = prototxt.read_net(path.parent / solver.message.net)
    assert [str(note) for note in prototxt.lint_solver(solver, net)] == []
