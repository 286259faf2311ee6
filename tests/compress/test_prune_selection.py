"""Which channels go: targets, floors, multiples, shares; what may go at all; the images that decide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.pruning.calibration import CalibrationSet, draw_images
from sslnet.compress.pruning.channels import CoupledChannels, find_channels_to_prune
from sslnet.compress.pruning.prune_channels import Pruner, prune_channels
from sslnet.compress.pruning.sensitivity import Curves, share_out_by
from sslnet.errors import UsageError
from sslnet.net.net import Net

TEXT = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 dim: 8 dim: 8 }} }} }}
layer {{ name: "a" type: "Convolution" bottom: "data" top: "a"
        convolution_param {{ num_output: 8 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
{between}
layer {{ name: "b" type: "Convolution" bottom: "{bottom}" top: "b"
        convolution_param {{ num_output: 12 kernel_size: 3 group: {group} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "c" type: "InnerProduct" bottom: "b" top: "c"
        inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "c" top: "out"
        inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
"""


def make(between: str = "", group: int = 1) -> Net:
    """between: a layer whose top is n"""
    text = TEXT.format(between=between, bottom="n" if between else "a", group=group)
    return Net(prototxt.parse(text, pb.NetParameter), seed=0)


def images(count: int = 40) -> CalibrationSet:
    return CalibrationSet({"data": np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)})


@pytest.mark.parametrize("share_out", ["uniform", "flops", "sensitivity"])
@pytest.mark.parametrize("target", [0.8, 0.5, 0.25])
def test_target_is_met_and_no_more_goes_than_needed(share_out: str, target: float) -> None:
    net = make()
    result = prune_channels(net, target_flops=target, by="magnitude", share_out=share_out, images=images())
    assert target - 0.12 < result.flops <= target
    channels = result.channels
    smallest = channels.flops_saved.min() / channels.flops()
    if share_out != "flops":  # one more unit given back, and the target is missed
        assert result.flops + max(channels.flops_saved) / channels.flops() > target - smallest


@pytest.mark.parametrize("share_out", ["uniform", "sensitivity"])
def test_round_channels_keeps_multiples_and_the_target(share_out: str) -> None:
    result = prune_channels(
        make(), target_flops=0.5, by="magnitude", share_out=share_out, round_channels=4, images=images()
    )
    assert result.flops <= 0.5
    assert all(after % 4 == 0 for _, after in result.widths.values())
    assert any(after < before for before, after in result.widths.values())


def test_floor_stays_and_a_target_below_it_is_an_error() -> None:
    result = prune_channels(make(), target_flops=0.5, by="magnitude", repair="none", share_out="flops", floor=0.6)
    assert all(after >= 0.6 * before for before, after in result.widths.values())
    with pytest.raises(UsageError, match="cannot be reached") as error:
        prune_channels(make(), target_flops=0.1, by="magnitude", repair="none", share_out="uniform", floor=0.6)
    assert "lower floor" in error.value.hint


def test_targets_of_parameters_and_time_are_met_by_their_own_account() -> None:
    """Parameters: those of the compacted net. Time: two layers of made-up times, so that the costly one shrinks more."""
    net = make()
    result = prune_channels(net, target_params=0.5, by="magnitude", repair="none", share_out="flops")
    small = compact(net.definition, net.to_proto())
    left = [
        sum(blob.count for blobs in each.params.values() for blob in blobs)
        for each in (net, Net(small.message, small.weights))
    ]
    assert left[1] / left[0] == pytest.approx(result.parameters, rel=1e-6)
    assert 0.4 < result.parameters <= 0.5
    assert result.time is None
    kept = []
    for slow in ("a", "c"):
        pruner = Pruner(make(), images=images())
        pruner.channels.measure_time([1.0 if name == slow else 0.001 for name in pruner.net.layer_names])
        result = pruner.prune(target_time=0.5, by="magnitude", repair="none", share_out="flops")
        assert result.time is not None and result.time <= 0.5
        kept.append({name: after / before for name, (before, after) in result.widths.items()})
    assert kept[0]["a"] < kept[1]["a"]
    measured = prune_channels(make(), target_time=0.6, by="magnitude", repair="none", share_out="uniform")
    assert measured.time is not None and 0.3 < measured.time <= 0.6


def test_uniform_shares_are_equal() -> None:
    result = prune_channels(make(), target_flops=0.4, by="random", repair="none", share_out="uniform")
    shares = [after / before for before, after in result.widths.values()]
    assert max(shares) - min(shares) <= 0.1


def test_channels_of_lrn_across_channels_stay() -> None:
    lrn = 'layer { name: "n" type: "LRN" bottom: "a" top: "n" lrn_param { norm_region: REGION } }'
    across, within = (lrn.replace("REGION", region) for region in ("ACROSS_CHANNELS", "WITHIN_CHANNEL"))
    assert list(CoupledChannels(make(across)).widths()) == ["b", "c"]
    assert list(CoupledChannels(make(within)).widths()) == ["a", "b", "c"]


def test_equal_places_of_all_groups_of_a_convolution_are_one_unit() -> None:
    channels = CoupledChannels(make(group=4))
    assert {family.name: len(family) for family in channels.families} == {"a": 2, "b": 3, "c": 20}
    places = [channels.net.layer_names.index(name) for name in "ab"]
    np.testing.assert_array_equal(channels.tops[places[0]], np.tile(np.arange(2), 4))
    np.testing.assert_array_equal(channels.tops[places[1]] - 2, np.tile(np.arange(3), 4))


def test_net_without_prunable_channels_is_an_error() -> None:
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "out" type: "InnerProduct" bottom: "data" top: "out" inner_product_param { num_output: 3 } }"""
    with pytest.raises(UsageError, match="no channels that could be removed"):
        find_channels_to_prune(Net(prototxt.parse(text, pb.NetParameter), seed=0))


def test_shares_are_nearly_as_good_as_those_of_an_exhaustive_search() -> None:
    channels = CoupledChannels(make())
    random = np.random.default_rng(3)
    for _ in range(4):
        orders = [family.units for family in channels.families]
        errors = [
            np.concatenate([[0], np.cumsum(random.uniform(0, 1, len(o)) * np.arange(1, len(o) + 1))]) for o in orders
        ]
        curves = Curves(channels, orders, errors)
        stays = channels.protected(np.arange(channels.count, dtype=float), 0.0)
        gone = share_out_by(curves, stays, 0.4)
        assert channels.flops(gone) <= 0.4 * channels.flops()
        found = sum(errors[k][int(gone[order].sum())] for k, order in enumerate(orders))
        best = min(
            sum(errors[k][n] for k, n in enumerate(numbers))
            for numbers in itertools.product(*(range(len(order)) for order in orders))
            if channels.flops(curves.gone(numbers)) <= 0.4 * channels.flops()
        )
        assert found <= 1.15 * best + 1e-9


def test_sensitivity_leaves_the_weights_alone() -> None:
    net = make()
    before = {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}
    pruner = Pruner(net, images=images())
    pruner._curves("reconstruction")
    for name, arrays in before.items():
        for blob, array in zip(net.params[name], arrays):
            np.testing.assert_array_equal(blob.data, array)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"by": "magnitud"}, 'unknown criterion "magnitud"'),
        ({"repair": "all"}, 'unknown repair "all"'),
        ({"share_out": "equal"}, 'unknown share_out "equal"'),
        ({"target_flops": 1.5}, "target_flops must lie between 0 and 1"),
        ({"round_channels": 0}, "round_channels must be at least 1"),
        ({"floor": 2.0}, "floor must lie from 0 to 1"),
        ({"images": 1}, "images must be at least 2"),
        ({}, "no data in phase TRAIN"),
    ],
)
def test_wrong_arguments_are_told(wrong: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prune_channels(make(), **{"target_flops": 0.5, **wrong})


# -- calibration images ------------------------------------------------------------------------------------------------

DIGITS = """
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        transform_param { scale: 0.0625 crop_size: 6 mirror: true } data_param { source: "digits/train" backend: BUILTIN batch_size: 64 } }
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
        transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 50 } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "out" type: "InnerProduct" bottom: "a" top: "out" inner_product_param { num_output: 10 } }
"""


def test_images_are_training_images_prepared_as_for_testing() -> None:
    net = Net(prototxt.parse(DIGITS, pb.NetParameter), seed=0)
    drawn = draw_images(net, 30, seed=1)
    assert drawn.count == 30 and drawn.arrays["data"].shape == (30, 1, 8, 8)  # not cropped to 6
    text = DIGITS.replace("crop_size: 6 mirror: true", "").replace("batch_size: 64", "batch_size: 1")
    train = Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=0)
    known = set()
    for _ in range(train.layers[0].epoch_records()):
        train.forward(end="digits")
        known.add((train.blobs["data"].data.tobytes(), float(train.blobs["label"].data[0])))
    found = [(image.tobytes(), float(label)) for image, label in zip(drawn.arrays["data"], drawn.arrays["label"])]
    assert set(found) <= known and len(set(found)) > 25
    again, other = draw_images(net, 30, seed=1), draw_images(net, 30, seed=2)
    np.testing.assert_array_equal(again.arrays["data"], drawn.arrays["data"])
    assert (other.arrays["data"] != drawn.arrays["data"]).any()


def test_more_images_than_there_are_is_all_of_them() -> None:
    net = Net(prototxt.parse(DIGITS, pb.NetParameter), seed=0)
    whole = draw_images(net, 10**6)
    assert 100 < whole.count < 10**5
