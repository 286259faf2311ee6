"""Whether several threads are faster than one: measured as a piece of work is repeated.

Several threads wait for each other. Where other programs use the cores, the wait may take longer than the work that they
share, so both ways are tried from time to time, for a few runs. What they compute is the same.
"""

from __future__ import annotations

TRIAL = 4
"""Runs of a trial; the first does not count, because sleeping workers have to be woken for it."""
FIRST_INTERVAL = 64
LAST_INTERVAL = 2048
"""Runs between two trials: from the first number on twice as many each time that a trial changes nothing."""
RECENT = 0.125
"""Weight of a run in the mean time."""
WORSE = 1.5
PATIENCE = 3
"""A trial begins at once after so many runs in a row that took WORSE times as long as when the way was chosen."""


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
        self._interval = FIRST_INTERVAL
        self._slow = 0
        self._runs = 0

    def note(self, nanoseconds: int) -> None:
        """Takes the time of a run that was made as ``several`` said."""
        if self.several is not self._preferred:
            self._trial.append(nanoseconds)
            if len(self._trial) == TRIAL:
                self._decide()
            return
        self._runs += 1
        if self._runs <= 2:  # the first ones fill caches, and wake workers
            self._mean = float(nanoseconds)
        self._mean += RECENT * (min(nanoseconds, 8 * self._mean) - self._mean)
        self._left -= 1
        self._slow = self._slow + 1 if self._chosen and nanoseconds > WORSE * self._chosen else 0
        if self._left <= 0 or self._slow >= PATIENCE:
            if self._slow >= PATIENCE:
                self._mean, self._interval = float(nanoseconds), FIRST_INTERVAL
            self.several, self._trial = not self._preferred, []

    def _decide(self) -> None:
        """Ends a trial."""
        tried = sum(self._trial[1:]) / (TRIAL - 1)
        better = tried < self._mean
        if better:
            self._preferred, self._mean = not self._preferred, tried
            self._interval, self._runs = FIRST_INTERVAL, 0
        else:
            self._interval = min(2 * self._interval, LAST_INTERVAL)
        self.several = self._preferred
        self._chosen, self._slow, self._left = self._mean, 0, self._interval
