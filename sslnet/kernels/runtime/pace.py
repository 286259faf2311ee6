"""Whether several threads are faster than one: measured as a piece of work is repeated.

Several threads wait for each other. Where other programs use the cores, the wait may take longer than the work that they
share, so both ways are tried from time to time, for a few runs. What they compute is the same.
"""

from __future__ import annotations

TRIAL = 4
"""Runs of a trial; the first does not count, because sleeping workers have to be woken for it."""
MUCH_WORSE = 2.0
"""A trial ends early at a run that takes so many times as long as those of the other way."""
SHARE = 1 / 30
"""The most that trials may take of the whole time: the next one comes when what the last one has lost is such a share."""
LEAST_TIME = 2e6
"""The least nanoseconds between two trials, in at least LEAST_RUNS runs."""
LEAST_RUNS = 2
DOUBLED = 4
"""While several threads are faster, the time doubles with each trial that changes nothing, so many times. One thread is
compared with several more often: the programs that have kept the other cores busy may end at any time."""
RECENT = 0.125
"""Weight of a run in the mean time."""
WORSE = 1.5
PATIENCE = 3
"""A trial begins at once after so many runs in a row that took WORSE times as long as when the way was chosen."""
PAUSE = 10e6
"""Nanoseconds without a run after which other programs may have come or gone."""
AFTER_PAUSE = 20e6
"""The most nanoseconds of runs after a pause until the next trial: threads that wait for work without sleeping, as those of
other libraries do, have given up by then."""


class Pace:
    """The choice between one thread and several. ``several``: whether the next run uses several."""

    def __init__(self) -> None:
        self.several = True
        self._preferred = True
        self._mean = 0.0
        """Mean time of recent runs in the preferred way."""
        self._chosen = 0.0
        """Mean time when it was chosen."""
        self._trial: list[int] = []
        self._left = TRIAL
        """Runs until the next trial."""
        self._failures = 0
        """Trials in a row that have changed nothing."""
        self._slow = 0
        self._runs = 0
        self._last = 0

    def note(self, begin: int, end: int) -> None:
        """Takes the times, in nanoseconds, of the begin and the end of a run that was made as ``several`` said."""
        time, pause = end - begin, begin - self._last
        self._last = end
        if self.several is not self._preferred:
            self._trial.append(time)
            bad = len(self._trial) > 1 and time > MUCH_WORSE * self._mean
            if bad or len(self._trial) == TRIAL:
                self._decide()
            return
        if pause > PAUSE and self._runs:
            self._failures = 0
            self._left = min(self._left, max(LEAST_RUNS, int(AFTER_PAUSE / max(self._mean, 1.0))))
            return  # caches are cold, and workers asleep
        self._runs += 1
        if self._runs <= 2:
            self._mean = float(time)
        self._mean += RECENT * (min(time, 8 * self._mean) - self._mean)
        self._left -= 1
        self._slow = self._slow + 1 if self._chosen and time > WORSE * self._chosen else 0
        if self._slow >= PATIENCE:
            self._mean, self._failures, self._left = float(time), 0, 0
        if self._left <= 0:
            self.several, self._trial = not self._preferred, []

    def _decide(self) -> None:
        """Ends a trial."""
        tried = sum(self._trial[1:]) / (len(self._trial) - 1)
        lost = sum(self._trial) - self._mean * len(self._trial)
        if tried < self._mean:
            self._preferred, self._mean = not self._preferred, tried
            self._failures, self._runs, lost = 0, 2, 0.0
        else:
            self._failures += 1
        self.several = self._preferred
        self._chosen, self._slow, self._left = self._mean, 0, self._interval(lost)

    def _interval(self, lost: float) -> int:
        """The number of runs until the next trial, after one that has lost so many nanoseconds."""
        time = max(LEAST_TIME, lost / SHARE) * (2 ** min(self._failures, DOUBLED) if self._preferred else 1)
        return max(LEAST_RUNS, int(time / max(self._mean, 1.0)))
