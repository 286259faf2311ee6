"""A definition: a message with the place of each field in its file."""

from __future__ import annotations

from typing import Any

from sslnet.errors import DefinitionError, Span
from sslnet.prototxt.diagnostic import Diagnostic
from sslnet.prototxt.scan import TextNode
from sslnet.prototxt.source import SourceText

Path = tuple[str | int, ...]


class Definition:
    """A message with its origin.

    message   the pb2 message
    source    its text; None for a message that was made, not read
    """

    def __init__(self, message: Any, source: SourceText | None = None, root: TextNode | None = None) -> None:
        self.message = message
        self.source = source
        self.root = root
        self.overrides: dict[Path, str] = {}
        """Fields that the command line set, and the words with which it did."""
        self.notes: list[Diagnostic] = []
        """What there is to say about how it was read: see sslnet.prototxt.upgrade."""
        self.problems: list[DefinitionError] = []
        """What is wrong with its text and was not raised: fields that no message has."""
        self.changes: list[str] = []
        """What was old about it, in words: "9 layers of 2014"."""
        self.renamed: dict[str, str] = {}
        """The names that were changed because another layer has them: new name -> name in the file."""

    @property
    def path(self) -> str | None:
        """The file, or None when there is none."""
        return self.source.path if self.source else None

    @property
    def text(self) -> str:
        """The text of the file, or an empty one."""
        return self.source.text if self.source else ""

    def span(self, *path: str | int, value: bool = False) -> Span | None:
        """The place of a field: of its name, or with value=True of its value.

        path   field names from the outside in, each with its index where it is repeated (0 may be left out):
               span("layer", 3, "convolution_param", "num_output")

        A field that is not written has the place of the nearest block that would hold it; None when there is none.
        """
        if self.source is None or self.root is None:
            return None
        node, exact = self._find(path)
        if node is self.root and self.root.end == 0:  # the root of a file has no name
            return None
        if value and exact:
            return self.source.span(node.value_start, node.value_end)
        return self.source.span(node.start, node.end)

    def part(self, *path: str | int) -> Definition:
        """The definition inside this one: of a solver, part("net_param")."""
        message = self.message
        for step in path:
            message = message[step] if isinstance(step, int) else getattr(message, step)
        node, exact = self._find(path) if self.root else (None, False)
        return Definition(message, self.source if exact else None, node if exact else None)

    def with_message(self, message: Any) -> Definition:
        """A definition of another message with the same origin: its notes and the places of its fields are this one's."""
        result = Definition(message, self.source, self.root)
        result.overrides = dict(self.overrides)
        result.notes, result.changes = list(self.notes), list(self.changes)
        result.problems, result.renamed = list(self.problems), dict(self.renamed)
        return result

    def _find(self, path: Path) -> tuple[TextNode, bool]:
        """The node at a path, or the nearest above it; and whether it is the one asked for."""
        assert self.root is not None
        node, at = self.root, 0
        while at < len(path):
            name = path[at]
            following = path[at + 1] if at + 1 < len(path) else None
            index = following if isinstance(following, int) else 0
            at += 2 if isinstance(following, int) else 1
            nodes = (node.children or {}).get(str(name), [])
            if not 0 <= index < len(nodes):
                return node, False
            node = nodes[index]
        return node, True
