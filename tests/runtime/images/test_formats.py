from __future__ import annotations

from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.runtime.images.formats import FORMATS, check_format, check_sides, read_extension


def test_knows_the_limits_of_formats() -> None:
    check_sides(Path("p.png"), 100_000, 100_000)
    check_sides(Path("p.webp"), 16_383, 10)
    with pytest.raises(DvmsrError, match="at most 16383 a side; choose PNG"):
        check_sides(Path("p.webp"), 16_384, 10)
    with pytest.raises(DvmsrError, match="at most 65500"):
        check_sides(Path("p.jpg"), 10, 65_501)


@pytest.mark.parametrize("name", ["p", "p.psd", "p.png.txt"])
def test_refuses_unknown_extensions(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in one of \.png, \.jpg"):
        check_format(Path(name))


@pytest.mark.parametrize("name", ["png", "PNG", ".png"])
def test_names_of_formats(name: str) -> None:
    assert read_extension(name) == ".png"
    assert read_extension("mp4", "--format", (*FORMATS, ".mp4")) == ".mp4"


@pytest.mark.parametrize("name", ["", "xyz", "mp4", "\ufffd"])
def test_what_is_no_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^format must be one of png, .*avif.*, not '") as refused:
        read_extension(name)
    assert "mp4," not in str(refused.value)
