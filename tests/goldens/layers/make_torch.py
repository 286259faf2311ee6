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
