"""Walk: runs a net forward once, piece by piece, so that layers can be changed on the way."""

from __future__ import annotations

from sslnet.net.net import Net


class Walk:
    """One forward pass of a net whose inputs are filled."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.at = 0
        """Number of the first layer that has not run."""

    def before(self, i: int) -> None:
        """Runs all layers before number i that have not run."""
        if self.at < i:
            names = self.net.layer_names
            self.net.forward(start=names[self.at], end=names[i - 1])
            self.at = i

    def through(self, i: int) -> None:
        """Runs all layers up to number i, and this one, that have not run."""
        self.before(i + 1)
