"""Step 6: train for as long as there is time.

    python benchmarks/gpu/training.py PHOTOGRAPHS... --run FOLDER [--val FOLDER]

`dvmsr train` on photographs (folders or .tar files) with the validation folder, and from where
the run in FOLDER stopped; its log, its checkpoints and the state to go on from are brought beside
the results every half minute.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from models import CODE
from results import Results, parser, step

from dvmsr.errors import MissingComponentError
from dvmsr.kernels import cuda

LAST = 15.0
"""Seconds for the last validation and checkpoint."""
EVERY = 30.0
"""Seconds after which what the run has is brought beside the results again."""
KEPT = ("best.safetensors", "last.safetensors", "log.jsonl", "resume.pt")
"""Of the run's folder; with the last two in one, it goes on on another machine, too."""
MINUTES = "gpu-minutes.txt"
"""In the run's folder: what it had so far. `dvmsr train --minutes` counts all sessions together."""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("photographs", nargs="*", type=Path)
    options.add_argument("--run", type=Path, required=True, help="the run's folder")
    options.add_argument("--val", type=Path, help="validation pictures")
    arguments = options.parse_args()
    if not arguments.photographs:
        raise MissingComponentError("there are no photographs to train on")
    import torch

    if not torch.cuda.is_available():
        raise MissingComponentError("PyTorch sees no GPU here; install PyTorch with CUDA")
    device = cuda.load().device()
    results = Results("train", device.name, device, "dvmsr train")
    command = [sys.executable, "-c", CODE, "dvmsr", "train", "-o", str(arguments.run)]
    if (arguments.run / "resume.pt").exists():
        command += ["--resume"]
    else:
        command += ["--data", *map(str, arguments.photographs)]
        command += ["--val", str(arguments.val)] if arguments.val else []
    if arguments.seconds:
        told = arguments.run / MINUTES
        before = float(told.read_text()) if told.is_file() else 0.0
        minutes = before + max(arguments.seconds - LAST, 1) / 60
        arguments.run.mkdir(parents=True, exist_ok=True)
        told.write_text(f"{minutes}\n")
        command += ["--minutes", str(minutes)]
    training = subprocess.Popen(command)
    results.put(command=command[3:])
    status: int | None = None
    while status is None:
        with suppress(subprocess.TimeoutExpired):
            status = training.wait(EVERY)
        for name in KEPT:
            if (arguments.run / name).is_file():
                shutil.copy(arguments.run / name, results.beside(name))
    results.put(exit_code=status)
    results.finish()
    return status


if __name__ == "__main__":
    step(main)
