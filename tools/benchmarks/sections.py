"""The sections of ``tools/bench``, in the order in which ``goals`` runs them."""

from __future__ import annotations

from types import ModuleType

from benchmarks import convs, inference, layers, memory, optimiser, sparse, training

SECTIONS: dict[str, ModuleType] = {
    "convs": convs,
    "nets": training,
    "inference": inference,
    "layers": layers,
    "optimiser": optimiser,
    "memory": memory,
    "sparse": sparse,
}
