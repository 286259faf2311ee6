"""Imports go down the ranks, or stay within a package, and never in a circle; the package itself costs nothing to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sslnet

PACKAGE = Path(sslnet.__file__).parent

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


def ranks() -> dict[str, int]:
    """Packages and modules at the top of the package -> their row in the table of docs/design.md, counted from below."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", DESIGN.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows))), "the rows are numbered from 0 upwards"
    found = [(name.rstrip("/"), int(number)) for number, names in rows for name in re.findall(r"`([\w/]+)`", names)]
    assert len(dict(found)) == len(found), "a package stands in one row"
    return dict(found)


RANK = ranks()

HEAVY = {"numpy", "numba", "scipy", "google", "rich", "h5py", "lmdb", "PIL", "threadpoolctl"}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def unit(path: Path) -> str:
    """The first part of a module's name below the package: the module itself, or its folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    """The full name of a module, ``sslnet.net.plan``; of a package that of its folder."""
    return ".".join(("sslnet", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """(line, full name) of each of the package's own modules that this one imports, also for type checkers alone."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            known = name if name in NAMES else name.rpartition(".")[0]
            if known in NAMES and known != "sslnet":
                found.append((node.lineno, known))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_or_stay_within_a_package(path: Path) -> None:
    own = unit(path)
    assert own in RANK, f"{own} has no rank yet: give it one in the table of docs/design.md"
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, name in imported_modules(path):
        other = name.split(".")[1]
        assert other in RANK, f"{path}:{line}: {other} has no rank yet: give it one in the table of docs/design.md"
        assert other == own or RANK[other] < RANK[own], (
            f"{path}:{line}: rank {RANK[own]} ({own}) imports rank {RANK[other]} ({other}): {lines[line - 1].strip()}"
        )


def test_ranks_are_of_what_there_is() -> None:
    assert set(RANK) == {unit(path) for path in modules()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes each of which leads to each other, sorted."""
    reached = {node: set(others) for node, others in graph.items()}
    for middle in reached:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    found = {tuple(sorted(o for o in reached if node in reached[o] and o in reached[node])) for node in reached}
    return [list(circle) for circle in sorted(found) if circle]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {other for _, other in imported_modules(path)} - {name} for name, path in NAMES.items()}
    assert circles(graph) == []


@pytest.mark.parametrize("parent", ["sslnet", *(name for name in NAMES if NAMES[name].name == "__init__.py")])
def test_no_folders_of_a_package_import_each_other_in_a_circle(parent: str) -> None:
    """What stands side by side in one folder, each folder in it taken as a whole."""

    def child(name: str) -> str:
        return name.removeprefix(f"{parent}.").split(".")[0] if name.startswith(f"{parent}.") else ""

    graph: dict[str, set[str]] = {}
    for name, path in NAMES.items():
        if own := child(name):
            graph.setdefault(own, set()).update({child(other) for _, other in imported_modules(path)} - {"", own})
    assert circles(graph) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]


def test_a_reader_meets_few_files_at_the_top() -> None:
    """Modules that stand beside the packages, of them three public names of pycaffe's; and folders without modules."""
    beside = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    beside += [path.name for path in folders if not (path / "__init__.py").exists()]
    assert len(beside) <= 14, sorted(beside)


def test_every_package_says_what_it_is() -> None:
    for name, path in NAMES.items():
        if path.name == "__init__.py":
            assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 40, name


@pytest.mark.parametrize(
    "code",
    [
        "import sslnet",
        "import sslnet; sslnet.errors.SslnetError; sslnet.__version__",
        "import sslnet.cli; sslnet.cli.main(['--help'])",
        "import sslnet.cli; [sslnet.cli.main([name, '-h']) for name in sslnet.cli.COMMANDS]",
    ],
)
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    script = f"{code}\nimport sys; print('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "LOADED" in loaded
    assert not loaded & HEAVY


def test_package_offers_what_it_names() -> None:
    for name in sslnet.__all__:
        assert getattr(sslnet, name) is not None
    assert set(sslnet.__all__) <= set(dir(sslnet))


def test_no_module_takes_the_name_of_something_else_that_the_package_offers() -> None:
    modules_offered = {"coord_map", "draw", "errors", "io", "layers", "proto"}
    for name in set(sslnet.__all__) - modules_offered:
        assert f"sslnet.{name}" not in NAMES, f"importing sslnet.{name} would hide sslnet's {name}"


def test_package_refuses_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nett'"):
        sslnet.Nett  # noqa: B018
