"""What becomes of a training run that meets data which cannot be used (``on_data_error``).

Such are records, images and files that cannot be read, labels out of range, and data that are not finite.
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
"""What is raised for data that cannot be used."""


class Statistics:
    """Copies of what the forward pass of a net changes in its parameters (``Layer.statistics``)."""

    def __init__(self, net: Net) -> None:
        self._copies = [(blob, blob.data.copy()) for layer in net.layers for blob in layer.statistics()]

    def restore(self) -> None:
        for blob, values in self._copies:
            blob.data[...] = values


class DataErrors:
    """Runs forward passes, leaves out batches where the solver says so, and counts them.

    param  a pb.SolverParameter: on_data_error, max_data_errors
    tell   called with the error of each batch that is left out, and their number so far
    """

    def __init__(self, param: Any, tell: Callable[[DataError | BatchError, int], None]) -> None:
        self.count = 0
        """Batches left out so far, those before a resumed snapshot among them."""
        self._param = param
        self._tell = tell

    def forward(self, net: Net) -> None:
        """A forward pass. With SKIP every data layer of the net goes on to its next batch when one cannot be used.

        raises DataError or BatchError: with STOP the first, with SKIP the one after max_data_errors. Running statistics are
        then as they were before the pass
        """
        sources = [layer for layer in net.layers if isinstance(layer, PrefetchedLayer)]
        moving = any(layer.NEW_DATA for layer in net.layers)  # where there is none, the next batch is the same
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
    """raises BatchError when the loss is not finite because what a layer brought from outside is not."""
    if math.isfinite(net.loss):
        return
    for layer, names, tops in zip(net.layers, net.top_names, net.tops):
        if layer.IS_SOURCE:
            for name, top in zip(names, tops):
                if top.holds("data") and not np.isfinite(top.data).all():
                    raise layer.batch_error(f'the data of blob "{name}" are not finite')
