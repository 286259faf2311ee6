"""A step finds its blobs' data where they are now, however they came there."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.conv.packing import address
from sslnet.net.steps.addresses import Addresses


def test_addresses_are_those_of_the_arrays_that_the_blobs_show():
    source, target = Blob((2, 3)), Blob((2, 3))
    pair = Addresses(source, target)
    assert pair.find() == pair.find() == (address(source.data), address(target.data))
    source.adopt_data(np.ones((2, 3), np.float32))
    assert pair.find() == (address(source.data), address(target.data))
    target.reshape(40, 50)
    assert pair.find() == (address(source.data), address(target.data))
    source.reshape(40, 50)
    source.share_data(target)
    assert pair.find() == (address(target.data), address(target.data))


def test_addresses_keep_no_array_alive():
    source = Blob((2, 3))
    pair = Addresses(source, Blob((2, 3)))
    source.adopt_data(np.ones((2, 3), np.float32))
    pair.find()
    old = weakref.ref(source.data)
    source.adopt_data(np.zeros((2, 3), np.float32))
    gc.collect()
    assert old() is None
    assert pair.find()[0] == address(source.data)
