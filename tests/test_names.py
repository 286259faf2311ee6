"""One word means one thing in the whole package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import sslnet

PACKAGE = Path(sslnet.__file__).parent


def test_no_two_classes_have_the_same_name() -> None:
    """Classes of modules; those inside functions are nobody else's business."""
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_class_is_renamed_where_it_is_imported() -> None:
    """A name that must be another one elsewhere is the wrong name. Public names for pycaffe's sake stand in __init__."""
    renamed = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "__init__.py" or path.name == "sslnet_pb2.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sslnet"):
                renamed += [f"{path}:{node.lineno}" for a in node.names if a.asname and a.name[:1].isupper()]
    assert renamed == []
