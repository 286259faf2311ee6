"""Split: every top is the bottom. dx = the sum of the tops' diffs.

The net puts one behind every blob that several layers read. The tops share the bottom's data: forward does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.kernels.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise


@kernel
def _add(i0, i1, thread, a, b, out):
    a, b, out = a[i0:i1], b[i0:i1], out[i0:i1]
    for q in range(a.size):
        out[q] = a[q] + b[q]


@kernel
def _add_to(i0, i1, thread, a, out):
    a, out = a[i0:i1], out[i0:i1]
    for q in range(a.size):
        out[q] += a[q]


@final
class Split(ChannelWise):
    TYPE: ClassVar[str] = "Split"
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dx = bottom[0].diff.reshape(-1)
        diffs = [blob.diff.reshape(-1) for blob in top]
        if len(diffs) == 1:
            dx[:] = diffs[0]
            return
        spread(_add, dx.size, 1, diffs[0], diffs[1], dx)
        for diff in diffs[2:]:
            spread(_add_to, dx.size, 1, diff, dx)
