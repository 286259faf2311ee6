"""Handles data that cannot be used during training (``on_data_error``): skips the batch or stops the run.

Examples are records, images and files that cannot be read, labels out of range, and data that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DataError
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.net.net import Net

UNUSABLE = (DataError, BatchError)
"""Exceptions raised for data that cannot be used."""


class Statistics:
    """Copies of the running statistics that a net's forward pass changes (``Layer.statistics``)."""

    def __init__(self, net: Net) -> None:
        self._copies = [(blob, blob.data.copy()) for layer in net.layers for blob in layer.statistics()]

    def restore(self) -> None:
        for blob, values in self._copies:
            blob.data[...] = values


class DataErrors:
    """Runs forward passes; skips batches that cannot be used, if the solver allows it, and counts them.

    param  a pb.SolverParameter: on_data_error, max_data_errors
    tell   called with the error of each skipped batch, and the number of skipped batches so far
    """

    def __init__(self, param: Any, tell: Callable[[DataError | BatchError, int], None]) -> None:
        self.count = 0
        """Number of skipped batches so far, including those before a resumed snapshot."""
        self._param = param
        self._tell = tell

    def forward(self, net: Net) -> None:
        """Runs a forward pass. With SKIP, if a batch cannot be used, every data layer of the net moves to its next batch.

        raises DataError or BatchError: the first one with STOP, the one after max_data_errors with SKIP. The running
        statistics are then as before the pass
        """
        sources = [layer for layer in net.layers if isinstance(layer, PrefetchedLayer)]
        moving = any(layer.NEW_DATA for layer in net.layers)  # without one, the next batch would be the same
        skip = moving and self._param.on_data_error == pb.SolverParameter.SKIP
        while True:
            before = [layer.batches for layer in sources]
            statistics = Statistics(net)
            try:
                net.forward()
                _check_data(net)
                return
            except UNUSABLE as error:
                statistics.restore()
                if not skip:
                    raise
                if self.count >= self._param.max_data_errors:
                    limit = f"max_data_errors is {self._param.max_data_errors}"
                    error.hint = "; ".join(filter(None, (error.hint, limit)))
                    raise
                self.count += 1
                for layer, batches in zip(sources, before):
                    if layer.batches == batches:
                        layer.skip_batch()
                self._tell(error, self.count)


def _check_data(net: Net) -> None:
    """Raises BatchError when the loss is not finite because the output of a data layer is not finite."""
    if math.isfinite(net.loss):
        return
    for layer, names, tops in zip(net.layers, net.top_names, net.tops):
        if layer.IS_SOURCE:
            for name, top in zip(names, tops):
                if top.holds("data") and not np.isfinite(top.data).all():
                    raise layer.batch_error(f'the data of blob "{name}" are not finite')
