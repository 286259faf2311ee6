"""Predictor: a trained net as a function, for services: any batch size, any thread, without the parts for training."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.deploy import deploy_net
from sslnet.errors import UsageError, suggestion
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource


class Predictor:
    """A net in phase TEST with fixed weights.

    model      deploy prototxt; a definition for training is converted, without data layers and losses
    weights    its .caffemodel
    outputs    names of the blobs to return; None: the outputs of the net
    max_batch  maximum number of images that run at once; larger batches are split

    Called with arrays for the net's inputs, by name or, if there is only one, as the single argument; the first axis is the
    batch and may have any size. Returns {name: array}, new arrays each time. Threads may call it at the same time: each then
    has blobs of its own, and all share the weights. Packed weights are prepared once, and blobs share memory.

        predict = sslnet.Predictor("deploy.prototxt", "net.caffemodel")
        probabilities = predict(images)["prob"]

    raises DefinitionError, ShapeError, WeightsError as ``Net``; UsageError for inputs that do not fit
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        weights: WeightSource,
        *,
        outputs: Sequence[str] | None = None,
        max_batch: int = 64,
    ) -> None:
        if max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, not {max_batch}")
        self.max_batch = max_batch
        net, _ = deploy_net(os.fspath(model), weights, lean=True)
        self.inputs: dict[str, tuple[int, ...]] = {name: net.blobs[name].shape[1:] for name in net.inputs}
        """Shape of one image of each input."""
        self.outputs = list(net.outputs if outputs is None else outputs)
        for name in self.outputs:
            if name not in net.blobs:
                raise UsageError(f'the net has no blob "{name}"', hint=suggestion(name, net.blobs))
        self._first = net
        self._idle = [net]
        self._lock = threading.Lock()

    def __call__(self, *alone: ArrayLike, **inputs: ArrayLike) -> dict[str, np.ndarray]:
        """Runs the net: {name: (images, ...)} of the outputs."""
        arrays = self._checked(alone, inputs)
        count = len(next(iter(arrays.values())))
        parts = []
        with self._net() as net:
            for start in range(0, count, self.max_batch):
                parts.append(self._run(net, {k: a[start : start + self.max_batch] for k, a in arrays.items()}))
        return {
            name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name] for name in parts[0]
        }

    def _run(self, net: Net, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in arrays.items():
            if net.blobs[name].shape != array.shape:
                net.blobs[name].reshape(*array.shape)
        plan = net.plan(fused=True)
        if not plan.held:
            plan.hold_weights(True)
        inputs: dict[str, Any] = dict(arrays)
        found = net.forward(self.outputs, **inputs)
        return {name: found[name].copy() for name in self.outputs}

    @contextlib.contextmanager
    def _net(self) -> Iterator[Net]:
        """A net that no other thread uses: the idle one that was used last, or a new one with the same weights."""
        with self._lock:
            net = self._idle.pop() if self._idle else None
        if net is None:
            net = Net(self._first.definition, phase=pb.TEST, lean=True)
            net.share_with(self._first)  # not share=: that is for nets which never run at the same time
        try:
            yield net
        finally:
            with self._lock:
                self._idle.append(net)

    def _checked(self, alone: tuple[ArrayLike, ...], inputs: dict[str, ArrayLike]) -> dict[str, np.ndarray]:
        names = list(self.inputs)
        if len(alone) > 1 or (alone and (inputs or len(names) > 1)):
            raise UsageError(f"give the inputs by name: {', '.join(names)}")
        given = dict(zip(names, alone)) if alone else inputs
        if set(given) != set(names):
            raise UsageError(f"the net needs {', '.join(names)}; given: {', '.join(given) or 'none'}")
        arrays = {name: np.asarray(given[name], np.float32) for name in names}
        for name, array in arrays.items():
            if array.ndim != len(self.inputs[name]) + 1 or array.shape[1:] != self.inputs[name]:
                wanted = " x ".join(map(str, ("N", *self.inputs[name])))
                raise UsageError(
                    f'input "{name}" must be {wanted}, not {" x ".join(map(str, array.shape)) or "a number"}'
                )
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1 or 0 in counts:
            raise UsageError(f"all inputs must have as many images, at least one: {[len(a) for a in arrays.values()]}")
        return arrays
