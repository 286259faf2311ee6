"""Draws a net as an SVG picture: boxes for layers, the blobs between them with their shapes. No scripts, no external files.

The widths of texts are estimated generously, by those of DejaVu Sans, so that they fit into the boxes in any of the fonts
listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from sslnet.net.graph import PhaseState
from sslnet.prototxt import Definition
from sslnet.report.diagram import Diagram, DiagramBox, DrawnLayer, Output, diagram
from sslnet.report.layered import DrawnNode, Link, Placement, Segment, place
from sslnet.report.units import count

FONTS = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
TITLE, NAME, SMALL = 19.0, 13.0, 11.0
"""Font sizes in pixels: of the title, of names of layers, of everything else."""
INK, FAINT, LINE, PAPER = "#1d2733", "#4d5b6b", "#8494a5", "#ffffff"
ROW, STRIP = 17.0, 19.0
"""Heights of a line of text in a box and of a layer that works in place."""
INSET = 11.0
PILL, STEM = 17.0, 31.0
"""Height of the text on a line, and length of the line that carries it."""
BETWEEN = 10.0
MARGIN, HEAD = 28.0, 54.0
ARROW = 7.0
LONGEST = 44
"""Maximum number of characters of a name."""
DIRECTIONS = ("TB", "LR")

COLOURS = {
    "source": ("#e9eef5", "#52647a"),
    "convolution": ("#dceaff", "#2f62ab"),
    "connected": ("#e8e2fc", "#5f46b0"),
    "pooling": ("#daf3e4", "#21704a"),
    "norm": ("#fdf1cf", "#86600a"),
    "activation": ("#ffe7d6", "#a34d12"),
    "join": ("#d9f2f2", "#176772"),
    "loss": ("#fde0e0", "#a63232"),
    "result": ("#f7e3f4", "#873a7d"),
    "other": ("#efefec", "#5c5c55"),
}
"""Kind of layer (``sslnet.layers.base.KINDS``) -> colour of the fill, colour of the border and of the type."""


def draw_net(
    definition: Definition,
    state: PhaseState,
    *,
    rankdir: str = "TB",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[str, Diagram]:
    """Draws the net in a state; returns the SVG text and the diagram.

    rankdir   TB: from top to bottom; LR: from left to right
    shapes    shapes of blobs of source layers, if their data are missing
    raises    DefinitionError for errors in the prototxt, ShapeError for shapes that do not fit
    """
    assert rankdir in DIRECTIONS
    shown = diagram(definition, state, shapes)
    return _Drawing(shown, rankdir == "TB").text(), shown


class _Drawing:
    """Determines the sizes of the boxes and their places, then the elements from back to front: lines, boxes, the text
    on lines."""

    def __init__(self, shown: Diagram, downwards: bool) -> None:
        self.shown = shown
        self.downwards = downwards
        self.cards = [_card(box, downwards) for box in shown.boxes]
        links = [
            Link(i, tuple(output.readers), offset)
            for i, (box, card) in enumerate(zip(shown.boxes, self.cards))
            for output, offset in zip(box.outputs, card.offsets)
        ]
        nodes = [
            DrawnNode(card.height + card.stem, card.breadth)
            if downwards
            else DrawnNode(card.width + card.stem, card.breadth)
            for card in self.cards
        ]
        self.place: Placement = place(nodes, links)

    def text(self) -> str:
        head = self._head()
        along, across = self.place.length, self.place.high - self.place.low
        width, height = (across, along) if self.downwards else (along, across)
        width = max(width, *(text_width(words, size, bold) for words, size, bold in head)) + 2 * MARGIN
        height = height + 2 * MARGIN + HEAD
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family={quoteattr(FONTS)} font-size="{SMALL:g}">',
            f"<title>{clean(head[0][0])}</title>",
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            _text(MARGIN, MARGIN + 15, head[0][0], size=TITLE, bold=True),
            _text(MARGIN, MARGIN + 34, head[1][0], colour=FAINT),
        ]
        self.shift = (
            (MARGIN + (width - 2 * MARGIN - across) / 2 - self.place.low, MARGIN + HEAD)
            if self.downwards
            else (MARGIN, MARGIN + HEAD - self.place.low)
        )
        for segments in self.place.segments:
            lines += self._lines(segments)
        for i in range(len(self.cards)):
            lines += self._box(i)
        return "\n".join([*lines, "</svg>", ""])

    def _head(self) -> list[tuple[str, float, bool]]:
        """Title and the lines below it: text, size, bold."""
        words = [f"phase {self.shown.phase}", f"{self.shown.layers} layers"]
        if self.shown.params is not None:
            words.append(f"{count(self.shown.params)} parameters")
        return [(shorten(self.shown.name or "net"), TITLE, True), ("  ·  ".join(words), SMALL, False)]

    def _at(self, along: float, across: float) -> tuple[float, float]:
        x, y = (across, along) if self.downwards else (along, across)
        return x + self.shift[0], y + self.shift[1]

    def _corner(self, i: int) -> tuple[float, float]:
        """The upper left corner of a box."""
        card = self.cards[i]
        half = (card.width if self.downwards else card.height) / 2
        return self._at(self.place.begin[i], self.place.middle[i] - half)

    # -- lines -------------------------------------------------------------------------------------------------------

    def _lines(self, segments: Sequence[Segment]) -> list[str]:
        """One path for all pieces of a link, and the arrow heads."""
        if not segments:
            return []
        pieces, heads = [], []
        for segment in segments:
            end = segment.end
            if segment.target is not None:
                end = (end[0] - ARROW + 1, end[1])
                heads.append(self._head_of_arrow(*segment.end))
            pieces.append(self._piece(segment.start, end))
        path = f'<path d="{" ".join(pieces)}" fill="none" stroke="{LINE}" stroke-width="1.5" stroke-linecap="round"/>'
        return [path, *heads]

    def _piece(self, start: tuple[float, float], end: tuple[float, float]) -> str:
        x0, y0 = self._at(*start)
        x1, y1 = self._at(*end)
        if start[1] == end[1]:
            return f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
        middle = (start[0] + end[0]) / 2
        (ax, ay), (bx, by) = self._at(middle, start[1]), self._at(middle, end[1])
        return f"M{x0:.1f} {y0:.1f}C{ax:.1f} {ay:.1f} {bx:.1f} {by:.1f} {x1:.1f} {y1:.1f}"

    def _head_of_arrow(self, along: float, across: float) -> str:
        points = [(along, across), (along - ARROW, across - ARROW / 2), (along - ARROW, across + ARROW / 2)]
        pairs = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self._at(*point) for point in points))
        return f'<polygon points="{pairs}" fill="{LINE}"/>'

    # -- boxes -------------------------------------------------------------------------------------------------------

    def _box(self, i: int) -> list[str]:
        box, card = self.shown.boxes[i], self.cards[i]
        x, y = self._corner(i)
        if box.tag:
            return _pill(x, y, card.width, shorten(box.tag), COLOURS["source"])
        found = ["<g>", f"<title>{clean(_tooltip(box))}</title>"]
        fill, edge = COLOURS[box.parts[0].kind]
        frame = f'x="{x:.1f}" y="{y:.1f}" width="{card.width:.1f}" height="{card.height:.1f}" rx="6"'
        found.append(f'<rect {frame} fill="{fill}"/>')
        first = box.parts[0]
        found += [
            _text(x + INSET, y + 19, shorten(first.name), size=NAME, bold=True),
            _text(x + card.width - INSET, y + 19, first.type, colour=edge, anchor="end"),
        ]
        if card.two_rows:
            found += [
                _text(x + INSET, y + 19 + ROW, shorten(first.detail), colour=INK),
                _text(x + card.width - INSET, y + 19 + ROW, _params(first), colour=FAINT, anchor="end"),
            ]
        top = y + card.height - STRIP * (len(box.parts) - 1)
        for j, part in enumerate(box.parts[1:]):
            found += _strip(x, top + STRIP * j, card.width, part, last=j == len(box.parts) - 2)
        found.append(f'<rect {frame} fill="none" stroke="{edge}" stroke-width="1.2"/>')
        for output, offset, width in zip(box.outputs, card.offsets, card.pills):
            found += self._output(i, output, offset, width)
        return [*found, "</g>"]

    def _output(self, i: int, output: Output, offset: float, width: float) -> list[str]:
        """The text on the line that starts at a box."""
        label = _label(self.shown.boxes[i], output)
        if not label:
            return []
        card = self.cards[i]
        begin = self.place.begin[i] + (card.height if self.downwards else card.width)
        across = self.place.middle[i] + offset
        x0, y0 = self._at(begin, across)
        x1, y1 = self._at(begin + (card.stem - (0 if output.readers else 9)), across)
        line = f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{LINE}" stroke-width="1.5"/>'
        x, y = (x0 - width / 2, y0 + 9) if self.downwards else (x0 + 10, y0 - PILL / 2)
        return [line, *_pill(x, y, width, label)]


@dataclass(frozen=True)
class _Card:
    """The sizes of a box.

    two_rows   whether details of the first layer are below its name
    stem       length of the lines, with text on them, that start at it
    offsets    offsets of these lines from the middle, across; pills: widths of their texts
    """

    width: float
    height: float
    two_rows: bool
    stem: float
    offsets: list[float]
    pills: list[float]
    downwards: bool

    @property
    def breadth(self) -> float:
        """Size across the flow, including texts on lines."""
        size = self.width if self.downwards else self.height
        pills = [width if self.downwards else PILL for width in self.pills]
        ends = [abs(offset) + pill / 2 for offset, pill in zip(self.offsets, pills)]
        return max(size, *(2 * end for end in ends)) if ends else size


def _card(box: DiagramBox, downwards: bool) -> _Card:
    if box.tag:
        width = text_width(shorten(box.tag)) + 18
        return _Card(width, PILL, False, 0.0, [0.0] * len(box.outputs), [0.0] * len(box.outputs), downwards)
    first = box.parts[0]
    widths = [text_width(shorten(first.name), NAME, bold=True) + 18 + text_width(first.type)]
    second = text_width(shorten(first.detail)) + text_width(_params(first))
    if second:
        widths.append(second + (18 if first.detail and _params(first) else 0))
    for part in box.parts[1:]:
        words = [part.type, part.detail, shorten(part.name), _params(part)]
        widths.append(sum(text_width(word) + 10 for word in words if word) - 10)
    width = max(110.0, max(widths) + 2 * INSET)
    height = 29 + (ROW if second else 0) + STRIP * (len(box.parts) - 1)
    pills = [text_width(label) + 14 if label else 0.0 for label in (_label(box, output) for output in box.outputs)]
    breadths = [pill if downwards else PILL if pill else 0.0 for pill in pills]
    at, offsets = -(sum(breadths) + BETWEEN * (len(breadths) - 1)) / 2, []
    for breadth in breadths:
        offsets.append(at + breadth / 2)
        at += breadth + BETWEEN
    stem = 0.0
    if any(pills):
        stem = STEM if downwards else max(pills) + 20
    return _Card(width, height, bool(second), stem, offsets, pills, downwards)


def _label(box: DiagramBox, output: Output) -> str:
    """The blob's name, if it differs from the layer's, and its shape."""
    name = shorten(output.name) if not box.parts or output.name != box.parts[0].name else ""
    shape = " × ".join(map(str, output.shape)) if output.shape else ""
    return f"{name}: {shape}" if name and shape else name or shape


def _strip(x: float, y: float, width: float, part: DrawnLayer, last: bool) -> list[str]:
    """The band of a layer that works in place, in its own colour."""
    fill, edge = COLOURS[part.kind]
    if last:
        bottom = y + STRIP
        shape = (
            f"M{x:.1f} {y:.1f}H{x + width:.1f}V{bottom - 6:.1f}Q{x + width:.1f} {bottom:.1f} {x + width - 6:.1f} {bottom:.1f}"
            f"H{x + 6:.1f}Q{x:.1f} {bottom:.1f} {x:.1f} {bottom - 6:.1f}Z"
        )
        band = f'<path d="{shape}" fill="{fill}"/>'
    else:
        band = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{STRIP:g}" fill="{fill}"/>'
    rule = f'<path d="M{x:.1f} {y:.1f}H{x + width:.1f}" stroke="{edge}" stroke-width="0.6"/>'
    found = [band, rule, _text(x + INSET, y + 13.5, part.type, colour=edge)]
    at = x + INSET + text_width(part.type) + 10
    if part.detail:
        found.append(_text(at, y + 13.5, part.detail))
        at += text_width(part.detail) + 10
    found.append(_text(at, y + 13.5, shorten(part.name), colour=FAINT))
    return [*found, _text(x + width - INSET, y + 13.5, _params(part), colour=FAINT, anchor="end")]


def _pill(x: float, y: float, width: float, label: str, colours: tuple[str, str] = (PAPER, "#c9d3de")) -> list[str]:
    fill, edge = colours
    return [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{PILL:g}" rx="{PILL / 2:g}" fill="{fill}" stroke="{edge}"/>',
        _text(x + width / 2, y + 12.3, label, anchor="middle"),
    ]


def _params(part: DrawnLayer) -> str:
    return f"{count(part.params)} params" if part.params else ""


def _tooltip(box: DiagramBox) -> str:
    lines = []
    for part in box.parts:
        words = [f"{part.name} ({part.type})", part.detail, f"{part.params:,} parameters" if part.params else ""]
        lines.append(", ".join(word for word in words if word))
    return "\n".join(lines)


# -- text --------------------------------------------------------------------------------------------------------------

NARROW, SLIM, BROAD = "'ijlIJ,. /:;\\|", 'f-()[]t!r"*_`szc?', "ABRXZVCUHNDG&OQ"
WIDE = "w#+<=>^~M%mW@×…→"


def text_width(text: str, size: float = SMALL, bold: bool = False) -> float:
    """Maximum width of a text in pixels."""
    widths = {NARROW: 0.34, SLIM: 0.55, BROAD: 0.79, WIDE: 1.0}
    total = 0.0
    for letter in text:
        known = next((width for letters, width in widths.items() if letter in letters), None)
        total += known if known is not None else 0.66 if letter.isascii() or letter == "·" else 1.1
    return total * size * (1.18 if bold else 1.0)


def shorten(text: str) -> str:
    """The text without its middle part if it is too long; unprintable characters are removed."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def clean(text: str) -> str:
    """The text for an XML element; characters that XML does not allow are removed."""
    return escape("".join(letter for letter in text if letter.isprintable() or letter == "\n"))


def _text(
    x: float, y: float, text: str, *, size: float = SMALL, bold: bool = False, colour: str = INK, anchor: str = ""
) -> str:
    if not text:
        return ""
    attributes: dict[str, Any] = {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": colour}
    if size != SMALL:
        attributes["font-size"] = f"{size:g}"
    if bold:
        attributes["font-weight"] = "bold"
    if anchor:
        attributes["text-anchor"] = anchor
    words = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<text {words}>{clean(text)}</text>"
