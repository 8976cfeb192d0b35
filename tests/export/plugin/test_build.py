"""Compiling the plugin on demand, tried with CMake, a C++ compiler and a plugin of a few lines.

Only nvcc is played, by a script that tells a version; `tests/plugins` compile the real sources.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.export import cli
from dvmsr.export.plugin import build as plugin_build
from dvmsr.kernels import nvcc
from dvmsr.runtime.backends.trt import plugin_library

pytestmark = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs CMake and a C++ compiler"
)

PROJECT = """cmake_minimum_required(VERSION 3.18)
project(tiny LANGUAGES CXX)
file(APPEND {log} "${{CMAKE_CUDA_ARCHITECTURES}} ${{DVMSR_FETCH_TENSORRT_HEADERS}}\\n")
foreach(name dvmsr_trt{major} dvmsr_trt{major}_register)
  add_library(${{name}} SHARED ../cuda/kernels.cpp)
endforeach()
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small plugin, a compiler that is new enough, and an empty cache."""
    folder = tmp_path / "plugins"
    for name in plugin_library.FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / "cuda" / "kernels.cpp").write_text("int answer() { return 42; }\n")
    (folder / "tensorrt" / "CMakeLists.txt").write_text(
        PROJECT.format(log=tmp_path / "log", major=10)
    )
    monkeypatch.setattr(nvcc, "sources", lambda: folder)
    monkeypatch.setenv("CUDACXX", str(compiler(tmp_path, "13.0.88")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(plugin_library.ENVIRONMENT, raising=False)
    monkeypatch.delenv("TENSORRT_ROOT", raising=False)
    return folder


def compiler(folder: Path, version: str) -> Path:
    path = folder / f"nvcc-{version}"
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release 0, V{version}'\n")
    path.chmod(0o755)
    return path


def builds(sources: Path) -> list[str]:
    """The settings of every build so far."""
    log = sources.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dvmsr-export", "plugin-path", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_compiles_once(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = plugin_build.build(10, ["8.9", "90-real"])
    assert library.architectures == ("89", "90-real")
    assert library.nvcc == "13.0.88"
    assert library.sha256 == plugin_library.sha256(Path(library.pure))
    assert library.self_registering and Path(library.self_registering).is_file()
    assert plugin_build.build(10, ["89", "90-real"]) == library
    assert plugin_library.find(10) == library
    assert builds(sources) == ["89;90-real 10"]
    assert capsys.readouterr().err.count("compiling the plugin for TensorRT 10") == 1
    Path(library.pure).write_bytes(b"what nobody compiled")
    assert plugin_library.find(10) is None
    again = plugin_build.build(10, ["89", "90-real"])
    assert again.sha256 == plugin_library.sha256(Path(library.pure))


@pytest.mark.slow
def test_compiles_again_for_other_inputs(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plugin_build.build(10, ["89"])
    assert plugin_build.ensure(10, ["8.9"]) == first
    assert plugin_build.ensure(10, ["8.9", "8.0"]) != first
    monkeypatch.setenv("CUDACXX", str(compiler(tmp_path, "13.1.0")))
    assert plugin_build.build(10, ["89"]) != first
    (sources / "cuda" / "kernels.cpp").write_text("int answer() { return 43; }\n")
    assert plugin_library.find(10) is None
    assert plugin_build.build(10, ["89"]).sources_sha256 != first.sources_sha256
    assert len(builds(sources)) == 4


def test_two_at_once_compile_once(sources: Path) -> None:
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(plugin_build.build(10, ["89"])))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results[0] == results[1]
    assert len(builds(sources)) == 1


def test_a_failure_leaves_its_log_only(sources: Path) -> None:
    (sources / "cuda" / "kernels.cpp").write_text("int answer() { return x; }\n")
    with pytest.raises(DvmsrError, match=r"could not be compiled \(.*error:.*failed\.log has"):
        plugin_build.build(10, ["89"])
    left = {path.name for path in plugin_library.cache_folder().iterdir()}
    assert left == {".lock", "failed.log"}
    assert "kernels.cpp" in (plugin_library.cache_folder() / "failed.log").read_text()


def test_headers_of_another_version_are_refused(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingComponentError, match=r"not of TensorRT 11 .*--tensorrt-root"):
        plugin_build.build(11, ["89"])
    with pytest.raises(MissingComponentError, match=r"not of TensorRT 12 .*--tensorrt-root"):
        plugin_build.build(12, ["89"])
    assert builds(sources) == ["89 11", "89 OFF"], "those that can be downloaded"


def test_missing_headers_are_named(sources: Path) -> None:
    text = 'project(x NONE)\nmessage(FATAL_ERROR "TensorRT\'s headers were not found")\n'
    (sources / "tensorrt" / "CMakeLists.txt").write_text(text)
    with pytest.raises(MissingComponentError, match="of TensorRT 10, and none were found or"):
        plugin_build.build(10, ["89"])
    with pytest.raises(MissingComponentError, match="of TensorRT 11, and none were found or"):
        plugin_build.build(11, ["89"])
    with pytest.raises(MissingComponentError, match=r"for TensorRT 12 .* found; .*in include/$"):
        plugin_build.build(12, ["89"])


def test_a_download_is_told(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = sources / "tensorrt" / "CMakeLists.txt"
    lists.write_text(lists.read_text() + 'message(STATUS "downloading the headers of some")\n')
    plugin_build.build(10, ["89"])
    assert "\ndownloading the headers of some\n" in capsys.readouterr().err


@pytest.mark.parametrize("there", [False, True], ids=["unreachable", "altered"])
def test_headers_of_tensorrt_11_must_be_the_known_ones(there: bool, tmp_path: Path) -> None:
    """The real script, and NVIDIA's repository played by a folder."""
    script = nvcc.sources() / "tensorrt" / "fetch_headers.cmake"
    folder, repository = tmp_path / "build", tmp_path / "repository"
    (repository / "include").mkdir(parents=True)
    if there:
        for name in re.findall(r"^  (Nv\w+\.h) [0-9a-f]{64}", script.read_text(), re.M):
            (repository / "include" / name).write_text("evil")
    settings = ["-Dmajor=11", f"-Dfolder={folder}", f"-Dtensorrt_repository=file://{repository}"]
    result = subprocess.run(["cmake", *settings, "-P", str(script)], capture_output=True, text=True)
    assert "downloading the headers of TensorRT 11.1 from NVIDIA" in result.stdout
    assert bool(result.returncode) == there
    assert (".h has an unknown SHA-256: " in " ".join(result.stderr.split())) == there
    assert not list(folder.rglob("*.h"))


def test_a_downloaded_wheel_must_be_the_known_one(tmp_path: Path) -> None:
    """The real script, and pip played by one that leaves another file under the wheel's name."""
    script = nvcc.sources() / "tensorrt" / "fetch_headers.cmake"
    wheel = "kernel_lens-2.0.1-py3-none-any.whl"
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\nmkdir -p kernel_lens/include/tensorrt\n"
        "echo evil > kernel_lens/include/tensorrt/NvInferRuntime.h\n"
        f"tar cf {wheel} kernel_lens\nrm -r kernel_lens\n"
    )
    python.chmod(0o755)
    folder = tmp_path / "build"
    folder.mkdir()
    result = subprocess.run(
        ["cmake", f"-Dpython={python}", f"-Dfolder={folder}", "-P", str(script)],
        capture_output=True,
        text=True,
    )
    assert result.returncode
    assert f"{wheel} has an unknown SHA-256" in " ".join(result.stderr.split())
    assert [path.name for path in folder.iterdir()] == [wheel]


def test_an_unknown_wheel_is_named(sources: Path) -> None:
    text = f"a.whl has an unknown SHA-256: {'0' * 64}, not {'1' * 64}"
    (sources / "tensorrt" / "CMakeLists.txt").write_text(
        f'project(x NONE)\nmessage(FATAL_ERROR "{text}")\n'
    )
    with pytest.raises(DvmsrError, match=r"^a\.whl, .* not the file that dvmsr knows.*; name"):
        plugin_build.build(10, ["89"])


def test_an_architecture_that_nvcc_does_not_know(sources: Path) -> None:
    text = "nvcc fatal   : Unsupported gpu architecture 'compute_99'"
    (sources / "tensorrt" / "CMakeLists.txt").write_text(
        f'project(x NONE)\nmessage(FATAL_ERROR "{text}")\n'
    )
    with pytest.raises(UsageError, match="nvcc does not know the CUDA architecture 99; name"):
        plugin_build.build(10, ["9.9"])


def test_compilers_are_looked_for(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDACXX", str(compiler(tmp_path, "11.5.119")))
    with pytest.raises(MissingComponentError, match=r"nvcc 12\.8 or later \(.* is 11\.5\.119\)"):
        plugin_build.build(10)
    monkeypatch.setenv("CUDACXX", "nowhere/nvcc")
    with pytest.raises(MissingComponentError, match=r'pip install "dvmsr\[plugin\]"'):
        plugin_build.build(10)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingComponentError, match=r"apt install g\+\+"):
        plugin_build.build(10)


def test_an_unusable_cache_is_named(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DvmsrError, match="set XDG_CACHE_HOME to another place"):
        plugin_build.build(10, ["89"])


def test_the_command_prints_paths(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--tensorrt", "10") == 4
    assert "plugin-path --build --tensorrt 10" in capsys.readouterr().err
    assert run(monkeypatch, "--tensorrt", "10", "--build", "--arch", "8.9", "--json") == 0
    library = json.loads(capsys.readouterr().out)
    assert library["architectures"] == ["89"]
    assert run(monkeypatch, "--tensorrt", "10") == 0
    assert capsys.readouterr().out.split() == [library["pure"], library["self_registering"]]
    assert run(monkeypatch, "--tensorrt", "10", "--pure") == 0
    assert capsys.readouterr().out.split() == [library["pure"]]
    assert run(monkeypatch, "--tensorrt", "10", "--self-registering") == 0
    assert capsys.readouterr().out.split() == [library["self_registering"]]


def test_a_missing_self_registering_library_is_named(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "libdvmsr_trt10.so"
    path.write_bytes(b"")
    monkeypatch.setenv(plugin_library.ENVIRONMENT, str(path))
    assert run(monkeypatch, "--tensorrt", "10") == 0
    assert run(monkeypatch, "--tensorrt", "10", "--self-registering") == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--arch", "8.9"],
        ["--tensorrt-root", "."],
        ["--pure", "--self-registering"],
        ["--build", "--arch", "ampere"],
        ["--tensorrt", "9"],
    ],
)
def test_usage_errors(sources: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert builds(sources) == []


def test_the_root_tells_the_version(
    sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "TensorRT"
    (root / "include").mkdir(parents=True)
    options = ["--build", "--arch", "8.9", "--tensorrt-root", str(root)]
    assert run(monkeypatch, *options) == 4
    assert "has no TensorRT headers" in capsys.readouterr().err
    header = root / "include" / "NvInferVersion.h"
    header.write_text("#define TRT_MAJOR_ENTERPRISE 11 //!< x\n")
    assert run(monkeypatch, *options, "--tensorrt", "10") == 2
    project = PROJECT.format(log=tmp_path / "log", major=11)
    (sources / "tensorrt" / "CMakeLists.txt").write_text(project)
    assert run(monkeypatch, *options, "--pure") == 0
    assert capsys.readouterr().out.strip().endswith("libdvmsr_trt11.so")


def test_architectures() -> None:
    parse = plugin_build.parse_architecture
    assert [parse(text) for text in ("8.9", "89", "12.0", "120-real", "90-virtual")] == [
        "89",
        "89",
        "120",
        "120-real",
        "90-virtual",
    ]
    for text in ("", "9", "8.9.0", "sm_89", "native", "²89"):
        with pytest.raises(UsageError, match="no CUDA architecture"):
            parse(text)
