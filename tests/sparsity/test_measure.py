"""Sparsity of a net's parameters: against naive loops, and against what the authors' implementation of SSL printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.net.net import Net
from sslnet.solver.measure_training import measure_training
from sslnet.solver.solver import Solver
from sslnet.sparsity.measure import LayerSparsity, NonZero, NonZeroBlocks, measure, nonzero_parts

GOLDENS = Path(__file__).parents[1] / "goldens" / "sparsity"
SCNN = Path(__file__).parents[1] / "goldens" / "scnn"

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
    assert (row.filters, row.channels, row.columns) == (NonZero(5, 6), NonZero(3, 4), NonZero(16 - 5, 16))
    assert row.elements == NonZero(48 - 8 - 12 - 2, 48)


def test_measure_counts_flops_of_kept_filters_times_kept_columns() -> None:
    net = make()
    weights = net.params["conv"][0].data
    weights[0] = 0  # 2 of 3 filters in the first group
    weights[3:, 1] = 0  # 4 of 8 columns in the second
    places, images = 4 * 4, 2
    assert rows(net)["conv[0]"].flops == NonZero(
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
    assert (row.filters, row.channels, row.columns) == (NonZero(2, 3), NonZero(5, 6), NonZero(96 - 17, 96))


def test_measure_counts_elements_alone_for_biases() -> None:
    net = make()
    net.params["conv"][1].data[:2] = 0
    row = rows(net)["conv[1]"]
    assert (row.elements, row.filters, row.channels, row.columns) == (NonZero(4, 6), None, None, None)


def test_measure_gives_the_figures_that_the_authors_implementation_printed() -> None:
    """Case vanish_row_col, iteration 25 of its log: Element, Column, Row Sparsity % of conv, ip, and ip's bias."""
    with np.load(GOLDENS / "vanish_row_col_iter25.npz") as golden:
        weights = {name: golden[name] for name in golden.files}
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 8 kernel_size: 3 }
            param { block_group_lasso { xdimen: 18 ydimen: 1 } block_group_lasso { xdimen: 1 ydimen: 8 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 }
            param { block_group_lasso { xdimen: 128 ydimen: 1 } block_group_lasso { xdimen: 1 ydimen: 3 } } }
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
    blocks = {  # "(18,1):25;(1,8):44.4444;		(128,1):0;(1,3):57.8125;"
        "conv[0]": {(18, 1): 25, (1, 8): 44.4444},
        "ip[0]": {(128, 1): 0, (1, 3): 57.8125},
        "conv[1]": {},
    }
    for name, tiles in blocks.items():
        assert {(b.width, b.height): pytest.approx(100 * b.sparsity, abs=1e-4) for b in found[name].blocks} == tiles


@pytest.mark.parametrize("case", ["row", "row_col_l1", "decay_proto_l2", "bias_group", "strong_row_col"])
def test_regularisation_is_what_the_authors_implementation_printed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SCNN, tmp_path / "scnn")
    monkeypatch.chdir(tmp_path / "scnn")
    definition = prototxt.read_solver(f"solver_{case}.prototxt")
    definition.message.group_lasso_update = pb.SolverParameter.SUBGRADIENT
    solver = Solver(definition, weights=["init_dense.caffemodel"])
    with np.load(f"{case}.npz") as golden:
        printed = golden["reg_terms_logged"]
    found = [row.regularisation for row in measure_training(solver).layers]
    assert sum(value for value in found if value is not None) == pytest.approx(printed[0], rel=1e-5)


# -- parameters left, blocks, coupled groups -------------------------------------------------------------------------------


def test_parameters_left_are_those_in_kept_rows_and_columns_and_the_biases_of_kept_rows() -> None:
    net = make()
    weights = net.params["conv"][0].data
    weights[0] = 0  # 2 of 3 filters in the first group
    weights[3:, 1] = 0  # 4 of 8 columns in the second
    weights[1, 0, 0, 0] = 0  # a single weight is not saved
    found = rows(net)
    assert found["conv[0]"].parameters == NonZero(2 * 8 + 3 * 4, 6 * 8)
    assert found["conv[1]"].parameters == NonZero(5, 6)
    assert found["ip[1]"].parameters == NonZero(3, 3)


@settings(max_examples=30, deadline=None)
@given(
    tiles=st.tuples(*[st.integers(1, 3)] * 4),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    named=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_are_those_of_naive_loops(tiles: tuple[int, ...], density: float, named: bool, seed: int) -> None:
    down, along, height, width = tiles
    size = f"xdimen: {width} ydimen: {height}"
    spec = f"group_lasso {{ group: BLOCK {size} }}" if named else f"block_group_lasso {{ {size} }}"
    text = f"""
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: {along * width} }} }} }}
    layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param {{ {spec} }}
             inner_product_param {{ num_output: {down * height} }} }}
    """
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    random = np.random.default_rng(seed)
    weights = net.params["ip"][0].data
    weights[...] = random.random(weights.shape) < density
    kept = sum(
        any(weights[i * height + y, j * width + x] != 0 for y in range(height) for x in range(width))
        for i in range(down)
        for j in range(along)
    )
    assert rows(net)["ip[0]"].blocks == (NonZeroBlocks(kept, down * along, height, width),)


def test_kernels_between_channels_are_blocks_and_tiles_that_do_not_fit_are_none() -> None:
    lasso = "param { group_lasso { group: FILTER_2D } block_group_lasso { xdimen: 7 } group_lasso { group: CHANNEL } }"
    text = NET.replace("TRANSPOSE", "").replace('top: "conv"', f'top: "conv" {lasso}')
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    net.params["conv"][0].data[...] = 1
    net.params["conv"][0].data[2, 1] = 0
    assert rows(net)["conv[0]"].blocks == (NonZeroBlocks(11, 12, 1, 4),)


def test_deconvolution_counts_filters_where_they_are() -> None:
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 3 dim: 3 } } }
    layer { name: "up" type: "Deconvolution" bottom: "data" top: "up"
            convolution_param { num_output: 6 kernel_size: 2 stride: 2 group: 2 } }
    """
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    weights = net.params["up"][0].data  # (4, 3, 2, 2): input channels first
    weights[...] = 1
    weights[:2, 1] = 0  # the second output of the first group
    weights[3] = 0  # the last input channel
    row = rows(net)["up[0]"]
    assert (row.filters, row.channels, row.columns) == (NonZero(5, 6), NonZero(3, 4), NonZero(12, 16))
    assert row.parameters == NonZero(2 * 8 + 3 * 4, 48)


COUPLED = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { group_lasso { SPEC } }
        convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "b" type: "Convolution" bottom: "data" top: "b" param { group_lasso { group: CHANNEL } }
        convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "scale" type: "Scale" bottom: "b" top: "b" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def coupled(spec: str) -> Solver:
    text = 'base_lr: 0.1 lr_policy: "fixed" random_seed: 1 group_lasso_decay: 0.3 weight_decay: 0.01'
    net = COUPLED.replace("SPEC", spec)
    return Solver(prototxt.parse(f"{text} net_param {{ {net} }}", pb.SolverParameter), measure=measure_training)


def test_coupled_groups_tell_which_layers_are_tied_and_how_many_are_left() -> None:
    solver = coupled("group: NEURON")
    for name, index in (("a", 0), ("a", 1), ("b", 0), ("b", 1), ("scale", 0)):
        solver.net.params[name][index].data[:2] = 0
    solver.net.params["ip"][0].data[:, :16] = 0  # what reads the first channel
    found = measure_training(solver)
    (family,) = found.coupled
    assert (family.name, family.makers, family.readers) == ("a", ("a", "b", "scale"), ("ip",))
    assert family.groups == NonZero(4, 5), "the second channel is still read"
    assert found.sought


def test_regularisation_of_layers_and_coupled_groups_is_that_of_the_objective() -> None:
    solver = coupled("group: FILTER couple: true")
    found = measure_training(solver)
    by_name = {row.name: row for row in found.layers}
    b = solver.net.params["b"][0].data.reshape(5, 3)
    assert by_name["b[0]"].group_lasso == pytest.approx(0.3 * np.linalg.norm(b, axis=0).sum(), rel=1e-5)
    assert by_name["a[0]"].group_lasso is None
    own = sum(row.group_lasso or 0.0 for row in found.layers)
    assert own + sum(family.group_lasso for family in found.coupled) == pytest.approx(solver.penalty(), rel=1e-6)
    ip = solver.net.params["ip"][0].data
    assert by_name["ip[0]"].weight_decay == pytest.approx(0.005 * float((ip**2).sum()), rel=1e-5)


def test_what_is_not_trained_adds_no_weight_decay() -> None:
    solver = coupled("decay_mult: 0 } lr_mult: 0 group_lasso { decay_mult: 0")
    decays = {row.name: row.weight_decay for row in measure_training(solver).layers}
    assert decays["a[0]"] == 0 < (decays["ip[0]"] or 0)


def test_coupled_groups_are_still_told_of_when_their_penalty_has_ended() -> None:
    solver = coupled("group: FILTER couple: true")
    before = measure_training(solver)
    solver.keep_zeros()
    after = measure_training(solver)
    assert [(c.name, c.groups, c.makers) for c in after.coupled] == [
        (c.name, c.groups, c.makers) for c in before.coupled
    ]
    assert sum(family.group_lasso for family in after.coupled) == 0
    assert after.sought


def test_run_without_group_lasso_seeks_no_sparsity() -> None:
    net = COUPLED.replace("param { group_lasso { SPEC } }", "").replace("param { group_lasso { group: CHANNEL } }", "")
    text = f'base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.01 net_param {{ {net} }}'
    solver = Solver(prototxt.parse(text, pb.SolverParameter))
    assert not measure_training(solver).sought
