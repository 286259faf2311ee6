"""Converts definitions of older Caffes to today's form, as Caffe does; each field keeps its place in the file.

    layers { layer { type: "conv" num_output: 20 } }   of 2013 ("V0"): one message for all types; layers that only pad
    layers { type: CONVOLUTION blobs_lr: 1 }           of 2014 ("V1"): an enum for the type, lists for the parameters
    data_param { scale: 0.5 }                          in layers of 2014: what transform_param holds today
    input: "data" input_dim: 64                        until 2016: fields in place of an Input layer
    BatchNorm with three param { }                     until 2016: its statistics must not be trained
    solver_type: ADAM                                  until 2015: an enum in place of `type`
    num, channels, height, width                       until 2014: four sizes in place of a blob's shape

A message that was not parsed from a text, as that of a .caffemodel, is upgraded in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList, SslnetError, suggestion
from sslnet.prototxt.block import Block, as_text, block_at, copy_node
from sslnet.prototxt.definition import Definition
from sslnet.prototxt.diagnostic import Diagnostic
from sslnet.prototxt.fork_forms import has_fork_forms, is_of_a_fork, read_fork_forms
from sslnet.prototxt.old_blobs import has_four_sizes, shape_old_blobs
from sslnet.prototxt.old_forms import (
    FIELDS_OF_2013,
    LAYERS_OF_2013,
    LAYERS_OF_2014,
    PARAM_FIELDS,
    SOLVER_TYPES,
    TRANSFORM_BLOCKS,
    TRANSFORM_FIELDS,
)
from sslnet.prototxt.scan import TextNode
from sslnet.prototxt.values import is_repeated, shorten


def upgrade(definition: Definition) -> Definition:
    """The definition of a net or a solver in today's form; any other message as it is. See upgrade_net, upgrade_solver."""
    kind = definition.message.DESCRIPTOR.name
    if kind == "NetParameter":
        return upgrade_net(definition)
    return upgrade_solver(definition) if kind == "SolverParameter" else definition


def upgrade_net(definition: Definition) -> Definition:
    """The definition of a net in today's form; the same object when it has that already.

    The result says in `changes` what was old, and in `notes` what there is to tell the user. Its places are those of the
    old fields: span("layer", 3, "convolution_param", "num_output") is in the fourth `layers { }` of the file.

    raises DefinitionError for what has no meaning in the old form, ErrorList when there are several such things
    """
    if not _is_old(definition.message):
        return definition
    net = _NetUpgrade(definition)
    net.inputs()
    net.layers()
    net.forks()
    net.statistics()
    net.blob_shapes()
    return net.result()


def upgrade_solver(definition: Definition) -> Definition:
    """The definition of a solver in today's form, with the nets that are written in it; the same object when it has that.

    raises DefinitionError
    """
    solver = Block(pb.SolverParameter(), copy_node(definition.root))
    solver.message.CopyFrom(definition.message)
    result = _like(definition, solver)
    if solver.message.HasField("solver_type"):
        if solver.message.HasField("type"):
            message = "type and solver_type are both given"
            raise DefinitionError(message, span=definition.span("solver_type"), hint="remove solver_type")
        kind, nodes = SOLVER_TYPES[solver.message.solver_type], solver.take("solver_type")
        solver.put("type", [kind], nodes)
        result.changes.append("solver_type")
    for field in ("net_param", "train_net_param", "test_net_param"):
        for index, part in enumerate(_parts(definition, field)):
            new = upgrade_net(part)
            if new is not part:
                solver.replace(field, index, new.message, new.root)
                result.changes += new.changes
                result.notes += [note for note in new.notes if note.level != "note"]
    return _told(definition, result)


class _NetUpgrade:
    """The conversion of one net: `old` is the definition read, `new` the result."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.old = Block(definition.message, definition.root)
        self.new = Block(pb.NetParameter(), copy_node(definition.root))
        self.notes: list[Diagnostic] = []
        self.changes: list[str] = []
        self.errors: list[SslnetError] = []
        self.renamed: dict[str, str] = {}
        for name in self.old.names():
            self.new.take(name)
            if name not in ("layer", "layers", "input", "input_shape", "input_dim"):
                self.old.copy_to(self.new, name)

    def result(self) -> Definition:
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else ErrorList(self.errors)
        result = _like(self.definition, self.new)
        result.changes += self.changes
        result.notes += self.notes
        result.renamed |= self.renamed
        return _told(self.definition, result)

    # -- inputs ------------------------------------------------------------------------------------------------------

    def inputs(self) -> None:
        """The input fields as one Input layer in front."""
        net = self.old.message
        if not net.input:
            return
        self.changes.append(_count(len(net.input), "input field"))
        shapes = self.old.items("input_shape") or self._dims()
        if not shapes and self.definition.source is None:
            return  # the weights of an old net: Caffe wrote the names of its inputs alone
        if not shapes and set(net.input) <= {name for layer in (*net.layer, *net.layers) for name in layer.top}:
            return  # layers make them
        if len(shapes) != len(net.input) or len(shapes[-1].message.dim) == 0:
            dims = _count(len(net.input_dim), "size") if net.input_dim else _count(len(shapes), "shape")
            self._complain(
                f"{_count(len(net.input), 'input')}, but {dims}",
                self.old.nodes("input"),
                hint="give one input_shape { dim: ... } an input, or four input_dim",
            )
            return
        layer = self.new.add("layer", next(iter(self.old.nodes("input")), self.old.node))
        layer.put("name", [self._free_name("input")], [])
        layer.put("type", ["Input"], [])
        self.old.copy_to(layer, "input", "top")
        param = layer.block("input_param")
        param.put("shape", [shape.message for shape in shapes], [shape.node for shape in shapes])

    def _dims(self) -> list[Block]:
        """Four input_dim an input, as shapes."""
        dims, nodes = self.old.message.input_dim, self.old.nodes("input_dim")
        shapes = []
        for start in range(0, len(dims), 4):
            shape = Block(pb.BlobShape(), block_at(nodes[start] if nodes else None))
            if start + 4 <= len(dims):
                shape.put("dim", dims[start : start + 4], nodes[start : start + 4])
            shapes.append(shape)
        return shapes

    def _free_name(self, name: str) -> str:
        net = self.old.message
        taken = {layer.name for layer in net.layer} | {layer.layer.name or layer.name for layer in net.layers}
        while name in taken:
            name += "_"
        return name

    # -- layers ------------------------------------------------------------------------------------------------------

    def layers(self) -> None:
        """Every layer in today's form."""
        self.old.copy_to(self.new, "layer")
        old = self.old.items("layers")
        if old and self.old.message.layer:
            self._complain(
                "layers in two forms: `layer { }` and `layers { }`",
                [old[0].node],
                hint='write all of them as `layer { type: "Convolution" }`',
            )
            return
        by_year = {2013: 0, 2014: 0}
        for layer in self._without_padding(old):
            year = 2013 if layer.message.HasField("layer") else 2014
            (self._layer_of_2013 if year == 2013 else self._layer_of_2014)(layer)
            by_year[year] += 1
        self.changes += [f"{_count(count, 'layer')} of {year}" for year, count in by_year.items() if count]
        self._transforms()

    def _layer_of_2014(self, old: Block) -> None:
        new = self.new.add("layer", old.node)
        for name in old.names():
            if name == "type":
                kind = LAYERS_OF_2014[pb.V1LayerParameter.LayerType.Name(old.message.type)]
                new.put("type", [kind], old.nodes("type"))
            elif name not in PARAM_FIELDS:
                old.copy_to(new, name)
        _params(old, new)

    def _layer_of_2013(self, connection: Block) -> None:
        """`layers { layer { what it is } what it is connected to }`."""
        old, new = connection.block("layer"), self.new.add("layer", connection.node)
        kind = old.message.type
        for name in connection.names():
            if name in ("bottom", "top"):
                connection.copy_to(new, name)
            elif name != "layer":
                self._left_out(name, connection, old)
        for name in old.names():
            if name == "type":
                self._type_of_2013(old, new)
            elif name in ("name", "blobs") or (name, kind) == ("hdf5_output_param", "hdf5_output"):
                old.copy_to(new, name)
            elif name not in PARAM_FIELDS:
                places = FIELDS_OF_2013.get(name, {})
                place = places.get(kind) or places.get("*")
                if place is None:
                    self._left_out(name, old, old)
                else:
                    old.copy_to(new.block(place[0]), name, place[1])
        _params(old, new)

    def _type_of_2013(self, old: Block, new: Block) -> None:
        kind = as_text(old.message.type)
        if kind in LAYERS_OF_2013:
            new.put("type", [LAYERS_OF_2013[kind]], old.nodes("type"))
        else:
            hint = suggestion(kind, LAYERS_OF_2013)
            self._complain(
                f'unknown layer type "{shorten(kind)}"',
                old.nodes("type"),
                value=True,
                layer=old.message.name,
                hint=hint,
            )

    def _left_out(self, name: str, part: Block, layer: Block) -> None:
        kind = as_text(layer.message.type)
        message = f'{name} does nothing in a layer of 2013 of type "{shorten(kind)}"; it is left out'
        place = self._place(part.nodes(name))
        self.notes.append(Diagnostic("warning", message, **place, layer=as_text(layer.message.name) or None))

    def _without_padding(self, layers: list[Block]) -> list[Block]:
        """The layers without those that only pad: their pad becomes that of the layer that reads them."""
        kept: list[Block] = []
        made_by: dict[str, Block] = {}
        paddings = 0
        for layer in layers:
            is_padding = layer.message.layer.type == "padding"
            paddings += is_padding
            source = next((made_by[name] for name in layer.message.bottom if _pads(made_by.get(name))), None)
            if source is not None and self._can_fold(source, layer):
                kept.append(_folded(source, layer))
            elif not is_padding:
                kept.append(layer)
            made_by.update(dict.fromkeys(layer.message.top, layer))
        if paddings:
            self.changes.append(_count(paddings, "padding layer"))
        return kept

    def _can_fold(self, padding: Block, layer: Block) -> bool:
        kind, name = (shorten(as_text(text)) for text in (layer.message.layer.type, padding.message.layer.name))
        alone = [len(layer.message.bottom), len(padding.message.bottom), len(padding.message.top)] == [1, 1, 1]
        if kind in ("conv", "pool") and alone:
            return True
        self._complain(
            f'the padding layer "{name}" pads for a layer of type "{kind}"'
            if kind not in ("conv", "pool")
            else f'the padding layer "{name}" and its reader must have one bottom, and one blob between them',
            layer.nodes("bottom") or [layer.node],
            layer=layer.message.layer.name,
            hint="a padding layer becomes the pad of a conv or pool layer that reads nothing else",
        )
        return False

    def _transforms(self) -> None:
        """Moves the image transformations from the block of the source to transform_param."""
        count = 0
        for layer in self.new.items("layer"):
            block = TRANSFORM_BLOCKS.get(layer.message.type)
            if block is None or not layer.message.HasField(block) or not self.old.message.layers:
                continue
            source = layer.own_block(block)
            moved = [name for name in TRANSFORM_FIELDS if source.message.HasField(name)]
            for name in moved:
                source.copy_to(layer.own_block("transform_param"), name)
                source.take(name)
            count += len(moved)
        if count:
            self.changes.append(_count(count, "field") + " now in transform_param")

    # -- what was trained or stored in another way --------------------------------------------------------------------

    def forks(self) -> None:
        """Forms of forks of Caffe; see ``sslnet.prototxt.fork_forms``."""
        changes, self.renamed = read_fork_forms(self.new)
        self.changes += changes

    def statistics(self) -> None:
        """BatchNorm layers with a param for each of their three blobs: rates of 0, for they are measured, not trained."""
        layers = [layer for layer in self.new.message.layer if _trains_statistics(layer)]
        for layer in layers:
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
        if layers:
            self.changes.append(_count(len(layers), "BatchNorm layer") + " with learning rates for its statistics")

    def blob_shapes(self) -> None:
        """Blobs with four sizes: the shape that they have today."""
        count = shape_old_blobs(self.new.message)
        if count:
            self.changes.append(_count(count, "blob") + " with four sizes")

    # -- errors ------------------------------------------------------------------------------------------------------

    def _complain(
        self, message: str, nodes: Sequence[TextNode], *, value: bool = False, layer: str = "", hint: str = ""
    ) -> None:
        place = self._place(nodes, value)
        name = shorten(as_text(layer), 100) or None
        self.errors.append(DefinitionError(message, **place, layer=name, hint=hint))

    def _place(self, nodes: Sequence[TextNode], value: bool = False) -> dict[str, Any]:
        source, span = self.definition.source, None
        if source is not None and nodes and nodes[0].end:
            node = nodes[0]
            span = source.span(node.value_start, node.value_end) if value else source.span(node.start, node.end)
        return {"span": span, "path": self.definition.path}


def _is_old(net: pb.NetParameter) -> bool:
    return bool(
        net.layers
        or net.input
        or any(_trains_statistics(layer) for layer in net.layer)
        or any(has_four_sizes(blob) for layer in net.layer for blob in layer.blobs)
        or has_fork_forms(net)
    )


def _trains_statistics(layer: pb.LayerParameter) -> bool:
    specs = layer.param
    return layer.type == "BatchNorm" and len(specs) == 3 and any(spec.lr_mult for spec in specs)


def _params(old: Block, new: Block) -> None:
    """The lists with an item a blob as one param { } a blob."""
    specs: list[Block] = []
    for name, field in PARAM_FIELDS.items():
        if name not in old.message.DESCRIPTOR.fields_by_name:
            continue
        nodes = old.nodes(name)
        for index, value in enumerate(getattr(old.message, name)):
            if index == len(specs):
                specs.append(new.add("param", nodes[index] if index < len(nodes) else old.node))
            specs[index].put(field, [value], nodes[index : index + 1])


def _pads(layer: Block | None) -> bool:
    return layer is not None and layer.message.layer.type == "padding"


def _folded(padding: Block, layer: Block) -> Block:
    """A copy of the layer that pads by itself and reads what the padding layer read."""
    message = pb.V1LayerParameter()
    message.CopyFrom(layer.message)
    folded = Block(message, copy_node(layer.node))
    folded.take("bottom")
    padding.copy_to(folded, "bottom")
    inner = copy_node(layer.nodes("layer")[0]) if layer.nodes("layer") else block_at(None)
    assert folded.node.children is not None
    folded.node.children["layer"] = [inner]
    padding.block("layer").copy_to(Block(message.layer, inner), "pad")
    return folded


def _parts(definition: Definition, field: str) -> list[Definition]:
    """The nets in a field of a solver."""
    message = definition.message
    if is_repeated(message.DESCRIPTOR.fields_by_name[field]):
        return [definition.part(field, index) for index in range(len(getattr(message, field)))]
    return [definition.part(field)] if message.HasField(field) else []


def _like(definition: Definition, part: Block) -> Definition:
    result = definition.with_message(part.message)
    result.root = part.node if definition.root is not None else None
    return result


def _told(old: Definition, new: Definition) -> Definition:
    """The definition with a note that lists the old forms; the same definition if there were none."""
    changes = new.changes[len(old.changes) :]
    if not changes:
        return old
    caffe = "another Caffe" if any(map(is_of_a_fork, changes)) else "an older Caffe"
    message = f"written for {caffe} ({', '.join(changes)}), read in today's form"
    new.notes.insert(0, Diagnostic("note", message, path=new.path, hint="`sslnet upgrade` writes it out"))
    return new


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
