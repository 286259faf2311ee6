"""BaseConvolution: what Convolution and Deconvolution have in common: parameters, shapes of the bottoms, compaction.

Both have weights of a window for each pair of an input channel and an output of its group; several bottoms share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from sslnet.layers.affine import fold_shift
from sslnet.layers.axes import axis_of, read_groups, read_window, window_words
from sslnet.layers.base import Blobs, BoolVector, Layer


class BaseConvolution(Layer, ABC):
    """Base of the layers with a ConvolutionParameter and weights.

    One group: any output and any channel may be removed. Several groups must have equal sizes: as many channels and
    outputs are kept of each as of the group that needs most, and a group that needs none is removed as a whole (in a
    depthwise convolution: channel by channel). Several bottoms, or channels along another axis: all are kept.
    """

    KIND: ClassVar[str] = "convolution"
    HAS_WEIGHTS: ClassVar[bool] = True
    MIXES_CHANNELS: ClassVar[bool] = True
    CHANNELS: ClassVar[str] = (
        "filters and inputs are removed, constants are folded into the bias; with several groups, whole groups are removed, "
        "and as many of each as the group that needs most allows; along another axis, or with several bottoms, all are kept"
    )
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    EQUAL_BOTTOMS_TOPS: ClassVar[bool] = True
    SHRINKS: ClassVar[bool] = True
    ABSORBS: ClassVar[bool] = True

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{window_words(param.convolution_param)} · {param.convolution_param.num_output} filters"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.convolution_param
        self.axis = axis_of(self, bottom[0], param.axis, "convolution_param", "axis")
        self.num_spatial = bottom[0].num_axes - self.axis - 1
        self.window = read_window(self, param, "convolution_param", self.num_spatial)
        self.channels = bottom[0].shape[self.axis]
        self.num_output, self.group = read_groups(self, param, self.channels)

    def spatial_sizes(self, bottom: Blobs, verb: str) -> tuple[int, ...]:
        """The sizes of the bottoms' spatial axes; raises ShapeError for shapes that do not fit the weights, or without
        pixels.

        verb  what the layer does with pixels, for the message
        """
        first = bottom[0]
        for blob in bottom:
            if blob.shape != first.shape:
                raise self.shape_error(
                    f'bottoms that share weights must have one shape: "{first.name}" {first.shape}, '
                    f'"{blob.name}" {blob.shape}'
                )
        if first.num_axes != self.axis + 1 + self.num_spatial or first.shape[self.axis] != self.channels:
            raise self.shape_error(
                f'the weights take {self.channels} channels and {self.num_spatial} spatial axes, "{first.name}" has '
                f"shape {first.shape}"
            )
        sizes = first.shape[self.axis + 1 :]
        if 0 in sizes:
            raise self.shape_error(f'there are no pixels to {verb}: "{first.name}" has shape {first.shape}')
        return sizes

    def reshape_tops(self, bottom: Blobs, top: Blobs, out: tuple[int, ...]) -> None:
        """Shapes the tops, with these spatial sizes."""
        for blob in top:
            blob.reshape(*bottom[0].shape[: self.axis], self.num_output, *out)
        self.top_channels = top[0].shape[1] if top[0].num_axes > 1 else self.num_output

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.param_propagate_down[0]

    # -- compaction ----------------------------------------------------------------------------------------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """True for outputs whose weights on all channels that vary are zero."""
        if self._keeps_all:
            return []
        varies = ~bottom[0].reshape(self.group, 1, -1)
        return [~(self._uses() & varies).any(axis=2).reshape(-1)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        """True for channels that vary and have a nonzero weight to a kept output of their group."""
        if self._keeps_all:
            return []
        kept = top[0].reshape(self.group, -1, 1)
        return [(self._uses() & kept).any(axis=1).reshape(-1) & ~bottom_constant[0]]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones(self.top_channels, bool) for _ in self.param.top] if self._keeps_all else []

    def equalized_channels(
        self, bottom: list[BoolVector], top: list[BoolVector]
    ) -> tuple[list[BoolVector], list[BoolVector]]:
        """As many channels, and as many outputs, of each kept group as of the group with the most."""
        if self._keeps_all or self.group == 1:
            return bottom, top
        sides = [flags[0].reshape(self.group, -1) for flags in (bottom, top)]
        kept = sides[0].any(axis=1) | sides[1].any(axis=1)
        filled = [_filled(np.asarray(side), np.asarray(kept)).reshape(-1) for side in sides]
        return [filled[0]], [filled[1]]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self._keeps_all:
            return param, blobs
        outputs, sub = top_keep[0], param.convolution_param
        sub.ClearField("kept_column")
        if self.group > 1:
            sub.group = len(np.unique(outputs // (self.num_output // self.group)))
        sub.num_output = len(outputs)
        weights = self._kept_weights(bottom_keep[0], outputs)
        bias = fold_shift(param, sub, blobs[1][outputs] if len(blobs) > 1 else None, shift)
        return param, [weights] if bias is None else [weights, bias]

    @property
    def _keeps_all(self) -> bool:
        """Whether compaction keeps all channels and outputs."""
        return self.axis != 1 or len(self.param.bottom) > 1

    @abstractmethod
    def _kept_weights(self, channels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """A copy of the weights of these channels and outputs (sorted indices), equally many of each kept group."""

    @abstractmethod
    def _uses(self) -> np.ndarray:
        """(group, outputs of a group, channels of a group) bool: whether a weight between them is nonzero."""

    def _by_group(self, weights: np.ndarray, rows: np.ndarray, columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """The weights (rows, columns of a group, window ...) of sorted rows, each with the columns of its group.

        columns  sorted indices over all groups, equally many of each kept group
        groups   (rows) the group of each row
        """
        places = columns.reshape(len(np.unique(groups)), -1) % weights.shape[1]
        index = places[np.searchsorted(np.unique(groups), groups)]
        return np.stack([weights[row, chosen] for row, chosen in zip(rows, index)])


def _filled(flags: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(group, members) bool: in each kept group as many as in the group with the most, at least one; the first ones that
    are not chosen yet are added."""
    result = flags.copy()
    most = max(1, int(flags.sum(axis=1).max(initial=0)))
    for group in np.flatnonzero(kept):
        missing = most - int(flags[group].sum())
        result[group, np.flatnonzero(~flags[group])[:missing]] = True
    return result
