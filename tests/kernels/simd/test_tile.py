"""What @tile makes of an emitter, and that every micro-kernel has a test of its own."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import sslnet
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions, tile

from ..calling import call

KERNELS = Path(sslnet.__file__).parent / "kernels"


@dataclass(frozen=True)
class Sizes:
    first: int
    second: int


def write_product(builder, lanes, x, y, *, factor, sizes: Sizes):
    """y = x * factor + first - second + lanes, of int64."""
    product = builder.mul(builder.load(vec.at(builder, x, vec.I64)), vec.I64(factor))
    total = builder.add(product, vec.I64(sizes.first - sizes.second + lanes))
    builder.store(total, vec.at(builder, y, vec.I64))


def test_numbers_of_a_tile_are_given_by_name_or_by_position(unit):
    product = tile(write_product)
    x, y = np.array([7]), np.array([0])
    address = product(unit, factor=3, sizes=Sizes(20, 5))
    call(address, x, y)
    assert y[0] == 7 * 3 + 15 + unit.lanes
    assert product(unit, 3, Sizes(20, 5)) == address
    assert product(unit, 3, Sizes(20, 6)) != address
    with pytest.raises(TypeError, match="sizes"):
        product(unit, 3)
    with pytest.raises(TypeError, match="width"):
        product(unit, 3, Sizes(1, 2), width=1)


def test_instructions_stand_where_they_are_called(unit):
    product, lanes = instructions(write_product), unit.lanes

    @njit
    def run(x, y):
        product(lanes, 3, 20, 5, x, y)

    x, y = np.array([7]), np.array([0])
    run(x.ctypes.data, y.ctypes.data)
    assert y[0] == 7 * 3 + 15 + unit.lanes


def defined_tiles():
    """(name, file) of every function of kernels/ that returns the address of a C function."""
    for path in sorted(KERNELS.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"^@tile\ndef (\w+)\(", text, re.MULTILINE)
        names += re.findall(
            r"^@cache\ndef (\w+)\((?:(?!\ndef |\n@).)*?\n    @c_function", text, re.MULTILINE | re.DOTALL
        )
        yield from ((name, path) for name in names)


@pytest.mark.parametrize(("name", "path"), [pytest.param(*found, id=found[0]) for found in defined_tiles()])
def test_every_tile_is_called_directly_in_the_tests_of_its_folder(name, path):
    tests = Path(__file__).parents[1] / path.parent.relative_to(KERNELS)
    called = [test for test in tests.glob("test_*.py") if re.search(rf"\b{name}\(\s*unit\b", test.read_text("utf-8"))]
    assert called, f"no test in {tests} calls {name}(unit, ...)"
