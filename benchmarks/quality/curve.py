"""Draw the learning curve of the bundled weights from the logs of its runs.

    pip install matplotlib
    python benchmarks/quality/curve.py docs/examples/learning-curve.svg

The logs are benchmarks/results/training-student-x4-*.jsonl in the order of their numbers; each run
began with the best weights of the one before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"
BICUBIC = 26.911
"""PSNR-Y of bicubic interpolation on the same images, by `dvmsr eval --model bicubic`."""


def points(log: Path) -> list[tuple[int, float]]:
    """Steps and validation PSNR in dB."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [(row["step"], row["psnr_y"]) for row in rows if "psnr_y" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dvmsr"  # equal logs, equal files
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    before = 0
    found = RESULTS.glob("training-student-x4-*.jsonl")
    logs = {int(log.stem.rpartition("-")[2]): log for log in found}
    for number, log in sorted(logs.items()):
        scores = points(log)
        steps = [before + step for step, _ in scores]
        axes.plot(steps, [score for _, score in scores], ".-", label=f"run {number}")
        before += max(scores, key=lambda point: point[1])[0]
    axes.axhline(BICUBIC, color="gray", linestyle=":", label="bicubic")
    axes.set(xlabel="steps", ylabel="PSNR-Y on Kodak in dB")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
