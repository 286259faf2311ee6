"""Contestants limited to older vector instructions: the command is run again in an environment that sets the limit.

torch, oneDNN, MKL and OpenBLAS read their variables when they are loaded, Numba when it compiles first. onnxruntime has no
such variable: it uses what the machine has. Compiled kernels are kept in a folder of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Isa:
    """The environment variables that limit every contestant."""

    environment: dict[str, str]

    @property
    def mark(self) -> str:
        """A variable that is set where the limit holds."""
        return "SSLNET_BENCH_ISA"


_AVX2 = (
    "+64bit +adx +aes +avx +avx2 +bmi +bmi2 +cmov +cx16 +cx8 +f16c +fma +fsgsbase +fxsr +lzcnt +mmx +movbe +pclmul "
    "+popcnt +rdrnd +sahf +sse +sse2 +sse3 +sse4.1 +sse4.2 +ssse3 +xsave +xsaveopt"
)
"""The features of Haswell, the first processor with AVX2."""

ISAS = {
    "avx2": Isa(
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": ",".join(_AVX2.split()),
        }
    )
}


def run_again(name: str, command: Sequence[str]) -> int:
    """Replaces this process by the same command under the limit."""
    isa = ISAS[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / f"sslnet-bench-{name}"
    environment = {**os.environ, **isa.environment, isa.mark: name, "NUMBA_CACHE_DIR": str(cache)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *command], environment)
