"""Estimates the memory of a net, and compares it with the available memory before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sslnet.blob import Blob
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.memory_planner import Lease


@dataclass(frozen=True)
class Memory:
    """Bytes that a net uses once all its memory has been allocated.

    data, diff  blobs that have memory of their own
    params      learnable blobs, with their diffs if the net runs backward
    """

    data: int
    diff: int
    params: int
    largest: list[tuple[str, int]] = field(default_factory=list)
    """The largest blobs: (name, bytes of data and diff together)."""
    shared: int = 0
    """Bytes shared by the blobs of a lean net; counted once for nets that share them with each other."""
    layers: int = 0
    """Bytes of other arrays of layers: for their backward pass, and batches read ahead."""

    @property
    def blobs(self) -> int:
        """Bytes of data and diffs, shared memory counted once."""
        return self.data + self.diff + self.shared

    @property
    def total(self) -> int:
        return self.blobs + self.params + self.layers


def measure(graph: LayerGraph, lease: Lease | None) -> Memory:
    """Measures the memory of a net: data of blobs that own them, diffs of those that run backward, parameters and diffs.

    lease   the memory shared by the blobs of a lean net, else None
    """
    shared = {(live_range.blob, live_range.which) for live_range in lease.live_ranges} if lease is not None else set()
    with_diff = {
        blob
        for i, need in enumerate(graph.layer_need_backward)
        if need and graph.runs_backward
        for blob in (*graph.tops[i], *(b for b, n in zip(graph.bottoms[i], graph.bottom_need_backward[i]) if n))
    }
    data = diff = 0
    sizes = []
    for blob in graph.versions:
        own_data = blob.nbytes if blob.owns("data") else 0
        own_diff = blob.nbytes if blob.owns("diff") and blob in with_diff else 0
        data += 0 if (blob, "data") in shared else own_data
        diff += 0 if (blob, "diff") in shared else own_diff
        sizes.append((blob.name, own_data + own_diff))
    params = sum(
        2 * p.blob.nbytes if graph.runs_backward else p.blob.nbytes for p in graph.learnable if p.blob.owns("data")
    )
    kept = {id(array): array.nbytes for layer in graph.layers for array in _kept_by(layer)}
    layers = sum(kept.values()) + sum(map(_read_ahead, graph.layers, graph.tops))
    largest = sorted(sizes, key=lambda item: -item[1])[:5]
    return Memory(data, diff, params, largest, lease.size if lease is not None else 0, layers)


def _kept_by(layer: Layer) -> list[np.ndarray | Blob]:
    """The arrays and blobs that a layer has allocated for internal use."""
    return [value for value in vars(layer).values() if isinstance(value, np.ndarray | Blob)]


def _read_ahead(layer: Layer, tops: list[Blob]) -> int:
    """Bytes of the batches that are read ahead of the current one."""
    return layer.prefetch() * sum(top.nbytes for top in tops) if isinstance(layer, PrefetchedLayer) else 0


def check_memory(needed: Memory, name: str, path: str | None) -> None:
    """Raises RunError if the net of this name, defined at ``path``, does not fit into the available memory."""
    available = available_memory()
    if available is not None and needed.total > available:
        largest = ", ".join(f"{name} {_mib(size)}" for name, size in needed.largest)
        raise RunError(
            f'net "{name}" needs {_mib(needed.total)} for its blobs, {_mib(available)} are free',
            path=path,
            hint=f"a smaller batch_size helps; the largest blobs: {largest}",
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None if unknown."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
