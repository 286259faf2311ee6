"""Adds a chain of layers for one ONNX node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.node import OnnxNode


class Chain:
    """A chain of layers for one node; ``blob`` is the bottom of the next layer."""

    def __init__(self, builder: DefinitionBuilder, node: OnnxNode, blob: str = "", *, padded: bool = False) -> None:
        """blob: the bottom of the first layer; default: the node's first input, which may be padded if the layers
        include padding."""
        self.builder, self.node = builder, node
        self.blob = blob or (builder.padded_blob(node) if padded else builder.blob(node, 0))
        self._top: tuple[Any, int] | None = None

    def add(
        self,
        kind: str,
        suffix: str = "",
        *others: str,
        blobs: Sequence[np.ndarray] = (),
        tops: int = 1,
        takes: int = 0,
    ) -> Any:
        """Adds a layer; returns its message. ``others`` are further bottoms; the next layer reads top number
        ``takes``."""
        bottom = [self.blob, *others]
        layer = self.builder.layer(self.node, kind, bottom=bottom, blobs=blobs, suffix=suffix, last=False, tops=tops)
        self.blob, self._top = layer.top[takes], (layer, takes)
        return layer

    def reshape(self, dims: Sequence[int], suffix: str = "shape") -> None:
        """Adds a Reshape; dims as in reshape_param: 0 keeps an axis, -1 is computed."""
        self.add("Reshape", suffix).reshape_param.shape.dim.extend(int(n) for n in dims)

    def power(self, suffix: str, **fields: float) -> None:
        """Adds (shift + scale x) ^ power with these numbers."""
        param = self.add("Power", suffix).power_param
        for name, value in fields.items():
            setattr(param, name, value)

    def factor(self, values: np.ndarray, axis: int) -> None:
        """Multiplies by constants that lie along the axes from ``axis`` on; they are not trained."""
        layer = self.add("Scale", "factor", blobs=[values])
        layer.scale_param.axis, layer.scale_param.num_axes = axis, values.ndim
        layer.param.add(lr_mult=0, decay_mult=0)

    def end(self) -> None:
        """Ends the chain: the last top is the node's output."""
        if self._top is None:
            self.builder.same(self.node.result, self.node.input(0))
            return
        layer, takes = self._top
        layer.top[takes] = self.builder.new_blob(self.node.result)
        self.builder.become(self.node.result, layer.top[takes])
