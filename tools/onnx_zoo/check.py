"""Imports models, exports them again and compares all three: ``python tools/onnx_zoo/check.py FOLDER_OR_FILE ...``.

Prints for each model the largest relative difference of the import and of the round trip, the operators that the round
trip adds or loses, and with ``--time`` the ratio of the times of original and round trip in onnxruntime (median of CPU times
of one thread, both in turns). Runs in sslnet's environment with onnxruntime; make.py writes the models.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError
from sslnet.exchange.export import export
from sslnet.exchange.importing import from_onnx
from sslnet.net.net import Net
from sslnet.prototxt import Definition


def session(model: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ratio(first: onnxruntime.InferenceSession, second: onnxruntime.InferenceSession, seconds: float) -> float:
    """Median time of the first over that of the second, the two in turns, CPU time of this thread."""
    times: list[list[float]] = [[], []]
    inputs = [
        {i.name: np.random.default_rng(0).standard_normal([d if isinstance(d, int) else 1 for d in i.shape],
                                                         dtype=np.float32) for i in s.get_inputs()}
        for s in (first, second)
    ]  # fmt: skip
    end = time.thread_time() + seconds
    while time.thread_time() < end or len(times[0]) < 8:
        for k, (s, x) in enumerate(zip((first, second), inputs)):
            begun = time.thread_time()
            s.run(None, x)
            times[k].append(time.thread_time() - begun)
    return statistics.median(times[0][2:]) / statistics.median(times[1][2:])


def one(path: Path, seconds: float) -> str:
    found = from_onnx(path)
    difference = "not compared" if found.difference is None else f"{found.difference.relative:.1e}"
    net = Net(Definition(found.message), found.weights, pb.TEST)
    model, back = export(net)
    before, after = (
        collections.Counter(n.op_type for n in m.graph.node if n.op_type not in ("Constant", "Identity"))
        for m in (onnx.load(path, load_external_data=False), model)
    )
    text = f"import {difference}  back {back.relative if back else -1:.1e}"
    more, less = after - before, before - after
    if more or less:
        text += f"  +{dict(more)} -{dict(less)}"
    if seconds:
        text += f"  time {ratio(session(str(path)), session(model.SerializeToString()), seconds):.3f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--time", type=float, default=0, metavar="SECONDS", help="CPU time for each ratio of times")
    args = parser.parse_args()
    good = total = 0
    for path in [p for given in args.models for p in (sorted(given.glob("*.onnx")) if given.is_dir() else [given])]:
        total += 1
        try:
            print(f"{path.stem:40} {one(path, args.time)}", flush=True)
            good += 1
        except SslnetError as error:
            print(f"{path.stem:40} REFUSED {' | '.join(dict.fromkeys(str(error).splitlines()))[:400]}", flush=True)
        except Exception as error:  # a fault
            print(f"{path.stem:40} FAULT {type(error).__name__}: {error}", flush=True)
    print(f"{good} of {total}")


if __name__ == "__main__":
    main()
