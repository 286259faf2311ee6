"""Blob: a named pair of arrays of one shape, the values (data) and the derivative of the loss by them (diff)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sslnet.errors import UsageError
from sslnet.kernels.runtime.memory import MOST, aligned_zeros


class Blob:
    """Data and diff of one shape, C-contiguous, both allocated (as zeros) when first touched.

    ``reshape`` only notes the new shape, so that a net can say what it will take before it takes it; an array once
    allocated is kept and reused while the new shape fits into it. A blob may share another blob's data or diff
    (Split, Reshape, Flatten): it then shows the other's array in its own shape. In a net made with ``lean=True`` it may
    have no memory of its own: it shows what it is lent while the net runs, and cannot be read after that.

    name   str
    dtype  numpy.float32 or numpy.float64, of data and diff alike
    """

    __slots__ = ("_buffers", "_late", "_lent", "_shape", "_sharing", "_views", "dtype", "name")

    reshaped: ClassVar[object] = object()
    """Another object whenever any blob has taken another shape: so a net sees at once that none of its own has."""

    moved: ClassVar[object] = object()
    """Another object whenever any blob may show another array than before."""

    def __init__(self, shape: Sequence[int] = (), *, name: str = "", dtype: Any = np.float32) -> None:
        self.name = name
        self.dtype = np.dtype(dtype)
        self._shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self._buffers: dict[str, np.ndarray] = {}
        self._views: dict[str, np.ndarray] = {}
        self._sharing: dict[str, Blob] = {}
        self._lent: set[str] = set()
        self._late: tuple[Callable[[np.ndarray], object], np.ndarray | None] | None = None
        """What computes the data when they are first read, and the memory that was shown before."""

    # -- shape ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def num_axes(self) -> int:
        return len(self._shape)

    @property
    def count(self) -> int:
        """Number of values: the product of the shape, 1 for a scalar."""
        return _product(self._shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one of the two arrays."""
        return int(self.count * self.dtype.itemsize)

    def reshape(self, *shape: int | Sequence[int]) -> None:
        """Takes a new shape; values are undefined after it unless the number of values stays the same."""
        flat: Any = shape[0] if len(shape) == 1 and not isinstance(shape[0], int | np.integer) else shape
        new = tuple(int(n) for n in flat)
        if any(n < 0 for n in new):
            raise ValueError(f"negative size in shape {new} of blob {self.name!r}")
        if _product([n or 1 for n in new]) * self.dtype.itemsize > MOST:
            # NumPy refuses such a shape even where another size is 0, so that there is no number at all.
            raise ValueError(f'blob "{self.name}": no array can have the shape {" x ".join(map(str, new))}')
        if new != self._shape:
            self._shape = new
            self._late = None
            self._views.clear()
            Blob.reshaped = Blob.moved = object()

    def reshape_like(self, other: Blob) -> None:
        self.reshape(other.shape)

    def axis(self, index: int) -> int:
        """The axis counted from the front; negative ones count from the back. Raises IndexError out of range."""
        if not -self.num_axes <= index < self.num_axes:
            raise IndexError(f"axis {index} of a blob with {self.num_axes} axes, shape {self._shape}")
        return index % self.num_axes if self.num_axes else 0

    def count_of(self, start: int, end: int | None = None) -> int:
        """Product of the sizes of axes start..end (end excluded)."""
        return _product(self._shape[start:end])

    # Caffe's names of the axes of a 4-D blob; a missing axis counts as 1.
    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, index: int) -> int:
        return self._shape[index] if index < len(self._shape) else 1

    # -- arrays --------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        view = self._views.get("data")
        return self._array("data") if view is None else view

    @property
    def diff(self) -> np.ndarray:
        view = self._views.get("diff")
        return self._array("diff") if view is None else view

    @property
    def has_diff(self) -> bool:
        """Whether the diff has been allocated (or is shared with a blob whose diff has)."""
        source = self._sharing.get("diff")
        return source.has_diff if source is not None else "diff" in self._buffers or "diff" in self._views

    def share_data(self, other: Blob) -> None:
        """Shows the other's data from now on, in this blob's own shape (same number of values)."""
        self._share("data", other)

    def share_diff(self, other: Blob) -> None:
        self._share("diff", other)

    def adopt_data(self, array: np.ndarray) -> None:
        """Takes the array itself (no copy) as data; its shape must be this blob's. Data layers hand over batches so."""
        if array.shape != self._shape or array.dtype != self.dtype or not array.flags.c_contiguous:
            raise ValueError(f"blob {self.name!r} of shape {self._shape} cannot adopt {array.shape} {array.dtype}")
        self._sharing.pop("data", None)
        self._late = None
        self._views["data"] = array
        self._buffers["data"] = array.reshape(-1)
        Blob.moved = object()

    def owns(self, which: str) -> bool:
        """Whether its "data", or "diff", are its own: False where it shows another blob's."""
        return which not in self._sharing

    def owner(self, which: str) -> Blob:
        """The blob whose "data", or "diff", this one shows: mostly itself."""
        source = self._sharing.get(which)
        return self if source is None else source.owner(which)

    # -- memory of others: a net with a memory plan lends it for the time in which the values matter ----------------------

    def lend(self, which: str, array: np.ndarray) -> None:
        """Shows the array, which has its shape, instead of memory of its own, until ``withdraw``."""
        self._lent.add(which)
        if which == "data":
            self._late = None
        self._buffers.pop(which, None)
        self._views[which] = array

    def withdraw(self, which: str) -> None:
        """Ends the use of lent memory; the blob cannot be read until memory is lent again."""
        if which in self._lent:
            self._views.pop(which, None)
            if which == "data":
                self._late = None

    def keep(self, which: str) -> None:
        """Gives the blob memory of its own from now on."""
        self.withdraw(which)
        self._lent.discard(which)
        Blob.moved = object()

    def is_lent(self, which: str) -> bool:
        """Whether the blob shows memory that it is lent."""
        return which in self._lent

    def holds(self, which: str) -> bool:
        """Whether the "data" or "diff" can be read: False if lent memory has been withdrawn."""
        owner = self.owner(which)
        return which not in owner._lent or which in owner._views or (which == "data" and owner._late is not None)

    # -- values that are computed when they are read -------------------------------------------------------------------

    def defer(self, fill: Callable[[np.ndarray], object]) -> None:
        """Computes the data by ``fill``, which overwrites an array of the shape, when they are next read, if ever."""
        owner = self.owner("data")
        view = owner._views.pop("data", None)
        if view is None and owner._late is not None:
            view = owner._late[1]
        owner._late = fill, view

    def is_deferred(self, fill: Callable[[np.ndarray], object]) -> bool:
        """Whether the data have not been read since ``defer`` with this function."""
        late = self.owner("data")._late
        return late is not None and late[0] == fill

    def _share(self, which: str, other: Blob) -> None:
        if other is self or other.owner(which) is self:
            return
        self._sharing[which] = other
        if which == "data":
            self._late = None
        self._buffers.pop(which, None)
        self._views.pop(which, None)
        Blob.moved = object()

    def _array(self, which: str) -> np.ndarray:
        source = self._sharing.get(which)
        if source is not None:
            array = source._array(which)
            return array if array.shape == self._shape else array.reshape(self._shape)
        view = self._views.get(which)
        if view is None and which == "data" and self._late is not None:
            (fill, view), self._late = self._late, None
            if view is not None:
                self._views[which] = view
            view = self._array(which)
            fill(view)
        if view is None:
            if which in self._lent:
                raise UsageError(
                    f'the {which} of blob "{self.name}" are no longer available: the net was made with lean=True and has reused their memory',
                    hint=f'forward(blobs=["{self.name}"]) keeps its data, backward(diffs=["{self.name}"]) its diff; '
                    "lean=False keeps everything",
                )
            buffer = self._buffers.get(which)
            count = self.count
            if buffer is None or buffer.size < count:
                buffer = self._buffers[which] = aligned_zeros(count, self.dtype)
            view = self._views[which] = buffer[:count].reshape(self._shape)
            Blob.moved = object()
        return view

    def __repr__(self) -> str:
        return f"Blob({self.name!r}, {' x '.join(map(str, self._shape)) or 'scalar'}, {self.dtype})"


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
