"""SPP: spatial pyramid pooling: pools each channel in 2^l x 2^l windows for each level l and joins the results.

bottom  (N, C, H, W)
top     (N, C * (1 + 4 + 16 ...)), level after level, for any H and W; with a single level (N, C, 1, 1)

The windows of a level have the size ceil(H / 2^l) x ceil(W / 2^l), do not overlap, and extend into padding
where they exceed the image.

Ref: He et al. 2014, "Spatial pyramid pooling in deep convolutional networks"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.layers.base import Blobs, BoolVector, Layer, LayerDefinition
from sslnet.layers.channels import MOVED
from sslnet.layers.concat import cut
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.pooling import Pooling


@final
class SPP(Layer):
    TYPE: ClassVar[str] = "SPP"
    KIND: ClassVar[str] = "pooling"
    CHANNELS: ClassVar[str] = MOVED

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.levels: int = self.param.spp_param.pyramid_height
        if self.levels < 1:
            raise self.error("pyramid_height must be at least 1", "spp_param", "pyramid_height")
        self._size: tuple[int, ...] = ()
        self._pools: list[Pooling] = []

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'SPP needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        if x.shape[2:] != self._size:
            self._size = x.shape[2:]
            draws = self._pools[0].draws if self._pools else 0
            self._pools = [self._make_pool(level, x) for level in range(self.levels)]
            self._pooled = [Blob(name=pool.name, dtype=self.dtype) for pool in self._pools]
            self._part = Blob(dtype=self.dtype)
            for pool, pooled in zip(self._pools, self._pooled):
                pool.draws = draws
                pool.setup(bottom, [pooled])
        for pool, pooled in zip(self._pools, self._pooled):
            pool.reshape(bottom, [pooled])
        self._part.reshape_like(x)
        self._part.share_data(x)
        if self.levels == 1:
            top[0].reshape_like(self._pooled[0])
        else:
            top[0].reshape(x.num, sum(pooled.count_of(1) for pooled in self._pooled))
        self._sizes = [pooled.count_of(1) for pooled in self._pooled]

    def _make_pool(self, level: int, x: Blob) -> Pooling:
        param = pb.LayerParameter(name=f"{self.name}_level_{level}", type="Pooling", top=["pooled"])
        pooling: Any = param.pooling_param
        pooling.pool = int(self.param.spp_param.pool)
        bins = 2**level
        for axis, size in zip("hw", x.shape[2:]):
            kernel = -(-size // bins)
            pad = (kernel * bins - size + 1) // 2
            if pad >= kernel:
                raise self.shape_error(
                    f"pyramid_height {self.levels} cuts axes of {x.shape[2:]} pixels into {bins} parts, which is too many",
                    "spp_param",
                    "pyramid_height",
                )
            setattr(pooling, f"kernel_{axis}", kernel)
            setattr(pooling, f"stride_{axis}", kernel)
            setattr(pooling, f"pad_{axis}", pad)
        return Pooling(LayerDefinition(param), self.context)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        parts = cut(top[0].data.reshape(top[0].num, -1), 1, self._sizes)
        for pool, pooled, part in zip(self._pools, self._pooled, parts):
            pool.forward(bottom, [pooled])
            part[...] = pooled.data.reshape(part.shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dx = bottom[0].diff
        dx[...] = 0
        parts = cut(top[0].diff.reshape(top[0].num, -1), 1, self._sizes)
        for pool, pooled, part in zip(self._pools, self._pooled, parts):
            pooled.diff.reshape(part.shape)[...] = part
            pool.backward([pooled], [True], [self._part])
            dx += self._part.diff

    def reseed(self, seed: int, top: Blobs) -> None:
        super().reseed(seed, top)
        for pool, pooled in zip(self._pools, self._pooled):
            pool.reseed(seed, [pooled])

    def state(self) -> bytes:
        return self._pools[0].state()

    def set_state(self, state: bytes) -> None:
        for pool in self._pools:
            pool.set_state(state)

    # -- compaction: a channel is a block of windows in each level -----------------------------------------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return self.followed_channels(bottom)

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        channels = len(bottom_constant[0])
        parts = np.split(top[0], np.cumsum(self._sizes)[:-1]) if self.levels > 1 else [top[0]]
        return [np.logical_or.reduce([part.reshape(channels, -1).any(axis=1) for part in parts])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        windows = [size // len(bottom[0]) for size in self._sizes]
        return [np.concatenate([np.repeat(bottom[0], count) for count in windows])]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        parts = [
            graph.node("Flatten", [pool.pool_in_onnx(graph, inputs[0], bottom[0], pooled)], axis=1)
            for pool, pooled in zip(self._pools, self._pooled)
        ]
        if len(parts) == 1:
            return [graph.reshape(self, parts[0], top[0].shape[:2], top[0].shape)]
        return [graph.node("Concat", parts, axis=1)]
