"""mypy lets functions of layers go without types (pyproject.toml), for kernels, whose types Numba infers: no others do."""

from __future__ import annotations

import ast
from pathlib import Path

import sslnet

LAYERS = Path(sslnet.__file__).parent / "layers"
COMPILED = {"kernel", "sums_kernel", "exact_kernel", "inlined_sums_kernel"}


def lacks_types(function: ast.FunctionDef) -> bool:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    own = [arg for arg in given if arg.arg not in ("self", "cls")]
    return function.returns is None or any(arg.annotation is None for arg in own)


def test_only_compiled_functions_of_layers_lack_types() -> None:
    untyped, compiled = [], 0
    for path in sorted(LAYERS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and lacks_types(node):
                decorators = {ast.unparse(d).split("(")[0] for d in node.decorator_list}
                if decorators & COMPILED:
                    compiled += 1
                else:
                    untyped.append(f"{path.name}:{node.lineno} {node.name}")
    assert untyped == []
    assert compiled
