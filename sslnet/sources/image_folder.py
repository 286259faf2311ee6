"""Image files in a folder per class, or in a table of path,label: their names, labels and class names."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, Span, suggestion
from sslnet.files import MOST_LIST, MOST_TEXT, read_text
from sslnet.sources.images import ImageFiles
from sslnet.sources.split import TRAINING, VALIDATION, chosen_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif")
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test", "testing")
"""Names of folders that divide a data set, if all folders in it have such names; of several, the first one is taken."""
PATH_HEADINGS = ("path", "file", "filename", "file_name", "image", "image_path", "name")
LONGEST_FIELD = 1 << 16
"""Maximum number of characters of a field of a table."""


class ImageSet(NamedTuple):
    """The images of one part of a data set.

    root     folder that the names are relative to
    names    file names, with / between folders
    labels   (n) labels
    classes  class names in the order of the labels; empty if labels are numbers
    ignored  number of files that are no images by their names
    """

    root: str
    names: list[str]
    labels: list[int]
    classes: list[str]
    ignored: int = 0


class ImageSetSource(ImageFiles):
    """The images of an ImageSet; height, width, color as in ImageFiles."""

    def __init__(self, path: str, images: ImageSet, *, height: int = 0, width: int = 0, color: bool = True) -> None:
        self._names = images.names
        self.path, self._root = path, images.root
        super().__init__(np.array(images.labels, np.int32), height=height, width=width, color=color)

    def name(self, index: int) -> str:
        return os.path.join(self._root, self._names[index])


def find_images(path: str, split: pb.DataSplitParameter, part: int, class_file: str | None = None) -> ImageSet:
    """Finds the images of one part of a folder or a table.

    split       folders of the parts, or the share for validation
    part        pb.DataSplitParameter.TRAINING, VALIDATION or ALL
    class_file  text file with a class name a line, in the order of the labels; None: the sorted names
    raises      DataError for a folder without images, a class without images, a line of the table that is not of its form
    """
    listed = read_class_names(class_file) if class_file is not None else None
    if os.path.isdir(path):
        parts = _parts(path, split)
        if parts is None:
            images = _read_folder(path, [""], listed)
        else:
            wanted = parts[:1] if part == TRAINING else parts[1:] if part == VALIDATION else parts
            images = _read_folder(path, list(wanted), listed, parts[0])
    else:
        images = _read_table(path, listed)
    if not split.val_share:
        return images
    try:
        kept = chosen_names(images.names, images.labels, split.val_share, split.seed, part)
    except DataError as error:
        raise DataError(error.message, path=path) from error
    return images._replace(names=[images.names[i] for i in kept], labels=[images.labels[i] for i in kept])


def has_parts(path: str) -> bool:
    """Whether the folders in a folder have the names of parts, as train and val."""
    return os.path.isdir(path) and _parts(path, pb.DataSplitParameter()) is not None


def read_class_names(path: str) -> list[str]:
    """Reads class names, one a line. raises DataError for a file without names, or with one twice"""
    names = [line.strip() for line in read_text(path, limit=MOST_TEXT).splitlines() if line.strip()]
    if not names:
        raise DataError("there are no class names in it", path=path)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f'class "{twice}" is there twice', path=path)
    return names


def _parts(path: str, split: pb.DataSplitParameter) -> tuple[str, str] | None:
    """The folders of the training and the validation part, or None if the data set is not divided by folders."""
    if split.train or split.val:
        for name in (split.train, split.val):
            if not os.path.isdir(os.path.join(path, name)):
                raise DataError(f'there is no folder "{name}" in it', path=path, hint=suggestion(name, _folders(path)))
        return split.train, split.val
    found = {name.lower(): name for name in _folders(path)}
    if split.val_share or not found or not set(found) <= {*TRAIN_NAMES, *VAL_NAMES}:
        return None
    train, val = ([found[name] for name in names if name in found] for names in (TRAIN_NAMES, VAL_NAMES))
    return (train[0], val[0]) if train and val else None


def _folders(path: str) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _read_folder(path: str, parts: Sequence[str], listed: list[str] | None, naming: str = "") -> ImageSet:
    """The images of the parts of a folder; the classes are those of the part ``naming``."""
    classes = listed if listed is not None else _folders(os.path.join(path, naming))
    if not classes:
        hint = "the folder must have one folder of images per class, or a .csv file of path,label be given"
        raise DataError("there are no folders of classes in it", path=os.path.join(path, naming), hint=hint)
    labels = {name: label for label, name in enumerate(classes)}
    names: list[str] = []
    numbers: list[int] = []
    ignored = 0
    for part in parts:
        for name in _folders(os.path.join(path, part)):
            place = os.path.join(part, name)
            if name not in labels:
                where = "the file of classes" if listed is not None else f'"{naming}"'
                raise DataError(
                    f'"{place}" is a class that {where} does not have', path=path, hint=suggestion(name, classes)
                )
            found, others = _files(path, place)
            if not found and part == naming and listed is None:
                raise DataError(
                    f'there are no images in "{place}", which would be a class', path=path, hint="remove the folder"
                )
            names += found
            numbers += [labels[name]] * len(found)
            ignored += others
    if not names:
        raise DataError("there are no images in its folders", path=os.path.join(path, *parts[:1]))
    return ImageSet(path, names, numbers, list(classes), ignored)


def _files(root: str, folder: str) -> tuple[list[str], int]:
    """The image files in a folder and the folders in it, sorted, relative to root; and the number of other files."""
    found, ignored = [], 0

    def fail(error: OSError) -> None:
        raise DataError(f"cannot be read: {error.strerror or error}", path=error.filename)

    for place, folders, files in os.walk(os.path.join(root, folder), onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = os.path.relpath(place, root)
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(os.path.join(here, name))
            else:
                ignored += 1
    return found, ignored


def _read_table(path: str, listed: list[str] | None) -> ImageSet:
    """The images of a table of path,label. Labels are whole numbers, or class names; a first line of headings is skipped."""
    if not path.lower().endswith(".csv"):
        raise DataError("is neither a folder nor a .csv file", path=path)
    text = read_text(path, limit=MOST_LIST).removeprefix("\ufeff")
    names: list[str] = []
    words: list[str] = []
    lines: list[int] = []
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (not names and cells[0].lower() in PATH_HEADINGS):
                continue
            if len(cells) < 2 or not cells[0] or not cells[1] or max(map(len, cells)) > LONGEST_FIELD:
                span = Span(path, reader.line_num, 1, 1, ",".join(cells)[:200])
                raise DataError("a line must be a file name, a comma and a label", span=span)
            names.append(cells[0])
            words.append(cells[1])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is no line of a table: {error}", path=path) from error
    if not names:
        raise DataError("the table names no images", path=path)
    if listed is None and all(_is_number(word) for word in words):
        return ImageSet(os.path.dirname(path), names, [int(word) for word in words], [])
    classes = listed if listed is not None else sorted(set(words))
    labels = {name: label for label, name in enumerate(classes)}
    for word, line, name in zip(words, lines, names):
        if word not in labels:
            span = Span(path, line, 1, 1, f"{name},{word}")
            raise DataError(f'"{word}" is a class that the file of classes does not have', span=span)
    return ImageSet(os.path.dirname(path), names, [labels[word] for word in words], list(classes))


def _is_number(word: str) -> bool:
    try:
        return -(2**31) <= int(word) < 2**31
    except ValueError:
        return False
