from __future__ import annotations

import pytest

from dvmsr.config import DVMSRConfig
from dvmsr.runtime import memory, strip_height
from dvmsr.strips import least_rows

STUDENT = DVMSRConfig()
LEAST = least_rows(STUDENT)


def test_a_processor_gets_strips_even_where_the_image_fits() -> None:
    rows = strip_height.choose(STUDENT, "native", 1000, 256, limit=1 << 40)
    assert rows == strip_height.TOKENS_AT_ONCE // 256
    assert strip_height.choose(STUDENT, "native", 10, 256, limit=1 << 40) == 10
    assert strip_height.choose(STUDENT, "native", 50, 10**5, limit=1 << 40) == LEAST


def test_pytorch_gets_the_whole_image_where_it_fits() -> None:
    whole = memory.estimate(STUDENT, "torch", 1000, 256)
    assert strip_height.choose(STUDENT, "torch", 1000, 256, limit=whole) == 1000
    assert strip_height.choose(STUDENT, "torch", 1000, 256, limit=whole - 1) < 1000


@pytest.mark.parametrize("megabytes", [120, 150, 200, 300])
def test_fits_the_limit(megabytes: int) -> None:
    size = (STUDENT, "native", 2000, 200)
    rows = strip_height.choose(*size, limit=megabytes << 20)
    assert memory.estimate_strips(*size, rows) <= megabytes << 20 or rows == LEAST


def test_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory.estimate(STUDENT, "torch", 100, 100)
    monkeypatch.setattr(memory, "available", lambda: 2 * whole)
    assert strip_height.choose(STUDENT, "torch", 100, 100) == 100
    monkeypatch.setattr(memory, "available", lambda: 2 * whole - 2)
    assert strip_height.choose(STUDENT, "torch", 100, 100) < 100
    monkeypatch.setattr(memory, "available", lambda: None)
    assert strip_height.choose(STUDENT, "torch", 100, 100) == 100


def test_a_gpu_gets_the_whole_image() -> None:
    assert strip_height.choose(STUDENT, "cuda", 10**5, 10**5, limit=1) == 10**5


def test_what_is_carried_counts() -> None:
    """Measured: 296 MiB beyond the loaded model for strips of 8 rows of 10,000 pixels."""
    estimate = memory.estimate_strips(STUDENT, "native", 0, 10_000, LEAST)
    assert 296 << 20 < estimate < 600 << 20


def test_by_rows_only_the_width_counts() -> None:
    """A whole process had 608 MiB, some 500 of them beyond the loaded model, for 10,000 columns."""
    estimate = memory.estimate_by_rows(STUDENT, "native", 10_000, LEAST, held=0)
    assert 500 << 20 < estimate < 1 << 30
    sizes = (STUDENT, "native", 10**6, 10_000)
    assert strip_height.choose(*sizes, limit=1 << 30, held=0) == LEAST
    assert strip_height.choose(STUDENT, "native", 10**6, 100, limit=1 << 30, held=0) == 655
    assert strip_height.choose(STUDENT, "native", 10**6, 100, limit=1 << 30, held=1 << 30) == LEAST
