"""``sslnet quantize``: makes a net that runs with whole numbers, and says what it costs and how fast it is here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sslnet.compress.evaluation import Score
    from sslnet.compress.quantization.measure import Speed
    from sslnet.compress.quantization.quantize import Quantized
    from sslnet.compress.quantization.sensitivity import LayerCost

HELP = "Quantises a trained net to 2 to 8 bits with a few images without labels; it then runs with integer kernels."
EXAMPLE = (
    "sslnet quantize --model models/digits/train_test.prototxt "
    "--weights snapshots/digits/digits_iter_1200.caffemodel --calibrate 100 --bits 8"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the net with its data (train_test.prototxt, train_val.prototxt)"
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel)")
    parser.add_argument("--calibrate", type=int, default=100, metavar="N",
        help="images of phase TRAIN that ranges of values are taken from, without labels; default 100")  # fmt: skip
    parser.add_argument("--bits", default="8", metavar="B",
        help="bits, 2 to 8, of weights and activations; 4/8: of weights / of activations; default 8")  # fmt: skip
    parser.add_argument("--layers", default="", metavar="NAME=B,...",
        help="layers with bits of their own, as conv2=4/8; NAME=float: not quantised")  # fmt: skip
    parser.add_argument("--range", default="minmax", choices=("minmax", "mse"),
        help="ranges of activations: those of the images, or the part with the least squared error; default minmax")  # fmt: skip
    parser.add_argument("--round", choices=("nearest", "second-order"),
        help="weights: the nearest numbers, or those with the least error of the layer's outputs; default: second-order "
        "below 8 bits")  # fmt: skip
    parser.add_argument("--target", default="this", choices=("this", "vnni", "avx2", "any"),
        help="machine to make the net for: where products of 8-bit weights are slow (avx2, any), --bits 8 means weights of "
        "7 bits; default: this machine")  # fmt: skip
    parser.add_argument("--sweep", action="store_true", help="also quantise each layer alone, and print what it costs")
    parser.add_argument("--target-error", type=float, metavar="P",
        help="percentage points that the test error may rise: the layers that cost most get weights of 8 bits (7 by --target) "
        "until it holds")  # fmt: skip
    parser.add_argument("--iterations", type=int, metavar="N", help="test batches; default: all test data once, or 50")
    parser.add_argument("--no-test", action="store_true", help="do not measure the test error")
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt, PREFIX_deploy.prototxt, PREFIX.caffemodel; "
        "a folder takes the weights' name; default: beside the weights, with _quantized",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed that draws the images; default 0")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.inputs import read_model
    from sslnet.api.net_result import NetResult
    from sslnet.cli.compact import file_size_line, output_prefix
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages, use_threads
    from sslnet.compress.quantization.bit_widths import parse_bits, parse_layers, weight_bits_for
    from sslnet.compress.quantization.measure import error_of, scores, speeds
    from sslnet.compress.quantization.quantize import prepare
    from sslnet.compress.quantization.sensitivity import choose_bits, sweep
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.quantization import comparison_table, cost_table, quantization_table

    use_threads(args.threads)
    bits, own = parse_bits(args.bits, args.target, "--bits"), parse_layers(stages(args.layers), args.target)
    if args.target_error is not None and not 0 <= args.target_error < 100:
        raise UsageError(f"--target-error must be 0 to 100 percentage points, not {args.target_error:g}")
    if args.target_error is not None and args.no_test:
        raise UsageError("--target-error needs the test error: not with --no-test")
    if args.iterations is not None and args.iterations < 1:
        raise UsageError(f"--iterations must be at least 1, not {args.iterations}")
    prefix = output_prefix(args.model, args.weights, args.output, "_quantized")
    definition, log = read_model(read_net(args.model)), RunLog()
    tell_notes(definition)
    rules: dict[str, Any] = {"level": args.level, "stages": stages(args.stage)}
    ways: dict[str, Any] = {"method": args.range, "rounding": args.round}
    calibration = prepare(definition, args.weights, images=args.calibrate, seed=args.seed, tell=log, **rules)
    costs = None
    if args.sweep or args.target_error is not None:
        costs = sweep(calibration, bits, own, tell=log, **ways)
    if args.target_error is not None:
        assert costs is not None
        before, error = error_of(definition, args.weights, batches=args.iterations, seed=args.seed, **rules)
        most, high = before + args.target_error / 100, weight_bits_for(args.target)
        result = choose_bits(calibration, bits, own, costs, error, most, high, tell=log, **ways)
    else:
        result = calibration.quantize(bits, own, tell=log, **ways)
    paths = NetResult(result.message, result.weights, result, result.deploy, definition.path).save(prefix)
    compared = None
    if not args.no_test:
        log("measuring error and time")
        compared = scores(definition, args.weights, result, batches=args.iterations, seed=args.seed, **rules)
    times = speeds(definition, args.weights, result, (1, 16), seed=args.seed, **rules)
    if args.json:
        print(dump_json(as_json(args, result, paths, costs, compared, times)))
        return 0
    if costs is not None and args.sweep:
        print_table(cost_table(costs))
        print()
    print_table(quantization_table(result))
    print()
    print_table(comparison_table(compared, times))
    print(
        "\n".join(
            ["", "wrote", *(f"  {path}" for path in paths.values()), file_size_line(args.weights, paths["weights"])]
        )
    )
    return 0


def as_json(
    args: argparse.Namespace, result: Quantized, paths: dict[str, str], costs: Sequence[LayerCost] | None,
    compared: tuple[Score, Score] | None, times: Sequence[Speed],
) -> dict[str, Any]:  # fmt: skip
    def widths(bits: Any) -> dict[str, int] | None:
        return None if bits is None else {"weights": bits.weights, "activations": bits.activations}

    return {
        "model": args.model,
        "weights": args.weights,
        "output": paths,
        "images": result.images,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "bits": widths(layer.bits),
                "range": layer.range,
                "rounding": layer.rounding or None,
                "signal_to_noise_db": layer.noise if layer.noise != float("inf") else None,
                "bytes": {"before": layer.parameters[0], "after": layer.parameters[1]},
            }
            for layer in result.layers
        ],
        "folded": result.folded,
        "float_between": [{"name": name, "type": kind} for name, kind in result.islands],
        "costs": None
        if costs is None
        else [{"name": c.name, "bits": widths(c.bits), "change": c.change, "bytes_saved": c.saved} for c in costs],
        "test": None if compared is None else {"before": vars(compared[0]), "after": vars(compared[1])},
        "times": [{**vars(speed), "ratio": speed.ratio} for speed in times],
        "notes": result.notes,
    }
