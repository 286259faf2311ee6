"""HDF5Output: writes its two bottoms to an HDF5 file, as the data sets "data" and "label", float32.

The first forward pass replaces the file, each later one adds its rows. A bottom with fewer than four axes is written with four,
as Caffe does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.errors import RunError
from sslnet.files import atomic_path
from sslnet.layers.base import Blobs, Layer

NAMES = ("data", "label")


@final
class HDF5Output(Layer):
    TYPE: ClassVar[str] = "HDF5Output"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    TOPS: ClassVar[tuple[int, int | None]] = (0, 0)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._file_name: str = self.param.hdf5_output_param.file_name
        self._begun = False
        if not self._file_name:
            raise self.error("there is no file_name", "hdf5_output_param", "file_name")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].num != bottom[1].num:
            raise self.shape_error(
                f"both bottoms need equally many rows; they have {bottom[0].num} and {bottom[1].num}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        import h5py

        arrays = [blob.data.reshape(blob.shape + (1,) * (4 - blob.num_axes)).astype(np.float32) for blob in bottom]
        try:
            if self._begun:
                with h5py.File(self._file_name, "r+") as file:
                    for name, array in zip(NAMES, arrays):
                        rows = len(file[name])
                        file[name].resize(rows + len(array), axis=0)
                        file[name][rows:] = array
            else:
                with atomic_path(self._file_name) as temporary, h5py.File(temporary, "w") as file:
                    for name, array in zip(NAMES, arrays):
                        file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))
                self._begun = True
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise self.run_error(f"cannot write {self._file_name}: {error}") from error
        except RunError as error:
            raise self.run_error(error.message) from error

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for i, wanted in enumerate(propagate_down):
            if wanted:
                bottom[i].diff[...] = 0
