"""Grouped convolutions keep as many channels of each group as the group that needs most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import sslnet

X = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 7 } } }\n'


def conv(name: str, bottom: str, outputs: int, more: str = "kernel_size: 1", kind: str = "Convolution") -> str:
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}"'
        f" convolution_param {{ num_output: {outputs} {more} }} }}\n"
        f'layer {{ name: "{name}r" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    )


def compacted(
    tmp_path: Path, text: str, zeros: dict[str, Sequence[int]], biases: float = 0
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights after compaction, which compares the outputs of both nets itself."""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = sslnet.Net(str(path), sslnet.TEST)
    random = np.random.default_rng(0)
    for name, blobs in net.params.items():
        for blob in blobs:
            blob.data[...] = random.standard_normal(blob.shape)
        blobs[0].data[list(zeros.get(name, ()))] = 0
        blobs[1].data[list(zeros.get(name, ()))] = biases
    net.save(str(tmp_path / "w.caffemodel"))
    small = sslnet.compact(str(path), str(tmp_path / "w.caffemodel"))
    assert small.details.difference.relative < 1e-5
    return {layer.name: tuple(layer.blobs[0].shape.dim) for layer in small.weights.layer if layer.blobs}


NET = X + conv("a", "data", 16) + conv("b", "a", 16, "kernel_size: 3 pad: 1 group: 4") + conv("c", "b", 5)


def test_one_dead_filter_of_each_group_is_removed(tmp_path: Path) -> None:
    dead = [0, 4, 8, 12]
    found = compacted(tmp_path, NET, {"a": dead, "b": dead})
    assert found == {"a": (12, 3, 1, 1), "b": (12, 3, 3, 3), "c": (5, 12, 1, 1)}


def test_the_largest_group_decides(tmp_path: Path) -> None:
    found = compacted(tmp_path, NET, {"a": [1, 2, 5, 11, 12, 13], "b": [0, 1, 2, 6, 9, 10, 14, 15]})
    assert found == {"a": (12, 3, 1, 1), "b": (12, 3, 3, 3), "c": (5, 12, 1, 1)}


def test_a_group_that_needs_nothing_is_removed_beside_dead_filters(tmp_path: Path) -> None:
    found = compacted(tmp_path, NET, {"a": [0, 8, 12], "b": [0, 4, 5, 6, 7, 8, 12]})
    assert found == {"a": (9, 3, 1, 1), "b": (9, 3, 3, 3), "c": (5, 9, 1, 1)}


def test_constants_are_folded_into_the_biases_of_all_groups(tmp_path: Path) -> None:
    found = compacted(tmp_path, NET, {"a": [0, 4, 8, 12]}, biases=0.5)
    assert found["a"] == (12, 3, 1, 1)


def test_channel_shuffle_between_groups_is_exact(tmp_path: Path) -> None:
    shuffle = 'layer { name: "s" type: "ShuffleChannel" bottom: "b" top: "s" shuffle_channel_param { group: 3 } }\n'
    text = X + conv("a", "data", 18) + conv("b", "a", 18, "kernel_size: 1 group: 3") + shuffle
    text += conv("d", "s", 18, "kernel_size: 3 pad: 1 group: 18") + conv("e", "d", 18, "kernel_size: 1 group: 3")
    text += conv("f", "e", 4)
    odd = list(range(1, 18, 2))  # the shuffle takes three of them to each of its groups of six
    shuffled = [place % 6 * 3 + place // 6 for place in odd]
    found = compacted(tmp_path, text, {"a": odd, "b": odd, "d": sorted(shuffled), "e": odd})
    assert found == {
        "a": (9, 3, 1, 1),
        "b": (9, 3, 1, 1),
        "d": (9, 1, 3, 3),
        "e": (9, 3, 1, 1),
        "f": (4, 9, 1, 1),
    }


@pytest.mark.parametrize("seed", range(6))
def test_random_dead_filters_leave_the_outputs_as_they_are(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ("Convolution", "Deconvolution")[seed % 2]
    text = X + conv("a", "data", 12) + conv("b", "a", 8, "kernel_size: 2 group: 4", kind)
    text += conv("c", "b", 8, "kernel_size: 2 group: 2") + conv("d", "c", 3)
    zeros = {name: random.permutation(size)[: random.integers(1, size - 3)] for name, size in (("a", 12), ("c", 8))}
    compacted(tmp_path, text, {name: sorted(places.tolist()) for name, places in zeros.items()})
