"""What the estimates of cycles in conv_choice and winograd_choice assume of the machine."""

LATENCY = 4.5
"""Cycles from one multiply-add to the next on the same register, and what is lost where nothing else fills them."""
CALL = 15
"""Cycles to enter and leave a tile."""
FIRST_CACHE, SECOND_CACHE = 32 * 1024, 1024 * 1024
"""Bytes; what is gone over again and again and takes more comes from the next level."""
SECOND_BYTES, FAR_BYTES = 40, 8
"""Bytes a cycle from the second level, and from beyond it."""
PACKED_BYTES = 2.5
"""Bytes of weights packed in a cycle, to beyond the second level."""


def weights_cost(weights: int, times: int, batch: int) -> float:
    """Cycles for each image that weights of so many bytes cost more than in the cache: packed, and brought in so often.

    A single image is not trained on: its weights are packed once.
    """
    if weights <= SECOND_CACHE:
        return weights / PACKED_BYTES / 4 / batch if batch > 1 else 0
    return times * weights / FAR_BYTES / batch + (weights / PACKED_BYTES / batch if batch > 1 else 0)
