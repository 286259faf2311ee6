"""HDF5Output: writes its two bottoms to an HDF5 file, as the data sets "data" and "label", float32.

The first forward pass creates the file, each later one appends its rows. A bottom with fewer than four axes is written
with four, as in Caffe. ``sslnet.output_rule`` decides whether the file may be written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.errors import RunError
from sslnet.files import HDF5_ROOM, atomic_hdf5, reserve_hdf5
from sslnet.layers.base import Blobs, Layer
from sslnet.output_rule import note_made, output_rule

NAMES = ("data", "label")


@final
class HDF5Output(Layer):
    TYPE: ClassVar[str] = "HDF5Output"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    UNDIVIDED: ClassVar[str] = "several processes cannot write one file"
    TOPS: ClassVar[tuple[int, int | None]] = (0, 0)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._file_name: str = self.param.hdf5_output_param.file_name
        self._place: str | None = None
        """Path of the file that this layer has created; None before."""
        self._made: os.stat_result | None = None
        if not self._file_name:
            raise self.error("there is no file_name", "hdf5_output_param", "file_name")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].num != bottom[1].num:
            raise self.shape_error(
                f"both bottoms need equally many rows; they have {bottom[0].num} and {bottom[1].num}"
            )

    def check_outputs(self) -> None:
        rule = output_rule()
        problem = rule.problem(self._file_name) if rule.writes and self._place is None else None
        if problem is not None:
            raise self.error(
                f"the layer may not write this file: {problem}",
                "hdf5_output_param",
                "file_name",
                value=True,
                hint="name a new file below the working folder; or sslnet train and test take --output-root DIR (another "
                "folder) and --allow-overwrite (replace the file), in Python sslnet.set_output_rule(root, overwrite=True)",
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        rule = output_rule()
        if not rule.writes:
            return
        arrays = [blob.data.reshape(blob.shape + (1,) * (4 - blob.num_axes)).astype(np.float32) for blob in bottom]
        if self._place is not None:
            self._add(self._place, arrays)
            return
        self.check_outputs()
        place = os.path.realpath(self._file_name)
        try:
            with atomic_hdf5(place, new=not (rule.overwrite or os.path.lexists(self._file_name))) as file:
                for name, array in zip(NAMES, arrays):
                    file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))
        except RunError as error:
            raise self.run_error(error.message) from error
        note_made(place)
        self._place, self._made = place, os.lstat(place)

    def _add(self, place: str, arrays: list[np.ndarray]) -> None:
        """Appends rows to the file; disk space is reserved first, so that HDF5 does not run into a full disk."""
        import h5py

        try:
            if self._made is None or not os.path.samestat(self._made, os.lstat(place)):
                raise FileNotFoundError("another layer or program has replaced it")
            new = sum(array.nbytes + HDF5_ROOM for array in arrays)
            reserve_hdf5(place, os.path.getsize(place) + new)
            with h5py.File(place, "r+") as file:
                for name, array in zip(NAMES, arrays):
                    rows = len(file[name])
                    file[name].resize(rows + len(array), axis=0)
                    file[name][rows:] = array
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self.run_error(f"cannot write {self._file_name}: {reason}") from error

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for i, wanted in enumerate(propagate_down):
            if wanted:
                bottom[i].diff[...] = 0
