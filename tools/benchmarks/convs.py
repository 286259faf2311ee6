"""Convolution kernels: every shape and pass, against torch's eager NCHW and channels_last.

Ours packs its weights in every call, as in training. Share of peak: of the multiply-adds that the threads can do at most,
measured by a tile that runs on data in the first-level cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import Column, Row, best_ratio, own_times, ratio, times_of
from benchmarks.turns import OURS, compare
from sslnet.kernels.conv.plan import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.timing.roofline import peak_flops

HELP = "Convolutions: forward, gradients of input and weights."
SECONDS = 0.4

SHAPES: dict[str, tuple[Any, ...]] = {
    # batch, channels, height = width, filters, kernel, stride, pad, groups; kernel and pad: one number or (height, width)
    "lenet1": (64, 1, 28, 20, 5, 1, 0, 1),
    "lenet2": (64, 20, 12, 50, 5, 1, 0, 1),
    "cifar1": (100, 3, 32, 32, 5, 1, 2, 1),
    "cifar2": (100, 32, 16, 32, 5, 1, 2, 1),
    "cifar3": (100, 32, 8, 64, 5, 1, 2, 1),
    "cifar2_5x1": (100, 32, 16, 32, (5, 1), 1, (2, 0), 1),
    "cifar2_1x5": (100, 32, 16, 32, (1, 5), 1, (0, 2), 1),
    "cifar3_5x1": (100, 32, 8, 48, (5, 1), 1, (2, 0), 1),
    "cifar3_1x5": (100, 48, 8, 64, (1, 5), 1, (0, 2), 1),
    "resnet16": (128, 16, 32, 16, 3, 1, 1, 1),
    "resnet32": (128, 32, 16, 32, 3, 1, 1, 1),
    "resnet64": (128, 64, 8, 64, 3, 1, 1, 1),
    "resnet16to32": (128, 16, 32, 32, 3, 2, 1, 1),
    "alexnet1": (16, 3, 227, 96, 11, 4, 0, 1),
    "alexnet2": (16, 96, 27, 256, 5, 1, 2, 2),
    "alexnet3": (16, 256, 13, 384, 3, 1, 1, 1),
    "alexnet4": (16, 384, 13, 384, 3, 1, 1, 2),
    "alexnet5": (16, 384, 13, 256, 3, 1, 1, 2),
    "vgg": (8, 64, 56, 64, 3, 1, 1, 1),
    "digits1": (64, 1, 8, 16, 3, 1, 1, 1),
    "digits2": (64, 16, 8, 64, 5, 1, 2, 1),
    "inception1x1": (8, 192, 28, 64, 1, 1, 0, 1),
    "mobilenet_dw": (8, 64, 56, 64, 3, 1, 1, 64),
    "mobilenet_dw2": (8, 64, 112, 64, 3, 2, 1, 64),
    "mobilenet_pw": (8, 64, 56, 128, 1, 1, 0, 1),
}
PASSES = ("forward", "input", "weights")

COLUMNS = [
    Column("shape", 14, lambda row: row["what"], left=True),
    Column("pass", 8, lambda row: row["part"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("ours ms", 20, own_times),
    Column("GFLOP/s", 7, lambda row: f"{row['gflops']:.0f}"),
    Column("of peak", 7, lambda row: f"{row['share_of_peak']:.0%}"),
    Column("torch", 8, times_of("torch")),
    Column("ch.last", 8, times_of("channels_last")),
    Column("ratio", 17, ratio),
    Column("of best", 7, best_ratio),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME", help=", ".join(SHAPES)
    )
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=PASSES, metavar="PASS", help=", ".join(PASSES))


def measure(options: argparse.Namespace) -> Iterator[Row]:
    torch = None if options.alone else import_peer("torch")
    for threads in options.threads:
        use_threads(threads, torch)
        peak = peak_flops() / 1e9
        for name in options.shapes:
            for what in options.passes:
                if what != "input" or SHAPES[name][1] > 3:  # the first layer of a net needs no gradient of its input
                    yield _measure(name, what, threads, torch, peak, options)


def geometry_of(name: str, batch: int | None = None) -> ConvGeometry:
    """A shape of SHAPES, with another batch size if given."""
    images, channels, size, filters, kernel, stride, pad, groups = SHAPES[name]
    numbers = ((number, number) if isinstance(number, int) else number for number in (kernel, stride, pad, 1))
    twice = (number for both in numbers for number in both)
    return ConvGeometry(batch or images, channels, size, size, filters, *twice, groups)


def _measure(name: str, what: str, threads: int, torch: Any, peak: float, options: argparse.Namespace) -> Row:
    g = geometry_of(name)
    contestants = {OURS: ours(what, g)} | (torch_ways(torch, what, g) if torch else {})
    row = {
        "what": name,
        "part": what,
        "threads": threads,
        "peak": peak,
        "taps": g.channels // g.groups * g.kernel_h * g.kernel_w,
    }
    row |= compare(contestants, options.seconds, threads=threads, rounds=options.rounds)
    gflops = g.flops / row["times"][OURS]["median"] / 1e6
    return row | {"gflops": gflops, "share_of_peak": gflops / peak}


def ours(what: str, g: ConvGeometry) -> Callable[[], object]:
    x, weights, dy = (filled(shape) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    if what == "forward":
        forward, y, bias = plan_forward(g), aligned_empty(g.output_shape), aligned_zeros(g.filters)
        return lambda: (forward.pack(weights, bias), forward.run(x, y))
    if what == "input":
        backward, dx = plan_input_grad(g), aligned_empty(g.input_shape)
        return lambda: (backward.pack(weights), backward.run(dy, dx))
    grad, dw, db = plan_weight_grad(g), aligned_zeros(g.weight_shape), aligned_zeros(g.filters)
    return lambda: grad.run(x, dy, dw, db, accumulate=False)


def torch_ways(torch: Any, what: str, g: ConvGeometry) -> dict[str, Callable[[], object]]:
    return {
        "torch": torch_way(torch, what, g, torch.contiguous_format),
        "channels_last": torch_way(torch, what, g, torch.channels_last),
    }


def torch_way(torch: Any, what: str, g: ConvGeometry, layout: Any) -> Callable[[], object]:
    shapes = (g.input_shape, g.weight_shape, g.output_shape)
    x, weights, dy = (torch.from_numpy(filled(shape)).to(memory_format=layout) for shape in shapes)
    bias = torch.zeros(g.filters)
    stride, pad, dilation = [g.stride_h, g.stride_w], [g.pad_h, g.pad_w], [g.dilation_h, g.dilation_w]

    def forward() -> Any:
        with torch.no_grad():
            return torch.nn.functional.conv2d(x, weights, bias, stride, pad, dilation, g.groups)

    def backward() -> Any:
        wanted = [what == "input", what == "weights", what == "weights"]
        return torch.ops.aten.convolution_backward(
            dy, x, weights, [g.filters], stride, pad, dilation, False, [0, 0], g.groups, wanted
        )

    return forward if what == "forward" else backward


def filled(shape: tuple[int, ...]) -> np.ndarray:
    """An aligned array of normal random numbers."""
    array = aligned_empty(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return array
