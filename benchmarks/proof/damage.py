"""Thousands of damaged files: pictures in memory and by rows, models and videos.

    python benchmarks/proof/damage.py [--cases 3000] [--seed 100000]

Each file is damaged as its seed decides (tests/helpers/damage.py). A command must end with a
sentence or with a result for every one: no traceback, no signal, no line of a library, nothing
partly written, no message without the file's name and a remedy. Stores how many ended how in
benchmarks/results/proof-damage.json, and ends with 1 if anything was amiss. `--cases` are those of
pictures, each way; of models and videos there are a tenth as many.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from clips import clip  # noqa: E402
from damage import Findings, cases, enlarged, loaded, sources, tiffs  # noqa: E402

from dvmsr.runtime.bench import machine  # noqa: E402
from dvmsr.weights.registry import find_model  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "proof-damage.json"
AT_ONCE = 250
SCALE = 4


def pictures(folder: Path) -> dict[str, bytes]:
    return {**sources(), **tiffs(folder)}


def models(folder: Path) -> dict[str, bytes]:
    weights = find_model("student").parent
    return {path.name: path.read_bytes() for path in sorted(weights.glob("dvmsr_x4*.*x"))}


def checkpoints(folder: Path) -> dict[str, bytes]:
    import torch

    from dvmsr import checkpoint
    from dvmsr.weights.registry import find_checkpoint

    network = checkpoint.load(find_checkpoint("student"))
    torch.save(network.state_dict(), folder / "student.pth")
    checkpoint.save(network, folder / "student.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("student.*"))}


def videos(folder: Path) -> dict[str, bytes]:
    made = {
        "a.mp4": {"sound": "aac"},
        "b.mkv": {"subtitles": True, "extras": True},
        "c.mov": {"codec": "libx265", "pixels": "yuv420p10le"},
        "d.webm": {"codec": "libvpx-vp9"},
    }
    return {
        name: Path(
            clip(folder / name, times=range(0, 400, 40), size=(32, 24), **options)
        ).read_bytes()
        for name, options in made.items()
    }


def in_memory(files: dict[str, bytes], place: Path) -> Findings:
    return enlarged(files, place, SCALE)


def by_rows(files: dict[str, bytes], place: Path) -> Findings:
    return enlarged(files, place, SCALE, ["--strip", "8"])


def every(name: str) -> bool:
    return True


def one_picture(name: str) -> bool:
    return not name.startswith(("moving", "several"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=100_000)
    told = parser.parse_args()
    tenth = max(told.cases // 10, 1)
    ways = [
        ("pictures in memory", pictures, told.cases, every, in_memory),
        ("pictures by rows", pictures, told.cases, one_picture, by_rows),
        ("ONNX files", models, tenth, every, lambda files, place: loaded(files, place, "portable")),
        (
            "checkpoints",
            checkpoints,
            tenth,
            every,
            lambda files, place: loaded(files, place, "torch"),
        ),
        ("videos", videos, tenth, every, in_memory),
    ]
    report: dict[str, dict[str, int]] = {}
    faults: list[str] = []
    for title, make, count, wanted, judge in ways:
        begun, findings = time.monotonic(), Findings()
        with tempfile.TemporaryDirectory() as place:
            whole = make(Path(place))
        for first in range(told.seed, told.seed + count, AT_ONCE):
            at_once = min(AT_ONCE, told.seed + count - first)
            with tempfile.TemporaryDirectory() as place:
                findings += judge(cases(whole, first, at_once, wanted), Path(place))
            print(f"{title}: {first + at_once - told.seed} of {count}", file=sys.stderr)
        report[title] = dict(sorted(findings.outcomes.items()))
        faults += [f"{title}: {fault}" for fault in findings.faults]
        print(f"{title}: {report[title]}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    stored = {
        "seed": told.seed,
        "outcomes": report,
        "faults": faults,
        "machine": machine.describe(),
    }
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")
    print("\n".join(faults) or "nothing amiss", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
