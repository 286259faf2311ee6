"""Ranks under MPI: the same bits on 1, 2, 4 and 8 of them, over restarts too; skipped where mpi4py or mpirun is missing.

One launch trains all cases (tests/support/rank_driver.py); the tests compare what it wrote.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sslnet.prototxt import Definition
from sslnet.solver.solver import Solver
from tests.support.rank_driver import COUNTED, SYNCHRONISED, shared_param
from tests.support.rank_nets import SOLVERS

ROOT = Path(__file__).parents[2]
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = [
    pytest.mark.skipif(MPIRUN is None or importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py and mpirun"),
    pytest.mark.xdist_group("ranks"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [str(MPIRUN), "-n", "8", sys.executable, "-m", "tests.support.rank_driver", str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    yield folder


@pytest.mark.parametrize("ranks", ["2", "4", "8", "resumed"])
@pytest.mark.parametrize("case", SOLVERS)
def test_any_number_of_ranks_gives_the_same_bits(written: Path, case: str, ranks: str) -> None:
    one, other = (np.load(written / f"{case}_{name}.npz") for name in ("1", ranks))
    assert sorted(one.files) == sorted(other.files)
    assert one["tests"].shape[0] == 3
    for name in one.files:
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    assert any(np.any(one[name]) for name in one.files if name.startswith("h"))


@pytest.mark.parametrize(("case", "fields", "loss"), [(SYNCHRONISED, "", ""), (COUNTED, "", "ignored")])
def test_four_ranks_equal_one_with_the_whole_batch(written: Path, case: str, fields: str, loss: str) -> None:
    """BatchNorm with the moments of all ranks, and a loss that divides by the labels of all ranks; in float64."""
    found = np.load(written / f"{case}_4.npz")
    whole = Solver(Definition(shared_param(fields, loss, batch=16)), dtype=np.float64)
    whole.step(4)
    for k, param in enumerate(whole.net.learnable):
        expected = param.blob.data
        np.testing.assert_allclose(found[f"w{k}"], expected, rtol=0, atol=1e-10 * max(1e-3, np.abs(expected).max()))
    np.testing.assert_allclose(found["losses"], list(whole.losses), rtol=1e-10)
