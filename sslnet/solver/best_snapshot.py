"""Keeps the best weights of a run by a test output (``snapshot_best``), and ends a run that no longer improves
(``patience``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sslnet.errors import DefinitionError, suggestion
from sslnet.net.average_precision import DetectionScore
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Test


class BestSnapshot:
    """Watches one value of the tests.

    raises DefinitionError if snapshot_best is not a single output of a test net, and for settings without effect
    """

    def __init__(self, definition: Definition, test_nets: Sequence[Net], *, steered: bool) -> None:
        """
        steered  whether something decides during the run what becomes zero; the best net would then be an early, dense one
        """
        self.definition, param = definition, definition.message
        self.name, self.patience = param.snapshot_best, param.patience
        self.value, self.iteration, self.worse = math.nan, -1, 0
        for name, needs in (("snapshot_best_lowest", "snapshot_best"), ("patience", "snapshot_best")):
            if param.HasField(name) and getattr(param, name) and not self.name:
                raise self._error(f"{name} does nothing without {needs}", name)
        if self.patience < 0:
            raise self._error(f"patience must be 0 or more, not {self.patience}", "patience", value=True)
        if not self.name:
            return
        if steered:
            raise self._error(
                "snapshot_best cannot be used with a target or prune_param",
                "snapshot_best",
                "the best weights would be early ones, from which little was removed",
            )
        if not test_nets or param.test_interval <= 0:
            raise self._error("snapshot_best needs tests: test_iter and test_interval", "snapshot_best")
        outputs = list(dict.fromkeys(name for net in test_nets for name in net.outputs))
        if self.name not in outputs:
            hint = suggestion(self.name, outputs) or f"the outputs are {', '.join(outputs) or 'none'}"
            raise self._error(f'no test net has the output "{self.name}"', "snapshot_best", hint, value=True)
        self.net = next(index for index, net in enumerate(test_nets) if self.name in net.outputs)
        net = test_nets[self.net]
        if not param.test_iter[self.net]:
            raise self._error(f"snapshot_best needs tests of test net {self.net}: its test_iter is 0", "snapshot_best")
        if net.blobs[self.name].count != 1 and self.name not in DetectionScore(net).names:
            raise self._error(
                f'"{self.name}" has {net.blobs[self.name].count} values, so none of its tests is best',
                "snapshot_best",
                "name an output of one value",
                value=True,
            )
        is_loss = bool(net.loss_weights.get(self.name))
        self.lowest = param.snapshot_best_lowest if param.HasField("snapshot_best_lowest") else is_loss

    @property
    def exhausted(self) -> bool:
        """Whether the last ``patience`` tests were no better than one before."""
        return bool(self.name) and 0 < self.patience <= self.worse

    def is_better(self, tests: Sequence[Test]) -> bool:
        """Takes in the tests of one moment; whether theirs is the best value so far. A NaN is never best."""
        test = next((test for test in tests if test.net == self.net), None) if self.name else None
        if test is None or test.iteration == self.iteration:
            return False
        value = next(value for name, value, _ in test.outputs if name == self.name)
        better = value < self.value if self.lowest else value > self.value
        if better or (math.isnan(self.value) and not math.isnan(value)):
            self.value, self.iteration, self.worse = value, test.iteration, 0
            return True
        self.worse += 1
        return False

    def state(self) -> dict[str, np.ndarray]:
        """The state for a snapshot."""
        return {"best": np.array([self.value, self.iteration, self.worse])} if self.iteration >= 0 else {}

    def set_state(self, array: np.ndarray | None) -> None:
        """Restores what ``state`` returned; None: no test yet."""
        if array is not None and array.size == 3:
            self.value, self.iteration, self.worse = float(array[0]), int(array[1]), int(array[2])

    def _error(self, message: str, name: str, hint: str = "", value: bool = False) -> DefinitionError:
        words = self.definition.overrides.get((name,), "")
        span = None if words else self.definition.span(name, value=value)
        hint = "; ".join(filter(None, (hint, words and f"set by {words}")))
        return DefinitionError(message, span=span, path=self.definition.path, hint=hint)
