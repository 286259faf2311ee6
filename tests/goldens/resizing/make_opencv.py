"""Writes opencv.npz: images resized by OpenCV 4.10.0 in each of its ways, as bytes and as float32.

Run it where OpenCV is: python tests/goldens/resizing/make_opencv.py.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZES = [(9, 13, 5, 7), (9, 13, 18, 26), (9, 13, 20, 9), (10, 12, 5, 6), (7, 8, 13, 31), (16, 16, 3, 5)]
MODES = {1: cv2.INTER_LINEAR, 2: cv2.INTER_AREA, 3: cv2.INTER_NEAREST, 4: cv2.INTER_CUBIC, 5: cv2.INTER_LANCZOS4}
"""interp_mode -> OpenCV's number."""
BORDERS = {1: cv2.BORDER_CONSTANT, 2: cv2.BORDER_REFLECT101, 3: cv2.BORDER_REPLICATE}


def main() -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for index, (height, width, rows, columns) in enumerate(SIZES):
        image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        arrays[f"image/{index}"] = image.transpose(2, 0, 1)
        for mode, number in MODES.items():
            for name, values in (("bytes", image), ("float", image.astype(np.float32))):
                result = cv2.resize(values, (columns, rows), interpolation=number)
                arrays[f"{name}/{index}/{mode}"] = result.transpose(2, 0, 1)
    image = random.integers(0, 256, (12, 20, 3)).astype(np.uint8)
    arrays["wide"] = image.transpose(2, 0, 1)
    small = cv2.resize(image, (10, 6))
    for mode, border in BORDERS.items():
        padded = cv2.copyMakeBorder(small, 2, 2, 0, 0, border, value=(7, 8, 9))
        arrays[f"padded/{mode}"] = padded.transpose(2, 0, 1)
    arrays["covered"] = cv2.resize(image, (16, 10)).transpose(2, 0, 1)
    np.savez_compressed(Path(__file__).parent / "opencv.npz", **arrays)


if __name__ == "__main__":
    main()
