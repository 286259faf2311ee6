"""The contract of a layer, on one screen.

A layer is created from its definition, then ``setup`` (once: check parameters, create parameter blobs), ``reshape``
(whenever a bottom's shape may have changed: set the shapes of the tops), ``forward`` and ``backward`` (any number of
times). Stated once, for all of them:

* ``reshape`` sets shapes and makes workspaces; ``forward`` and ``backward`` allocate nothing of the size of a blob;
* ``forward`` overwrites its tops and leaves its bottoms as they are, unless top and bottom are the same blob (in place);
* in place it works where nobody reads the old values again: the net gives it a top of its own where the layer below has
  said that its gradient does (``reads_top``), or where the blob shows another's data (Flatten, Split);
* ``backward`` reads of its blobs' data only what it says it does (``reads_bottom``, ``reads_top``): the rest may be gone;
* ``backward`` **overwrites** the diffs of its bottoms and **accumulates** into the diffs of its parameter blobs;
* it computes only what is asked for: ``propagate_down[i]`` for bottom i, ``self.param_propagate_down[j]`` for blob j;
* every layer runs alone, plainly, in float32 and float64; faster ways to run it belong to ``sslnet.net.plan``;
* what compaction may do with it is declared here as well; the default refuses everything.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import BatchError, DefinitionError, RunError, ShapeError, Span
from sslnet.layers.onnx import OnnxGraph, OnnxOperator
from sslnet.prototxt import Definition

Blobs = Sequence[Blob]
BoolVector = np.ndarray
"""(channels) bool: one entry for each channel of a blob (axis 1; the values themselves of a blob with one axis)."""


@dataclass(frozen=True)
class LayerDefinition:
    """One ``layer { }`` as the layer sees it: its message, and where each of its fields stands in the file."""

    param: Any  # pb.LayerParameter
    source: Definition | None = None
    index: int = -1
    """Index of the layer in ``source.message.layer``; -1 when it stands in no file (Split layers, nets made in Python)."""

    def span(self, *field: str | int, value: bool = False) -> Span | None:
        if self.source is None or self.index < 0:
            return None
        return self.source.span("layer", self.index, *field, value=value)


@dataclass(frozen=True)
class Context:
    """What a net tells its layers: the phase, the precision, the seed and where files are looked for.

    seed      of all that is random in the net; each layer draws from its own stream, named by the layer
    backward  whether a backward pass may follow a forward pass: without, a layer need keep nothing for it
    beside    folder of the prototxt: files are looked for relative to the working directory, then from here upwards
    """

    phase: int = pb.TEST
    dtype: Any = np.float32
    seed: int = 0
    beside: str | None = None
    allow_python: bool = False
    backward: bool = True


KINDS = {
    "source": "Data from outside",
    "convolution": "Convolutions",
    "connected": "Fully connected and recurrent layers",
    "pooling": "Pooling and resizing",
    "norm": "Normalisation, scales and biases",
    "activation": "Activations: value by value",
    "join": "Joining, cutting and rearranging",
    "result": "Results and measures",
    "loss": "Losses",
    "other": "Other layers",
}
"""What a layer is to a reader -> the heading that lists of layers give these. Drawings have a colour for each."""


class Layer(ABC):
    """Base of all layers. Subclasses are final, live one to a file, and stand in ``sslnet.layers.LAYERS``."""

    TYPE: ClassVar[str]
    """The ``type`` in the prototxt."""
    KIND: ClassVar[str] = "other"
    """Which of ``KINDS`` it is."""
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 1)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 1)
    """Fewest and most bottoms / tops (None: no limit)."""
    EQUAL_BOTTOMS_TOPS: ClassVar[bool] = False
    """Each bottom has its top (Convolution and InnerProduct over several bottoms)."""
    IN_PLACE: ClassVar[bool] = False
    """Whether top[0] may be bottom[0]."""
    IS_LOSS: ClassVar[bool] = False
    """top[0] is a loss (weight 1 unless the prototxt says otherwise) and need not be named."""
    IS_SOURCE: ClassVar[bool] = False
    """Brings data from outside; never needs backward."""
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = ()
    """Bottoms that hold places in a table: whole numbers from 0 on."""
    NEW_DATA: ClassVar[bool] = False
    """Each forward pass may bring other data by itself."""
    DYNAMIC: ClassVar[bool] = False
    """``forward`` may give its tops other shapes; the net then reshapes what follows."""

    def __init__(self, definition: LayerDefinition, context: Context) -> None:
        self.definition = definition
        self.param = definition.param
        self.name: str = definition.param.name
        self.context = context
        self.phase = context.phase
        self.dtype = np.dtype(context.dtype)
        self.blobs: list[Blob] = []
        """Parameter blobs: what is learned, or kept over iterations (BatchNorm statistics)."""
        self.param_propagate_down: list[bool] = []
        """For each parameter blob, whether its diff is wanted; set by the net."""
        self.draws = 0
        """How many times ``random()`` was called: the whole state of a layer that only draws random numbers."""

    @property
    def type(self) -> str:
        """The ``type`` in the prototxt."""
        return self.TYPE

    # -- running -------------------------------------------------------------------------------------------------

    def setup(self, bottom: Blobs, top: Blobs) -> None:  # noqa: B027 - many layers need none
        """Checks the parameters and creates ``self.blobs`` (filled). The bottoms' shapes are known."""

    @abstractmethod
    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Sets the shapes of the tops from those of the bottoms; raises ShapeError where they do not fit."""

    @abstractmethod
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Overwrites the tops' data."""

    @abstractmethod
    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """From the tops' diffs: overwrites the diffs of the bottoms asked for, accumulates into those of the params."""

    def allow_force_backward(self, index: int) -> bool:
        """Whether ``force_backward`` may ask for the diff of bottom ``index`` (no for labels)."""
        return True

    def default_loss_weight(self, index: int) -> float:
        return 1.0 if self.IS_LOSS and index == 0 else 0.0

    def reads_top(self, in_place: bool) -> bool:
        """Whether ``backward`` reads the data that ``forward`` wrote into the tops. A layer that would work in place on one
        of them is then given a blob of its own. in_place: the first top is the first bottom."""
        return False

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        """Whether ``backward`` reads the data of bottom ``index``. Where it does not, a net made with ``lean=True`` may put
        something else there before; so the default is that it does."""
        return True

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        """Floating-point operations of one forward pass, a multiply-add counted as two; 0 where not worth counting."""
        return 0

    # -- state over iterations: saved in snapshots, so that a resumed run is the same run ---------------------------

    def check_outputs(self) -> None:  # noqa: B027 - most layers write no files
        """raises DefinitionError when the layer may not write the file that it names (``sslnet.output_rule``)"""

    def statistics(self) -> Sequence[Blob]:
        """The parameter blobs that ``forward`` itself changes, as running means: a batch that fails must leave no trace."""
        return ()

    def state(self) -> bytes:
        """What must be kept beside the blobs for a bit-identical resume; empty when nothing."""
        return json.dumps({"draws": self.draws}).encode() if self.draws else b""

    def set_state(self, state: bytes) -> None:
        """Goes back to where ``state`` was taken; empty: to the beginning."""
        self.draws = int(json.loads(state)["draws"]) if state else 0

    def reseed(self, seed: int, top: Blobs) -> None:
        """Draws from the streams of another seed from now on, from their beginning; parameters stay."""
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

    # -- what others ask of a layer type -------------------------------------------------------------------------------

    DEPLOYED: ClassVar[bool] = True
    """Whether a net for deployment has it; measures it has not, nor any loss."""
    OUTPUT: ClassVar[tuple[str, str] | None] = None
    """Of a loss: what it computes of its first bottom on the way, as a layer type, and the name that this has as an output
    of the net in deployment."""
    HAS_WEIGHTS: ClassVar[bool] = False
    """Blob 0 is a matrix of weights between the channels of bottom and top, which groups of a penalty may divide."""
    MIXES_CHANNELS: ClassVar[bool] = False
    """Each top channel is made of all bottom channels (of all in its group): it is none of them any more."""
    DEFAULT_GROUP: ClassVar[str] = ""
    """The group_lasso group that its weights get where a net declares none; empty: they get none."""
    LOW_RANK: ClassVar[bool] = False
    """Products of smaller layers may take its place (``sslnet.compress.low_rank``)."""

    @classmethod
    def describe(cls, param: Any) -> str:
        """What matters of a definition's parameters, in a few words; empty where its type says it all."""
        return ""

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        """The groups of parameter blob ``index`` by name, each with the rows and columns of its tile in the blob's matrix
        (shape[0] rows). LAYER, ELEMENT and BLOCK, which every blob has, are not listed."""
        return {}

    def weights_by_channel(self) -> np.ndarray | None:
        """The weights as (top channels, bottom channels, weights of one channel); None where there is no such matrix."""
        return None

    # -- helpers for subclasses ------------------------------------------------------------------------------------

    def new_param(self, shape: Sequence[int], *filler: str, default: float = 0) -> Blob:
        """A parameter blob of the shape, appended to ``self.blobs``.

        filler   where its filler stands in the layer's definition: "convolution_param", "weight_filler"
        default  what it holds where no filler is given
        raises   ShapeError for a shape without values: the bottom that it is for has none
        """
        from sslnet.fillers import fill

        if 0 in shape:
            raise self.shape_error(f"{self.TYPE} would have parameters without values, of shape {tuple(shape)}")
        blob = Blob(shape, name=f"{self.name}[{len(self.blobs)}]", dtype=self.dtype)
        parent = self.param
        for name in filler[:-1]:
            parent = getattr(parent, name)
        if filler and parent.HasField(filler[-1]):

            def error(message: str, hint: str = "") -> DefinitionError:
                return self.error(message, *filler, hint=hint)

            fill(blob.data, getattr(parent, filler[-1]), self.filler_random(len(self.blobs)), error=error)
        elif default:
            blob.data[...] = default
        self.blobs.append(blob)
        return blob

    def filler_random(self, index: int) -> np.random.Generator:
        """The stream that fills parameter blob ``index``: depends on seed, layer and index alone, never on the order."""
        key = hashlib.blake2b(f"{self.context.seed}/{self.name}/fill/{index}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    def error(self, message: str, *field: str | int, value: bool = False, hint: str = "") -> DefinitionError:
        """The error to raise about a field, e.g. ``raise self.error("num_output must be positive", "convolution_param",
        "num_output")``; without a field it points to the layer."""
        return DefinitionError(message, span=self.definition.span(*field, value=value), layer=self.name, hint=hint)

    def shape_error(self, message: str, *field: str | int, hint: str = "") -> ShapeError:
        return ShapeError(message, span=self.definition.span(*field), layer=self.name, hint=hint)

    def run_error(self, message: str, *, hint: str = "") -> RunError:
        return RunError(message, span=self.definition.span(), layer=self.name, hint=hint)

    def batch_error(self, message: str, *, hint: str = "") -> BatchError:
        """The error of a batch that holds what the layer cannot use."""
        return BatchError(message, span=self.definition.span(), layer=self.name, hint=hint)

    # -- ONNX --------------------------------------------------------------------------------------------------------

    ONNX: ClassVar[tuple[OnnxOperator, ...]] = ()
    """The operators of ONNX that it is, alone: each is read as this layer, and the first is written."""

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        """Adds nodes that compute the same to a graph; returns the names of their values, one a top.

        inputs   names of the values that the bottoms are; one that is returned needs no node
        raises   DefinitionError when ONNX has no operators for it
        """
        if not self.ONNX:
            raise self.not_in_onnx(f"a {self.TYPE} layer")
        return [graph.operator(self.ONNX[0], self.param, inputs)]

    def not_in_onnx(self, what: str) -> DefinitionError:
        """The error to raise about the layer, or an option of it, that ONNX has no operator for."""
        return self.error(f"{what} cannot be written as ONNX")

    # -- compaction: which channels may go, and what follows from that -----------------------------------------------

    CHANNELS: ClassVar[str] = "all are kept"
    """What compaction does with the channels around it, in words for the documentation."""
    SHRINKS: ClassVar[bool] = False
    """Whether ``shrink`` can leave out channels of bottoms and tops. False refuses: every channel around it stays."""
    ABSORBS: ClassVar[bool] = False
    """Linear in its bottom: what a left-out *constant* channel contributed can be added to the output as a constant."""

    LOSES_BOTTOMS: ClassVar[bool] = False
    """Does without a bottom that has no channels left."""
    LOSES_TOPS: ClassVar[bool] = False
    """Does without a top that has no channels left."""

    IGNORES_ZEROS: ClassVar[bool] = False
    """A bottom channel of zeros changes nothing in the others: ``needed_channels`` is told of those as constant."""

    def coefficients(self) -> list[float]:
        """The factors of the bottoms in the sum, value by value, that the top is; empty when it is no such sum. A bottom
        that is constant in all channels that stay goes, and what it added with it."""
        return []

    def factors(self) -> list[bool]:
        """Where the top is the product of the bottoms, each repeated along the last axes that it does not have: which of
        them may go, as a constant, when they are one in all channels that stay. Empty when it is no such product."""
        return []

    def reads_any_channel(self) -> bool:
        """Whether it takes nothing but the shape from its bottom: any number of channels will do."""
        return False

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """For each top: True where the channel cannot depend on the net's input, given the bottoms'. The sizes of the
        result are those of the tops' channel axes. Default: none is constant."""
        return []

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        """For each top: True where the channel is constant because channels of bottoms are zero, whatever the others are.
        Default: none."""
        return []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        """For each bottom: True where the channel must stay, given the top channels which stay. Default: all."""
        return []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """For each top: True where the channel must stay because bottom channels stay (element-wise layers). Default: none."""
        return []

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        """The smaller layer: its LayerParameter (a changed copy) and the arrays of its parameter blobs.

        bottom_keep, top_keep  sorted indices of the channels that stay, one array a bottom / top; none of one that goes
        shift                  (kept top channels) to add to the output, from absorbed constants; None for none
        """
        copy = pb.LayerParameter()
        copy.CopyFrom(self.param)
        return copy, [np.array(blob.data) for blob in self.blobs]

    def shrink_columns(self, param: Any, blobs: list[np.ndarray], *, standard_only: bool) -> list[np.ndarray]:
        """What ``shrink`` gave, with weights left out that a smaller definition can do without; changes ``param``.

        standard_only   nothing may be left out that Caffe could not read
        """
        return blobs
