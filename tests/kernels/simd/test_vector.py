"""The vector unit follows what Numba compiles for, and compiled kernels are found again by the next process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import GENERIC, UNITS, vector_unit

ROOT = Path(__file__).resolve().parents[3]

# One convolution forward, or with "all" one of each kind, and what they compute: ones times ones.
SCRIPT = """
import sys
import numpy as np
from sslnet.kernels.conv.plan import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import vector_unit

def run(channels, stride, gradients):
    g = ConvGeometry(2, channels, 8, 8, 20, 3, 3, stride, stride)
    x, w, y = (np.ones(shape, np.float32) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    forward = plan_forward(g)
    forward.pack(w, None)
    forward.run(x, y)
    assert (y == channels * 9).all(), y
    if gradients:
        input_grad = plan_input_grad(g)
        input_grad.pack(w)
        input_grad.run(y, x)
        plan_weight_grad(g).run(x, y, w)

run(16, 2, "all" in sys.argv)
if "all" in sys.argv:
    run(3, 1, True)
print(vector_unit().name)
"""

PROCESSORS = {
    ("nehalem", "+sse4.2"): "generic",
    ("haswell", "+avx2,+fma"): "AVX2",
}


def run_script(cache, what, cpu="", features=""):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU_")}
    environment |= {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "SSLNET_NUM_THREADS": "1"}
    if cpu:
        environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-c", SCRIPT, what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiled(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}


def test_kernels_are_found_again_by_processes_that_compile_for_the_same_processor_alone(tmp_path):
    run_script(tmp_path, "all")
    first = compiled(tmp_path)
    assert any("filter_tile" in path.name for path in first)
    run_script(tmp_path, "all")
    assert compiled(tmp_path) == first
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    for processor, unit in PROCESSORS.items():
        before = compiled(tmp_path)
        assert run_script(tmp_path, "forward", *processor) == unit
        after = compiled(tmp_path)
        kernels = {path.name.split("-")[0] for path in after.keys() - before.keys()}
        assert any("filter_tile" in name for name in kernels)
        assert after.items() >= before.items(), "code for another processor was written over"
    run_script(tmp_path, "all")
    assert compiled(tmp_path) == after


def test_tiles_of_every_unit_fit_its_registers():
    for unit in [*UNITS.values(), GENERIC]:
        assert unit.bytes == 4 * unit.lanes
        assert unit.registers >= 16
    assert vector_unit() in [*UNITS.values(), GENERIC]


@instructions
def transpose_square(builder, lanes, source, target):
    size = 4 * lanes
    rows = [vec.load(builder, lanes, vec.offset(builder, source, size * i)) for i in range(lanes)]
    for i, row in enumerate(vec.transpose(builder, rows)):
        vec.store(builder, row, vec.offset(builder, target, size * i))


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_transpose_turns_a_square(lanes):
    @njit
    def run(source, target):
        transpose_square(lanes, source, target)

    source = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    target = np.zeros_like(source)
    run(source.ctypes.data, target.ctypes.data)
    np.testing.assert_array_equal(target, source.T)


@instructions
def count_lanes(builder, lanes, count, target):
    ones = vec.splat(builder, lanes, vec.F32(1.0))
    total = vec.sum_lanes(builder, builder.select(vec.first_lanes(builder, lanes, count), ones, vec.zeros(lanes)))
    builder.store(total, vec.at(builder, target, vec.F32))


@pytest.mark.parametrize("count", [-3, 0, 1, 7, 8, 9])
def test_first_lanes_are_as_many_as_there_are(count):
    @njit
    def run(count, target):
        count_lanes(8, count, target)

    found = np.full(1, np.nan, np.float32)
    run(count, found.ctypes.data)
    assert found[0] == min(max(count, 0), 8)
