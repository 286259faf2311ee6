"""The sslnet command: finding commands, options in Caffe's spelling, help, errors and exit codes."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from sslnet import cli
from sslnet.errors import RunError, Span, UsageError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Registers a command "fake" that calls the function given."""

    def register(run: Callable[[argparse.Namespace], int]) -> None:
        module = types.ModuleType("fake_command")
        module.HELP = "Does nothing of use."
        module.EXAMPLE = "sslnet fake --solver solver.prototxt"

        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--solver")
            parser.add_argument("--sigint-effect")
            parser.add_argument("--number", type=int)

        module.add_arguments = add_arguments
        module.run = run
        monkeypatch.setitem(sys.modules, "fake_command", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", "fake_command")

    return register


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_every_command_starts_with_a_sentence_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "-h"]) == 0
    sentence, empty, label, example, *_ = capsys.readouterr().out.splitlines()
    assert sentence[0].isupper() and sentence.endswith(".")
    assert (empty, label) == ("", "example:")
    assert example.startswith(f"  sslnet {name} ")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_example_of_every_command_is_taken_by_its_parser(name: str) -> None:
    parser = cli.command_parser(name)
    words = parser.example.splitlines()[0].split()
    assert words[:2] == ["sslnet", name]
    parser.parse_args(words[2:])


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_option_says_what_it_does(name: str) -> None:
    for action in cli.command_parser(name)._actions:
        assert action.help, f"sslnet {name}: {action.option_strings or action.dest} has no help"


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n  {name} " in text


def test_without_a_command_the_overview_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "sslnet train" in output.err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import sslnet

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sslnet {sslnet.__version__}\n"


def test_unknown_command_is_bad_input_and_the_nearest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == 'error: there is no command "trian"\n  did you mean "train"?\n'


def test_unknown_option_is_bad_input_and_the_nearest_is_named(capsys: pytest.CaptureFixture[str], command) -> None:
    command(lambda args: 0)
    assert cli.main(["fake", "--sovler", "x"]) == 2
    assert capsys.readouterr().err == 'error: sslnet fake does not take "--sovler"\n  did you mean "--solver"?\n'


def test_wrong_value_is_bad_input(capsys: pytest.CaptureFixture[str], command) -> None:
    command(lambda args: 0)
    assert cli.main(["fake", "--number", "many"]) == 2
    assert "argument --number: invalid int value: 'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["-solver", "a"], ["--solver", "a"], ["-solver=a"], ["--solver=a"], ["-sigint_effect", "stop", "-solver", "a"]],
)
def test_options_are_understood_in_caffes_spelling(words: list[str], command) -> None:
    seen = []
    command(lambda args: seen.append(args) or 0)
    assert cli.main(["fake", *words]) == 0
    assert seen[0].solver == "a"


def test_gpu_option_is_answered_with_a_note(capsys: pytest.CaptureFixture[str], command) -> None:
    command(lambda args: 0)
    assert cli.main(["fake", "-gpu", "0"]) == 0
    assert capsys.readouterr().err == "note: sslnet computes on the CPU; --gpu changes nothing\n"


@pytest.mark.parametrize(("error", "code"), [(UsageError("no"), 2), (RunError("no"), 1)])
def test_exit_code_tells_bad_input_from_a_failed_run(error: Exception, code: int, command) -> None:
    command(raising(error))
    assert cli.main(["fake"]) == code


def test_error_is_printed_once_to_stderr_without_traceback(capsys: pytest.CaptureFixture[str], command) -> None:
    command(raising(UsageError("no such thing", span=Span("a.prototxt", 3, 5), hint="look again")))
    cli.main(["fake"])
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "a.prototxt:3:5: error: no such thing\n  look again\n")


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str], command) -> None:
    command(raising(UsageError("no such thing")))
    for words in (["--debug", "fake"], ["fake", "--debug"]):
        assert cli.main(words) == 2
        assert "Traceback" in capsys.readouterr().err


def test_interrupt_ends_with_130_and_one_line(capsys: pytest.CaptureFixture[str], command) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_full_disk_is_a_failed_run(capsys: pytest.CaptureFixture[str], command) -> None:
    command(raising(OSError(28, "No space left on device", "out.bin")))
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err == "error: No space left on device: out.bin\n"


def test_fault_of_our_own_asks_for_a_report(capsys: pytest.CaptureFixture[str], command) -> None:
    command(raising(IndexError("list index out of range")))
    assert cli.main(["fake"]) == 1
    output = capsys.readouterr().err
    assert "a bug in sslnet: IndexError: list index out of range" in output
    assert "Traceback" not in output


def test_closed_pipe_ends_quietly() -> None:
    code = "import sslnet.cli as cli, sys; cli.overview = lambda: chr(10) * 10**6; sys.exit(cli.main(['-h']))"
    script = f'{sys.executable} -c "{code}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


HELLO = r"""
import sys
from sslnet import cli
from sslnet.cli.log import RunLog

def dispatch(arguments):
    log = RunLog()
    log.write = log.to_stderr
    log.terminal = True
    log("conv\u00e9")
    log.result("conv\u00e9")
    return 0

cli.dispatch = dispatch
sys.exit(cli.main([]))
"""
"""A command that writes to both streams."""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_not_end_a_command(closed: str) -> None:
    command = shlex.join([sys.executable, "-c", HELLO])
    done = subprocess.run(["bash", "-c", f"{{ {command}; }} {closed}; exit $?"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_characters_that_the_terminal_has_not_are_escaped() -> None:
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", HELLO], env=plain, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "conv\\xe9\n", "conv\\xe9\n")


@pytest.mark.parametrize(("options", "told"), [([], False), (["--debug"], True)])
def test_numpys_warnings_are_for_debugging(options: list[str], told: bool, command) -> None:
    command(lambda args: warnings.warn("invalid value", RuntimeWarning, stacklevel=1) or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert cli.main(["fake", *options]) == 0
    assert bool(caught) == told


def test_python_layers_run_only_when_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "doubling_layer.py").write_text(
        "from sslnet.layers.python import PythonLayer\n"
        "class Double(PythonLayer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
    )
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } data_filler { value: 3 } } }\n'
        'layer { name: "y" type: "Python" bottom: "x" top: "y" python_param { module: "doubling_layer" layer: "Double" } }\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sslnet.layers.python._allowed", False)
    command = ["time", "--model", "net.prototxt", "--iterations", "1", "--forward-only"]
    assert cli.main(command) == 2
    assert "--allow-python-layers" in capsys.readouterr().err
    assert cli.main([*command, "--allow-python-layers"]) == 0
