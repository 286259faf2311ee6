"""Addresses of the data of blobs, for kernels that take addresses."""

from __future__ import annotations

from weakref import ref

from sslnet.blob import Blob
from sslnet.kernels.conv.packing import address


class Addresses:
    """The addresses of the data of two blobs; determined again only when one of the blobs has another array.

    Holds no reference to the arrays, so that shared memory can be freed.
    """

    def __init__(self, source: Blob, target: Blob) -> None:
        self.blobs = source, target
        self._arrays = ref(source.data), ref(target.data)
        self._found = address(source.data), address(target.data)

    def find(self) -> tuple[int, int]:
        source, target = self.blobs[0].data, self.blobs[1].data
        if self._arrays[0]() is not source or self._arrays[1]() is not target:
            self._arrays = ref(source), ref(target)
            self._found = address(source), address(target)
        return self._found
