"""The sections of ``tools/bench``, in the order in which ``goals`` runs them."""

from __future__ import annotations

from types import ModuleType

from benchmarks import convs, inference, layers, memory, optimiser, quantized, sparse, training

SECTIONS: dict[str, ModuleType] = {
    "convs": convs,
    "nets": training,
    "inference": inference,
    "layers": layers,
    "optimiser": optimiser,
    "memory": memory,
    "quantized": quantized,
    "sparse": sparse,
}
