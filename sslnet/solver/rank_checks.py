"""Checks of a run on several ranks: how many parts its batches have, and that all ranks have the same data and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError, WeightsError
from sslnet.layers.loss import Loss
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.ranks.group import Group
from sslnet.ranks.place import BatchPlace
from sslnet.solver.run_state import SolverParts, parts_of
from sslnet.solver.snapshot import SolverState
from sslnet.sources.shards import ShardReader

MOST_PARTS = 1024


def parts_of_batch(definition: Definition, group: Group | None, state: SolverState | None) -> int:
    """The number of parts of the whole batch: virtual_ranks, else that of the snapshot, else the number of ranks.

    raises DefinitionError for a number that the ranks cannot divide; WeightsError if the snapshot has another one
    """
    param, ranks = definition.message, group.size if group is not None else 1
    given, saved = param.HasField("virtual_ranks"), None if state is None else parts_of(state.arrays)
    if given:
        span = definition.span("virtual_ranks", value=True)

        def error(message: str, hint: str = "") -> DefinitionError:
            return DefinitionError(message, span=span, path=definition.path, hint=hint)

        parts = int(param.virtual_ranks)
        if not 1 <= parts <= MOST_PARTS or parts & (parts - 1):
            raise error(f"virtual_ranks must be a power of two, from 1 to {MOST_PARTS}, not {parts}")
        if parts % ranks:
            raise error(
                f"{ranks} ranks cannot share {parts} virtual ranks equally",
                "start a number of ranks that divides virtual_ranks",
            )
    else:
        parts = saved if saved is not None and saved > 1 and saved % ranks == 0 else ranks
    if saved is not None and saved != parts:
        raise WeightsError(
            f"the snapshot is of a run whose whole batch had {saved} part{'s' if saved > 1 else ''}, this one has {parts}",
            hint=f"continue it on a number of ranks that divides {saved}"
            if saved > 1
            else "continue it on one rank, or start from its weights with --weights",
        )
    return parts


def check_divisible(solver: SolverParts, place: BatchPlace, ranks: int) -> None:
    """Raises DefinitionError if several parts cannot make up the batches of a solver's nets."""
    refuse_undivided(_nets(solver))
    for layer in solver.net.layers:
        if place.parts > 1 and isinstance(layer, Loss) and layer.counts_labels:
            raise layer.error(
                "the divisor is the number of labels of the whole batch that are not ignored, which a rank with several "
                "virtual ranks does not know in time",
                "loss_param", "ignore_label",
                hint="normalization: FULL or BATCH_SIZE, or as many ranks as virtual_ranks",
            )  # fmt: skip
    param, definition = solver.param, solver.definition
    if param.sync_batch_norm and place.parts > 1:
        raise DefinitionError(
            "sync_batch_norm needs as many ranks as virtual_ranks: their parts must run at the same time",
            span=definition.span("sync_batch_norm", value=True),
            path=definition.path,
        )
    if param.on_data_error == pb.SolverParameter.SKIP:
        raise DefinitionError(
            "on_data_error: SKIP does not work on several ranks, which would skip different batches",
            span=definition.span("on_data_error", value=True),
            path=definition.path,
        )


def refuse_undivided(nets: Sequence[Net]) -> None:
    """Raises DefinitionError at the first layer whose batches several ranks cannot divide."""
    for net in nets:
        for layer in net.layers:
            if layer.UNDIVIDED:
                raise layer.error(f"{layer.type} does not run on several ranks: {layer.UNDIVIDED}")


def place_of_tests(group: Group | None) -> BatchPlace:
    """The place of a net that is tested: the ranks take turns, a batch each."""
    return BatchPlace() if group is None else BatchPlace(step=group.size, offset=group.rank)


def weights_digest(solver: SolverParts) -> np.ndarray:
    """A digest of all weights and histories, but of no running statistics, which each rank has: (16) uint8."""
    digest = hashlib.blake2b(digest_size=16)
    own = {id(blob) for layer in solver.net.layers for blob in layer.statistics()}
    for param in solver.net.learnable:
        if id(param.blob) not in own:
            digest.update(_bytes(param.blob.data))
    for update in solver.updates:
        for array in update.history:
            digest.update(_bytes(array))
    return np.frombuffer(digest.digest(), np.uint8)


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data


def check_data(solver: SolverParts, group: Group) -> None:
    """Raises DataError if a data layer has other records on another rank: another number, or other first or last ones."""
    if group.size == 1:
        return
    layers = [layer for net in _nets(solver) for layer in net.layers if isinstance(layer, PrefetchedLayer)]
    found = group.exchange([_fingerprint(layer) for layer in layers])
    for index, layer in enumerate(layers):
        for rank in range(1, group.size):
            (count, digest), (theirs, other) = found[0][index], found[rank][index]
            if (count, digest) == (theirs, other):
                continue
            what = f"{theirs} records, rank 0 has {count}" if count != theirs else "other records than rank 0"
            raise layer.located(DataError(f"rank {rank} has {what}", hint="all ranks need the same data"))


def _nets(solver: SolverParts) -> Sequence[Net]:
    return [solver.net, *solver.test_nets]


def _fingerprint(layer: PrefetchedLayer) -> tuple[int | None, bytes]:
    """Number of records, and a digest of the first and the last ones."""
    records, digest = layer.epoch_records(), hashlib.blake2b(digest_size=16)
    if isinstance(layer.reader, ShardReader):  # of parts that differ on purpose
        return records, b""
    for position in {0, max(0, (records or 0) - layer.reader.batch_size)}:
        for array in layer.read(position):
            digest.update(_bytes(array))
    return records, digest.digest()
