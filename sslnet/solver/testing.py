"""Tests a net during training: the mean outputs over its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sslnet.solver.callbacks import Outputs, outputs_of

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.solver.data_errors import DataErrors


def mean_outputs(
    net: Net, batches: int, errors: DataErrors, before: Mapping[str, bytes], stops: Callable[[], bool]
) -> tuple[Outputs, float] | None:
    """The outputs and the loss, averaged over the batches; None if a stop was requested before the last one.

    before  the states of the net's layers, which a stop restores, so that the resumed run repeats this test, not half of it
    stops   whether a stop is requested, asked before each batch
    """
    loss, count = 0.0, errors.count
    sums: list[float] = []
    for _ in range(batches):
        if stops():
            net.set_layer_states(dict(before))
            errors.count = count
            return None
        errors.forward(net)
        loss += net.loss
        values = [value for _, value, _ in outputs_of(net)]
        sums = [a + b for a, b in zip(sums, values)] if sums else values
    return [(name, s / batches, weight) for (name, _, weight), s in zip(outputs_of(net), sums)], loss / batches
