"""Targets: how small, or how fast, a net is to become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMES = {"flops": "FLOPs", "params": "parameters", "speedup": "time"}
"""What targets limit, and its name in messages."""


@dataclass(frozen=True)
class Targets:
    """What is asked for.

    of      "flops", "params" or "speedup"
    whole   of the net: the part that may be left, 0 to 1; of a speedup the factor, above 1. None: layers alone have targets
    layers  {layer: the part of its own that it may keep}
    batch   images that a speedup is measured with; None: those of the test net
    cut     whether groups are cut by size where the penalty has not taken enough of them in time
    """

    of: str
    whole: float | None
    layers: Mapping[str, float] = field(default_factory=dict)
    batch: int | None = None
    cut: bool = False

    @property
    def part(self) -> float | None:
        """The part of the net that may remain, for a speedup of its time: 0 to 1."""
        return 1 / self.whole if self.whole is not None and self.of == "speedup" else self.whole

    @property
    def text(self) -> str:
        """The target as written on the command line."""
        words = [f"{self.whole:g}"] if self.whole is not None else []
        return ",".join(words + [f"{layer}={part:g}" for layer, part in self.layers.items()])

    def options(self) -> list[str]:
        """The command-line options that ask for the same."""
        batch = ["--speedup-batch", str(self.batch)] if self.batch is not None else []
        return [f"--target-{self.of}", self.text, *batch, *(["--cut"] if self.cut else [])]
