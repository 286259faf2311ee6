"""Translates the group fields of a prototxt into tilings of a parameter's matrix, with their penalties.

A blob is viewed as a matrix of shape[0] rows and the product of its other sizes as columns; the rows of a convolution
form one band for each conv group. Every kind of group is a tiling of that matrix (height x width of a tile):

    breadth_decay_mult        1 x columns            group_lasso FILTER, OUTPUT_NEURON
    kernel_shape_decay_mult   band x 1               group_lasso SHAPE, INPUT_NEURON
    block_group_lasso         ydimen x xdimen        group_lasso BLOCK
                              band x (kh * kw)       group_lasso CHANNEL (InnerProduct: H * W columns)
                              1 x (kh * kw)          group_lasso FILTER_2D
                              rows x columns         group_lasso LAYER
                              1 x 1                  group_lasso ELEMENT; FILTER, OUTPUT_NEURON on biases, FILTER on Scale

Groups that span several parameters (NEURON, ``couple``) are found by ``sslnet.solver.coupled_groups``.

Tiles are transposed for transposed blobs: an InnerProduct with ``transpose`` and an Embed have their outputs in columns;
a row of a Deconvolution belongs to an input channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.layers import LAYERS
from sslnet.layers.scale import Scale
from sslnet.prototxt import Definition
from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.penalties import PENALTIES

Tile = tuple[int, int]
"""Height and width of a tile: rows and columns."""

WEIGHTS = frozenset(type_ for type_, layer in LAYERS.items() if layer.HAS_WEIGHTS)
"""Types of layers whose first blob is a matrix of weights."""
VALUES = frozenset({Scale.TYPE})
"""Types of layers that produce no new channels but have a learned value for each."""
ROWS = ("FILTER", "OUTPUT_NEURON")
"""Names of the groups that produce one output channel each."""


def tilings_of(param: Any, solver: Definition) -> list[Tiling]:
    """The groups that a parameter's spec requests, with strengths from the solver's decays; equal tilings are merged.

    param   a sslnet.net.net.Param
    raises  DefinitionError for groups that the parameter does not have, negative strengths and invalid penalties
    """
    tilings: dict[Tiling, Tiling] = {}
    for tiling in (*_of_authors(param, solver.message), *_named(param, solver.message)):
        kind = replace(tiling, strength=0.0)
        strength = tiling.strength + (tilings[kind].strength if kind in tilings else 0.0)
        tilings[kind] = replace(tiling, strength=strength)
    return sorted(
        (tiling for tiling in tilings.values() if tiling.strength > 0),
        key=lambda tiling: (tiling.height * tiling.width, tiling.bias),
    )


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a blob viewed as a matrix: shape[0], and the product of all other sizes."""
    return (shape[0], math.prod(shape[1:])) if len(shape) else (1, 1)


def as_tiles(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """View of the blob's matrix as (tiles down, height, tiles along, width).  height, width: divisors of its sizes"""
    rows, columns = matrix_shape(array.shape)
    return array.reshape(rows // height, height, columns // width, width)


def conv_groups(param: Any) -> int:
    """Number of conv groups, equal bands of rows of the parameter's matrix; 1 for all but convolution weights."""
    layer = param.layer.param
    if param.index == 0 and layer.HasField("convolution_param"):
        return int(layer.convolution_param.group)
    return 1


# -- the fields of the method's authors --------------------------------------------------------------------------------


def _of_authors(param: Any, solver: Any) -> Iterator[Tiling]:
    spec = param.spec
    rows, columns = matrix_shape(param.blob.shape)
    if spec.breadth_decay_mult:
        yield _tiling(param, (1, columns), solver.breadth_decay * spec.breadth_decay_mult, "breadth_decay_mult")
    if spec.kernel_shape_decay_mult:
        strength = solver.kernel_shape_decay * spec.kernel_shape_decay_mult
        yield _tiling(param, (rows // conv_groups(param), 1), strength, "kernel_shape_decay_mult")
    for index, block in enumerate(spec.block_group_lasso):
        tile = _block(param, block, "block_group_lasso", index)
        yield _tiling(param, tile, solver.block_group_decay * block.block_decay_mult, "block_group_lasso", index)


def _block(param: Any, block: Any, *field: str | int) -> Tile:
    """The tile given by a block's ydimen and xdimen. raises DefinitionError unless such tiles cover the matrix"""
    rows, columns = matrix_shape(param.blob.shape)
    height, width = block.ydimen, block.xdimen
    if not (height and width) or rows % height or columns % width:
        raise DefinitionError(
            f"tiles of {height} x {width} do not cover the {rows} x {columns} matrix of {param.name}",
            span=param.span(*field),
            layer=param.layer.name,
            hint=f"ydimen must divide {rows}, and xdimen {columns}",
        )
    return height, width


def _tiling(param: Any, tile: Tile, strength: float, *field: str | int, bias: bool = False) -> Tiling:
    if strength < 0:
        raise DefinitionError(
            f"a group lasso of negative strength {strength:g} on {param.name}",
            span=param.span(*field),
            layer=param.layer.name,
        )
    return Tiling(*tile, strength, bias)


# -- groups by their names ---------------------------------------------------------------------------------------------


def _named(param: Any, solver: Any) -> Iterator[Tiling]:
    tiles = tiles_of(param)
    for index, spec in enumerate(param.spec.group_lasso):
        if is_coupled(spec):  # spans several parameters: see sslnet.solver.coupled_groups
            continue
        group = pb.GroupLassoSpec.Group.Name(spec.group)
        if spec.group == pb.GroupLassoSpec.BLOCK:
            tile = _block(param, spec, "group_lasso", index)
        elif group in tiles:
            tile = tiles[group]
        else:
            raise DefinitionError(
                f"{param.name} of type {param.layer.type} has no groups {group}",
                span=param.span("group_lasso", index, "group", value=True),
                layer=param.layer.name,
                hint=f"it has {', '.join((*tiles, 'BLOCK'))}",
            )
        if spec.take_bias:
            _check_bias(param, solver, group, index)
        strength, unit = solver.group_lasso_decay * spec.decay_mult, 1.0
        if solver.group_lasso_scale_by_size:
            unit = math.sqrt(math.prod(tile) + spec.take_bias)
        found = _tiling(param, tile, strength * unit, "group_lasso", index, bias=spec.take_bias)
        name, settings = penalty_of(param, index, solver)
        yield replace(found, penalty=name, settings=settings, unit=unit if settings else 1.0)


def penalty_of(param: Any, index: int, solver: Any) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Name and settings of the penalty that a parameter's ``group_lasso`` requests.

    raises DefinitionError for a setting that is missing, out of range or of another penalty, and for SUBGRADIENT updates
    if the penalty does not support them
    """
    spec = param.spec.group_lasso[index]
    name = pb.GroupLassoSpec.Penalty.Name(spec.penalty)
    limits = PENALTIES[name].SETTINGS
    settings, message, field, hint = [], "", "penalty", ""
    for setting in dict.fromkeys(setting for penalty in PENALTIES.values() for setting in penalty.SETTINGS):
        if setting not in limits:
            if spec.HasField(setting):
                users = [other for other, penalty in PENALTIES.items() if setting in penalty.SETTINGS]
                message, field = f"{setting} is of {' and '.join(users)}, not of {name}", setting
                hint = " or ".join(f"penalty: {user}" for user in users)
            continue
        low, high = limits[setting]
        words = f"{setting} must be above {low:g}" + (f" and below {high:g}" if math.isfinite(high) else "")
        if not spec.HasField(setting):
            message, hint = f"penalty {name} needs {setting}", words
        elif not low < getattr(spec, setting) < high:
            message, field = f"{words}, not {getattr(spec, setting):g}", setting
        else:
            settings.append((setting, float(getattr(spec, setting))))
    if not message and solver.group_lasso_update == pb.SolverParameter.SUBGRADIENT and not PENALTIES[name].SUBGRADIENT:
        message, hint = f"penalty {name} needs proximal updates", "group_lasso_update: PROXIMAL"
    if message:
        span = param.span("group_lasso", index, field)
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)
    return name, tuple(settings)


def is_coupled(spec: Any) -> bool:
    """Whether a ``group_lasso`` requests groups that span parameters other than its own and its bias."""
    return bool(spec.couple or spec.take_followers or spec.group == pb.GroupLassoSpec.NEURON)


def _check_bias(param: Any, solver: Any, group: str, index: int) -> None:
    """Raises DefinitionError if the groups cannot include a bias."""
    message, hint = "", ""
    if group not in ("FILTER", "OUTPUT_NEURON"):
        message = f"take_bias is for the groups FILTER and OUTPUT_NEURON, not for {group}"
    elif param.index != 0 or len(param.layer.blobs) < 2:
        message = f"{param.name} has no bias to include"
    elif solver.group_lasso_update == pb.SolverParameter.SUBGRADIENT:
        message, hint = "take_bias needs proximal updates", "group_lasso_update: PROXIMAL"
    if message:
        span = param.span("group_lasso", index, "take_bias")
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)


def tiles_of(param: Any) -> dict[str, Tile]:
    """The tile of each named group of a parameter, depending on its layer's type. BLOCK has no fixed tile."""
    return {**param.layer.group_tiles(param.index), "LAYER": matrix_shape(param.blob.shape), "ELEMENT": (1, 1)}


def block_tiles(param: Any) -> list[Tile]:
    """The distinct tiles of BLOCK, FILTER_2D and block_group_lasso in the parameter's spec, whatever their strength.
    Omits tiles that do not cover the matrix, as in a net compacted since."""
    rows, columns = matrix_shape(param.blob.shape)
    named = [spec for spec in param.spec.group_lasso if spec.group == pb.GroupLassoSpec.BLOCK]
    tiles = [(block.ydimen, block.xdimen) for block in (*param.spec.block_group_lasso, *named)]
    if any(spec.group == pb.GroupLassoSpec.FILTER_2D for spec in param.spec.group_lasso):
        tiles.append(tiles_of(param).get("FILTER_2D", (0, 0)))
    return [(h, w) for h, w in dict.fromkeys(tiles) if h and w and rows % h == 0 and columns % w == 0]
