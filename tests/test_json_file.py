"""JSON from files: one error for what is none, and values of the wrong type are values that are not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslnet.errors import UsageError, WeightsError
from sslnet.json_file import fields, items, number, read_json, whole

NO_JSON = {
    "nothing": b"",
    "half": b'{"a": [1',
    "not UTF-8": b'{"a": \xff}',
    "nested too deep": b"[" * 200_000,
    "a number of 10,000 digits": b"9" * 10_000,
}


@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json_is_one_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(NO_JSON[content])
    with pytest.raises(WeightsError, match=r"a\.json: error: cannot be read as JSON: "):
        read_json(tmp_path / "a.json", error=WeightsError)


@pytest.mark.parametrize("name", [".", "none.json", "/dev/zero"])
def test_what_is_no_file_is_one_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_json(name)


def test_values_are_taken_by_their_type() -> None:
    odd = [None, True, "1", [1], {"a": 1}, float("nan"), float("-inf"), 10**400, 1e300]
    assert [number(value) for value in odd] == [None] * len(odd)
    assert [number(value) for value in (0, -2, 0.5)] == [0, -2, 0.5]
    assert [whole(value) for value in (*odd, -1, 1.0, 2**63)] == [None] * (len(odd) + 3)
    assert [whole(value) for value in (0, 7, 2**63 - 1)] == [0, 7, 2**63 - 1]
    assert [fields(value) for value in odd] == [{}, {}, {}, {}, {"a": 1}, {}, {}, {}, {}]
    assert [items(value) for value in odd] == [[], [], [], [1], [], [], [], [], []]
