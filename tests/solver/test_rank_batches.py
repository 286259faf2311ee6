"""Parts of a batch, in one process: together they compute what the whole batch computes at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, SslnetError, WeightsError
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor, Test
from sslnet.solver.gradient_layout import GradientLayout, completed_by
from sslnet.solver.rank_batches import RankBatches
from sslnet.solver.solver import Solver
from tests.support.rank_nets import overridden, solver_param

Test.__test__ = False  # type: ignore[attr-defined]  # a record, not a class of tests


class Record(Monitor):
    def __init__(self) -> None:
        self.tests: list[Test] = []

    def on_test(self, record: Test) -> None:
        self.tests.append(record)


def trained(param: pb.SolverParameter, iterations: int, dtype: type = np.float64) -> tuple[Solver, list[list[float]]]:
    record = Record()
    solver = Solver(Definition(param), monitor=record, dtype=dtype)
    solver.step(iterations)
    return solver, [[value for _, value, _ in test.outputs] for test in record.tests]


def weights(solver: Solver) -> list[np.ndarray]:
    return [param.blob.data.copy() for param in solver.net.learnable]


@pytest.mark.parametrize("loss", ["", "loss_param { normalization: NONE } loss_weight: 0.05"])
def test_parts_with_dropout_crops_and_lasso_equal_the_whole_batch(loss: str) -> None:
    """The same records, crops, mirrors and masks, the same sum; in float64 up to rounding."""
    whole, tests = trained(solver_param("lenet", 32, loss=loss), 6)
    parts, others = trained(solver_param("lenet", 8, "virtual_ranks: 4", loss=loss), 6)
    assert isinstance(parts.batches, RankBatches)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * np.abs(one).max())
    np.testing.assert_allclose(others, tests, rtol=1e-12)
    np.testing.assert_allclose(parts.smoothed_loss, whole.smoothed_loss, rtol=1e-12)


def test_running_statistics_are_the_mean_over_the_parts() -> None:
    """Without learning, so that each part sees what a net of its own batches would."""
    frozen = "base_lr: 0 group_lasso_decay: 0"
    solver, _ = trained(overridden(solver_param("resnet", 8, "virtual_ranks: 2"), frozen), 3)
    whole, _ = trained(overridden(solver_param("resnet", 16), frozen), 0)
    sums = [blob.data.copy() for layer in whole.net.layers for blob in layer.statistics()]
    assert sums and not any(array.any() for array in sums)
    means, factor = expected_means(whole, 3)
    with solver.batches.averaged():
        np.testing.assert_allclose(solver.net.layer_dict["bn_c1"].blobs[0].data, means, rtol=1e-10)
        np.testing.assert_allclose(solver.net.layer_dict["bn_c1"].blobs[2].data, factor)


def expected_means(whole: Solver, iterations: int) -> tuple[np.ndarray, float]:
    """The running sum of the first BatchNorm's means: of equal parts, the mean of the means is that of the whole batch."""
    total, factor, fraction = np.zeros(8), 0.0, float(np.float32(0.999))
    for _ in range(iterations):
        whole.net.forward()
        values = whole.net.layer_dict["bn_c1"].mean.copy()  # type: ignore[attr-defined]
        total, factor = fraction * total + values, fraction * factor + 1
    return total, factor


def test_a_snapshot_keeps_the_statistics_of_each_part(tmp_path: Path) -> None:
    param = solver_param("resnet", 4, f'virtual_ranks: 4 snapshot_prefix: "{tmp_path}/s"')
    unbroken, tests = trained(param, 9, np.float32)
    first, _ = trained(param, 4, np.float32)
    _, state = first.snapshot()
    record = Record()
    second = Solver(Definition(param), snapshot=state, monitor=record)
    second.step(5)
    for one, other in zip(weights(unbroken), weights(second), strict=True):
        np.testing.assert_array_equal(other, one)
    assert [[value for _, value, _ in test.outputs] for test in record.tests] == tests[1:]
    with unbroken.batches.averaged(), second.batches.averaged():
        ours, theirs = (
            [blob.data.copy() for layer in solver.net.layers for blob in layer.statistics()]
            for solver in (unbroken, second)
        )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_snapshot_says_how_many_parts_the_batch_had(tmp_path: Path) -> None:
    prefix = f'snapshot_prefix: "{tmp_path}/s"'
    first, _ = trained(solver_param("lenet", 4, f"virtual_ranks: 4 {prefix}"), 1, np.float32)
    _, state = first.snapshot()
    again = Solver(Definition(solver_param("lenet", 4, prefix)), snapshot=state)  # the number is the snapshot's
    assert again.batches.parts == 4
    with pytest.raises(WeightsError, match="had 4 parts, this one has 2"):
        Solver(Definition(solver_param("lenet", 4, f"virtual_ranks: 2 {prefix}")), snapshot=state)
    with pytest.raises(WeightsError, match="had 4 parts, that of this one has 1"):
        Solver(Definition(solver_param("lenet", 4, prefix))).restore(state)


def test_the_certificate_is_that_of_the_whole_batch() -> None:
    from sslnet.sparsity.optimality import certify

    found = []
    for param in (solver_param("lenet", 16), solver_param("lenet", 4, "virtual_ranks: 4")):
        solver, _ = trained(param, 3)
        (states, before) = solver.net.layer_states(), weights(solver)
        found.append([(c.residual, c.lambda_max) for c in certify(solver, 3)])
        assert solver.net.layer_states() == states
        assert all((a == b).all() for a, b in zip(before, weights(solver)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_every_gradient_is_complete_when_its_hook_comes(name: str) -> None:
    """What is complete is poisoned: the rest of the backward pass must not write to it."""
    net = Solver(Definition(solver_param(name, 4)), lean=True).net
    layout, completed = GradientLayout(net, bucket=1), completed_by(net)
    layout.attach(np.zeros(layout.count, np.float32))
    states = net.layer_states()
    net.forward()
    net.backward()
    expected = {param.name: param.blob.diff.copy() for param, _, _ in layout.places}
    net.clear_param_diffs()
    net.set_layer_states(states)
    seen: dict[str, np.ndarray] = {}

    def after(i: int) -> None:
        for param, _, _ in layout.places:
            if completed[id(param.blob)] == i:
                seen[param.name] = param.blob.diff.copy()
                param.blob.diff[...] = np.nan

    net.after_backward(after)
    net.forward()
    net.backward()
    assert seen.keys() == expected.keys()
    for blob, values in expected.items():
        np.testing.assert_array_equal(seen[blob], values)
    assert all(np.isnan(param.blob.diff).all() for param, _, _ in layout.places)
    assert sorted(bucket for buckets in layout.ready.values() for bucket in buckets) == list(range(len(layout.buckets)))


@pytest.mark.parametrize(
    ("fields", "loss", "message"),
    [
        ("virtual_ranks: 3", "", "must be a power of two"),
        ("virtual_ranks: 0", "", "must be a power of two"),
        ("virtual_ranks: 2048", "", "must be a power of two"),
        ("virtual_ranks: 2 sync_batch_norm: true", "", "sync_batch_norm needs as many ranks"),
        ("virtual_ranks: 2 on_data_error: SKIP", "", "SKIP does not work on several ranks"),
        ("virtual_ranks: 2", "loss_param { ignore_label: 3 }", "does not know in time"),
    ],
)
def test_what_parts_cannot_do_is_refused(fields: str, loss: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Solver(Definition(solver_param("lenet", 4, fields, loss)))


@pytest.mark.parametrize(
    "layer",
    [
        'layer { name: "x" type: "MemoryData" top: "x" top: "y" '
        "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 } }",
        'layer { name: "x" type: "HDF5Output" bottom: "ip2" bottom: "ip2" hdf5_output_param { file_name: "o.h5" } }',
    ],
)
def test_layers_that_cannot_be_divided_are_refused(layer: str) -> None:
    param = solver_param("lenet", 4, "virtual_ranks: 2")
    param.net_param.layer.extend(prototxt.parse(layer, pb.NetParameter).message.layer)
    with pytest.raises(SslnetError, match="does not run on several ranks"):
        Solver(Definition(param))
