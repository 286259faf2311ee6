"""Run under a launcher with 8 ranks by tests/solver/test_ranks.py: trains with 1, 2, 4 and 8 of them, and writes what came out.

    mpirun -n 8 python -m tests.support.rank_driver FOLDER

FOLDER/CASE_R.npz    the weights, histories and test outputs of case CASE on R ranks, with 8 virtual ranks
FOLDER/CASE_resumed.npz   of a run on 2 ranks, continued on 4, then on 1
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import numpy as np

from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.prototxt import Definition
from sslnet.ranks.group import Alone, Group, MpiGroup
from sslnet.solver.callbacks import Monitor, Test
from sslnet.solver.solver import Solver
from tests.support.rank_nets import SOLVERS, overridden, solver_param

ITERATIONS, PARTS, BATCH = 50, 8, 4
SYNCHRONISED = "sync"
COUNTED = "counted"


class Record(Monitor):
    def __init__(self) -> None:
        self.tests: list[Test] = []

    def on_test(self, record: Test) -> None:
        self.tests.append(record)


def main() -> None:
    folder = Path(sys.argv[1])
    set_num_threads(1)
    world = MpiGroup()
    for size in (1, 2, 4, 8):  # one machine's kernels are compiled by one process
        group = part_of(world, size)
        for name in SOLVERS:
            if group is not None:
                solver, record = solver_of(name, group, folder)
                solver.batches.begin()
                solver.step(ITERATIONS)
                save(solver, record, folder / f"{name}_{size}.npz")
                solver.batches.close()
            world.barrier()
    for name in SOLVERS:
        resume(world, name, folder)
    for name, fields, loss in ((SYNCHRONISED, "sync_batch_norm: true", ""), (COUNTED, "", "ignored")):
        group = part_of(world, 4)
        if group is not None:
            param = shared_param(fields, loss)
            solver = Solver(Definition(param), ranks=group, dtype=np.float64)
            solver.step(4)
            save(solver, Record(), folder / f"{name}_4.npz")
            solver.batches.close()
        world.barrier()


def part_of(world: MpiGroup, size: int) -> Group | None:
    """The first ranks as a group; None on the others."""
    group = world.subgroup(int(world.rank < size))
    if world.rank >= size:
        return None
    return group if size > 1 else Alone()


def shared_param(fields: str, loss: str, batch: int = BATCH) -> object:
    """ResNet with synchronised BatchNorm, or LeNet whose loss ignores a label."""
    if loss:
        return overridden(
            solver_param("lenet", batch, fields, "loss_param { ignore_label: 3 }"),
            "test_interval: 1000 test_initialization: false",
        )
    return overridden(solver_param("resnet", batch, fields), "test_interval: 1000 test_initialization: false")


def solver_of(name: str, group: Group, folder: Path, snapshot: str | None = None) -> tuple[Solver, Record]:
    record = Record()
    prefix = f'virtual_ranks: {PARTS} test_interval: 20 snapshot_prefix: "{folder}/{name}"'
    param = overridden(solver_param(name, BATCH), prefix)
    return Solver(Definition(param), ranks=group, monitor=record, lean=True, snapshot=snapshot), record


def resume(world: MpiGroup, name: str, folder: Path) -> None:
    """Trains on 2 ranks, then on 4, then on 1, from snapshot to snapshot."""
    tests: list[Test] = []
    state = None
    for size, end in ((2, 15), (4, 33), (1, ITERATIONS)):
        group = part_of(world, size)
        if group is not None:
            solver, record = solver_of(name, group, folder, state)
            record.tests = tests
            solver.step(end - solver.iter)
            if end == ITERATIONS:
                save(solver, record, folder / f"{name}_resumed.npz")
            else:
                solver.snapshot()
            solver.batches.close()
        world.barrier()
        state = f"{folder}/{name}_iter_{end}.solverstate"


def save(solver: Solver, record: Record, path: Path) -> None:
    with solver.batches.averaged():
        if solver.batches.leads:
            params = {f"w{k}": np.array(param.blob.data) for k, param in enumerate(solver.net.learnable)}
            history = {
                f"h{i}_{k}": array for k, update in enumerate(solver.updates) for i, array in enumerate(update.history)
            }
            tests = [[test.iteration, *(value for _, value, _ in test.outputs)] for test in record.tests]
            np.savez(path, tests=np.array(tests), losses=np.array(solver.losses), **params, **history)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        from mpi4py import MPI

        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
