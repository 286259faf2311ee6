"""Weights in files: a .caffemodel is read and written as a binary NetParameter and as HDF5.

    copy_weights   copies parameters into a net, by layer name: all that match, or none
    save_weights   writes parameters of a net to a file
    read_weights   {layer: [array, ...]} from a file of any Caffe version; stored_weights: to copy into several nets
    save_arrays    writes such arrays
    with_blobs     a NetParameter with the parameters of its layers

HDF5 files have Caffe's layout, one dataset per blob: /data/<layer>/<index>, and /diff/<layer>/<index> if diffs are
requested.

A broken file raises a WeightsError, and the memory to read it is bounded: for a binary file by 50 times its size and
64 MiB, because small records take more space in memory than on disk; for HDF5 by 1100 times its size if it is compressed,
else by its size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import google.protobuf.message
import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import RunError, WeightsError
from sslnet.files import MOST_MESSAGE, atomic_hdf5, atomic_write, read_bytes
from sslnet.hdf5 import Guard, is_hdf5, open_guarded
from sslnet.layers.base import Layer
from sslnet.net.blob_arrays import blob_array, blob_proto, by
from sslnet.net.integer_weights import has_quantization, packed_blob
from sslnet.prototxt.fork_forms import SCALE_BIAS
from sslnet.prototxt.values import shorten
from sslnet.prototxt.wire_format import has_few_fields

if TYPE_CHECKING:
    import h5py

MOST_LAYERS = 100_000
"""Maximum number of records in a file: a few bytes can encode an empty layer, which takes 550 bytes of memory."""
DEEPEST_GROUP = 32
"""Maximum nesting of groups: a slash in the name of a layer makes one."""

Message = TypeVar("Message", bound=google.protobuf.message.Message)

Arrays = dict[str, list[np.ndarray]]
"""The parameter blobs of each layer that has any, by layer name, in the order of the file."""


@dataclass(frozen=True)
class StoredWeights:
    """Parameters that were read once, to copy into any number of nets.

    path   path of the file that they were read from, for errors; None if they are not from a file
    """

    arrays: Arrays
    path: str | None = None

    @classmethod
    def of(cls, params: Mapping[str, Sequence[Blob]]) -> StoredWeights:
        """A copy of the current parameters of a net.  params: ``Net.params``"""
        return cls({name: [blob.data.copy() for blob in blobs] for name, blobs in params.items()})


WeightSource: TypeAlias = str | os.PathLike[str] | pb.NetParameter | StoredWeights
"""A source of parameters: a .caffemodel (binary or HDF5), a message with blobs, or weights already read."""


@dataclass(frozen=True)
class Copied:
    """The result of a copy of weights, by layer name."""

    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Layers of the file that the net lacks."""
    missing: list[str] = field(default_factory=list)
    """Layers of the net with parameters that are not in the file; their parameters are unchanged."""


# -- into a net ------------------------------------------------------------------------------------------------------


def _fitted(arrays: Arrays, params: Mapping[str, Sequence[Blob]]) -> Arrays:
    """The arrays, with scale and bias in a BatchNorm of NVCaffe's as those of the Scale layer that the net has for them."""
    result: Arrays = {}
    for name, values in arrays.items():
        scale = name + SCALE_BIAS
        if len(values) in (2, 4) and len(params.get(name, ())) == 3 and scale in params and scale not in arrays:
            # BN: scale, shift (SegNet); slope, bias, mean, variance (PSPNet)
            if len(values) == 4:
                result[name] = [*values[2:], np.ones(1, np.float32)]
            result[scale] = values[:2]
        elif len(values) == 5 and len(params.get(name, ())) == 3 and scale in params and scale not in arrays:
            # NVCaffe: mean, variance, factor, scale, bias; before its version 0.16: scale, bias, mean, variance, factor
            old = values[2].size > 1 and values[4].size == 1
            result[name] = values[2:] if old else values[:3]
            result[scale] = values[:2] if old else values[3:]
        else:
            result[name] = values
    return result


def copy_weights(params: Mapping[str, Sequence[Blob]], source: WeightSource) -> Copied:
    """Copies parameters by layer name, as Caffe does; nothing in the net changes unless everything fits.

    params   the parameter blobs of each layer, by its name (``Net.params``)
    raises   WeightsError for a file that cannot be read, or whose blobs do not fit those of the same layer
    """
    stored = stored_weights(source)
    arrays, path = _fitted(stored.arrays, params), stored.path
    shared = {name: [not blob.owns("data") for blob in blobs] for name, blobs in params.items()}
    for name in arrays:
        if name in params:
            wanted, given = ([array.shape for array in each] for each in (params[name], arrays[name]))
            _check_fit(name, wanted, given, shared[name], path)
    for name, values in arrays.items():
        for blob, value in zip(params.get(name, ()), values):
            blob.data[...] = value.reshape(blob.shape)
    return Copied(
        copied=[name for name in arrays if name in params],
        ignored=[name for name in arrays if name not in params],
        missing=[name for name in params if name not in arrays],
    )


def copy_all_weights(params: Mapping[str, Sequence[Blob]], source: WeightSource) -> None:
    """Copies weights as ``copy_weights`` does, for nets of which all layers need them. raises WeightsError if a layer
    with parameters has none in the source"""
    stored = stored_weights(source)
    missing = copy_weights(params, stored).missing
    if missing:
        layers = f"{len(missing)} layers" if len(missing) > 1 else "a layer"
        raise WeightsError(
            f"no weights for {layers} of the net: {', '.join(missing[:5])}",
            path=stored.path,
            hint="the weights belong to another net, or layers have been renamed",
        )


def shape_problems(
    stored: Mapping[str, Sequence[tuple[int, ...]]], net: Mapping[str, Sequence[tuple[int, ...]]], path: str | None
) -> list[WeightsError]:
    """What keeps weights from fitting a net, for the layers that both have.

    stored, net  layer -> shapes of its blobs
    """
    problems = []
    for name, shapes in stored.items():
        wanted = net.get(name)
        if wanted is None or (len(shapes) in (2, 4, 5) and len(wanted) == 3 and name + SCALE_BIAS in net):
            continue
        try:
            _check_fit(name, wanted, shapes, [True] * len(wanted), path)
        except WeightsError as error:
            problems.append(error)
    return problems


def _check_fit(
    name: str,
    wanted: Sequence[tuple[int, ...]],
    given: Sequence[tuple[int, ...]],
    shared: list[bool],
    path: str | None,
) -> None:
    """Raises WeightsError unless the shapes of a layer's blobs in a file are those of the net."""
    hint = f'rename the layer "{name}" in the net to ignore its weights'
    if (len(wanted), len(given)) == (3, 5):
        hint = "scale and bias in a BatchNorm: batch_norm_param { scale_bias: true } in the net reads them"
    if len(given) > len(wanted) or not all(shared[len(given) :]):
        message = f"the file has {len(given)} parameter blobs for the layer, the net has {len(wanted)}"
        raise WeightsError(message, path=path, layer=name, hint=hint)
    for index, (own, value) in enumerate(zip(wanted, given)):
        if not _same_shape(value, own):
            message = f"blob {index} has shape {by(value)} in the file and {by(own)} in the net"
            raise WeightsError(message, path=path, layer=name, hint=hint)


def _same_shape(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether two shapes are equal, also in the form of old files with four sizes, in which leading ones do not count:
    1 x 1 x 500 x 800 is 500 x 800; a vector may lie along any axis, as 1 x 64 x 1 x 1."""
    if tuple(given) == tuple(wanted):
        return True
    if len(given) > 4 or len(wanted) > 4:
        return False
    if math.prod(given) == max(given, default=1) == math.prod(wanted) == max(wanted, default=1):
        return True  # a vector along any axis
    return (1,) * (4 - len(given)) + tuple(given) == (1,) * (4 - len(wanted)) + tuple(wanted)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_weights(source: WeightSource) -> Arrays:
    """Reads the parameters of a .caffemodel (binary or HDF5) or a pb.NetParameter, including the layers of 2013 and 2014.

    raises WeightsError, also if there are no parameters
    """
    return stored_weights(source).arrays


def stored_weights(source: WeightSource) -> StoredWeights:
    """Reads weights as ``read_weights`` does, with the path for errors; weights already read are returned unchanged."""
    if isinstance(source, StoredWeights):
        stored = source
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        stored = StoredWeights(_from_hdf5(path) if is_hdf5(path) else _from_binary(path), path)
    else:
        stored = StoredWeights(_from_message(source, None))
    if not stored.arrays:
        raise WeightsError("there are no weights in it", path=stored.path)
    return stored


def read_message(path: str | os.PathLike[str], message: Message) -> Message:
    """Parses a binary file into the given message. raises WeightsError for a file that is missing, cut off or of
    another kind"""
    path = os.fspath(path)
    data = read_bytes(path, limit=MOST_MESSAGE, error=WeightsError)
    kind = message.DESCRIPTOR.name.replace("StoredNet", "NetParameter")
    if not data:
        raise WeightsError("the file is empty", path=path)
    hint = "the file is cut off, or of another kind"
    if not has_few_fields(data, MOST_LAYERS):
        raise WeightsError(f"more than {MOST_LAYERS} records: not a {kind}", path=path, hint=hint)
    try:
        message.ParseFromString(data)
    except google.protobuf.message.DecodeError as error:
        raise WeightsError(f"{len(data)} bytes that are not a whole {kind}", path=path, hint=hint) from error
    return message


def _from_binary(path: str) -> Arrays:
    return _from_message(read_message(path, pb.StoredNet()), path)


def _from_message(message: pb.NetParameter | pb.StoredNet, path: str | None) -> Arrays:
    arrays: Arrays = {}
    for name, blobs in _layers_with_blobs(message):
        arrays[name] = [blob_array(blob, path=path, layer=name, index=index) for index, blob in enumerate(blobs)]
    return arrays


def _layers_with_blobs(message: pb.NetParameter | pb.StoredNet) -> Iterator[tuple[str, Sequence[pb.BlobProto]]]:
    """(name, blobs) of every layer with blobs, in the current form and in those of 2014 and 2013."""
    for layer in message.layer:
        if len(layer.blobs):
            yield _text(layer.name), layer.blobs
    for older in message.layers:
        oldest = older.HasField("layer")
        blobs = older.layer.blobs if oldest and len(older.layer.blobs) else older.blobs
        if len(blobs):
            yield _text(older.layer.name if oldest else older.name), blobs


def _text(name: str | bytes) -> str:
    """A name as text; HDF5 returns names that are not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _from_hdf5(path: str) -> Arrays:
    with open_guarded(path, "HDF5") as guard:
        data = guard.group("data")
        if data is None:
            raise WeightsError("the HDF5 file has no group /data", path=path)
        return _read_group(guard, data, {})


def _read_group(guard: Guard, group: h5py.Group, arrays: Arrays, name: str = "", depth: int = 0) -> Arrays:
    """Reads the layers below a group, in the order in which they were created or by name; a slash in a name creates a
    subgroup."""
    import h5py

    if depth > DEEPEST_GROUP:
        guard.fail("groups and datasets that are in one another", name)
    items = {_hdf5_name(guard, key): guard.item(group, key, name) for key in group}
    blobs = {key: item for key, item in items.items() if isinstance(item, h5py.Dataset)}
    if blobs:
        if set(blobs) != set(map(str, range(len(blobs)))):
            guard.fail(f"blobs {sorted(blobs)} are not numbered from 0", name)
        arrays[name] = [guard.numbers(blobs[str(index)], name) for index in range(len(blobs))]
    for key, item in items.items():
        if isinstance(item, h5py.Group):
            _read_group(guard, item, arrays, f"{name}/{key}" if name else key, depth + 1)
    return arrays


def _hdf5_name(guard: Guard, key: str | bytes) -> str:
    """The name of a group or dataset. raises WeightsError if it is not UTF-8"""
    try:
        return (key.encode("utf-8") if isinstance(key, str) else key).decode("utf-8")
    except UnicodeError:
        guard.fail(f"the name {shorten(repr(key), 100)} is not UTF-8 text")


# -- writing -----------------------------------------------------------------------------------------------------------


def save_weights(
    message: pb.NetParameter,
    layers: Sequence[Layer],
    path: str | os.PathLike[str],
    *,
    write_diff: bool = False,
    hdf5: bool | None = None,
    follow: bool = True,
) -> None:
    """Writes a .caffemodel; the file is complete or not written at all.

    message the net as a pb.NetParameter without parameters, one layer for each of ``layers``
    hdf5    whether to write HDF5; None: if the name ends in .h5
    follow  whether to replace the file that a symbolic link at the path points to, instead of the link
    """
    if hdf5 if hdf5 is not None else os.fspath(path).endswith(".h5"):
        with atomic_hdf5(path, follow=follow) as file:
            _write_hdf5(layers, file, write_diff)
    else:
        atomic_write(path, to_bytes(with_blobs(message, layers, write_diff), path), follow=follow)


def save_arrays(arrays: Arrays, path: str | os.PathLike[str], *, hdf5: bool) -> None:
    """Writes parameters without a net: name and blobs of each layer. The file is complete or not written at all."""
    if hdf5:
        with atomic_hdf5(path) as file:
            for name, values in arrays.items():
                _write_blobs(_layer_group(file.require_group("data"), name), values)
        return
    atomic_write(path, to_bytes(arrays_to_proto(arrays), path))


def arrays_to_proto(arrays: Arrays) -> pb.NetParameter:
    """Converts parameters to a message: name and blobs of each layer."""
    message = pb.NetParameter()
    for name, values in arrays.items():
        message.layer.add(name=name).blobs.extend(blob_proto(value) for value in values)
    return message


def to_bytes(message: google.protobuf.message.Message, path: str | os.PathLike[str]) -> bytes:
    """Serialises a message for a file. raises RunError if it is larger than protobuf can read. path: for errors"""
    size = message.ByteSize()
    if size > MOST_MESSAGE:
        raise RunError(
            f"{size / 2**30:.2f} GiB are more than a binary file can hold",
            path=os.fspath(path),
            hint="HDF5 has no such limit: snapshot_format: HDF5, or a name that ends in .h5",
        )
    return bytes(message.SerializeToString())


def with_blobs(message: pb.NetParameter, layers: Sequence[Layer], write_diff: bool = False) -> pb.NetParameter:
    """A copy of the message, in which each layer has the parameter blobs of the corresponding layer in ``layers``."""
    for param, layer in zip(message.layer, layers):
        del param.blobs[:]
        for blob in layer.blobs:
            param.blobs.append(_stored(layer, blob, write_diff))
    return message


def _stored(layer: Layer, blob: Blob, write_diff: bool) -> pb.BlobProto:
    """A parameter blob as it is stored: packed numbers for the weights of a quantised layer, if they are on a grid."""
    first = blob is layer.blobs[0] and blob.dtype == np.float32 and not write_diff
    if first and layer.HAS_WEIGHTS and has_quantization(layer.param):
        bits = layer.param.quantization_param.weight_bits
        packed = packed_blob(blob.data, bits) if 2 <= bits <= 8 else None
        if packed is not None:
            return packed
    return blob_proto(blob.data, blob.diff if write_diff else None)


def _write_hdf5(layers: Sequence[Layer], file: h5py.File, write_diff: bool) -> None:
    for kind in ("data", "diff") if write_diff else ("data",):
        group = file.create_group(kind)
        for layer in layers:
            _write_blobs(_layer_group(group, layer.name), (getattr(blob, kind) for blob in layer.blobs))


def _layer_group(parent: h5py.Group, name: str) -> h5py.Group:
    """The HDF5 group of a layer's blobs; a "/" in the layer's name creates nested groups, as in Caffe.

    raises WeightsError if HDF5 has no such name (a part of it empty, "." or with a NUL) or it is the name of another layer's
    blob
    """
    if "\0" in name or any(part in ("", ".") for part in name.split("/")):
        raise WeightsError("HDF5 cannot hold a layer of this name", layer=name, hint="the binary format takes any name")
    try:
        return parent.require_group(name)
    except (TypeError, ValueError) as error:  # a layer "conv/0" and a layer "conv", whose first blob has that name
        raise WeightsError("HDF5 already holds a blob of this name", layer=name) from error


def _write_blobs(group: h5py.Group, arrays: Iterable[np.ndarray]) -> None:
    for index, array in enumerate(arrays):
        group.create_dataset(str(index), data=array)
