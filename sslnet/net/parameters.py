"""Parameters of a net: one Param for each distinct blob, shared ones under their first owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import ShapeError, Span
from sslnet.layers.base import Layer


@dataclass
class Param:
    """One learnable blob: what the solver updates. Blobs shared by name appear once, under their first owner."""

    blob: Blob
    layer: Layer
    index: int
    """Number of the blob among those of its layer."""
    spec: pb.ParamSpec
    lr_mult: float = 1.0
    decay_mult: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.layer.name}[{self.index}]"

    def span(self, *path: str | int, value: bool = False) -> Span | None:
        return self.layer.definition.span("param", self.index, *path, value=value)


def collect_params(layers: Sequence[Layer]) -> list[Param]:
    """One Param for each distinct blob, in the order of the layers; blobs of one ``param { name }`` share data and diff
    with the first. Sets ``param_propagate_down`` of each layer: a diff is needed where lr_mult is not 0.

    raises DefinitionError, ShapeError where shared blobs disagree
    """
    found: list[Param] = []
    owners: dict[str, Param] = {}
    for layer in layers:
        specs = list(layer.param.param)
        if len(specs) > len(layer.blobs) and len(specs) > 1:
            raise layer.error(
                f"{len(specs)} param fields for {len(layer.blobs)} parameter blobs", "param", len(specs) - 1
            )
        layer.param_propagate_down = []
        for index, blob in enumerate(layer.blobs):
            spec = specs[index] if index < len(specs) else pb.ParamSpec()
            param = Param(blob, layer, index, spec, spec.lr_mult, spec.decay_mult)
            owner = owners.setdefault(spec.name, param) if spec.name else param
            if owner is param:
                found.append(param)
            else:
                _share(param, owner)
            layer.param_propagate_down.append(owner.lr_mult != 0)
    return found


def _share(param: Param, owner: Param) -> None:
    permissive = param.spec.share_mode == pb.ParamSpec.PERMISSIVE
    same = param.blob.count == owner.blob.count if permissive else param.blob.shape == owner.blob.shape
    if not same:
        raise param.layer.shape_error(
            f'the shared parameter "{param.spec.name}" has shape {param.blob.shape} here and {owner.blob.shape} '
            f'in layer "{owner.layer.name}"',
            "param",
            param.index,
        )
    for mult in ("lr_mult", "decay_mult"):
        if param.spec.HasField(mult):
            value = getattr(param.spec, mult)
            if owner.spec.HasField(mult) and value != getattr(owner, mult):
                raise param.layer.error(
                    f'the shared parameter "{param.spec.name}" has {mult} {value:g} here and '
                    f'{getattr(owner, mult):g} in layer "{owner.layer.name}"',
                    "param",
                    param.index,
                    mult,
                )
            setattr(owner, mult, value)
    _check_owner_says_it(param, owner)
    param.blob.share_data(owner.blob)
    param.blob.share_diff(owner.blob)


def _check_owner_says_it(param: Param, owner: Param) -> None:
    """Raises DefinitionError for fields of a sharing layer that differ from the owner's, as only the owner's are used."""
    for field, value in param.spec.ListFields():
        if field.name not in ("name", "share_mode", "lr_mult", "decay_mult") and value != getattr(
            owner.spec, field.name
        ):
            raise param.layer.error(
                f'the shared parameter "{param.spec.name}" has another {field.name} in layer "{owner.layer.name}"',
                "param",
                param.index,
                field.name,
                hint=f'layer "{owner.layer.name}" has the parameter first, so its settings apply',
            )


def share_params(params: Mapping[str, list[Blob]], others: Mapping[str, list[Blob]], path: str | None) -> None:
    """Makes the parameters of one net share the data of another's, in layers of the same name.

    params, others   the parameter blobs of each net by layer; path: of the first net's definition, for errors
    raises ShapeError where numbers or shapes of blobs differ
    """
    for name, blobs in params.items():
        theirs = others.get(name, [])
        if theirs and len(theirs) != len(blobs):
            raise ShapeError(f"{len(blobs)} parameter blobs cannot be shared with {len(theirs)}", path=path, layer=name)
        for mine, other in zip(blobs, theirs):
            if mine.shape != other.shape:
                raise ShapeError(
                    f"parameter of shape {mine.shape} cannot be shared with shape {other.shape}", path=path, layer=name
                )
            mine.share_data(other)
