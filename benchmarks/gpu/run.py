"""Everything that wants a GPU, unattended and within the minutes it is given.

    benchmarks/gpu/run.sh first|second|STEP... [--minutes M] [--results DIR]

`run.sh` starts this with the machine's Python, in which nothing of dvmsr need be installed.
Every step is a script with a share of the time that is left. It is told to end within it, and
is ended where it does not; what it has by then stays. None stops the others. After each step,
and every minute, DIR/<gpu>-<date>.tar.gz has all results and logs of the run; `table.py` reads
it.

Exit codes: 0 all went well, or is not here; 1 a step failed or ran out of time with nothing to
end it; 2 usage; 3 results are off; 4 no GPU, or dvmsr cannot be installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import agenda
import archive
from environment import MAMBA as MAMBA_PACKAGES
from environment import Environment, InstallError, mamba_command, mamba_sources

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "gpu-run"
"""The environment, what is compiled, and the results on their way into the archive."""
MARGIN = 0.1
"""Of its share a step keeps for ending."""
LONGEST_MARGIN = 8.0
"""Seconds of that at most."""
GRACE = 3.0
"""Seconds from being asked to end to being ended."""
RENEW = 60.0
"""Seconds after which the archive is renewed during a step."""
MISSING, OFF = 4, 3
"""What steps end with that lack something, or whose results are off."""
SHORTEST = 1.0
"""Seconds in which no step does anything."""
MAMBA = "mamba-build"
ONNXRUNTIME_HAS_CUDA = (
    "import onnxruntime; found = 'CUDAExecutionProvider' in onnxruntime.get_available_providers()"
)
TORCH_HAS_CUDA = "import torch; found = torch.version.cuda"
GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str, code: int) -> NoReturn:
    """End with a sentence and this exit code."""
    say(f"error: {text}")
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    """One sentence for wrong usage."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; --help tells what there is", 2)


def parsed(given: list[str] | None = None) -> tuple[argparse.Namespace, list[agenda.Step]]:
    """The command line and its steps; ends the process where it makes no sense."""
    table = "\n".join(
        f"  {s.name:9} {s.seconds:4.0f} s  {', '.join(s.parts)}" for s in agenda.STEPS
    )
    parser = Parser(
        prog="benchmarks/gpu/run.sh",
        description="Everything that wants a GPU, unattended and within the minutes it is given.",
        epilog=f"steps, their shares and parts:\n{table}\n\n"
        "environment: PYTHON (python3); DVMSR_CHECKPOINT (the bundled student); DVMSR_RUN, what\n"
        "results are called (<gpu>-<date>); RLFN_CHECKPOINT, MAMBA_SSM, CAUSAL_CONV1D and\n"
        f"TENSORRT_ROOT, by default what carry.py left in {agenda.CARRY.relative_to(ROOT)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("steps", nargs="*", metavar="first|second|STEP")
    parser.add_argument("--minutes", type=float, help="by default the sum of the steps' shares")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR",
        help="where the archive goes (benchmarks/results)",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true", help="small sizes, to try the run itself")
    parser.add_argument("--work", type=Path, default=WORK, help="what is built (build/gpu-run)")
    arguments = parser.parse_intermixed_args(given)
    try:
        steps = agenda.chosen(arguments.steps)
    except ValueError as error:
        parser.error(str(error))
    if arguments.minutes is None:
        arguments.minutes = agenda.minutes(steps)
    if not (math.isfinite(arguments.minutes) and arguments.minutes > 0):
        parser.error(f"--minutes {arguments.minutes:g} is no time to run in")
    run = os.environ.get("DVMSR_RUN", "")
    if not re.fullmatch(r"[\w.-]*", run):
        fail(f"DVMSR_RUN is {run!r}; use letters, digits, '.', '_' and '-'", 2)
    for name in ("results", "work"):
        path = getattr(arguments, name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            fail(f"--{name} {path} cannot be made a folder ({reason}); name another", 2)
    return arguments, steps


def this_gpu() -> tuple[str, str]:
    """Name and compute capability, as the driver's tool tells them; ends the process without it."""
    try:
        done = subprocess.run(GPU_QUERY, capture_output=True, text=True, check=True)
        name, _, capability = done.stdout.splitlines()[0].rpartition(",")
    except (OSError, subprocess.CalledProcessError, IndexError):
        fail("no NVIDIA GPU (nvidia-smi names none)", MISSING)
    return name.strip(), capability.strip()


class Run:
    """One run: its time, its processes, its results."""

    def __init__(self, arguments: argparse.Namespace, gpu: tuple[str, str]) -> None:
        minutes: float = arguments.minutes
        work: Path = arguments.work
        self._end = time.monotonic() + 60 * minutes - GRACE
        self._small = arguments.small
        self.work = work.resolve()
        self.name = archive.run_name(gpu[0])
        self.folder = self.work / "results"
        results: Path = arguments.results
        self.archive = results.resolve() / f"{self.name}.tar.gz"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = Environment(self.work / "environment", agenda.CARRY / "wheels")
        self._capability = gpu[1]
        self._running: list[subprocess.Popen[bytes]] = []
        self._mamba: subprocess.Popen[bytes] | None = None
        path = self.folder / f"{self.name}-run.json"
        self._index = path
        self.content: dict[str, Any] = {"gpu": gpu[0], "minutes": arguments.minutes, "steps": {}}
        if path.is_file():  # the run's other part
            self.content["steps"] = json.loads(path.read_text())["steps"]

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def log(self, step: str) -> Path:
        return self.folder / f"{self.name}-{step}.log"

    def note(self, step: str, outcome: str, seconds: float, said: str = "") -> None:
        """How a step ended; renews the archive."""
        self.content["steps"][step] = {
            "outcome": outcome,
            "seconds": round(seconds, 1),
            "said": said,
        }
        temporary = self._index.with_suffix(".partial")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self._index)
        self.renew()
        say(f"   {outcome} after {seconds:.0f} s{f': {said}' if said else ''}")

    def renew(self) -> None:
        """The archive; what cannot be written is said."""
        try:
            archive.renew(self.archive, self.folder, self.name)
        except OSError as error:
            say(f"{self.archive} cannot be written ({error.strerror})")

    def install(self) -> None:
        """dvmsr in an environment of its own; ends the process where that does not work."""
        started, log = time.monotonic(), self.log("install")
        log.write_bytes(b"")

        def call(command: list[str]) -> int:
            code = self.execute(command, log, self.left())
            return 1 if code is None else code

        say("== install")
        try:
            missing = self.environment.install(call)
        except InstallError as error:
            self.note("install", "failed", time.monotonic() - started, str(error))
            fail(f"{error} ({self.archive} has {log.name})", MISSING)
        said = f"not here: {', '.join(missing)}" if missing else ""
        self.note("install", "done", time.monotonic() - started, said)

    def execute(
        self, command: list[str], log: Path, limit: float, environment: dict[str, str] | None = None
    ) -> int | None:
        """Run a command with its output at the log's end; the exit code, None where it had to be
        ended after `limit` seconds."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)
        end = time.monotonic() + limit
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                try:
                    return process.wait(min(left, RENEW))
                except subprocess.TimeoutExpired:
                    self.renew()
        finally:
            end_group(process)
            self._running.remove(process)

    def begin_mamba(self) -> None:
        """Build mamba-ssm in the background, if its sources are here."""
        sources = mamba_sources(agenda.CARRY)
        if len(sources) < 2 or self._installed("mamba_ssm") or not self._says(TORCH_HAS_CUDA):
            return
        try:
            command = mamba_command(sources, self.environment.python, self.work, self._capability)
        except (OSError, tarfile.TarError) as error:
            self.note(MAMBA, "failed", 0, f"its sources cannot be unpacked: {error}")
            return
        with self.log(MAMBA).open("wb") as output:
            self._mamba = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self._running.append(self._mamba)

    def await_mamba(self, limit: float) -> None:
        """Until it is built, or for so many seconds."""
        if self._mamba is None:
            return
        started = time.monotonic()
        try:
            code = self._mamba.wait(max(limit, 0))
        except subprocess.TimeoutExpired:
            say("   mamba-ssm is not built yet; it does not take part")
            return
        self._mamba = None
        waited = time.monotonic() - started
        say("== mamba-ssm, built in the background; waited for")
        said = f"{self.log(MAMBA).name} says why" if code else ""
        self.note(MAMBA, "failed" if code else "done", waited, said)

    def step(self, step: agenda.Step, remaining: list[agenda.Step], paths: dict[str, str]) -> None:
        """Run one, within its share of what is left."""
        say(f"== {step.name}")
        (self.folder / f"{self.name}-{step.name}.json").unlink(missing_ok=True)  # an earlier run's
        if absent := [package for package in step.needs if not self._installed(package)]:
            self.note(step.name, "not here", 0, f"without {', '.join(absent)}")
            return
        share = agenda.share(step, remaining, self.left())
        started = time.monotonic()
        if step.awaits_mamba:
            self.await_mamba(share / 2)
        limit = share - (time.monotonic() - started)
        if limit < SHORTEST:
            self.note(step.name, "stopped", 0, "no time was left for it")
            return
        own = agenda.arguments(
            step, self.work, paths["DVMSR_CHECKPOINT"], paths.get("RLFN_CHECKPOINT")
        )
        seconds = limit - min(MARGIN * limit, LONGEST_MARGIN)
        command = [str(self.environment.python), str(agenda.HERE / step.script), *own]
        command += ["--seconds", f"{seconds:.1f}", *(["--small"] if self._small else [])]
        log = self.log(step.name)
        log.write_bytes(b"")
        try:
            code = self.execute(command, log, limit, {**paths, **self._settings()})
        except BaseException:
            said = "the run was interrupted; what it had is kept"
            self.note(step.name, "stopped", time.monotonic() - started, said)
            raise
        outcome = {0: "done", OFF: "off", MISSING: "not here", None: "stopped"}.get(code, "failed")
        said = last_words(log) if code else ""
        if code is None:
            said = "its time was over; what it had is kept"
        elif outcome == "failed":
            said = f"exit code {code}, {said}"
        self.note(step.name, outcome, time.monotonic() - started, said)

    def end(self) -> None:
        """No process of the run goes on."""
        if self._mamba is not None:
            self.note(MAMBA, "stopped", 0, "it was not built in time")
        for process in list(self._running):
            end_group(process)

    def _settings(self) -> dict[str, str]:
        probes = self.work / "probes.so"
        found = {"DVMSR_GPU_RESULTS": str(self.folder), "DVMSR_RUN": self.name}
        if probes.is_file() and "DVMSR_GPU_PROBES" not in os.environ:
            found["DVMSR_GPU_PROBES"] = str(probes)
        return {**found, "PYTHONUNBUFFERED": "1"}

    def _installed(self, package: str) -> bool:
        return self._says(f"import importlib.util; found = importlib.util.find_spec({package!r})")

    def _says(self, code: str) -> bool:
        """Whether this sets `found` to something in the environment's Python."""
        whole = f"{code}\nimport sys\nsys.exit(not found)"
        command = [str(self.environment.python), "-c", whole]
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0

    def missing(self, paths: dict[str, str]) -> list[str]:
        """What some step would use and is not here."""
        folders = [str(self.environment.python.parent), os.environ.get("PATH", "")]
        tools = {
            name: shutil.which(name, path=os.pathsep.join(folders)) is not None
            for name in ("compute-sanitizer", "ncu", "cmake")
        }
        there = {
            **tools,
            "TensorRT": self._installed("tensorrt"),
            "TensorRT's headers": "TENSORRT_ROOT" in paths
            or any(Path("/usr/include").glob("**/NvInferRuntime.h")),
            "onnxruntime-gpu": self._says(ONNXRUNTIME_HAS_CUDA),
            "PyTorch with CUDA": self._says(TORCH_HAS_CUDA),
            "RLFN's checkpoint": "RLFN_CHECKPOINT" in paths,
            "mamba-ssm's and causal-conv1d's sources": len(mamba_sources(agenda.CARRY)) == 2
            or self._installed("mamba_ssm"),
            "photographs": any((agenda.CARRY / "photographs").glob("*.tar")),
        }
        return [name for name, here in there.items() if not here]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, at first politely."""
    for number, patience in ((int(signal.SIGTERM), GRACE), (int(signal.SIGKILL), None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def last_words(log: Path) -> str:
    """The last line that a step said."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else ""


def carried() -> dict[str, str]:
    """Paths for the steps: those that the environment names, else those that travel along; ends the
    process where it names what is not there."""
    defaults = {
        "DVMSR_CHECKPOINT": ROOT / "dvmsr" / "weights" / "dvmsr_x4.safetensors",
        "RLFN_CHECKPOINT": agenda.CARRY / "rlfn.pth",
        "TENSORRT_ROOT": agenda.CARRY / "tensorrt",
    }
    for name in (*defaults, *map(str.upper, MAMBA_PACKAGES)):
        if (named := os.environ.get(name)) and not Path(named).exists():
            fail(f"{name} names {named}, which does not exist; correct or unset it", 2)
    found = {name: Path(os.environ.get(name) or path) for name, path in defaults.items()}
    return {name: str(path.resolve()) for name, path in found.items() if path.exists()}


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    arguments, steps = parsed()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    # cmake and ninja may be where this Python's packages put what they run.
    os.environ["PATH"] = os.pathsep.join(
        [os.environ.get("PATH", ""), str(Path(sys.executable).parent)]
    )
    paths = carried()
    run = Run(arguments, this_gpu())
    try:
        run.install()
        missing = run.missing(paths)
        say(f"not here: {', '.join(missing) or 'nothing is missing'}")
        if any(step.awaits_mamba for step in steps):
            run.begin_mamba()
        for at, step in enumerate(steps):
            run.step(step, steps[at:], paths)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        run.end()
        run.renew()
    print(run.archive)
    names = [MAMBA, *(step.name for step in steps)]
    ended = run.content["steps"]
    outcomes = [ended[name]["outcome"] for name in names if name in ended]
    if "failed" in outcomes or "stopped" in outcomes:
        return 1
    return OFF if "off" in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
