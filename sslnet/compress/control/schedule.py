"""The schedule of a run with a target: what should remain when, and how far a strength moves to get there.

While the structure is learned (the first LEARN of the run), what remains should follow target^(passed / LEARN), ``passed``
the part of the run that is over. Strengths are multiplied by exp(log_factor); a check changes the log factor by GAIN times
the logarithm of what remains over what should remain, now and as it is predicted for AHEAD later.
"""

from __future__ import annotations

import math

LEARN, GIVE_UP = 0.6, 0.8
"""Parts of the run: in which the structure is learned, and at which a target that is not met is given up."""
CHECKS, LEAST = 300, 3
"""Checks in a run, and iterations between two of them at least."""
START = 0.3
"""Factor of the strengths at the beginning: no group is zero yet, and which ones become zero first should not be chance."""
HASTE = 10
"""At the beginning no group may shrink more than so many times as fast as is needed."""
GAIN, MOST = 1.5, 10.5
"""Change of the log factor at a check for a ratio of e; and the largest sum of its changes in a whole run."""
STEEPEST = 0.05
"""The largest change of the log factor in an iteration."""
CLOSE = 0.95
"""The part of the target that is aimed at, so that it is met for sure."""
AHEAD, NEAR = 0.06, 20
"""Part of the run that is predicted, and iterations at least: momentum carries groups on for so long."""
SHORTEST = 50
"""Iterations that no group is to become zero in, however short the run is."""


def check_interval(max_iter: int) -> int:
    """Iterations from one check to the next."""
    return max(LEAST, max_iter // CHECKS)


def first_log_factor(iterations: float, max_iter: int) -> float:
    """Log factor at the start, where the strengths as given would meet the target within so many iterations."""
    learning = max(SHORTEST, int(LEARN * max_iter))
    alone = max(iterations, 1e-9) / learning  # with it the penalty alone would do, at the end of LEARN
    return math.log(max(alone, min(START, HASTE * alone)))


def scheduled_log(target: float, passed: float) -> float:
    """Logarithm of what should remain when this part of the run has passed."""
    return min(1.0, passed / LEARN) * math.log(CLOSE * target)


def log_factor_change(target: float, passed: float, remaining: float, predicted: float) -> float:
    """By how much to change a log factor: above 0 where more remains than should.

    remaining   now, 0 to 1;  predicted: when AHEAD more of the run has passed
    """
    ends = (remaining, passed), (predicted, passed + AHEAD)
    now, then = (math.log(max(part, 0.1 * target)) - scheduled_log(target, time) for part, time in ends)
    trust = max(0.0, min(0.5, 1 - passed / LEARN))  # at the end only what is really zero counts
    return GAIN * ((1 - trust) * now + trust * then)


def largest_change(max_iter: int) -> float:
    """The largest change of a log factor from one check to the next."""
    return check_interval(max_iter) * min(STEEPEST, MOST / max_iter)


def iterations_needed(iteration: int, target: float, remaining: float) -> int:
    """An estimate, of two digits, of the iterations of a run that meets a target, from what remains at this iteration."""
    ratio = math.log(target) / math.log(min(remaining, 0.9))
    needed = iteration / LEARN * max(1.25, min(10.0, ratio))
    digits = int(10 ** max(0, len(str(int(needed))) - 2))
    return math.ceil(needed / digits) * digits
