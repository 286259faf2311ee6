"""TestOutputs: the outputs of a test net over its batches: means, and the mean average precision of detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sslnet.net.average_precision import DetectionScore
from sslnet.net.net import Net
from sslnet.solver.callbacks import Outputs, outputs_of
from sslnet.solver.data_errors import DataErrors


def mean_outputs(
    net: Net, param: Any, index: int, errors: DataErrors, before: Mapping[str, bytes], stops: Callable[[], bool]
) -> tuple[Outputs, float] | None:
    """The outputs and the loss of test net ``index``, averaged over its batches; None if a stop was requested before the last
    one.

    param   SolverParameter: test_iter, ap_version, show_per_class_result
    before  the states of the net's layers, which a stop restores, so that the resumed run repeats this test, not half of it
    stops   whether a stop is requested, asked before each batch
    """
    loss, count, outputs = 0.0, errors.count, TestOutputs(net, param)
    for _ in range(param.test_iter[index]):
        if stops():
            net.set_layer_states(dict(before))
            errors.count = count
            return None
        errors.forward(net)
        loss += net.loss
        outputs.add()
    return outputs.means(), loss / param.test_iter[index]


class TestOutputs:
    """Collects the outputs of a net after each batch.

    param  SolverParameter: ap_version, show_per_class_result
    """

    __test__ = False  # not a class of tests

    def __init__(self, net: Net, param: Any) -> None:
        self._net, self._param = net, param
        self._score = DetectionScore(net)
        self._sums: list[float] = []
        self._batches = 0

    def add(self) -> None:
        """Adds the outputs of the last forward pass."""
        values = [value for _, value, _ in self._plain()]
        self._sums = [a + b for a, b in zip(self._sums, values)] if self._sums else values
        self._score.add()
        self._batches += 1

    def means(self) -> Outputs:
        """(name, value, loss weight) of each output: its mean; of a DetectionEvaluate the mean average precision, and with
        show_per_class_result that of each class."""
        means = [(name, total / self._batches, weight) for (name, _, weight), total in zip(self._plain(), self._sums)]
        version = self._param.ap_version
        for name in self._score.names:
            means.append((name, self._score.mean(name, version), 0.0))
            if self._param.show_per_class_result:
                classes = self._score.classes(name, version)
                means += [(f"{name} class {label}", value, 0.0) for label, value in classes.items()]
        return means

    def _plain(self) -> Outputs:
        return outputs_of(self._net, without=self._score.names)
