"""An exponential moving average of the weights (``ema_decay``), which tests and ``PREFIX_iter_N_average.caffemodel`` use.

After iteration t = 1, 2, ... of the run

    average = d * average + (1 - d) * weights,  d = min(ema_decay, (1 + t) / (10 + t))

so that the first, bad weights are soon forgotten. Statistics of BatchNorm are averaged as well. A weight that is exactly zero
is zero in the average too while this is used: what a penalty or a pruning made zero can be removed from both.

Ref: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; the growing decay is that of
TensorFlow's ExponentialMovingAverage with num_updates
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sslnet.kernels.optim.average import average
from sslnet.kernels.runtime.jit import spread

if TYPE_CHECKING:
    from sslnet.net.parameters import Param


class AveragedWeights:
    """The moving average of all parameter blobs of a net.

    params  the net's parameters
    decay   from 0 up to, but not including, 1; 0: there is no average, and ``in_use`` changes nothing
    """

    def __init__(self, params: Sequence[Param], decay: float) -> None:
        self.params, self.decay = list(params) if decay else [], decay
        self._averages = [param.blob.data.copy() for param in self.params]
        self._in_use = False

    def __bool__(self) -> bool:
        """Whether there is an average."""
        return self.decay > 0

    def restart(self) -> None:
        """Starts the average again from the current weights, as after new weights were loaded."""
        for mean, param in zip(self._averages, self.params):
            mean[...] = param.blob.data

    def update(self, iteration: int) -> None:
        """Takes in the weights after an iteration, counted from 1."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for mean, param in zip(self._averages, self.params):
            rest = mean.dtype.type(1 - decay)
            spread(average, mean.size, 1, mean.reshape(-1), param.blob.data.reshape(-1), rest)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Context manager in which the net has the averaged weights.  [restores the weights at the end]"""
        if self._in_use:
            yield
            return
        own = [param.blob.data.copy() for param in self.params]
        self._in_use = True
        try:
            for mean, param, weights in zip(self._averages, self.params, own):
                param.blob.data[...] = np.where(weights == 0, 0, mean)
            yield
        finally:
            for param, weights in zip(self.params, own):
                param.blob.data[...] = weights
            self._in_use = False

    @property
    def nbytes(self) -> int:
        """Bytes of the averages."""
        return sum(mean.nbytes for mean in self._averages)

    def state(self) -> dict[str, np.ndarray]:
        """The averages by parameter name, for a snapshot."""
        return {f"average/{param.name}": mean for mean, param in zip(self._averages, self.params)}

    def set_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what ``state`` returned; a state without averages starts from the current weights."""
        self.restart()
        for mean, param in zip(self._averages, self.params):
            saved = arrays.get(f"average/{param.name}")
            if saved is not None and saved.size == mean.size:
                mean[...] = saved.reshape(mean.shape)
