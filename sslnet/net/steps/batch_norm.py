"""Runs a chain of BatchNorm, Scale and ReLU as one step: BatchNorm (+ Scale) (+ ReLU), or Scale + ReLU.

Forward: one pass computes the moments, a second pass y = max(0, gamma (x - mean) / sqrt(variance + eps) + beta), channel
by channel. Backward: one pass computes the sums, a second pass the gradient. Only x is saved for it: the mask of the ReLU
is computed again from x. An in-place chain would overwrite x; the preceding step then writes x to the array in which the
BatchNorm saves its normalised values.

With saved statistics (TEST) the chain is an affine map, one factor and one shift per channel. A preceding convolution
folds both into its weights and bias when it packs them, so that changes of weights and statistics take effect; the blobs
do not change.

Before the layers of a chain run one by one (a part of the net), ``stand_alone`` provides what their own code would have
saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.pointwise.batch_norm import Normalization
from sslnet.layers.base import Layer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.relu import ReLU
from sslnet.layers.scale import Scale
from sslnet.net.steps.base import JoinedStep, Step
from sslnet.net.steps.convolution import ConvolutionStep
from sslnet.net.steps.eltwise import EltwiseStep

FEWEST = 8
"""Minimum number of values of a channel and image for which vectors along them are faster."""


def join(steps: list[Step], need_backward: Sequence[bool]) -> None:
    """Replaces every chain by one step.  [changes steps]

    need_backward   for each step, whether it runs backward
    """
    for i in range(len(steps)):
        count = _length(steps, i)
        if not count:
            continue
        members = steps[i : i + count]
        needs = [need_backward[i + k] for k in range(count)]
        lowest = needs.index(True) if any(needs) else count
        if not all(needs[lowest:]) or not all(step.propagate_down[0] for step in members[lowest + 1 :]):
            continue  # a gradient that ends within the chain
        chain = _Chain(members, lowest)
        if not (chain.divert(steps[:i]) if chain.in_place else chain.pays):
            continue
        steps[i] = NormalizationStep(chain, members[0])
        steps[i + 1 : i + count] = [_Member(chain, k, step) for k, step in enumerate(members[1:], 1)]


def _length(steps: list[Step], i: int) -> int:
    """Number of steps of the chain that begins with step i; 0 if none begins there."""
    count, first = 0, steps[i]
    for kinds in ((BatchNorm,), (Scale,), (ReLU,)):
        step = steps[i + count] if i + count < len(steps) else None
        if step is None or type(step) is not Step or not isinstance(step.layer, kinds) or not _plain(step.layer):
            continue
        top = first.top[0]
        if count and not (step.bottom[0] is top and step.top[0] is top):
            break
        count += 1
    if not count or first.bottom[0].num_axes < 2:
        return 0
    return count if isinstance(first.layer, BatchNorm) or (count > 1 and isinstance(first.layer, Scale)) else 0


def _plain(layer: Layer) -> bool:
    """Whether a chain can include the layer: one number per channel, no slope."""
    if isinstance(layer, Scale) and (len(layer.param.bottom) > 1 or layer.axis != 1 or layer.blobs[0].num_axes != 1):
        return False
    return not isinstance(layer, ReLU) or layer.slope == 0


class _Chain:
    """State that the steps of one chain share.

    members   the layers' own steps
    lowest    index of the lowest member that runs backward; it does so for all members
    """

    def __init__(self, members: list[Step], lowest: int) -> None:
        self.lowest = lowest
        first = members[0]
        self.source, self.target = first.bottom[0], first.top[0]
        self.in_place = self.source is self.target
        layers = [step.layer for step in members]
        self.norm = next((layer for layer in layers if isinstance(layer, BatchNorm)), None)
        self.scale = next((layer for layer in layers if isinstance(layer, Scale)), None)
        self.relu = isinstance(layers[-1], ReLU)
        self.keeps = first.layer.context.backward
        self.wanted = lowest == 0 and first.propagate_down[0]
        images, channels = self.source.shape[:2]
        self.pays = self.source.count_of(2) >= FEWEST
        self.kernels = Normalization((images, channels, self.source.count_of(2)))
        self.table = np.zeros((channels, 4))
        self.table[:, 2] = 1
        self.sums = np.zeros((channels, 2))
        self.below: Step | None = None
        """The convolution into which the chain is folded."""
        self.ran = False
        """Whether the last forward pass ran as a chain, so that the members' own code has no saved values of it."""

    def divert(self, before: list[Step]) -> bool:
        """Makes the step that writes x, which the chain changes in place, write x to the array where it is saved, or
        run the chain itself; False if it can do neither."""
        maker = next((step for step in reversed(before) if any(top is self.target for top in step.top)), None)
        if maker is None or not _can_be_diverted(maker, self.target):
            return self.pays and not self.keeps
        if self.norm is not None and self.norm.use_global_stats and isinstance(maker, ConvolutionStep):
            self.below = maker
            maker.join_affine(self.affine)
            if self.relu:
                maker.join_relu()
        elif not self.pays:
            return False
        if self.keeps:
            self.source = self._kept()
            if self.below is None:
                maker.top = [self.source]
        return True

    def _kept(self) -> Blob:
        """A blob for x separate from the blob that the chain overwrites; both have one diff."""
        kept = Blob(self.target.shape, name=self.target.name)
        if self.norm is not None:
            kept.adopt_data(self.norm.normalized().reshape(kept.shape))
        kept.share_diff(self.target)
        return kept

    def forward(self) -> None:
        self.ran = True
        if self.below is not None:
            return
        arrays = (self.source.data, self.target.data, self.table, *self._factors())
        if self.norm is None or self.norm.use_global_stats:
            self._read_statistics()
            self.kernels.apply(*arrays, self.relu)
        else:
            self.kernels.normalize(*arrays, self.norm.param.batch_norm_param.eps, self.relu)
            self.norm.take_moments(self.table[:, 0], self.table[:, 1])

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and shift of x with saved statistics: (channels) each."""
        self._read_statistics()
        gamma, beta = self._factors()
        factor = self.table[:, 2] * gamma
        return factor.astype(np.float32), (beta - factor * self.table[:, 0]).astype(np.float32)

    def backward(self) -> None:
        if self.below is not None:
            self._recover()
        gamma, beta = self._factors()
        dx = self.source.diff if self.wanted else None
        fixed = self.norm is None or self.norm.use_global_stats
        # The output of the first layer, on which the following members work in place.
        through = gamma if self.norm is not None else np.ones_like(gamma)
        arrays = (self.source.data, self.target.diff, dx, self.table, gamma, beta, through)
        self.kernels.gradient(*arrays, self.relu, fixed, self.sums)
        if self.scale is not None:
            for blob, wanted, gradient in zip(self.scale.blobs, self.scale.param_propagate_down, self.sums.T):
                if wanted:
                    diff = blob.diff
                    diff += gradient

    def stand_alone(self) -> None:
        """Provides what the members' own code would have saved in the last forward pass of the chain."""
        if not self.ran:
            return
        self.ran = False
        if not self.in_place:
            normalized = self._normalized(np.empty(self.source.shape, np.float32)) if self.norm else None
        else:
            if self.below is not None:
                self._recover()
            normalized = self._normalized(self.norm.normalized()) if self.norm is not None else self.source.data
        if self.scale is not None and normalized is not None:
            self.scale.put_input(normalized)

    def _normalized(self, out: np.ndarray) -> np.ndarray:
        """The normalised x, written to ``out``, which may be the array of x.  [overwrites out]"""
        channels = len(self.table)
        self.kernels.apply(
            self.source.data, out, self.table, np.ones(channels, np.float32), np.zeros(channels, np.float32), False
        )
        return out

    def _recover(self) -> None:
        """Recomputes x, which the preceding convolution has not written because the chain is folded into it."""
        assert self.below is not None
        self.below.layer.forward(self.below.bottom, [self.source])

    def _read_statistics(self) -> None:
        if self.norm is not None:
            self.norm.read_moments()
            self.table[:, 0], self.table[:, 2] = self.norm.mean, self.norm.inverse

    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """gamma and beta; 1 and 0 if they are not learned."""
        blobs = self.scale.blobs if self.scale is not None else []
        channels = len(self.table)
        gamma = blobs[0].data if blobs else np.ones(channels, np.float32)
        return gamma, blobs[1].data if len(blobs) > 1 else np.zeros(channels, np.float32)


def _can_be_diverted(maker: Step, blob: Blob) -> bool:
    """Whether the step can write its single top to another blob: no other layer uses the blob, and the step does not
    read it."""
    layer = maker.layer
    return (
        type(maker) in (Step, ConvolutionStep, EltwiseStep)
        and len(maker.top) == 1
        and all(bottom is not blob for bottom in maker.bottom)
        and not (layer.IS_SOURCE or layer.DYNAMIC or layer.reads_top(in_place=False))
        and blob.owns("data")
    )


class NormalizationStep(Step):
    """Step of the first layer of a chain; it runs all layers of the chain."""

    def __init__(self, chain: _Chain, step: Step) -> None:
        super().__init__(step.layer, step.bottom, step.top, step.propagate_down)
        self.chain = chain

    def forward(self) -> None:
        self.chain.forward()

    def prepare(self) -> None:
        if self.chain.below is not None:
            self.chain.forward()

    def regions(self) -> None:
        if self.chain.below is None:
            self.chain.forward()

    def fits_tape(self) -> bool:
        return self.chain.below is not None

    def backward(self) -> None:
        _backward(self, self.chain, 0)

    def backward_reads(self) -> list[Blob]:
        return [] if self.chain.in_place else [self.bottom[0]]

    def stand_alone(self) -> None:
        self.chain.stand_alone()

    @property
    def kernel(self) -> str:
        if self.chain.below is not None:
            return "joined"
        parts = (self.chain.norm and "norm", self.chain.scale and "scale", self.chain.relu and "relu")
        return "+".join(part for part in parts if part)


class _Member(JoinedStep):
    """Step of the second or third layer of a chain."""

    def __init__(self, chain: _Chain, index: int, step: Step) -> None:
        super().__init__(step.layer, step.bottom, step.top, step.propagate_down)
        self.chain, self.index = chain, index

    def backward(self) -> None:
        _backward(self, self.chain, self.index)

    def backward_reads(self) -> list[Blob]:
        return [] if self.chain.in_place else [self.chain.source]


def _backward(step: Step, chain: _Chain, index: int) -> None:
    if not chain.ran:
        step.layer.backward(step.top, step.propagate_down, step.bottom)
    elif index == chain.lowest:
        chain.backward()
