"""NetSpec: nets written in Python, as pycaffe has it.

    from sslnet import NetSpec, layers as L, params as P

    n = NetSpec()
    n.data, n.label = L.Data(source="mnist_train_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.loss = L.SoftmaxWithLoss(L.InnerProduct(n.relu1, num_output=10), n.label)
    print(n.to_proto())

An attribute assigned to a NetSpec names the layer and its top; layers used but never assigned are named by their type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError, suggestion
from sslnet.prototxt.values import is_repeated

_MESSAGE_FIELDS = {
    field.message_type.name.removesuffix("Parameter").removesuffix("Layer"): field.name
    for field in pb.LayerParameter.DESCRIPTOR.fields
    if field.message_type is not None and field.name.endswith("_param") and field.name != "transform_param"
}
"""Layer type -> its field of LayerParameter, for the types that have a message of their own."""


class Top:
    """One output of a layer call; what layers take as bottom."""

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index

    @property
    def fn(self) -> Call:
        """The call that makes the top; pycaffe's name of it."""
        return self.call

    @property
    def n(self) -> int:
        """The number of the top among those of its layer; pycaffe's name of it."""
        return self.index

    def to_proto(self) -> pb.NetParameter:
        """The net that ends in this top."""
        return to_proto(self)


class Call:
    """One layer: type, the tops it reads, and its fields."""

    def __init__(self, type_name: str, inputs: Iterable[Any], fields: dict[str, Any]) -> None:
        self.type_name = type_name
        self.inputs = list(inputs)
        for position, top in enumerate(self.inputs):
            if not isinstance(top, Top):
                raise UsageError(f"input {position} of {type_name} is a {type(top).__name__}, not the top of a layer")
        self.in_place = bool(fields.pop("in_place", False))
        count = fields.pop("ntop", 1)
        self.tops = [Top(self, i) for i in range(count)]
        if self.in_place and (count != 1 or len(self.inputs) != 1):
            raise UsageError(f"{type_name} in place has one input and one top")
        self.fields = fields

    @property
    def params(self) -> dict[str, Any]:
        """The fields of the layer; pycaffe's name of them."""
        return self.fields

    def to_layer(self, name: str, bottoms: list[str], tops: list[str]) -> pb.LayerParameter:
        """The layer as a message."""
        layer = pb.LayerParameter(type=self.type_name, name=name, bottom=bottoms, top=tops)
        own = _MESSAGE_FIELDS.get(self.type_name)
        for key, value in self.fields.items():
            if key in pb.LayerParameter.DESCRIPTOR.fields_by_name:
                assign(layer, key, value)
            elif own is not None:
                assign(getattr(layer, own), key, value)
            else:
                raise UsageError(
                    f'LayerParameter has no field "{key}", and {self.type_name} has no message of its own',
                    hint=suggestion(key, pb.LayerParameter.DESCRIPTOR.fields_by_name),
                )
        return layer


def assign(message: Any, name: str, value: Any) -> None:
    """Sets a field from plain Python values: dicts for messages, lists for repeated fields (or one value for one entry)."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        hint = suggestion(name, message.DESCRIPTOR.fields_by_name)
        raise UsageError(f'{message.DESCRIPTOR.name} has no field "{name}"', hint=hint)
    if is_repeated(field):
        values = value if isinstance(value, list | tuple) else [value]
        target = getattr(message, name)
        for item in values:
            if isinstance(item, Mapping):
                entry = target.add()
                for key, inner in item.items():
                    assign(entry, key, inner)
            elif field.message_type is not None:
                target.add().CopyFrom(item)
            else:
                target.append(item)
    elif isinstance(value, Mapping):
        inner_message = getattr(message, name)
        inner_message.SetInParent()
        for key, inner in value.items():
            assign(inner_message, key, inner)
    elif field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    else:
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{message.DESCRIPTOR.name}.{name} cannot be {value!r}: {error}") from error


def to_proto(*tops: Top) -> pb.NetParameter:
    """The net that ends in these tops, layers named by their types."""
    spec = NetSpec()
    spec._ends.extend(tops)
    return spec.to_proto()


class NetSpec:
    """Named tops, in the order in which they were assigned."""

    def __init__(self) -> None:
        object.__setattr__(self, "tops", {})
        object.__setattr__(self, "_ends", [])

    tops: dict[str, Top]
    _ends: list[Top]

    def __setattr__(self, name: str, top: Any) -> None:
        if not isinstance(top, Top):
            raise UsageError(f"NetSpec.{name} must be the top of a layer, not a {type(top).__name__}")
        self.tops[name] = top

    def __getattr__(self, name: str) -> Top:
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(f'the NetSpec has no top "{name}"; {suggestion(name, self.tops)}') from None

    __setitem__ = __setattr__
    __getitem__ = __getattr__

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    __delitem__ = __delattr__

    def __contains__(self, name: object) -> bool:
        return name in self.tops

    def to_proto(self) -> pb.NetParameter:
        """The net: every layer reached from the named tops, each once, in an order that runs."""
        given = {id(top): name for name, top in self.tops.items()}
        net = pb.NetParameter()
        done: dict[int, list[str]] = {}
        counter: Counter[str] = Counter()

        def visit(call: Call) -> list[str]:
            if id(call) in done:
                return done[id(call)]
            bottoms = [visit(top.call)[top.index] for top in call.inputs]
            named = [given[id(top)] for top in call.tops if id(top) in given]
            if "name" in call.fields:
                name = call.fields["name"]
            elif named:
                name = named[0]
            else:
                counter[call.type_name] += 1
                name = f"{call.type_name}{counter[call.type_name]}"
            if call.in_place:
                tops = bottoms[:1]
            else:
                tops = [
                    given.get(id(top), name if len(call.tops) == 1 else f"{name}_{i}")
                    for i, top in enumerate(call.tops)
                ]
            done[id(call)] = tops
            net.layer.append(call.to_layer(name, bottoms, tops))
            return tops

        for top in (*self.tops.values(), *self._ends):
            visit(top.call)
        return net


class Layers:
    """``layers.Convolution(bottom, num_output=20, ...)``: a call of any layer type; several tops with ``ntop=``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return layer_function(name)


def layer_function(type_name: str) -> Any:
    """The function that makes a layer of this type: positional tops in, one Top or a tuple of them out (None for no top)."""

    def make(*inputs: Any, **fields: Any) -> Any:
        call = Call(type_name, inputs, fields)
        if not call.tops:
            return call
        return call.tops[0] if len(call.tops) == 1 else tuple(call.tops)

    make.__name__ = type_name
    return make


class Params:
    """``params.Pooling.MAX``: the values of the enums inside the layers' messages."""

    def __getattr__(self, name: str) -> Any:
        message = getattr(pb, f"{name}Parameter", None)
        if message is None:
            raise AttributeError(f'there is no message "{name}Parameter"')
        return message


layers = Layers()
params = Params()
