"""``compare_criteria``: one net pruned by several criteria, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sslnet.compress.evaluation import Score, Trial
from sslnet.compress.pruning.prune_channels import Pruner, PruneResult, check_choices, one_target


@dataclass(frozen=True)
class ComparedCriterion:
    """The net pruned by one criterion.

    score  on the test data; None if it was not tested
    """

    result: PruneResult
    score: Score | None


def compare_criteria(
    pruner: Pruner,
    names: Sequence[str],
    *,
    target_flops: float | None = None,
    target_params: float | None = None,
    target_time: float | None = None,
    repair: str,
    share_out: str,
    round_channels: int,
    floor: float,
    trial: Trial | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> list[ComparedCriterion]:
    """Prunes a net by each criterion; the net has its own weights afterwards.

    trial  the test that each pruned net takes; None: no test
    raises UsageError as ``prune_channels`` does
    """
    of, target = one_target(target_flops, target_params, target_time)
    for name in names:
        check_choices(name, repair, share_out, target, round_channels, floor, of)
    result = []
    for name in names:
        try:
            pruned = pruner.prune(
                target_flops=target_flops,
                target_params=target_params,
                target_time=target_time,
                by=name,
                repair=repair,
                share_out=share_out,
                round_channels=round_channels,
                floor=floor,
            )
            if trial is not None:
                progress(f"testing the net pruned by {name}")
            result.append(ComparedCriterion(pruned, None if trial is None else trial.score(pruner.net.to_proto())))
        finally:
            pruner.restore()
    return result
