"""NoInputGradient: the rules of layers whose output has no gradient with respect to their bottoms."""

from __future__ import annotations

from collections.abc import Sequence

from sslnet.layers.base import Blobs, Layer


class NoInputGradient(Layer):
    """Base of layers that have no gradient for their bottoms; ``backward`` raises an error if one is requested."""

    def allow_force_backward(self, index: int) -> bool:
        return False

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down):
            raise self.run_error(
                f"{self.TYPE} has no gradient", hint="propagate_down: false in this layer ends the gradient here"
            )
