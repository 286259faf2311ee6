"""Prefetcher: the batches of its reader in order, whatever happens in between."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from sslnet.errors import DataError
from sslnet.sources.order import Order, generator
from sslnet.sources.prefetch import Prefetcher, Reader


class Counting(Reader):
    """Batches of two that say which they are; fails at a batch as often as told."""

    batch_size = 2
    shapes = ((2, 3), (2,))

    def __init__(self, fails_at: int = -1, times: int = 0) -> None:
        self.fails_at, self.times = fails_at, times
        self.made = 0

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        if batch == self.fails_at and self.times:
            self.times -= 1
            raise DataError("broken")
        arrays[0][:] = position
        arrays[1][:] = batch
        self.made += 1


def take(prefetcher: Prefetcher, count: int) -> list[tuple[float, float]]:
    return [(float(data[0, 0]), float(number[0])) for data, number in (prefetcher.get() for _ in range(count))]


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_batches_come_in_order_from_where_they_were_asked(depth: int) -> None:
    prefetcher = Prefetcher(Counting(), np.float32, position=10, batch=5, depth=depth)
    assert take(prefetcher, 20) == [(10 + 2 * i, 5 + i) for i in range(20)]
    prefetcher.close()
    assert take(prefetcher, 2) == [(50, 25), (52, 26)]


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_error_comes_with_its_batch_and_the_next_call_tries_again(depth: int) -> None:
    prefetcher = Prefetcher(Counting(fails_at=3, times=2), np.float32, 0, 0, depth)
    assert take(prefetcher, 3) == [(0, 0), (2, 1), (4, 2)]
    for _ in range(2):
        with pytest.raises(DataError, match="broken"):
            prefetcher.get()
    assert take(prefetcher, 2) == [(6, 3), (8, 4)]


def test_no_more_batches_are_made_than_the_depth() -> None:
    reader = Counting()
    prefetcher = Prefetcher(reader, np.float32, 0, 0, 3)
    prefetcher.get()
    deadline = time.monotonic() + 10
    while reader.made < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert reader.made == 4  # the one in use, and three ahead


def test_batch_in_use_is_left_alone() -> None:
    prefetcher = Prefetcher(Counting(), np.float32, 0, 0, 2)
    for i in range(50):
        data, number = prefetcher.get()
        time.sleep(0.0005)
        assert (data == 2 * i).all()
        assert (number == i).all()


def test_arrays_begin_at_multiples_of_64_bytes_and_are_reused() -> None:
    prefetcher = Prefetcher(Counting(), np.float64, 0, 0, 2)
    places = {array.ctypes.data for _ in range(30) for array in prefetcher.get()}
    assert len(places) == 6
    assert all(place % 64 == 0 for place in places)


def test_thread_ends_with_the_prefetcher() -> None:
    gc.collect()
    before = threading.active_count()
    prefetcher = Prefetcher(Counting(), np.float32, 0, 0, 2)
    prefetcher.get()
    assert threading.active_count() == before + 1
    del prefetcher
    gc.collect()
    assert threading.active_count() == before


def test_order_goes_round() -> None:
    assert Order(3).indices(2, 8).tolist() == [2, 0, 1, 2, 0, 1, 2, 0]


def test_shuffled_order_is_a_function_of_the_place() -> None:
    order = Order(5, shuffle=True, seed=1, layer="d")
    whole = order.indices(0, 40)
    for epoch in whole.reshape(8, 5):
        assert sorted(epoch) == [0, 1, 2, 3, 4]
    assert len({tuple(epoch) for epoch in whole.reshape(8, 5)}) > 3
    for start, size in ((0, 1), (4, 2), (7, 20), (39, 1), (3, 3)):
        other = Order(5, shuffle=True, seed=1, layer="d")
        np.testing.assert_array_equal(other.indices(start, size), whole[start : start + size])


def test_streams_differ_in_each_part_of_their_name() -> None:
    def draw(*name: object) -> float:
        return generator(*name).random()

    names = [(1, "a", "x", 0), (2, "a", "x", 0), (1, "b", "x", 0), (1, "a", "y", 0), (1, "a", "x", 1)]
    assert len({draw(*name) for name in names}) == len(names)
    assert draw(*names[0]) == draw(*names[0])


@pytest.mark.parametrize("started", [False, True])
def test_interrupt_while_the_thread_is_started_leaves_none_behind(
    started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    before, start = threading.active_count(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if started:
            start(thread)
        raise KeyboardInterrupt

    prefetcher = Prefetcher(Counting(), np.float32, 0, 0, 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        prefetcher.get()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert (prefetcher.get()[0] == 0).all()
    prefetcher.close()
    assert threading.active_count() == before
