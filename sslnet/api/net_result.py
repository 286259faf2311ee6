"""NetResult, the return value of the functions: a definition and weights, not written yet, and details."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.rebase import relocate
from sslnet.files import atomic_write_all, make_folder
from sslnet.net.graph import definition_of
from sslnet.net.integer_weights import pack_quantized
from sslnet.net.net import Net
from sslnet.net.weights import to_bytes
from sslnet.prototxt import Definition
from sslnet.solver.snapshot import SolverState, write_state

Details = TypeVar("Details")


@dataclass(frozen=True)
class NetResult(Generic[Details]):
    """A net returned by a function. It can be the model of the other functions.

    definition  pb.NetParameter without blobs: the net in all its phases
    weights     pb.NetParameter: name and blobs of each layer
    details     further results of the function
    deploy      pb.NetParameter: the net for deployment; None if there is none beside ``definition``
    path        path of the original definition; None if it is not from a file. Names of files in the definition are relative
                to it, until ``save`` rewrites them
    state       solver state to continue training with, if one was requested
    """

    definition: pb.NetParameter
    weights: pb.NetParameter
    details: Details
    deploy: pb.NetParameter | None = None
    path: str | None = None
    state: SolverState | None = None

    def net(self, phase: int = pb.TEST, **options: Any) -> Net:
        """A Net with these weights, ready to run. options: as for ``sslnet.Net``"""
        return Net(self.read_definition(), self.weights, phase, **options)

    def read_definition(self) -> Definition:
        """The definition in the form that functions of the package need; paths in it are relative to the original's
        folder."""
        if self.path is None:
            return definition_of(self.definition)
        return prototxt.parse(prototxt.write(self.definition), pb.NetParameter, self.path)

    def files(self, prefix: str | os.PathLike[str]) -> dict[str, str]:
        """Names of the files that ``save`` writes: "model", "weights", and "deploy" and "state" if they exist."""
        start = os.fspath(prefix)
        names = {"model": f"{start}.prototxt"}
        if self.deploy is not None:
            names["deploy"] = f"{start}_deploy.prototxt"
        names["weights"] = f"{start}.caffemodel"
        if self.state is not None:
            names["state"] = f"{start}.solverstate"
        return names

    def save(self, prefix: str | os.PathLike[str]) -> dict[str, str]:
        """Writes PREFIX.prototxt and PREFIX.caffemodel, and PREFIX_deploy.prototxt and PREFIX.solverstate if they exist; returns
        their names. Definition and weights are written both or neither; the folder is created.

        raises RunError if a file cannot be written
        """
        names = self.files(prefix)
        make_folder(names["model"])
        packed = pack_quantized(self.weights, self.definition)
        contents = {names["weights"]: to_bytes(packed, names["weights"])}
        for kind, message in (("deploy", self.deploy), ("model", self.definition)):
            if message is not None:
                contents[names[kind]] = self._text(message, names[kind])
        atomic_write_all(contents)
        if self.state is not None:
            self.state.learned_net = names["weights"]
            write_state(names["state"], self.state)
        return names

    def _text(self, message: pb.NetParameter, path: str) -> bytes:
        """The text of a definition for the file at ``path``: names of files in it are rewritten relative to it."""
        result = pb.NetParameter()
        result.CopyFrom(message)
        if self.path is not None:
            relocate(result, self.path, path)
        return prototxt.write(result).encode()
