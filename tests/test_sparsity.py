"""Sparsity of a net's parameters: against naive loops, and against what the authors' implementation of SSL printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.threads import set_num_threads
from sslnet.net import Net
from sslnet.sparsity import Kept, LayerSparsity, measure, nonzero_parts

GOLDENS = Path(__file__).parent / "goldens" / "sparsity"

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 2 group: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 TRANSPOSE } }
"""


def make(transpose: bool = False) -> Net:
    text = NET.replace("TRANSPOSE", "transpose: true" if transpose else "")
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    for param in net.learnable:
        param.blob.data[...] = 1
    return net


def rows(net: Net) -> dict[str, LayerSparsity]:
    return {row.name: row for row in measure(net)}


def naive(weights: np.ndarray, groups: int) -> tuple[int, list[list[bool]], list[list[bool]]]:
    matrices = weights.reshape(groups, len(weights) // groups, -1)
    nonzero = sum(1 for value in weights.flat if value != 0)
    kept_rows = [[any(value != 0 for value in row) for row in matrix] for matrix in matrices]
    kept_columns = [[any(value != 0 for value in column) for column in matrix.T] for matrix in matrices]
    return nonzero, kept_rows, kept_columns


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_group=st.integers(1, 4),
    columns=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_nonzero_parts_are_those_of_naive_loops(
    groups: int, per_group: int, columns: int, density: float, seed: int, threads: int, dtype: type
) -> None:
    random = np.random.default_rng(seed)
    shape = (groups * per_group, columns)
    weights = (random.standard_normal(shape) * (random.random(shape) < density)).astype(dtype)
    set_num_threads(threads)
    try:
        found = nonzero_parts(weights, groups)
    finally:
        set_num_threads(None)
    assert (found.nonzero, found.rows.tolist(), found.columns.tolist()) == naive(weights, groups)


def test_nonzero_parts_of_a_large_matrix_do_not_depend_on_the_threads() -> None:
    random = np.random.default_rng(0)
    weights = (random.random((300, 1000)) < 0.001).astype(np.float32)
    results = []
    for threads in (1, 3):
        set_num_threads(threads)
        found = nonzero_parts(weights)
        results.append((found.nonzero, found.rows.tolist(), found.columns.tolist()))
    set_num_threads(None)
    assert results[0] == results[1] == (
        int(weights.sum()), [weights.any(axis=1).tolist()], [weights.any(axis=0).tolist()]
    )  # fmt: skip


def test_nan_counts_as_not_zero_and_minus_zero_as_zero() -> None:
    found = nonzero_parts(np.array([[-0.0, 0.0], [np.nan, 0.0]], np.float32))
    assert (found.nonzero, found.rows.tolist(), found.columns.tolist()) == (1, [[False, True]], [[True, False]])


def test_measure_of_a_dense_net_keeps_everything() -> None:
    for row in measure(make()):
        kinds = (row.elements, row.filters, row.channels, row.columns, row.flops)
        assert all(kind is None or kind.kept == kind.total for kind in kinds)


def test_measure_counts_per_group_of_a_convolution() -> None:
    net = make()
    weights = net.params["conv"][0].data  # (6, 2, 2, 2): two groups of 3 filters and 2 channels
    weights[0] = 0
    weights[3:, 1] = 0  # the second group's second channel
    weights[:3, 0, 0, 0] = 0
    row = rows(net)["conv[0]"]
    assert (row.filters, row.channels, row.columns) == (Kept(5, 6), Kept(3, 4), Kept(16 - 5, 16))
    assert row.elements == Kept(48 - 8 - 12 - 2, 48)


def test_measure_counts_flops_of_kept_filters_times_kept_columns() -> None:
    net = make()
    weights = net.params["conv"][0].data
    weights[0] = 0  # 2 of 3 filters in the first group
    weights[3:, 1] = 0  # 4 of 8 columns in the second
    places, images = 4 * 4, 2
    assert rows(net)["conv[0]"].flops == Kept(
        2 * images * places * (2 * 8 + 3 * 4), 2 * images * places * (3 * 8 + 3 * 8)
    )


@pytest.mark.parametrize("transpose", [False, True])
def test_measure_takes_the_pixels_of_a_channel_together_for_inner_products(transpose: bool) -> None:
    net = make(transpose)
    weights = net.params["ip"][0].data
    matrix = weights.T if transpose else weights  # (3, 6 * 16)
    matrix[1] = 0
    matrix[:, 16:32] = 0
    matrix[:, 40] = 0
    row = rows(net)["ip[0]"]
    assert (row.filters, row.channels, row.columns) == (Kept(2, 3), Kept(5, 6), Kept(96 - 17, 96))


def test_measure_counts_elements_alone_for_biases() -> None:
    net = make()
    net.params["conv"][1].data[:2] = 0
    row = rows(net)["conv[1]"]
    assert (row.elements, row.filters, row.channels, row.columns) == (Kept(4, 6), None, None, None)


def test_measure_gives_the_figures_that_the_authors_implementation_printed() -> None:
    """Case vanish_row_col, iteration 25 of its log: Element, Column, Row Sparsity % of conv, ip, and ip's bias."""
    with np.load(GOLDENS / "vanish_row_col_iter25.npz") as golden:
        weights = {name: golden[name] for name in golden.files}
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 8 kernel_size: 3 } }
    layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }
    """
    net = Net(prototxt.parse(text, pb.NetParameter))
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = weights[f"{name}_{i}"]
    found = rows(net)
    printed = {"conv[0]": (90.2778, 44.4444, 25), "ip[0]": (82.5521, 57.8125, 0)}
    for name, values in printed.items():
        row = found[name]
        assert row.filters is not None and row.columns is not None
        ours = [100 * kept.sparsity for kept in (row.elements, row.columns, row.filters)]
        np.testing.assert_allclose(ours, values, atol=1e-4)
    assert 100 * found["ip[1]"].elements.sparsity == pytest.approx(33.3333, abs=1e-4)
