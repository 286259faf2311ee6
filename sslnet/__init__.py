"""sslnet: nets defined as for Caffe, trained so that they come out small and fast.

    import sslnet
    net = sslnet.Net("models/lenet/deploy.prototxt", "lenet.caffemodel", sslnet.TEST)
    net.forward(data=image)["prob"]

Names are loaded when they are first used, so that ``import sslnet`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslnet import errors, layers
    from sslnet.api.compact import compact
    from sslnet.api.compress import compress_net
    from sslnet.api.evaluate import evaluate
    from sslnet.api.low_rank import low_rank
    from sslnet.api.onnx import export_onnx, import_onnx
    from sslnet.api.prune import prune
    from sslnet.api.prune_channels import prune_channels
    from sslnet.api.prune_dead import prune_dead
    from sslnet.api.quantize import quantize
    from sslnet.api.restructure import restructure
    from sslnet.api.teach import teach
    from sslnet.blob import Blob
    from sslnet.compress.pruning.cycles import pruning_cycles
    from sslnet.errors import SslnetError
    from sslnet.inference.predictor import Predictor
    from sslnet.kernels.runtime.threads import set_deterministic
    from sslnet.layers.python import PythonLayer as Layer
    from sslnet.layers.python import allow_python_layers
    from sslnet.net.net import Net
    from sslnet.output_rule import set_output_rule
    from sslnet.prototxt.net_spec import NetSpec, params, to_proto
    from sslnet.pycaffe import io
    from sslnet.pycaffe.classifier import Classifier
    from sslnet.pycaffe.module import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        AdamWSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        get_solver,
        layer_type_list,
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_random_seed,
    )
    from sslnet.solver.solver import Solver
    from sslnet.sslnet_pb2 import TEST, TRAIN

    __version__: str

_MODULES = {
    "TEST": "sslnet.sslnet_pb2",
    "TRAIN": "sslnet.sslnet_pb2",
    "AdaDeltaSolver": "sslnet.pycaffe.module",
    "AdaGradSolver": "sslnet.pycaffe.module",
    "AdamSolver": "sslnet.pycaffe.module",
    "AdamWSolver": "sslnet.pycaffe.module",
    "Blob": "sslnet.blob",
    "Classifier": "sslnet.pycaffe.classifier",
    "Layer": "sslnet.layers.python:PythonLayer",
    "NesterovSolver": "sslnet.pycaffe.module",
    "Net": "sslnet.net.net",
    "NetSpec": "sslnet.prototxt.net_spec",
    "Predictor": "sslnet.inference.predictor",
    "RMSPropSolver": "sslnet.pycaffe.module",
    "SGDSolver": "sslnet.pycaffe.module",
    "Solver": "sslnet.solver.solver",
    "SslnetError": "sslnet.errors",
    "allow_python_layers": "sslnet.layers.python",
    "compact": "sslnet.api.compact",
    "compress_net": "sslnet.api.compress",
    "evaluate": "sslnet.api.evaluate",
    "export_onnx": "sslnet.api.onnx",
    "get_solver": "sslnet.pycaffe.module",
    "import_onnx": "sslnet.api.onnx",
    "layer_type_list": "sslnet.pycaffe.module",
    "lint": "sslnet.api.lint",
    "low_rank": "sslnet.api.low_rank",
    "params": "sslnet.prototxt.net_spec",
    "prune": "sslnet.api.prune",
    "prune_channels": "sslnet.api.prune_channels",
    "prune_dead": "sslnet.api.prune_dead",
    "pruning_cycles": "sslnet.compress.pruning.cycles",
    "quantize": "sslnet.api.quantize",
    "restructure": "sslnet.api.restructure",
    "set_deterministic": "sslnet.kernels.runtime.threads",
    "set_device": "sslnet.pycaffe.module",
    "set_mode_cpu": "sslnet.pycaffe.module",
    "set_mode_gpu": "sslnet.pycaffe.module",
    "set_output_rule": "sslnet.output_rule",
    "set_random_seed": "sslnet.pycaffe.module",
    "teach": "sslnet.api.teach",
    "to_proto": "sslnet.prototxt.net_spec",
}
"""Public name -> the module that defines it, and its name there where that is another."""

_SUBMODULES = ("errors", "io", "layers")

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "AdamWSolver",
    "Blob",
    "Classifier",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "Predictor",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "SslnetError",
    "__version__",
    "allow_python_layers",
    "compact",
    "compress_net",
    "errors",
    "evaluate",
    "export_onnx",
    "get_solver",
    "import_onnx",
    "io",
    "layer_type_list",
    "layers",
    "lint",
    "low_rank",
    "params",
    "prune",
    "prune_channels",
    "prune_dead",
    "pruning_cycles",
    "quantize",
    "restructure",
    "set_deterministic",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_output_rule",
    "set_random_seed",
    "teach",
    "to_proto",
]


def __getattr__(name: str) -> Any:
    """Loads a public name at its first use (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in _SUBMODULES:
        value = importlib.import_module(f"sslnet.{name}")
    elif name in _MODULES:
        module, _, original = _MODULES[name].partition(":")
        value = getattr(importlib.import_module(module), original or name)
    else:
        raise AttributeError(f"module 'sslnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version of the installed package; "0+unknown" when it runs from a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sslnet")
    except PackageNotFoundError:
        return "0+unknown"
