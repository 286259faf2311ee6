"""Blob: shapes without arrays, arrays that stay, and sharing."""

import numpy as np
import pytest

from sslnet.blob import Blob
from sslnet.errors import UsageError


def test_blob_allocates_zeros_when_touched():
    blob = Blob((2, 3), name="x")
    assert not blob.has_diff
    np.testing.assert_array_equal(blob.data, np.zeros((2, 3)))
    assert blob.diff.dtype == np.float32
    assert blob.has_diff
    assert blob.data.ctypes.data % 64 == 0


def test_blob_keeps_its_array_when_the_new_shape_fits():
    blob = Blob((4, 3))
    blob.data[...] = 7
    before = blob.data.ctypes.data
    blob.reshape(3, 4)
    assert blob.data.shape == (3, 4)
    assert (blob.data == 7).all()
    blob.reshape((2, 2))
    assert blob.data.ctypes.data == before
    blob.reshape(100)
    assert blob.data.shape == (100,)


def test_blob_shares_data_in_its_own_shape():
    source, view = Blob((2, 6)), Blob((3, 4))
    view.share_data(source)
    source.data[0, 1] = 5
    assert view.data[0, 1] == 5
    view.diff[...] = 1
    assert not source.has_diff
    source.adopt_data(np.full((2, 6), 3, np.float32))
    assert (view.data == 3).all()
    assert source.owns("data") and not view.owns("data")


def test_blob_adopts_only_what_fits():
    blob = Blob((2, 3))
    for array in (np.zeros((3, 2), np.float32), np.zeros((2, 3)), np.zeros((3, 2), np.float32).T):
        with pytest.raises(ValueError, match="cannot adopt"):
            blob.adopt_data(array)


def test_blob_counts_and_axes():
    blob = Blob((2, 3, 4))
    assert (blob.count, blob.nbytes, blob.num_axes) == (24, 96, 3)
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 4, 1)
    assert blob.count_of(1) == 12
    assert blob.count_of(0, 2) == 6
    assert blob.axis(-1) == 2
    with pytest.raises(IndexError, match="axis 3"):
        blob.axis(3)
    assert Blob(()).count == 1
    with pytest.raises(ValueError, match="negative size"):
        blob.reshape(-1, 3)


@pytest.mark.parametrize("shape", [(0, 6, 2**63 - 1), (2**62,), (2, 0, 2**62), (2**40, 2**40)])
def test_a_shape_beyond_any_array_is_refused_even_without_numbers(shape):
    with pytest.raises(ValueError, match='blob "x": no array can have the shape'):
        Blob(name="x").reshape(shape)


def test_an_empty_shape_that_arrays_can_have_is_taken():
    blob = Blob()
    blob.reshape(0, 2**40, 3)
    assert blob.data.shape == (0, 2**40, 3)


def test_blob_shows_what_it_is_lent_until_it_is_withdrawn():
    blob, view = Blob((2, 3), name="x"), Blob((6,))
    view.share_data(blob)
    memory = np.arange(6, dtype=np.float32)
    blob.lend("data", memory.reshape(2, 3))
    assert blob.holds("data") and view.holds("data")
    assert np.shares_memory(blob.data, memory) and np.shares_memory(view.data, memory)
    blob.diff[...] = 1
    blob.withdraw("data")
    blob.withdraw("diff")  # its own: stays
    assert not blob.holds("data") and not view.holds("data")
    assert (blob.diff == 1).all()
    for gone in (blob, view):
        with pytest.raises(UsageError, match='data of blob "x" are no longer available'):
            gone.data  # noqa: B018
    blob.keep("data")
    np.testing.assert_array_equal(view.data, np.zeros(6))


def test_blob_tells_when_any_has_another_shape():
    blob = Blob((2, 3))
    before = Blob.reshaped
    blob.reshape(2, 3)
    assert Blob.reshaped is before
    blob.reshape(3, 3)
    assert Blob.reshaped is not before
