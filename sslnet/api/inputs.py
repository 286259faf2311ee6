"""Reads and checks the arguments of the functions: models, weights and numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.net_result import NetResult
from sslnet.errors import UsageError
from sslnet.net.graph import definition_of
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.prototxt.net_spec import NetSpec

Model = str | Path | Definition | pb.NetParameter | NetSpec | Net | NetResult[Any]
"""A net: a path of a prototxt; a definition as a message, or created in Python; a Net; or a result of another
function."""

Weights = str | Path | pb.NetParameter | Net | NetResult[Any]
"""Weights: a path of a .caffemodel; a message with blobs; or a Net, or a result, whose parameters are used."""

Word = Callable[[str], str]
"""Returns the name by which the caller knows an argument: ``"target_flops"`` in Python, ``--target-flops`` on the
command line."""


def as_argument(name: str) -> str:
    """The name of an argument in Python."""
    return name


def read_model(model: Model) -> Definition:
    """Reads the definition of a net, and converts it to the current format.

    raises DefinitionError for a prototxt with errors, and for an object that is not a net
    """
    if isinstance(model, NetResult):
        return model.read_definition()
    if isinstance(model, Net):
        return model.definition
    source = model.to_proto() if isinstance(model, NetSpec) else model
    return prototxt.upgrade_net(
        definition_of(_without_blobs(source) if isinstance(source, pb.NetParameter) else source)
    )


def read_weights(weights: Weights | None, model: Model) -> str | pb.NetParameter:
    """Returns weights as a path or a message; None: the weights of the model.

    raises UsageError if there are none
    """
    if weights is None and isinstance(model, NetResult | Net | pb.NetParameter):
        weights = model
    if weights is None:
        raise UsageError(
            "weights are needed: this model brings none", hint="a path, a Net, or a pb.NetParameter with blobs"
        )
    if isinstance(weights, Net):
        message: pb.NetParameter = weights.to_proto()
        return message
    if isinstance(weights, NetResult):
        return weights.weights
    return weights if isinstance(weights, pb.NetParameter) else os.fspath(weights)


def check_part(value: float | None, name: str, word: Word = as_argument) -> None:
    """Checks a fraction. raises UsageError unless the value is None or between 0 and 1"""
    if value is not None and not 0 < value < 1:
        raise UsageError(f"{word(name)} must lie between 0 and 1, not {value:g}")


def _without_blobs(message: pb.NetParameter) -> pb.NetParameter:
    """The message without parameters, which are not needed in the text of a definition."""
    result = pb.NetParameter()
    result.CopyFrom(message)
    for layer in result.layer:
        del layer.blobs[:]
    for old in result.layers:
        del old.blobs[:]
    return result
