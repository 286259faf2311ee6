"""clear: zeros in all of the array and nowhere else."""

import numpy as np
import pytest

from sslnet.kernels.runtime.fill import clear
from sslnet.kernels.runtime.threads import set_num_threads


@pytest.fixture(autouse=True)
def three_threads():
    set_num_threads(3)
    yield
    set_num_threads(None)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (3, 400_003)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_inside_becomes_zero_and_nothing_outside(shape, dtype):
    size = int(np.prod(shape))
    memory = np.full(size + 2, 5, dtype)
    clear(memory[1 : 1 + size].reshape(shape))
    assert not memory[1:-1].any()
    assert memory[0] == memory[-1] == 5


def test_an_array_that_is_not_in_one_piece():
    memory = np.ones((6, 8), np.float32)
    clear(memory[::2, 1:5])
    assert memory.sum() == 48 - 12
