"""Convolutions of bytes: our integer kernels against our own float32 and onnxruntime's int8.

Ours: u8 NHWC in and out, weights packed once, requantised with ReLU. float32: the same shape, weights packed once, ReLU.
onnxruntime: QLinearConv with channels_last, weights of the same bits; it must give our integers, but for one rounding, unless it
saturates. Weights have 8 bits where the machine multiplies them at full speed, else 7.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.arguments import positive
from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import Column, Row, own_times, times_of
from benchmarks.turns import OURS, compare
from sslnet.kernels.conv.plan import ConvGeometry, plan_forward
from sslnet.kernels.quantized.convolution import plan_quantized
from sslnet.kernels.quantized.dot import best_weight_bits
from sslnet.kernels.quantized.packing import pixel_bytes
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.net.integer_weights import largest

HELP = "Convolutions of bytes, for one image and for 16."
SECONDS = 0.3

SHAPES: dict[str, tuple[int, ...]] = {
    # channels, height = width, filters, kernel, pad, groups
    "lenet2": (20, 12, 50, 5, 0, 1),
    "cifar2": (32, 16, 32, 5, 2, 1),
    "cifar3": (32, 8, 64, 5, 2, 1),
    "resnet16": (16, 32, 16, 3, 1, 1),
    "resnet32": (32, 16, 32, 3, 1, 1),
    "resnet64": (64, 8, 64, 3, 1, 1),
    "alexnet2": (96, 27, 256, 5, 2, 2),
    "alexnet3": (256, 13, 384, 3, 1, 1),
    "alexnet4": (384, 13, 384, 3, 1, 2),
    "alexnet5": (384, 13, 256, 3, 1, 2),
    "mobilenet_pw28": (128, 28, 128, 1, 0, 1),
    "mobilenet_pw14": (512, 14, 512, 1, 0, 1),
    "mobilenet_pw7": (1024, 7, 1024, 1, 0, 1),
}


def _by(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row['by'][name]:.2f}" if name in row["by"] else ""


COLUMNS = [
    Column("shape", 15, lambda row: row["what"], left=True),
    Column("images", 6, lambda row: row["part"].removeprefix("batch ")),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("kernel", 14, lambda row: row["kernel"], left=True),
    Column("ours ms", 20, own_times),
    Column("GMAC/s", 7, lambda row: f"{row['gmacs']:.0f}"),
    Column("float32", 8, times_of("float32")),
    Column("of float32", 10, _by("float32")),
    Column("ort int8", 8, times_of("onnxruntime")),
    Column("of ort int8", 11, _by("onnxruntime")),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME", help=", ".join(SHAPES)
    )
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 16], metavar="N", help="default 1 16")


def measure(options: argparse.Namespace) -> Iterator[Row]:
    ort = None if options.alone else import_peer("onnxruntime")
    for threads in options.threads:
        use_threads(threads)
        for batch in options.batches:
            ratios: dict[str, list[float]] = {}
            for name in options.shapes:
                row = _measure(name, batch, threads, ort, options)
                for other, ratio in row["by"].items():
                    ratios.setdefault(other, []).append(ratio)
                yield row
            for other, found in ratios.items():
                print(f"{batch} images: geometric mean {statistics.geometric_mean(found):.3f} of {other}", flush=True)


def _measure(name: str, batch: int, threads: int, ort: Any, options: argparse.Namespace) -> Row:
    channels, size, filters, kernel, pad, groups = SHAPES[name]
    g = ConvGeometry(batch, channels, size, size, filters, kernel, kernel, pad_h=pad, pad_w=pad, groups=groups)
    random = np.random.default_rng(0)
    most = largest(best_weight_bits())
    weights = random.integers(-most, most + 1, g.weight_shape)
    scale = np.full(filters, 2 / (most * np.sqrt(weights[0].size) * 10), np.float32)
    x = aligned_zeros((batch, size, size, pixel_bytes(channels)), np.uint8)
    x[..., :channels] = random.integers(0, 256, (batch, size, size, channels))
    plan = plan_quantized(g, weight_most=most)
    plan.pack(weights, np.zeros(filters, np.int64), scale)
    y = aligned_zeros((batch, g.out_h, g.out_w, plan.out_step), np.uint8)
    ways: dict[str, Callable[[], object]] = {OURS: lambda: plan.run(x, y)}
    forward = plan_forward(g, relu=True)
    forward.pack(weights.astype(np.float32), aligned_zeros(filters))
    xf, yf = aligned_zeros(g.input_shape), aligned_empty(g.output_shape)
    xf[...] = random.standard_normal(g.input_shape)
    ways["float32"] = lambda: forward.run(xf, yf)
    if ort is not None:
        ways["onnxruntime"] = _onnx_way(
            g, weights, scale, np.ascontiguousarray(x[..., :channels]), y, plan, ort, threads
        )
    row: Row = {"what": name, "part": f"batch {batch}", "threads": threads, "kernel": plan.kernel}
    row |= compare(ways, options.seconds, threads=threads, rounds=options.rounds)
    times = row["times"]
    row["by"] = {other: times[other]["ratio"] for other in times if other != OURS}
    return row | {"gmacs": g.flops / 2e6 / times[OURS]["median"]}


def _onnx_way(
    g: ConvGeometry,
    weights: np.ndarray,
    scale: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    plan: Any,
    ort: Any,
    threads: int,
) -> Callable[[], object]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    arrays = {
        "xs": np.float32(1), "xz": np.uint8(0), "w": weights.astype(np.int8), "ws": scale,
        "wz": np.zeros(g.filters, np.int8), "ys": np.float32(1), "yz": np.uint8(0),
    }  # fmt: skip
    node = helper.make_node(
        "QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"], domain="com.microsoft",
        channels_last=1, kernel_shape=[g.kernel_h, g.kernel_w], pads=[g.pad_h, g.pad_w] * 2, group=g.groups,
    )  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name, shape in (("x", x.shape), ("y", (g.batch, g.out_h, g.out_w, g.filters)))
    ]
    graph = helper.make_graph(
        [node], "conv", ends[:1], ends[1:], [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=sets, ir_version=9)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    padded = np.zeros((*x.shape[:3], plan.source_step), np.uint8)
    padded[..., : x.shape[3]] = x
    plan.run(padded, y)
    if np.abs(found.astype(int) - y[..., : g.filters]).max() > 1:
        print("onnxruntime saturates here, or computes something else")
    return lambda: session.run(None, {"x": x})
