from __future__ import annotations

import pytest

from dvmsr.errors import UsageError
from dvmsr.utils.sizes import in_words, parse_bytes, parse_shape, parse_size


def test_sizes() -> None:
    assert parse_size("--min", "270X480") == (270, 480)
    assert parse_size("--min", "1x99999") == (1, 99999)
    assert parse_shape("--static", "1x270x480") == (1, 270, 480)


@pytest.mark.parametrize("text", ["", "1x", "1x2x3", "-1x2", "0x2", "100000x1", "²x1", "axb"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match=r"--opt takes HEIGHTxWIDTH.* such as 270x480, not"):
        parse_size("--opt", text)


@pytest.mark.parametrize("text", ["", "1x2", "1x2x3x4", "1x2x³", "0x1x1", "1x9999999x9999999"])
def test_no_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="--static takes BATCHxHEIGHTxWIDTH"):
        parse_shape("--static", text)


def test_a_very_long_size_is_not_repeated() -> None:
    with pytest.raises(UsageError) as error:
        parse_size("--size", "1" * 5000 + "x1")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 << 30), ("1.5GiB", 3 << 29), ("800 MB", 800 << 20), ("4096", 4096), ("1k", 1024)],
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes("--memory", text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "much", "-1G", "0", "nan", "inf", "1e999G", "2X", "9" * 5000]
)
def test_no_bytes(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory takes .* such as 2G or 800M, not") as error:
        parse_bytes("--memory", text)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (3 << 29, "1.5 GiB"),
        (5 << 40, "5.0 TiB"),
        (2_000_000, "1.9 MiB"),
        (100, "0.1 KiB"),
        (-5, "0.0 KiB"),
    ],
)
def test_bytes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
    assert size < 0 or parse_bytes("--memory", words) == pytest.approx(size, rel=0.05)
