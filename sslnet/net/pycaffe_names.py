"""PycaffeNames: what pycaffe's Net has beside running and saving, under its names; and names of blobs by layer."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, KeysView, Mapping, Sequence, ValuesView
from itertools import zip_longest
from typing import Any

import numpy as np

from sslnet.blob import Blob
from sslnet.errors import UsageError, suggestion
from sslnet.layers.base import Layer
from sslnet.net import weights


class LayerNames(list[list[str]]):
    """The names of the tops, or bottoms, of each layer: by number, and by the layer's name as in pycaffe.

    Iterating gives the lists; ``keys``, ``values``, ``items``, ``get``, ``in`` and ``==`` with a dict go by layer.
    """

    def __init__(self, layers: Sequence[str], names: Sequence[list[str]]) -> None:
        super().__init__(names)
        self._layers = {name: i for i, name in enumerate(layers)}

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._layers:
            raise KeyError(key)
        return super().__getitem__(self._layers[key])

    def __contains__(self, key: object) -> bool:
        return key in self._layers if isinstance(key, str) else super().__contains__(key)

    def __eq__(self, other: object) -> bool:
        return self._by_layer() == other if isinstance(other, Mapping) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def _by_layer(self) -> dict[str, list[str]]:
        return dict(zip(self._layers, self))

    def keys(self) -> KeysView[str]:
        return self._by_layer().keys()

    def values(self) -> ValuesView[list[str]]:
        return self._by_layer().values()

    def items(self) -> ItemsView[str, list[str]]:
        return self._by_layer().items()

    def get(self, key: str, default: Any = None) -> Any:
        return self._by_layer().get(key, default)


class PycaffeNames:
    """Base of Net. Underlined names are private in pycaffe; scripts read them all the same."""

    blobs: dict[str, Blob]
    layers: list[Layer]
    layer_names: list[str]
    inputs: list[str]
    outputs: list[str]
    loss_weights: dict[str, float]
    dtype: np.dtype
    on_step: Callable[[int, bool], None] | None
    after_step: Callable[[int, bool], None] | None
    forward: Callable[..., dict[str, np.ndarray]]
    backward: Callable[..., dict[str, np.ndarray]]
    copy_from: Callable[..., weights.Copied]
    save: Callable[..., None]

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    @property
    def layer_dict(self) -> dict[str, Layer]:
        """The layers by name."""
        return dict(zip(self.layer_names, self.layers))

    @property
    def blob_loss_weights(self) -> dict[str, float]:
        """The weight of each blob in the objective: 0 for those that are no loss."""
        return {name: float(self.loss_weights.get(name, 0.0)) for name in self.blobs}

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    def save_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights as HDF5, whatever the name."""
        self.save(path, hdf5=True)

    def load_hdf5(self, path: str | os.PathLike[str]) -> weights.Copied:
        """Copies weights from a file, HDF5 or not, by layer name."""
        return self.copy_from(path)

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """The rows that the net's MemoryData layer gives from now on: (n, C, H, W), and n labels."""
        for layer in self.layers:
            if layer.TYPE == "MemoryData":
                layer.set_input_arrays(data, labels)  # type: ignore[attr-defined]
                return
        raise UsageError("the net has no MemoryData layer", hint="assign to net.blobs[NAME].data instead")

    # -- many batches ------------------------------------------------------------------------------------------------

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """Forward for any number of images: in batches of the net's own size, the last one filled up with zeros.

        inputs   arrays for all inputs of the net, the same number of images in each
        returns  {name: array over all images} of the outputs and of ``blobs``
        """
        if set(inputs) != set(self.inputs):
            raise UsageError(
                f"forward_all needs all inputs: {', '.join(self.inputs)}; given: {', '.join(inputs) or 'none'}"
            )
        results: dict[str, list[np.ndarray]] = {}
        for part, count in self._parts(inputs):
            for name, values in self.forward(blobs, **part).items():
                results.setdefault(name, []).append(values[:count].copy())
        return {name: np.concatenate(parts) for name, parts in results.items()}

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Forward and backward for any number of images, as ``forward_all``.

        blobs, diffs  further blobs whose data and diffs to return
        arrays        of inputs, for the forward pass; of outputs, their diffs for the backward pass
        returns       {name: data}, {name: diff}, over all images
        """
        known = (*self.inputs, *self.outputs)
        for name in arrays:
            if name not in known:
                raise UsageError(f'the net has no input or output "{name}"', hint=suggestion(name, known))
        if not arrays:
            raise UsageError("forward_backward_all needs arrays of inputs or outputs")
        given = ({name: arrays[name] for name in names if name in arrays} for names in (self.inputs, self.outputs))
        data: dict[str, list[np.ndarray]] = {}
        found: dict[str, list[np.ndarray]] = {}
        empty: tuple[dict[str, Any], int | None] = ({}, None)
        for (inputs, count), (outputs, other) in zip_longest(*map(self._parts, given), fillvalue=empty):
            for results, batch in (
                (data, self.forward(blobs, **inputs)),
                (found, self.backward(diffs, **outputs)),
            ):
                for name, values in batch.items():
                    results.setdefault(name, []).append(np.atleast_1d(values)[: count or other].copy())
        first, second = ({name: np.concatenate(parts) for name, parts in each.items()} for each in (data, found))
        return first, second

    def _parts(self, arrays: Mapping[str, Any]) -> list[tuple[dict[str, Any], int]]:
        """Arrays over all images in batches, filled up with zeros, each with its number of images."""
        if not arrays:
            return []
        count = len(next(iter(arrays.values())))
        batch = max(1, self.blobs[next(iter(arrays))].shape[0])
        parts = []
        for first in range(0, count, batch):
            part: dict[str, Any] = {}
            for name, array in arrays.items():
                part[name] = np.zeros(self.blobs[name].shape, self.dtype)
                images = np.asarray(array[first : first + batch])
                part[name][: len(images)] = images
            parts.append((part, min(batch, count - first)))
        return parts

    # -- functions that run between layers -----------------------------------------------------------------------------

    def before_forward(self, function: Callable[[int], object]) -> None:
        """Calls the function with the number of each layer before it runs forward, from now on."""
        self._hook(function, before=True, forward=True)

    def after_forward(self, function: Callable[[int], object]) -> None:
        """Calls the function with the number of each layer after it ran forward, from now on."""
        self._hook(function, before=False, forward=True)

    def before_backward(self, function: Callable[[int], object]) -> None:
        """Calls the function with the number of each layer before it runs backward, from now on."""
        self._hook(function, before=True, forward=False)

    def after_backward(self, function: Callable[[int], object]) -> None:
        """Calls the function with the number of each layer after it ran backward, from now on."""
        self._hook(function, before=False, forward=False)

    def _hook(self, function: Callable[[int], object], *, before: bool, forward: bool) -> None:
        name = "on_step" if before else "after_step"
        earlier: Callable[[int, bool], None] | None = getattr(self, name)

        def call(layer: int, runs_forward: bool) -> None:
            if earlier is not None:
                earlier(layer, runs_forward)
            if runs_forward == forward:
                function(layer)

        setattr(self, name, call)
