"""Targets of fuzz with definitions: nets of tests and models, nets of odd shapes, solvers. All are run, not only
read."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from campaign.mutate import mutate_bytes, mutate_message, mutate_text
from campaign.seeds import DIGITS_NET
from campaign.targets import Target, beside, layer_types

MOST_VALUES = 10_000_000
"""Maximum number of values of all blobs of a net that is run; larger nets are only created."""
VALUES = ("normal", "normal", "whole", "nan", "inf", "large", "denormal", "negative", "zero", "labels")


class Definitions(Target):
    """Prototxts that are changed as messages, as text, or as bytes."""

    SUFFIX = ".prototxt"
    SIZED = True
    PATTERNS: tuple[str, ...] = ()

    @cached_property
    def texts(self) -> Sequence[str]:
        return self.seeds.texts(*self.PATTERNS)

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return [text.encode("utf-8", "surrogateescape") for text in self.texts]

    def message(self) -> Any:
        """An empty message of this kind."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> bytes:
        from google.protobuf import text_format

        text, kind = rng.choice(self.texts), rng.random()
        if kind < 0.5:
            message = self.message()
            try:
                text_format.Parse(text, message)
            except text_format.ParseError:  # an old form, which has other fields
                pass
            else:
                mutate_message(message, rng, layer_types(), ("L2", "xavier", "gaussian", "constant", "bilinear"))
                return text_format.MessageToString(message).encode("utf-8", "surrogateescape")
        if kind < 0.85:
            return mutate_text(text, rng, self.texts, layer_types()).encode("utf-8", "surrogateescape")
        return mutate_bytes(text.encode("utf-8", "surrogateescape"), rng, self.originals)


class Nets(Definitions):
    PATTERNS = (
        "tests/goldens/layers/*.prototxt", "tests/goldens/data/*.prototxt", "tests/layers/errors/*.prototxt",
        "models/digits/*.prototxt", "models/lenet/deploy.prototxt",
    )  # fmt: skip

    def message(self) -> Any:
        from sslnet import sslnet_pb2

        return sslnet_pb2.NetParameter()

    def run(self, path: Path, rng: random.Random) -> None:
        kind = rng.random()
        if kind > 0.06:
            self.call(run_net(path, rng))
        elif kind > 0.04:
            self.command("draw", path, beside(path, ".svg"))
        elif kind > 0.02:
            self.command("time", "--model", path, "--iterations", 1, "--phase", rng.choice(["TRAIN", "TEST"]))
        else:
            weights = self.seeds / "goldens/formats/tiny_binaryproto_iter_20.caffemodel"
            self.command(
                "prune", "--model", path, "--weights", weights, "--sparsity", 0.5, "--output", beside(path, "_p")
            )


class Solvers(Definitions):
    """Solvers that train the small net for three iterations."""

    PATTERNS = (
        "solvers/digits*.prototxt",
        "tests/goldens/solvers/*_solver.prototxt",
        "tests/goldens/scnn/solver_*.prototxt",
    )

    def message(self) -> Any:
        from sslnet import sslnet_pb2

        return sslnet_pb2.SolverParameter()

    @cached_property
    def texts(self) -> Sequence[str]:
        own = ("net:", "train_net:", "test_net:", "snapshot_prefix:", "max_iter:")
        texts = self.seeds.texts(*self.PATTERNS)
        return ["\n".join(line for line in text.splitlines() if not line.strip().startswith(own)) for text in texts]

    def run(self, path: Path, rng: random.Random) -> None:
        net = DIGITS_NET if rng.random() < 0.1 else self.seeds / "goldens/formats/net.prototxt"
        sets = [f"net={net}", f"snapshot_prefix={beside(path, '_s')}", "max_iter=3"]
        own, text = rng.random() < 0.3, path.read_bytes()
        for name, most in (("test_iter", 1), ("iter_size", 9)):  # large ones may take very long
            if re.search(rb"%s:\s*[\d.e+x]{3}" % name.encode(), text) or (name == "test_iter" and not own):
                sets.append(f"{name}={most}")
        self.command("train", "--solver", path, *(word for one in sets for word in ("--set", one)))


def run_net(path: Path, rng: random.Random) -> Callable[[], object]:
    """Creates the net, sets its inputs to values of one of VALUES, runs forward and backward."""
    import sslnet

    phase, lean = rng.choice([sslnet.TRAIN, sslnet.TRAIN, sslnet.TEST]), rng.random() < 0.5
    values, seed, backward, again = rng.choice(VALUES), rng.randrange(2**32), rng.random() < 0.85, rng.random() < 0.3

    def go() -> None:
        import numpy as np

        net = sslnet.Net(str(path), phase=phase, lean=lean)
        if sum(blob.count for blob in net.blobs.values()) + sum(p.blob.count for p in net.learnable) > MOST_VALUES:
            return
        generator = np.random.default_rng(seed)
        for name in net.inputs:
            net.blobs[name].data[...] = _values(values, net.blobs[name].shape, generator, name != net.inputs[0])
        for param in net.learnable:
            if param.blob.num_axes > 1 and seed % 5 < 2:  # zeros choose other kernels
                param.blob.data[generator.random(param.blob.shape) < 0.8] = 0
        for _ in range(1 + again):
            net.forward()
            if backward:
                net.backward()

    return go


def _values(kind: str, shape: Sequence[int], generator: Any, label: bool) -> Any:
    """An array of this kind; small integers for labels, unless the kind tests labels."""
    import numpy as np

    values = generator.standard_normal(shape).astype(np.float32)
    if kind == "labels" and label:
        odd = np.array([-1, 0, 2**31, 1e20, -1e20, np.nan, np.inf, 0.5, 1e9], np.float32)
        return generator.choice(odd, shape)
    if kind == "whole" or (kind in ("normal", "labels") and label):
        return generator.integers(0, 3, shape)
    match kind:
        case "negative":
            return generator.integers(-5, 1000, shape)
        case "nan" | "inf" if values.size:
            values.reshape(-1)[generator.integers(values.size)] = np.nan if kind == "nan" else np.inf
        case "large":
            values *= np.float32(1e38)
        case "denormal":
            values *= np.float32(1e-41)
        case "zero":
            values[...] = 0
    return values


# -- odd shapes ----------------------------------------------------------------------------------------------------------


class Shapes(Target):
    """Nets of one or two layers with extreme, but often valid, sizes and parameters: kernels work on raw memory."""

    SUFFIX = ".prototxt"
    SIZED = True

    def make(self, rng: random.Random) -> bytes:
        return Odd(rng).net().encode()

    def run(self, path: Path, rng: random.Random) -> None:
        self.call(run_net(path, rng))


FILLER = 'weight_filler { type: "gaussian" std: 0.1 }'
SECOND_LAYERS = (
    'type: "ReLU" bottom: "y" top: "y"', 'type: "BatchNorm" bottom: "y" top: "z2"', 'type: "Dropout" bottom: "y" top: "y"',
    'type: "Pooling" bottom: "y" top: "z2" pooling_param { pool: MAX kernel_size: 2 stride: 2 }',
    f'type: "Convolution" bottom: "y" top: "z2" convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 {FILLER} }}',
)  # fmt: skip


def simple(*params: str) -> Callable[[Odd], str]:
    """A function that creates a layer of one bottom with one of these parameters, in which AXIS is any axis."""

    def make(odd: Odd) -> str:
        return odd._one(odd.any(*params).replace("AXIS", str(odd.any(0, 1, 2, 3, -1, -4))))

    return make


class Odd:
    """One net: `n, c, h, w` of its input, and a layer of one of the types in TYPES."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        sides = (0, 1, 1, 2, 3, 4, 5, 7, 8, 15, 31, 63)
        self.n, self.c = self.any(0, 1, 1, 2, 3, 5, 17), self.any(0, 1, 2, 3, 4, 6, 8, 16, 33, 64)
        self.h, self.w = self.any(*sides), self.any(*sides, 16, 33, 70)
        if rng.random() < 0.8:  # otherwise an axis may be empty
            self.n, self.c, self.h, self.w = (max(1, size) for size in (self.n, self.c, self.h, self.w))
        self.inputs = ""

    def any(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def net(self) -> str:
        kind = self.any(*TYPES, *4 * ["Convolution"], "Pooling")
        layer = TYPES[kind](self)
        second = ""
        if self.rng.random() < 0.5 and kind not in ("Slice", "SoftmaxWithLoss", "Accuracy"):
            second = f'layer {{ name: "r" {self.any(*SECOND_LAYERS)} }}\n'
        first = "" if 'top: "x"' in self.inputs else self._input("x", self.n, self.c, self.h, self.w)
        return f'name: "odd" force_backward: true\n{first}{self.inputs}layer {{ name: "q" type: "{kind}" {layer} }}\n{second}'

    def _input(self, name: str, *shape: int) -> str:
        dims = " ".join(f"dim: {size}" for size in shape)
        return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'

    def _second(self, *shape: int, name: str = "l") -> None:
        self.inputs += self._input(name, *shape)

    def _one(self, param: str = "", *, bottoms: str = "x", tops: str = "y") -> str:
        names = [f'bottom: "{name}"' for name in bottoms] + [f'top: "{name}"' for name in tops]
        return " ".join([*names, param])

    def convolution(self) -> str:
        h, w, c = self.h, self.w, self.c
        group = self.any(1, 1, 1, 2, 3, 4, c or 1, c or 1)
        kernel = self.any(1, 2, 3, 3, 5, 7, 11, h or 1, h + 1, 2 * h + 3), self.any(1, 2, 3, 3, 5, 7, 11, w or 1, w + 1)
        stride = self.any(1, 1, 2, 3, 5, 50, 1000000), self.any(1, 1, 2, 3, 7)
        pad = self.any(0, 0, 1, 2, kernel[0] - 1, kernel[0] + 5, 40), self.any(0, 0, 1, 2, kernel[1] - 1, kernel[1] + 3)
        dilation = self.any(1, 1, 1, 2, 3, 8, 100)
        outputs = self.any(1, 2, 3, 4, 5, 8, 16, 17, group, group * 2, group * (c or 1), 64, 100)
        mode = self.any(
            "", "", *(f"conv_mode: {m}" for m in ("LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV"))
        )
        more = [mode, self.any("", "", "bias_term: false"), f"dilation: {dilation}" if dilation > 1 else ""]
        more += ["force_nd_im2col: true"] if self.rng.random() < 0.05 else []
        sizes = f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]}"
        return self._one(
            f"convolution_param {{ num_output: {outputs} group: {group} {sizes} {' '.join(more)} {FILLER} }}"
        )

    def im2col(self) -> str:
        a = self.any
        return self._one(
            f"convolution_param {{ kernel_size: {a(1, 2, 3, 5, 9)} stride: {a(1, 2, 7)} pad: {a(0, 1, 9)} dilation: {a(1, 2, 9)} }}"
        )

    def pooling(self) -> str:
        a, h, w = self.any, self.h, self.w
        sizes = f"kernel_h: {a(1, 2, 3, 5, h or 1, h + 2)} kernel_w: {a(1, 2, 3, w or 1, w + 4)} stride_h: {a(1, 2, 3, 9, 100000)} "
        sizes += f"stride_w: {a(1, 2, 5)} pad_h: {a(0, 0, 1, 2, 4)} pad_w: {a(0, 0, 1, 2)}"
        sizes = "global_pooling: true" if self.rng.random() < 0.15 else sizes
        return self._one(
            f"pooling_param {{ pool: {a('MAX', 'AVE', 'STOCHASTIC')} {sizes} {a('', '', 'round_mode: FLOOR')} }}"
        )

    def lrn(self) -> str:
        a = self.any
        region = a("ACROSS_CHANNELS", "WITHIN_CHANNEL")
        return self._one(
            f"lrn_param {{ local_size: {a(1, 3, 5, 7, 21, 99)} norm_region: {region} alpha: {a(1, 1e-4, -1, 1e30)} "
            f"beta: {a(0.75, 0.5, 0, -3, 50)} k: {a(1, 0, -1, 2)} }}"
        )

    def interp(self) -> str:
        sizes = (
            "height: 5 width: 9", "zoom_factor: 3", "shrink_factor: 2", "height: 1 width: 1", "height: 100 width: 2",
            "pad_beg: -1 pad_end: -1 height: 4 width: 4", "zoom_factor: 1000",
        )  # fmt: skip
        return self._one(f"interp_param {{ {self.any(*sizes)} }}")

    def crop(self) -> str:
        a = self.any
        self._second(a(self.n, 1), a(self.c, 1), a(self.h, 1, 2), a(self.w, 1, 2))
        return self._one(f"crop_param {{ axis: {a(0, 1, 2, 3, -1)} offset: {a(0, 1, 2, 50)} }}", bottoms="xl")

    def inner_product(self) -> str:
        a = self.any
        return self._one(
            f"inner_product_param {{ num_output: {a(1, 2, 3, 10, 17, 100)} axis: {a(0, 1, 2, 3, -1)} "
            f"{a('transpose: true', '')} {FILLER} }}"
        )

    def slice(self) -> str:
        points = self.any("slice_point: 1", "slice_point: 0", "slice_point: 3 slice_point: 2", "")
        return self._one(f"slice_param {{ axis: {self.any(0, 1, 2, 3)} {points} }}", tops="yz")

    def loss(self) -> str:
        a, n, h, w = self.any, self.n, self.h, self.w
        self._second(*a((n,), (n, 1), (n, 1, h, w), (n, h, w), (h, w)))
        normalization = a("FULL", "VALID", "NONE", "BATCH_SIZE")
        return self._one(
            a("", f"loss_param {{ ignore_label: {a(-1, 0, 2, 255)} normalization: {normalization} }}"), bottoms="xl"
        )

    def accuracy(self) -> str:
        a, n, h, w = self.any, self.n, self.h, self.w
        self._second(*a((n,), (n, 1), (n, 1, h, w), (n, h, w), (h, w)))
        return self._one(
            f"accuracy_param {{ top_k: {a(1, 2, 5, 1000)} {a('', 'ignore_label: 1', 'axis: 2', 'axis: 0')} }}",
            bottoms="xl",
        )

    def same_shape(self) -> str:
        self._second(self.n, self.c, self.h, self.w)
        return self._one(bottoms="xl")

    def contrastive(self) -> str:
        self._second(self.n, self.c, self.h, self.w)
        self._second(self.any(self.n, 1), name="m")
        return self._one(bottoms="xlm")

    def chosen_rows(self) -> str:
        self._second(self.any(self.n, 1, 7))
        return self._one(bottoms="xl")

    def embed(self) -> str:
        a = self.any
        return self._one(f"embed_param {{ input_dim: {a(1, 2, 5, 10)} num_output: {a(1, 3, 8)} {FILLER} }}")

    def reshape(self) -> str:
        a = self.any
        axes = a("", "axis: 1", "axis: -1 num_axes: 0", "axis: 1 num_axes: 2")
        return self._one(
            f"reshape_param {{ shape {{ dim: {a(0, -1, 1, 2, self.n * self.c)} dim: {a(-1, 0, self.h)} }} {axes} }}"
        )

    def recurrent(self) -> str:
        a = self.any
        self.inputs = self._input("x", a(1, 2, 3, 0), a(1, 2, 0), a(1, 3, 5))
        self._second(a(1, 2, 3), a(1, 2))
        return self._one(f"recurrent_param {{ num_output: {a(1, 2, 4, 0)} {FILLER} }}", bottoms="xl")

    def eltwise(self) -> str:
        return self._one(f"eltwise_param {{ operation: {self.any('SUM', 'PROD', 'MAX')} }}", bottoms="xx")

    def axpy(self) -> str:
        self._second(self.n, self.c, 1, 1)
        return self._one(bottoms="lxx")


TYPES: dict[str, Callable[[Odd], str]] = {
    "Convolution": Odd.convolution, "Deconvolution": Odd.convolution, "DepthwiseConvolution": Odd.convolution, "Pooling": Odd.pooling,
    "Im2col": Odd.im2col, "LRN": Odd.lrn, "Interp": Odd.interp, "Crop": Odd.crop, "InnerProduct": Odd.inner_product, "Slice": Odd.slice,
    "SoftmaxWithLoss": Odd.loss, "HingeLoss": Odd.loss, "MultinomialLogisticLoss": Odd.loss, "Accuracy": Odd.accuracy,
    "SigmoidCrossEntropyLoss": Odd.same_shape, "ContrastiveLoss": Odd.contrastive, "BatchReindex": Odd.chosen_rows,
    "Filter": Odd.chosen_rows, "Embed": Odd.embed, "Reshape": Odd.reshape, "LSTM": Odd.recurrent, "RNN": Odd.recurrent,
    "Eltwise": Odd.eltwise, "Concat": Odd.eltwise, "Axpy": Odd.axpy,
    "SPP": simple(*(f"spp_param {{ pyramid_height: {height} pool: {pool} }}" for height in (1, 2, 3, 5, 9, 20) for pool in ("MAX", "AVE"))),
    "Upsample": simple("upsample_param { scale: 2 }", "upsample_param { scale: 1 }", "upsample_param { upsample_h: 7 upsample_w: 9 }"),
    "Softmax": simple("softmax_param { axis: AXIS }"),
    "ArgMax": simple(*(f"argmax_param {{ top_k: {top} {more} }}" for top in (1, 2, 500) for more in ("", "axis: AXIS", "out_max_val: true"))),
    "Tile": simple(*(f"tile_param {{ axis: AXIS tiles: {tiles} }}" for tiles in (1, 2, 0, -1, 5, 1000))),
    "Reduction": simple(*(f"reduction_param {{ axis: AXIS operation: {name} }}" for name in ("SUM", "ASUM", "SUMSQ", "MEAN"))),
    "Flatten": simple(*(f"flatten_param {{ axis: AXIS end_axis: {end} }}" for end in (-1, 1, 2, 3, 0))),
    "Permute": simple("permute_param { order: 0 order: 2 order: 3 }", "permute_param { order: 3 order: 1 }", "permute_param { order: 7 }"),
    "ShuffleChannel": simple(*(f"shuffle_channel_param {{ group: {group} }}" for group in (0, 1, 2, 3, 8))),
    "Scale": simple(*(f"scale_param {{ axis: AXIS num_axes: {axes} {bias} }}" for axes in (0, 1, 2, -1) for bias in ("", "bias_term: true"))),
    "PReLU": simple("", "prelu_param { channel_shared: true }"),
    "MVN": simple("", "mvn_param { across_channels: true }", "mvn_param { normalize_variance: false }"),
    "BatchNorm": simple(""), "Normalize": simple(""), "Dropout": simple(""),
}  # fmt: skip
"""Layer type -> function that creates one."""
