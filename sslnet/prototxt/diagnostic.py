"""Findings about a definition: errors, warnings and notes."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.errors import DefinitionError, Span


@dataclass(frozen=True)
class Diagnostic:
    """One finding, with its place in the file.

    level   "error": training would not do what is asked for; "warning": it may be meant; "note": good to know
    """

    level: str
    message: str
    span: Span | None = None
    path: str | None = None
    layer: str | None = None
    hint: str = ""

    @property
    def error(self) -> DefinitionError:
        """The finding as an error, to raise or to collect."""
        return DefinitionError(self.message, span=self.span, path=self.path, layer=self.layer, hint=self.hint)

    def __str__(self) -> str:
        place, word, rest = str(self.error).partition("error: ")
        return place + word.replace("error", self.level) + rest
