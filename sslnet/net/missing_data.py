"""Nets whose data are not here, for what needs only the shapes of their inputs: deployment, compaction, export."""

from __future__ import annotations

from typing import Any

from sslnet.errors import DataError
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import with_inputs
from sslnet.net.net import Net
from sslnet.prototxt import Definition, Diagnostic, upgrade_net


def net_of(definition: Definition, state: PhaseState, **settings: Any) -> Net:
    """A net in a state; with Input layers in place of its data layers if their data are not here and they name the size
    of their images (crop_size, or new_height and new_width).

    settings  further arguments of ``Net``
    raises    DataError where a size is not named
    """
    place: dict[str, Any] = {"phase": state.phase, "level": state.level, "stages": state.stages}
    try:
        return Net(definition, **place, **settings)
    except DataError as error:
        shapes = named_shapes(definition, state)
        if shapes is None:
            raise
        net = Net(with_inputs(definition, shapes), **place, **settings)
        message = f"the data are not here ({error.message}): sizes of the images are those that the definition names"
        net.definition.notes.append(Diagnostic("note", message, path=definition.path, layer=error.layer))
        return net


def named_shapes(definition: Definition, state: PhaseState) -> dict[str, tuple[int, ...]] | None:
    """The shapes of the tops of the data layers in a state, from their definitions; None where one names no size."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in filter_layers(upgrade_net(definition), state):
        cls = LAYERS.get(layer.param.type)
        if cls is not None and cls.READS_FILES:
            found, reason = cls.assumed_shapes(layer.param)
            if not reason.startswith("from "):
                return None
            shapes.update(zip(layer.param.top, found))
    return shapes or None
