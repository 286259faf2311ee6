"""The micro-kernels of bytes called directly, against sums in NumPy."""

import numpy as np
import pytest

from sslnet.kernels.quantized import dot
from sslnet.kernels.quantized.dot import dot_units
from sslnet.kernels.quantized.elementwise import bits_of
from sslnet.kernels.quantized.microkernels import depthwise_tile, dot_tile
from sslnet.kernels.quantized.packing import pack_rows
from sslnet.kernels.quantized.rows import (
    add_blocks,
    dequantize_words,
    max_block,
    mean_block,
    quantize_row,
    quantize_words,
)
from sslnet.kernels.simd.vector import vector_unit

from ..calling import call, int64

RANDOM = np.random.default_rng(0)


def bytes_(*shape):
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", dot_units())
@pytest.mark.parametrize("left", [3, 1000])
def test_dot_tile(name, left):
    unit = dot_units()[name]
    lines, values, pixels, vectors = 2, 12, 3, 2
    width = unit.lanes * vectors
    weights = RANDOM.integers(-unit.most, unit.most + 1, (width, lines, values))
    packed = pack_rows(weights, unit, vectors)
    x = bytes_(200)
    places, offsets = int64(0, 5, 40), int64(0, 70)
    wide = x.astype(np.uint16) if unit.kind == dot.S16 else x
    bias, scale = RANDOM.integers(-999, 999, width).astype(np.int32), np.full(width, 0.002, np.float32)
    if unit.kind == dot.SDOT:
        bias += 128 * weights.sum(axis=(1, 2)).astype(np.int32)
    out = np.full((pixels, width + 4), 77, np.uint8)
    address = dot_tile(unit, kind=unit.kind, vectors=vectors, pixels=pixels, floats=0)
    size = unit.value_bytes
    call(address, packed, wide, size * places, size * offsets, lines, values // unit.values, scale, bias, 20, 255, out,
         width + 4, left)  # fmt: skip
    kept = min(width, -(-left // 4) * 4)
    for p in range(pixels):
        read = np.stack([x[places[p] + o :][:values] for o in offsets]).astype(np.int64)
        total = (bias + (weights * read).sum(axis=(1, 2))).astype(np.float32)
        wanted = np.clip(np.rint(total * scale), -20, 235) + 20
        np.testing.assert_array_equal(out[p, :kept], wanted[:kept])
    assert (out[:, kept:] == 77).all()


@pytest.mark.parametrize("floats", [0, 1])
@pytest.mark.parametrize("pairs", [0, 1])
def test_depthwise_tile(pairs, floats):
    unit = next(iter(dot_units().values()))
    pairs = pairs and int(unit.kind in (dot.VNNI, dot.UBSW, dot.S16))
    lanes, taps = unit.lanes, 5
    weights = RANDOM.integers(-127, 128, (taps, lanes)).astype(np.int32)
    x, places, offsets = bytes_(300), int64(0, 33), int64(0, 20, 40, 60, 85)
    bias, scale = RANDOM.integers(-999, 999, lanes).astype(np.int32), np.full(lanes, 0.003, np.float32)
    out = np.full((2, lanes), 7, np.float32 if floats else np.uint8)
    address = depthwise_tile(unit, pairs=pairs, pixels=2, floats=floats)
    call(address, weights, x, places, offsets, taps, scale, bias, 9, 255, out, out.strides[0], lanes)
    for p in range(2):
        read = np.stack([x[places[p] + o :][:lanes] for o in offsets]).astype(np.int64)
        total = (bias + (weights * read).sum(axis=0)).astype(np.float32) * scale
        np.testing.assert_array_equal(out[p], total if floats else np.clip(np.rint(total), -9, 246) + 9)


def test_conversions():
    unit = vector_unit()
    count = 2 * unit.lanes
    x = RANDOM.standard_normal((3, count)).astype(np.float32)
    y = np.zeros((count, 8), np.uint8)
    factor = bits_of(0.02)
    call(quantize_words(unit), x, 4 * count, 3, y, 8, count, factor, 100, 255)
    wanted = (np.clip(np.rint(x / np.float32(0.02)), -100, 155) + 100).astype(np.uint8)
    np.testing.assert_array_equal(y[:, :3], wanted.T)
    assert not y[:, 4:].any()
    row = np.zeros(count, np.uint8)
    call(quantize_row(unit), x, row, count, factor, 100, 255)
    np.testing.assert_array_equal(row, wanted[0])
    back = np.full((4, count), -1, np.float32)
    call(dequantize_words(unit), y, 8, back, 4 * count, 3, count, factor, 100)
    np.testing.assert_array_equal(back[:3], (wanted.astype(np.int32) - 100).astype(np.float32) * np.float32(0.02))
    assert (back[3] == -1).all()


def test_sums_of_blocks():
    unit = vector_unit()
    a, b = bytes_(4 * unit.lanes), bytes_(4 * unit.lanes)
    y = np.zeros_like(a)
    call(add_blocks(unit), a, b, y, a.size, bits_of(0.5), 3, bits_of(1.5), 200, 90, 255)
    total = (a.astype(np.int32) - 3).astype(np.float32) * np.float32(0.5)
    total = total + (b.astype(np.int32) - 200).astype(np.float32) * np.float32(1.5)
    np.testing.assert_array_equal(y, np.clip(np.rint(total), -90, 165) + 90)


@pytest.mark.parametrize("size", [4, 16])
def test_blocks_of_windows(size):
    unit = vector_unit()
    x, y = bytes_(3, 4, size), np.zeros(size, np.uint8)
    call(max_block(unit, size=size), x, 4 * size, 2, size, 3, y)
    np.testing.assert_array_equal(y, x[:2, :3].max(axis=(0, 1)))
    call(mean_block(unit, size=size), x, 4 * size, 2, size, 3, y, -6 * 40, bits_of(0.3), 60, 255)
    total = (x[:2, :3].astype(np.int64) - 40).sum(axis=(0, 1)).astype(np.float32) * np.float32(0.3)
    np.testing.assert_array_equal(y, np.clip(np.rint(total), -60, 195) + 60)


CODE = """
import sys
import llvmlite.binding as llvm
from llvmlite import ir
from sslnet.kernels.quantized.dot import UNITS
from sslnet.kernels.quantized.microkernels import dot_tile, depthwise_tile

name, triple, cpu, depthwise = sys.argv[1:]
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
unit = UNITS[name][1]
emit, numbers = dot_tile, dict(kind=unit.kind, vectors=2, pixels=4, floats=0)
if depthwise == "1":
    emit, numbers = depthwise_tile, dict(pairs=int(name in ("vnni512", "vnni256", "ubsw512", "s16_512", "ubsw", "s16")), pixels=4, floats=0)
emit = emit.__wrapped__
count = emit.__code__.co_argcount - 2
module = ir.Module()
module.triple = triple
function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * count), "tile")
builder = ir.IRBuilder(function.append_basic_block())
emit(builder, unit.lanes, *function.args, **numbers)
builder.ret_void()
machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
parsed = llvm.parse_assembly(str(module))
parsed.verify()
print(machine.emit_assembly(parsed))
"""


@pytest.mark.parametrize(
    ("name", "triple", "cpu", "instruction", "count"),
    [
        ("vnni512", "x86_64-linux-gnu", "icelake-server", "vpdpbusd", 8),
        ("vnni512", "x86_64-linux-gnu", "znver4", "vpdpbusd", 8),
        ("vnni512", "x86_64-linux-gnu", "sapphirerapids", "vpdpbusd", 8),
        ("vnni256", "x86_64-linux-gnu", "alderlake", "vpdpbusd", 8),
        ("ubsw512", "x86_64-linux-gnu", "skylake-avx512", "vpmaddubsw", 8),
        ("s16_512", "x86_64-linux-gnu", "skylake-avx512", "vpmaddwd", 8),
        ("ubsw", "x86_64-linux-gnu", "haswell", "vpmaddubsw", 8),
        ("s16", "x86_64-linux-gnu", "znver3", "vpmaddwd", 8),
        ("usdot", "aarch64-linux-gnu", "neoverse-v1", "usdot", 8),
        ("sdot", "aarch64-linux-gnu", "neoverse-n1", "sdot", 8),
        ("sdot", "aarch64-apple-darwin", "apple-m1", "sdot", 8),
        ("plain", "x86_64-linux-gnu", "x86-64-v2", "pm", 1),
        ("plain", "aarch64-linux-gnu", "cortex-a72", "m", 1),
    ],
)
def test_code_for_other_machines(name, triple, cpu, instruction, count):
    """The compiler ends the process where a feature is missing, so each unit is compiled in a process of its own."""
    import re
    import subprocess
    import sys

    for depthwise in "01":
        done = subprocess.run(
            [sys.executable, "-c", CODE, name, triple, cpu, depthwise], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        if depthwise == "0":
            found = re.findall(rf"^\s+(?:\{{vex}}\s+)?{instruction}", done.stdout, re.MULTILINE)
            assert len(found) >= count, done.stdout[-3000:]
