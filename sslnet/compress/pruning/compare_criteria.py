"""``compare_criteria``: one net pruned by several criteria, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sslnet.compress.evaluation import Score, Trial
from sslnet.compress.pruning.prune_channels import Pruner, PruneResult, check_choices


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
    target_flops: float,
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
    for name in names:
        check_choices(name, repair, share_out, target_flops, round_channels, floor)
    result = []
    for name in names:
        try:
            pruned = pruner.prune(
                target_flops=target_flops,
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
