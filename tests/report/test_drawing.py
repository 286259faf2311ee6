"""Drawings of nets: what they show, that text stays in its box, that they are plain SVG."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError, ShapeError
from sslnet.layers.kinds import KINDS
from sslnet.net.graph import PhaseState
from sslnet.net.net import Net
from sslnet.report.diagram import DiagramBox, diagram
from sslnet.report.drawing import COLOURS, draw_net, shorten, text_width

MODELS = Path(__file__).parent.parent.parent / "models"
SVG = "{http://www.w3.org/2000/svg}"

# Advance widths of DejaVu Sans, in thousandths of the font size.
DEJAVU = {
    " ": 318, "!": 401, '"': 460, "#": 838, "$": 636, "%": 950, "&": 780, "'": 275, "(": 390, ")": 390, "*": 500,
    "+": 838, ",": 318, "-": 361, ".": 318, "/": 337, "0": 636, "9": 636, ":": 337, ";": 337, "<": 838, "=": 838,
    ">": 838, "?": 531, "@": 1000, "A": 684, "B": 686, "C": 698, "D": 770, "E": 632, "F": 575, "G": 775, "H": 752,
    "I": 295, "J": 295, "K": 656, "L": 557, "M": 863, "N": 748, "O": 787, "P": 603, "Q": 787, "R": 695, "S": 635,
    "T": 611, "U": 732, "V": 684, "W": 989, "X": 685, "Y": 611, "Z": 685, "[": 390, "\\": 337, "]": 390, "^": 838,
    "_": 500, "`": 500, "a": 613, "b": 635, "c": 550, "d": 635, "e": 615, "f": 352, "g": 635, "h": 634, "i": 278,
    "j": 278, "k": 579, "l": 278, "m": 974, "n": 634, "o": 612, "p": 635, "q": 635, "r": 411, "s": 521, "t": 392,
    "u": 634, "v": 592, "w": 818, "x": 592, "y": 592, "z": 525, "{": 636, "|": 337, "}": 636, "~": 838, "×": 838,
    "·": 318, "…": 1000,
}  # fmt: skip
# and of DejaVu Sans Bold, for the letters that grow most
BOLD = {" ": 348, ".": 380, ":": 400, "F": 683, "I": 372, "K": 775, "P": 733, "Y": 724, "f": 435, "i": 343, "l": 343,
        "r": 493, "t": 478, "_": 500, "W": 1103, "m": 1042, "a": 675, "e": 678, "0": 696}  # fmt: skip

RESIDUAL = """
name: "residual <net> & co"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "conv1" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def parse(text: str) -> prototxt.Definition:
    return prototxt.parse(text, pb.NetParameter)


def shown(text: str, phase: int = pb.TEST, **options: object):
    return diagram(parse(text), PhaseState(phase), **options)


def names(boxes: list[DiagramBox]) -> list[list[str]]:
    return [[part.name for part in box.parts] or [f"tag {box.tag}"] for box in boxes]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_layers_that_work_in_place_share_the_box_of_their_blobs_maker() -> None:
    boxes = shown(RESIDUAL).boxes
    assert ["conv1", "bn1", "relu1"] in names(boxes)


def test_shapes_and_parameters_are_those_of_the_net() -> None:
    net, found = Net(parse(RESIDUAL)), shown(RESIDUAL)
    for box in found.boxes:
        for output in box.outputs if not box.tag else ():
            assert output.shape == net.blobs[output.name].shape
        for part in box.parts:
            assert part.params == sum(blob.count for blob in net.params.get(part.name, []))
    assert found.params == sum(blob.count for blobs in net.params.values() for blob in blobs)


def test_readers_of_a_blob_are_the_boxes_that_name_it() -> None:
    boxes = shown(RESIDUAL).boxes
    made = {output.name: [names(boxes)[i] for i in output.readers] for box in boxes for output in box.outputs}
    assert made["conv1"] == [["sum"]]
    assert made["data"] == [["conv1", "bn1", "relu1"], ["sum"]]


def test_label_that_is_read_far_below_is_a_tag_beside_its_reader() -> None:
    text = """
    layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    """ + "".join(
        f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "{"data" if i == 0 else f"ip{i - 1}"}" top: "ip{i}" '
        "inner_product_param { num_output: 3 } }\n"
        for i in range(4)
    )
    text += 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }'
    boxes = shown(text).boxes
    assert names(boxes) == [["d"], ["ip0"], ["ip1"], ["ip2"], ["ip3"], ["tag label"], ["loss"]]
    assert boxes[5].outputs[0].readers == [6]
    assert [output.readers for output in boxes[0].outputs] == [[1], []]


def test_phase_and_rules_choose_the_layers() -> None:
    text = (
        RESIDUAL
        + 'layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }'
    )
    assert ["acc"] in names(shown(text).boxes)
    assert ["acc"] not in names(shown(text, pb.TRAIN).boxes)


def test_missing_data_leave_shapes_unknown_and_say_why() -> None:
    text = re.sub(r'type: "Input" top: "data".*', 'type: "Data" top: "data" data_param { source: "none" backend: LMDB batch_size: 2 } }', RESIDUAL)  # fmt: skip
    found = shown(text)
    assert isinstance(found.unknown, DataError) and found.unknown.layer == "data"
    assert found.params is None
    outputs = {output.name: output.shape for box in found.boxes for output in box.outputs if not box.tag}
    assert outputs["sum"] is None and outputs["label"] == (2,)
    told = shown(text, shapes={"data": (2, 4, 6, 6)})
    assert told.unknown is None and told.params == shown(RESIDUAL).params


def test_wrong_definitions_and_shapes_are_errors() -> None:
    with pytest.raises(DefinitionError, match='unknown bottom "dat"'):
        shown(RESIDUAL.replace('bottom: "data" top: "conv1"', 'bottom: "dat" top: "conv1"'))
    with pytest.raises(ShapeError):
        shown(RESIDUAL.replace("kernel_size: 3 pad: 1", "kernel_size: 3"))


def test_drawing_fills_no_parameters_and_needs_no_memory() -> None:
    text = RESIDUAL.replace("num_output: 3", "num_output: 1000000000")
    assert shown(text).params > 10**11


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 stride: 2 group: 4 }', "3 × 3, stride 2, 4 groups · 8 filters"),
        ('type: "Convolution" convolution_param { num_output: 8 kernel_h: 1 kernel_w: 7 pad_h: 0 pad_w: 3 }', "1 × 7, pad 0 × 3 · 8 filters"),
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }', "ave 3 × 3, stride 2"),
        ('type: "Pooling" pooling_param { pool: MAX global_pooling: true }', "max, global"),
        ('type: "Eltwise" eltwise_param { operation: MAX }', "max"),
        ('type: "Dropout" dropout_param { dropout_ratio: 0.4 }', "0.4"),
        ('type: "SoftmaxWithLoss" loss_weight: 0.3', "weight 0.3"),
        ('type: "Data" data_param { source: "data/mnist/train_lmdb/" }', "train_lmdb"),
        ('type: "ReLU"', ""),
    ],
)  # fmt: skip
def test_details_are_what_the_definition_says(layer: str, words: str) -> None:
    from sslnet.report.diagram import detail

    assert detail(parse(f'layer {{ name: "x" {layer} }}').message.layer[0]) == words


def test_every_kind_of_layer_has_a_colour() -> None:
    assert set(COLOURS) == set(KINDS), "give the kind a fill and a border in COLOURS of sslnet/report/drawing.py"


# -- how it is drawn ---------------------------------------------------------------------------------------------------


def test_text_is_measured_no_narrower_than_it_is() -> None:
    for letter, width in DEJAVU.items():
        assert text_width(letter, 1000) >= width, letter
    for letter, width in BOLD.items():
        assert text_width(letter, 1000, bold=True) >= width, letter


def nets() -> list[object]:
    long = RESIDUAL.replace('name: "ip"', f'name: "{"W" * 200}"').replace('name: "relu1"', 'name: "Zwölf × 中文 <&>"')
    files = sorted(path for name in ("lenet", "resnet20", "googlenet", "squeezenet") for path in MODELS.glob(f"{name}/deploy.prototxt"))  # fmt: skip
    return [pytest.param(RESIDUAL, id="residual"), pytest.param(long, id="long names")] + [
        pytest.param(path, id=path.parent.name) for path in files
    ]


def elements(source: str | Path, rankdir: str) -> ElementTree.Element:
    definition = prototxt.read_net(str(source)) if isinstance(source, Path) else parse(source)
    return ElementTree.fromstring(draw_net(definition, PhaseState(pb.TEST), rankdir=rankdir)[0])


@pytest.mark.parametrize("rankdir", ["TB", "LR"])
@pytest.mark.parametrize("source", nets())
def test_text_stays_in_its_box_and_everything_in_the_picture(source: str | Path, rankdir: str) -> None:
    root = elements(source, rankdir)
    width, height = float(root.get("width")), float(root.get("height"))
    frames = [
        [float(rect.get(name)) for name in ("x", "y", "width", "height")]
        for rect in root.iter(f"{SVG}rect")
        if rect.get("x") is not None and rect.get("fill") != "none"
    ]
    texts = list(root.iter(f"{SVG}text"))
    assert texts
    for x, y, w, h in frames:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    for text in texts[2:]:  # behind the title
        size, bold = float(text.get("font-size", 11)), text.get("font-weight") == "bold"
        length = text_width(text.text, size, bold)
        left = float(text.get("x")) - {None: 0, "middle": length / 2, "end": length}[text.get("text-anchor")]
        y = float(text.get("y"))
        assert any(
            fx <= left and left + length <= fx + fw + 0.2 and fy <= y - 0.75 * size and y + 0.2 * size <= fy + fh + 0.2
            for fx, fy, fw, fh in frames
        ), text.text


@pytest.mark.parametrize("source", nets())
def test_words_of_one_row_do_not_run_into_each_other(source: str | Path) -> None:
    rows: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for group in elements(source, "TB").iter(f"{SVG}g"):
        corner = group.find(f"{SVG}rect")
        for text in group.iter(f"{SVG}text"):
            length = text_width(text.text, float(text.get("font-size", 11)), text.get("font-weight") == "bold")
            left = float(text.get("x")) - {None: 0, "middle": length / 2, "end": length}[text.get("text-anchor")]
            rows.setdefault((float(corner.get("x")), float(text.get("y"))), []).append((left, left + length))
    for spans in rows.values():
        spans.sort()
        assert all(second[0] - first[1] > 5 for first, second in pairwise(spans))


def test_picture_holds_shapes_names_and_parameters_and_no_scripts() -> None:
    root = elements(RESIDUAL, "TB")
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert words[0] == "residual <net> & co"
    assert words[1] == "phase TEST  ·  8 layers  ·  592 parameters"  # 4 4 3 3 + 4, 4 + 4 + 1, 144 3 + 3
    for word in (
        "conv1",
        "Convolution",
        "3 × 3, pad 1 · 4 filters",
        "148 params",
        "BatchNorm",
        "relu1",
        "2 × 4 × 6 × 6",
    ):
        assert word in words
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "title", "rect", "text", "path", "polygon", "g"}  # fmt: skip


def test_names_are_shortened_in_the_middle_and_cleaned() -> None:
    assert shorten("a" * 30 + "b" * 30) == "a" * 21 + "…" + "b" * 21
    assert shorten("a\x00b\nc") == "a\ufffdb\ufffdc"
    assert shorten("inception_4a/3x3_reduce") == "inception_4a/3x3_reduce"


def test_same_net_gives_the_same_picture() -> None:
    assert draw_net(parse(RESIDUAL), PhaseState())[0] == draw_net(parse(RESIDUAL), PhaseState())[0]


def test_a_shape_that_no_array_can_have_is_an_error_of_its_layer():
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 9223372036854775807 } } }'
    with pytest.raises(ShapeError, match='"x": no array can have the shape') as caught:
        draw_net(prototxt.parse(text, pb.NetParameter), PhaseState(pb.TEST))
    assert caught.value.layer == "in"
