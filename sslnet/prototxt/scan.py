"""Finds the positions of all fields in a prototxt, and what is wrong with it.

text_format parses the values; it keeps no positions, and its errors name neither the layer nor what was meant. This
scanner walks the same grammar along the same schema and leaves a tree of Nodes. The schema nests finitely, so the
recursion is bounded whatever the text holds.

An unknown field, a wrong value and a field given twice are collected, and the scan goes on behind them; at a syntax error,
which may make nonsense of all that follows, it ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sslnet.errors import DefinitionError, suggestion
from sslnet.prototxt import fork_fields
from sslnet.prototxt.source import BAD_BYTE, SourceText
from sslnet.prototxt.values import ValueProblem, is_repeated, must_be, parse_value, quoted, shorten

_SKIP = re.compile(r"(?:\s++|#[^\n]*+)*+")  # possessive: nothing to go back for, so nothing is kept for it
_TOKEN = re.compile(
    r"""[A-Za-z_][\w+-]*            # a name
      | (?:[0-9+-]|\.[0-9])[\w.+-]* # a number
      | "(?:[^"\\\n]++|\\.)*+"      # text in quotes
      | '(?:[^'\\\n]++|\\.)*+'
      | .                           # anything else, one character
    """,
    re.VERBOSE | re.ASCII,
)
_CLOSING = {"{": "}", "<": ">"}
_OPENING = ("{", "<", "[")
_LAYERS = ("LayerParameter", "V1LayerParameter", "V0LayerParameter")


class TextNode:
    """The place of a field: its name and its value as offsets into the text, and the fields inside it."""

    __slots__ = ("children", "end", "start", "value_end", "value_start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.value_start = start
        self.value_end = end
        self.children: dict[str, list[TextNode]] | None = None


class UnknownField(DefinitionError):
    """A field that its message does not have.

    layer_type  where it is a field of a `layer { }` of a net itself, as the parameter blocks of types that are not known:
                the type of that layer; else None
    """

    layer_type: str | None = None


@dataclass
class Scan:
    """What a scan found.

    root      the tree of positions
    problems  what is wrong, in the order of the text
    skipped   (start, end) of each field that is to be read past
    ignored   names of the fields of forks that say nothing of the numbers, in the order of the text
    unknown   names of fields that were skipped because the caller asked for it, likewise
    renamed   places of `layers` that are to be read as `layer`, for their types are in quotes
    """

    root: TextNode
    problems: list[DefinitionError] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    renamed: list[tuple[int, int]] = field(default_factory=list)

    def cleared(self, text: str) -> str:
        """The text with spaces in place of what is skipped; all other characters keep their places."""
        pieces, at = [], 0
        for start, end in sorted([*self.skipped, *((end - 1, end) for _, end in self.renamed)]):
            pieces += [text[at:start], "".join(c if c == "\n" else " " for c in text[start:end])]
            at = end
        return "".join([*pieces, text[at:]])


def scan(source: SourceText, descriptor: Descriptor, *, skip_unknown: bool = False) -> Scan:
    """The positions and problems of a text that holds a message of this kind.

    skip_unknown  read past fields that the message does not have
    """
    return _Scanner(source, skip_unknown).scan(descriptor)


class _Scanner:
    def __init__(self, source: SourceText, skip_unknown: bool = False) -> None:
        self.skip_unknown = skip_unknown
        self.result = Scan(TextNode(0, 0))
        self.source = source
        self.text = source.text
        self.end = 0
        self.start = 0
        self.token = ""
        self.stack: list[tuple[Descriptor, TextNode]] = []  # the blocks that are open, outermost first

    def advance(self) -> None:
        """Move to the next token: `token` ("" at the end), from `start` to `end`."""
        skipped = _SKIP.match(self.text, self.end)
        self.start = skipped.end() if skipped else self.end
        found = _TOKEN.match(self.text, self.start)
        self.token = found.group() if found else ""
        self.end = self.start + len(self.token)
        if BAD_BYTE in self.token:
            self.fail("this is not UTF-8 text", self.start + self.token.index(BAD_BYTE), self.end)
        if self.token in ('"', "'"):
            self.fail("this text has no closing quote", self.start, self.end)

    def scan(self, descriptor: Descriptor) -> Scan:
        try:
            self.advance()
            self.block(descriptor, self.result.root, "")
        except DefinitionError as error:
            self.result.problems.append(error)
        return self.result

    def block(self, descriptor: Descriptor, node: TextNode, closing: str) -> None:
        """The fields of a message, up to its closing brace (at the top: to the end of the text)."""
        node.children = {}
        self.stack.append((descriptor, node))
        while self.token != closing:
            if not self.token:
                self.unclosed(node)
            self.field(descriptor, node)
        self.stack.pop()

    def field(self, descriptor: Descriptor, parent: TextNode) -> None:
        name, node = self.token, TextNode(self.start, self.end)
        if not (name[0].isalpha() or name[0] == "_"):
            self.fail_token()
        field = descriptor.fields_by_name.get(name)
        if name == "layers" and descriptor.name == "NetParameter" and self.quoted_type():
            self.result.renamed.append((self.start, self.end))
            name, field = "layer", descriptor.fields_by_name["layer"]
        if field is None:
            self.unknown(descriptor, name, node)
            return
        assert parent.children is not None
        before = parent.children.setdefault(name, [])
        if name in fork_fields.REPEATED.get(descriptor.name, ()) and (before or self.is_list(name)):
            self.skip_field(node)
            self.result.ignored += [] if name in self.result.ignored else [name]
            return
        if before and not is_repeated(field):
            line = self.source.span(before[0].start, before[0].end).line
            self.note(f"{name} is given twice", node.start, node.end, f"the first is on line {line}")
            before = []
        self.advance()
        self.colon(field, node)
        if is_repeated(field) and self.token == "[":
            self.list(field, node, before)
        else:
            before.append(node)
            self.value(field, node)
        if self.token in (",", ";"):
            self.advance()

    def colon(self, field: FieldDescriptor, node: TextNode) -> None:
        if self.token == ":":
            self.advance()
        elif field.message_type is None:
            if self.token in _CLOSING:
                self.fail(f"{field.name} must be {must_be(field)}, not a block", self.start, self.end)
            if not self.token:
                self.no_value(field, node)
            hint = f'write "{field.name}:"' if self.token == "=" else ""
            self.fail(f'":" is missing after {field.name}', node.start, node.end, hint)

    def list(self, field: FieldDescriptor, node: TextNode, nodes: list[TextNode]) -> None:
        """The short form of a repeated field: dim: [1, 3, 28, 28]. Every value has the name's position."""
        opening = self.start, self.end
        self.advance()
        while self.token != "]":
            item = TextNode(node.start, node.end)
            nodes.append(item)
            self.value(field, item)
            if self.token == ",":
                self.advance()
                if self.token != "]":
                    continue
                self.fail("a value is missing before this", self.start, self.end)
            if self.token in ("", "}", ">"):
                self.fail(f'"[" of {field.name} is not closed', *opening)
            if self.token != "]":
                self.fail('"," is missing before this', self.start, self.end)
        self.advance()

    def value(self, field: FieldDescriptor, node: TextNode) -> None:
        node.value_start = self.start
        if field.message_type is not None:
            closing = _CLOSING.get(self.token)
            if closing is None:
                self.no_value(field, node)
            self.advance()
            self.block(field.message_type, node, closing)
            node.value_end = self.end
            self.advance()
            return
        if self.token in ("", "}", ">", "]", "{", "<", "[", ":", ",", ";"):
            self.no_value(field, node)
        pieces = 0
        while not pieces or (field.cpp_type == FieldDescriptor.CPPTYPE_STRING and quoted(self.token)):
            try:
                parse_value(field, self.token)
            except ValueProblem as problem:
                self.wrong_value(field, node, problem)
            node.value_end = self.end
            self.advance()
            pieces += 1  # text in quotes goes on in the quotes that follow, as in C

    def no_value(self, field: FieldDescriptor, node: TextNode) -> NoReturn:
        if not self.token:
            self.fail(f"{field.name} has no value: the text ends here", node.start, node.end)
        message = f"{field.name} must be {must_be(field)}, not {shorten(self.token)}"
        self.fail(message, self.start, self.end)

    def wrong_value(self, field: FieldDescriptor, node: TextNode, problem: ValueProblem) -> None:
        """Notes a value that its field cannot take; the engine of a fork is read past."""
        if field.name == fork_fields.ENGINE and self.token.isidentifier():
            self.result.skipped.append((node.start, self.end))
            self.result.ignored.append(f"{field.name}: {self.token}")
            return
        self.note(problem.message, self.start, self.end, problem.hint)

    def unknown(self, descriptor: Descriptor, name: str, node: TextNode) -> None:
        """Reads past a field that the message does not have, and notes it with the likeliest cause as a hint."""
        if any(name in message.fields_by_name for message, _ in self.stack[:-1]) and name != fork_fields.ENGINE:
            line = self.source.span(self.stack[-1][1].value_start, self.end).line
            message = f'{descriptor.name} has no field "{shorten(name)}"'
            self.fail(message, self.start, self.end, f"is the block of line {line} closed?")
        if fork_fields.is_ignored(descriptor.name, name, self.first_word()):
            self.result.ignored.append(name)
        elif self.skip_unknown:
            self.result.unknown.append(name)
        else:
            hint = _right_place(descriptor, name) or suggestion(name, descriptor.fields_by_name)
            other = _other_kind(descriptor, name) if len(self.stack) == 1 else ""
            if other or not self.first_word():  # all that follows would be wrong as well
                message = f'{descriptor.name} has no field "{shorten(name)}"'
                self.fail(message, self.start, self.end, hint or other)
            self.note_unknown(descriptor, name, node, hint)
        self.skip_field(node)

    def note_unknown(self, descriptor: Descriptor, name: str, node: TextNode, hint: str) -> None:
        span = self.source.span(node.start, node.end)
        message = f'{descriptor.name} has no field "{shorten(name)}"'
        error = UnknownField(message, span=span, layer=self.layer(), hint=hint)
        if [message.name for message, _ in self.stack] == ["NetParameter", "LayerParameter"]:
            error.layer_type = _value_further_on(self.text, self.stack[1][1].value_start + 1, "type").strip("\"'")
        self.result.problems.append(error)

    def skip_field(self, node: TextNode) -> None:
        """Reads past a field, whatever its value is, and leaves it out of the text."""
        self.advance()
        if self.token == ":":
            self.advance()
        start, end, depth = self.start, self.end, 0
        if self.token in ("", "}", ">", "]", ",", ";"):
            self.fail(f'"{shorten(self.text[node.start : node.end])}" has no value', node.start, node.end)
        while True:
            if self.token == "":
                self.fail(f'"{self.text[start]}" is not closed', start, end)
            depth += (self.token in _OPENING) - (self.token in ("}", ">", "]"))
            text, last = quoted(self.token), self.end
            self.advance()
            if depth == 0 and not (text and quoted(self.token)):
                break
        if self.token in (",", ";"):
            last = self.end
            self.advance()
        self.result.skipped.append((node.start, last))

    def first_word(self) -> str:
        """The token behind the field's name and its colon."""
        at = self.end
        for _ in range(2):
            skipped = _SKIP.match(self.text, at)
            found = _TOKEN.match(self.text, skipped.end() if skipped else at)
            if found is None:
                return ""
            if found.group() != ":":
                return found.group()
            at = found.end()
        return ""

    def is_list(self, name: str) -> bool:
        return self.first_word() == "["

    def quoted_type(self) -> bool:
        """Whether the block that begins behind this name has a `type` in quotes."""
        opening = re.compile(r"[\s:]*[{<]").match(self.text, self.end)
        return opening is not None and quoted(_value_further_on(self.text, opening.end(), "type"))

    def unclosed(self, node: TextNode) -> NoReturn:
        name = self.text[node.start : node.end]
        last = self.source.span(len(self.text.rstrip()), len(self.text)).line
        message = f'"{self.text[node.value_start]}" of {name} is not closed'
        self.fail(message, node.value_start, node.value_start + 1, f"the text ends on line {last}: is it cut off?")

    def fail_token(self) -> NoReturn:
        if self.token in ("}", ">"):
            if len(self.stack) == 1:
                self.fail(f'"{self.token}" closes nothing', self.start, self.end)
            line = self.source.span(self.stack[-1][1].value_start, self.end).line
            self.fail(f'"{self.token}" does not close the block of line {line}', self.start, self.end)
        hint = "a comment begins with #" if self.token == "/" else ""
        self.fail(f"a field name is expected here, not {shorten(self.token)}", self.start, self.end, hint)

    def note(self, message: str, start: int, end: int, hint: str = "") -> None:
        """Collects a problem behind which the scan can go on."""
        error = DefinitionError(message, span=self.source.span(start, end), layer=self.layer(), hint=hint)
        self.result.problems.append(error)

    def fail(self, message: str, start: int, end: int, hint: str = "") -> NoReturn:
        raise DefinitionError(message, span=self.source.span(start, end), layer=self.layer(), hint=hint)

    def layer(self) -> str | None:
        """The name of the layer that is open, if one is and has a name: given before here, or further on."""
        for message, node in reversed(self.stack):
            if message.name in _LAYERS:
                assert node.children is not None
                if node.children.get("name"):
                    given = node.children["name"][0]
                    return shorten(self.text[given.value_start : given.value_end].strip("\"'"), 100) or None
                return _name_further_on(self.text, node.value_start + 1)
        return None


def _name_further_on(text: str, start: int) -> str | None:
    """The value of `name` at the top level of the block whose inside begins at `start`."""
    token = _value_further_on(text, start, "name")
    return shorten(token[1:-1], 100) or None if quoted(token) else None


def _value_further_on(text: str, start: int, name: str) -> str:
    """The value of a field at the top level of the block whose inside begins at `start`; empty where it has none."""
    depth, previous, at = 0, ["", ""], start
    while at < len(text):
        skipped = _SKIP.match(text, at)
        at = skipped.end() if skipped else at
        found = _TOKEN.match(text, at)
        if found is None:
            return ""
        token, at = found.group(), found.end()
        depth += (token in _CLOSING) - (token in ("}", ">"))
        if depth < 0:
            return ""
        if depth == 0 and previous == [name, ":"] and token != "{":
            return token
        previous = [previous[1], token]
    return ""


def _right_place(descriptor: Descriptor, name: str) -> str:
    """A hint for a field that stands one level too high: num_output in layer { } instead of convolution_param { }."""
    parts = [field for field in descriptor.fields if field.message_type and name in field.message_type.fields_by_name]
    return "it belongs in " + " or ".join(field.name for field in parts) if 1 <= len(parts) <= 3 else ""


def _other_kind(descriptor: Descriptor, name: str) -> str:
    """A hint when the file is a solver where a net is wanted, or the reverse."""
    messages: Any = descriptor.file.message_types_by_name
    for other, word in (("SolverParameter", "solver"), ("NetParameter", "net")):
        if descriptor.name != other and name in messages[other].fields_by_name:
            return f"it is a field of {other}: is this the file of a {word}?"
    return ""
