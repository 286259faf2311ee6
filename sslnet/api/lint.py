"""``sslnet.lint``: does a file run here?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sslnet.errors import UsageError
from sslnet.solver.file_check import FileCheck, check_files

Path = str | os.PathLike[str]


def lint(files: Path | Sequence[Path], *, shapes: Mapping[str, Sequence[int]] | None = None) -> list[FileCheck]:
    """Checks nets, solvers and weights without running anything: every field, layer type, edge and shape, in both phases.

        for check in sslnet.lint(["train_val.prototxt", "net.caffemodel"], shapes={"data": (1, 3, 300, 300)}):
            print(check.path, check.accepted, [str(problem) for problem in check.problems])

    files   one file, or several; weights are compared with each net among them
    shapes  blob that a data layer makes -> its shape; without it, shapes are assumed from crop_size, new_height and
            new_width, batch_size, else 3 x 224 x 224, with a note. Data and weights are not read.

    returns  a FileCheck for each file: ``accepted``, ``problems`` (errors with line and column), ``notes``, ``shapes``
    raises   UsageError for sizes below 1
    """
    for name, shape in (shapes or {}).items():
        if any(size < 1 for size in shape):
            raise UsageError(f"the sizes of {name} must be 1 or above, not {tuple(shape)}")
    return check_files([files] if isinstance(files, str | os.PathLike) else files, shapes)
