"""The coupled channels of a net that pruning may remove, and what each of them consists of and costs.

A channel here is a unit: a class of channels that the graph couples (``sslnet.sparsity.channel_dependencies``), so that all
layers lose it together; where a convolution has several groups, equal places of all its groups are one class. Channels
that must be kept are no units: inputs and outputs of the net, and those
that pass a layer from which compaction removes nothing (LRN across channels, layers that mix positions and channels).

Units that the same layers produce form a family: the filters of one convolution, the channels of one residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sslnet.compress.pruning.units import find_units
from sslnet.errors import UsageError
from sslnet.layers.base import Layer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.prelu import PReLU
from sslnet.net.net import Net
from sslnet.sparsity.channel_dependencies import is_depthwise
from sslnet.sparsity.channel_parts import ChannelPart, ChannelParts, Role

COSTS = ("flops", "params", "time")
"""What the removal of channels can save: FLOPs, parameters, time of the forward pass."""


@dataclass(frozen=True)
class Family:
    """Units that the same layers produce.

    name    name of one of these layers: the first that makes these units alone, if there is one
    units   sorted numbers of the units
    makers  numbers of the layers, in order
    """

    name: str
    units: np.ndarray
    makers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class UnitPart:
    """The part of one parameter in units.  units: (tiles) number of the unit of each tile, -1 for channels that are kept"""

    part: ChannelPart
    units: np.ndarray

    @property
    def layer(self) -> int:
        return self.part.layer

    @property
    def role(self) -> Role:
        return self.part.role

    def sum(self, values: np.ndarray, count: int) -> np.ndarray:
        """Sums an array of the parameter's shape over each of ``count`` units: (count) float64."""
        inside = self.units >= 0
        return np.bincount(self.units[inside], self.part.reduce(values)[inside], minlength=count)


@dataclass(frozen=True)
class _Cost:
    """Cost of a layer: it shrinks with its outputs, and with its columns where there are any.

    top, columns  units of the outputs and of the columns; None: the cost does not shrink with them
    """

    amount: int
    top: np.ndarray | None
    columns: np.ndarray | None


class CoupledChannels:
    """The prunable channels of a net.

    count          number of units
    counted        what ``cost`` counts, one of COSTS; ``measure_time`` before "time"
    families       the families, in the order of their first layers
    family         (count) number of the family of each unit
    tops, bottoms  for each layer the units of the channels of its first top / bottom, -1 for channels that are kept
    parts          the parts of parameters that belong to units
    """

    def __init__(self, net: Net) -> None:
        self.net, self.counted = net, "flops"
        self._seconds: Sequence[float] | None = None
        account = ChannelParts(net)
        unit_of = find_units(net, account)
        self.count = int(unit_of.max(initial=-1)) + 1
        self.tops = [unit_of[tops[0]] if tops else np.empty(0, np.int64) for tops in account.ties.tops]
        self.bottoms = [unit_of[below[0]] if below else np.empty(0, np.int64) for below in account.ties.bottoms]
        self._blobs = [unit_of[ids] for blobs in (account.ties.tops, account.ties.bottoms) for b in blobs for ids in b]
        found = (UnitPart(part, unit_of[part.classes]) for part in account.parts)
        self.parts = [part for part in found if (part.units >= 0).any()]
        self.families = self._families()
        self.family = np.zeros(self.count, np.int64)
        for number, family in enumerate(self.families):
            self.family[family.units] = number

    # -- structure -----------------------------------------------------------------------------------------------------

    def of(self, role: Role) -> Iterator[UnitPart]:
        """The parts in one role, in the order of the net's parameters."""
        return (part for part in self.parts if part.role is role)

    @cached_property
    def makers(self) -> list[int]:
        """Numbers of the layers that produce units, in order."""
        return sorted({part.layer for part in self.of(Role.MAKER)})

    @cached_property
    def readers(self) -> list[int]:
        """Numbers of the layers that read units by weights, in order."""
        return sorted({part.layer for part in self.of(Role.READER)})

    def readers_of(self, family: Family) -> list[int]:
        """Numbers of the layers that read units of the family by weights, in order."""
        return [i for i in self.readers if np.isin(self.bottoms[i], family.units).any()]

    def _families(self) -> list[Family]:
        makers: list[list[int]] = [[] for _ in range(self.count)]
        for i in self.makers:
            for unit in sorted(set(self.tops[i].tolist()) - {-1}):
                makers[unit].append(i)
        members: dict[tuple[int, ...], list[int]] = {}
        for unit, layers in enumerate(makers):
            members.setdefault(tuple(layers), []).append(unit)
        return [Family(self._name(layers, units), np.array(units), layers) for layers, units in members.items()]

    def _name(self, layers: tuple[int, ...], units: list[int]) -> str:
        """Name of the layer that makes units of this family alone, if there is one; else of the first maker."""
        alone = (i for i in layers if set(self.tops[i].tolist()) - {-1} == set(units))
        return self.net.layer_names[next(alone, layers[0])]

    def behind(
        self,
        maker: int,
        kinds: tuple[type[Layer], ...],
        through: tuple[type[Layer], ...] = (),
        *,
        first: bool = False,
    ) -> int:
        """Number of the last (or first) layer of these kinds directly behind a maker; the maker itself if there is none.

        through  further layers that may lie between
        """
        found = at = maker
        while True:
            following = self.reader(at)
            if following is None or not isinstance(self.net.layers[following], kinds + through):
                return found
            at = following
            if isinstance(self.net.layers[at], kinds):
                found = at
                if first:
                    return found

    def reader(self, i: int) -> int | None:
        """Number of the layer that reads the first top of layer i; of several, the one that joins it to others, or the
        first. None if no layer reads it."""
        name = self.net.top_names[i][0]
        found = []
        for j in range(i + 1, len(self.net.layers)):
            if name in self.net.bottom_names[j]:
                found.append(j)
            if name in self.net.top_names[j]:
                break
        if found and self.net.layers[found[0]].TYPE == "Split":
            split = found[0]
            names = self.net.top_names[split]
            found = [j for j in range(split + 1, len(self.net.layers)) if set(names) & set(self.net.bottom_names[j])]
        joins = [j for j in found if len(self.net.bottoms[j]) > 1 and not self.net.layers[j].IS_LOSS]
        return next(iter(joins or found), None)

    # -- costs ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _flops(self) -> list[_Cost]:
        result = []
        for i, (layer, bottom, top) in enumerate(zip(self.net.layers, self.net.bottoms, self.net.tops)):
            amount = layer.flops(bottom, top)
            if amount:
                result.append(_Cost(amount, self.tops[i], self._columns(i)))
        return result

    @cached_property
    def _parameters(self) -> list[_Cost]:
        result = []
        parts = {(id(part.part.param.blob), part.role is Role.READER): part for part in self.parts}
        for param in self.net.learnable:
            made = parts.get((id(param.blob), False))
            read = parts.get((id(param.blob), True))
            columns = read.units if read is not None and getattr(param.layer, "group", 1) == 1 else None
            result.append(_Cost(param.blob.count, None if made is None else made.units, columns))
        return result

    def _columns(self, i: int) -> np.ndarray | None:
        """Units of the columns of layer i; None without such, or where they go with the outputs (depthwise)."""
        if getattr(self.net.layers[i], "group", 1) != 1:
            return None if is_depthwise(self.net.layers[i]) else self.bottoms[i]
        return next((part.units for part in self.of(Role.READER) if part.layer == i), None)

    def flops(self, gone: np.ndarray | None = None) -> int:
        """FLOPs of one forward pass over the batch without these units.  gone: (count) bool"""
        return self._total(self._flops, gone)

    def parameters(self, gone: np.ndarray | None = None) -> int:
        """Number of parameters without these units.  gone: (count) bool"""
        return self._total(self._parameters, gone)

    def measure_time(self, seconds: Sequence[float]) -> None:
        """Takes the time of each layer's forward pass. It is taken to shrink as FLOPs do: with the channels of the layer's
        outputs, and with those that its weights read."""
        self._seconds = list(seconds)

    @property
    def knows_time(self) -> bool:
        """Whether ``measure_time`` was called."""
        return self._seconds is not None

    @cached_property
    def _time(self) -> list[_Cost]:
        if self._seconds is None:
            raise ValueError("the times of the layers are not known: measure_time")
        nanoseconds = [round(1e9 * seconds) for seconds in self._seconds]
        return [_Cost(amount, self.tops[i], self._columns(i)) for i, amount in enumerate(nanoseconds) if amount > 0]

    @property
    def _costs(self) -> list[_Cost]:
        return {"flops": lambda: self._flops, "params": lambda: self._parameters, "time": lambda: self._time}[
            self.counted
        ]()

    def cost(self, gone: np.ndarray | None = None) -> int:
        """FLOPs, parameters or estimated nanoseconds, as ``counted`` says, without these units.  gone: (count) bool"""
        return self._total(self._costs, gone)

    @property
    def cost_saved(self) -> np.ndarray:
        """What of this the net loses with each unit, if it alone is removed: (count) float64."""
        return self._saved(self._costs)

    def _total(self, costs: Sequence[_Cost], gone: np.ndarray | None) -> int:
        if gone is None:
            return sum(cost.amount for cost in costs)
        places, shares = self._shares_by_array
        left: list[float] = (1 - shares @ gone.astype(np.float64)).tolist()
        return round(sum(cost.amount * left[places[id(cost.top)]] * left[places[id(cost.columns)]] for cost in costs))

    @cached_property
    def _shares_by_array(self) -> tuple[dict[int, int], np.ndarray]:
        """The row of each cost's array of units, by its identity; (rows, units) the part that belongs to each unit."""
        places, rows = {id(None): 0}, {b"": 0}
        found = [np.zeros(self.count)]
        for cost in (*self._flops, *self._parameters, *(self._time if self._seconds is not None else ())):
            for units in (cost.top, cost.columns):
                if units is not None and units.tobytes() not in rows:
                    rows[units.tobytes()] = len(rows)
                    found.append(self._shares(units))
                if units is not None:
                    places[id(units)] = rows[units.tobytes()]
        return places, np.array(found)

    @cached_property
    def flops_saved(self) -> np.ndarray:
        """FLOPs that the net loses with each unit, if it alone is removed: (count) float64."""
        return self._saved(self._flops)

    @cached_property
    def parameters_saved(self) -> np.ndarray:
        """Number of parameters that the net loses with each unit, if it alone is removed: (count) float64."""
        return self._saved(self._parameters)

    def _saved(self, costs: Sequence[_Cost]) -> np.ndarray:
        saved = np.zeros(self.count)
        for cost in costs:
            top, columns = self._shares(cost.top), self._shares(cost.columns)
            saved += cost.amount * (top + columns - top * columns)
        return saved

    def _shares(self, units: np.ndarray | None) -> np.ndarray:
        if units is None or not len(units):
            return np.zeros(self.count)
        return np.bincount(units[units >= 0], minlength=self.count) / len(units)

    # -- removal -------------------------------------------------------------------------------------------------------

    def protected(self, score: np.ndarray, floor: float) -> np.ndarray:
        """The units that must stay: the best ``floor`` of each family, and of each blob the best one: (count) bool.

        score  (count) larger: rather kept;  floor: part of a family, 0 to 1; at least one unit stays in any case
        """
        stays = np.zeros(self.count, np.bool_)
        for family in self.families:
            best = family.units[np.argsort(-score[family.units], kind="stable")]
            stays[best[: max(1, int(np.ceil(floor * len(best))))]] = True
        seen = set()
        for units in self._blobs:
            if len(units) and (units >= 0).all() and units.tobytes() not in seen:
                seen.add(units.tobytes())
                if not stays[units].any():
                    stays[units[np.argmax(score[units])]] = True
        return stays

    def clear(self, gone: np.ndarray) -> None:
        """Sets all that belongs to these units to zero: filters, biases, the values of Scale and Bias layers, the means of
        BatchNorm layers, and the weights that read them. Compaction removes such channels without changing the function.

        gone  (count) bool  [overwrites the net's parameters]
        """
        flags = np.append(gone, False)
        for part in self.parts:
            layer, index = part.part.param.layer, part.part.param.index
            shapes = isinstance(layer, PReLU) or (isinstance(layer, BatchNorm) and index > 0)
            if not shapes and flags[part.units].any():
                part.part.clear(flags[part.units])

    def widths(self, gone: np.ndarray | None = None) -> dict[str, tuple[int, int]]:
        """Number of units of each family before and after, by the family's name."""
        kept = np.ones(self.count, np.bool_) if gone is None else ~gone
        return {family.name: (len(family), int(kept[family.units].sum())) for family in self.families}


def find_channels_to_prune(net: Net) -> CoupledChannels:
    """The prunable channels of a net. raises UsageError if there are none"""
    channels = CoupledChannels(net)
    if not channels.count:
        raise UsageError(
            "the net has no channels that could be removed",
            hint="its layers produce the outputs themselves, or pass layers that need all channels, as LRN across channels",
        )
    return channels
