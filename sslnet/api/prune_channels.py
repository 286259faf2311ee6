"""``sslnet.prune_channels``: whole channels removed from a trained net, and the net repaired, without labels or training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, Word, as_argument, check_part, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.pruning.calibration import CalibrationSet
from sslnet.compress.pruning.channels import COSTS
from sslnet.compress.pruning.other_phase import weights_of_all_phases
from sslnet.compress.pruning.prune_channels import FLOOR, IMAGES, Pruner, PruneResult, check_choices, one_target
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import copy_all_weights
from sslnet.prototxt import Definition

Images = int | Mapping[str, np.ndarray]
"""Number of images to draw from the data of phase TRAIN; or arrays for the inputs of the net, by name."""


def prune_channels(
    model: Model,
    weights: Weights | None = None,
    *,
    target_flops: float | None = None,
    target_params: float | None = None,
    target_time: float | None = None,
    by: str = "reconstruction",
    repair: str = "least-squares",
    images: Images = IMAGES,
    share_out: str = "sensitivity",
    round_channels: int = 1,
    floor: float = FLOOR,
    seed: int = 0,
    level: int = 0,
    stages: Sequence[str] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> NetResult[PruneResult]:
    """Removes the channels of a trained net that matter least, until a part of its cost is left, and refits the layers
    that read them on a few images without labels.

        pruned = sslnet.prune_channels("models/digits/train_test.prototxt", "digits.caffemodel", target_flops=0.5)
        print(pruned.details.widths, pruned.details.error)
        sslnet.compact(pruned).save("small/digits")

    model, weights  the net and its weights, as in ``sslnet.compact``; a Net that is given stays as it is
    target_flops, target_params, target_time   one of them: the part of the FLOPs, of the parameters or of the time that may
                    be left, between 0 and 1. The time of the forward pass is estimated: each layer is timed, and its time
                    taken to shrink as its FLOPs do; only ``sslnet time`` on the compacted net tells the real one
    by              criterion: "reconstruction", "magnitude", "magnitude_l1", "fpgm", "fisher", "taylor", "fluctuation",
                    "activation", "bn_scale", "random"; fisher and taylor need labels and a loss in phase TEST
    repair          "least-squares", "mean", "statistics" (of BatchNorm) or "none"
    images          number of images, drawn from the data of phase TRAIN; or arrays for the net's inputs, by name
    share_out       how the removals are divided between the layers: "sensitivity" (measured), "uniform" or "flops"
    round_channels  each layer keeps a multiple of so many channels, or all
    floor           part of the channels of each layer that stays, 0 to 1
    seed            of the draw of images, of the sampled positions, and of the criterion "random"
    level, stages   the rest of the state, beside phase TEST, that include and exclude rules are tried against
    progress        called with a sentence before each step

    returns  the net with zeros in place of these channels, for ``sslnet.compact``; ``details``: widths before and after,
             parts of FLOPs, parameters and, with target_time, time that are left, what the repair of each layer achieved
    raises   UsageError for unknown names, numbers out of range, targets that cannot be reached, and missing data

    Ref: He, Zhang, Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"; Frantar, Alistarh 2022, "SPDY"
    """
    targets = (target_flops, target_params, target_time)
    check_pruning(by, repair, share_out, targets, images, round_channels, floor)
    definition = read_model(model)
    source = read_weights(weights, model)
    net = read_net_in_test(definition, source, level, stages)
    result = pruner_of(net, images, seed, progress).prune(
        target_flops=target_flops,
        target_params=target_params,
        target_time=target_time,
        by=by,
        repair=repair,
        share_out=share_out,
        round_channels=round_channels,
        floor=floor,
    )
    message = pb.NetParameter()
    message.CopyFrom(definition.message)
    blobs = weights_of_all_phases(definition, source, result.channels, result.gone)
    return NetResult(message, blobs, result, path=definition.path)


def read_net_in_test(
    definition: Definition, weights: str | pb.NetParameter, level: int = 0, stages: Sequence[str] = ()
) -> Net:
    """The net in phase TEST with its weights."""
    net = Net(definition, phase=pb.TEST, level=level, stages=stages, seed=0)
    copy_all_weights(net.params, weights)
    return net


def pruner_of(net: Net, images: Images, seed: int, progress: Callable[[str], object]) -> Pruner:
    """A ``Pruner`` with this number of images, or these."""
    if isinstance(images, Mapping):
        arrays = {name: np.ascontiguousarray(array, net.dtype) for name, array in images.items()}
        if not arrays or min(len(array) for array in arrays.values()) < 2:
            raise UsageError("images must be at least 2, for each input of the net")
        return Pruner(net, images=CalibrationSet(arrays), seed=seed, progress=progress)
    return Pruner(net, images=images, seed=seed, progress=progress)


def check_pruning(
    by: str,
    repair: str,
    share_out: str,
    targets: tuple[float | None, float | None, float | None],
    images: Images,
    round_channels: int,
    floor: float,
    word: Word = as_argument,
) -> None:
    """raises UsageError for unknown names and numbers out of range, worded for Python or the command line"""
    names = [f"target_{of}" for of in COSTS]
    given = [name for name, value in zip(names, targets) if value is not None]
    if not given:
        raise UsageError(
            f"give {word('target_flops')} X, the part of the FLOPs that may be left",
            hint=f"or {word('target_params')}, or {word('target_time')}",
        )
    if len(given) > 1:
        raise UsageError(f"only one of {' and '.join(word(name) for name in given)}, not both")
    of, target = one_target(*targets)
    check_part(target, given[0], word)
    if isinstance(images, int) and images < 2:
        raise UsageError(f"{word('images')} must be at least 2, not {images}")
    if round_channels < 1:
        raise UsageError(f"{word('round_channels')} must be at least 1, not {round_channels}")
    if not 0 <= floor <= 1:
        raise UsageError(f"{word('floor')} must lie from 0 to 1, not {floor:g}")
    check_choices(by, repair, share_out, target, round_channels, floor, of)
