"""Python: a layer written by the user, a class with setup, reshape, forward and backward, as in pycaffe.

    layer { type: "Python" name: "loss" bottom: "a" bottom: "b" top: "loss" loss_weight: 1
            python_param { module: "losses" layer: "MyLoss" param_str: "{'margin': 0.5}" } }

    class MyLoss(sslnet.Layer):                       # module losses.py, found like any import
        def setup(self, bottom, top): ...             # self.param_str, self.phase, self.blobs.add_blob(3, 4)
        def reshape(self, bottom, top): top[0].reshape(1)
        def forward(self, bottom, top): top[0].data[...] = ...
        def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = ...

Importing the module runs its code, so the layer is an error unless the user allows it: ``--allow-python-layers`` on the
command line, ``sslnet.allow_python_layers()`` or ``Net(..., allow_python=True)`` in Python.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from sslnet.blob import Blob
from sslnet.errors import SslnetError
from sslnet.layers.base import Blobs, Layer

_allowed = False


def allow_python_layers(allow: bool = True) -> None:
    """Allows (or forbids) Python layers, which run the user's code, in all nets of this process."""
    global _allowed
    _allowed = allow


class BlobVector(Sequence[Blob]):
    """The parameter blobs of a Python layer, with pycaffe's ``add_blob``."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def add_blob(self, *shape: int) -> Blob:
        """Adds a parameter blob of this shape, filled with zeros."""
        return self._layer.new_param(shape)

    def __getitem__(self, index: Any) -> Any:
        return self._layer.blobs[index]

    def __len__(self) -> int:
        return len(self._layer.blobs)

    def __iter__(self) -> Iterator[Blob]:
        return iter(self._layer.blobs)


class PythonLayer:
    """Base of the users' classes (``sslnet.Layer``)."""

    param_str: str = ""
    phase: int = 0
    blobs: Any = ()

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        raise NotImplementedError

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        raise NotImplementedError

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        raise NotImplementedError


class Python(Layer):
    TYPE: ClassVar[str] = "Python"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, None)
    TOPS: ClassVar[tuple[int, int | None]] = (0, None)
    IN_PLACE: ClassVar[bool] = True
    NEW_DATA: ClassVar[bool] = True
    UNDIVIDED: ClassVar[str] = "nobody knows what its code makes of a part of the batch"
    DYNAMIC: ClassVar[bool] = True

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.python_param.module}.{param.python_param.layer}"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.user = self._load()()
        self.user.param_str = self.param.python_param.param_str
        self.user.phase = self.phase
        self.user.blobs = BlobVector(self)
        self._call("setup", bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self._call("reshape", bottom, top)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._call("reshape", bottom, top)  # before every pass, as in Caffe: data layers load their batch there
        self._call("forward", bottom, top)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self._call("backward", top, list(propagate_down), bottom)

    def reads_top(self, in_place: bool) -> bool:
        return True  # the user's code may read it

    def _load(self) -> type[Any]:
        """Imports the user's class; its module may also be in the prototxt's folder or the working directory."""
        param = self.param.python_param
        if not (_allowed or self.context.allow_python):
            raise self.error(
                f'the net asks to run Python code, class "{param.layer}" of module "{param.module}"',
                "python_param",
                hint="if you trust it: --allow-python-layers, or sslnet.allow_python_layers() in Python",
            )
        before = list(sys.path)
        sys.path.extend(path for path in (os.getcwd(), self.context.beside) if path and path not in sys.path)
        try:
            module = importlib.import_module(param.module)
        except Exception as error:
            raise self.error(
                f'cannot import module "{param.module}": {type(error).__name__}: {error}', "python_param", "module"
            ) from error
        finally:
            sys.path[:] = before
        cls = getattr(module, param.layer, None)
        if not isinstance(cls, type):
            raise self.error(f'module "{param.module}" has no class "{param.layer}"', "python_param", "layer")
        return cls

    def _call(self, method: str, *args: Any) -> None:
        """Calls the user's method; an exception is raised again as an error at the layer, with its cause."""
        try:
            getattr(self.user, method)(*args)
        except SslnetError:
            raise
        except Exception as error:
            name = type(self.user).__name__
            raise self.error(f"{name}.{method} raised {type(error).__name__}: {error}", "python_param") from error
