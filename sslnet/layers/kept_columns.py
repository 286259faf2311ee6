"""``kept_column``: convolutions that store only some columns of their weight matrix.

A column is one position (channel, kernel row, ...) in the filters of a group. With ``kept_column`` the weight blob is
(num_output, kept) and the other weights are zero; the field lists the columns of each group in ascending order, the
same number for each.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb

WORTH_DROPPING = 0.9
"""Largest fraction of remaining columns at which they are stored as ``kept_column``: the list itself takes space."""


def read_kept_columns(layer: Any, param: Any, group: int, columns: int) -> np.ndarray | None:
    """(group, kept) int64 from the ConvolutionParameter of a layer with ``columns`` columns per group, or None.

    raises DefinitionError, at the field, for columns that groups do not divide evenly, out of range, or not ascending
    """
    if not len(param.kept_column):
        return None
    kept = np.array(param.kept_column, np.int64)
    field = ("convolution_param", "kept_column")
    if kept.size % group:
        raise layer.error(
            f"kept_column must be given as often for each of {group} groups, not {kept.size} times", *field
        )
    kept = kept.reshape(group, -1)
    beyond = np.flatnonzero(kept.ravel() >= columns)
    if beyond.size:
        place = int(beyond[0])
        raise layer.error(
            f"kept_column {kept.ravel()[place]} is no column: a filter has {columns}, from 0 on", *field, place
        )
    falling = np.argwhere(np.diff(kept, axis=1) <= 0)
    if len(falling):
        g, k = (int(n) for n in falling[0])
        raise layer.error(
            f"kept_column must ascend in each group: {kept[g, k + 1]} comes after {kept[g, k]}",
            *field,
            g * kept.shape[1] + k + 1,
        )
    return kept


def expand_columns(weights: np.ndarray, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of shape ``shape`` from the kept columns: weights (num_output, kept), kept (group, kept)."""
    group = len(kept)
    whole = np.zeros((group, shape[0] // group, prod(shape[1:])), weights.dtype)
    for matrix, columns, values in zip(whole, kept, weights.reshape(group, -1, kept.shape[1]), strict=True):
        matrix[:, columns] = values
    return whole.reshape(shape)


def crop_kernel(param: Any, weights: np.ndarray, window: Any) -> np.ndarray:
    """The weights without kernel borders that are zero throughout; changes kernel and pad of the ConvolutionParameter.

    Both sides of an axis are cropped equally, with the padding, so that the outputs are the same for every input size.
    With pad_type SAME the padding is that of the smaller kernel; it must not be less than none for any input size.
    """
    spatial = tuple(range(2, weights.ndim))
    kernel, pad = list(window.kernel), list(window.pad)
    for n, axis in enumerate(spatial):
        used = np.flatnonzero((weights != 0).any(axis=tuple(a for a in range(weights.ndim) if a != axis)))
        if not used.size:
            return weights
        dilation = window.dilation[n]
        if window.same:
            room = max(dilation * (kernel[n] - 1) + 1 - window.stride[n], 0) // (2 * dilation)
        else:
            room = pad[n] // dilation
        most = min(int(used[0]), kernel[n] - 1 - int(used[-1]), room)
        weights = np.take(weights, range(most, kernel[n] - most), axis=axis)
        kernel[n], pad[n] = kernel[n] - 2 * most, pad[n] - most * dilation
    if kernel != list(window.kernel):
        for name in ("kernel_h", "kernel_w", "pad_h", "pad_w"):
            param.ClearField(name)
        param.kernel_size[:] = kernel if len(set(kernel)) > 1 else kernel[:1]
        if not window.same:
            param.pad[:] = pad if len(set(pad)) > 1 else pad[:1]
    return np.ascontiguousarray(weights)


def drop_columns(param: Any, weights: np.ndarray) -> np.ndarray:
    """The weights as (num_output, kept) and ``kept_column`` in the ConvolutionParameter, where enough columns are zero.

    All groups keep as many columns as the group with most nonzero ones, at least one; other groups keep some zero
    columns. Where conv_mode is not given it becomes AUTO, which times the alternatives: worthwhile for few columns.
    """
    group = param.group
    matrices = weights.reshape(group, len(weights) // group, -1)
    used = (matrices != 0).any(axis=1)
    count = max(int(used.sum(axis=1).max()), 1)
    if count > WORTH_DROPPING * used.shape[1]:
        return weights
    # A stable sort puts the nonzero columns first, then the others in ascending order.
    kept = np.sort(np.argsort(~used, axis=1, kind="stable")[:, :count], axis=1)
    param.kept_column[:] = kept.ravel().tolist()
    if not param.HasField("conv_mode"):
        param.conv_mode = pb.ConvolutionParameter.AUTO
    return np.ascontiguousarray(np.take_along_axis(matrices, kept[:, None], axis=2)).reshape(len(weights), count)


def without_border(weights: np.ndarray, window: Any) -> tuple[np.ndarray, list[int]]:
    """Crops zero rows and columns at the kernel's edges as far as there is padding; returns weights and padding.

    The padding lists the beginning of each axis, then the end: ONNX allows different padding on the two sides.
    """
    front, behind = list(window.pad), list(window.pad_end)
    for n, axis in enumerate(range(2, weights.ndim)):
        used = np.flatnonzero((weights != 0).any(axis=tuple(a for a in range(weights.ndim) if a != axis)))
        if used.size:
            first = min(int(used[0]), front[n] // window.dilation[n])
            last = min(weights.shape[axis] - 1 - int(used[-1]), behind[n] // window.dilation[n])
            weights = np.take(weights, range(first, weights.shape[axis] - last), axis=axis)
            front[n] -= first * window.dilation[n]
            behind[n] -= last * window.dilation[n]
    return weights, front + behind
