"""Images and labels in arrays of NumPy: finds them in a file, recognises their axes, and reads them as records."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, suggestion
from sslnet.sources.base import DataSource, Records, size_text
from sslnet.sources.npy import Npz, RowArray, open_npy

MOST_CHANNELS = 4
"""Largest size of an axis that is taken for that of the channels."""
SAMPLE = 16
"""Number of images whose largest value is compared with max_value."""
CHUNK = 1 << 20
"""Number of labels that are read at once."""


class ArrayFileSource(DataSource):
    """The images and labels of an .npz, or of an .npy and an .npy of labels.

    path         path of the .npz or .npy
    images       name of the array of images in an .npz; "": recognised
    labels       name of the array of labels in an .npz; "": recognised
    label_path   path of the .npy of labels; None: none
    layout       pb.ArrayDataParameter.AUTO, NCHW or NHWC
    max_value    value that becomes 255; None: values stay as they are
    raises       DataError for a file that cannot be read, and where images or labels are not recognised

    uint8 (and bool) stay bytes, unless there is a max_value; other numbers become float32.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        images: str = "",
        labels: str = "",
        label_path: str | None = None,
        layout: int = pb.ArrayDataParameter.AUTO,
        max_value: float | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.image_name, self.label_name = images, labels
        found = self._find(label_path)
        self._images = found[0]
        self._factor = None if max_value is None else 255 / max_value
        shape = self._images.shape
        if not all(shape):
            raise DataError(f"there are no images in an array of {size_text(shape)}", path=self.path)
        self.layout = _layout(shape, layout, self.path)
        self.shape = {2: (shape[-1], 1, 1), 3: (1, *shape[1:])}.get(len(shape), shape[1:])  # type: ignore[assignment]
        if len(shape) == 4 and self.layout == pb.ArrayDataParameter.NHWC:
            self.shape = (shape[3], shape[1], shape[2])
        self._labels = None if found[1] is None else _labels(found[1], self._label_place(label_path))
        self.labelled = self._labels is not None
        if self._labels is not None and len(self._labels) != shape[0]:
            raise DataError(f"there are {shape[0]} images, but {len(self._labels)} labels", path=self.path)
        self._rows: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> None:
        """Makes these rows of the arrays, (n) int64, the records of the source."""
        self._rows = rows

    def __len__(self) -> int:
        return self._images.shape[0] if self._rows is None else len(self._rows)

    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        rows = indices if self._rows is None else self._rows[indices]
        images = self._images.rows(rows)
        if images.dtype == np.bool_:
            images = images.view(np.uint8)
        if images.dtype != np.uint8 or self._factor is not None:
            with np.errstate(over="ignore"):
                images = images.astype(np.float32)
        if self._factor is not None:
            images *= np.float32(self._factor)
        if images.ndim == 4 and self.layout == pb.ArrayDataParameter.NHWC:
            images = images.transpose(0, 3, 1, 2)
        images = images.reshape(len(rows), *self.shape)
        return Records(images, self._labels[rows] if labels and self._labels is not None else None)

    def peak(self) -> float:
        """The largest value of the first images, after max_value."""
        return float(np.max(self.read(np.arange(min(SAMPLE, len(self))), labels=False).images))

    @property
    def whole(self) -> bool:
        """Whether the numbers of the file are bytes."""
        return self._images.dtype == np.uint8

    def summary(self) -> str:
        """What was recognised, in one sentence."""
        images = f'"{self.image_name}", ' if self.image_name else ""
        axes = {2: "images x numbers", 3: "images x height x width"}.get(len(self._images.shape))
        layout = axes or ("NHWC" if self.layout == pb.ArrayDataParameter.NHWC else "NCHW")
        text = f"images {images}{size_text(self._images.shape)} {self._images.dtype.name}, read as {layout}"
        if self.label_name:
            text += f'; labels "{self.label_name}"'
        elif self._labels is not None:
            text += "; labels"
        if self._labels is not None:
            text += f" from {self._labels.min()} to {self._labels.max()}"
        return text

    def _find(self, label_path: str | None) -> tuple[RowArray, RowArray | None]:
        if not self.path.lower().endswith(".npz"):
            if not self.path.lower().endswith(".npy"):
                raise DataError("is neither .npz nor .npy by its name", path=self.path)
            for field, name in (("images", self.image_name), ("labels", self.label_name)):
                if name:
                    hint = "label_source names the .npy with the labels" if field == "labels" else ""
                    raise DataError(
                        f"{field} names an array of an .npz; an .npy has one array", path=self.path, hint=hint
                    )
            return open_npy(self.path), None if label_path is None else open_npy(label_path)
        arrays = Npz(self.path)
        if not self.image_name:
            self.image_name = _only(arrays, [n for n, s in arrays.shapes.items() if not _is_labels(s)], "images")
        if not self.label_name and label_path is None:
            count = self._shape(arrays, self.image_name)[:1]
            names = [name for name, shape in arrays.shapes.items() if _is_labels(shape) and shape[:1] == count]
            self.label_name = _only(arrays, names, "labels") if names else ""
        for name in filter(None, (self.image_name, self.label_name)):
            self._shape(arrays, name)
        if label_path is not None:
            return arrays[self.image_name], open_npy(label_path)
        return arrays[self.image_name], arrays[self.label_name] if self.label_name else None

    def _shape(self, arrays: Npz, name: str) -> tuple[int, ...]:
        if name not in arrays:
            raise DataError(
                f'there is no array "{name}"', path=self.path, hint=suggestion(name, list(arrays)) or _listed(arrays)
            )
        return arrays.shapes[name]

    def _label_place(self, label_path: str | None) -> str:
        return label_path if label_path is not None else f"{self.path}: {self.label_name}"


def _is_labels(shape: Sequence[int]) -> bool:
    """Whether an array of this shape has one number per image."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _listed(arrays: Npz) -> str:
    return "arrays in it: " + ", ".join(
        f"{name} ({size_text(shape)})" for name, shape in list(arrays.shapes.items())[:10]
    )


def _only(arrays: Npz, names: list[str], field: str) -> str:
    """The one name; raises DataError, which tells the field to give, if there are more or none."""
    if len(names) == 1:
        return names[0]
    what = f"there are {len(names)} arrays that may be the {field}" if names else f"there is no array of {field}"
    raise DataError(what, path=arrays.shown, hint=f'give {field}: "NAME"; {_listed(arrays)}')


def _layout(shape: tuple[int, ...], layout: int, path: str) -> int:
    """The layout of images of this shape: as given, or recognised by the axis of the channels."""
    text = size_text(shape)
    if not 2 <= len(shape) <= 4:
        raise DataError(f"the images are an array of {text}; two to four axes are read", path=path)
    if len(shape) < 4:
        if layout != pb.ArrayDataParameter.AUTO:
            raise DataError(f"layout is for arrays of four axes, not for {text}", path=path)
        return pb.ArrayDataParameter.NCHW
    if layout != pb.ArrayDataParameter.AUTO:
        return layout
    first, last = shape[1] <= MOST_CHANNELS, shape[3] <= MOST_CHANNELS
    if first == last:
        raise DataError(
            f"images of {text}: it is not clear which axis has the channels",
            path=path,
            hint="give layout: NCHW or NHWC",
        )
    return pb.ArrayDataParameter.NCHW if first else pb.ArrayDataParameter.NHWC


def _labels(array: RowArray, path: str) -> np.ndarray:
    """All labels: (n) int32."""
    shape = array.shape
    if not _is_labels(shape):
        hint = "write labels.argmax(axis=1)" if len(shape) == 2 else ""
        raise DataError(f"labels must be one whole number per image, not {size_text(shape)}", path=path, hint=hint)
    parts = [array.rows(np.arange(i, min(i + CHUNK, shape[0]))) for i in range(0, shape[0], CHUNK)]
    values = np.concatenate(parts).reshape(-1) if parts else np.empty(0, np.int32)
    with np.errstate(invalid="ignore"):
        result: np.ndarray = values.astype(np.int64).astype(np.int32)
    if not np.array_equal(result, values):
        bad = int(np.flatnonzero(result != values)[0])
        raise DataError(f"label {bad + 1} is {values[bad]}, not a whole number below 2^31", path=path)
    return result
