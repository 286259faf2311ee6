"""Changes of the colours of images: saturation and hue. Values are numbers of any range; nothing is clipped."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.jit import kernel

RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Weights of the colours in the grey of a pixel (ITU-R BT.601)."""


@kernel
def change_colors(out: np.ndarray, red: int, saturation: np.ndarray, hue: np.ndarray) -> None:
    """Changes the saturation and then the hue of images.  [overwrites out]

    out         (n, 3, H, W)
    red         channel of red: 0, or 2
    saturation  (n) factors f: g + (x - g) f, with g the grey of the pixel; 1: unchanged
    hue         (n) parts of the circle of hues, from -0.5 to 0.5, that the hue moves on by; 0: unchanged

    The hue moves at constant largest and smallest value of the pixel, as in the HSV and the HSL model.
    """
    kind = out.dtype.type
    count, _, height, width = out.shape
    for i in range(count):
        r, g, b = out[i, red], out[i, 1], out[i, 2 - red]
        if saturation[i] != 1:
            for y in range(height):
                for x in range(width):
                    grey = RED * r[y, x] + GREEN * g[y, x] + BLUE * b[y, x]
                    r[y, x] = kind(grey + (r[y, x] - grey) * saturation[i])
                    g[y, x] = kind(grey + (g[y, x] - grey) * saturation[i])
                    b[y, x] = kind(grey + (b[y, x] - grey) * saturation[i])
        if hue[i] != 0:
            for y in range(height):
                for x in range(width):
                    _turn_hue(r, g, b, y, x, hue[i])


@kernel
def _turn_hue(r: np.ndarray, g: np.ndarray, b: np.ndarray, y: int, x: int, turn: float) -> None:
    """Moves the hue of one pixel on by a part of the circle."""
    kind = r.dtype.type
    red, green, blue = float(r[y, x]), float(g[y, x]), float(b[y, x])
    high, low = max(red, green, blue), min(red, green, blue)
    chroma = high - low
    if chroma <= 0:
        return
    if high == red:
        place = (green - blue) / chroma
    elif high == green:
        place = 2 + (blue - red) / chroma
    else:
        place = 4 + (red - green) / chroma
    place = (place + 6 * turn) % 6.0
    # each colour is 1 within one sixth of the circle from its own place (0, 2, 4), and 0 beyond two sixths
    r[y, x] = kind(low + chroma * min(1.0, max(0.0, abs(place - 3) - 1)))
    g[y, x] = kind(low + chroma * min(1.0, max(0.0, 2 - abs(place - 2))))
    b[y, x] = kind(low + chroma * min(1.0, max(0.0, 2 - abs(place - 4))))


@kernel
def turn_hues(image: np.ndarray, red: int, turn: float) -> None:
    """Moves the hue of all pixels of an image (3, H, W) on by a part of the circle.  [overwrites image]

    red  channel of red: 0, or 2
    """
    r, g, b = image[red], image[1], image[2 - red]
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            _turn_hue(r, g, b, y, x, turn)
