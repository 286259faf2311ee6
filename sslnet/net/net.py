"""Net: a graph of layers that runs forward and backward. Construction: graph, layers, parameters, gradients, memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import UsageError, suggestion
from sslnet.kernels.runtime.fill import clear
from sslnet.layers.base import Context, Layer
from sslnet.net import weights
from sslnet.net.builder import GraphBuilder
from sslnet.net.debug_info import tell_backward, tell_forward
from sslnet.net.graph import NetSource, PhaseState, build_graph, definition_of
from sslnet.net.memory_estimate import Memory, check_memory, measure
from sslnet.net.memory_planner import Arena
from sslnet.net.parameters import share_params
from sslnet.net.plan import Plan
from sslnet.net.plan_cache import PlanCache
from sslnet.net.steps import Step
from sslnet.net.taping import Taping, top_value

default_seed: int | None = None
"""Seed of nets created without one (None: drawn from the operating system)."""


class Net:
    """A net in one phase.

    source   path of a prototxt, a Definition, or a pb.NetParameter
    phase    pb.TRAIN or pb.TEST;  level, stages: the rest of the state that include / exclude rules are tried against
    weights  path of a .caffemodel, a pb.NetParameter with blobs, or StoredWeights: copied in by layer name
    dtype    numpy.float32, or numpy.float64 for checks (runs the layers' plain code)
    seed     of fillers, dropout, shuffles (None: drawn from the operating system; kept in ``.seed``)
    share    another Net: layers of the same name use its parameters instead of their own
    plain    run only the layers' own code, none of the faster steps of ``sslnet.net.plan``
    lean     take less memory: blobs whose values are needed at different times share it, so that after a run only the
             inputs and outputs can be read, and what ``forward(blobs=...)`` and ``backward(diffs=...)`` have ever asked for;
             any other blob raises UsageError. Runs start at the first layer, and in phase TEST there is no backward pass.
             With ``share``, the memory is shared with that net, too: its values are gone when this one has run. A net
             with layers that change shapes as they run (Filter, Python) keeps everything as without.

    raises DefinitionError for what the prototxt says wrong, ShapeError where shapes do not fit, RunError when the net
    would not fit into memory

    Ref: Jia et al. 2014, "Caffe: Convolutional Architecture for Fast Feature Embedding"; pycaffe's Net
    """

    def __init__(
        self,
        source: NetSource,
        weights: weights.WeightSource | int | None = None,
        phase: int = pb.TEST,
        *,
        level: int = 0,
        stages: Iterable[str] = (),
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        share: Net | None = None,
        plain: bool = False,
        allow_python: bool = False,
        lean: bool = False,
    ) -> None:
        if isinstance(weights, int):  # pycaffe's Net(file, phase)
            phase = weights
            weights = None
        self.definition = definition_of(source)
        self.name: str = self.definition.message.name
        self.phase = phase
        self.state = PhaseState(phase, level, tuple(stages))
        self.dtype = np.dtype(dtype)
        self.seed = _seed(default_seed if seed is None else seed)
        self.plain = plain or self.dtype != np.float32
        self.lean = lean
        self.runs_backward = not lean or phase == pb.TRAIN
        self.loss = 0.0
        self.on_step: Callable[[int, bool], None] | None = None
        """Called with the number of a layer before it runs, and whether forward, when set."""
        self.on_debug: Callable[[str], None] | None = None
        """Called with a line for every blob after its forward and backward step when set (``debug_info``)."""

        beside = os.path.dirname(os.path.abspath(self.definition.path)) if self.definition.path else None
        context = Context(int(phase), self.dtype, self.seed, beside, allow_python, self.runs_backward)
        builder = GraphBuilder(context)
        for layer in build_graph(self.definition, self.state):
            builder.add(layer)
        self.graph = graph = builder.graph(force_backward=self.definition.message.force_backward)
        """The record of layers and blobs, used by all parts of a net; the following attributes are its fields."""
        self.layers, self.layer_names, self.layer_loss_weights = (
            graph.layers,
            graph.layer_names,
            graph.layer_loss_weights,
        )
        self.bottoms, self.tops, self.blobs, self.versions = graph.bottoms, graph.tops, graph.blobs, graph.versions
        self.bottom_names, self.top_names = graph.bottom_names, graph.top_names
        self.inputs, self.outputs, self.loss_weights = graph.inputs, graph.outputs, graph.loss_weights()
        self.params, self.learnable = graph.params, graph.learnable
        self.layer_need_backward, self.bottom_need_backward = graph.layer_need_backward, graph.bottom_need_backward
        if share is not None:
            self.share_with(share)
        self._weighted = [
            [(top, weight) for top, weight in zip(tops, row) if weight]
            for tops, row in zip(self.tops, self.layer_loss_weights)
        ]
        self.arena: Arena = share.arena if share is not None and share.lean else Arena()
        self._plans = PlanCache(graph, plain=self.plain, arena=self.arena if lean else None)
        self.taping = Taping(graph, self.arena, phase=phase, plain=self.plain)
        self._ran: list[Step] = []
        """The step that last ran each layer forward; it also runs it backward, as it may have saved data for that."""
        self._fused = False
        """Whether the last forward pass ran the fused plan."""
        self._ready = False
        """Whether a whole forward pass has run, and no backward pass since."""
        self._plans.note_shapes()
        check_memory(self.memory(), self.name, self.definition.path)
        self.copied = self.copy_from(weights) if weights is not None else None
        """Result of copying the initial weights; None if there were none."""

    @property
    def _layer_names(self) -> list[str]:
        """The private name of ``layer_names`` in pycaffe, which scripts read."""
        return self.layer_names

    @property
    def layer_dict(self) -> dict[str, Layer]:
        """The layers by name."""
        return dict(zip(self.layer_names, self.layers))

    def memory(self) -> Memory:
        """The memory of the net: data of blobs that own them, diffs of those that run backward, parameters."""
        return measure(self.graph, self.plan(fused=True).lease if self.lean else None)

    # -- running -----------------------------------------------------------------------------------------------------

    def reshape(self, first: int = 0) -> None:
        """Propagates shapes through the layers from number ``first`` on; ``forward`` does so by itself where a blob has
        been reshaped."""
        for layer, bottom, top in zip(self.layers[first:], self.bottoms[first:], self.tops[first:]):
            layer.reshape(bottom, top)
        if self._plans.note_shapes():
            self._ran.clear()

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: ArrayLike
    ) -> dict[str, np.ndarray]:
        """Runs the layers from ``start`` to ``end`` (names of layers, both included; None: the first / the last).

        inputs   arrays to put into input blobs first, by name; their shape must be the blob's
        blobs    names of further blobs to return beside the outputs
        returns  {name: data} of the net's outputs (of ``end``'s tops when given) and of ``blobs``
        """
        for name, array in inputs.items():
            self._set_input(name, array)
        self.keep("data", *(blobs or ()))
        first, last = self._index(start, 0), self._index(end, len(self.layers) - 1)
        if self.lean and first:
            raise self._lean_error(
                f'cannot run from layer "{start}" on: the data that it reads are no longer available'
            )
        self._fused = first == 0 and last == len(self.layers) - 1 and self.on_debug is None
        plan = self.plan(self._fused)
        self._ready = False
        if not self.run_taped(plan):
            with plan.running(last):
                self.loss = self._forward(plan, first, last)
        self._ready = last == len(self.layers) - 1
        result = dict(zip(self.outputs, map(self._blob, self.outputs)))
        if end is not None:
            result = dict(zip(self.top_names[last], self.tops[last]))
        result |= {name: self._blob(name, last) for name in blobs or ()}
        return {name: blob.data for name, blob in result.items()}

    def _forward(self, plan: Plan, first: int, last: int) -> float:
        """Runs the steps; returns the loss."""
        loss, ran = 0.0, []
        if not plan.fused:
            for step in self._ran:
                step.stand_alone()
        for i in range(first, last + 1):
            step = plan.steps[i]
            if self.on_step is not None:
                self.on_step(i, True)
            step.forward()
            ran.append(step)
            if self.layers[i].DYNAMIC and self._plans.shapes_differ():
                self.reshape(i + 1)
                plan = self.plan(plan.fused)
            for top, weight in self._weighted[i]:
                loss += weight * top_value(top)
            if self.on_debug is not None:
                tell_forward(self.graph, i, self.on_debug)
        self._ran = self._ran or list(plan.steps)
        self._ran[first : last + 1] = ran
        return loss

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """Forward for any number of images: in batches of the net's own size, the last one filled up with zeros.

        inputs   arrays for all inputs of the net, the same number of images in each
        returns  {name: array over all images} of the outputs and of ``blobs``
        """
        if set(inputs) != set(self.inputs):
            raise UsageError(
                f"forward_all needs all inputs: {', '.join(self.inputs)}; given: {', '.join(inputs) or 'none'}"
            )
        count, batch = len(next(iter(inputs.values()))), self.blobs[self.inputs[0]].shape[0]
        results: dict[str, list[np.ndarray]] = {}
        for first in range(0, count, batch):
            part: dict[str, Any] = {}
            for name, array in inputs.items():
                part[name] = np.zeros(self.blobs[name].shape, self.dtype)
                images = np.asarray(array[first : first + batch])
                part[name][: len(images)] = images
            for name, values in self.forward(blobs, **part).items():
                results.setdefault(name, []).append(values[: min(batch, count - first)].copy())
        return {name: np.concatenate(parts) for name, parts in results.items()}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **outputs: ArrayLike
    ) -> dict[str, np.ndarray]:
        """Runs backward from layer ``start`` down to layer ``end`` (None: from the last to the first).

        outputs  diffs to put on blobs first, by name; losses get their loss weight by themselves
        diffs    names of further blobs whose diffs to return
        returns  {name: diff} of the inputs that have one, and of ``diffs``

        Parameter diffs accumulate: call ``clear_param_diffs`` between batches.
        """
        self.keep("diff", *outputs, *(diffs or ()))
        plan, steps = self._backward_steps(start)
        for name, array in outputs.items():
            self._blob(name).diff[...] = array
        last, first = self._index(start, len(self.layers) - 1), self._index(end, 0)
        if first > 0 or last < len(self.layers) - 1:
            for step in steps:
                step.stand_alone()
        with plan.running(2 * len(self.layers) - 1 - first):
            for i in range(last, first - 1, -1):
                if not self.layer_need_backward[i]:
                    continue
                for top, weight in self._weighted[i]:
                    top.diff[...] = weight
                if self.on_step is not None:
                    self.on_step(i, False)
                steps[i].backward()
                if self.on_debug is not None:
                    tell_backward(self.graph, i, self.on_debug)
        found = {name: self._blob(name) for name in (*self.inputs, *(diffs or ()))}
        return {name: blob.diff for name, blob in found.items() if name not in self.inputs or blob.has_diff}

    def _backward_steps(self, start: str | None) -> tuple[Plan, list[Step]]:
        """The plan whose memory the backward pass uses, and the steps to run."""
        plan = self.plan(fused=self._fused)
        if not self.lean:
            return plan, self._ran or plan.steps
        if not self.runs_backward:
            raise self._lean_error("keeps nothing for a backward pass in phase TEST")
        if start is not None:
            raise self._lean_error("runs backward from the last layer on")
        if not self._ready or not plan.holds_memory:
            raise self._lean_error("runs forward, as a whole, before each backward pass")
        self._ready = False
        return plan, plan.steps

    def _lean_error(self, message: str) -> UsageError:
        return UsageError(f"a net made with lean=True {message}", hint="lean=False keeps everything")

    def forward_backward(self) -> float:
        """One forward and one backward pass; returns the loss."""
        self.forward()
        self.backward()
        return self.loss

    def clear_param_diffs(self) -> None:
        for param in self.learnable:
            if param.lr_mult or param.blob.has_diff:
                clear(param.blob.diff)

    def plan(self, fused: bool) -> Plan:
        """The plan for the current shapes of the blobs; the plans for the last few shapes are kept."""
        if self._plans.is_outdated():
            self.reshape()
        return self._plans.plan(fused)

    def new_plan(self, fused: bool) -> Plan:
        """Makes a separate plan for the current shapes of the blobs."""
        return self._plans.new_plan(fused)

    def run_taped(self, plan: Plan) -> bool:
        """Runs all layers forward as tapes (``sslnet.net.taping``) if that is possible now; returns whether it has."""
        taped = self.taping.pass_of(plan) if self.on_step is None else None
        if taped is not None:
            self.loss, self._ran = taped.run(), list(plan.steps)
        return taped is not None

    def keep(self, which: str, *names: str) -> None:
        """Makes the "data" or "diff" of these blobs of a lean net readable after its runs from now on; in other nets they
        always are."""
        for name in names:
            self._plans.keep(self._blob(name).owner(which), which)

    def _set_input(self, name: str, array: ArrayLike) -> None:
        if name not in self.inputs:
            raise UsageError(
                f'the net has no input "{name}"',
                hint=suggestion(name, self.inputs) or f"inputs: {', '.join(self.inputs)}",
            )
        blob = next(tops[names.index(name)] for names, tops in zip(self.top_names, self.tops) if name in names)
        array = np.asarray(array)
        if array.shape != blob.shape:
            raise UsageError(
                f'input "{name}" has shape {blob.shape}, the array {array.shape}',
                hint=f'reshape first: net.blobs["{name}"].reshape{array.shape}; net.reshape()',
            )
        blob.data[...] = array

    def _blob(self, name: str, last: int | None = None) -> Blob:
        """The version of the blob of this name after layer number ``last``; the newest if it is made later."""
        if name not in self.blobs:
            raise UsageError(f'the net has no blob "{name}"', hint=suggestion(name, self.blobs))
        for names, tops in zip(self.top_names[last::-1] if last is not None else (), self.tops[last::-1]):
            if name in names:
                return tops[names.index(name)]
        return self.blobs[name]

    def _index(self, layer: str | None, default: int) -> int:
        if layer is None:
            return default
        if layer not in self.layer_names:
            raise UsageError(f'the net has no layer "{layer}"', hint=suggestion(layer, self.layer_names))
        return self.layer_names.index(layer)

    # -- parameters in and out -----------------------------------------------------------------------------------------

    def share_with(self, other: Net) -> None:
        """Uses the other net's parameters (data, not diffs) in the layers of the same name from now on."""
        share_params(self.params, other.params, self.definition.path)

    def copy_from(self, source: weights.WeightSource) -> weights.Copied:
        """Copies parameters from a .caffemodel (binary or HDF5) or a NetParameter by layer name; says what matched."""
        return weights.copy_weights(self.params, source)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        write_diff: bool = False,
        hdf5: bool | None = None,
        follow: bool = True,
    ) -> None:
        """Writes a .caffemodel, whole or not at all.

        hdf5    None: by the name, HDF5 when it ends in .h5
        follow  where the path is a symbolic link, replace the file that it points to, not the link
        """
        message = self.param_proto()
        weights.save_weights(message, self.layers, path, write_diff=write_diff, hdf5=hdf5, follow=follow)

    def to_proto(self, write_diff: bool = False) -> pb.NetParameter:
        """The net as run, with its parameters."""
        return weights.with_blobs(self.param_proto(), self.layers, write_diff)

    def param_proto(self) -> pb.NetParameter:
        """The net as run, without parameters: the layers of this phase with inputs and Split layers made explicit."""
        result = pb.NetParameter(name=self.name, state=pb.NetState(phase=pb.Phase.Name(self.phase)))
        result.layer.extend(layer.param for layer in self.layers)
        return result

    def reseed(self, seed: int) -> None:
        """Restarts all random streams from another seed; parameters are unchanged."""
        self.seed = seed
        for layer, top in zip(self.layers, self.tops):
            layer.reseed(seed, top)

    def check_outputs(self) -> None:
        """Raises DefinitionError if a layer of the net cannot write the file that it names."""
        for layer in self.layers:
            layer.check_outputs()

    def layer_states(self) -> dict[str, bytes]:
        """The states of layers beside their blobs (data positions, random draws), by layer name: see ``set_layer_states``."""
        states = {layer.name: layer.state() for layer in self.layers}
        return {name: state for name, state in states.items() if state}

    def set_layer_states(self, states: dict[str, bytes]) -> None:
        """Restores the states from ``layer_states``; resets layers without a saved state."""
        for layer in self.layers:
            layer.set_state(states.get(layer.name, b""))


def _seed(seed: int | None) -> int:
    return secrets.randbits(63) if seed is None or seed < 0 else int(seed)
