"""``compact``: makes the smaller net that computes the same as a pruned net, and verifies it on data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.build import Smaller, build_smaller, smaller_definition
from sslnet.compress.compaction.channels import NetChannels
from sslnet.compress.compaction.compare import Difference, compare
from sslnet.compress.compaction.constant_folding import (
    Contribution,
    choose_carriers,
    constant_values,
    find_contributions,
)
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.compaction.needed_channels import find_channels, propagate
from sslnet.compress.compaction.sizes import LayerSize, layer_sizes
from sslnet.compress.compaction.standard import make_readable, make_standard
from sslnet.compress.compaction.state import cut_state, train_view, weight_places
from sslnet.errors import RunError, SslnetError
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import fill_inputs, source_shapes, with_inputs
from sslnet.net.missing_data import net_of
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, StoredWeights, WeightSource, copy_all_weights, stored_weights
from sslnet.prototxt import Definition, upgrade_net
from sslnet.solver.snapshot import SolverState, read_state

TOLERANCE = 1e-4
"""Differences up to this fraction of the largest output are considered rounding errors."""


@dataclass
class Compaction:
    """The result of ``compact``.

    message     the smaller net, with all phases of the original
    deploy      the net for deployment; None if ``message`` is one already
    weights     the smaller blobs
    layers      sizes before and after
    batch       number of images for which these sizes are given
    constants   names of layers that absorbed the contribution of removed constant channels into their bias
    maps        names of layers followed by a Bias layer with such a contribution
    factors     names of layers followed by a Scale layer with a constant factor
    carriers    names of layers for which constant channels were kept to carry such a contribution
    difference  difference between the outputs of the pruned and the smaller net
    notes       sentences that explain what could not be done
    state       solver state to continue training with the smaller net; None if none was given
    """

    message: pb.NetParameter
    deploy: pb.NetParameter | None
    weights: pb.NetParameter
    layers: list[LayerSize]
    batch: int
    difference: Difference
    constants: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    factors: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    state: SolverState | None = None

    @property
    def removed(self) -> int:
        """Number of removed parameters."""
        return sum(layer.before.parameters - layer.after.parameters for layer in self.layers)


def compact(
    model: str | Path | Definition,
    weights: WeightSource,
    *,
    phase: int = pb.TEST,
    level: int = 0,
    stages: Sequence[str] = (),
    drop_constants: bool = False,
    standard_only: bool = False,
    snapshot: str | Path | None = None,
    seed: int = 0,
) -> Compaction:
    """Removes the channels that have no effect on the outputs of a net. Writes no files.

    model           train_test or deploy prototxt, with all its phases
    phase           phase in which constants are computed and the two nets are compared
    drop_constants  omit the contribution of removed constant channels: may save Bias layers, but changes the function
    standard_only   use only fields that Caffe 1.0 knows, with all columns of the kernels

    raises RunError when a layer would lose every channel, or when the smaller net computes something else
    """
    definition = upgrade_net(model) if isinstance(model, Definition) else prototxt.read_net(os.fspath(model))
    state = PhaseState(phase, level, tuple(stages))
    notes: list[str] = []
    nets = _pruned_nets(definition, weights, state, seed, notes)
    pruned = nets.compared
    inputs = "random numbers" if fill_inputs(pruned, seed) else "data of the net"
    removal = _remove_channels(definition, nets, drop_constants, standard_only)
    smaller, contributions = removal.smaller, removal.contributions
    if smaller.untiled:
        names = ", ".join(smaller.untiled)
        notes.append(f"group lasso tiles removed because they do not divide the smaller weights: {names}")
    if standard_only:
        notes += make_standard(smaller, removal.views)
    small = smaller_definition(smaller.message, definition.path)
    after = _smaller_net(small, smaller, pruned, state)
    with _unchanged([pruned, after]):
        difference = compare(pruned, after, inputs)
    if not drop_constants and not difference.relative <= TOLERANCE:
        raise _differs(difference, definition, phase)
    if nets.unseen and nets.other is not None:
        names = ", ".join(nets.unseen)
        notes.append(f"unchanged, because no phase runs them at this level and these stages: {names}")
    cut = None
    if snapshot is not None:
        before = train_view(removal.views, os.fspath(snapshot)).net
        trained = after if before is pruned else _smaller_net(small, smaller, pruned, before.state)
        places = weight_places(removal.views, contributions, standard_only)
        cut = cut_state(read_state(snapshot), before, trained, places, os.fspath(snapshot))
    deploy = deploy_definition(small, state, source_shapes(pruned))
    if standard_only:
        make_readable(smaller.message if deploy is None else deploy, smaller.arrays)
    return Compaction(
        message=smaller.message,
        deploy=deploy,
        weights=smaller.weights(),
        layers=layer_sizes(pruned, after),
        batch=next((shape[0] for shape in source_shapes(pruned).values() if shape), 1),
        difference=difference,
        constants=_names(pruned, contributions, "shift"),
        maps=_names(pruned, contributions, "map"),
        factors=_names(pruned, contributions, "factor"),
        carriers=_names(pruned, contributions, "layer"),
        notes=notes,
        state=cut,
    )


# -- the nets before ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrunedNets:
    """The net to compact in each of its phases, with weights that are read once.

    compared  net in the phase in which it is compared with the smaller one, on the same data
    other     net in the other phase, with Input layers for its data; None if there is none or it cannot be built
    unseen    blobs in the weights file of layers that run in neither phase, by layer name
    """

    compared: Net
    other: Net | None
    unseen: Arrays

    @property
    def all(self) -> list[Net]:
        return [self.compared] if self.other is None else [self.compared, self.other]


def _pruned_nets(
    definition: Definition, weights: WeightSource, state: PhaseState, seed: int, notes: list[str]
) -> PrunedNets:
    """Builds the nets of both phases with their weights; adds a note for a phase that cannot be built."""
    compared = net_of(definition, state, seed=seed)
    notes += [note.message for note in compared.definition.notes if note not in definition.notes]
    stored = stored_weights(weights)
    copy_all_weights(compared.params, stored)
    other = _other_phase(definition, compared, stored, state, notes)
    seen = {layer.definition.index for net in (compared, other) if net is not None for layer in net.layers}
    unseen = [layer.name for i, layer in enumerate(definition.message.layer) if i not in seen]
    return PrunedNets(compared, other, {name: stored.arrays.get(name, []) for name in unseen})


def _other_phase(
    definition: Definition, compared: Net, weights: StoredWeights, state: PhaseState, notes: list[str]
) -> Net | None:
    """Builds the net of the other phase; returns None, and adds a note, if it cannot be built."""
    phase = pb.TRAIN if state.phase == pb.TEST else pb.TEST
    if not filter_layers(definition, PhaseState(phase, state.level, state.stages)):
        return None
    by_hand = with_inputs(definition, source_shapes(compared))
    try:
        return Net(by_hand, weights, phase, level=state.level, stages=state.stages, seed=compared.seed)
    except SslnetError as error:
        name = pb.Phase.Name(phase)
        notes.append(f"phase {name} could not be built, so layers that run there alone are unchanged: {error.message}")
        return None


# -- removing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """Channels removed from the nets of ``views`` (the compared one first), and the remaining net."""

    views: list[NetChannels]
    contributions: dict[int, Contribution]
    smaller: Smaller


def _remove_channels(definition: Definition, nets: PrunedNets, drop_constants: bool, standard_only: bool) -> Removal:
    """Makes the smaller net. Layers that share a parameter absorb constants only if its values remain equal for all."""
    removal = _try_removal(definition, nets, drop_constants, standard_only, absorb_shared=True)
    if removal.smaller.shared_differ():
        removal = _try_removal(definition, nets, drop_constants, standard_only, absorb_shared=False)
    return removal


@contextmanager
def _unchanged(nets: Sequence[Net]) -> Iterator[None]:
    """Context manager that restores the statistics of BatchNorm, which a forward pass in phase TRAIN changes."""
    blobs = [param.blob for net in nets if net.phase == pb.TRAIN for param in net.learnable]
    values = [blob.data.copy() for blob in blobs]
    try:
        yield
    finally:
        for blob, value in zip(blobs, values):
            blob.data[...] = value


def _try_removal(
    definition: Definition, nets: PrunedNets, drop_constants: bool, standard_only: bool, *, absorb_shared: bool
) -> Removal:
    with _unchanged(nets.all):
        views = find_channels(nets.all, absorb_shared=absorb_shared, run=True)
        contributions = _factors(views) if drop_constants else _absorb(views, maps=not standard_only)
    smaller = build_smaller(definition, views, contributions, nets.unseen, standard_only=standard_only)
    return Removal(views, contributions, smaller)


def _absorb(views: Sequence[NetChannels], *, maps: bool) -> dict[int, Contribution]:
    """Finds the contributions of removed constant channels, by layer; marks carrier channels as needed."""
    values = constant_values(views[0])
    carriers = choose_carriers(views[0], values, maps=maps)
    for i, channels in carriers.items():
        views[0].bottoms[i][0].needed[channels] = True
    propagate(views)
    return find_contributions(views[0], values, carriers)


def _factors(views: Sequence[NetChannels]) -> dict[int, Contribution]:
    """Contributions of the dropped factors of products only; omitted terms of sums count as 0."""
    values = {i: found for i, found in constant_values(views[0]).items() if views[0].net.layers[i].factors()}
    return find_contributions(views[0], values, {})


def _names(net: Net, contributions: dict[int, Contribution], kind: str) -> list[str]:
    return [net.layer_names[i] for i, found in contributions.items() if getattr(found, kind) is not None]


# -- the net after -----------------------------------------------------------------------------------------------------


def _smaller_net(definition: Definition, smaller: Smaller, pruned: Net, state: PhaseState) -> Net:
    """Builds the smaller net in this phase, with Input layers for its data."""
    by_hand, weights = with_inputs(definition, source_shapes(pruned)), StoredWeights(smaller.arrays)
    return Net(by_hand, weights, state.phase, level=state.level, stages=state.stages, seed=pruned.seed)


def _differs(difference: Difference, definition: Definition, phase: int) -> RunError:
    random = "; layers such as Dropout draw random numbers in phase TRAIN: compare in phase TEST"
    worst = max(difference.blobs, key=lambda blob: blob.relative)
    return RunError(
        f'the smaller net differs by {worst.absolute:.3g} in "{worst.name}", whose largest value is {worst.largest:.3g}',
        path=definition.path,
        hint="that is more than rounding; nothing was written" + (random if phase == pb.TRAIN else ""),
    )
