"""The vector unit follows what Numba compiles for, and compiled kernels are found again by the next process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit, types
from numba.extending import intrinsic

from sslnet.kernels import vector as vec
from sslnet.kernels.vector import GENERIC, UNITS, vector_unit

ROOT = Path(__file__).resolve().parents[2]

# One convolution of each kind, and what it computes: ones times ones.
SCRIPT = """
import numpy as np
from sslnet.kernels.conv import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.kernels.vector import vector_unit

for channels, stride in ((3, 1), (16, 2)):
    g = ConvGeometry(2, channels, 8, 8, 20, 3, 3, stride, stride)
    x, w, y = (np.ones(shape, np.float32) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    forward, input_grad = plan_forward(g), plan_input_grad(g)
    forward.pack(w, None)
    forward.run(x, y)
    assert (y == channels * 9).all(), y
    input_grad.pack(w)
    input_grad.run(y, x)
    plan_weight_grad(g).run(x, y, w)
print(vector_unit().name)
"""


def run_script(cache, **environment):
    own = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "SSLNET_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | own | environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_second_process_compiles_nothing(tmp_path):
    def compiled():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}

    run_script(tmp_path)
    first = compiled()
    assert any("filter_tile" in path.name for path in first)
    run_script(tmp_path)
    assert compiled() == first


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86 processors")
@pytest.mark.parametrize(
    ("cpu", "features", "name"), [("haswell", "+avx2,+fma", "AVX2"), ("x86-64", "+sse2", "generic")]
)
def test_vector_unit_obeys_the_processor_that_numba_is_told(tmp_path, cpu, features, name):
    assert run_script(tmp_path, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features) == name


def test_tiles_of_every_unit_fit_its_registers():
    for unit in [*UNITS.values(), GENERIC]:
        assert unit.bytes == 4 * unit.lanes
        assert unit.registers >= 16
    assert vector_unit() in [*UNITS.values(), GENERIC]


@intrinsic(prefer_literal=True)
def transpose_square(typingctx, lanes, source, target):
    numbers = vec.literal_values(lanes)
    if numbers is None:
        return None

    def codegen(context, builder, signature, args):
        width = numbers[0]
        rows = [vec.load(builder, width, vec.offset(builder, args[1], 4 * width * i)) for i in range(width)]
        for i, row in enumerate(vec.transpose(builder, rows)):
            vec.store(builder, row, vec.offset(builder, args[2], 4 * width * i))
        return context.get_dummy_value()

    return types.void(lanes, types.int64, types.int64), codegen


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_transpose_turns_a_square(lanes):
    @njit
    def run(source, target):
        transpose_square(lanes, source, target)

    source = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    target = np.zeros_like(source)
    run(source.ctypes.data, target.ctypes.data)
    np.testing.assert_array_equal(target, source.T)


@intrinsic(prefer_literal=True)
def count_lanes(typingctx, lanes, count):
    numbers = vec.literal_values(lanes)
    if numbers is None:
        return None

    def codegen(context, builder, signature, args):
        mask = vec.first_lanes(builder, numbers[0], args[1])
        ones = vec.splat(builder, numbers[0], vec.F32(1.0))
        return vec.sum_lanes(builder, builder.select(mask, ones, vec.zeros(numbers[0])))

    return types.float32(lanes, types.int64), codegen


@pytest.mark.parametrize("count", [-3, 0, 1, 7, 8, 9])
def test_first_lanes_are_as_many_as_there_are(count):
    @njit
    def run(count):
        return count_lanes(8, count)

    assert run(count) == min(max(count, 0), 8)
