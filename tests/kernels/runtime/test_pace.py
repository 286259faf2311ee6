"""Pace: the choice between one thread and several follows the times, whatever they do."""

import numpy as np
import pytest

from sslnet.kernels.runtime.pace import FIRST_INTERVAL, LAST_INTERVAL, TRIAL, Pace


def run(pace, alone, several, runs):
    """The number of runs with several threads, where the runs take so long."""
    count = 0
    for _ in range(runs):
        count += pace.several
        pace.note(several if pace.several else alone)
    return count


def test_several_threads_stay_where_they_are_faster():
    pace = Pace()
    runs = 20_000
    assert run(pace, 100_000, 60_000, runs) > runs - TRIAL * 20
    assert pace.several


def test_one_thread_is_used_where_several_are_slower():
    pace = Pace()
    runs = 20_000
    assert run(pace, 100_000, 300_000, runs) < TRIAL * 20
    assert not pace.several


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_keep_it_from_the_faster_way(seed):
    random = np.random.default_rng(seed)
    pace, several = Pace(), 0
    for _ in range(10_000):
        several += pace.several
        base = 60_000 if pace.several else 100_000
        pace.note(int(base * (1 + random.exponential(0.1))))
    assert several > 9000


def test_it_turns_when_the_machine_gets_busy_and_back():
    pace = Pace()
    run(pace, 100_000, 60_000, 5 * LAST_INTERVAL)
    assert pace.several
    assert run(pace, 120_000, 500_000, 1000) < 100, "other programs came"
    run(pace, 100_000, 60_000, 2 * LAST_INTERVAL)
    assert pace.several, "they have gone"


def test_first_runs_with_cold_caches_do_not_decide():
    pace = Pace()
    for _ in range(FIRST_INTERVAL):
        pace.note(5_000_000 if pace._runs < 1 and pace.several else 60_000 if pace.several else 100_000)
    run(pace, 100_000, 60_000, 3 * FIRST_INTERVAL)
    assert pace.several
