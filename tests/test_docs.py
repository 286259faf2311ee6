"""The documents keep their promises: every command and option is described, and the commands that they show can be run."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from sslnet import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "models/README.md", *ROOT.glob("models/*/README.md")]
)
PACKAGES = sorted((ROOT / "sslnet").rglob("__init__.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

STORIES = re.compile(r"\b(alive|dies?|wakes?|rescues?|takes? along|is told|lets? go|steers?|steered)\b", re.IGNORECASE)
"""Words of stories. The field has its own: remain, become zero, include, report, prune, adjust."""

TRAIN = "pip install . && sslnet train --solver solvers/digits_ssl.prototxt"
TEST = 'pip install ".[test]" && pytest'


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """The sslnet command lines in the document's blocks of shell code, comments off."""
    lines = [line.split("  #")[0].strip() for block in code_blocks(path, "sh") for line in block.splitlines()]
    return [line[line.index("sslnet ") :] for line in lines if re.match(r"(pip install \. && )?sslnet ", line)]


def section(text: str, heading: str) -> str:
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert match, f'no section "## {heading}"'
    return match[1]


def test_readme_has_its_two_commands_each_on_a_line_of_its_own() -> None:
    assert [line for line in README.splitlines() if line.startswith("pip install ")] == [TRAIN, TEST]


def test_ci_reads_its_commands_from_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep -E '^pip install ' README.md" in script
    assert "sslnet train" not in script
    assert "pytest" not in script


def test_tools_are_commands() -> None:
    for path in [ROOT / ".ci" / "run", *(path for path in (ROOT / "tools").iterdir() if path.is_file())]:
        assert path.stat().st_mode & 0o100, f"{path.name} is not executable"
        assert path.read_bytes().startswith(b"#!"), f"{path.name} does not say what runs it"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_is_documented_with_every_option(name: str) -> None:
    text = section((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), f"sslnet {name}")
    for action in cli.command_parser(name)._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        for word in action.option_strings or [str(action.metavar or action.dest)]:
            assert re.search(rf"`{re.escape(word)}[ `]", text), f"docs/cli.md, sslnet {name}: {word} is missing"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_begins_with_an_example_and_its_output(name: str) -> None:
    text = section((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), f"sslnet {name}")
    before_options = re.split(r"^\|", text, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", before_options, flags=re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks[:2]] == ["sh", "text"], f"docs/cli.md, sslnet {name}: no example"
    assert shlex.split(blocks[0][1])[:2] == ["sslnet", name], (
        f"docs/cli.md, sslnet {name}: the example is of another command"
    )


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_example_of_the_help_is_taken_by_its_parser(name: str) -> None:
    program, command, *rest = shlex.split(importlib.import_module(cli.COMMANDS[name]).EXAMPLE)
    assert (program, command) == ("sslnet", name)
    cli.command_parser(name).parse_args(rest)
    for word in rest:
        assert not re.match(r"(models|solvers)/", word) or (ROOT / word).exists(), f"there is no {word}"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_uses_the_words_of_the_field(name: str) -> None:
    found = STORIES.search(cli.command_parser(name).format_help())
    assert not found, f'sslnet {name} -h says "{found[0]}"'


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_the_words_of_the_field(path: Path) -> None:
    if path.name == "CHANGELOG.md":  # it quotes what older versions said
        return
    found = STORIES.search(path.read_text(encoding="utf-8"))
    assert not found, f'{path.name} says "{found[0]}"'


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_packages_are_described_in_the_words_of_the_field(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{path.relative_to(ROOT)} has no docstring"
    found = STORIES.search(text)
    assert not found, f'{path.relative_to(ROOT)} says "{found[0]}"'


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_documented_options_exist(name: str) -> None:
    text = section((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), f"sslnet {name}")
    rows = re.findall(r"^\| (`--.*?) \|", text, flags=re.MULTILINE)
    known = cli.command_parser(name).option_strings
    for option in re.findall(r"`(--[\w-]+)", " ".join(rows)):
        assert option in known, f"docs/cli.md, sslnet {name}: there is no {option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_are_taken_by_their_parsers(path: Path) -> None:
    for line in commands(path):
        _, name, *rest = shlex.split(line)
        cli.command_parser(name).parse_args(rest)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_definitions_that_documents_name_exist(path: Path) -> None:
    for word in re.findall(r"(?:models|solvers)/[\w/]+\.prototxt", path.read_text(encoding="utf-8")):
        assert (ROOT / word).exists(), f"{path.name}: there is no {word}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        page = path.parent / target if target else path
        assert page.exists(), f"{path.name}: there is no {target}"
        assert not anchor or anchor in anchors(page), f"{path.name}: {page.name} has no heading #{anchor}"


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page: small letters, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_glossary_is_in_alphabetical_order() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*: ", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(words) > 50
    assert words == sorted(words, key=str.casefold)


def test_files_that_the_design_names_exist() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:sslnet|docs|tests|models|protos|tools)/[\w./]+)`", text)
    named = [name for name in names if not re.search(r"[A-Z]{4}", name.replace("README", ""))]  # NAME, CASE, OPERATION
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists(), f"docs/design.md: there is no {name}"


def test_readme_and_layer_page_list_what_exists() -> None:
    loader = importlib.machinery.SourceFileLoader("gen_docs", str(ROOT / "tools" / "gen_docs"))
    spec = importlib.util.spec_from_loader("gen_docs", loader)
    assert spec is not None
    gen_docs = importlib.util.module_from_spec(spec)
    loader.exec_module(gen_docs)
    for path, current in gen_docs.pages().items():
        assert path.read_text(encoding="utf-8") == current, "run tools/gen_docs"


def test_fields_of_structured_sparsity_are_documented() -> None:
    from sslnet import sslnet_pb2 as pb

    text = (ROOT / "docs" / "prototxt.md").read_text(encoding="utf-8")
    solver = [field.name for field in pb.SolverParameter.DESCRIPTOR.fields if field.number >= 1000]
    param = [field.name for field in pb.ParamSpec.DESCRIPTOR.fields if field.number >= 5]
    block = [field.name for field in pb.BlockGroupLassoSpec.DESCRIPTOR.fields]
    block += [field.name for field in pb.GroupLassoSpec.DESCRIPTOR.fields]
    values = [*pb.ConnectivityMode.keys(), *pb.SolverParameter.GroupLassoUpdate.keys(), *pb.GroupLassoSpec.Group.keys()]
    values += pb.GroupLassoSpec.Penalty.keys()
    for word in (*solver, *param, *block, *values, "connectivity_mode", "conv_mode"):
        assert re.search(rf"\b{word}\b", text), f"docs/prototxt.md does not tell of {word}"
