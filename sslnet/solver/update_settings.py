"""Settings of one parameter's update: its kind of weight decay, decay multipliers, and weights frozen at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, suggestion
from sslnet.files import resolve
from sslnet.kernels.optim import update as kernels
from sslnet.kernels.runtime.jit import spread
from sslnet.net.blob_arrays import blob_array
from sslnet.net.weights import read_message
from sslnet.prototxt import Definition
from sslnet.sparsity.groups import conv_groups, matrix_shape


def frozen(param: Any) -> np.ndarray | None:
    """Mask of the weights that ``connectivity_mode`` trains, given their current values: one byte each, 0 if frozen.

    DISCONNECTED_ELTWISE freezes each zero; DISCONNECTED_GRPWISE each all-zero row and each all-zero column of every conv
    group. Applies to the layer's first blob, its weights, only; None if all are trained.
    """
    mode = param.layer.param.connectivity_mode
    if mode == pb.CONNECTED or param.index != 0:
        return None
    nonzero = param.blob.data != 0
    if mode == pb.DISCONNECTED_GRPWISE:
        rows, columns = matrix_shape(nonzero.shape)
        groups = conv_groups(param)
        banks = nonzero.reshape(groups, rows // groups, columns)
        nonzero = banks.any(axis=2, keepdims=True) & banks.any(axis=1, keepdims=True)
    return np.ascontiguousarray(nonzero.reshape(-1)).view(np.uint8)


def is_l1(param: Any, solver: Definition) -> bool:
    """Whether weight decay of this parameter is L1: its own regularization_type decides, else the solver's."""
    own = param.spec.regularization_type
    kind = own or solver.message.regularization_type
    if kind in ("L1", "L2"):
        return bool(kind == "L1")
    message, hint = f'unknown regularization_type "{kind}"', suggestion(kind, ("L1", "L2")) or "L1 or L2"
    if own:
        span = param.span("regularization_type", value=True)
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)
    raise solver_error(solver, message, "regularization_type", hint)


def decay_multipliers(param: Any) -> np.ndarray | None:
    """The weight decay multipliers from the file ``decay_proto``, one per weight, flat; None without that field."""
    name = param.spec.decay_proto
    if not name:
        return None
    span, layer = param.span("decay_proto", value=True), param.layer.name
    source = param.layer.definition.source
    path = resolve(name, source.path if source else None, error=DefinitionError, span=span, layer=layer)
    array = blob_array(read_message(path, pb.BlobProto()), path=str(path), layer=layer)
    if array.size != param.blob.count:
        message = f"{array.size} decay multipliers for {param.name}, which has {param.blob.count} weights"
        raise DefinitionError(message, span=span, layer=layer)
    return array.reshape(-1).astype(param.blob.dtype)


def solver_error(solver: Definition, message: str, field: str, hint: str = "") -> DefinitionError:
    return DefinitionError(message, span=solver.span(field, value=True), path=solver.path, hint=hint)


def freeze(updates: Sequence[Any], kept: Mapping[tuple[str, int], np.ndarray]) -> None:
    """Sets weights to zero and lets their updates keep them there.

    kept   by (layer, index of the parameter), a bool array of the parameter's shape: False for the weights to freeze
    """
    for update in updates:
        mask = kept.get((update.param.layer.name, update.param.index))
        if mask is None:
            continue
        alive = np.ascontiguousarray(mask.reshape(-1)).view(np.uint8)
        update.keep = alive.copy() if update.keep is None else alive & update.keep
        update.param.blob.data.reshape(-1)[update.keep == 0] = 0


def square_sum(array: np.ndarray) -> float:
    """The sum of squares of an array, in blocks whose order does not depend on the number of threads."""
    blocks = np.empty(-(-array.size // kernels.SUM_BLOCK))
    spread(kernels.square_sums, blocks.size, kernels.SUM_BLOCK, array.reshape(-1), blocks)
    return float(blocks.sum())


def clip_factor(params: Sequence[Any], limit: float) -> float:
    """Factor for all gradients such that their joint L2 norm is at most ``limit``; 1 for a negative limit."""
    if limit < 0:
        return 1.0
    norm = math.sqrt(sum(square_sum(param.blob.diff) for param in params if param.blob.has_diff))
    return float(limit / norm) if norm > limit else 1.0
