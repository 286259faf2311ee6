"""Tables, units and JSON: what people and programs read."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet.report import (
    Table,
    coupled_table,
    dump_json,
    print_table,
    sparsity_summary,
    sparsity_table,
    tied,
    to_plain,
    units,
)
from sslnet.sparsity.measure import CoupledSparsity, LayerSparsity, NonZero, NonZeroBlocks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def example() -> Table:
    table = Table("Sparsity", "layer", "filters", "ms")
    table.add("conv1", "5 of 20", "1.25")
    table.add("a longer name", 3, None)
    table.foot("total", "", "10.5")
    table.note("a sentence")
    return table


def test_table_text_is_aligned() -> None:
    assert example().text() == (
        "Sparsity\n"
        "layer          filters    ms\n"
        "----------------------------\n"
        "conv1          5 of 20  1.25\n"
        "a longer name        3     -\n"
        "----------------------------\n"
        "total                   10.5\n"
        "a sentence\n"
    )


def test_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 cells for the 3 columns layer, filters, ms"):
        example().add("conv1", "5 of 20")


def test_table_is_plain_in_a_file_and_styled_on_a_terminal() -> None:
    plain, terminal = io.StringIO(), Terminal()
    print_table(example(), plain)
    print_table(example(), terminal)
    assert plain.getvalue() == example().text()
    assert terminal.getvalue() != plain.getvalue()
    for cell in ("Sparsity", "conv1", "5 of 20", "a longer name", "10.5", "a sentence"):
        assert cell in terminal.getvalue()


@pytest.mark.parametrize(("width", "shown"), [(60, ["layer", "weights", "ms"]), (20, ["layer", "ms"]), (14, ["layer"])])
def test_table_goes_without_columns_on_a_narrow_terminal(
    width: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table("", "layer", "weights", "ms", drop=[1, 2])
    table.add("convolution", "20 x 1 x 5 x 5", "12.5")
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(table, terminal)
    text = terminal.getvalue()
    assert [head for head in table.heads if head in text] == shown
    assert "convolution" in text and ("12.5" in text) == ("ms" in shown)


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (None, ["layer", "weights", "ms"]),
        (26, ["layer", "weights", "ms"]),
        (25, ["layer", "ms"]),
        (5, ["layer", "weights", "ms"]),
    ],
)
def test_table_text_goes_without_columns_to_fit_a_width(width: int | None, heads: list[str]) -> None:
    table = Table("a title that may be longer than the table", "layer", "weights", "ms", drop=[1])
    table.add("convolution", "20 x 5", "12.5")
    table.foot("total", "", "12.5")
    lines = table.text(width).splitlines()
    assert lines[1].split() == heads
    assert width is None or width < 10 or max(map(len, lines[1:])) <= width
    assert "12.5" in lines[-1]


def test_table_that_fits_no_terminal_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "10")
    print_table(example(), terminal)
    assert terminal.getvalue() == example().text()


def test_table_shows_square_brackets_as_they_are_on_a_terminal() -> None:
    table = Table("", "name")
    table.add("conv1[0]")
    terminal = Terminal()
    print_table(table, terminal)
    assert "conv1[0]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (units.count, 0, "0"),
        (units.count, 99_999, "99,999"),
        (units.count, 100_000, "100 k"),
        (units.count, 999_999, "1.00 M"),
        (units.count, 61_000_000, "61.0 M"),
        (units.count, None, "-"),
        (units.size, 812, "812 B"),
        (units.size, 1_269_760, "1.21 MiB"),
        (units.size, 1024, "1.00 KiB"),
        (units.percent, 0, "0 %"),
        (units.percent, 0.00001, "<0.1 %"),
        (units.percent, 0.1234, "12.3 %"),
        (units.percent, 0.99999, ">99.9 %"),
        (units.percent, 1, "100 %"),
        (units.percent, float("nan"), "-"),
        (units.milliseconds, 0.0000123, "0.012"),
        (units.milliseconds, 0.003456, "3.46"),
        (units.milliseconds, 0.128, "128"),
        (units.milliseconds, 12.3456, "12,346"),
        (units.factor, 3.14159, "3.14x"),
        (units.factor, 9.996, "10.0x"),
        (units.factor, float("inf"), "-"),
    ],
)
def test_units_word_numbers(function: object, value: object, text: str) -> None:
    assert function(value) == text  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class Point:
    x: np.float32
    tags: frozenset[str]


def test_json_takes_numpy_dataclasses_and_paths() -> None:
    value = {
        "point": Point(np.float32(0.5), frozenset("ba")),
        "array": np.arange(3),
        "flag": np.bool_(True),
        "path": Path("a") / "b",
        4: (1, None),
    }
    assert json.loads(dump_json(value)) == {
        "point": {"x": 0.5, "tags": ["a", "b"]},
        "array": [0, 1, 2],
        "flag": True,
        "path": str(Path("a") / "b"),
        "4": [1, None],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), np.array(np.nan)])
def test_json_writes_null_for_what_is_no_number(value: object) -> None:
    assert dump_json({"loss": value}, indent=None) == '{"loss": null}'


def test_json_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="object has no form in JSON"):
        to_plain([object()])


def layer(name: str, blob: int = 0, **more: Any) -> LayerSparsity:
    if blob:
        none = NonZero(0, 0)
        return LayerSparsity(
            f"{name}[1]", name, 1, "Convolution", (20,), NonZero(20, 20), None, None, None, none, NonZero(5, 20), **more
        )
    return LayerSparsity(
        f"{name}[0]", name, 0, "Convolution", (20, 1, 5, 5),
        NonZero(110, 500), NonZero(5, 20), NonZero(1, 1), NonZero(24, 25), NonZero(240, 1000), NonZero(120, 500), **more,
    )  # fmt: skip


def test_sparsity_table_names_the_layers_and_counts_biases_in_the_total() -> None:
    text = sparsity_table([layer("conv1"), layer("conv1", 1)]).text()
    assert text == (
        "Sparsity\n"
        "                        filters  channels   columns  non-zero  parameters   FLOPs\n"
        "layer          weights     left      left      left   weights        left    left\n"
        "---------------------------------------------------------------------------------\n"
        "conv1   20 x 1 x 5 x 5  5 of 20    1 of 1  24 of 25    22.0 %      24.0 %  24.0 %\n"
        "---------------------------------------------------------------------------------\n"
        "total  520 with biases                                 25.0 %      24.0 %  24.0 %\n"
    )


def test_sparsity_table_has_columns_for_blocks_and_regularisation_where_there_are_any() -> None:
    blocks = (NonZeroBlocks(3, 20, 1, 25), NonZeroBlocks(91, 100, 1, 5))
    layers = [
        layer("conv1", blocks=blocks, group_lasso=0.25, weight_decay=0.5),
        layer("conv2", group_lasso=None, weight_decay=0.0),
        layer("conv2", 1, group_lasso=0.125, weight_decay=0.0),
    ]
    lines = sparsity_table(layers).text().splitlines()
    assert lines[1].split() == ["filters", "channels", "columns", "non-zero", "parameters", "FLOPs", "regulari-"]
    assert "3 of 20 (1 x 25), 91 of 100 (1 x 5)" in lines[4]
    assert [line.split()[-1] for line in lines[4:7]] == ["0.75", "0", "0.125"]
    assert lines[6].split()[0] == "conv2[1]"
    assert " - " in lines[5] and " - " not in lines[4], "a dash where no tile is declared"
    assert lines[-1].split()[-1] == "0.875"


def test_sparsity_table_of_nothing_has_a_total() -> None:
    assert sparsity_table([]).text().splitlines()[-1].startswith("total  0 with biases")


def test_coupled_table_says_which_layers_are_tied() -> None:
    families = [
        CoupledSparsity("conv1", NonZero(12, 16), ("conv1", "res1", "scale1"), ("res2", "ip"), 0.25),
        CoupledSparsity("alone", NonZero(0, 4), ("alone",), (), 0.0),
    ]
    assert coupled_table(families).text() == (
        "Coupled groups\n"
        "channels of      left  group lasso\n"
        "----------------------------------\n"
        "conv1        12 of 16         0.25\n"
        "alone          0 of 4            0\n"
        "conv1: coupled with res1, scale1; read by res2, ip\n"
        "alone: coupled with no other layer\n"
    )
    assert "coupled with" not in coupled_table(families, explained=False).text()


def test_long_lists_of_tied_layers_are_folded() -> None:
    names = tuple(f"res{i}-branch" for i in range(30))
    lines = tied(CoupledSparsity("conv1", NonZero(12, 16), names, (), 0.25)).splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 100
    assert all(any(name in line for line in lines) for name in names)


def test_sparsity_summary_is_one_line() -> None:
    assert sparsity_summary([layer("conv1"), layer("conv1", 1), layer("conv2")]) == "conv1 5/20  conv2 5/20"


def test_heads_of_several_lines_stand_on_the_line_below(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("", "layer", "forward\nA ms", "speedup", drop=[1])
    table.add("conv1", "0.125", "2.00x")
    assert table.text().splitlines() == [
        "       forward",
        "layer     A ms  speedup",
        "-----------------------",
        "conv1    0.125    2.00x",
    ]
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    print_table(table, terminal)
    shown = re.sub(r"\x1b\[\d*m", "", terminal.getvalue())
    assert [line.split() for line in shown.splitlines()[:2]] == [["forward"], ["layer", "A", "ms", "speedup"]]
