"""What a net takes: told, and held against what the machine has, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sslnet.errors import RunError

if TYPE_CHECKING:
    from sslnet.net import Net


@dataclass(frozen=True)
class Memory:
    """Bytes a net takes for its blobs once everything it runs has been touched."""

    data: int
    diff: int
    params: int
    largest: list[tuple[str, int]] = field(default_factory=list)
    """The blobs that take most, (name, bytes) of data and diff together."""

    @property
    def total(self) -> int:
        return self.data + self.diff + self.params


def measure(net: Net) -> Memory:
    """Data of all blobs that do not merely show another's, diffs of what runs backward, parameters with their diffs."""
    with_diff = {
        id(blob)
        for i, need in enumerate(net.layer_need_backward)
        if need
        for blob in (*net.tops[i], *(b for b, n in zip(net.bottoms[i], net.bottom_need_backward[i]) if n))
    }
    data = diff = 0
    sizes = []
    for blob in dict.fromkeys(blob for tops in net.tops for blob in tops):
        own_data = blob.nbytes if blob.owns("data") else 0
        own_diff = blob.nbytes if blob.owns("diff") and id(blob) in with_diff else 0
        data, diff = data + own_data, diff + own_diff
        sizes.append((blob.name, own_data + own_diff))
    params = sum(2 * p.blob.nbytes for p in net.learnable if p.blob.owns("data"))
    return Memory(data, diff, params, sorted(sizes, key=lambda item: -item[1])[:5])


def check_memory(net: Net) -> None:
    """raises RunError when the net would not fit into what is free."""
    needed, available = measure(net), available_memory()
    if available is not None and needed.total > available:
        largest = ", ".join(f"{name} {_mib(size)}" for name, size in needed.largest)
        raise RunError(
            f'net "{net.name}" needs {_mib(needed.total)} for its blobs, {_mib(available)} are free',
            path=net.definition.path,
            hint=f"a smaller batch_size helps; the largest blobs: {largest}",
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, where the system tells."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
