"""Writes the cases of the layers that Caffe does not have, with what PyTorch makes of them (2.13.0, CPU, in float64).

Run it where PyTorch is: python tests/goldens/layers/make_torch.py. Another version may give other last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

CASES: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "gelu": ("GELU", "", functional.gelu),
    "gelu_tanh": ("GELU", "gelu_param { approximate: TANH }", lambda x: functional.gelu(x, approximate="tanh")),
    "hard_sigmoid": ("HardSigmoid", "hard_sigmoid_param { alpha: 0.16666667 }", functional.hardsigmoid),
    "hard_swish": ("HardSwish", "", functional.hardswish),
    "mish": ("Mish", "", functional.mish),
    "selu": ("SELU", "", functional.selu),
    "silu": ("SiLU", "", functional.silu),
    "deconv_output_pad": (
        "Deconvolution",
        'convolution_param { num_output: 3 group: 3 kernel_size: 3 stride: 2 pad: 1 output_pad: 1 bias_term: false weight_filler { type: "constant" value: 0.5 } }',
        lambda x: functional.conv_transpose2d(
            x, torch.full((3, 1, 3, 3), 0.5, dtype=x.dtype), stride=2, padding=1, output_padding=1, groups=3
        ),
    ),
    "group_norm": ("GroupNorm", "group_norm_param { group: 1 }", lambda x: functional.group_norm(x, 1)),
    "instance_norm": ("GroupNorm", "group_norm_param { eps: 0.01 }", lambda x: functional.instance_norm(x, eps=0.01)),
    "layer_norm": ("LayerNorm", "", lambda x: functional.layer_norm(x, x.shape[-1:])),
    "layer_norm_channels": (
        "LayerNorm",
        "layer_norm_param { axis: 1 num_axes: 1 }",
        lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    ),
    "pad_reflect": (
        "Pad",
        "pad_param { top: 1 bottom: 3 left: 2 right: -1 mode: REFLECT }",
        lambda x: functional.pad(x, (2, 0, 1, 3), mode="reflect")[..., :-1],
    ),
    "resize_bilinear": (
        "Resize",
        "resize_param { height: 7 width: 3 }",
        lambda x: functional.interpolate(x, size=(7, 3), mode="bilinear", align_corners=False),
    ),
    "resize_bicubic": (
        "Resize",
        "resize_param { height: 7 width: 3 mode: CUBIC transform: ALIGN_CORNERS }",
        lambda x: functional.interpolate(x, size=(7, 3), mode="bicubic", align_corners=True),
    ),
    "resize_smooth": (
        "Resize",
        "resize_param { height: 2 width: 3 antialias: true exclude_outside: true }",
        lambda x: functional.interpolate(x, size=(2, 3), mode="bilinear", antialias=True),
    ),
}
"""File name -> layer type, its parameters, the function. What is far from 0 is in tests/layers/test_beyond_caffe.py."""
INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }'


def main() -> None:
    folder = Path(__file__).parent
    for number, (name, (type_, param, function)) in enumerate(CASES.items()):
        random = np.random.default_rng(number)
        values = 1.5 * random.standard_normal((2, 3, 4, 5))
        values.flat[:6] = [0, -0.01, 0.01, -4, 4, -6]
        x = torch.tensor(values.astype(np.float32).astype(np.float64), requires_grad=True)
        y = function(x)
        dy = torch.tensor(random.standard_normal(y.shape).astype(np.float32).astype(np.float64))
        y.backward(dy)
        arrays = {"input/x": x, "blob/y": y, "top_diff/y": dy, "bottom_diff/x": x.grad}
        found = {key: value.detach().numpy().astype(np.float32) for key, value in arrays.items()}
        np.savez_compressed(folder / f"{name}.npz", outputs=np.array(["y"]), **found)
        layer = f'layer {{ name: "l" type: "{type_}" bottom: "x" top: "y" {param} }}'
        (folder / f"{name}.prototxt").write_text(f'name: "{name}"\nforce_backward: true\n{INPUT}\n{layer}\n')


if __name__ == "__main__":
    main()
