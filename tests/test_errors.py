"""How an error is worded from its fields."""

from __future__ import annotations

from sslnet.errors import WeightsError


def test_layer_name_with_control_characters_is_shown_with_escapes() -> None:
    assert str(WeightsError("too small", layer="a\x00b\x1b[2J")).endswith('layer "a\\x00b\\x1b[2J"')
