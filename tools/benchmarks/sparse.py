"""AlexNet's convolutions with the zeros that the SSL paper reports, whole layers, compared with dense ones of sslnet.

    structure   rows and columns of the weight matrix that are zero throughout, at random places
    lowered     single weights that are zero (l1), multiplied from a lowered matrix
    direct      the same, from the padded image

Weights are packed once, as for inference. "dense" is the dense layer as it runs, through Winograd's transforms where they
are faster; "product" the dense layer without them, which does the multiply-adds that the limit counts: dense FLOPs by those
that are left. The paper's speedups are of the matrix product alone.

Ref: Wen et al. 2016, table 4 (AlexNet, CPU)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.arguments import positive
from benchmarks.convs import filled, geometry_of
from benchmarks.machine import use_threads
from benchmarks.tables import Column, Row, own_times, times_of
from benchmarks.turns import OURS, compare
from sslnet.kernels.conv.plan import ConvGeometry, plan_forward, plan_unstructured
from sslnet.kernels.runtime.memory import aligned_empty

HELP = "Convolutions with zeros at the paper's levels, against dense ones."
SECONDS = 0.4
WAYS = ("structure", "lowered", "direct")


@dataclass(frozen=True)
class Level:
    """Shares of zeros, and the paper's speedups: of columns and rows, and of single weights."""

    columns: float
    rows: float
    weights: float
    paper: float
    paper_weights: float


LAYERS = {
    "conv1": Level(0.0, 0.094, 0.676, 1.05, 0.80),
    "conv2": Level(0.632, 0.129, 0.924, 3.37, 2.91),
    "conv3": Level(0.769, 0.406, 0.972, 6.27, 4.84),
    "conv4": Level(0.847, 0.469, 0.966, 9.73, 3.83),
    "conv5": Level(0.807, 0.0, 0.943, 4.93, 2.76),
}


def _speedup(other: str) -> Callable[[Row], str]:
    return lambda row: f"{row['times'][other]['median'] / row['times'][OURS]['median']:.2f}"


COLUMNS = [
    Column("layer", 6, lambda row: row["what"], left=True),
    Column("zeros", 20, lambda row: row["part"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("sparse ms", 20, own_times),
    Column("dense", 7, times_of("dense")),
    Column("product", 7, times_of("product")),
    Column("speedup", 7, _speedup("dense")),
    Column("of product", 10, _speedup("product")),
    Column("limit", 5, lambda row: f"{row['limit']:.2f}"),
    Column("paper", 5, lambda row: f"{row['paper']:.2f}"),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--convs", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="LAYER", help=", ".join(LAYERS)
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 16], metavar="N", help="default 1 16")


def measure(options: argparse.Namespace) -> Iterator[Row]:
    for threads in options.threads:
        use_threads(threads)
        for name in options.convs:
            for batch in options.batches:
                geometry = geometry_of(name.replace("conv", "alexnet"), batch)
                for way in options.ways:
                    yield _measure(name, geometry, way, threads, options)


def _measure(name: str, g: ConvGeometry, way: str, threads: int, options: argparse.Namespace) -> Row:
    level = LAYERS[name]
    structured = way == "structure"
    weights = zero_structure(g, level) if structured else zero_weights(g, level.weights)
    x, y = filled(g.input_shape), aligned_empty(g.output_shape)
    contestants: dict[str, Callable[[], object]] = {}
    for other, plan in plans(g, way, weights).items():
        plan.pack(weights if other == OURS else filled(g.weight_shape), np.zeros(g.filters, np.float32))
        contestants[other] = lambda plan=plan: plan.run(x, y)
    check(name, way, contestants, plans(g, way, weights)["dense"], weights, x, y)
    row = {"what": name, "part": f"{way} batch {g.batch}", "threads": threads}
    row |= {
        "limit": weights.size / float(np.count_nonzero(weights)),
        "paper": level.paper if structured else level.paper_weights,
    }
    return row | compare(contestants, options.seconds, threads=threads, rounds=options.rounds)


def plans(g: ConvGeometry, way: str, weights: np.ndarray) -> dict[str, Any]:
    from sslnet.kernels.conv.pattern import find_kept

    sparse = (
        plan_forward(g, kept=find_kept(weights, g.groups))
        if way == "structure"
        else plan_unstructured(g, direct=way == "direct")
    )
    return {OURS: sparse, "dense": plan_forward(g), "product": plan_forward(g, winograd=False)}


def zero_structure(g: ConvGeometry, level: Level) -> np.ndarray:
    """Weights with zero rows and columns, at other places in each conv group, as many as the level says."""
    weights, random = filled(g.weight_shape), np.random.default_rng(3)
    for matrix in weights.reshape(g.groups, g.group_filters, g.columns):
        matrix[random.permutation(g.group_filters)[: round(g.group_filters * level.rows)]] = 0
        matrix[:, random.permutation(g.columns)[: round(g.columns * level.columns)]] = 0
    return weights


def zero_weights(g: ConvGeometry, share: float) -> np.ndarray:
    weights = filled(g.weight_shape)
    places = np.random.default_rng(3).permutation(weights.size)[: round(weights.size * share)]
    weights.reshape(-1)[places] = 0
    return weights


def check(name: str, way: str, contestants: Any, dense: Any, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Raises ArithmeticError when the sparse layer differs from the dense one with the same weights."""
    contestants[OURS]()
    sparse = y.copy()
    dense.pack(weights, np.zeros(len(weights), np.float32))
    dense.run(x, y)
    if not np.abs(sparse - y).max() <= 1e-3 * np.abs(y).max():
        raise ArithmeticError(f"{name}: {way} and dense compute different things")
