"""What recurrent layers keep from pass to pass."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.errors import RunError

from .harness import Case, inputs, make_net

SEQUENCE = {"x": (6, 2, 3), "cont": (6, 2)}


def recurrent_net(type_: str, **shapes: tuple[int, ...]):
    text = inputs(**{**SEQUENCE, **shapes}) + (
        f'layer {{ name: "l" type: "{type_}" bottom: "x" bottom: "cont" top: "y" recurrent_param {{ num_output: 4 }} }}'
    )
    net = make_net(Case(text))
    random = np.random.default_rng(5)
    for param in net.learnable:  # the same, whatever the shapes of the inputs
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    return net


def sequence(parts: int = 1) -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(3).standard_normal(SEQUENCE["x"])
    cont = np.ones(SEQUENCE["cont"])
    cont[0] = cont[4, 1] = 0
    return [{"x": a, "cont": b} for a, b in zip(np.split(x, parts), np.split(cont, parts))]


@pytest.mark.parametrize("type_", ["LSTM", "RNN"])
def test_recurrent_in_two_passes_gives_what_one_pass_gives(type_):
    whole = recurrent_net(type_).forward(**sequence()[0])["y"].copy()
    halves = recurrent_net(type_, x=(3, 2, 3), cont=(3, 2))
    got = [halves.forward(**part)["y"].copy() for part in sequence(2)]
    np.testing.assert_allclose(np.concatenate(got), whole, rtol=1e-12)


@pytest.mark.parametrize("type_", ["LSTM", "RNN"])
def test_recurrent_goes_on_bit_by_bit_from_a_saved_state(type_):
    first, second = sequence(2)
    shapes = {"x": (3, 2, 3), "cont": (3, 2)}
    net = recurrent_net(type_, **shapes)
    net.forward(**first)
    saved = net.layer_states()
    expected = net.forward(**second)["y"].copy()
    other = recurrent_net(type_, **shapes)
    other.set_layer_states(saved)
    np.testing.assert_array_equal(other.forward(**second)["y"], expected)


@pytest.mark.parametrize("type_", ["LSTM", "RNN"])
def test_recurrent_forgets_where_a_sequence_starts(type_):
    net = recurrent_net(type_)
    fresh = sequence()[0]
    fresh["cont"][0] = 0
    expected = net.forward(**fresh)["y"].copy()
    np.testing.assert_array_equal(net.forward(**fresh)["y"], expected)


def test_recurrent_refuses_a_state_of_another_size():
    net = recurrent_net("LSTM")
    with pytest.raises(RunError, match=r"the saved state has 3 bytes, that of 2 sequences has 128"):
        net.layers[-1].set_state(b"abc")
