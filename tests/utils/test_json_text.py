from __future__ import annotations

import pytest

from dvmsr.utils.json_text import parse


def test_reads_what_json_is() -> None:
    assert parse('{"a": [1, null]}') == parse(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, b"\xff", b"\xff\xfe["],
    ids=["nothing", "cut off", "brackets", "braces", "digits", "no text", "UTF-16"],
)  # fmt: skip
def test_whatever_else_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse(text)
