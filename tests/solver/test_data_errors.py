"""Data that cannot be used while a net is trained: a stop with a snapshot from which the run goes on, or batches left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DataError, NotFiniteError, WeightsError
from sslnet.prototxt import Diagnostic
from sslnet.pycaffe import io
from sslnet.solver import callbacks as monitors
from sslnet.solver.callbacks import Monitor
from sslnet.solver.snapshot import read_state, write_state
from sslnet.solver.solver import Solver
from sslnet.sources.lmdb import write_lmdb

RECORDS, BATCH = 60, 5
NET = """\
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 5 } }
layer { name: "e" type: "Data" top: "other" data_param { source: "other" backend: LMDB batch_size: 5 prefetch: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "other" top: "sum" }
layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 15 snapshot_prefix: "run/r" random_seed: 3
"""


class Warnings(Monitor):
    def __init__(self) -> None:
        self.notes: list[Diagnostic] = []

    def on_warning(self, note: Diagnostic) -> None:
        self.notes.append(note)


class Records(Monitor):
    def __init__(self) -> None:
        self.records: list[tuple] = []

    def on_test(self, record: monitors.Test) -> None:
        self.records.append((record.iteration, record.net, record.outputs))


def datum(index: int, *, label: int | None = None, damaged: bool = False) -> bytes:
    image = np.random.default_rng(index).integers(0, 9, (1, 3, 4), dtype=np.uint8)
    whole = io.array_to_datum(image, index % 10 if label is None else label).SerializeToString()
    return b"\xff" * len(whole) if damaged else bytes(whole)


def database(name: str, **odd: bytes) -> None:
    """Records 0 .. RECORDS - 1; odd: r17=value puts another value in the place of record 17."""
    write_lmdb(name, ((f"{i:08d}".encode(), odd.get(f"r{i}", datum(i))) for i in range(RECORDS)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def solver(*fields: str, **options) -> Solver:
    return Solver(prototxt.apply_overrides(prototxt.parse(SOLVER, pb.SolverParameter), list(fields)), **options)


def weights(run: Solver) -> list[bytes]:
    return [param.blob.data.tobytes() for param in run.net.learnable]


@pytest.mark.parametrize("where", ["db", "other"])
def test_damaged_record_stops_with_a_snapshot_of_the_last_whole_iteration(where: str, folder: Path) -> None:
    database("db" if where == "other" else "other")
    database(where, r42=datum(42, damaged=True))
    run = solver("iter_size=2")
    with pytest.raises(DataError, match="record 42") as found:
        run.solve()
    assert "iteration 4 was saved as run/r_iter_4.solverstate" in found.value.hint
    assert run.iter == 4
    for name in (where,):  # mended, the run goes on as if the record had never been damaged
        for file in Path(name).iterdir():
            file.unlink()
        Path(name).rmdir()
        database(name)
    resumed = solver("iter_size=2", snapshot="run/r_iter_4.solverstate")
    resumed.solve()
    whole = solver("iter_size=2", "snapshot_prefix=whole/r")
    whole.solve()
    assert weights(resumed) == weights(whole)


def test_label_out_of_range_is_an_error_of_the_data(folder: Path) -> None:
    database("db", r12=datum(12, label=17))
    database("other")
    run = solver()
    with pytest.raises(BatchError, match="label 17 of image 2") as found:
        run.solve()
    assert found.value.exit_code == 1
    assert "run/r_iter_2.solverstate" in found.value.hint


def test_batches_left_out_are_as_if_they_were_not_in_the_data(folder: Path) -> None:
    bad = {"r22": datum(22, damaged=True), "r37": datum(37, label=99)}
    database("db", **bad)
    database("other")
    monitor = Warnings()
    run = solver("on_data_error=SKIP", "max_iter=8", monitor=monitor)
    drop = next(layer for layer in run.net.layers if layer.TYPE == "Dropout")
    run.solve()
    told = [note.message for note in monitor.notes if "skipped" in note.message]
    assert [text.split(":")[0] for text in told] == [
        "skipped a batch (1 of at most 100)",
        "skipped a batch (2 of at most 100)",
    ]
    assert run.data_errors.count == 2
    assert drop.draws >= 8
    without = [i for i in range(RECORDS) if i // BATCH not in (22 // BATCH, 37 // BATCH)]
    for name in ("db", "other"):
        write_lmdb(f"good_{name}", ((f"{i:08d}".encode(), datum(i)) for i in without))
    text = NET.replace('source: "', 'source: "good_').replace(
        'layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }\n', ""
    )
    (folder / "good.prototxt").write_text(text)
    (folder / "net.prototxt").write_text(text.replace("good_", ""))
    skipping = solver("on_data_error=SKIP", "max_iter=8", "snapshot_prefix=a/r")
    skipping.solve()
    good = solver("net=good.prototxt", "max_iter=8", "snapshot_prefix=b/r")
    good.solve()
    assert weights(skipping) == weights(good)


def test_resumed_run_leaves_out_the_same_batches(folder: Path) -> None:
    database("db", r22=datum(22, damaged=True))
    database("other", r41=datum(41, damaged=True))
    whole = solver("on_data_error=SKIP", "snapshot=6")
    whole.solve()
    resumed = solver("on_data_error=SKIP", "snapshot_prefix=again/r", snapshot="run/r_iter_6.solverstate")
    assert resumed.data_errors.count == 1
    resumed.solve()
    assert weights(resumed) == weights(whole)
    assert resumed.data_errors.count == whole.data_errors.count == 3  # the second pass meets record 22 again


def test_no_more_batches_are_left_out_than_allowed(folder: Path) -> None:
    database("db", **{f"r{i}": datum(i, damaged=True) for i in range(10, 40, 5)})
    database("other")
    run = solver("on_data_error=SKIP", "max_data_errors=3")
    with pytest.raises(DataError, match="record 25") as found:
        run.solve()
    assert "max_data_errors is 3" in found.value.hint
    assert "run/r_iter_2.solverstate" in found.value.hint
    assert run.iter == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_data_that_are_not_finite_are_told_from_a_run_that_diverges(folder: Path) -> None:
    images = np.random.default_rng(0).random((20, 1, 3, 4), dtype=np.float32)
    images[11, 0, 1, 2] = np.nan
    with h5py.File("data.h5", "w") as file:
        file["data"], file["label"] = images, np.arange(20) % 10
    Path("list.txt").write_text("data.h5\n")
    text = NET.splitlines()
    text[0] = (
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 5 } }'
    )
    Path("net.prototxt").write_text(
        "\n".join(line for line in text if '"e"' not in line and "Dropout" not in line).replace(
            'bottom: "other"', 'bottom: "data"'
        )
    )
    with pytest.raises(BatchError, match='the data of blob "data" are not finite') as found:
        solver().solve()
    assert "run/r_iter_2.solverstate" in found.value.hint
    skipping = solver("on_data_error=SKIP", "snapshot_prefix=skip/r", "max_iter=5")
    skipping.solve()
    assert skipping.data_errors.count == 1
    with pytest.raises(NotFiniteError):
        solver("base_lr=1e38", "snapshot_prefix=diverges/r", "on_data_error=SKIP").solve()
    assert not Path("diverges").exists() or not list(Path("diverges").glob("*.solverstate"))


def test_damaged_record_in_a_test_stops_with_a_snapshot_that_repeats_the_test(folder: Path) -> None:
    database("db")
    database("other")
    test = NET.replace('"drop"', '"drop2"').replace('source: "db"', 'source: "test"')
    (folder / "test.prototxt").write_text(test)
    (folder / "net.prototxt").write_text(NET)
    text = SOLVER.replace('net: "net.prototxt"', "") + (
        'train_net: "net.prototxt" test_net: "net.prototxt" test_net: "test.prototxt" test_iter: 2 test_iter: 4 test_interval: 5'
    )
    database("test", r37=datum(37, damaged=True))
    run = Solver(prototxt.parse(text, pb.SolverParameter))
    with pytest.raises(DataError, match="record 37") as found:
        run.solve()
    assert "iteration 5 was saved as run/r_iter_5.solverstate" in found.value.hint
    for file in Path("test").iterdir():
        file.unlink()
    Path("test").rmdir()
    database("test")
    told: list[list] = []
    for prefix, snapshot in (("again", "run/r_iter_5.solverstate"), ("whole", None)):
        definition = prototxt.apply_overrides(prototxt.parse(text, pb.SolverParameter), [f"snapshot_prefix={prefix}/r"])
        tests = Records()
        Solver(definition, snapshot=snapshot, monitor=tests).solve()
        told.append([record for record in tests.records if record[0] >= 5])
    assert told[0] == told[1]
    assert [record[:2] for record in told[0]] == [(5, 0), (5, 1), (10, 0), (10, 1), (15, 0), (15, 1)]


NORMALISED = NET.replace(
    'layer { name: "drop"', 'layer { name: "bn" type: "BatchNorm" bottom: "sum" top: "sum" }\nlayer { name: "drop"'
)


@pytest.mark.parametrize("iter_size", [1, 2])
def test_running_statistics_are_those_before_the_batch_that_failed(iter_size: int, folder: Path) -> None:
    (folder / "net.prototxt").write_text(NORMALISED)
    database("db", r32=datum(32, label=99))
    database("other")
    run = solver(f"iter_size={iter_size}")
    with pytest.raises(BatchError, match="label 99"):
        run.solve()
    assert run.iter == 6 // iter_size
    shutil.rmtree("db")
    database("db")
    resumed = solver(f"iter_size={iter_size}", snapshot=f"run/r_iter_{run.iter}.solverstate")
    resumed.solve()
    whole = solver(f"iter_size={iter_size}", "snapshot_prefix=whole/r")
    whole.solve()
    statistics = [[blob.data.tobytes() for blob in each.net.params["bn"]] for each in (resumed, whole)]
    assert statistics[0] == statistics[1]
    assert weights(resumed) == weights(whole)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_skipped_batch_leaves_no_trace_in_running_statistics(folder: Path) -> None:
    images = np.random.default_rng(0).random((20, 1, 3, 4), dtype=np.float32)
    for name, rows in (("all", range(20)), ("good", [i for i in range(20) if i // 5 != 2])):
        with h5py.File(f"{name}.h5", "w") as file:
            file["data"], file["label"] = images[list(rows)], np.arange(20)[list(rows)] % 10
        Path(f"{name}.txt").write_text(f"{name}.h5\n")
    with h5py.File("all.h5", "r+") as file:
        file["data"][11, 0, 1, 2] = np.nan
    found = []
    for name in ("all", "good"):
        data = f'hdf5_data_param {{ source: "{name}.txt" batch_size: 5 }}'
        lines = NORMALISED.splitlines()
        lines[0] = f'layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" {data} }}'
        text = "\n".join(line for line in lines if '"e"' not in line and "Dropout" not in line)
        Path("net.prototxt").write_text(text.replace('bottom: "other"', 'bottom: "data"'))
        run = solver("on_data_error=SKIP", "max_iter=9", f"snapshot_prefix={name}/r")
        run.solve()
        found.append([blob.data.tobytes() for blob in run.net.params["bn"]] + weights(run))
    assert found[0] == found[1]


def test_batches_are_counted_anew_where_the_iteration_is_repeated(folder: Path) -> None:
    database("db", **{f"r{i}": datum(i, damaged=True) for i in (10, 15, 20, 25)})
    database("other")
    with pytest.raises(DataError):
        solver("on_data_error=SKIP", "max_data_errors=2").solve()
    assert read_state("run/r_iter_2.solverstate").arrays.get("data_errors") is None
    resumed = solver("on_data_error=SKIP", "max_data_errors=4", "max_iter=5", snapshot="run/r_iter_2.solverstate")
    resumed.solve()
    assert resumed.data_errors.count == 4


@pytest.mark.parametrize("count", [np.nan, np.inf, -1, 0.5])
def test_damaged_count_is_one_error(count: float, folder: Path) -> None:
    database("db")
    database("other")
    solver("max_iter=1").solve()
    state = read_state("run/r_iter_1.solverstate")
    state.arrays["data_errors"] = np.array([count])
    write_state("run/r_iter_1.solverstate", state)
    with pytest.raises(WeightsError, match="the number of skipped batches is damaged"):
        solver(snapshot="run/r_iter_1.solverstate")


def test_batch_that_would_come_again_is_not_skipped(folder: Path) -> None:
    text = """\
layer { name: "d" type: "DummyData" top: "x" top: "label" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 }
  data_filler { value: 1 } data_filler { value: 7 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
    Path("net.prototxt").write_text(text)
    monitor = Warnings()
    with pytest.raises(BatchError, match="label 7"):
        solver("on_data_error=SKIP", monitor=monitor).solve()
    assert not monitor.notes
    assert not Path("run/r_iter_0.solverstate").exists(), "nothing was learned yet"
