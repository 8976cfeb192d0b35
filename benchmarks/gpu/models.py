"""Step 4, the exported model: ONNX Runtime's CUDA provider and TensorRT, where they are.

    python benchmarks/gpu/models.py CHECKPOINT

Exports the checkpoint in FP32 and FP16, builds engines where TensorRT is, times all of them with
`dvmsr bench` in one run and holds each to PyTorch with `dvmsr parity`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from results import Deadline, Results, parser, step

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels import cuda

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "chelsea.png"
CODE = "import sys; from dvmsr import entry; getattr(entry, sys.argv.pop(1))()"


class Late(Exception):
    """No time is left for a command."""


class Commands:
    """dvmsr's command lines, within a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def run(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`dvmsr`, `dvmsr_export` or `dvmsr_infer`; what it says goes to stderr.

        Raises:
            Late: if it does not end in time.
        """
        left = self._deadline.left()
        if left <= 0:
            raise Late(f"{name} {arguments[0]}")
        command = [sys.executable, "-c", CODE, name, *map(str, arguments)]
        limit = None if left == float("inf") else left
        try:
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise Late(f"{name} {arguments[0]}") from None


def runtimes() -> dict[str, bool]:
    """Which of the two are installed."""
    from dvmsr.runtime.backends.onnxrt.library import onnxruntime

    return {
        "ONNX Runtime's CUDA provider": "CUDAExecutionProvider"
        in onnxruntime.get_available_providers(),
        "TensorRT": importlib.util.find_spec("tensorrt") is not None,
    }


def prepare(
    commands: Commands, checkpoint: Path, folder: Path, found: dict[str, bool]
) -> list[str]:
    """The models that work here, as `dvmsr bench` takes them.

    Raises:
        DvmsrError: if the checkpoint cannot be exported.
        Late: if the time is over.
    """
    models = []
    for name, options in (("fp32", ()), ("fp16", ("--fp16",))):
        onnx, engine = folder / f"{name}.onnx", folder / f"{name}.engine"
        if commands.run("dvmsr_export", "onnx", checkpoint, *options, "-o", onnx).returncode:
            raise DvmsrError(f"{checkpoint} could not be exported, as said above")
        if found["ONNX Runtime's CUDA provider"]:
            command = ["--model", onnx, "--backend", "cuda", "-o", folder / f"{name}.cuda.png"]
            if not commands.run("dvmsr_infer", PHOTO, *command).returncode:
                models.append(f"{onnx}:cuda")
        if (
            found["TensorRT"]
            and not commands.run("dvmsr_export", "trt", onnx, "-o", engine).returncode
        ):
            command = ["--engine", engine, "-o", folder / f"{name}.trt.png"]
            if not commands.run("dvmsr_infer", PHOTO, *command).returncode:
                models.append(str(engine))
    return models


def main() -> int:
    options = parser(__doc__)
    options.add_argument("checkpoint", type=Path)
    arguments = options.parse_args()
    commands = Commands(Deadline(arguments.seconds))
    found = runtimes()
    if not any(found.values()):
        raise MissingComponentError(
            "neither ONNX Runtime's CUDA provider nor TensorRT is here; both are in the extra gpu"
        )
    device = cuda.load().device()
    what = "dvmsr bench and dvmsr parity of the exported model"
    results = Results("models", device.name, device, what)
    results.put(runtimes=found, parity=[])
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            models = prepare(commands, arguments.checkpoint, Path(folder), found)
            if not models:
                raise DvmsrError("none of the models runs on the GPU, as said above")
            sizes = ("--size", "256x256", "--size", "339x510")
            done = commands.run("dvmsr", "bench", *models, *sizes, "--json")
            status = done.returncode
            if not status:
                results.put(bench=json.loads(done.stdout))
            for model in models:
                code = commands.run("dvmsr", "parity", arguments.checkpoint, model).returncode
                results.add("parity", {"model": Path(model).name, "exit_code": code})
                status = status or code
        except Late as command:
            results.leave_out(str(command))
    results.finish()
    return status


if __name__ == "__main__":
    step(main)
