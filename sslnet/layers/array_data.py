"""ArrayData: batches of transformed images and labels of arrays of NumPy, .npz or .npy.

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer
    top[1]  (batch_size)            labels, if it is given

Images are (n, H, W, C), (n, C, H, W), (n, H, W) or (n, numbers), whole or real numbers; a file may be larger than the
memory. `shuffle` draws a new order each epoch; `split { val_share: 0.1 }` reads a part, by the phase.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.arrays import ArrayFileSource
from sslnet.sources.order import Order
from sslnet.sources.record_reader import RecordReader
from sslnet.sources.split import chosen_rows, part_of


@final
class ArrayData(PrefetchedLayer):
    TYPE: ClassVar[str] = "ArrayData"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("array_data_param", "source")

    def make_reader(self, top: Blobs) -> RecordReader:
        param, batch_size = self.param.array_data_param, self.batch_size()
        source = self._open()
        labelled = len(top) > 1
        if labelled and not source.labelled:
            hint = f'give labels or label_source, or remove the top "{top[1].name}"'
            raise DataError("there are no labels", path=source.path, hint=hint)
        self._select(source)
        transformer = self.transformer(source.shape, param.channel_order)
        name = pb.TransformationParameter.ChannelOrder.Name(param.channel_order)
        order = f"; channels {name}" if source.shape[0] == 3 else ""
        self.notes.append(f"{param.source}: {source.summary()}{order}")
        self._check_range(source)
        return RecordReader(
            source,
            Order(len(source), shuffle=param.shuffle, seed=self.context.seed, layer=self.name),
            transformer,
            batch_size,
            labelled,
            (self.context.seed, self.name),
        )

    def _open(self) -> ArrayFileSource:
        param = self.param.array_data_param
        if param.HasField("max_value") and not 0 < param.max_value < math.inf:
            raise self.error(f"max_value must be above 0, not {param.max_value:g}", "array_data_param", "max_value")
        if param.labels and param.label_source:
            raise self.error("labels and label_source exclude each other", "array_data_param", "label_source")
        return ArrayFileSource(
            self.source_path(),
            images=param.images,
            labels=param.labels,
            label_path=self.find(param.label_source, "array_data_param", "label_source")
            if param.label_source
            else None,
            layout=param.layout,
            max_value=param.max_value if param.HasField("max_value") else None,
        )

    def _select(self, source: ArrayFileSource) -> None:
        """Restricts the source to the part that `split` names."""
        split = self.param.array_data_param.split
        for field in ("train", "val"):
            if split.HasField(field):
                hint = "val_share divides the images of one array"
                raise self.error(
                    f"{field} names a folder of ImageFolderData", "array_data_param", "split", field, hint=hint
                )
        if split.HasField("part") and not split.val_share:
            hint = "give val_share"
            raise self.error("part has no effect without val_share", "array_data_param", "split", "part", hint=hint)
        share, part = self.val_share(split, "array_data_param"), part_of(split, self.phase)
        if share and part != pb.DataSplitParameter.ALL:
            source.select(chosen_rows(len(source), share, split.seed, part))

    def _check_range(self, source: ArrayFileSource) -> None:
        """Compares the largest value of the first images with what max_value and transform_param say."""
        param, transform = self.param.array_data_param, self.param.transform_param
        peak = source.peak()
        if param.HasField("max_value") and peak > 255 * 1.001:
            found = peak * param.max_value / 255
            message = f"max_value is {param.max_value:g}, but there is a value of {found:g} in the first images"
            raise self.error(message, "array_data_param", "max_value")
        if source.whole or param.HasField("max_value") or not 0 < peak <= 1:
            return
        hint = "max_value: 1 in array_data_param makes them run from 0 to 255"
        if transform.preset:
            message = f"a preset is for pixels from 0 to 255, but those of {param.source} run up to {peak:g}"
            raise self.error(message, "transform_param", "preset", hint=hint)
        if np.max(np.abs([0.0, *transform.mean_value, *transform.std_value])) > 2:
            self.notes.append(
                f"the pixels of {param.source} run up to {peak:g}, mean_value or std_value are larger; {hint}"
            )
