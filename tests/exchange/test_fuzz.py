"""Whatever an ONNX file holds: it becomes a net, or one error says why not, in bounded memory and time.

SSLNET_TEST_EXAMPLES is the number of files of each kind; SSLNET_TEST_RANDOM=1 draws new ones each time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto, TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured as Linux does")
EXAMPLES = int(os.environ.get("SSLNET_TEST_EXAMPLES", "100"))
RANDOM = np.random.default_rng(0)


def model(*nodes: Any, opset: int = 17, **constants: Any) -> bytes:
    """A model from x (1 x 4 x 8 x 8) to y; a node is (operator, inputs, outputs, attributes)."""
    made = [
        helper.make_node(op, ins.split(), outs.split(), **(more[0] if more else {})) for op, ins, outs, *more in nodes
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "c", "h", "w"]) for name in "xy"]
    for dim, size in zip(infos[0].type.tensor_type.shape.dim[1:], (4, 8, 8)):
        dim.dim_value = size
    graph = helper.make_graph(made, "g", infos[:1], infos[1:], initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def weights(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


NONE = np.zeros(0, np.float32)
MODELS = [
    model(
        ("Conv", "x w b", "a", {"pads": [1, 0, 1, 1], "strides": [2, 1]}), ("BatchNormalization", "a s b m v", "c"),
        ("Relu", "c", "d"), ("MaxPool", "d", "e", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", "e", "f", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}), ("LRN", "f", "g", {"size": 3}),
        ("Flatten", "g", "h", {"axis": 1}), ("Gemm", "h u z", "i", {"transB": 1}), ("Softmax", "i", "y", {"axis": 1}),
        w=weights(3, 4, 3, 3), b=weights(3), s=weights(3) + 2, m=weights(3), v=weights(3) ** 2 + 1, u=weights(5, 18), z=weights(5),
    ),
    model(
        ("Pad", "x p", "a"), ("Conv", "a w", "b", {"group": 2, "dilations": [2, 2]}), ("PRelu", "b s", "c"),
        ("ConvTranspose", "c t", "d", {"strides": [2, 2], "output_padding": [1, 1]}), ("Clip", "d low high", "e"),
        ("Resize", "e none f", "y", {"mode": "linear"}),
        p=ints(0, 0, 1, 1, 0, 0, 1, 1), w=weights(4, 2, 3, 3), s=weights(4, 1, 1), t=weights(4, 2, 3, 3), low=np.float32(-1),
        high=np.float32(1), none=NONE, f=np.array([1, 1, 2, 2], "f4"),
    ),
    model(
        ("Shape", "x", "s"), ("Gather", "s zero", "n"), ("Unsqueeze", "n zeros", "m"), ("Concat", "m rest", "t", {"axis": 0}),
        ("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}), ("Reshape", "a t", "b"), ("MatMul", "b w", "c"), ("Add", "c v", "d"),
        ("Slice", "d from to axes", "e"), ("ReduceMean", "e", "f", {"axes": [1], "keepdims": 0}), ("Squeeze", "f", "y"),
        zero=np.int64(0), zeros=ints(0), rest=ints(64, 4), w=weights(4, 6), v=weights(6), **{"from": ints(1), "to": ints(-1), "axes": ints(2)},
    ),
    model(
        ("Split", "x s", "a b", {"axis": 1}), ("Mul", "a b", "c"), ("Concat", "a c", "d", {"axis": 1}), ("Gather", "d i", "e", {"axis": 1}),
        ("DepthToSpace", "d", "f", {"blocksize": 2, "mode": "CRD"}), ("ReduceL2", "f", "g", {"axes": [1]}), ("Div", "f g", "h"),
        ("Expand", "e shape", "j"), ("GlobalAveragePool", "j", "k"), ("ArgMax", "h", "l", {"axis": 1}), ("Cast", "l", "m", {"to": 1}),
        ("Sub", "m k", "n"), ("HardSigmoid", "n", "o"), ("Pow", "o two", "q"), ("Min", "q two", "r"), ("Celu", "r", "y"),
        s=ints(2, 2), i=ints(1, 2), shape=ints(1, 2, 8, 8), two=np.float32(2),
    ),
    model(
        ("ConstantOfShape", "s", "a", {"value": helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])}), ("Add", "x a", "b"),
        ("Range", "zero four one", "c"), ("Cast", "c", "d", {"to": 1}), ("Reshape", "d t", "e"), ("Mul", "b e", "f"), ("Tile", "e u", "g"),
        ("ReduceSum", "g", "h", {"keepdims": 0}), ("Sub", "f h", "i"), ("LogSoftmax", "i", "j", {"axis": 3}), ("Dropout", "j", "k"), ("Mish", "k", "y"),
        s=ints(4, 1, 1), zero=np.int64(0), four=np.int64(4), one=np.int64(1), t=ints(1, 4, 1, 1), u=ints(1, 1, 2, 2), opset=18,
    ),
]  # fmt: skip
"""Between them they have most of the operators that are read."""


# -- changes -----------------------------------------------------------------------------------------------------------


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Some bytes otherwise: single ones, numbers, pieces that are gone, doubled or of somewhere else."""
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at, size = draw.randrange(len(data) + 1), draw.choice([1, 1, 2, 4, 8, 16])
        other = draw.randrange(len(data) + 1)
        piece = draw.choice([
            draw.randbytes(size), b"\xff" * size, bytes(size), data[other : other + size], b"\xff" * 9 + b"\x01", b""
        ])  # fmt: skip
        data = data[:at] + piece + data[at + draw.choice([0, 1, size, len(piece)]) :]
        if draw.random() < 0.03:
            data = data[:at]
    return data


NUMBERS = [0, 1, -1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 64, 255, 1 << 16, 10**6, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63)]
FLOATS = [0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e38, -1e38, float("inf"), float("nan")]


def changed_message(data: bytes, draw: random.Random) -> bytes:
    """Some fields otherwise, of any message in the model."""
    made = ModelProto.FromString(data)
    for _ in range(draw.choice([1, 1, 2, 3, 5])):
        messages = list(parts(made))
        message = draw.choice(messages)
        fields = [field for field, _ in message.ListFields()]
        every = list(message.DESCRIPTOR.fields)
        change_field(message, draw.choice(fields if fields and draw.random() < 0.75 else every), messages, draw)
    return made.SerializeToString()


def parts(message: Any) -> Any:
    """A message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if is_list(value) else [value]:
                yield from parts(part)


def is_list(value: Any) -> bool:
    return hasattr(value, "append") or hasattr(value, "add")


def change_field(message: Any, field: FieldDescriptor, messages: list[Any], draw: random.Random) -> None:
    values = getattr(message, field.name)
    listed = is_list(values)
    if draw.random() < 0.15 or (listed and values and draw.random() < 0.2):
        if listed and values:
            del values[draw.randrange(len(values))]
        else:
            message.ClearField(field.name)
    elif field.message_type is not None:
        alike = [other for other in messages if other.DESCRIPTOR is field.message_type]
        copy = draw.choice(alike).SerializeToString() if alike and draw.random() < 0.8 else b""  # it may be in itself
        target = values.add() if listed else values
        target.ParseFromString(copy)
        if not listed:
            target.SetInParent()
    else:
        value = new_value(field, messages, draw)
        if not listed:
            setattr(message, field.name, value)
        elif values and draw.random() < 0.6:
            values[draw.randrange(len(values))] = value
        else:
            values.append(value)


def new_value(field: FieldDescriptor, messages: list[Any], draw: random.Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return draw.randbytes(draw.choice([0, 1, 4, 8, 16]))
        nodes = [other for other in messages if other.DESCRIPTOR.name == "NodeProto"]
        names = [name for node in nodes for name in (*node.input, *node.output, node.op_type)]
        names += [attribute.name for node in nodes for attribute in node.attribute]
        return draw.choice(
            [*names, "", "../../x", "\x1b[31m", "a\nb", "n" * 5000, "axes", "Loop", "If", "Range", "Tile"]
        )
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return draw.choice(field.enum_type.values).number
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return draw.choice(FLOATS)
    number = draw.choice(NUMBERS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT32:
        return max(-(2**31), min(number, 2**31 - 1))
    return number % 2**64 if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64 else number


# -- the test ----------------------------------------------------------------------------------------------------------

WORKER = """
import os, random, sys, time, warnings
os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})  # processor time of one thread, no waiting ones
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError
from sslnet.exchange.importing import from_onnx
warnings.simplefilter("ignore")
for path in sys.stdin.read().split("\\n"):
    print("begin", path, flush=True)
    start, kind = time.process_time(), "net"
    try:
        imported = from_onnx(path)
        prototxt.parse(prototxt.write(imported.message), pb.NetParameter)
        names = [layer.name for layer in imported.message.layer]
        assert len(set(names)) == len(names) and all(name.isprintable() and name for name in names), names
    except SslnetError as error:
        kind, text = "error", str(error)
        assert len(text) < 20_000 and text.replace("\\n", "").isprintable(), text
        if isinstance(error.__cause__, (ArithmeticError, LookupError, TypeError)):
            kind = "error: last line of defence"
    seconds = time.process_time() - start
    assert seconds < 20, (path, seconds)
    print(kind, flush=True)
print("peak", int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.timeout(0)
@pytest.mark.parametrize("change", [changed_bytes, changed_message], ids=lambda change: change.__name__)
def test_changed_model_is_a_net_or_one_error(change: Any, tmp_path: Path) -> None:
    """In a process of its own, which would take a crash with it; the file that it ended at stays in the folder."""
    seed = random.randrange(2**32) if os.environ.get("SSLNET_TEST_RANDOM") else 0
    paths = []
    for number in range(EXAMPLES):
        draw = random.Random(f"{seed} {number}")
        paths.append(tmp_path / f"{seed}_{number}.onnx")
        paths[-1].write_bytes(change(draw.choice(MODELS), draw))
    run = subprocess.run(
        [sys.executable, "-c", WORKER],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = run.stdout.splitlines()
    assert run.returncode == 0, f"{lines[-1:]}: {run.returncode} {run.stderr[-2000:]}"
    ends = lines[1:-1:2]
    assert len(ends) == EXAMPLES
    assert {"net", "error"} <= set(ends)
    assert int(lines[-1].split()[1]) < 1024


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_models_that_are_changed_are_good(number: int, tmp_path: Path) -> None:
    from sslnet.exchange.importing import from_onnx

    (tmp_path / "m.onnx").write_bytes(MODELS[number])
    assert from_onnx(tmp_path / "m.onnx").difference is not None
