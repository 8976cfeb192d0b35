"""`dvmsr-infer` killed at random moments leaves nothing half written, and goes on.

    python benchmarks/proof/interrupts.py [--kills 100] [--seed 0]

It enlarges small pictures with a manifest and is ended by SIGKILL, at any moment between its start
and its end. Then each result that is there must have every byte of an undisturbed run's, and
nothing else may be there but the manifest and temporary files. With --resume the command must
complete the results, all equal to an undisturbed run's. Stores what the kills met in
benchmarks/results/proof-interrupts.json, and ends with 1 if anything was amiss.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dvmsr.runtime.bench import machine

RESULT = Path(__file__).resolve().parents[1] / "results" / "proof-interrupts.json"
COMMAND = [sys.executable, "-c", "from dvmsr.entry import dvmsr_infer; dvmsr_infer()"]
SUFFIXES = (".png", ".jpg", ".webp", ".tif")
PICTURES = 8
HEIGHT, WIDTH = 96, 128
MANIFEST = "manifest.jsonl"


def make_pictures(folder: Path) -> None:
    """Smooth ones with some noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(PICTURES):
        noise = np.random.default_rng(number).normal(0, 8, (HEIGHT, WIDTH, 3))
        waves = [128 + 90 * np.sin((x + y * number) / length) for length in (5, 11, 23)]
        pixels = np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{SUFFIXES[number % len(SUFFIXES)]}")


def begin(source: Path, target: Path, *options: str) -> subprocess.Popen[str]:
    """The command, with its manifest beside the results."""
    command = [*COMMAND, str(source), "-o", str(target), "--manifest", str(target / MANIFEST)]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


def completed(source: Path, target: Path, *options: str) -> float:
    """Seconds that the command took, which must not fail."""
    start = time.monotonic()
    process = begin(source, target, *options)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"exit code {process.returncode} with {options}: {said}")
    return time.monotonic() - start


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the folder but for the manifest and what a killed process was writing to."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != MANIFEST and not is_temporary(path)
    }


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".dvmsr-") and path.suffix == ".tmp"


def killed_once(
    source: Path, target: Path, whole: dict[str, bytes], moment: float
) -> dict[str, Any]:
    """Kill the command after so many seconds, look, go on, and look again."""
    process = begin(source, target)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    left = contents(target)
    manifest = target / MANIFEST
    met = {
        "killed": process.returncode == -signal.SIGKILL,
        "begun": manifest.exists() and manifest.stat().st_size > 0,
        "results": len(left),
        "temporary": any(map(is_temporary, target.iterdir())),
        "half_written": any(whole.get(name, data) != data for name, data in left.items()),
        "foreign": bool(left.keys() - whole.keys()),
    }
    completed(source, target, "--resume")
    return {**met, "equal": contents(target) == whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    met = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "pictures"
        for each in (source, folder / "whole"):
            each.mkdir()
        make_pictures(source)
        duration = completed(source, folder / "whole")
        whole = contents(folder / "whole")
        assert len(whole) == PICTURES
        for number in range(arguments.kills):
            target = folder / str(number)
            target.mkdir()
            met.append(killed_once(source, target, whole, moments.uniform(0, duration)))
    killed = [each for each in met if each["killed"]]
    results = Counter(each["results"] for each in killed)
    amiss = {
        "half_written": sum(each["half_written"] for each in met),
        "foreign_files": sum(each["foreign"] for each in met),
        "not_resumed_to_equal_results": sum(not each["equal"] for each in met),
    }
    content = {
        "what": f"dvmsr-infer --manifest over {PICTURES} pictures of {WIDTH}x{HEIGHT}, killed by "
        "SIGKILL at random moments, then --resume",
        "machine": machine.describe(),
        "seed": arguments.seed,
        "undisturbed_seconds": round(duration, 2),
        "runs": len(met),
        "killed_before_their_end": len(killed),
        "of_these_with_a_line_in_the_manifest": sum(each["begun"] for each in killed),
        "of_these_with_a_temporary_file": sum(each["temporary"] for each in killed),
        "of_these_by_results_that_were_there": {str(n): results[n] for n in sorted(results)},
        **amiss,
    }
    text = json.dumps(content, indent=1)
    RESULT.write_text(text + "\n")
    print(text)
    sys.exit(any(amiss.values()))


if __name__ == "__main__":
    main()
