"""Functions that scripts for pycaffe use in addition to Net and NetSpec: solvers by type, modes, the seed.

``import sslnet as caffe`` and such a script runs: ``caffe.set_mode_cpu()``, ``caffe.get_solver(file)``,
``caffe.SGDSolver(file).step(1)``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

from sslnet.compress.pruning.cycles import pruning_cycles
from sslnet.errors import UsageError
from sslnet.layers import LAYERS
from sslnet.net import net as net_module
from sslnet.prototxt import read_solver
from sslnet.solver.solver import Solver


def get_solver(solver_file: str | os.PathLike[str]) -> Solver:
    """The solver that the file defines, of the type it names."""
    definition = read_solver(os.fspath(solver_file))
    return Solver(definition, steering=pruning_cycles(definition))


def _of_type(name: str) -> Callable[[str | os.PathLike[str]], Solver]:
    def make(solver_file: str | os.PathLike[str]) -> Solver:
        definition = read_solver(os.fspath(solver_file))
        message = type(definition.message)()
        message.CopyFrom(definition.message)
        message.type = name
        definition = definition.with_message(message)
        return Solver(definition, steering=pruning_cycles(definition))

    make.__name__ = make.__qualname__ = f"{name}Solver"
    make.__doc__ = f"The solver that the file defines, with updates of type {name} whatever type it names."
    return make


SGDSolver = _of_type("SGD")
NesterovSolver = _of_type("Nesterov")
AdaGradSolver = _of_type("AdaGrad")
RMSPropSolver = _of_type("RMSProp")
AdaDeltaSolver = _of_type("AdaDelta")
AdamSolver = _of_type("Adam")
AdamWSolver = _of_type("AdamW")


def set_mode_cpu() -> None:
    """Nothing to do: sslnet computes on the CPU."""


def set_mode_gpu() -> None:
    """Warns: sslnet computes on the CPU."""
    warnings.warn("sslnet computes on the CPU; set_mode_gpu() changes nothing", UserWarning, stacklevel=2)


def set_device(device: int) -> None:
    """Nothing to do: there is one device, the CPU."""


def set_random_seed(seed: int) -> None:
    """The seed of nets made from now on which are given none."""
    if seed < 0:
        raise UsageError(f"the seed must be 0 or more, not {seed}")
    net_module.default_seed = int(seed)


def layer_type_list() -> list[str]:
    """The types that a layer may have."""
    return list(LAYERS)
