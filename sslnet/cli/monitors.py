"""Monitors of the solver in ``sslnet train``: the log in Caffe's format, the live display, metrics.jsonl.

Each is a ``sslnet.solver.callbacks.Monitor``; ``Monitors`` forwards to all of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet import prototxt
from sslnet.cli import metrics
from sslnet.cli.live import Live
from sslnet.cli.log import RunLog, loss_part, number
from sslnet.errors import RunError
from sslnet.report import coupled_table, sparsity_summary, sparsity_table, tied
from sslnet.solver.callbacks import Best, Display, Monitor, Test
from sslnet.solver.measure_training import measure_training

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sslnet.net.net import Net
    from sslnet.prototxt import Diagnostic
    from sslnet.solver.callbacks import Training
    from sslnet.sparsity.measure import LayerSparsity, Sparsity
    from sslnet.sparsity.optimality import Certificate


class Monitors(Monitor):
    """Forwards every event to several monitors, in their order."""

    def __init__(self, *monitors: Monitor) -> None:
        self.monitors = monitors

    def on_warning(self, note: Diagnostic) -> None:
        for monitor in self.monitors:
            monitor.on_warning(note)

    def on_start(self, solver: Training) -> None:
        for monitor in self.monitors:
            monitor.on_start(solver)

    def on_iteration(self, iteration: int, loss: float) -> None:
        for monitor in self.monitors:
            monitor.on_iteration(iteration, loss)

    def on_display(self, record: Display) -> None:
        for monitor in self.monitors:
            monitor.on_display(record)

    def on_test(self, record: Test) -> None:
        for monitor in self.monitors:
            monitor.on_test(record)

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        for monitor in self.monitors:
            monitor.on_snapshot(iteration, weights, state)

    def on_best(self, record: Best) -> None:
        for monitor in self.monitors:
            monitor.on_best(record)

    def on_debug(self, line: str) -> None:
        for monitor in self.monitors:
            monitor.on_debug(line)

    def on_finish(self, solver: Training, stopped: bool) -> None:
        for monitor in self.monitors:
            monitor.on_finish(solver, stopped)


class LogMonitor(Monitor):
    """Caffe's log lines, word for word as its parse_log expects them, and tables of remaining groups between them."""

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.interval = 0
        self.last = 0
        self.solver: Training | None = None

    def on_warning(self, note: Diagnostic) -> None:
        self.log(*str(note).split("\n"))

    def on_start(self, solver: Training) -> None:
        self.solver = solver
        self.interval, self.last = solver.param.display, solver.param.max_iter
        self.log(f"Solving {solver.net.name}")
        self.log(f"Learning Rate Policy: {solver.param.lr_policy}")
        for line in lines_at_start(solver):
            self.log(line)

    def on_display(self, record: Display) -> None:
        if record.iteration >= self.last:
            self.log(f"Iteration {record.iteration}, loss = {number(record.loss)}")
            return
        speed = record.iterations / record.seconds if record.seconds else 0.0
        pace = f"({number(speed)} iter/s, {number(record.seconds)}s/{self.interval} iters)"
        self.log(f"Iteration {record.iteration} {pace}, loss = {number(record.loss)}")
        for index, (name, value, weight) in enumerate(record.outputs):
            self.log(f"    Train net output #{index}: {name} = {number(value)}{loss_part(value, weight)}")
        if record.penalty:
            self.log(f"    Group lasso: {number(record.penalty)}")
        if record.sparsity is not None:
            for line in sparsity_lines(record.sparsity):
                self.log(f"    {line}")
        self.log(f"Iteration {record.iteration}, lr = {number(record.rate)}")

    def on_test(self, record: Test) -> None:
        self.log(f"Iteration {record.iteration}, Testing net (#{record.net})")
        if record.loss is not None:
            self.log(f"Test loss: {number(record.loss)}")
        for index, (name, value, weight) in enumerate(record.outputs):
            self.log(f"    Test net output #{index}: {name} = {number(value)}{loss_part(value, weight)}")

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        self.log(f"Snapshotting to {weights}")
        self.log(f"Snapshotting solver state to {state}")
        for line in lines_at_snapshot(self.solver):
            self.log(f"    {line}")

    def on_best(self, record: Best) -> None:
        self.log(f"Best {record.name} so far = {number(record.value)}, weights in {record.weights}")

    def on_debug(self, line: str) -> None:
        self.log(line)

    def on_finish(self, solver: Training, stopped: bool) -> None:
        self.log("Optimization stopped early." if stopped else "Optimization Done.")


class ScreenMonitor(Monitor):
    """Interactive terminal: a progress bar, and one line for each test, snapshot and warning."""

    PAUSE = 0.1
    """Seconds between two updates of the bar."""

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.live: Live | None = None
        self.solver: Training | None = None
        self.errors: list[dict[str, str]] = []
        self.moved = 0.0

    def show(self, text: str) -> None:
        """Shows a text below the bar instead of loss and rate; "" shows these again."""
        if self.live is not None:
            self.live.tell(text)

    def on_warning(self, note: Diagnostic) -> None:
        self.log(*str(note).split("\n"))

    def on_start(self, solver: Training) -> None:
        self.solver = solver
        self.errors = [accuracies(net) for net in solver.test_nets]
        for line in lines_at_start(solver):
            self.log(line)
        self.live = Live(self.log, solver.net.name, solver.iter, solver.param.max_iter)
        self.live.open()

    def on_iteration(self, iteration: int, loss: float) -> None:
        now = time.monotonic()
        if self.live is not None and now - self.moved >= self.PAUSE:
            self.moved = now
            self.live.show(iteration, loss=f"{loss:.4g}")

    def on_display(self, record: Display) -> None:
        values = {"loss": f"{record.loss:.4g}", "lr": number(record.rate)}
        if record.sparsity is not None and record.sparsity.sought:
            values["filters"] = sparsity_summary(record.sparsity.layers)
        if self.live is not None:
            self.live.show(record.iteration, **values)

    def on_test(self, record: Test) -> None:
        outputs = ", ".join(f"{name} = {number(value)}" for name, value, _ in record.outputs[:10])
        self.log(f"Iteration {record.iteration}, test: {outputs}")
        names = self.errors[record.net] if record.net < len(self.errors) else {}
        error = next((1 - value for name, value, _ in record.outputs if name in names), None)
        if self.live is not None and error is not None:
            self.live.show(record.iteration, test_error=f"{100 * error:.2f} %")

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        self.log(f"Iteration {iteration}, snapshot: {weights}")
        for line in lines_at_snapshot(self.solver):
            self.log(line)

    def on_best(self, record: Best) -> None:
        self.log(f"Iteration {record.iteration}, best {record.name} so far: {record.weights}")

    def on_debug(self, line: str) -> None:
        self.log(line)

    def on_finish(self, solver: Training, stopped: bool) -> None:
        self.close()

    def close(self) -> None:
        """Removes the bar, also after an error."""
        if self.live is not None:
            self.live.close()


class MetricsMonitor(Monitor):
    """Writes metrics.jsonl beside the snapshots. If it cannot be written, the log says so and the run continues."""

    def __init__(self, resumed: bool, log: Callable[[str], object] = lambda line: None) -> None:
        self.resumed, self.log = resumed, log
        self.file: metrics.Metrics | None = None
        self.solver: Training | None = None
        self.started = 0.0
        self.incomplete = ""
        """A sentence with the file and the cause, once the file could not be written."""

    def on_start(self, solver: Training) -> None:
        self.solver, self.started = solver, time.monotonic()
        path = Path(solver.prefix).parent / metrics.NAME
        header = metrics.header(prototxt.write(solver.param), solver.prefix, solver.seed)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = metrics.Metrics(path, header, solver.iter if self.resumed else None)
        except (OSError, RunError) as error:
            self._give_up(path, error)

    def on_display(self, record: Display) -> None:
        self._write(
            "train",
            iteration=record.iteration,
            loss=record.loss,
            lr=record.rate,
            outputs=by_name(record.outputs),
            penalty=record.penalty,
            **fields_of(record.sparsity),
        )

    def on_test(self, record: Test) -> None:
        loss = {} if record.loss is None else {"loss": record.loss}
        self._write("test", iteration=record.iteration, net=record.net, outputs=by_name(record.outputs), **loss)

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        sparsity = measure_training(self.solver) if self.solver is not None else None
        self._write("snapshot", iteration=iteration, weights=weights, state=state, **fields_of(sparsity))

    def on_best(self, record: Best) -> None:
        self._write("best", iteration=record.iteration, output=record.name, value=record.value, weights=record.weights)

    def write_certificates(self, certificates: Sequence[Certificate], batches: int) -> None:
        """Writes a line with the residual of each group."""
        found = [{"lambda_max": found.lambda_max, "groups": found.groups} for found in certificates]
        iteration = self.solver.iter if self.solver is not None else 0
        self._write("certificate", iteration=iteration, batches=batches, penalties=found)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _write(self, kind: str, **fields: Any) -> None:
        if self.file is None:
            return
        try:
            self.file.write(kind, seconds=round(time.monotonic() - self.started, 3), **fields)
        except OSError as error:
            file, self.file = self.file, None
            file.close()
            self._give_up(file.path, error)

    def _give_up(self, path: Path, error: OSError | RunError) -> None:
        cause = error.__cause__ if isinstance(error, RunError) else error
        reason = getattr(cause, "strerror", None) or str(error)
        self.incomplete = f"warning: the metrics are incomplete: {path} cannot be written: {reason}"
        self.log(f"{self.incomplete}; the run continues without them")


class Memo(Monitor):
    """Keeps what the end of a run reports: the last test of each net and the weights of the last snapshot."""

    def __init__(self) -> None:
        self.tests: dict[int, Test] = {}
        self.weights: str | None = None

    def on_test(self, record: Test) -> None:
        self.tests[record.net] = record

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        self.weights = weights


def by_name(outputs: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Outputs by name: a number, or a list where an output has several values."""
    values: dict[str, Any] = {}
    for name, value, _ in outputs:
        values.setdefault(name, []).append(value)
    return {name: items[0] if len(items) == 1 else items for name, items in values.items()}


def fields_of(sparsity: Sparsity | None) -> dict[str, Any]:
    """The fields ``sparsity``, by blob, and ``coupled``, by the layer that declares coupled groups; see docs/cli.md."""
    if sparsity is None:
        return {}
    coupled = {
        family.name: {name: getattr(family, name) for name in ("groups", "makers", "readers", "group_lasso")}
        for family in sparsity.coupled
    }
    blobs = {layer.name: parts(layer) for layer in sparsity.layers}
    return {"sparsity": blobs, "coupled": coupled} if coupled else {"sparsity": blobs}


KINDS = ("elements", "filters", "channels", "columns", "blocks", "parameters", "flops", "group_lasso", "weight_decay")


def parts(layer: LayerSparsity) -> dict[str, Any]:
    """The non-zero parts of a blob, as {"kept", "total"}, and its regularisation; fields without a value are missing."""
    found = {name: getattr(layer, name) for name in KINDS}
    if not layer.flops.total:
        del found["flops"]
    return {name: value for name, value in found.items() if value is not None and value != ()}


def sparsity_lines(sparsity: Sparsity) -> list[str]:
    """The tables of remaining groups if a run has a penalty; otherwise one line of filters."""
    if not sparsity.sought:
        return [f"Filters left: {sparsity_summary(sparsity.layers)}"]
    text = sparsity_table(sparsity.layers).text()
    if sparsity.coupled:
        text += coupled_table(sparsity.coupled, explained=False).text()
    return text.splitlines()


def lines_at_start(solver: Training) -> list[str]:
    """The coupled layers, if groups are coupled."""
    coupled = measure_training(solver).coupled if any(each.coupled for each in solver.penalties) else []
    return (
        ["Coupled groups, channel by channel:", *(line for c in coupled for line in tied(c).splitlines())]
        if coupled
        else []
    )


def lines_at_snapshot(solver: Training | None) -> list[str]:
    """The tables at a snapshot, if a run has a penalty and continues; the result has those of the end."""
    if solver is None or solver.iter >= solver.param.max_iter:
        return []
    sparsity = measure_training(solver)
    return sparsity_lines(sparsity) if sparsity.sought else []


def accuracies(net: Net) -> dict[str, str]:
    """{output: layer} of the net's Accuracy layers."""
    return {names[0]: layer.name for layer, names in zip(net.layers, net.top_names) if layer.TYPE == "Accuracy"}
