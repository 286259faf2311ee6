"""Divides a data set into a part for training and a part for validation, the same in every run.

Which images are for validation depends on a seed and on the images' names alone, so a layer of phase TRAIN and one of phase
TEST that name the same data and the same share never read the same image.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.sources.order import generator

TRAINING, VALIDATION = pb.DataSplitParameter.TRAINING, pb.DataSplitParameter.VALIDATION


def part_of(split: pb.DataSplitParameter, phase: int) -> int:
    """The part that a layer of this phase reads: TRAINING, VALIDATION or ALL."""
    if split.part == pb.DataSplitParameter.BY_PHASE:
        return TRAINING if phase == pb.TRAIN else VALIDATION
    return int(split.part)


def chosen_rows(count: int, share: float, seed: int, part: int) -> np.ndarray:
    """Row numbers of a part of an array, ascending: (n) int64; of ``count`` rows, round(count * share) are for validation.

    raises DataError if the part has no row
    """
    order = generator(seed, "", "split", 0).permutation(count)
    held = round(count * share)
    rows = np.sort(order[:held] if part == VALIDATION else order[held:] if part == TRAINING else order)
    if not len(rows):
        raise DataError(f"val_share {share:g} of {count} images leaves none for this part")
    return rows


def chosen_names(names: Sequence[str], labels: Sequence[int], share: float, seed: int, part: int) -> list[int]:
    """Places of the images of a part, ascending; of the n images of each class, round(n * share) are for validation.

    names   a name for each image; the order of the digests of seed and name decides, so a name keeps its part as long as
            few others are added
    raises  DataError if the part has no image
    """
    if part == pb.DataSplitParameter.ALL:
        return list(range(len(names)))
    classes: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for place, (name, label) in enumerate(zip(names, labels)):
        digest = hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()
        classes[label].append((digest, place))
    chosen: list[int] = []
    for members in classes.values():
        members.sort()
        held = round(len(members) * share)
        chosen += [place for _, place in (members[:held] if part == VALIDATION else members[held:])]
    if not chosen:
        raise DataError(f"val_share {share:g} of {len(names)} images leaves none for this part")
    return sorted(chosen)
