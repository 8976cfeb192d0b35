"""The limits of a comparison: what breaks them and how they are written."""

from __future__ import annotations

import math

import pytest

from dvmsr.errors import UsageError
from dvmsr.runtime.parity.limits import (
    BF16_MIN_PSNR,
    FP16_MIN_PSNR,
    FP32_MAX_ABS,
    ArrayLimits,
    Limits,
    default_array_limits,
    default_limits,
    parse_limits,
)


@pytest.mark.parametrize(
    ("precisions", "limits"),
    [
        (["fp32"], Limits(max_abs=FP32_MAX_ABS)),
        (["fp32", "fp32"], Limits(max_abs=FP32_MAX_ABS)),
        (["fp32", "fp16"], Limits(psnr=FP16_MIN_PSNR)),
        (["bf16", "fp32"], Limits(psnr=BF16_MIN_PSNR)),
    ],
    ids=str,
)
def test_defaults(precisions: list[str], limits: Limits) -> None:
    assert default_limits(*precisions) == limits


@pytest.mark.parametrize(
    ("max_abs", "psnr", "delta", "count"),
    [
        (1e-3, 50.0, 0.01, 0),
        (1e-3, 50.0, -0.01, 0),
        (1.1e-3, 49.0, -0.02, 3),
        (1e-3, math.inf, 0.0, 0),
        (math.nan, math.nan, math.nan, 3),
        (math.inf, -math.inf, 0.0, 2),
    ],
)
def test_what_breaks_them(max_abs: float, psnr: float, delta: float, count: int) -> None:
    assert len(Limits(1e-3, 50.0, 0.01).broken(max_abs, psnr, delta)) == count
    assert Limits().broken(max_abs, psnr, delta) == []


def test_are_written_in_any_order() -> None:
    assert parse_limits("psnr=60", Limits) == Limits(psnr=60)
    assert parse_limits("delta-psnr=0.01, max-abs=1e-3,psnr=55", Limits) == Limits(1e-3, 55, 0.01)
    assert str(Limits(1e-3, 55, 0.01)) == (
        "max abs at most 0.001, at least 55 dB, PSNR within 0.01 dB"
    )


@pytest.mark.parametrize(
    "text", ["", "60", "psnr", "psnr=", "psnr=high", "psnr=nan", "ssim=1", "psnr=60,psnr=50"]
)
def test_refuses_what_is_no_limit(text: str) -> None:
    with pytest.raises(UsageError, match="--limits takes max-abs=NUMBER"):
        parse_limits(text, Limits)


@pytest.mark.parametrize(
    ("precisions", "on_gpu", "relative"),
    [
        (["fp32", "fp64"], False, 1e-5),
        (["fp32", "fp32"], True, 1e-3),
        (["fp32", "fp16"], False, 1e-2),
        (["bf16", "fp16"], True, 5e-2),
    ],
    ids=str,
)
def test_of_arrays(precisions: list[str], on_gpu: bool, relative: float) -> None:
    assert default_array_limits(precisions, on_gpu) == ArrayLimits(relative=relative)


def test_of_arrays_as_written() -> None:
    limits = parse_limits("max-abs=2,relative=1e-3", ArrayLimits)
    assert limits == ArrayLimits(1e-3, 2)
    assert str(limits) == "at most 0.001 of the largest, max abs at most 2"
    assert limits.broken(1e-3, 2) == []
    assert len(limits.broken(math.nan, math.inf)) == 2
    with pytest.raises(UsageError, match=r"--limits max-abs=-1 is below 0; give the most"):
        parse_limits("relative=0, max-abs=-1", ArrayLimits)
    with pytest.raises(UsageError, match="takes relative=NUMBER and max-abs=NUMBER, separated"):
        parse_limits("psnr=60", ArrayLimits)
    with pytest.raises(UsageError, match="max-abs=NUMBER, psnr=NUMBER and delta-psnr=NUMBER"):
        parse_limits("relative=60", Limits)
