"""The schedule of a run with a target: the scheduled remaining cost, and the change of strengths at a check.

While the structure is learned (the first LEARN of the run), the remaining fraction should follow target^(passed / LEARN),
where ``passed`` is the elapsed fraction of the run. Strengths are multiplied by exp(log_factor). A check changes the log
factor by GAIN times the logarithm of the remaining fraction over the scheduled one, now and as predicted for AHEAD later.
"""

from __future__ import annotations

import math

LEARN, GIVE_UP = 0.6, 0.8
"""Fractions of the run: that in which the structure is learned, and that at which an unmet target is given up."""
CHECKS, LEAST = 300, 3
"""Number of checks in a run, and minimum number of iterations between two of them."""
START = 0.3
"""Factor of the strengths at the start, low so that the first groups to become zero are not chosen by chance."""
HASTE = 10
"""Maximum ratio, at the start, of a group's rate of shrinkage to the rate needed."""
GAIN, MOST = 1.5, 10.5
"""Change of the log factor at a check for a ratio of e; and the maximum sum of its changes in a whole run."""
STEEPEST = 0.05
"""The largest change of the log factor in an iteration."""
CLOSE = 0.95
"""Safety factor: the schedule aims at this fraction of the target."""
AHEAD, NEAR = 0.06, 20
"""Prediction horizon as a fraction of the run, and its minimum in iterations, about as long as momentum lasts."""
SHORTEST = 50
"""Minimum number of iterations in which a group may become zero, however short the run is."""


def check_interval(max_iter: int) -> int:
    """Number of iterations from one check to the next."""
    return max(LEAST, max_iter // CHECKS)


def first_log_factor(iterations: float, max_iter: int) -> float:
    """Log factor at the start.  iterations: number in which the strengths as given would meet the target"""
    learning = max(SHORTEST, int(LEARN * max_iter))
    alone = max(iterations, 1e-9) / learning  # factor with which the penalty alone meets the target at the end of LEARN
    return math.log(max(alone, min(START, HASTE * alone)))


def scheduled_log(target: float, passed: float) -> float:
    """Logarithm of the scheduled remaining fraction at the elapsed fraction ``passed`` of the run."""
    return min(1.0, passed / LEARN) * math.log(CLOSE * target)


def log_factor_change(target: float, passed: float, remaining: float, predicted: float) -> float:
    """Change of a log factor at a check; positive if more remains than scheduled.

    remaining   remaining fraction now, 0 to 1;  predicted: remaining fraction predicted for AHEAD of the run later
    """
    ends = (remaining, passed), (predicted, passed + AHEAD)
    now, then = (math.log(max(part, 0.1 * target)) - scheduled_log(target, time) for part, time in ends)
    trust = max(0.0, min(0.5, 1 - passed / LEARN))  # towards the end only groups that are already zero count
    return GAIN * ((1 - trust) * now + trust * then)


def largest_change(max_iter: int) -> float:
    """Maximum change of a log factor from one check to the next."""
    return check_interval(max_iter) * min(STEEPEST, MOST / max_iter)


def iterations_needed(iteration: int, target: float, remaining: float) -> int:
    """Estimated length, to two digits, of a run that meets the target, given the remaining fraction at an iteration."""
    ratio = math.log(target) / math.log(min(remaining, 0.9))
    needed = iteration / LEARN * max(1.25, min(10.0, ratio))
    digits = int(10 ** max(0, len(str(int(needed))) - 2))
    return math.ceil(needed / digits) * digits
