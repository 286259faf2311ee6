"""Names of layers: those of the modules of a PyTorch model, as far as its ONNX file tells them."""

from __future__ import annotations

from sslnet.exchange.node import OnnxNode

WEIGHTED = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "LayerNormalization",
    "GroupNormalization", "PRelu",
}  # fmt: skip


def layer_name(node: OnnxNode, known: set[str]) -> str:
    """The name for a node's layer. known: names of the constants in the file

    An operator with weights has the name of its module: that of the parameter layer1.0.conv1.weight, or of the node
    /layer1/layer1.0/conv1/Conv, is layer1.0.conv1. Other nodes keep theirs, without what repeats in it.
    """
    if node.op in WEIGHTED:
        for value in node.inputs[1:2]:
            if value in known and value.endswith(".weight") and "::" not in value:
                return value.removesuffix(".weight")
    if not node.name.startswith("/"):
        return node.name
    parts: list[str] = []
    for part in node.name.strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    if len(parts) > 1 and (node.op in WEIGHTED or _says_the_same(parts[-2], parts[-1])):
        del parts[-1]
    return ".".join(parts)


def _says_the_same(module: str, operator: str) -> bool:
    """Whether a module's name tells its operator: relu and Relu, act_1 and Relu not."""
    word = operator.split("_")[0].lower()
    return module.rstrip("_0123456789").lower() == word
