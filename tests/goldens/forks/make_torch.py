"""Writes torch.npz: ctc_loss, the LSTM cell and grid_sample of PyTorch 2.13.0, in float64.

Run it where PyTorch is: python tests/goldens/forks/make_torch.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

LABELS = [[1, 1, 4, 2], [3], [], [2, 4, 2, 4]]
LENGTHS = [7, 5, 6, 7]


def main() -> None:
    random = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    scores = torch.tensor(random.standard_normal((7, 4, 5)), requires_grad=True)
    for name, lengths in (("full", [7] * 4), ("ended", LENGTHS)):
        targets = torch.tensor([k for row in LABELS for k in row])
        sizes = torch.tensor([len(row) for row in LABELS])
        losses = functional.ctc_loss(
            scores.log_softmax(2), targets, torch.tensor(lengths), sizes, blank=0, reduction="none"
        )
        (gradient,) = torch.autograd.grad(losses.sum(), scores)
        found |= {f"ctc/{name}/losses": losses.detach().numpy(), f"ctc/{name}/gradient": gradient.numpy()}
    found["ctc/scores"] = scores.detach().numpy()

    cell = torch.nn.LSTM(4, 3).double()
    x = torch.tensor(random.standard_normal((5, 2, 4)), requires_grad=True)
    y, (_, last) = cell(x)
    dy = torch.tensor(random.standard_normal(y.shape))
    y.backward(dy)
    order = np.r_[0:3, 3:6, 9:12, 6:9]  # torch: i, f, g, o
    weights = {
        "w": cell.weight_ih_l0[order],
        "h": cell.weight_hh_l0[order],
        "b": (cell.bias_ih_l0 + cell.bias_hh_l0)[order],
        "dw": cell.weight_ih_l0.grad[order],
        "dh": cell.weight_hh_l0.grad[order],
        "db": cell.bias_ih_l0.grad[order],
    }
    found |= {f"lstm/{key}": value.detach().numpy() for key, value in weights.items()}
    for key, value in (("x", x), ("y", y), ("dy", dy), ("dx", x.grad), ("last", last)):
        found[f"lstm/{key}"] = value.detach().numpy()

    image = torch.tensor(random.standard_normal((2, 3, 5, 6)), requires_grad=True)
    flow = torch.tensor(random.uniform(-1.4, 1.4, (2, 2, 5, 6)), requires_grad=True)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    at = torch.stack([columns + flow[:, 0], rows + flow[:, 1]], dim=1).double()
    inside = (at[:, 0] >= 0) & (at[:, 1] >= 0) & (at[:, 0] < 6) & (at[:, 1] < 5)
    grid = torch.stack([at[:, 0] / 5 * 2 - 1, at[:, 1] / 4 * 2 - 1], dim=3)
    warped = functional.grid_sample(image, grid, align_corners=True, padding_mode="border") * inside[:, None]
    dy = torch.tensor(random.standard_normal(warped.shape))
    warped.backward(dy)
    for key, value in (("x", image), ("flow", flow), ("y", warped), ("dy", dy), ("dx", image.grad), ("df", flow.grad)):
        found[f"warp/{key}"] = value.detach().numpy()
    np.savez_compressed(Path(__file__).parent / "torch.npz", **found)


if __name__ == "__main__":
    main()
