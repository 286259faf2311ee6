"""Contestants take turns: A B C, C B A, ...; what counts are medians over the rounds, for ratios those of the rounds' ratios."""

from __future__ import annotations

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

OURS = "ours"
TURN = 3e-3
"""The least seconds of a timed turn; short calls are repeated."""
LEAD = 0.03
"""Seconds of untimed calls before a turn of several threads: those of torch and onnxruntime wait for work without sleeping,
for up to 20 ms, and keep a core from whoever comes next; and a thread that has slept comes back beside its caller, until the
system moves it to another core."""
LONG = 0.1
"""Calls longer than this, in seconds, need no untimed call before them."""
VERY_LONG = 2.0
"""Calls of more seconds than this are worth no more than FEW rounds, unless the time is there."""
FEW = 3

Call = Callable[[], object]
_asked = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends what runs inside at the next turn at the latest: an interrupt that falls into a callback of the compiler
    is lost otherwise."""

    def ask(*_: Any) -> None:
        _asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def take_turns(
    contestants: Mapping[str, Call], seconds: float, *, threads: int, rounds: int = 5
) -> dict[str, list[float]]:
    """Seconds a call of every contestant, round by round, for about so many seconds and at least so many rounds.

    A turn is an untimed call, or LEAD of them, and at least TURN of timed ones. One thread is timed by its own clock, which stops when it has to wait: other programs disturb it less.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    lengths = {name: _length(call) for name, call in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    if max(lengths.values()) > VERY_LONG:
        rounds = min(rounds, FEW)
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name in order:
            if _asked.is_set():
                raise KeyboardInterrupt
            call, repeats = contestants[name], max(1, round(TURN / lengths[name]))
            for _ in range(max(1, round(LEAD / lengths[name])) if threads > 1 else 1):
                if lengths[name] < LONG:
                    call()
            start = clock()
            for _ in range(repeats):
                call()
            times[name].append((clock() - start) / repeats)
        order.reverse()
        done += 1
    return times


def _length(call: Call) -> float:
    """Seconds of a call, after one that compiles and allocates; of that one itself where it is very long."""
    for _ in range(2):
        start = time.perf_counter()
        call()
        length = time.perf_counter() - start
        if length > VERY_LONG:
            break
    return max(1e-6, length)


def spread(samples: list[float], unit: float = 1e3) -> dict[str, float]:
    """Median, quartiles and minimum in milliseconds, from seconds."""
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    return {"median": unit * median, "low": unit * low, "high": unit * high, "best": unit * min(samples)}


def summary(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The part of a row that tells what was measured: ``times``, ``ratio`` and its spread, against whom, how many rounds.

    The ratio is that to the fastest other contestant, by medians; below 1 we are faster. Without others there is none.
    """
    row: dict[str, Any] = {"times": {name: spread(samples) for name, samples in times.items()}}
    row["rounds"] = len(next(iter(times.values())))
    others = [name for name in times if name != OURS]
    for name in others:
        row["times"][name]["ratio"] = statistics.median(a / b for a, b in zip(times[OURS], times[name]))
    if others:
        fastest = min(others, key=lambda name: row["times"][name]["median"])
        ratios = spread([a / b for a, b in zip(times[OURS], times[fastest])], unit=1.0)
        row |= {"against": fastest, "ratio": ratios["median"], "ratio_low": ratios["low"]}
        row |= {"ratio_high": ratios["high"], "ratio_best": _best_ratio(row["times"], fastest)}
    return row


def _best_ratio(times: Mapping[str, Mapping[str, float]], other: str) -> float:
    """The ratio of the shortest times, an estimate for a machine without other programs."""
    return times[OURS]["best"] / times[other]["best"]


def compare(contestants: Mapping[str, Call], seconds: float, *, threads: int, rounds: int = 5) -> dict[str, Any]:
    """``summary`` of ``take_turns``."""
    return summary(take_turns(contestants, seconds, threads=threads, rounds=rounds))
