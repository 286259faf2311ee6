"""Predictor: a trained net as a function, for services: any batch size, any thread, without the parts for training."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.deploy import deploy_net
from sslnet.errors import UsageError, suggestion
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource


class _Copy:
    """A net that one thread uses at a time.  outputs: the names of the blobs to return"""

    def __init__(self, net: Net, outputs: Sequence[str]) -> None:
        self.net = net
        net.keep("data", *outputs)
        pairs = [pair for names, tops in zip(net.top_names, net.tops) for pair in zip(names, tops)]
        self._inputs = {name: next(blob for top, blob in pairs if top == name) for name in net.inputs}
        self._outputs = [(name, net.blobs[name]) for name in outputs]

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        net = self.net
        for name, array in arrays.items():
            if self._inputs[name].shape != array.shape:
                self._inputs[name].reshape(*array.shape)
        plan = net.plan(fused=True)
        if not plan.held:
            plan.hold_weights(True)
        for name, array in arrays.items():
            self._inputs[name].data[...] = array
        if not net.run_taped(plan):
            net.forward()
        return {name: blob.data.copy() for name, blob in self._outputs}


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
        self._idle = [_Copy(net, self.outputs)]
        self._only = next(iter(self.inputs.items())) if len(self.inputs) == 1 else None

    def __call__(self, *alone: ArrayLike, **inputs: ArrayLike) -> dict[str, np.ndarray]:
        """Runs the net: {name: (images, ...)} of the outputs."""
        if self._only is not None and len(alone) == 1 and not inputs:
            name, shape = self._only
            array = np.asarray(alone[0], np.float32)
            fits = array.shape[1:] == shape and array.ndim == len(shape) + 1 and len(array)
            arrays = {name: array} if fits else self._checked(alone, inputs)
        else:
            arrays = self._checked(alone, inputs)
        count = len(next(iter(arrays.values())))
        copy = self._take()
        try:
            if count <= self.max_batch:
                return copy.run(arrays)
            starts = range(0, count, self.max_batch)
            parts = [copy.run({k: a[start : start + self.max_batch] for k, a in arrays.items()}) for start in starts]
        finally:
            self._idle.append(copy)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _take(self) -> _Copy:
        """A net that no other thread uses: the idle one that was used last, or a new one with the same weights."""
        try:
            return self._idle.pop()  # one operation, so no two threads get the same
        except IndexError:
            pass
        net = Net(self._first.definition, phase=pb.TEST, lean=True)
        net.share_with(self._first)  # not share=: that is for nets which never run at the same time
        return _Copy(net, self.outputs)

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
