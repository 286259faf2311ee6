"""The figures of the paper, by table and row; layers in the order of the net.

error             percent of the test images
filters, columns, channels   remaining parts of each layer; a column is one weight position of all filters ("filter size")
flops             percent of the multiply-adds that remain
rows_zero, columns_zero      percent of the rows and columns of the weight matrix that are zero
neurons           of each layer, the image's pixels first
speedup           relative to the dense layer (CPU)

Ref: Wen et al. 2016, tables 1 to 4, figure 4 (a)
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """One row: its name in the paper, and figures layer by layer."""

    name: str
    error: float
    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedTable:
    title: str
    layers: tuple[str, ...]
    """Layers of the figures."""
    rows: tuple[Published, ...]


TABLES = {
    "table1": PublishedTable(
        "Table 1: LeNet on MNIST, filters and channels penalised",
        ("conv1", "conv2"),
        (
            Published(
                "LeNet 1 (baseline)",
                0.9,
                {"filters": (20, 50), "channels": (1, 20), "flops": (100, 100), "speedup": (1, 1)},
            ),
            Published(
                "LeNet 2",
                0.8,
                {"filters": (5, 19), "channels": (1, 4), "flops": (25, 7.6), "speedup": (1.64, 5.23)},
            ),
            Published(
                "LeNet 3",
                1.0,
                {"filters": (3, 12), "channels": (1, 3), "flops": (15, 3.6), "speedup": (1.99, 7.44)},
            ),
        ),
    ),
    "table2": PublishedTable(
        "Table 2: LeNet on MNIST, filter shapes penalised",
        ("conv1", "conv2"),
        (
            Published(
                "LeNet 1 (baseline)",
                0.9,
                {"columns": (25, 500), "channels": (1, 20), "flops": (100, 100), "speedup": (1, 1)},
            ),
            Published(
                "LeNet 4",
                0.8,
                {"columns": (21, 41), "channels": (1, 2), "flops": (8.4, 8.2), "speedup": (2.33, 6.93)},
            ),
            Published(
                "LeNet 5",
                1.0,
                {"columns": (7, 14), "channels": (1, 1), "flops": (1.4, 2.8), "speedup": (5.19, 10.82)},
            ),
        ),
    ),
    "table3": PublishedTable(
        "Table 3: ConvNet on CIFAR-10, rows and columns penalised",
        ("conv1", "conv2", "conv3"),
        (
            Published(
                "ConvNet 1 (baseline)",
                17.9,
                {"rows_zero": (12.5, 0, 0), "columns_zero": (0, 0, 0), "speedup": (1, 1, 1)},
            ),
            Published(
                "ConvNet 2",
                17.9,
                {"rows_zero": (50.0, 28.1, 1.6), "columns_zero": (0, 59.3, 35.1), "speedup": (1.43, 3.05, 1.57)},
            ),
            Published(
                "ConvNet 3",
                16.9,
                {"rows_zero": (31.3, 0, 1.6), "columns_zero": (0, 42.8, 9.8), "speedup": (1.25, 2.01, 1.18)},
            ),
        ),
    ),
    "figure4": PublishedTable(
        "Figure 4 (a): multilayer perceptron on MNIST, neurons and pixels penalised",
        ("ip1", "ip2", "ip3"),
        (
            Published("MLP 1 (baseline)", 1.43, {"neurons": (784, 500, 300, 10), "flops": (100, 100, 100)}),
            Published("MLP 2", 1.34, {"neurons": (469, 294, 166, 10), "flops": (35.18, 32.54, 55.33)}),
            Published("MLP 3", 1.53, {"neurons": (434, 174, 78, 10), "flops": (19.26, 9.05, 26.00)}),
        ),
    ),
}


@dataclass(frozen=True)
class AlexNetLayer:
    """Percent of single weights that are zero by l1, and of columns and rows by SSL; speedup over the dense layer."""

    weights: float
    weights_speedup: float
    columns: float
    rows: float
    speedup: float


ALEXNET = {
    "strong": {
        "conv1": AlexNetLayer(67.6, 0.80, 0.0, 9.4, 1.05),
        "conv2": AlexNetLayer(92.4, 2.91, 63.2, 12.9, 3.37),
        "conv3": AlexNetLayer(97.2, 4.84, 76.9, 40.6, 6.27),
        "conv4": AlexNetLayer(96.6, 3.83, 84.7, 46.9, 9.73),
        "conv5": AlexNetLayer(94.3, 2.76, 80.7, 0.0, 4.93),
    },
    "weak": {
        "conv1": AlexNetLayer(14.7, 0.34, 0.0, 0.0, 1.00),
        "conv2": AlexNetLayer(76.2, 0.99, 20.9, 0.0, 1.27),
        "conv3": AlexNetLayer(85.3, 1.30, 39.7, 0.0, 1.64),
        "conv4": AlexNetLayer(81.5, 1.10, 39.7, 0.0, 1.68),
        "conv5": AlexNetLayer(76.3, 0.93, 24.6, 0.0, 1.32),
    },
}
"""Table 4, CPU: the pair of nets with the larger loss of accuracy, and the pair without one."""
