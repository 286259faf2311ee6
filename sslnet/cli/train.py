"""``sslnet train``: runs a solver, shows its progress, and prints the result and the next commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option, add_output_options
from sslnet.cli.signals import EFFECTS
from sslnet.cli.targets import add_target_options, read_targets
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.cli.log import RunLog
    from sslnet.cli.monitors import Memo
    from sslnet.compress.control.controller import StrengthController
    from sslnet.compress.pruning.cycles import PruningCycles
    from sslnet.net.net import Net
    from sslnet.prototxt import Definition
    from sslnet.solver.solver import Solver
    from sslnet.sparsity.measure import LayerSparsity, Sparsity
    from sslnet.sparsity.optimality import Certificate

HELP = "Trains a net by its solver definition: from scratch, from trained weights, or from a snapshot."
EXAMPLE = "sslnet train --solver solvers/digits_ssl.prototxt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver's prototxt")
    parser.add_argument("--snapshot", metavar="FILE", help="continue from this .solverstate, bit for bit")
    parser.add_argument("--weights", metavar="FILE[,FILE]", help="start from the weights of these .caffemodel files")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="override a solver field; may be repeated")  # fmt: skip
    add_target_options(parser)
    parser.add_argument("--certificate", type=int, metavar="N",
        help="at the end, report how close each group is to a stationary point, by the gradient of N batches")  # fmt: skip
    parser.add_argument("--level", type=int, metavar="N", help="level for the training net's include and exclude rules")
    parser.add_argument("--stage", metavar="A,B", help="stages for the training net's include and exclude rules")
    parser.add_argument("--sigint-effect", choices=EFFECTS, default="stop", help="what Ctrl-C does; default stop")
    parser.add_argument(
        "--sighup-effect", choices=EFFECTS, default="snapshot", help="what a hang-up does; default snapshot"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    add_deterministic_option(parser)
    parser.add_argument("--fallback-snapshot", metavar="DIR",
        help="folder for snapshots that cannot be written to snapshot_prefix, for example on a full disk")  # fmt: skip
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.monitors import LogMonitor, Memo, MetricsMonitor, Monitors, ScreenMonitor
    from sslnet.cli.options import use_threads
    from sslnet.cli.signals import signal_effects
    from sslnet.compress.control.controller import StrengthController
    from sslnet.compress.control.latency_model import compare_latency
    from sslnet.solver.measure_training import measure_training
    from sslnet.solver.solver import Solver
    from sslnet.sparsity.optimality import certify

    if args.snapshot and args.weights:
        raise UsageError("--snapshot and --weights exclude each other", hint="a snapshot has its own weights")
    check_kinds(args)
    use_threads(args.threads, args.deterministic)
    log, memo = RunLog(), Memo()
    definition = solver_definition(args)
    screen = ScreenMonitor(log) if log.terminal else LogMonitor(log)
    metrics = MetricsMonitor(resumed=bool(args.snapshot), log=log)
    weights = split_names(args.weights)
    show = screen.show if isinstance(screen, ScreenMonitor) else None
    with closing(screen, metrics), Compiling(log, show) as compiling:
        solver = Solver(
            definition,
            weights=weights,
            snapshot=args.snapshot,
            monitor=Monitors(screen, metrics, memo, compiling),
            measure=measure_training,
            lean=True,
            steering=(steering := make_steering(args, definition, log)),
            fallback=fallback_folder(args),
        )
        check_certificate(solver, args)
        introduce(solver, args, log)
        with (
            signal_effects(solver.request, log, args.sigint_effect, args.sighup_effect, compiling.give_up),
            log.stopping(lambda: solver.request("stop")),
        ):
            solver.solve()
            stopped = not solver.is_finished
            if not stopped and test_is_due(solver, memo):
                solver.test()
        certificates = None
        if args.certificate is not None and not stopped:  # who stops a run does not want to wait
            log(f"Certificate: the gradients of {args.certificate} batches at several points")
            metrics.write_certificates(certificates := certify(solver, args.certificate), args.certificate)
    lines = closing_lines(solver, memo, measure_training(solver), certificates, args)
    if steering is not None and not steering.met and not stopped:
        lines += ["", f"the target was not met: {steering.missed()}"]
        if isinstance(steering, StrengthController):
            lines[-1] += f"; {steering.targets.advice}"
    if solver.data_errors.count:
        lines += ["", f"batches skipped because of unusable data: {solver.data_errors.count}"]
    if isinstance(steering, StrengthController) and steering.targets.of == "speedup" and not stopped:
        lines += ["", f"compacted, the net runs {compare_latency(solver, steering.targets.batch)}"]
    if metrics.incomplete:
        lines += ["", metrics.incomplete]
    log.result(*lines)
    return log.exit_code(130 if stopped else 1 if steering is not None and not steering.met else 0)


def fallback_folder(args: argparse.Namespace) -> str | None:
    """The folder of ``--fallback-snapshot``, created before the run."""
    folder: str | None = args.fallback_snapshot
    if folder is not None:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--fallback-snapshot {folder}: {error.strerror or error}") from error
    return folder


def check_kinds(args: argparse.Namespace) -> None:
    """Checks that --weights and --snapshot name files of the right kind."""
    for path in split_names(args.weights):
        if path.removesuffix(".h5").endswith(".solverstate"):
            raise UsageError(f"--weights {path}: this is a solver's state", hint="use --snapshot to continue from it")
    if (args.snapshot or "").removesuffix(".h5").endswith(".caffemodel"):
        raise UsageError(
            f"--snapshot {args.snapshot}: these are weights alone", hint="use --weights to start from them"
        )


@contextlib.contextmanager
def closing(*monitors: Any) -> Iterator[None]:
    """Closes the monitors at the end of the block, also after an error."""
    try:
        yield
    finally:
        for monitor in monitors:
            if hasattr(monitor, "close"):
                monitor.close()


# -- before ------------------------------------------------------------------------------------------------------------


def solver_definition(args: argparse.Namespace) -> Definition:
    """The solver's definition with the overrides of the command line."""
    from sslnet import prototxt
    from sslnet.cli.options import stages

    definition = prototxt.apply_overrides(prototxt.read_solver(args.solver), args.overrides)
    state = definition.message.train_state
    if args.level is not None:
        state.level = args.level
    if args.stage is not None:
        state.stage.extend(stages(args.stage))
    return definition


def split_names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def introduce(solver: Solver, args: argparse.Namespace, log: RunLog) -> None:
    """Logs the solver's text, the memory of the run, and where it starts."""
    from sslnet import __version__, prototxt
    from sslnet.cli.notes import tell_data, tell_notes
    from sslnet.cli.options import tell_copied
    from sslnet.kernels.runtime.threads import num_threads
    from sslnet.report.units import count, size

    if not log.terminal:
        log(f"sslnet {__version__}")
        log("Initializing solver from parameters:", *prototxt.write(solver.param).rstrip("\n").split("\n"))
    net = solver.net
    tell_notes(solver.definition, net.definition, *(test.definition for test in solver.test_nets), log=log)
    tell_data(net, *solver.test_nets, log=log)
    taken = size(solver.memory())
    parameters = count(sum(param.blob.count for param in net.learnable))
    log(
        f'net "{net.name}": {parameters} parameters, {taken} of memory for blobs, parameters and update state; {num_threads()} threads, seed {solver.seed}'
    )
    if args.snapshot:
        log(f"Resuming from {args.snapshot} at iteration {solver.iter}")
    names = split_names(args.weights)
    for path, copied in zip(names, solver.copied[len(solver.copied) - len(names) :]):
        log(f"Finetuning from {path}")
        tell_copied(net, path, copied, log)


def make_steering(
    args: argparse.Namespace, solver: Definition, log: RunLog
) -> StrengthController | PruningCycles | None:
    """The controller for the targets, or the cycles of prune_param, if any. raises UsageError for targets out of range, or
    several"""
    from sslnet.compress.control.controller import StrengthController
    from sslnet.compress.pruning.cycles import pruning_cycles

    targets = read_targets(args)
    cycles = pruning_cycles(solver, log)
    if targets and cycles is not None:
        raise UsageError(
            f"--target-{targets.of} and prune_param exclude each other: both say what becomes zero",
            hint="prune_param { target_flops: 0.5 } prunes to a target, too",
        )
    return StrengthController(targets, log) if targets else cycles


def check_certificate(solver: Solver, args: argparse.Namespace) -> None:
    """Checks, before the run, that a certificate can be computed."""
    from sslnet.sparsity.optimality import is_certifiable

    if args.certificate is None:
        return
    if args.certificate < 1:
        raise UsageError(f"--certificate must be at least 1 batch, not {args.certificate}")
    if solver.steering is not None:
        targets = read_targets(args)
        raise UsageError(
            f"--certificate and {targets.options()[0] if targets else 'a target'} exclude each other",
            hint="the group lasso ends when the target is met, so there is nothing to certify",
        )
    if not is_certifiable(solver):
        raise UsageError(
            "--certificate: no parameter of the net that is trained has a group lasso",
            hint="set strengths in the solver and multipliers in the net: docs/prototxt.md",
        )


def test_is_due(solver: Solver, memo: Memo) -> bool:
    """Whether the run tests at all, and has not tested its last weights: max_iter need not be a time of a test. A run that
    was resumed behind the last such time has no test of its own yet, and ends as the uninterrupted one does."""
    param = solver.param
    tests = param.test_interval > 0 and (param.test_initialization or param.test_interval <= param.max_iter)
    done = sum(record.iteration == solver.iter for record in memo.tests.values())
    return tests and done < len(solver.test_nets)


# -- after -------------------------------------------------------------------------------------------------------------


def closing_lines(
    solver: Solver,
    memo: Memo,
    sparsity: Sparsity,
    certificates: list[Certificate] | None,
    args: argparse.Namespace,
) -> list[str]:
    """The lines at the end: test error, remaining groups of each layer, the snapshot, the next commands."""
    from sslnet.report import certificate_table, coupled_table, sparsity_table
    from sslnet.solver.snapshot import averaged_path
    from sslnet.sparsity.optimality import caveats

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [*test_lines(solver, memo), "", *sparsity_table(sparsity.layers).text(width).splitlines(), ""]
    if sparsity.coupled:
        lines += [*coupled_table(sparsity.coupled).text(width).splitlines(), ""]
    if certificates is not None:
        table = certificate_table(certificates, args.certificate, caveats(solver))
        lines += [*table.text(width).splitlines(), ""]
    weights = memo.weights
    if weights is None and solver.last_snapshot is not None:  # a run resumed where it had ended
        weights = solver.last_snapshot.replace(".solverstate", ".caffemodel")
    if weights is None:
        return [*lines, "no snapshot was written: the solver has snapshot_after_train: false"]
    lines += [f"snapshot: {weights}"]
    if solver.average:
        lines += [f"averaged weights, which were tested: {averaged_path(weights)}"]
    if solver.best.iteration >= 0:
        lines += [best_line(solver)]
    following = next_commands(solver, weights, sparsity.layers, args)
    return [*lines, "", "next:", *(f"  {command}" for command in following)] if following else lines


def best_line(solver: Solver) -> str:
    """The best test of the run, and why the run ended where it ended before max_iter."""
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.log import number
    from sslnet.solver.snapshot import best_path

    best, hdf5 = solver.best, solver.param.snapshot_format == pb.SolverParameter.HDF5
    path = best_path(solver.prefix, hdf5)
    line = f"best {best.name}: {number(best.value)}, at iteration {best.iteration}: {path}"
    if best.exhausted:
        line += f"; the run ended at iteration {solver.iter}, after {best.worse} tests without a better one (patience)"
    return line


def test_lines(solver: Solver, memo: Memo) -> list[str]:
    """The test error of each test net from its Accuracy layers, or its outputs if it has none."""
    from sslnet.cli.log import number
    from sslnet.cli.monitors import accuracies

    lines = []
    for index, record in memo.tests.items():
        names = accuracies(solver.test_nets[index])
        errors = [(name, 1 - value) for name, value, _ in record.outputs if name in names]
        if errors:
            told = ", ".join(
                f"{100 * error:.2f} %" + (f" ({name})" if len(errors) > 1 else "") for name, error in errors
            )
            line = f"test error: {told}"
        else:
            line = "test: " + ", ".join(f"{name} = {number(value)}" for name, value, _ in record.outputs[:10])
        which = f" (test net {index})" if len(memo.tests) > 1 else ""
        when = f", at iteration {record.iteration}" if record.iteration < solver.iter else ""
        lines.append(line + which + when)
    return lines


def is_learned_zero(layer: LayerSparsity) -> bool:
    """Whether compaction may remove something of the blob: rows or columns, or values under a group lasso such as scales."""
    rows_or_columns = any(kind is not None and kind.zero for kind in (layer.filters, layer.columns))
    return rows_or_columns or (layer.group_lasso is not None and not layer.elements.kept)


def next_commands(solver: Solver, weights: str, layers: list[LayerSparsity], args: argparse.Namespace) -> list[str]:
    """The next commands, ready to paste; empty if the net has no file of its own."""
    if not solver.is_finished:
        state = os.fspath(solver.last_snapshot or "")
        overrides = [word for override in args.overrides for word in ("--set", override)]
        targets = read_targets(args)
        overrides += targets.options() if targets else []
        return [shlex.join(["sslnet", "train", "--solver", args.solver, *overrides, "--snapshot", state])]
    commands = []
    train = net_options(solver.net)
    if train:
        small = weights.removesuffix(".h5").removesuffix(".caffemodel") + "_compact"
        second = ["--model2", f"{small}.prototxt", "--weights2", f"{small}.caffemodel"]
        if any(is_learned_zero(layer) for layer in layers):
            commands.append(["compact", *train, "--weights", weights])
            commands.append(["time", *train, "--weights", weights, *second])
        else:
            commands.append(["time", *train, "--weights", weights])
    for net, batches in zip(solver.test_nets, solver.param.test_iter):
        if batches and net_options(net):
            commands.append(["test", *net_options(net), "--weights", weights, "--iterations", str(batches)])
    return [shlex.join(["sslnet", *command]) for command in commands]


def net_options(net: Net) -> list[str]:
    """The options --model, --level and --stage that select the net; empty for a net without a file."""
    path = net.definition.path
    if path is None or not os.path.exists(path):
        return []
    near = os.path.relpath(path)
    options = ["--model", path if near.startswith("..") else near]
    if net.state.level:
        options += ["--level", str(net.state.level)]
    if net.state.stages:
        options += ["--stage", ",".join(net.state.stages)]
    return options
