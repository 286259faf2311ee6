"""The learning rate of a net whose weights are good already, by short trials on the training data.

A rate that trains a net from scratch can undo the repair of a pruned one, and the rest of a short run does not make up for
it. So a few rates are tried, each in a short run with the schedule of the long one, from the largest on. A trial is judged by
the loss on training images, most of which it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable

RATES = (1.0, 0.3, 0.1, 0.03)
"""The rates that are tried, as parts of the solver's."""
SHARE, FEWEST, MOST = 0.1, 10, 100
"""Iterations of a trial: part of those of the training, and limits of their number."""


def trial_iterations(iterations: int) -> int:
    """Number of iterations of a trial for a training of this length."""
    return max(FEWEST, min(MOST, round(SHARE * iterations)))


def choose_rate(measure: Callable[[float], float], before: float, longer: bool) -> tuple[float, list[float]]:
    """The part of RATES to use, and the losses of the trials made.

    The smaller rates look too good in short trials. So the next larger rate than the best one is taken for a longer
    training, if its trial, too, ends below the loss of the net as it is.

    measure  the loss after a trial with this part of the rate;  before: that of the net as it is
    longer   whether the training is several times as long as a trial
    """
    losses = [measure(part) for part in RATES]
    best = min(range(len(losses)), key=lambda k: losses[k])
    if longer and best > 0 and losses[best - 1] < before:
        best -= 1
    return RATES[best], losses
