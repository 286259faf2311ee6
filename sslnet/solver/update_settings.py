"""What the definitions say of one parameter's update: its kind of decay, the multipliers of it, the zeros that stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, suggestion
from sslnet.files import resolve
from sslnet.net.weights import blob_array, read_message
from sslnet.prototxt import Definition
from sslnet.sparsity.groups import conv_groups, matrix_shape


def frozen(param: Any) -> np.ndarray | None:
    """Which weights ``connectivity_mode`` lets train, given their values now: one byte each, 0 for those kept at zero.

    DISCONNECTED_ELTWISE keeps each zero; DISCONNECTED_GRPWISE each row and each column that is zero throughout, for
    every conv group. Only the layer's first blob, its weights; None where all are trained.
    """
    mode = param.layer.param.connectivity_mode
    if mode == pb.CONNECTED or param.index != 0:
        return None
    alive = param.blob.data != 0
    if mode == pb.DISCONNECTED_GRPWISE:
        rows, columns = matrix_shape(alive.shape)
        groups = conv_groups(param)
        banks = alive.reshape(groups, rows // groups, columns)
        alive = banks.any(axis=2, keepdims=True) & banks.any(axis=1, keepdims=True)
    return np.ascontiguousarray(alive.reshape(-1)).view(np.uint8)


def is_l1(param: Any, solver: Definition) -> bool:
    """Whether weight decay is L1 on this parameter: its own regularization_type, else the solver's."""
    own = param.spec.regularization_type
    kind = own or solver.message.regularization_type
    if kind in ("L1", "L2"):
        return kind == "L1"
    message, hint = f'unknown regularization_type "{kind}"', suggestion(kind, ("L1", "L2")) or "L1 or L2"
    if own:
        span = param.span("regularization_type", value=True)
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)
    raise solver_error(solver, message, "regularization_type", hint)


def decay_multipliers(param: Any) -> np.ndarray | None:
    """The multipliers of ``decay_proto``, one a weight, flat; None when there is no such file."""
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
