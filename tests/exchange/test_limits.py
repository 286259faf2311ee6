"""A small model that asks for much is one error, in little memory and time; files beside it are read only where they may."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from sslnet import files, prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.errors import DataError, DefinitionError, ErrorList, SslnetError
from sslnet.exchange.importing import from_onnx
from sslnet.exchange.limits import LEAST_ROOM, MOST_NODES, Room
from sslnet.exchange.node import OnnxNode

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory and limits are measured as Linux does"
)
info = helper.make_tensor_value_info
empty = helper.make_empty_tensor_value_info


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(*nodes: Any, shape: Any = (1, 3, 8, 8), functions: Any = (), opset: int = 17, **constants: Any) -> Any:
    """A model from x to y."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, list("abcdefgh"[: len(shape)]))],
        initializer=tensors,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)


def added(*nodes: Any, **constants: Any) -> Any:
    """A model whose nodes make k, of which the sum is added to x."""
    return model(*nodes, node("ReduceSum", "k", "r", keepdims=0), node("Add", "x r", "y"), **constants)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def branch(name: str, *nodes: Any) -> Any:
    return helper.make_graph(list(nodes), name, [], [empty(name)])


def doubling(depth: int) -> Any:
    """Functions that each call the one before twice."""
    functions = []
    for level in range(depth):
        callee = {"domain": "own"} if level else {}
        body = [node(f"F{level - 1}" if level else "Relu", *names, **callee) for names in (("a", "b"), ("b", "c"))]
        functions.append(
            helper.make_function(
                "own", f"F{level}", ["a"], ["c"], body, [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
            )
        )
    return model(node(f"F{depth - 1}", "x", "y", domain="own"), functions=functions)


def with_sparse() -> Any:
    made = model(node("Relu", "x", "y"))
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    made.graph.sparse_initializer.add(
        values=values, indices=numpy_helper.from_array(ints(5), "s_indices"), dims=[2**33]
    )
    return made


BIG_BRANCH = branch(
    "a", node("ConstantOfShape", "s", "c"), node("ReduceSum", "c", "d", keepdims=0), node("Add", "x d", "a")
)
LOOP_BODY = helper.make_graph(
    [node("Identity", "c", "d"), node("Add", "v v", "w")],
    "body",
    [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, [])],
    [info("d", TensorProto.BOOL, []), info("w", TensorProto.FLOAT, [])],
)
BOMBS: dict[str, Callable[[], Any]] = {
    "ConstantOfShape": lambda: added(node("ConstantOfShape", "s", "k"), s=ints(2 * 10**9)),
    "ConstantOfShape by axes": lambda: added(node("ConstantOfShape", "s", "k"), s=ints(10**6, 10**6, 10**6)),
    "Range": lambda: added(
        node("Range", "a b d", "n"), node("Cast", "n", "k", to=1), a=np.int64(0), b=np.int64(5 * 10**8), d=np.int64(1)
    ),
    "Range of floats": lambda: added(
        node("Range", "a b d", "k"), a=np.float32(0), b=np.float32(1e30), d=np.float32(1e-30)
    ),
    "Expand": lambda: added(node("Expand", "one s", "k"), one=np.ones(1, "f4"), s=ints(10**9)),
    "Tile": lambda: added(node("Tile", "one s", "k"), one=np.ones(2, "f4"), s=ints(10**9)),
    "Pad": lambda: added(node("Pad", "one s", "k"), one=np.ones(1, "f4"), s=ints(0, 10**9)),
    "Resize of a constant": lambda: added(node("Resize", "one n f", "k"), one=np.ones((1, 1, 4, 4), "f4"), n=np.zeros(0, "f4"), f=np.array([1, 1, 1e4, 1e4], "f4")),
    "sum of a row and a column": lambda: added(
        node("ConstantOfShape", "s", "a"), node("ConstantOfShape", "t", "b"), node("Add", "a b", "k"), s=ints(1, 40000), t=ints(40000, 1)
    ),
    "many that are small": lambda: added(
        *(node("ConstantOfShape", "s", f"k{i}") for i in range(500)), node("Identity", "k7", "k"), s=ints(10**6)
    ),
    "Cast to text": lambda: added(node("ConstantOfShape", "s", "a"), node("Cast", "a", "k", to=8), s=ints(10**7)),
    "Loop": lambda: model(
        node("Loop", "m t z", "r", body=LOOP_BODY), node("Add", "x r", "y"), m=np.int64(2**60), t=np.array(True), z=np.float32(0)
    ),
    "axes without end": lambda: model(
        node("Cast", "x", "s", to=7), node("ConstantOfShape", "s", "k"), node("Expand", "k s", "y"), shape=(2 * 10**8,)
    ),
    "axes of an unknown operator": lambda: model(
        node("Cast", "x", "s", to=7), node("RandomUniformLike", "s", "k"), node("Col2Im", "x s s", "y"), shape=(2 * 10**8,), opset=18
    ),
    "weights padded at one side": lambda: model(
        node("Conv", "x w", "y", pads=[0, 0, 10**5, 10**5]), w=np.ones((2, 3, 3, 3), "f4")
    ),
    "divisors of windows": lambda: model(
        node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), shape=(1, 1, 40000, 40000)
    ),
    "one weight read often": lambda: model(
        node("Conv", "x w", "v0"), *(node("Conv", f"v{i} w", f"v{i + 1}") for i in range(1500)), node("Relu", "v1500", "y"),
        w=np.ones((300, 300, 1, 1), "f4"), shape=(1, 300, 1, 1),
    ),
    "functions in functions": lambda: doubling(40),
    "a large constant read often": lambda: added(
        node("ConstantOfShape", "s", "a"), *(node("ReduceSum", "a", f"k{i}") for i in range(1000)), node("Identity", "k7", "k"), s=ints(10**7)
    ),
    "product of matrices": lambda: added(
        node("ConstantOfShape", "s", "a"), node("MatMul", "a a", "b"), node("ReduceSum", "b", "k"), s=ints(2800, 2800)
    ),
    "Gemm of whole numbers": lambda: added(
        node("ConstantOfShape", "s", "a", value=helper.make_tensor("v", TensorProto.INT32, [1], [1])), node("Gemm", "a a", "b", transA=1), node("Cast", "b", "k", to=1), s=ints(1000, 1000)
    ),
    "Cast to 8 bits": lambda: added(
        node("ConstantOfShape", "s", "a"), node("Cast", "a", "b", to=TensorProto.FLOAT8E4M3FN), node("Cast", "b", "k", to=1), s=ints(10**7), opset=19
    ),
    "indices without end": lambda: added(
        node("ConstantOfShape", "s", "i", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])), node("ScatterND", "o i u", "k"), o=np.ones(1, "f4"), s=ints(10**9, 0), u=np.ones(1, "f4")
    ),
    "parts of many values": lambda: added(
        node("ConstantOfShape", "s", "a"), node("ConstantOfShape", "t", "i", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])), node("ScatterND", "a i u", "k"), s=ints(1, 10**7), t=ints(10**5, 1), u=np.ones((10**5, 1), "f4")
    ),
    "Erf": lambda: added(node("ConstantOfShape", "s", "a"), node("Erf", "a", "k"), s=ints(8 * 10**6)),
    "sparse": with_sparse,
    "Squeeze of a large input": lambda: model(node("Relu", "x", "y"), shape=(1, 2**31, 2**20, 4)),
}  # fmt: skip
"""Small models that ask for much: each is one error."""
LARGE: dict[str, Callable[[], Any]] = {
    "pixels between pixels": lambda: model(
        node("Resize", "x n f", "y", mode="linear"),
        n=np.zeros(0, "f4"),
        f=np.array([1, 1, 20000, 20000], "f4"),
        shape=(1, 1, 1, 1),
    ),
    "image": lambda: model(node("Relu", "x", "y"), shape=(1, 30000, 30000, 1)),
    "windows": lambda: model(node("MaxPool", "x", "y", kernel_shape=[1000, 1000]), shape=(1, 1, 3000, 3000)),
    "convolution": lambda: model(node("Conv", "x w", "y"), w=np.ones((1, 1, 700, 700), "f4"), shape=(1, 1, 2000, 2000)),
}
"""Models of nets that are too large to be run on the way: they are taken over without being compared."""
UNTAKEN = {
    "branch that is not taken": lambda: model(
        node("If", "no", "y", then_branch=BIG_BRANCH, else_branch=branch("b", node("Relu", "x", "b"))),
        no=np.array(False), s=ints(2 * 10**9),
    ),
}  # fmt: skip
"""What onnxruntime computes ahead when it may: these are compared as they stand."""
MEASURE = """
import os, random, sys, time
os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})  # processor time of one thread, no waiting ones
from sslnet.errors import SslnetError
from sslnet.exchange.importing import from_onnx
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        end = from_onnx(path).too_large or "compared"
    except SslnetError as error:
        assert len(str(error)) < 10_000, len(str(error))
        end = "error: " + str(error).splitlines()[0].split("error: ", 1)[-1]
    status = open("/proc/self/status").read()  # ru_maxrss would count what started this process
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(time.process_time() - start, peak, end, sep="|")
"""


def imports(paths: list[Path]) -> list[tuple[float, int, str]]:
    """Seconds of processor time, MiB at the most so far, and how it ended, for each model, in a process of their own."""
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    return [(float(line.split("|")[0]), int(line.split("|")[1]), line.split("|", 2)[2]) for line in lines]


@pytest.mark.timeout(300)
def test_small_model_that_asks_for_much_takes_little(tmp_path: Path) -> None:
    """One process for all: their peak is that of the worst."""
    paths = []
    for number, make in enumerate({**BOMBS, **LARGE, **UNTAKEN}.values()):
        paths.append(tmp_path / f"{number}.onnx")
        paths[-1].write_bytes(make().SerializeToString())
    found = dict(zip([*BOMBS, *LARGE, *UNTAKEN], imports(paths), strict=True))
    ends = {name: end for name, (_, _, end) in found.items()}
    assert {name for name in BOMBS if not ends[name].startswith("error: ") or "ONNX can read" in ends[name]} == set(), (
        ends
    )
    assert {name for name in LARGE if ends[name].startswith("error: ") or ends[name] == "compared"} == set(), ends
    assert {name for name in UNTAKEN if ends[name] != "compared"} == set(), ends
    assert max(peak for _, peak, _ in found.values()) < 1024, found
    assert max(seconds for seconds, _, _ in found.values()) < 20, found


@pytest.mark.timeout(300)
def test_long_model_takes_time_that_its_length_explains(tmp_path: Path) -> None:
    chains = {
        "relu": [node("Relu", "x", "v0"), *(node("Relu", f"v{i}", f"v{i + 1}") for i in range(999))],
        "turned": [node("Transpose", "x", "v0"), *(node("Transpose", f"v{i}", f"v{i + 1}") for i in range(999))],
        "constants": [
            node("Relu", "x", "v999"),
            *(node("Constant", "", f"k{i}", value=numpy_helper.from_array(ints(1))) for i in range(1000)),
        ],
    }
    paths = []
    for name, nodes in chains.items():
        paths.append(tmp_path / f"{name}.onnx")
        paths[-1].write_bytes(model(*nodes, node("Relu", "v999", "y")).SerializeToString())
    found = imports(paths)
    assert [end for _, _, end in found] == ["compared"] * len(paths)
    assert max(seconds for seconds, _, _ in found) < 60, found
    long = tmp_path / "long.onnx"
    long.write_bytes(model(*(node("Relu", "x", f"v{i}") for i in range(MOST_NODES + 1))).SerializeToString())
    with pytest.raises(DataError, match=f"more than {MOST_NODES} nodes"):
        from_onnx(long)


def test_room_is_counted_together() -> None:
    room, reader = Room(0), OnnxNode(helper.make_node("Range", [], ["y"]), 0)
    room.take(reader, (LEAST_ROOM // 8,), 8)
    room.take(reader, (0, 10**18))
    with pytest.raises(SslnetError, match="Range: would make 1 values ahead of time"):
        room.take(reader, (1,), 1)


def test_work_that_is_too_much_is_told_once(tmp_path: Path) -> None:
    """Padding behind it, which nothing was there to read, is no second error."""
    made = added(
        node("Pad", "x p", "z"), node("ConstantOfShape", "s", "a"), *(node("ReduceSum", "a", f"k{i}") for i in range(100)),
        node("Identity", "k7", "k"), s=ints(10**7), p=ints(0, 0, 1, 1, 0, 0, 1, 1),
    )  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(DefinitionError, match="ReduceSum: computing it ahead of time would be too much work") as caught:
        from_onnx(tmp_path / "m.onnx")
    assert not isinstance(caught.value, ErrorList)


# -- files beside the model --------------------------------------------------------------------------------------------


def outside(location: str, offset: int | None = None, length: int | None = None) -> Any:
    """A convolution whose 6 weights stand in another file."""
    made = model(node("Conv", "x w", "y"), w=np.zeros((2, 3, 1, 1), "f4"))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the model with files of weights, links and a FIFO; there is one file of weights outside."""
    inner = tmp_path / "inner"
    inner.mkdir()
    for place in (tmp_path / "secret.bin", inner / "good.bin"):
        place.write_bytes(np.arange(6, dtype="f4").tobytes())
    (inner / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inner / "up").symlink_to(tmp_path)
    os.mkfifo(inner / "fifo")
    return inner


def test_weights_beside_the_model_are_read(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(outside("good.bin", 0, 24).SerializeToString())
    found = from_onnx(folder / "m.onnx")
    assert list(found.weights.layer[0].blobs[0].data) == [0, 1, 2, 3, 4, 5]
    assert found.difference is not None


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "location, offset, length",
    [
        ("../secret.bin", 0, 24), ("SECRET", 0, 24), ("link.bin", 0, 24), ("up/secret.bin", 0, 24), ("/dev/zero", 0, 24),
        ("fifo", 0, 24), ("", 0, 24), (".", 0, 24), ("none.bin", 0, 24), ("a\0b", 0, 24), ("n" * 5000, 0, 24),
        ("good.bin", -4, 24), ("good.bin", 0, 2**40), ("good.bin", 0, -1), ("good.bin", 2**70, 24), ("good.bin", 8, None),
        ("good.bin", "x", 24), ("good.bin", 0, "x"),
    ],
)  # fmt: skip
def test_weights_elsewhere_are_one_error(location: str, offset: Any, length: Any, folder: Path) -> None:
    location = location.replace("SECRET", str(folder.parent / "secret.bin"))
    (folder / "m.onnx").write_bytes(outside(location, offset, length).SerializeToString())
    with pytest.raises(DataError):
        from_onnx(folder / "m.onnx")


def test_tied_weights_share_their_data(folder: Path) -> None:
    made = outside("good.bin", 0, 24)
    made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
    made.graph.initializer[1].name = "tied"
    made.graph.node[0].output[0] = "a"
    made.graph.node.extend([node("Conv", "x tied", "b"), node("Add", "a b", "y")])
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    found = from_onnx(folder / "m.onnx")
    assert [list(layer.blobs[0].data) for layer in found.weights.layer] == [[0, 1, 2, 3, 4, 5]] * 2


def test_link_is_refused_with_a_way_out(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(outside("link.bin", 0, 24).SerializeToString())
    with pytest.raises(DataError) as caught:
        from_onnx(folder / "m.onnx")
    assert caught.value.hint == "copy the model and its data into one folder"


def test_the_same_bytes_for_many_weights_are_one_error(folder: Path) -> None:
    made = outside("good.bin", 0, 24)
    for number in range(100):
        made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
        made.graph.initializer[-1].name = f"w{number}"
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(DataError, match="more data than the files beside the model hold"):
        from_onnx(folder / "m.onnx")


# -- names -------------------------------------------------------------------------------------------------------------


def test_odd_names_become_valid_ones_and_name_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["../../evil", "\x1b[31mred", "a\nb", "/etc/passwd", "n" * 3000, "n" * 3000 + "2", "é", 'quo"te\\', " "]
    nodes, value = [], "x"
    for name in names:
        nodes.append(helper.make_node("Relu", [value], [name], name=name))
        value = name
    made = model(*nodes, helper.make_node("Relu", [value], ["y"]))
    helper.set_model_props(made, {"name": "../\x1b[2J", "\x1b[2J": "\x07", "preprocessing": "[" * 5000})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.onnx").write_bytes(made.SerializeToString())
    assert main(["import", str(tmp_path / "in" / "m.onnx"), "--output", str(tmp_path / "out" / "net")]) == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "in",
        "m.onnx",
        "net.caffemodel",
        "net.prototxt",
        "out",
    ]
    layers = prototxt.read(tmp_path / "out" / "net.prototxt", pb.NetParameter).message.layer
    assert len({layer.name for layer in layers}) == len({layer.top[0] for layer in layers}) == len(names) + 2
    assert all(layer.name.isprintable() and 0 < len(layer.name) < 220 for layer in layers)


def test_nodes_of_one_name_are_one_error(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="n"), helper.make_node("Relu", ["a"], ["y"], name="n")]
    (tmp_path / "m.onnx").write_bytes(model(*nodes).SerializeToString())
    with pytest.raises(DataError, match="onnxruntime rejects the model"):
        from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("source", ["", "/", ".", "/dev/zero", "none.onnx"])
def test_what_is_no_file_is_one_error(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["import", source], ["import", source, "--output", str(tmp_path / "net")]):
        assert main(arguments) == 2
        assert "bug in sslnet" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- where results go --------------------------------------------------------------------------------------------------


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A folder with a model, a definition and weights of one net: net.onnx, net.prototxt, net.caffemodel."""
    made = model(node("Conv", "x w", "y"), w=np.ones((30, 3, 3, 3), "f4"))
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    assert main(["import", str(tmp_path / "net.onnx"), "--output", str(tmp_path / "net")]) == 0
    return tmp_path


def commands(folder: Path, target: Path) -> list[list[str]]:
    """import and export to a target."""
    definition = ["--model", str(folder / "net.prototxt"), "--weights", str(folder / "net.caffemodel")]
    return [
        ["import", str(folder / "net.onnx"), "--force", "--output", str(target)],
        ["export", *definition, "--force", "--output", f"{target}.onnx"],
    ]


def test_what_is_no_file_is_not_replaced(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in ("prototxt", "caffemodel", "onnx"):
        os.mkfifo(net / f"fifo.{suffix}")
        (net / f"folder.{suffix}").mkdir()
    before = sorted(net.rglob("*"))
    for target in ("fifo", "folder"):
        for command in commands(net, net / target):
            assert main(command) == 2
            assert "is not a regular file" in capsys.readouterr().err
    assert sorted(net.rglob("*")) == before and (net / "fifo.onnx").is_fifo()


def test_place_that_cannot_be_written_is_one_error(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(net.rglob("*"))
    for target in (net / "net.onnx" / "below", net / ("n" * 300)):
        for command in commands(net, target):
            assert main(command) == 1
            assert "error: cannot " in capsys.readouterr().err
    assert main(["import", str(net / "net.onnx"), "--output", f"{net}/"]) == 2
    assert sorted(net.rglob("*")) == before


def test_full_disk_leaves_nothing_behind(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the disk: the definition fits in, the weights and the model do not."""
    import resource

    whole, before = files.atomic_path, sorted(net.rglob("*"))

    @contextlib.contextmanager
    def limited(path: Any, **how: Any) -> Iterator[Path]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            with whole(path, **how) as temporary:
                yield temporary
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(files, "atomic_path", limited)
    for command in commands(net, net / "new"):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: cannot write") and told.count("\n") == 1
        assert sorted(net.rglob("*")) == before


@pytest.mark.parametrize("suffix", ["prototxt", "caffemodel"])
def test_import_writes_both_files_or_none(
    suffix: str, net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk may tell only when a file is flushed that there is no space for it."""
    whole, before = os.fsync, sorted(net.rglob("*"))

    def failing(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(f"new.{suffix}"):
            raise OSError(errno.ENOSPC, "no space")
        whole(handle)

    monkeypatch.setattr(os, "fsync", failing)
    assert main(commands(net, net / "new")[0]) == 1
    assert "no space" in capsys.readouterr().err
    assert sorted(net.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        'top: "data" input_param { shape { dim: 0 dim: 3 dim: 6 dim: 6 } } } layer { name: "c" bottom: "data" top: "c"',
        'top: "a\\nb" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } } layer { name: "\\033[31m" bottom: "a\\nb" top: "../y"',
        'top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } } layer { name: "c" bottom: "x" top: "c.0"',
        'top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } } layer { name: "c" bottom: "x" top: ""',
    ],
)
def test_export_of_an_odd_net_is_a_model_or_one_error(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }'
    (tmp_path / "net.prototxt").write_text(f'layer {{ name: "in" type: "Input" {text} {options} }}')
    weights = pb.NetParameter()
    layer = weights.layer.add(name="\x1b[31m" if "033" in text else "c", type="Convolution")
    for shape in ((2, 3, 3, 3), (2,)):
        layer.blobs.add(data=np.ones(int(np.prod(shape)))).shape.dim.extend(shape)
    (tmp_path / "net.caffemodel").write_bytes(weights.SerializeToString())
    code = main(commands(tmp_path, tmp_path / "made")[1])
    printed = capsys.readouterr()
    assert code in (0, 1, 2) and "bug in sslnet" not in printed.err
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    assert (tmp_path / "made.onnx").exists() == (code == 0)
