"""Layer: the base class of all layers, and the contract between a layer and the net.

A layer is created from its definition, then ``setup`` (once: check parameters, create parameter blobs), ``reshape``
(whenever a bottom's shape may have changed: set the shapes of the tops), ``forward`` and ``backward`` (any number of
times). The rules for all layers:

* ``reshape`` sets shapes and makes workspaces; ``forward`` and ``backward`` allocate nothing of the size of a blob;
* ``forward`` overwrites its tops and does not change its bottoms, unless top and bottom are the same blob (in place);
* a layer runs in place only where the overwritten values are not needed again: the net gives it a separate top where
  the gradient of the layer below reads them (``reads_top``), or where the blob shares another's data (Flatten, Split);
* ``backward`` reads only the blob data that ``reads_bottom`` and ``reads_top`` declare: the rest may be overwritten;
* ``backward`` **overwrites** the diffs of its bottoms and **accumulates** into the diffs of its parameter blobs;
* ``backward`` computes only the requested diffs: of bottom i where ``propagate_down[i]``, of parameter blob j where
  ``self.param_propagate_down[j]``;
* every layer runs on its own, in float32 and float64; faster execution belongs to ``sslnet.net.plan``;
* the layer also declares what compaction may remove; by default nothing.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import BatchError, DefinitionError, RunError, ShapeError, Span
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.onnx import OnnxGraph, OnnxOperator
from sslnet.prototxt import Definition
from sslnet.ranks.place import BatchPlace

Blobs = Sequence[Blob]
BoolVector = np.ndarray
"""(channels) bool: one entry per channel of a blob (index of axis 1, or of axis 0 when the blob has one axis)."""


@dataclass(frozen=True)
class LayerDefinition:
    """One ``layer { }`` of a net: its message and the place of each of its fields in the file."""

    param: Any  # pb.LayerParameter
    source: Definition | None = None
    index: int = -1
    """Index of the layer in ``source.message.layer``; -1 when it is in no file (Split layers, nets made in Python)."""

    def span(self, *field: str | int, value: bool = False) -> Span | None:
        if self.source is None or self.index < 0:
            return None
        return self.source.span("layer", self.index, *field, value=value)


@dataclass(frozen=True)
class Context:
    """Settings that all layers of a net share: phase, precision, seed and where files are searched.

    seed      seed of all random numbers; each layer draws from its own stream, named after the layer
    backward  whether a backward pass may follow a forward pass; if not, a layer need not save anything for it
    fills     whether parameter blobs get their first values
    beside    folder of the prototxt: files are searched relative to the working directory, then from here upwards
    place     the part of the whole batch that the net computes; the whole where there is one process
    """

    phase: int = pb.TEST
    dtype: Any = np.float32
    seed: int = 0
    beside: str | None = None
    allow_python: bool = False
    backward: bool = True
    fills: bool = True
    place: BatchPlace = field(default_factory=BatchPlace, compare=False)


class Layer(ABC):
    """Base of all layers. Subclasses are final, one per file, and registered in ``sslnet.layers.LAYERS``."""

    TYPE: ClassVar[str]
    """The ``type`` in the prototxt."""
    KIND: ClassVar[str] = "other"
    """The kind of the layer, a key of ``kinds.KINDS``."""
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 1)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 1)
    """Fewest and most bottoms / tops (None: no limit)."""
    EQUAL_BOTTOMS_TOPS: ClassVar[bool] = False
    """Whether there is one top per bottom (Convolution and Deconvolution over several bottoms)."""
    IN_PLACE: ClassVar[bool] = False
    """Whether top[0] may be bottom[0]."""
    IS_LOSS: ClassVar[bool] = False
    """Whether top[0] is a loss: it has weight 1 unless the prototxt says otherwise, and need not be named."""
    IS_SOURCE: ClassVar[bool] = False
    """Whether the layer brings data into the net; such a layer never needs backward."""
    READS_FILES: ClassVar[bool] = False
    """Of a source: whether it reads data from files or databases, or waits for those that a program hands over."""
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = ()
    """Bottoms that hold indices of a table: whole numbers from 0 on."""
    NEW_DATA: ClassVar[bool] = False
    """Whether each forward pass may produce new data without new inputs."""
    DYNAMIC: ClassVar[bool] = False
    """Whether ``forward`` may change the shapes of its tops; the net then reshapes the layers that follow."""

    def __init__(self, definition: LayerDefinition, context: Context) -> None:
        self.definition = definition
        self.param = definition.param
        self.name: str = definition.param.name
        self.context = context
        self.phase = context.phase
        self.dtype = np.dtype(context.dtype)
        self.blobs: list[Blob] = []
        """Parameter blobs: learned values, or statistics kept over iterations (BatchNorm)."""
        self.param_propagate_down: list[bool] = []
        """For each parameter blob, whether ``backward`` computes its diff; set by the net."""
        self.draws = 0
        """Number of calls of ``random()``: the whole state of a layer whose only state is random numbers."""

    @property
    def type(self) -> str:
        """The ``type`` in the prototxt."""
        return self.TYPE

    # -- running -------------------------------------------------------------------------------------------------

    def setup(self, bottom: Blobs, top: Blobs) -> None:  # noqa: B027 - many layers need none
        """Checks the parameters, creates and fills ``self.blobs``. The bottoms' shapes are known."""

    @abstractmethod
    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Sets the shapes of the tops from those of the bottoms; raises ShapeError where they do not fit."""

    def prepare(self, bottom: Blobs, top: Blobs) -> None:
        """Runs ``setup``, then the first ``reshape``; a shape that no array can have is a ShapeError of the layer."""
        try:
            self.setup(bottom, top)
            self.reshape(bottom, top)
        except ValueError as error:
            raise self.shape_error(str(error)) from error

    @abstractmethod
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Computes the tops' data from the bottoms' data. [overwrites the tops]"""

    @abstractmethod
    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Overwrites the requested bottoms' diffs and accumulates into the parameters' diffs, from the tops' diffs."""

    def allow_force_backward(self, index: int) -> bool:
        """Whether ``force_backward`` may request the diff of bottom ``index`` (False for labels)."""
        return True

    def default_loss_weight(self, index: int) -> float:
        return 1.0 if self.IS_LOSS and index == 0 else 0.0

    def reads_top(self, in_place: bool) -> bool:
        """Whether ``backward`` reads the data that ``forward`` wrote into the tops; a layer that could overwrite one of
        them in place then gets a separate top. in_place: the first top is the first bottom."""
        return False

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        """Whether ``backward`` reads the data of bottom ``index``. If not, a net made with ``lean=True`` may reuse its
        memory before ``backward`` runs; so the default is True."""
        return True

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        """Floating-point operations of one forward pass, a multiply-add counted as two; 0 where negligible."""
        return 0

    # -- state over iterations: saved in snapshots, so that a resumed run is the same run ---------------------------

    def check_outputs(self) -> None:  # noqa: B027 - most layers write no files
        """Checks that the layer may write the file that it names (``sslnet.output_rule``); raises DefinitionError."""

    def statistics(self) -> Sequence[Blob]:
        """The parameter blobs that ``forward`` updates, such as running means; they are restored when a batch fails."""
        return ()

    def state(self) -> bytes:
        """The state beside the blobs that a bit-identical resume needs; empty when there is none."""
        return json.dumps({"draws": self.draws}).encode() if self.draws else b""

    def set_state(self, state: bytes) -> None:
        """Restores the state that ``state`` returned; an empty state is the initial one."""
        self.draws = int(json.loads(state)["draws"]) if state else 0

    def draws_of_pass(self) -> int:
        """Number of calls of ``random()`` in one forward pass."""
        return 0

    def state_behind(self, state: bytes, batches: int) -> bytes:
        """The state after a number of forward passes from the given one."""
        if not self.draws_of_pass():
            return state
        before = int(json.loads(state)["draws"]) if state else 0
        return json.dumps({"draws": before + batches * self.draws_of_pass()}).encode()

    def reseed(self, seed: int, top: Blobs) -> None:
        """Restarts all random streams with another seed; the parameters do not change."""
        self.context = replace(self.context, seed=seed)
        self.draws = 0

    def random(self, stream: int = 0) -> np.random.Generator:
        """A fresh generator, determined by the seed, the layer's name, the stream and the number of calls so far."""
        key = hashlib.blake2b(f"{self.context.seed}/{self.name}/{stream}".encode(), digest_size=16).digest()
        generator = np.random.Generator(
            np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, self.draws])
        )
        self.draws += 1
        return generator

    # -- properties of a layer type ----------------------------------------------------------------------------------

    UNDIVIDED: ClassVar[str] = ""
    """Why several ranks cannot divide the batches of a net with the layer; empty: they can."""

    DEPLOYED: ClassVar[bool] = True
    """Whether nets for deployment include the layer; they omit metrics and losses."""
    OUTPUT: ClassVar[tuple[str, str] | None] = None
    """For a loss: the layer type that replaces it in deployment (Softmax for SoftmaxWithLoss) and its output's name."""
    HAS_WEIGHTS: ClassVar[bool] = False
    """Whether blob 0 is a weight matrix between bottom and top channels that a penalty may divide into groups."""
    MIXES_CHANNELS: ClassVar[bool] = False
    """Whether each top channel combines all bottom channels (of its group)."""
    DEFAULT_GROUP: ClassVar[str] = ""
    """The group_lasso group of its weights where a net declares none; empty: no group."""
    LOW_RANK: ClassVar[bool] = False
    """Whether a product of smaller layers may replace it (``sslnet.compress.low_rank``)."""

    @classmethod
    def assumed_shapes(cls, param: Any) -> tuple[list[tuple[int, ...]], str]:
        """The shapes of the tops as far as the definition tells them, and what was assumed: of a source that reads files."""
        return [()] * len(param.top), "nothing is known"

    @classmethod
    def describe(cls, param: Any) -> str:
        """The important parameters of a definition as a short text; empty where the type suffices."""
        return ""

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        """The groups of parameter blob ``index``: name -> (rows, columns) of its tile in the blob's matrix, which has
        shape[0] rows. LAYER, ELEMENT and BLOCK, which every blob has, are not listed."""
        return {}

    def weights_by_channel(self) -> np.ndarray | None:
        """The weights as (top channels, bottom channels, weights per pair); None where there is no such matrix."""
        return None

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        """For each top, an interval for each channel that holds all its values, given those of the bottoms, rounding
        included (``sslnet.layers.bounds``). Default: no bound."""
        return [ChannelBox.unknown(_channels(blob)) for blob in top]

    # -- helpers for subclasses ------------------------------------------------------------------------------------

    def new_param(self, shape: Sequence[int], *filler: str, default: float = 0) -> Blob:
        """A parameter blob of the shape, appended to ``self.blobs``.

        filler   field path of its filler in the layer's definition: "convolution_param", "weight_filler"
        default  the value where no filler is given
        raises   ShapeError for a shape without values, which an empty bottom causes
        """
        from sslnet.fillers import fill

        if 0 in shape:
            raise self.shape_error(f"{self.TYPE} would have parameters without values, of shape {tuple(shape)}")
        blob = Blob(shape, name=f"{self.name}[{len(self.blobs)}]", dtype=self.dtype)
        parent = self.param
        for name in filler[:-1]:
            parent = getattr(parent, name)
        fills = self.context.fills or blob.count <= 1 << 16  # of small blobs in any case, which checks the filler
        if fills and filler and parent.HasField(filler[-1]):
            error = lambda message, hint="": self.error(message, *filler, hint=hint)  # noqa: E731 one line
            fill(blob.data, getattr(parent, filler[-1]), self.filler_random(len(self.blobs)), error=error)
        elif fills and default:
            blob.data[...] = default
        self.blobs.append(blob)
        return blob

    def filler_random(self, index: int) -> np.random.Generator:
        """The random stream that fills parameter blob ``index``; it depends only on seed, layer name and index."""
        key = hashlib.blake2b(f"{self.context.seed}/{self.name}/fill/{index}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    def error(self, message: str, *field: str | int, value: bool = False, hint: str = "") -> DefinitionError:
        """An error about a field, e.g. ``raise self.error("num_output must be positive", "convolution_param",
        "num_output")``; without a field it points to the layer."""
        return DefinitionError(message, span=self.definition.span(*field, value=value), layer=self.name, hint=hint)

    def shape_error(self, message: str, *field: str | int, hint: str = "") -> ShapeError:
        return ShapeError(message, span=self.definition.span(*field), layer=self.name, hint=hint)

    def run_error(self, message: str, *, hint: str = "") -> RunError:
        return RunError(message, span=self.definition.span(), layer=self.name, hint=hint)

    def batch_error(self, message: str, *, hint: str = "") -> BatchError:
        """An error about values of the batch that the layer cannot use."""
        return BatchError(message, span=self.definition.span(), layer=self.name, hint=hint)

    # -- ONNX --------------------------------------------------------------------------------------------------------

    ONNX: ClassVar[tuple[OnnxOperator, ...]] = ()
    """The ONNX operators that equal the layer: import reads each of them as this layer, export writes the first."""

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        """Adds nodes that compute the layer to a graph; returns the names of their values, one per top.

        inputs   names of the bottoms' values; a layer that copies its bottom returns one of them without a node
        raises   DefinitionError when ONNX has no operators for the layer
        """
        if not self.ONNX:
            raise self.not_in_onnx(f"a {self.TYPE} layer")
        return [graph.operator(self.ONNX[0], self.param, inputs)]

    def not_in_onnx(self, what: str) -> DefinitionError:
        """An error about the layer, or an option of it, that has no ONNX operator."""
        return self.error(f"{what} cannot be written as ONNX")

    # -- compaction: which channels may be removed, and what follows ------------------------------------------------

    CHANNELS: ClassVar[str] = "all are kept"
    """Text for the documentation: how compaction treats the channels of bottoms and tops."""
    SHRINKS: ClassVar[bool] = False
    """Whether ``shrink`` can remove channels of bottoms and tops; if not, all of them are kept."""
    ABSORBS: ClassVar[bool] = False
    """Whether the layer is linear in its bottom, so that the contribution of a removed *constant* channel can be folded
    into the output as a constant."""

    LOSES_BOTTOMS: ClassVar[bool] = False
    """Whether a bottom without remaining channels can be removed."""
    LOSES_TOPS: ClassVar[bool] = False
    """Whether a top without remaining channels can be removed."""

    IGNORES_ZEROS: ClassVar[bool] = False
    """Whether bottom channels of zeros do not affect the others; ``needed_channels`` then gets them as constant."""

    def equalized_channels(
        self, bottom: list[BoolVector], top: list[BoolVector]
    ) -> tuple[list[BoolVector], list[BoolVector]]:
        """The needed channels, and those that are kept beside them for equal sizes of the layer's parts. Default: none."""
        return bottom, top

    def coefficients(self) -> list[float]:
        """The coefficients of the bottoms where the top is their element-wise weighted sum; empty otherwise. A bottom
        that is constant in all kept channels is removed and its contribution folded into the top."""
        return []

    def factors(self) -> list[bool]:
        """Where the top is the product of the bottoms (each broadcast along missing last axes): for each bottom,
        whether it may be removed when it is constant in all kept channels. Empty when the top is no such product."""
        return []

    def reads_any_channel(self) -> bool:
        """Whether the layer reads only the shape of its bottom, so that any number of channels is accepted."""
        return False

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """For each top, (channels) bool: True where the channel cannot depend on the net's input, given the same flags
        of the bottoms. Default: none is constant."""
        return []

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        """For each top: True where the channel is constant because bottom channels are zero, whatever the other
        channels are. Default: none."""
        return []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        """For each bottom: True where the channel must be kept, given the kept top channels. Default: all."""
        return []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """For each top: True where the channel must be kept because bottom channels are (element-wise layers). Default:
        none."""
        return []

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        """The smaller layer: its LayerParameter (a changed copy) and the arrays of its parameter blobs.

        bottom_keep, top_keep  sorted indices of the kept channels, one array per bottom / top; empty for a removed one
        shift                  (kept top channels) to add to the output, from folded constants; None for none
        """
        copy = pb.LayerParameter()
        copy.CopyFrom(self.param)
        return copy, [np.array(blob.data) for blob in self.blobs]

    def shrink_columns(self, param: Any, blobs: list[np.ndarray], *, standard_only: bool) -> list[np.ndarray]:
        """Reduces the parameter arrays of ``shrink`` by weights that a smaller definition can omit; changes ``param``.

        standard_only   use only fields that Caffe can read
        """
        return blobs


def _channels(blob: Blob) -> int:
    """As ``sslnet.layers.channels.channel_count``, which imports this module."""
    shape = blob.shape
    return shape[1] if len(shape) > 1 else shape[0] if shape else 1
