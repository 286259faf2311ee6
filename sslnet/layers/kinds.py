"""The kinds of layers: the groups of lists of layers, and the colours of drawings."""

from __future__ import annotations

KINDS = {
    "source": "Data from outside",
    "convolution": "Convolutions",
    "connected": "Fully connected and recurrent layers",
    "pooling": "Pooling and resizing",
    "norm": "Normalisation, scales and biases",
    "activation": "Activations: value by value",
    "join": "Joining, cutting and rearranging",
    "result": "Results and measures",
    "loss": "Losses",
    "other": "Other layers",
}
"""Kind of layer -> its heading in lists of layers. Each kind has a colour in drawings."""
