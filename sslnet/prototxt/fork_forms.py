"""Forms of Caffe's forks in those of Caffe: what one field of a fork says, several fields or layers say here.

pooling_param { ceil_mode: false }           round_mode: FLOOR
batch_norm_param { scale_bias: true }        NVIDIA's, Intel's use_weight_bias: a Scale layer with bias behind it
batch_norm_param { filler { value: 0 } }     Intel's, which computes BatchNorm and Scale as one: the filler of the Scale
two layers of one name in one phase          the second is read as NAME_2; only weights are stored by name
type: "SeLU"                                 SELU
a layer without a name                       is named after its type; no weights are stored under it
"""

from __future__ import annotations

from collections.abc import Iterator

from sslnet import sslnet_pb2 as pb
from sslnet.prototxt.block import Block, as_text, block_at, copy_node
from sslnet.prototxt.scan import TextNode

SCALE_BIAS = "_scale_bias"
"""What is put behind the name of a BatchNorm layer with scale and bias inside, for the name of its Scale layer."""
_SCALED = ("scale_bias", "scale_filler", "bias_filler", "use_weight_bias")
_BATCH_NORM_FORMS = (*_SCALED, "filler")
ALIASES = {"SeLU": "SELU"}
"""Names of layer types in forks -> those here."""
_SEGNET = ("scale_filler", "shift_filler", "bn_mode")
SEGNET_EPS = 1e-9
"""What SegNet's BN adds to the variance."""


def has_fork_forms(net: pb.NetParameter) -> bool:
    """Whether a net has a form that ``read_fork_forms`` changes."""
    return any(_has_form(layer) or not layer.name for layer in net.layer) or bool(_same_names(net))


_ENDS = (
    " with ceil_mode",
    " of type BN",
    " with scale and bias inside",
    " with the filler of a Scale layer",
    " with the name of another one",
    " without a name",
    " of a type with another name",
)


def is_of_a_fork(change: str) -> bool:
    """Whether a change, in the words of ``read_fork_forms``, is that of a form of a fork."""
    return change.endswith(_ENDS)


def _has_form(layer: pb.LayerParameter) -> bool:
    if layer.type == "BN" or layer.type in ALIASES:
        return True
    if layer.type == "BatchNorm" and layer.HasField("batch_norm_param"):
        return any(layer.batch_norm_param.HasField(name) for name in _BATCH_NORM_FORMS)
    return layer.HasField("pooling_param") and layer.pooling_param.HasField("ceil_mode")


def read_fork_forms(net: Block) -> tuple[list[str], dict[str, str]]:
    """Changes a net's forms of forks to those of Caffe.

    net      a net in today's form, which may be changed
    returns  what was changed, in words with counts; the layers with a new name, each with its name in the file
    """
    poolings = sum(_round_mode(layer) for layer in net.items("layer"))
    inference = sum(map(_inference, net.items("layer")))
    norms = sum(_batch_norm(layer) for layer in net.items("layer") if layer.message.type == "BN")
    scales = _scales_behind(net) - norms
    fillers = _fillers_of_scales(net)
    unnamed, aliases = _name(net), _rename_types(net)
    renamed = _rename(net)
    words = ("pooling layer", "layer", "BatchNorm layer", "BatchNorm layer", "layer", "layer", "layer")
    counts = (poolings, norms + inference, scales, fillers, len(renamed), unnamed, aliases)
    return [f"{n} {word}{'' if n == 1 else 's'}{rest}" for n, word, rest in zip(counts, words, _ENDS) if n], renamed


def _round_mode(layer: Block) -> bool:
    if not layer.message.HasField("pooling_param") or not layer.message.pooling_param.HasField("ceil_mode"):
        return False
    param = layer.own_block("pooling_param")
    ceil, nodes = param.message.ceil_mode, param.take("ceil_mode")
    if not param.message.HasField("round_mode"):
        mode = pb.PoolingParameter.CEIL if ceil else pb.PoolingParameter.FLOOR
        param.put("round_mode", [mode], nodes)
    return True


def _inference(layer: Block) -> bool:
    """Makes a Scale layer of a BN of SegNet's that holds its statistics in its scale and shift."""
    if layer.message.type != "BN" or layer.message.bn_param.bn_mode != pb.BNParameter.INFERENCE:
        return False
    old = layer.own_block("bn_param")
    scale = layer.own_block("scale_param")
    scale.put("bias_term", [True], [])
    for field, name in (("scale_filler", "filler"), ("shift_filler", "bias_filler")):
        if old.message.HasField(field):
            old.copy_to(scale, field, name)
    layer.message.type = "Scale"
    layer.take("bn_param")
    return True


def _batch_norm(layer: Block) -> bool:
    """Makes a BatchNorm with scale and bias of a BN layer; returns True."""
    message = layer.message
    old = layer.own_block("bn_param")
    segnet = not message.HasField("bn_param") or any(old.message.HasField(name) for name in _SEGNET)
    segnet &= not any(old.message.HasField(name) for name in ("slope_filler", "bias_filler", "momentum", "frozen"))
    norm = layer.own_block("batch_norm_param")
    norm.put("scale_bias", [True], [])
    for field, name in (
        ("scale_filler", "scale_filler"),
        ("slope_filler", "scale_filler"),
        ("shift_filler", "bias_filler"),
        ("bias_filler", "bias_filler"),
    ):
        if old.message.HasField(field):
            old.copy_to(norm, field, name)
    norm.put("eps", [SEGNET_EPS if segnet and not old.message.HasField("eps") else old.message.eps], old.nodes("eps"))
    if segnet:
        norm.put("use_global_stats", [False], [])
    else:
        norm.put("moving_average_fraction", [old.message.momentum], old.nodes("momentum"))
        if old.message.frozen:
            norm.put("use_global_stats", [True], old.nodes("frozen"))
    specs, nodes = list(message.param), layer.nodes("param")
    layer.take("param")
    if specs or old.message.frozen:  # those of BatchNorm's three blobs, then scale and bias
        for index in range(5):
            given = specs[index - 3] if 3 <= index < 3 + len(specs) else None
            spec = pb.ParamSpec(lr_mult=0, decay_mult=0) if given is None and index < 3 else given or pb.ParamSpec()
            if old.message.frozen:
                spec.lr_mult = spec.decay_mult = 0
            layer.put("param", [spec], nodes[index - 3 : index - 2] if given is not None else [layer.node])
    message.type = "BatchNorm"
    layer.take("bn_param")
    return True


def _scales_behind(net: Block) -> int:
    """Puts a Scale layer behind each BatchNorm that scales by itself; returns how many."""
    layers: list[tuple[pb.LayerParameter, TextNode]] = []
    count = 0
    for layer in net.items("layer"):
        message, node = layer.message, layer.node
        param = message.batch_norm_param
        if message.type == "BatchNorm" and message.HasField("batch_norm_param") and _scales(param):
            layer = Block(_copy(message), copy_node(node))
            scale = _scale_layer(layer)
            layers += [(layer.message, layer.node), (scale.message, scale.node)]
            count += 1
        else:
            layers.append((message, node))
    if count:
        messages = [_copy(message) for message, _ in layers]
        del net.message.layer[:]
        net.message.layer.extend(messages)
        assert net.node.children is not None
        net.node.children["layer"] = [node for _, node in layers]
    return count


def _scales(param: pb.BatchNormParameter) -> bool:
    if param.HasField("filler"):  # Intel's: a filler alone scales nothing
        return param.use_weight_bias
    return param.scale_bias or param.use_weight_bias or param.HasField("scale_filler") or param.HasField("bias_filler")


def _scale_layer(layer: Block) -> Block:
    """Takes scale and bias out of a BatchNorm layer, and makes the Scale layer that has them, in place behind it."""
    param = layer.own_block("batch_norm_param")
    scale = Block(pb.LayerParameter(), block_at(layer.node))
    scale.put("name", [as_text(layer.message.name) + SCALE_BIAS], layer.nodes("name"))
    scale.put("type", ["Scale"], layer.nodes("type"))
    for field, name in (("top", "bottom"), ("top", "top"), ("include", "include"), ("exclude", "exclude")):
        layer.copy_to(scale, field, name)
    for spec, node in zip(layer.message.param[3:], layer.nodes("param")[3:] or [layer.node] * 2):
        scale.put("param", [spec], [node])
    specs, nodes = list(layer.message.param[:3]), layer.nodes("param")[:3]
    layer.take("param")
    if specs:
        for spec in specs:
            spec.lr_mult = spec.decay_mult = 0
        layer.put("param", specs, nodes)
    inner = scale.block("scale_param")
    inner.put("bias_term", [True], [])
    for field, name in (("scale_filler", "filler"), ("filler", "filler"), ("bias_filler", "bias_filler")):
        if param.message.HasField(field):
            param.copy_to(inner, field, name)
    for field in _BATCH_NORM_FORMS:
        param.take(field)
    return scale


def _fillers_of_scales(net: Block) -> int:
    """Moves Intel's filler in a BatchNorm to the Scale layer that reads it; returns how many BatchNorms had one."""
    layers, count = net.items("layer"), 0
    for index, layer in enumerate(layers):
        if layer.message.type != "BatchNorm" or not _has_form(layer.message):
            continue
        count += 1
        param = layer.own_block("batch_norm_param")
        following = layers[index + 1] if index + 1 < len(layers) else None
        if following is not None and following.message.type == "Scale" and _reads(following.message, layer.message):
            scale = following.own_block("scale_param")
            for field, name in (("filler", "filler"), ("bias_filler", "bias_filler")):
                if param.message.HasField(field) and not scale.message.HasField(name):
                    param.copy_to(scale, field, name)
        for field in _BATCH_NORM_FORMS:
            param.take(field)
    return count


def _reads(layer: pb.LayerParameter, above: pb.LayerParameter) -> bool:
    return list(layer.bottom) == list(above.top)


def _name(net: Block) -> int:
    """Gives each layer without a name one of its type; returns how many."""
    taken = {as_text(layer.name) for layer in net.message.layer}
    count = 0
    for layer in net.items("layer"):
        if layer.message.name or not layer.message.type:
            continue
        kind = as_text(layer.message.type)
        name = next(name for name in (f"{kind}_{k}" for k in range(1, len(taken) + 2)) if name not in taken)
        layer.message.name = name
        taken.add(name)
        count += 1
    return count


def _rename_types(net: Block) -> int:
    """Gives layers whose type has another name in a fork its name here; returns how many."""
    layers = [layer for layer in net.items("layer") if layer.message.type in ALIASES]
    for layer in layers:
        layer.message.type = ALIASES[layer.message.type]
    return len(layers)


def _rename(net: Block) -> dict[str, str]:
    """Gives each layer with the name of another one of its phase a name of its own; new name -> old name."""
    renamed: dict[str, str] = {}
    taken = {as_text(layer.name) for layer in net.message.layer}
    for index in _same_names(net.message):
        layer = net.items("layer")[index]
        old = as_text(layer.message.name)
        new = next(name for name in (f"{old}_{k}" for k in range(2, len(taken) + 3)) if name not in taken)
        layer.message.name = new
        taken.add(new)
        renamed[new] = old
    return renamed


def _same_names(net: pb.NetParameter) -> list[int]:
    """The layers that run together with one above them that has the same name."""
    layers: dict[str, list[pb.LayerParameter]] = {}
    found = []
    for index, layer in enumerate(net.layer):
        name = as_text(layer.name)
        if name and any(_together(layer, other, net) for other in layers.get(name, ())):
            found.append(index)
        layers.setdefault(name, []).append(layer)
    return found


def _together(first: pb.LayerParameter, second: pb.LayerParameter, net: pb.NetParameter) -> bool:
    """Whether there is a state in which both layers are in the net."""
    if not any((first.include, first.exclude, second.include, second.exclude)):
        return True
    return any(_runs(first, *state) and _runs(second, *state) for state in _states(first, second, net))


def _states(
    first: pb.LayerParameter, second: pb.LayerParameter, net: pb.NetParameter
) -> Iterator[tuple[int, int, frozenset[str]]]:
    """The states (phase, level, stages) in which the two layers may be told apart: the stages of each rule, for stages of
    different rules, as test-on-train and test-on-test, are alternatives."""
    rules = [rule for layer in (first, second) for rule in (*layer.include, *layer.exclude)]
    levels = {net.state.level, *(rule.min_level for rule in rules), *(rule.max_level for rule in rules)}
    stages = {frozenset[str](), *(frozenset(names) for rule in rules for names in (rule.stage, rule.not_stage))}
    for phase in (pb.TRAIN, pb.TEST):
        for level in sorted(levels):
            for stage in sorted(stages, key=sorted):
                yield phase, level, stage


def _runs(layer: pb.LayerParameter, phase: int, level: int, stages: frozenset[str]) -> bool:
    def meets(rule: pb.NetStateRule) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == phase)
            and (not rule.HasField("min_level") or level >= rule.min_level)
            and (not rule.HasField("max_level") or level <= rule.max_level)
            and stages.issuperset(rule.stage)
            and stages.isdisjoint(rule.not_stage)
        )

    if layer.include:
        return any(map(meets, layer.include))
    return not any(map(meets, layer.exclude))


def _copy(layer: pb.LayerParameter) -> pb.LayerParameter:
    copy = pb.LayerParameter()
    copy.CopyFrom(layer)
    return copy
