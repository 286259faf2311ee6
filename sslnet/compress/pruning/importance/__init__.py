"""Importance criteria: what each prunable channel is worth, one module a criterion.

base.py            Importance: the interface
reconstruction.py  what the readers lose after least squares, removed greedily (the default)
magnitude.py, fpgm.py, bn_scale.py   of the weights alone
fluctuation.py, activation.py        of what the channels carry on the calibration images
gates.py           fisher, taylor: of the gradients of the loss
random.py          the baseline of comparisons

``IMPORTANCES`` lists them by name. docs/design.md says how to add one.
"""

from __future__ import annotations

from sslnet.compress.pruning.importance.activation import Activation
from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.compress.pruning.importance.bn_scale import BnScale
from sslnet.compress.pruning.importance.fluctuation import Fluctuation
from sslnet.compress.pruning.importance.fpgm import Fpgm
from sslnet.compress.pruning.importance.gates import Fisher, Taylor
from sslnet.compress.pruning.importance.magnitude import Magnitude, MagnitudeL1
from sslnet.compress.pruning.importance.random import Random
from sslnet.compress.pruning.importance.reconstruction import Reconstruction

IMPORTANCES: dict[str, type[Importance]] = {
    importance.NAME: importance
    for importance in (
        Reconstruction,
        Magnitude,
        MagnitudeL1,
        Fpgm,
        Fisher,
        Taylor,
        Fluctuation,
        Activation,
        BnScale,
        Random,
    )
}
"""The criteria by their names in ``--by``."""

__all__ = ["IMPORTANCES", "Importance", "Needs", "Reconstruction"]
