"""BitWidths: bits of weights and of activations, as the options --bits and --layers give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sslnet.errors import UsageError
from sslnet.kernels.quantized.dot import best_weight_bits

TARGETS = ("this", "vnni", "avx2", "any")
"""Machines that a net can be made for: the one that runs the command, and those with and without byte products of 8 bits."""


@dataclass(frozen=True)
class BitWidths:
    """Bits of the weights and of the activations of a layer, 2 to 8."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"{self.weights}/{self.activations}"


def parse_bits(text: str, target: str, option: str = "bits") -> BitWidths:
    """The widths of "8", "4/8": weights and activations. One number is for both, with 7 bits instead of 8 for the weights
    where the target multiplies these faster.

    raises UsageError for another text
    """
    parts = text.split("/")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and 2 <= int(part) <= 8 for part in parts):
        raise UsageError(f'{option} must be a number of bits, 2 to 8, or weights/activations, as 4/8; not "{text}"')
    numbers = [int(part) for part in parts]
    if len(numbers) == 2:
        return BitWidths(*numbers)
    return BitWidths(min(numbers[0], weight_bits_for(target)), numbers[0])


def weight_bits_for(target: str) -> int:
    """The most bits of weights that run at full speed on a target. raises UsageError for an unknown one"""
    if target not in TARGETS:
        raise UsageError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    return {"this": best_weight_bits(), "vnni": 8}.get(target, 7)


def parse_layers(texts: Sequence[str], target: str) -> dict[str, BitWidths | None]:
    """Layers with widths of their own, of texts "conv2=4/8"; "conv1=float": None."""
    found: dict[str, BitWidths | None] = {}
    for text in texts:
        name, sign, bits = text.rpartition("=")
        if not sign or not name:
            raise UsageError(f'layers must be NAME=BITS or NAME=float, not "{text}"')
        found[name] = None if bits == "float" else parse_bits(bits, target, f"the bits of {name}")
    return found
