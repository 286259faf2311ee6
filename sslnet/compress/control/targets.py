"""Targets: the size or speed that a net should reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMES = {"flops": "FLOPs", "params": "parameters", "speedup": "time"}
"""Kinds of targets, and the name in messages of the cost that each limits."""


@dataclass(frozen=True)
class Targets:
    """Targets for a net and for single layers.

    of      "flops", "params" or "speedup"
    whole   fraction of the net's cost that may remain, 0 to 1; for a speedup its factor, above 1. None: only layers have
            targets
    layers  {layer: fraction of its own cost that may remain}
    batch   number of images with which a speedup is measured; None: the batch size of the test net
    cut     whether to zero the smallest groups if the penalty has not met the target in time
    """

    of: str
    whole: float | None
    layers: Mapping[str, float] = field(default_factory=dict)
    batch: int | None = None
    cut: bool = False

    @property
    def part(self) -> float | None:
        """Fraction of the net's cost that may remain, for a speedup of its time: 0 to 1."""
        return 1 / self.whole if self.whole is not None and self.of == "speedup" else self.whole

    @property
    def text(self) -> str:
        """The target as written on the command line."""
        words = [f"{self.whole:g}"] if self.whole is not None else []
        return ",".join(words + [f"{layer}={part:g}" for layer, part in self.layers.items()])

    @property
    def advice(self) -> str:
        """What to try when a run has not met the targets."""
        cut = "" if self.cut else ", --cut, which removes the smallest groups,"
        return f"try more iterations{cut} or a milder target"

    def options(self) -> list[str]:
        """The command-line options for these targets."""
        batch = ["--speedup-batch", str(self.batch)] if self.batch is not None else []
        return [f"--target-{self.of}", self.text, *batch, *(["--cut"] if self.cut else [])]
