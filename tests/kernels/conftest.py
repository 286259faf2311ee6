"""For the tests of micro-kernels: the vector units that they are compiled for."""

import pytest

from sslnet.kernels.simd.vector import GENERIC, UNITS


@pytest.fixture(params=[UNITS["avx2"], GENERIC], ids=lambda unit: unit.name)
def unit(request):
    """Vectors of 8 floats and of 4: the compiler splits what the machine does not have."""
    return request.param
