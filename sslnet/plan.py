"""The plan: the flat list of steps that a net runs, compiled from its graph.

A step runs one layer on its blobs. The default step calls the layer's own, plain code; ``FAST`` names the layer types
for which there is a faster way that gives the same values, and the passes below join steps. All of that is decided
here, in one place; layers know nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslnet.blob import Blob
from sslnet.kernels.conv import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.layers.relu import ReLU

if TYPE_CHECKING:
    from sslnet.net import Net


class Step:
    """One layer's turn: the layer's own code on its blobs."""

    def __init__(self, layer: Layer, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        self.layer = layer
        self.bottom = bottom
        self.top = top
        self.propagate_down = propagate_down

    def forward(self) -> None:
        self.layer.forward(self.bottom, self.top)

    def backward(self) -> None:
        self.layer.backward(self.top, self.propagate_down, self.bottom)

    @property
    def kernel(self) -> str:
        """The way this step runs, for reports."""
        return "plain"


class ConvolutionStep(Step):
    """A 2-D convolution through the planned kernels; a ReLU behind it, in place, may run with it."""

    layer: Convolution

    def __init__(self, layer: Convolution, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        w = layer.window
        numbers = (*bottom[0].shape, layer.num_output, *w.kernel, *w.stride, *w.pad, *w.dilation, layer.group)
        self.geometry = ConvGeometry(*numbers)
        self.relu = False
        self._forward: Any = None
        self._input_grad: Any = None
        self._weight_grad: Any = None

    @staticmethod
    def takes(layer: Convolution) -> bool:
        """Two spatial axes behind one batch axis."""
        return layer.num_spatial == 2 and layer.axis == 1

    def join_relu(self) -> None:
        """Applies max(0, .) to the output from now on."""
        self.relu = True

    def forward(self) -> None:
        if self._forward is None:
            self._forward = plan_forward(self.geometry, relu=self.relu)
        blobs = self.layer.blobs
        self._forward.pack(blobs[0].data, blobs[1].data if len(blobs) > 1 else None)
        for source, target in zip(self.bottom, self.top):
            self._forward.run(source.data, target.data)

    def backward(self) -> None:
        blobs, wanted = self.layer.blobs, self.layer.param_propagate_down
        has_bias = len(blobs) > 1 and wanted[1]
        if has_bias and not wanted[0]:
            super().backward()
            return
        if wanted[0]:
            if self._weight_grad is None:
                self._weight_grad = plan_weight_grad(self.geometry)
            for source, target in zip(self.bottom, self.top):
                self._weight_grad.run(source.data, target.diff, blobs[0].diff, blobs[1].diff if has_bias else None)
        if any(self.propagate_down):
            if self._input_grad is None:
                self._input_grad = plan_input_grad(self.geometry)
            self._input_grad.pack(blobs[0].data)
            for source, target, down in zip(self.bottom, self.top, self.propagate_down):
                if down:
                    self._input_grad.run(target.diff, source.diff)

    @property
    def kernel(self) -> str:
        name = getattr(self._forward, "kernel", "conv") if self._forward is not None else "conv"
        return f"{name}+relu" if self.relu else name


class EmptyStep(Step):
    """A layer whose blobs hold no value (a Filter let no image through): nothing to compute, and no gradient."""

    def forward(self) -> None:
        pass

    def backward(self) -> None:
        pass

    @staticmethod
    def takes(layer: Layer, bottom: list[Blob], top: list[Blob]) -> bool:
        return bool(bottom and top) and not (layer.DYNAMIC or any(blob.count for blob in (*bottom, *top)))


class JoinedStep(Step):
    """A layer whose forward pass the step before it has taken over."""

    def forward(self) -> None:
        pass

    @property
    def kernel(self) -> str:
        return "joined"


FAST: dict[str, type[Any]] = {
    "Convolution": ConvolutionStep,
    "ConvolutionDepthwise": ConvolutionStep,
    "DepthwiseConvolution": ConvolutionStep,
}
"""Layer type -> the faster step; its ``takes(layer)`` says whether it can run this layer."""


class Plan:
    """The steps of a net, one a layer, in order.

    fused   let a step take over what the next layer does (only when the whole net runs)

    Made for the shapes that the blobs have now; other shapes need another plan.
    """

    def __init__(self, net: Net, *, fused: bool) -> None:
        self.steps: list[Step] = []
        for i, layer in enumerate(net.layers):
            fast = None if net.plain else FAST.get(layer.TYPE)
            step: type[Any] = fast if fast is not None and fast.takes(layer) else Step
            if EmptyStep.takes(layer, net.bottoms[i], net.tops[i]):
                step = EmptyStep
            self.steps.append(step(layer, net.bottoms[i], net.tops[i], net.bottom_need_backward[i]))
        if fused:
            self._join_relu()

    def _join_relu(self) -> None:
        """A ReLU in place right behind a convolution runs as part of it."""
        for i, (step, after) in enumerate(zip(self.steps, self.steps[1:])):
            if (
                isinstance(step, ConvolutionStep)
                and isinstance(after.layer, ReLU)
                and len(step.top) == 1
                and after.bottom[0] is step.top[0]
                and after.top[0] is step.top[0]
                and after.layer.slope == 0
            ):
                step.join_relu()
                self.steps[i + 1] = JoinedStep(after.layer, after.bottom, after.top, after.propagate_down)
