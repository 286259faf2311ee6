"""Pace: the choice between one thread and several follows the times, whatever they do."""

import numpy as np
import pytest

from sslnet.kernels.runtime.pace import Pace


def run(pace, alone, several, runs):
    """The number of runs with several threads, where the runs take so long, one after the other."""
    count = 0
    for _ in range(runs):
        count += pace.several
        take(pace, several if pace.several else alone)
    return count


def take(pace, time, pause=5_000):
    """A run of so many nanoseconds after a pause."""
    pace.note(pace._last + pause, pace._last + pause + time)


def test_several_threads_stay_where_they_are_faster():
    pace = Pace()
    runs = 20_000
    assert run(pace, 100_000, 60_000, runs) > 0.97 * runs
    assert pace.several


def test_one_thread_is_used_where_several_are_slower():
    pace = Pace()
    runs = 20_000
    assert run(pace, 100_000, 300_000, runs) < 0.02 * runs
    assert not pace.several


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_keep_it_from_the_faster_way(seed):
    random = np.random.default_rng(seed)
    pace, several = Pace(), 0
    for _ in range(10_000):
        several += pace.several
        base = 60_000 if pace.several else 100_000
        take(pace, int(base * (1 + random.exponential(0.1))))
    assert several > 9000


def test_it_turns_when_the_machine_gets_busy_and_back():
    pace = Pace()
    run(pace, 100_000, 60_000, 10_000)
    assert pace.several
    assert run(pace, 120_000, 500_000, 1000) < 100, "other programs came"
    run(pace, 100_000, 60_000, 4_000)
    assert pace.several, "they have gone"


def test_first_runs_with_cold_caches_do_not_decide():
    pace = Pace()
    for k in range(50):
        take(pace, 5_000_000 if k == 0 else 60_000 if pace.several else 100_000)
    run(pace, 100_000, 60_000, 200)
    assert pace.several


def test_after_a_pause_the_other_way_is_tried_soon():
    """Others that were there at the last trials may have gone meanwhile."""
    pace = Pace()
    run(pace, 50_000, 5_000_000, 20_000)
    assert not pace.several
    take(pace, 50_000, pause=1_000_000_000)
    assert run(pace, 50_000, 30_000, 800) > 350
    assert pace.several


def test_bad_trials_are_short():
    """While the cores are taken, a run with several threads may take a hundred times as long."""
    pace = Pace()
    run(pace, 50_000, 5_000_000, 1000)
    begin, runs = pace._last, 20_000
    tried = run(pace, 50_000, 5_000_000, runs)
    assert 0 < tried < 20
    whole = pace._last - begin
    assert whole < 1.05 * runs * 55_000, "trials take a small share of the time"
