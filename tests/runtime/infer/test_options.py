"""Options against what is to be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvmsr.errors import UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.options import Options
from dvmsr.runtime.storage.stream import Stream


def jobs(*targets: str) -> list[Job]:
    return [Job(Path("in", target), Path("out", target)) for target in targets]


@pytest.mark.parametrize(
    "to_do",
    [jobs("a.jpg"), jobs("a.png", "b.WEBP"), jobs("a.avif", "b.mp4"), [Job(Stream(), Stream())]],
    ids=["jpg", "png-webp", "avif-mp4", "stream"],
)
def test_a_quality_is_for_what_may_have_one(to_do: list[Job]) -> None:
    Options(quality=50).check(to_do)


@pytest.mark.parametrize("names", [["a.png"], ["a.tif", "b.gif"], ["a.png", "b.mp4"]], ids=str)
def test_a_quality_that_no_result_has_is_refused(names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--quality is of JPEG, WebP and AVIF, and no result"):
        Options(quality=50).check(jobs(*names))
    Options().check(jobs(*names))
