"""One process of the section memory: trains a net for a few iterations and prints its memory use as JSON.

memory_worker.py CONTESTANT WORKLOAD THREADS
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
ITERATIONS = 3


def resident() -> int:
    """The bytes resident now."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes resident since ``forget_peak``."""
    return _status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def ours(workload: str, threads: int) -> dict[str, int]:
    from benchmarks.machine import use_threads
    from benchmarks.training import make_solver
    from benchmarks.workloads import WORKLOADS, open_net
    from sslnet import sslnet_pb2 as pb

    use_threads(threads)
    before = resident()
    forget_peak()
    chosen = WORKLOADS[workload]
    solver = make_solver(open_net(chosen.model, chosen.batch, pb.TRAIN, lean=True))
    solver.step(ITERATIONS)
    return {"over": peak() - before, "total": peak()}


def torchs(layout: str, workload: str, threads: int) -> dict[str, int]:
    """The peer is made from our net, which takes memory that does not count: torch's own is what the process had with torch
    alone, and what it took from then on, the parameters that it already had included."""
    import torch

    alone = resident()
    from benchmarks.machine import use_threads
    from benchmarks.torch_peer import make_peer
    from benchmarks.training import TorchTrainer, tensors_of
    from benchmarks.workloads import WORKLOADS, open_net
    from sslnet import sslnet_pb2 as pb

    use_threads(threads, torch)
    chosen = WORKLOADS[workload]
    net = open_net(chosen.model, chosen.batch, pb.TRAIN)
    format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    peer, inputs = make_peer(net).to(memory_format=format), tensors_of(net, format, torch)
    del net
    gc.collect()
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*peer.parameters(), *inputs.values()))
    before = resident()
    forget_peak()
    trainer = TorchTrainer(peer, inputs, torch, kinds=("fused",))
    for _ in range(ITERATIONS):
        trainer.step()
    over = peak() - before + held
    return {"over": over, "total": alone + over}


if __name__ == "__main__":
    contestant, workload, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(ours(workload, threads) if contestant == "ours" else torchs(contestant, workload, threads)))
