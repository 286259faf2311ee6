"""Coupled groups: finds the parameters that belong to the groups requested in a prototxt.

``group_lasso { group: FILTER couple: true }`` on the weights of one layer penalises, as one group for each output channel,
the filters of all layers whose channels the graph joins to that channel: layers added by an Eltwise, the depthwise
convolution after a pointwise one, layers that share their weights. ``take_bias`` adds their biases to the group,
``take_followers`` the learned Scale and Bias values of the channel; ``group: NEURON`` adds both, and the weights of the
next layers that read the channel. Requested on a Scale layer, a group contains the channel's values in all Scale layers,
and the filters of those layers only that no Scale follows. Where several layers request groups of the same channels, the
largest strength counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.layers.bias import Bias
from sslnet.layers.scale import Scale
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.parameter_update import Update
from sslnet.sparsity.channel_parts import ChannelPart, ChannelParts, Role
from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.groups import ROWS, VALUES, WEIGHTS, is_coupled, penalty_of, tiles_of


@dataclass(eq=False)
class FoundGroups:
    """Groups of one kind, and the parameters that hold them.

    parts    for each parameter its update, height and width of a tile, the group of each tile (as in ``GroupPart``)
    penalty  its name in ``PENALTIES``;  settings, unit: as in ``Tiling``
    makers   names of the layers that produce the grouped channels
    tiling   the tiling of groups in one parameter; None for coupled groups
    """

    name: str
    strengths: np.ndarray
    parts: list[tuple[Update, int, int, np.ndarray | None]] = field(default_factory=list)
    penalty: str = "GROUP_LASSO"
    settings: tuple[tuple[str, float], ...] = ()
    unit: float | np.ndarray = 1.0
    makers: tuple[str, ...] = ()
    tiling: Tiling | None = None


@dataclass
class _Asked:
    """A request for coupled groups: the strength of each class of channels, and which parameters the groups include."""

    param: Any
    name: str
    strengths: dict[int, float]
    penalty: tuple[str, tuple[tuple[str, float], ...]]
    weights: bool = True
    scales: bool = False
    bias: bool = False
    followers: bool = False
    readers: bool = False

    def merge(self, other: _Asked) -> None:
        """Adds another request for the same channels. raises DefinitionError if the two name different penalties"""
        if self.penalty != other.penalty:
            message = f'"{self.name}" and "{other.name}" ask for groups of the same channels under different penalties'
            raise DefinitionError(message, span=other.param.span("group_lasso"), layer=other.name)
        for number, strength in other.strengths.items():
            self.strengths[number] = max(strength, self.strengths.get(number, 0.0))
        self.weights |= other.weights
        self.scales |= other.scales
        self.bias |= other.bias
        self.followers |= other.followers
        self.readers |= other.readers


def coupled_groups(net: Net, updates: Sequence[Update], solver: Definition) -> list[FoundGroups]:
    """Finds the coupled groups that the definitions request.

    raises DefinitionError for groups that cannot be coupled
    """
    asked = [(update, k, spec) for update in updates for k, spec in enumerate(update.param.spec.group_lasso)]
    asked = [(u, k, spec) for u, k, spec in asked if is_coupled(spec)]
    for update, k, spec in asked:
        _check(update, k, spec, solver.message)
    decay = solver.message.group_lasso_decay
    asked = [(u, k, spec) for u, k, spec in asked if u.param.lr_mult and decay * spec.decay_mult]
    if not asked:
        return []
    finder = _Finder(net, updates, solver.message)
    return [finder.found(one) for one in _merged(finder.ask(update, k, spec) for update, k, spec in asked)]


def _check(update: Update, index: int, spec: Any, solver: Any) -> None:
    param, group = update.param, pb.GroupLassoSpec.Group.Name(spec.group)
    message, hint, field_name = "", "", "group"
    if group not in (*ROWS, "NEURON"):
        message, field_name = f"only FILTER and OUTPUT_NEURON can be coupled, not {group}", "couple"
    elif param.index != 0 or not any(name in tiles_of(param) for name in ROWS):
        message = f"{param.name} of type {param.layer.type} has no output channels of its own"
    elif group in ROWS and group not in tiles_of(param):
        message, hint = f"{param.name} of type {param.layer.type} has no groups {group}", "NEURON is for all types"
    elif spec.take_followers and not spec.couple and group != "NEURON":
        message, hint, field_name = "take_followers needs coupled groups", "add couple: true", "take_followers"
    elif solver.group_lasso_update == pb.SolverParameter.SUBGRADIENT:
        message, hint = "coupled groups need proximal updates", "group_lasso_update: PROXIMAL"
    elif solver.group_lasso_decay * spec.decay_mult < 0:
        message, field_name = f"a group lasso of negative strength on {param.name}", "decay_mult"
    if message:
        span = param.span("group_lasso", index, field_name)
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)


def _merged(asked: Iterable[_Asked]) -> list[_Asked]:
    """Merges the requests that have channels in common."""
    result: list[_Asked] = []
    for new in asked:
        for old in [old for old in result if not old.strengths.keys().isdisjoint(new.strengths)]:
            result.remove(old)
            old.merge(new)
            new = old
        result.append(new)
    return result


class _Finder:
    """Finds the parameters of a net that belong to classes of channels."""

    def __init__(self, net: Net, updates: Sequence[Update], solver: Any) -> None:
        self.parts = ChannelParts(net)
        self.net = net
        self.solver = solver
        self.places = {id(layer): i for i, layer in enumerate(net.layers)}
        self.updates = {id(update.param.blob): update for update in updates if update.param.lr_mult}

    def ask(self, update: Update, index: int, spec: Any) -> _Asked:
        (classes,) = self.parts.ties.tops[self.places[id(update.param.layer)]][:1]
        strength = self.solver.group_lasso_decay * spec.decay_mult
        neuron = spec.group == pb.GroupLassoSpec.NEURON
        scale = update.param.layer.TYPE in VALUES
        return _Asked(
            update.param,
            update.param.layer.name,
            {int(number): strength for number in classes},
            penalty_of(update.param, index, self.solver),
            weights=not scale or neuron,
            scales=scale,
            bias=spec.take_bias or neuron,
            followers=spec.take_followers or neuron,
            readers=neuron,
        )

    def found(self, asked: _Asked) -> FoundGroups:
        numbers = np.array(sorted(asked.strengths))
        found = FoundGroups(asked.name, np.array([asked.strengths[int(number)] for number in numbers]))
        found.penalty, found.settings = asked.penalty
        trained = [part for part in self.parts.parts if id(part.param.blob) in self.updates]
        makers = self._makers(numbers)
        found.makers = tuple(self.net.layers[i].param.name for i in makers)
        for part in trained:
            if part.role is not Role.READER and self._wants(asked, part):
                self._add(found, part, numbers)
        for part in trained if asked.readers else ():
            if part.role is Role.READER and not part.listed and part.layer not in makers:
                self._add(found, part, numbers)
        if self.solver.group_lasso_scale_by_size:
            sizes = sum(
                np.bincount(groups[groups >= 0], minlength=len(numbers)) * height * width
                for _, height, width, groups in found.parts
                if groups is not None
            )
            found.strengths = found.strengths * np.sqrt(sizes)
            found.unit = np.sqrt(sizes) if found.settings else 1.0
        return found

    def _makers(self, numbers: np.ndarray) -> list[int]:
        """Numbers of the trained layers that produce channels of these classes."""
        trained = {self.places[id(update.param.layer)] for update in self.updates.values()}
        return [i for i in self.parts.makers(numbers) if i in trained]

    def _wants(self, asked: _Asked, part: ChannelPart) -> bool:
        """Whether the groups include a maker's or a follower's part."""
        layer, index = part.param.layer, part.param.index
        if part.role is Role.MAKER:
            return (index == 0 or asked.bias) and (asked.weights or not self._is_scaled(part.layer))
        if not isinstance(layer, Scale | Bias):
            return False
        return asked.followers or (layer.TYPE in VALUES and asked.scales and (index == 0 or asked.bias))

    def _add(self, found: FoundGroups, part: ChannelPart, numbers: np.ndarray) -> None:
        """Adds the part's tiles of channels in these classes."""
        places = np.searchsorted(numbers, part.classes)
        inside = numbers[np.minimum(places, len(numbers) - 1)] == part.classes
        if inside.any():
            update = self.updates[id(part.param.blob)]
            found.parts.append((update, *part.tile, np.where(inside, places, -1)))

    def _is_scaled(self, i: int) -> bool:
        """Whether a trained learned Scale follows layer i, with only layers of one bottom and one top between them."""
        scales = {part.layer for part in self.parts.of(Role.FOLLOWER) if id(part.param.blob) in self.updates}
        while len(self.net.top_names[i]) == 1:  # one layer reads the blob: several readers get a Split
            (blob,) = self.net.top_names[i]
            behind = (j for j in range(i + 1, len(self.net.layers)) if blob in self.net.bottom_names[j])
            i = next(behind, -1)
            if i < 0 or len(self.net.bottom_names[i]) > 1 or self.net.layers[i].TYPE in WEIGHTS:
                return False
            if self.net.layers[i].TYPE in VALUES and i in scales:
                return True
        return False
