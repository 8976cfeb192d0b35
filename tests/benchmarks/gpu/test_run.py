"""The unattended run: its steps, its time, its archive."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import agenda
import archive
import environment
import pytest
import run as runs
import tensorrt_library
from shared import REPOSITORY

from dvmsr.errors import MissingComponentError

FOLDER = REPOSITORY / "benchmarks" / "gpu"
DOOR = FOLDER / "run.sh"
NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *name,compute_cap*) echo "host emulation, 9.0" ;;
  *) echo "host emulation, 580.1, 345 MHz, 1980 MHz, 3201 MHz, 700.00 W, Disabled" ;;
esac
"""


def written(path: Path, text: str) -> Path:
    """A script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def with_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi names one."""
    written(tmp_path / "bin" / "nvidia-smi", NVIDIA_SMI)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("DVMSR_RUN", raising=False)


def door(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DOOR), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


def test_shares_are_seven_and_six_minutes() -> None:
    first, second = (agenda.chosen([part]) for part in agenda.PARTS)
    assert agenda.minutes(first) <= 7
    assert agenda.minutes(second) <= 6
    names = [step.name for step in first]
    assert names == ["build", "facts", "correct", "plugin", "scan", "sanitize"]
    assert [step.name for step in second] == ["build", "models", "profile", "train", "network"]
    assert agenda.chosen(["second", "first"]) == list(agenda.STEPS)
    assert [step.name for step in agenda.chosen(["scan", "facts"])] == ["facts", "scan"]
    assert all((FOLDER / step.script).is_file() for step in agenda.STEPS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what to run: first, second, build, facts"),
        (("third",), "third is no step; there are first, second, build"),
        (("first", "scans"), "scans is no step"),
        (("first", "--minutes", "soon"), "argument --minutes: invalid float value: 'soon'"),
        (("first", "--minutes", "0"), "--minutes 0 is no time to run in"),
        (("first", "--minutes", "-3"), "--minutes -3 is no time to run in"),
        (("first", "--minutes", "nan"), "--minutes nan is no time to run in"),
        (("first", "--hours", "1"), "unrecognized arguments: --hours"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = door(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_help_names_the_steps() -> None:
    done = door("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in agenda.NAMES)


def test_wants_a_gpu(tmp_path: Path) -> None:
    written(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    done = door("first", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (4, "error: no NVIDIA GPU (nvidia-smi names none)\n")


def test_wants_a_python() -> None:
    done = door("first", PYTHON="python9")
    assert done.returncode == 4
    assert done.stderr.startswith("error: there is no python9; install Python")


def test_results_that_are_no_folder(tmp_path: Path, with_gpu: None) -> None:
    file = written(tmp_path / "file", "")
    done = door("facts", "--results", file, "--work", tmp_path / "work")
    assert done.returncode == 2
    sentence = f"error: --results {file} cannot be made a folder (File exists); name another\n"
    assert done.stderr == sentence


class Steps:
    """Scripts of a test's own as the steps of a run that is installed already."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder = folder
        (folder / "out").mkdir()
        arguments = argparse.Namespace(
            minutes=minutes, small=False, work=folder / "work", results=folder / "out"
        )
        self.run = runs.Run(arguments, ("Made-up GPU", "9.0"))
        python = folder / "work" / "environment" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)

    def __call__(self, **scripts: str) -> dict[str, dict[str, object]]:
        """Run these steps, each a script and of equal share; how they ended."""
        template = replace(agenda.STEPS[0], seconds=10, awaits_mamba=False, needs=())
        steps = [
            replace(template, name=name, script=str(written(self.folder / f"{name}.py", text)))
            for name, text in scripts.items()
        ]
        for number, step in enumerate(steps):
            self.run.step(step, steps[number:], {"DVMSR_CHECKPOINT": "weights"})
        return self.run.content["steps"]

    def archived(self) -> list[str]:
        with tarfile.open(self.run.archive) as found:
            return found.getnames()


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.delenv("DVMSR_RUN", raising=False)
    return Steps(tmp_path, minutes=1)


WRITES = """
import os, pathlib
folder, run = os.environ["DVMSR_GPU_RESULTS"], os.environ["DVMSR_RUN"]
(pathlib.Path(folder) / f"{run}-NAME.json").write_text("{}")
"""


@pytest.mark.slow
def test_no_step_stops_the_others(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    found = steps(
        good=WRITES.replace("NAME", "good"),
        off="raise SystemExit(3)",
        absent="import sys; print('error: ncu is not here', file=sys.stderr); sys.exit(4)",
        broken="raise ValueError('odd')",
        last="print('fine')",
    )
    assert {name: step["outcome"] for name, step in found.items()} == {
        "good": "done", "off": "off", "absent": "not here", "broken": "failed", "last": "done",
    }  # fmt: skip
    assert found["absent"]["said"] == "ncu is not here"
    assert found["broken"]["said"] == "exit code 1, ValueError: odd"
    assert "not here after 0 s: ncu is not here" in capsys.readouterr().err
    names = steps.archived()
    assert f"{steps.run.name}-good.json" in names
    assert f"{steps.run.name}-broken.log" in names
    assert f"{steps.run.name}-run.json" in names


def test_what_a_step_needs_and_is_not_there(steps: Steps) -> None:
    step = replace(agenda.STEPS[0], name="x", script="none.py", needs=("sys", "no_such_package"))
    steps.run.step(step, [step], {"DVMSR_CHECKPOINT": "weights"})
    found = steps.run.content["steps"]["x"]
    assert (found["outcome"], found["said"]) == ("not here", "without no_such_package")


def test_results_of_an_earlier_run_do_not_count(steps: Steps) -> None:
    old = steps.run.folder / f"{steps.run.name}-broken.json"
    old.write_text("{}")
    steps(broken="raise SystemExit(1)")
    assert not old.exists()
    assert old.name not in steps.archived()


LONG = """
import os, pathlib, subprocess, sys, time
folder, run = pathlib.Path(os.environ["DVMSR_GPU_RESULTS"]), os.environ["DVMSR_RUN"]
(folder / f"{run}-long.json").write_text("{}")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
(folder / "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(100)
"""


def alive(pid: int) -> bool:
    """Whether there is such a process that is not dead already and waits for its parent to look."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_step_ends_with_its_share_and_keeps_what_it_has(tmp_path: Path) -> None:
    steps = Steps(tmp_path, minutes=9 / 60)  # six seconds, and three to end
    started = time.monotonic()
    found = steps(
        long=LONG,
        after="import sys; print(sys.argv)",
    )
    assert time.monotonic() - started < 9
    assert (found["long"]["outcome"], found["after"]["outcome"]) == ("stopped", "done")
    assert 2 < found["long"]["seconds"] < 5  # type: ignore[operator]
    assert f"{steps.run.name}-long.json" in steps.archived()
    pids = (steps.run.folder / "pids").read_text().split()
    assert not any(alive(int(pid)) for pid in pids)
    # What the first left, less what a step keeps for ending.
    said = steps.run.log("after").read_text()
    seconds = float(said.split("'--seconds', '")[1].split("'")[0])
    assert 1.5 < seconds < 3.5


def test_unspent_time_is_for_those_after() -> None:
    one, two, three = (replace(agenda.STEPS[0], seconds=seconds) for seconds in (1.0, 1.0, 2.0))
    assert agenda.share(one, [one, two, three], 100) == 25
    assert agenda.share(two, [two, three], 90) == 30
    assert agenda.share(three, [three], 70) == 70


@pytest.mark.slow
def test_waits_for_mamba_no_longer_than_half_a_share(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "mamba_sources", lambda folder: [Path("a"), Path("b")])
    monkeypatch.setattr(runs, "mamba_command", lambda *given: ["sleep", "100"])
    monkeypatch.setattr(steps.run, "_installed", lambda package: False)
    monkeypatch.setattr(steps.run, "_says", lambda code: True)
    steps.run._end = time.monotonic() + 6
    steps.run.begin_mamba()
    process = steps.run._mamba
    assert process
    script = str(written(steps.folder / "scan.py", ""))
    step = replace(agenda.STEPS[0], name="scan", script=script, awaits_mamba=True)
    started = time.monotonic()
    steps.run.step(step, [step], {"DVMSR_CHECKPOINT": "weights"})
    assert 2.5 < time.monotonic() - started < 5
    assert "mamba-ssm is not built yet; it does not take part" in capsys.readouterr().err
    assert steps.run.content["steps"]["scan"]["outcome"] == "done"
    steps.run.end()
    assert process.poll() is not None
    assert steps.run.content["steps"]["mamba-build"]["outcome"] == "stopped"


def test_broken_sources_of_mamba_stop_nothing(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = written(steps.folder / "mamba_ssm-2.3.0.tar.gz", "words")
    monkeypatch.setattr(runs, "mamba_sources", lambda folder: [broken, broken])
    monkeypatch.setattr(steps.run, "_installed", lambda package: False)
    monkeypatch.setattr(steps.run, "_says", lambda code: True)
    steps.run.begin_mamba()
    found = steps.run.content["steps"]["mamba-build"]
    assert found["outcome"] == "failed"
    assert found["said"].startswith("its sources cannot be unpacked: ")


def test_an_interrupted_step_is_told(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps.run, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        steps(one="")
    found = steps.run.content["steps"]["one"]
    assert found["outcome"] == "stopped"
    assert found["said"] == "the run was interrupted; what it had is kept"


def test_no_time_is_left(steps: Steps) -> None:
    steps.run._end = time.monotonic() - 1
    found = steps(late="raise SystemExit(5)")
    assert (found["late"]["outcome"], found["late"]["said"]) == (
        "stopped",
        "no time was left for it",
    )


@pytest.mark.slow
def test_an_installation_that_takes_too_long_has_failed(steps: Steps) -> None:
    class Slow:
        def install(self, call: environment.Call) -> list[str]:
            if call(["sleep", "100"]):
                raise environment.InstallError("it was too slow")
            return []

    steps.run.environment = Slow()  # type: ignore[assignment]
    steps.run._end = time.monotonic() + 1
    with pytest.raises(SystemExit) as ended:
        steps.run.install()
    assert ended.value.code == 4


@pytest.mark.parametrize(
    "name", ["DVMSR_CHECKPOINT", "RLFN_CHECKPOINT", "TENSORRT_ROOT", "MAMBA_SSM", "CAUSAL_CONV1D"]
)
def test_the_environment_names_what_does_not_exist(
    name: str, with_gpu: None, tmp_path: Path
) -> None:
    done = door("facts", "--results", tmp_path, "--work", tmp_path / "work", **{name: "nowhere"})
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {name} names nowhere, which does not exist; correct or unset it\n"
    )


def test_a_name_that_is_none(with_gpu: None, tmp_path: Path) -> None:
    done = door("facts", "--results", tmp_path, DVMSR_RUN="a/b")
    assert done.returncode == 2
    assert done.stderr == "error: DVMSR_RUN is 'a/b'; use letters, digits, '.', '_' and '-'\n"


def test_nvcc_for_mamba_compiles_for_this_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mamba_ssm-2.3.0"
    source.mkdir()
    (source / "setup.py").write_text("")
    packed = tmp_path / "mamba_ssm-2.3.0.tar.gz"
    with tarfile.open(packed, "w:gz") as made:
        made.add(source, source.name)
    command = environment.mamba_command([packed], Path("python"), tmp_path / "work", "9.0")
    assert "TORCH_CUDA_ARCH_LIST=9.0" in command
    assert str(tmp_path / "work" / "mamba" / source.name) in command[-1]
    assert (tmp_path / "work" / "mamba" / source.name / "setup.py").is_file()

    written(tmp_path / "bin" / "nvcc", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    compiler = next(part for part in command if part.startswith("PYTORCH_NVCC=")).partition("=")[2]
    many = ["-gencode", "arch=compute_75,code=sm_75", "-gencode=arch=compute_80,code=sm_80"]
    given = ["-c", "a file.cu", *many, "--threads", "4"]
    done = subprocess.run([compiler, *given], capture_output=True, text=True)
    asked = ["-c", "a file.cu", "--threads", "4", "-gencode", "arch=compute_90,code=sm_90"]
    assert done.stdout.splitlines() == asked


def test_an_archive_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "run.tar.gz"
    results = tmp_path / "results"
    results.mkdir()
    for name in ("run-a.json", "run-a.log", "other-a.json"):
        (results / name).write_text("{}")
    archive.renew(target, results, "run")
    before = target.read_bytes()
    with tarfile.open(target) as found:
        assert found.getnames() == ["run-a.json", "run-a.log"]
    (results / "run-b.json").mkdir()  # a folder is none of the results
    (results / "run-c.json").symlink_to(results / "missing")
    archive.renew(target, results, "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "run.tar.gz"]
    shutil.rmtree(results)
    with pytest.raises(OSError):
        archive.renew(tmp_path / "no folder" / "run.tar.gz", tmp_path, "run")
    assert target.read_bytes()[:2] == before[:2]


def test_an_archive_that_cannot_be_written_is_said(
    steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.run.archive.parent.rmdir()
    steps.run.renew()
    assert f"{steps.run.archive} cannot be written" in capsys.readouterr().err


BARE = ("pip", "numpy", "scikit_build_core", "packaging", "pathspec")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A Python in an environment with pip, numpy and scikit-build-core, and without dvmsr."""
    pytest.importorskip("scikit_build_core")
    pytest.importorskip("pip")
    import numpy

    there = Path(numpy.__file__).parents[1]
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(python.parents[1])], check=True
    )
    (here,) = python.parents[1].glob("lib/python*/site-packages")
    for name in BARE:
        for found in (*there.glob(name), *there.glob(f"{name}.libs"), *there.glob(f"{name}-*")):
            (here / found.name).symlink_to(found)
    probe = subprocess.run([str(python), "-c", "import dvmsr"], capture_output=True, cwd=tmp_path)
    assert b"ModuleNotFoundError" in probe.stderr
    return python


@pytest.fixture
def plugin_on_host(tmp_path: Path) -> Path | None:
    """The TensorRT plugin with its kernels on the host; None where it cannot be built."""
    try:
        library = tensorrt_library.made("found")
    except MissingComponentError:
        return None
    source = tensorrt_library.PLUGINS / "tensorrt" / "plugin.cpp"
    return library.compile_for_host(tmp_path / "libplugin.so", source, "-O1")


@pytest.mark.slow
def test_from_a_bare_python_to_a_table(
    bare: Path,
    emulated: Path,
    plugin_on_host: Path | None,
    with_gpu: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both parts on the emulated device, installed from nothing; the archive is read back."""
    if plugin_on_host:
        monkeypatch.setenv("DVMSR_GPU_PLUGIN", str(plugin_on_host))
    done = subprocess.run(
        [str(DOOR), "first", "second", "--small", "--minutes", "15",
         "--results", str(tmp_path / "out"), "--work", str(tmp_path / "work")],
        capture_output=True, text=True, cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if k != "DVMSR_RUN"},
            "PYTHON": str(bare),
            "PYTHONPATH": str(REPOSITORY),  # where dvmsr/ has no native operators
        },
    )  # fmt: skip
    (found,) = (tmp_path / "out").iterdir()
    assert done.stdout == f"{found}\n"
    assert found.name.startswith("host-emulation-2")
    index = json.loads(
        next((tmp_path / "work" / "results").glob("*-run.json")).read_text()
    )["steps"]  # fmt: skip
    outcomes = {name: step["outcome"] for name, step in index.items()}
    assert done.returncode == 0, (done.stderr, index)
    for name in ("install", "build", "facts", "correct", "scan"):
        assert outcomes[name] == "done", index[name]
    assert outcomes["plugin"] == ("done" if plugin_on_host else "not here"), index["plugin"]
    for name in ("network", "models", "train"):
        assert outcomes[name] == "not here", index[name]
    assert "PyTorch" in next(s for s in done.stderr.splitlines() if s.startswith("not here: "))

    table = subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), str(found)], capture_output=True, text=True
    )
    assert table.returncode == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[0] == "| step | what | predicted (H100, H200) | measured |"
    assert any(line.startswith("| correct | checks off | 0 | 0 of ") for line in lines)
    assert any("ex2 per second | 3.71e+12 |" in line for line in lines)
    assert any("float16 official, dvmsr, µs" in line for line in lines)
    assert not any(path.name == "dvmsr" for path in bare.parents[1].rglob("site-packages/*"))


@pytest.mark.slow
def test_a_signal_ends_everything_and_keeps_what_there_is(
    bare: Path, with_gpu: None, tmp_path: Path
) -> None:
    """While it installs."""
    command = [str(DOOR), "facts", "--results", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--work", str(tmp_path / "work")], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHON": str(bare)},
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline() == "== install\n"
    log = tmp_path / "work" / "results"
    while not any(path.stat().st_size for path in log.glob("*-install.log")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert "Traceback" not in process.stderr.read()
    (found,) = (tmp_path / "out").iterdir()
    with tarfile.open(found) as names:
        assert [name for name in names.getnames() if name.endswith("-install.log")]


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("pip --version", f"pip is not here for {sys.executable}; install it"),
        ("-m venv", f"{sys.executable} makes no virtual environment; see the log"),
        ("scikit-build-core", "scikit-build-core is not here and not in wheels; fill that with"),
        ("numpy", "numpy is not here; install it"),
        ("-e ", "dvmsr cannot be installed; see the log"),
        ("cpu.load()", "dvmsr was installed without its native operators; see the log"),
    ],
)
def test_what_an_installation_lacks(tmp_path: Path, lacks: str, said: str) -> None:
    place = environment.Environment(tmp_path / "made", Path("wheels"))
    place.folder.joinpath("lib", "python{}.{}".format(*sys.version_info), "site-packages").mkdir(
        parents=True
    )
    with pytest.raises(environment.InstallError) as error:
        place.install(lambda command: int(lacks in " ".join(command)))
    assert str(error.value).startswith(said)


def test_what_is_missing_and_need_not_be_there(tmp_path: Path) -> None:
    place = environment.Environment(tmp_path / "made", Path("wheels"))
    place.folder.joinpath("lib", "python{}.{}".format(*sys.version_info), "site-packages").mkdir(
        parents=True
    )
    asked: list[str] = []

    def call(command: list[str]) -> int:
        asked.append(command[-1])
        return int("typer" in command[-1] or "'PIL'" in command[-1])

    assert place.install(call) == ["typer"]
    assert "pillow" in asked  # brought by a wheel that travels along
    assert "rich" not in asked  # there already


@pytest.mark.slow
def test_a_run_that_cannot_install_ends(
    with_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence, exit code 4, and the log in the archive."""
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    python = empty / "bin" / "python"
    done = door(
        "facts", "--results", tmp_path / "out", "--work", tmp_path / "work", PYTHON=str(python)
    )
    assert done.returncode == 4
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"error: pip is not here for {python}; install it (")
    assert "Traceback" not in done.stderr
    (found,) = (tmp_path / "out").iterdir()
    with tarfile.open(found) as names:
        assert [name for name in names.getnames() if name.endswith("-install.log")]
