"""``sslnet time``: times the layers of one net, of two nets, or of dense and sparse execution."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option, add_model_option, add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.cli.log import RunLog
    from sslnet.net.net import Net
    from sslnet.timing.layerwise import Timing
    from sslnet.timing.sparse_forms import FormTiming

HELP = "Times each layer of a net, forward and backward; compares two nets, or dense and sparse execution."
EXAMPLE = (
    "sslnet time --model models/digits/deploy.prototxt "
    "--weights snapshots/digits_ssl/digits_ssl_iter_3000.caffemodel --forms --batch 64"
)
FORMS = ("kept", "csr", "direct")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    parser.add_argument("--weights", metavar="FILE", help="its weights; default: values from its fillers")
    parser.add_argument("--model2", "--compare", metavar="FILE", help="a second net, timed in turns with the first")
    parser.add_argument("--weights2", metavar="FILE", help="the second net's weights")
    parser.add_argument("--forms", nargs="*", choices=FORMS, metavar="FORM",
        help="time layers with zero weights dense, with kept rows and columns alone (kept), and with single non-zero weights "
        "from a lowered matrix (csr) and from the image (direct); default: all of these")  # fmt: skip
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="number of timed runs; default 50")
    parser.add_argument("--batch", type=int, nargs="+", default=[], metavar="N",
        help="batch size; several values are timed one after the other; default: the net's")  # fmt: skip
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TRAIN", help="phase of the net; default TRAIN")
    parser.add_argument("--forward-only", action="store_true", help="skip the backward pass")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, nargs="+", default=[], metavar="N",
        help="number of threads; several values are timed one after the other; default: one per physical core")  # fmt: skip
    add_deterministic_option(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw a bar chart of the layers (.png, .pdf, .svg)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.options import use_threads
    from sslnet.report import dump_json

    check(args)
    results: list[Timing | FormTiming] = []
    interrupted = False
    for threads, batch in [(threads, batch) for threads in args.threads or [None] for batch in args.batch or [None]]:
        use_threads(threads, args.deterministic)
        try:
            result = measure(args, batch, first=not results)
        except KeyboardInterrupt:
            if not results:
                raise
            interrupted = True
            break
        results.append(result)
        if not args.json:
            show(result, first=len(results) == 1)
        interrupted = result.iterations < args.iterations
        if interrupted:
            break
    if args.json:
        found = [as_json(result) for result in results]
        print(dump_json(found[0] if len(args.threads) < 2 and len(args.batch) < 2 else {"timings": found}))
    if args.plot:
        plot(results, args.plot)
    if interrupted:
        print(f"interrupted after {results[-1].iterations} of {args.iterations} runs", file=sys.stderr)
    return 130 if interrupted else 0


def check(args: argparse.Namespace) -> None:
    """Checks the options. raises UsageError for options that are out of range or exclude each other"""
    if args.weights2 and not args.model2:
        raise UsageError("--weights2 needs --model2", hint="give the second net with --model2")
    if args.forms is not None and args.model2:
        raise UsageError("--forms times one net, but --model2 gives a second", hint="use one of them")
    for name, values in (("--iterations", [args.iterations]), ("--batch", args.batch), ("--threads", args.threads)):
        for value in values:
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
    if args.plot:
        from sslnet.report.plots import check_plot

        check_plot(args.plot)
        if not Path(args.plot).absolute().parent.is_dir():
            raise UsageError(f"--plot: there is no folder {Path(args.plot).parent}")


def measure(args: argparse.Namespace, batch: int | None, *, first: bool) -> Timing | FormTiming:
    """Measures the times with the present number of threads. first: print notes about the files"""
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.progress import progress
    from sslnet.net.steps.integer import is_quantized
    from sslnet.timing.layerwise import WARM_UP, time_nets
    from sslnet.timing.sparse_forms import time_forms

    log = RunLog()
    nets = [open_with(args, args.model, args.weights, batch, log if first else None)]
    if args.model2:
        nets.append(open_with(args, args.model2, args.weights2, batch, log if first else None))
    if first:
        tell_notes(*(net.definition for net in nets))
    forward_only = args.forward_only
    if any(is_quantized(layer) for net in nets for layer in net.layers):
        forward_only = forward_only or args.phase == "TEST"
        if first and args.phase == "TRAIN":
            log("quantised layers run in float in phase TRAIN: --phase TEST times their integer kernels")
    settings: dict[str, Any] = {"forward_only": forward_only, "partial": True}
    with Compiling(log), progress("runs", WARM_UP + args.iterations) as report:
        if args.forms is not None:
            return time_forms(nets[0], args.iterations, forms=args.forms or FORMS, on_run=report, **settings)
        peak = len(nets) == 1 or args.json  # the table of two nets has no share of it
        return time_nets(nets, args.iterations, peak=peak, on_run=report, **settings)


def open_with(args: argparse.Namespace, model: str, weights: str | None, batch: int | None, log: RunLog | None) -> Net:
    """Opens the net with its weights and logs layers without weights. raises WeightsError if no layer has any"""
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.options import stages, tell_copied
    from sslnet.timing.layerwise import open_net

    state = {"phase": pb.Phase.Value(args.phase), "level": args.level, "stages": stages(args.stage)}
    lean = args.phase == "TRAIN" or args.forward_only
    net = open_net(model, weights, batch=batch, lean=lean, **state)
    if log is not None and weights and net.copied is not None:
        tell_copied(net, weights, net.copied, log)
    return net


def show(result: Timing | FormTiming, *, first: bool) -> None:
    from sslnet.report import print_table
    from sslnet.report.forms import form_tables
    from sslnet.report.timing import timing_table
    from sslnet.timing.sparse_forms import FormTiming

    for k, table in enumerate(form_tables(result) if isinstance(result, FormTiming) else [timing_table(result)]):
        if k or not first:
            print()
        print_table(table)


def as_json(result: Timing | FormTiming) -> dict[str, Any]:
    from sslnet.report.timing_json import forms_json, timing_json
    from sslnet.timing.sparse_forms import FormTiming

    return forms_json(result) if isinstance(result, FormTiming) else timing_json(result)


def plot(results: list[Timing | FormTiming], file: str) -> None:
    from sslnet.report.forms import plot_forms
    from sslnet.report.timing import plot_timings
    from sslnet.timing.layerwise import Timing
    from sslnet.timing.sparse_forms import FormTiming

    if forms := [result for result in results if isinstance(result, FormTiming)]:
        plot_forms(forms, file)
    else:
        plot_timings([result for result in results if isinstance(result, Timing)], file)
