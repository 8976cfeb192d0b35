"""Capture what the scans of a network get to see while it enlarges a photograph.

    python benchmarks/gpu/capture.py official=FILE.pth student=dvmsr/weights/dvmsr_x4.safetensors

Writes `scan_statistics.json`: quantiles of delta and statistics of A, per layer (what they
keep of the real inputs: `captured.py`). No weight is in it. Prints how much of the scan's
correction is left, for the real inputs and for those that are drawn from the statistics, and how
much of a walk back over longer ranges (the table of `docs/cuda-scan.md`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import captured
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dvmsr import checkpoint, ops
from dvmsr.errors import DvmsrError

RANGES = (496, 1986, 5239)
"""Tokens."""

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "chelsea.png"


@contextmanager
def watched(calls: list[dict[str, np.ndarray]]) -> Iterator[None]:
    """Notes what every selective scan in the block gets: delta after bias and softplus, A, u,
    B, C."""
    own = ops.selective_scan

    def watch(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
        delta_bias: Tensor, h0: Tensor | None, z: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        step = torch.nn.functional.softplus(delta + delta_bias)
        found = {"delta": step[0], "A": A, "u": u[0], "B": B[0, :, 0], "C": C[0, :, 0]}
        calls.append({name: tensor.detach().numpy().copy() for name, tensor in found.items()})
        return own(u, delta, A, B, C, D, delta_bias, h0, z)

    ops.selective_scan = watch
    try:
        yield
    finally:
        ops.selective_scan = own


@torch.inference_mode()
def capture(weights: Path, photo: Path = PHOTO) -> list[dict[str, np.ndarray]]:
    """What the scan of each layer gets, in FP32 on the CPU.

    Raises:
        DvmsrError: if the weights cannot be read.
    """
    network = checkpoint.load(weights).eval()
    pixels = np.asarray(Image.open(photo).convert("RGB"), np.float32) / 255
    calls: list[dict[str, np.ndarray]] = []
    with watched(calls):
        network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    return calls


def json_ready(layer: captured.Layer) -> dict[str, Any]:
    def digits(values: Any, count: int) -> Any:
        return np.vectorize(lambda value: float(f"{value:.{count}g}"))(values).tolist()

    return {
        "delta": digits(layer.delta, 3),
        "slowest": digits(layer.slowest, 2),
        "ratios": digits(layer.ratios, 3),
        **{name: digits(getattr(layer, name), 3) for name in ("u", "B", "C")},
    }


def compare(name: str, calls: list[dict[str, np.ndarray]]) -> None:
    """Prints what is left of the correction, really and as drawn."""
    layers = captured.load()[name]
    for number, (real, layer) in enumerate(zip(calls, layers, strict=True)):
        drawn = captured.draw(layer, len(real["delta"]), seed=number)
        delta = np.logaddexp(0, drawn["delta"][0] + drawn["delta_bias"])
        both = captured.left(real["delta"], real["A"]), captured.left(delta, drawn["A"])
        parts = (f"{part} {both[0][part]:.3f} {both[1][part]:.3f}" for part in both[0])
        print(f"{name} layer {number}, left really and as drawn: {', '.join(parts)}")


def walk_back(name: str, calls: list[dict[str, np.ndarray]]) -> None:
    """Prints what is left of a walk back over at most so many tokens, the mean of all layers."""
    for tokens in RANGES:
        layers = [captured.left(real["delta"], real["A"], tokens) for real in calls]
        parts = (f"{part} {np.mean([layer[part] for layer in layers]):.3f}" for part in layers[0])
        print(f"{name}, left over {tokens} tokens: {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", metavar="NAME=WEIGHTS")
    arguments = parser.parse_args()
    content: dict[str, Any] = {
        "what": "statistics of a network's selective scans while it enlarges a photograph",
        "photo": PHOTO.name,
        "delta_levels": captured.DELTA_LEVELS,
        "ratio_levels": captured.RATIO_LEVELS,
        "networks": {},
    }
    found = {}
    for given in arguments.networks:
        name, equals, weights = given.partition("=")
        if not equals:
            parser.error(f"{given} names no weights; write NAME=WEIGHTS")
        try:
            found[name] = capture(Path(weights))
        except DvmsrError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        content["networks"][name] = {
            "weights_sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
            "layers": [json_ready(captured.statistics(**call)) for call in found[name]],
        }
    rows = re.compile(r"\[[^\[\]{}]+\]")  # each on one line
    text = rows.sub(lambda row: " ".join(row[0].split()), json.dumps(content, indent=1))
    captured.FILE.write_text(text + "\n")
    for name, calls in found.items():
        compare(name, calls)
        walk_back(name, calls)


if __name__ == "__main__":
    main()
