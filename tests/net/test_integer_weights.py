"""Weights as numbers and steps, and packed in files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.net.blob_arrays import blob_array
from sslnet.net.integer_weights import find_integers, largest, pack_numbers, packed_blob, unpack_numbers


@settings(max_examples=80, deadline=None)
@given(bits=st.integers(2, 8), rows=st.integers(1, 6), columns=st.integers(1, 90), seed=st.integers(0, 2**30))
def test_numbers_of_values_on_a_grid(bits, rows, columns, seed):
    random = np.random.default_rng(seed)
    top = random.integers(1, largest(bits) + 1, rows)
    numbers = np.stack([random.integers(-t, t + 1, columns) for t in top])
    steps = (10.0 ** random.uniform(-6, 3, rows)).astype(np.float32)
    values = numbers.astype(np.float32) * steps[:, None]
    found = find_integers(values, bits)
    np.testing.assert_array_equal(found.values, values)
    assert np.abs(found.numbers.astype(int)).max(initial=0) <= largest(bits)


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), seed=st.integers(0, 2**30))
def test_other_values_become_the_nearest_numbers(bits, seed):
    values = np.random.default_rng(seed).standard_normal((5, 300)).astype(np.float32)
    found = find_integers(values, bits)
    step = np.abs(values).max(axis=1) / largest(bits)
    assert (np.abs(found.values - values) <= step[:, None] * 0.5001).all()
    assert (np.abs(found.numbers).max(axis=1) == largest(bits)).all()


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(2, 8), count=st.integers(1, 70), seed=st.integers(0, 2**30))
def test_packed_numbers(bits, count, seed):
    numbers = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), count).astype(np.int8)
    data = pack_numbers(numbers, bits)
    assert len(data) == (count * bits + 7) // 8
    np.testing.assert_array_equal(unpack_numbers(data, bits, count), numbers)
    number = int.from_bytes(data, "little")
    for i, n in enumerate(numbers):
        assert (number >> (i * bits)) % 2**bits == int(n) % 2**bits


def test_numbers_are_unpacked_piece_by_piece(monkeypatch):
    numbers = np.random.default_rng(0).integers(-4, 4, 1000).astype(np.int8)
    monkeypatch.setattr("sslnet.net.integer_weights.PIECE", 64)
    np.testing.assert_array_equal(unpack_numbers(pack_numbers(numbers, 3), 3, 1000), numbers)


def blob(bits=4):
    numbers = np.array([[1, -7, 3], [0, 2, 7]])
    steps = np.array([0.5, 0.25], np.float32)
    found = packed_blob((numbers * steps[:, None]).astype(np.float32), bits)
    assert found is not None
    return found, numbers * steps[:, None]


def test_a_packed_blob_is_read_as_values():
    found, values = blob()
    assert not found.data and len(found.packed.numbers) == 3
    again = pb.BlobProto.FromString(found.SerializeToString())
    np.testing.assert_array_equal(blob_array(again), values)
    assert packed_blob(np.array([[0.1, 0.7, 0.33]], np.float32), 4) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: setattr(b.packed, "bits", 9), "numbers of 9 bits"),
        (lambda b: setattr(b.packed, "bits", 0), "numbers of 0 bits"),
        (lambda b: setattr(b.packed, "numbers", b"12"), "2 bytes of packed numbers, its shape needs 3"),
        (lambda b: b.packed.step.append(1), "3 steps for 2 filters"),
        (lambda b: b.packed.step.__setitem__(0, float("nan")), "not a positive number"),
        (lambda b: b.packed.step.__setitem__(0, 0), "not a positive number"),
        (lambda b: b.shape.dim.__setitem__(1, 2**40), "3 bytes of packed numbers"),
        (lambda b: b.shape.dim.__setitem__(0, 0), "shape 0 x 3"),
        (lambda b: b.shape.dim.__setitem__(0, -1), "shape -1 x 3"),
    ],
)
def test_damaged_blobs_are_refused(change, message):
    found, _ = blob()
    change(found)
    with pytest.raises(WeightsError, match=message):
        blob_array(found, path="w.caffemodel", layer="conv")
