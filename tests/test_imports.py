"""Imports go down the ranks, or stay within a folder; and the package itself costs nothing to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sslnet

PACKAGE = Path(sslnet.__file__).parent

RANKS = [
    ["errors", "files", "json_file", "kernel_cache", "output_rule", "sslnet_pb2", "terminal"],
    ["prototxt", "kernels"],
    ["hdf5"],
    ["blob", "fillers", "net_spec", "peak", "sources"],
    ["io", "transformer"],
    ["groups", "layers", "penalties"],
    ["steps"],
    [
        "arena",
        "debug_info",
        "footprint",
        "graph",
        "inputs",
        "lifetimes",
        "needs",
        "net",
        "parameters",
        "plan",
        "weights",
        "wiring",
    ],
    [
        "certificate",
        "coupled",
        "data_errors",
        "families",
        "lr_policies",
        "monitor",
        "settling",
        "snapshot",
        "solver",
        "solver_nets",
        "ties",
        "update_rules",
        "update_settings",
        "updates",
    ],
    ["classifier", "compress", "products", "pycaffe", "sparsity", "timing"],
    [
        "forms",
        "levers",
        "merged",
        "predictor",
        "procedure",
        "procedure_groups",
        "remaining",
        "spares",
        "speedup",
        "steering",
        "targets",
        "tradeoff",
        "trials",
    ],
    ["exchange", "report"],
    ["cli"],
    ["__main__"],
]
"""Modules and folders of the package, from those that know nothing of the others upwards."""

RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}

HEAVY = {"numpy", "numba", "scipy", "google", "rich", "h5py", "lmdb", "PIL", "threadpoolctl"}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def unit(path: Path) -> str:
    """The first part of a module's name below the package: the module itself, or its folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_module(name: str) -> bool:
    """A file of the package's top folder, not a folder."""
    return (PACKAGE / f"{name}.py").exists()


def imported_units(path: Path) -> list[tuple[int, str]]:
    """(line, module or folder of the package) for each import of the package's own, those for type checkers left out."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "sslnet" and len(parts) > 1 and parts[1] != "__version__":
                found.append((node.lineno, parts[1]))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_or_stay_within_a_folder(path: Path) -> None:
    own = unit(path)
    assert own in RANK, f"{own} has no rank yet: give it one in RANKS"
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, other in imported_units(path):
        assert other in RANK, f"{path}:{line}: {other} has no rank yet: give it one in RANKS"
        siblings = RANK[other] == RANK[own] and is_module(own) and is_module(other)
        assert other == own or RANK[other] < RANK[own] or siblings, (
            f"{path}:{line}: rank {RANK[own]} ({own}) imports rank {RANK[other]} ({other}): {lines[line - 1].strip()}"
        )


def test_design_page_names_every_module() -> None:
    text = (Path(__file__).parent.parent / "docs" / "design.md").read_text(encoding="utf-8")
    for name in RANK:
        assert re.search(rf"`{re.escape(name)}/?`", text), f"docs/design.md does not name {name}"


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
    modules_offered = {"errors", "io"}
    for name in set(sslnet.__all__) - modules_offered:
        assert not (PACKAGE / f"{name}.py").exists(), f"importing sslnet.{name} would hide sslnet's {name}"


def test_package_refuses_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nett'"):
        sslnet.Nett  # noqa: B018
