"""What is expected of the GPU, written into the results before anything is measured.

For an H100: 132 multiprocessors at 1.755 GHz, and for an H200, whose multiprocessors are the
same and whose memory is faster; of other GPUs nothing is predicted here (docs/cuda-scan.md does).
From the kernels' machine code (sm_90, counted by `machine_code.py`) and an in-order issue model
of it, good for 25 %:

* relay: 151 instructions and 20 special functions per token and warp, which take 160 cycles, and
  203 with what 16 warps leave open; the walk back goes as far as states count, on the captured
  inputs a fifth of a range of 5,239 tokens with the bundled weights and a twentieth with the
  official ones.
* chunks: 147 instructions, 124 of the correction, 20 special functions each; the correction walks
  all tokens with the bundled weights, and of the official ones 63 %.
"""

from __future__ import annotations

from typing import Any

CARDS = "H100 (132 multiprocessors, 1.755 GHz) and H200; not for other GPUs"

_SCAN_US = {
    ("student", 172_890): {"relay": (170, 220), "chunks": (345, 415)},
    ("official", 172_890): {"relay": (140, 185), "chunks": (280, 340)},
    ("student", 65_536): {"relay": (78, 100), "chunks": (135, 160)},
    ("official", 65_536): {"relay": (58, 78), "chunks": (135, 160)},
    ("student", 16_384): {"relay": (27, 36), "chunks": (40, 40)},
    ("official", 16_384): {"relay": (20, 28), "chunks": (40, 40)},
}
"""By inputs and L, FP16, batch 1, D 120, N 16, and by variant."""


def scan_us(kind: str, batch: int, length: int, dtype: str) -> dict[str, tuple[int, int]] | None:
    """From and to in microseconds, by variant; None where nothing was predicted."""
    return _SCAN_US.get((kind, length)) if (batch, dtype) == (1, "float16") else None


PREDICTIONS: dict[str, dict[str, Any]] = {
    "build": {
        "cards": CARDS,
        "registers": {
            "scan_chunks<__half, 16, true>": 128,
            "relay<__half, 16, true, 8>": 126,
            "reach_back<__half, 16, true>": 128,
        },
        "spilled_bytes": 0,
    },
    "facts": {
        "cards": CARDS,
        "ex2_per_second": 132 * 16 * 1.755e9,
        "fma_per_second": 132 * 128 * 1.755e9,
        "ex2_bias": "2 ulp are promised; 1/4 ulp puts slow decays off by 1.6e-5 at L = 4096, "
        "1/2 ulp by 3.3e-5 (emulated)",
    },
    "correct": {"off": 0},
    "plugin": {"off": 0},
    "sanitize": {"reports": 0},
    "scan": {
        "cards": CARDS,
        "median_us": [
            {
                "inputs": kind,
                "batch": 1,
                "length": length,
                "dtype": "float16",
                "variant": variant,
                "from": low,
                "to": high,
            }
            for (kind, length), variants in _SCAN_US.items()
            for variant, (low, high) in variants.items()
        ],
        "floor_us": {"length": 172_890, "exponentials": 90, "bytes": 53},
        "targets": {
            "times_faster_than_mamba_ssm": "at least 5 at batch 1 and L >= 65536",
            "fraction_of_floor": "at least 0.5",
        },
    },
    "network": {
        "cards": CARDS,
        "scans_alone_ms": "0.55 to 0.75 of 8 layers at 256x256, FP16: what is left for all else "
        "makes 1 ms unlikely",
        "targets": {
            "p50_ms": "at most 1 at 256x256, FP16; at most 2 at first",
            "times_faster_than_mamba_ssm_eager": "at least 10",
            "against_rlfn": "not slower",
            "against_cpu_fp32": "FP32 at most 2e-4, FP16 at least 60 dB",
        },
    },
}
"""By step."""
