"""Errors for a run whose loss or parameters are no longer finite."""

from __future__ import annotations

import numpy as np

from sslnet.errors import NotFiniteError
from sslnet.net.net import Net
from sslnet.solver import lr_policies
from sslnet.solver.run_state import SolverParts


def check_finite(solver: SolverParts, snapshot: str | None) -> None:
    """Raises NotFiniteError unless all parameters are finite.  snapshot: path of the last snapshot, or None"""
    for param in solver.net.learnable:
        if not np.isfinite(param.blob.data).all():
            message = f"iteration {solver.iter}: parameter {param.name} is not finite, no snapshot is written"
            raise NotFiniteError(
                message, path=solver.definition.path, layer=param.layer.name, hint=_advice(solver, snapshot)
            )


def not_finite(solver: SolverParts, snapshot: str | None) -> NotFiniteError:
    """The error for a loss that is not finite; names the first parameter or blob that is not."""
    where, layer = _first_not_finite(solver.net)
    message = f"iteration {solver.iter}: the loss is {solver.net.loss:g}; {where}"
    return NotFiniteError(message, path=solver.definition.path, layer=layer, hint=_advice(solver, snapshot))


def _advice(solver: SolverParts, snapshot: str | None) -> str:
    rate, _ = lr_policies.learning_rate(solver.param, solver.iter, solver.current_step)
    saved = f"the last snapshot is {snapshot}" if snapshot else "there is no snapshot"
    return f"a lower base_lr (the rate is {rate:g}) or clip_gradients may help; {saved}"


def _first_not_finite(net: Net) -> tuple[str, str | None]:
    """Description and layer of the first parameter of a net that is not finite, else of the first such blob."""
    for param in net.learnable:
        if not np.isfinite(param.blob.data).all():
            return f"parameter {param.name} is not finite already", param.layer.name
    for layer, names, tops in zip(net.layer_names, net.top_names, net.tops):
        for name, top in zip(names, tops):
            if top.holds("data") and not np.isfinite(top.data).all():
                return f'blob "{name}" is the first that is not finite', layer
    return "all blobs are finite", None
