"""Tells from the environment whether an MPI launcher has started this process as one of several, and as which one."""

from __future__ import annotations

import os

LAUNCHERS = {
    "MPICH, Intel MPI or Slurm with PMI": ("PMI_SIZE", "PMI_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "PMIx": ("PMIX_SIZE", "PMIX_RANK"),
    "Slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
}
"""The environment variables with the number of processes and with the number of this one."""
PMI = ("PMI_FD", "PMI_PORT", "PMI2_FD", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_PMIXP_ABORT_AGENT_PORT")
"""Variables of Slurm's interfaces to MPI: its number of tasks is also set in a batch script's own shell."""


def launched_size() -> int:
    """The number of processes that a launcher has started together; 1 without one."""
    return _launched()[0]


def launched_rank() -> int:
    """The number of this process among them, from 0."""
    return _launched()[1]


def _launched() -> tuple[int, int]:
    for launcher, (size, rank) in LAUNCHERS.items():
        if launcher == "Slurm" and not any(name in os.environ for name in PMI):
            continue
        count, number = _number(size), _number(rank)
        if count is not None and number is not None and count > 1:
            return count, number
    return 1, 0


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
