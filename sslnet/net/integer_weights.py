"""Weights as whole numbers times a step for each filter, and their form in files.

A net holds the weights of a quantised layer as float32 values ``number * step``, so that everything that reads weights
sees their values. The numbers and steps are found again from the values: ``find_integers`` is exact for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError

SAMPLE = 64
"""Weights of a filter that a step is tried on before all are."""
CLOSE = 1e-4
"""The largest distance of a weight from a multiple of the step, in steps: rounding to float32 makes 1e-5 at most."""
PIECE = 1 << 20
"""Numbers that are unpacked at a time; a multiple of eight, so that pieces begin with a byte."""


@dataclass(frozen=True)
class IntegerWeights:
    """The rows of a weight matrix as whole numbers.

    numbers   (rows, columns) int8
    steps     (rows,) float32: weight = number * step
    """

    numbers: np.ndarray
    steps: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """(rows, columns) float32."""
        values: np.ndarray = self.numbers.astype(np.float32) * self.steps[:, None]
        return values


def has_quantization(param: pb.LayerParameter) -> bool:
    """Whether a layer's definition says how it computes with whole numbers. A quantization_param without any of sslnet's
    fields is that of another Caffe."""
    return param.HasField("quantization_param") and bool(param.quantization_param.ListFields())


def largest(bits: int) -> int:
    """The largest number of this many bits; numbers are symmetric: -largest to largest."""
    return int(2 ** (bits - 1) - 1)


def find_integers(rows: np.ndarray, bits: int) -> IntegerWeights:
    """The numbers of weights (rows, columns): those of each row that is on a grid of ``bits`` bits; the nearest numbers,
    with the largest weight as the largest number, of any other row."""
    rows = np.ascontiguousarray(rows, np.float32)
    top, most = largest(bits), np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    steps = np.where(most > 0, most / top, 1.0).astype(np.float32)
    numbers = np.zeros(rows.shape, np.int8)
    left, near = np.flatnonzero(most > 0), np.zeros(len(rows), bool)
    for number in range(top, 0, -1):
        if not len(left):
            break
        tried = most[left] / number
        fits = _on_grid(rows[left], tried)
        where = left[fits]
        own, exact = _exact(rows[where], tried[fits])
        new = exact | ~near[where]
        steps[where[new]] = own[new]
        near[where] = True
        left = np.setdiff1d(left, where[exact])
    numbers = np.clip(np.rint(rows / steps[:, None].astype(np.float64)), -top, top).astype(np.int8)
    return IntegerWeights(numbers, steps)


def _exact(rows: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps as float32, rounded so that they give the values of the rows, and whether they do."""
    numbers = np.rint(rows / steps[:, None]).astype(np.float32)
    chosen, done = steps.astype(np.float32), np.zeros(len(rows), bool)
    for towards in (None, np.float32(0), np.float32(np.inf)):
        tried = steps.astype(np.float32) if towards is None else np.nextafter(steps.astype(np.float32), towards)
        good = ~done & (numbers * tried[:, None] == rows).all(axis=1)
        chosen[good], done = tried[good], done | good
    return chosen, done


def _on_grid(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(rows) bool: whether all weights are multiples of the row's step."""
    found = np.zeros(len(rows), bool)
    maybe = np.flatnonzero(_all_multiples(rows[:, :SAMPLE], steps))
    found[maybe] = _all_multiples(rows[maybe], steps[maybe])
    return found


def _all_multiples(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    numbers = rows / steps[:, None]
    near: np.ndarray = (np.abs(numbers - np.rint(numbers)) <= CLOSE).all(axis=1)
    return near


# -- files -------------------------------------------------------------------------------------------------------------


def packed_blob(weights: np.ndarray, bits: int) -> pb.BlobProto | None:
    """The blob of weights that are on a grid, their numbers packed; None if they are on none.

    weights   (filters, ...) float32;  bits: 2 to 8
    """
    rows = weights.reshape(len(weights), -1)
    found = find_integers(rows, bits)
    if not np.array_equal(found.values, rows):
        return None
    blob = pb.BlobProto()
    blob.shape.dim.extend(weights.shape)
    blob.packed.bits = bits
    blob.packed.step.extend(found.steps.tolist())
    blob.packed.numbers = pack_numbers(found.numbers.reshape(-1), bits)
    return blob


def pack_quantized(weights: pb.NetParameter, definition: pb.NetParameter) -> pb.NetParameter:
    """The weights file of a definition with the weights of quantised layers as packed numbers, where they are on a grid."""
    bits = {
        layer.name: layer.quantization_param.weight_bits
        for layer in definition.layer
        if has_quantization(layer) and layer.type in ("Convolution", "InnerProduct")
    }
    if not bits:
        return weights
    result = pb.NetParameter()
    result.CopyFrom(weights)
    for layer in result.layer:
        width = bits.get(layer.name, 0)
        blob = layer.blobs[0] if len(layer.blobs) else None
        if blob is not None and 2 <= width <= 8 and len(blob.data):
            shape = tuple(blob.shape.dim)
            packed = packed_blob(np.array(blob.data, np.float32).reshape(shape), width) if shape else None
            if packed is not None:
                blob.CopyFrom(packed)
    return result


def pack_numbers(numbers: np.ndarray, bits: int) -> bytes:
    """Numbers (count,) int8 as bits without gaps, lowest bit first."""
    if bits == 8:
        return numbers.tobytes()
    each = np.unpackbits(numbers.view(np.uint8)[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(each.reshape(-1), bitorder="little").tobytes()


def unpack_numbers(data: bytes, bits: int, count: int) -> np.ndarray:
    """The numbers (count,) int8 of ``pack_numbers``; data has (count * bits + 7) // 8 bytes. Piece by piece, because single bits
    take eight times the memory."""
    raw = np.frombuffer(data, np.uint8)
    if bits == 8:
        return raw.view(np.int8)
    numbers = np.empty(count, np.int8)
    for first in range(0, count, PIECE):
        size = min(PIECE, count - first)
        each = np.unpackbits(raw[first * bits // 8 :], count=size * bits, bitorder="little").reshape(size, bits)
        sign = np.repeat(each[:, -1:], 8 - bits, axis=1)
        whole = np.packbits(np.concatenate([each, sign], axis=1), axis=1, bitorder="little")
        numbers[first : first + size] = whole.reshape(-1).view(np.int8)
    return numbers


def packed_values(blob: Any, shape: tuple[int, ...], **place: Any) -> np.ndarray:
    """The float32 values of a blob with packed numbers.

    shape    the blob's shape, whose sizes are not negative;  place: path, layer and index, for errors
    raises   WeightsError where the numbers do not fit the shape
    """
    index = place.pop("index", 0)
    packed, count = blob.packed, int(np.prod([int(n) for n in shape], dtype=object))
    bits = packed.bits
    if not 2 <= bits <= 8:
        raise WeightsError(f"blob {index} has numbers of {bits} bits; 2 to 8 can be read", **place)
    if len(packed.numbers) != (count * bits + 7) // 8:
        message = (
            f"blob {index} has {len(packed.numbers)} bytes of packed numbers, its shape needs {(count * bits + 7) // 8}"
        )
        raise WeightsError(message, **place)
    rows = shape[0] if shape else 1
    if len(packed.step) not in (1, rows):
        raise WeightsError(f"blob {index} has {len(packed.step)} steps for {rows} filters", **place)
    steps = np.array(packed.step, np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise WeightsError(f"blob {index} has a step that is not a positive number", **place)
    values = unpack_numbers(packed.numbers, bits, count).astype(np.float32).reshape(rows, -1)
    values *= steps[:, None]
    return values.reshape(shape)
