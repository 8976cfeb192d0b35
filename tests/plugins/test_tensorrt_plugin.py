"""The TensorRT plugin libraries, driven through C++ without TensorRT and without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorrt_library import HEADERS, PLUGINS, Library, build

from dvmsr.kernels import nvcc

pytestmark = pytest.mark.slow

OPERATORS = ("SelectiveScan", "CausalConv1d")
FLOAT, HALF, BF16 = "0", "1", "7"  # nvinfer1::DataType

# Of the inputs and outputs: the activations' type, or parameters and state in FP32.
PORTS = {"SelectiveScan": "aapaapppa ap", "CausalConv1d": "appa aa"}
FLAGS = {"SelectiveScan": "delta_softplus", "CausalConv1d": "activation"}
FORMS = [
    f"{op} of {inputs} inputs with {flag}={value}"
    for op, flag in FLAGS.items()
    for inputs in ((8, 9) if op == "SelectiveScan" else (4,))
    for value in (0, 1)
]
OUTPUT_SHAPES = {  # at B = 2, L = 1000, D = 6, G = 2, N = 16, K = 4
    "SelectiveScan": [[2, 1000, 6], [2, 6, 16]],
    "CausalConv1d": [[2, 1000, 6], [2, 3, 6]],
}


@pytest.fixture(scope="module", params=HEADERS)
def library(request: pytest.FixtureRequest) -> Library:
    return build(request.param)


@pytest.fixture(scope="module")
def answers(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the plugins answered to the driver, by form."""
    driver = tmp_path_factory.mktemp("driver") / "driver"
    library.compile("tensorrt_driver.cpp", driver, "-rdynamic", "-fsanitize=address,undefined")
    result = subprocess.run(
        [driver, library.pure],
        capture_output=True,
        text=True,
        env={"ASAN_OPTIONS": "protect_shadow_gap=0"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    answers = json.loads(result.stdout)
    flags = [f"{FLAGS[answer['name']]}={answer['flag']}" for answer in answers]
    return {
        f"{answer['name']} of {answer['inputs']} inputs with {flag}": answer
        for answer, flag in zip(answers, flags, strict=True)
    }


def types(op: str, inputs: int, activation: str) -> list[str]:
    """The types of the inputs and of the outputs."""
    roles, outputs = PORTS[op].split()
    both = f"{roles[:inputs]} {outputs}"
    return both.replace("a", activation).replace("p", FLOAT).split()


def symbols(library: Path) -> list[str]:
    command = ["nm", "-D", "--defined-only", "--format=posix", library]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(line.split()[0] for line in output.splitlines())


def test_exports_only_what_tensorrt_calls(library: Library) -> None:
    assert symbols(library.pure) == ["getCreators", "setLoggerFinder"]
    assert symbols(library.registering) == []


def test_links_neither_tensorrt_nor_cuda(library: Library) -> None:
    for path in (library.pure, library.registering):
        command = ["readelf", "--dynamic", path]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        needed = [line for line in output.splitlines() if "NEEDED" in line]
        assert needed
        assert not [line for line in needed if "nvinfer" in line or "cuda" in line]


@pytest.mark.parametrize("wanted", [10, 11])
def test_the_systems_headers_serve_their_own_version(
    wanted: int, library: Library, tmp_path: Path
) -> None:
    """Those of TensorRT 10 here; for 11 others are downloaded, from where there are none."""
    system = tmp_path / "system"
    system.mkdir()
    (system / "NvInferRuntime.h").touch()
    (system / "NvInferVersion.h").write_text("#define NV_TENSORRT_MAJOR 10\n")
    settings = {
        "CMAKE_CUDA_COMPILER": nvcc.find().path,
        "CMAKE_CUDA_ARCHITECTURES": "90",
        "CMAKE_INCLUDE_PATH": system,
        "TENSORRT_ROOT": "",
        "DVMSR_FETCH_TENSORRT_HEADERS": wanted,
        "tensorrt_repository": f"file://{tmp_path}",
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    result = subprocess.run(
        ["cmake", "-S", PLUGINS / "tensorrt", "-B", tmp_path / "build", *options],
        capture_output=True,
        text=True,
        env=nvcc.find().environment(),
    )
    found = f"-- TensorRT 10 headers: {system}" in result.stdout
    downloaded = "-- downloading the headers of TensorRT 11.1" in result.stdout
    assert (found, downloaded) == (wanted == 10, wanted == 11), result.stderr
    assert ("headers were not found" in " ".join(result.stderr.split())) == downloaded


def test_every_form_is_driven(answers: dict[str, Any]) -> None:
    assert list(answers) == FORMS


class TestPlugin:
    @pytest.fixture(params=FORMS)
    def answer(self, request: pytest.FixtureRequest, answers: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = answers[request.param]
        return answer

    @pytest.fixture
    def op(self, answer: dict[str, Any]) -> str:
        return str(answer["name"])

    @pytest.fixture
    def attribute(self, answer: dict[str, Any], op: str) -> str:
        return f"{FLAGS[op]}={answer['flag']}"

    def test_identity(self, answer: dict[str, Any], op: str) -> None:
        assert (answer["version"], answer["namespace"]) == ("1", "dvmsr")
        assert answer["core"] == f"dvmsr::{op} 1"
        assert answer["outputs"] == 2

    def test_takes_exactly_the_typed_combinations(self, answer: dict[str, Any], op: str) -> None:
        inputs = answer["inputs"]
        expected = ["".join(types(op, inputs, activation)) for activation in (FLOAT, HALF, BF16)]
        assert answer["combinations"] == expected

    def test_output_types(self, answer: dict[str, Any], op: str) -> None:
        inputs = answer["inputs"]
        expected = [types(op, inputs, activation)[1] for activation in (FLOAT, HALF, BF16)]
        assert answer["output_types"] == [*expected, "refused"]
        assert "instead of FP32, FP16 or BF16" in answer["output_types_log"][0]

    def test_output_shapes(self, answer: dict[str, Any], op: str) -> None:
        assert answer["output_shapes"] == OUTPUT_SHAPES[op]

    def test_configures(self, answer: dict[str, Any]) -> None:
        assert answer["configure"] == 0

    def test_tactics_are_unique_and_above_zero(self, answer: dict[str, Any], op: str) -> None:
        tactics = answer["tactics"]
        assert answer["valid_tactics"] == 0
        assert len(set(tactics)) == len(tactics)
        assert min(tactics, default=1) > 0
        assert bool(tactics) == (op == "SelectiveScan")

    def test_workspace_grows_with_the_length(self, answer: dict[str, Any], op: str) -> None:
        workspaces = answer["workspaces"]  # at 1, 100, 1000 and 100000 tokens
        assert workspaces == sorted(workspaces)
        # Batch 2, 6 channels, 16 states: far less than a state per token.
        assert workspaces[-1] < 100_000 * 2 * 6 * 16 * 4
        assert (workspaces[-1] > 0) == (op == "SelectiveScan")

    def test_workspace_is_for_the_largest_bounds(self, answer: dict[str, Any]) -> None:
        assert answer["workspace_of_other_bounds"] == 1

    def test_timings_belong_to_the_kernels_and_the_attribute(
        self, answer: dict[str, Any], op: str, attribute: str
    ) -> None:
        name, operator, form, digest = answer["timing_cache_id"].split()
        assert (name, operator, form, len(digest)) == ("dvmsr", op, attribute, 64)

    def test_names_its_attribute(self, answer: dict[str, Any], op: str) -> None:
        """So that TensorRT's parser gives it to the plugin."""
        names = [FLAGS[op], *(["channel_major"] if op == "SelectiveScan" else [])]
        assert answer["attributes"] == ", ".join(f"{name}=?" for name in names)

    def test_serialises_the_attribute(self, answer: dict[str, Any], attribute: str) -> None:
        assert answer["serialised"] == answer["serialised_by_the_clone"] == attribute

    def test_runtime_takes_every_tactic_and_shape(self, answer: dict[str, Any]) -> None:
        assert set(answer["set_tactic"]) == {0}
        assert answer["shape_change"] == 0
        assert answer["log_before_errors"] == answer["shape_change_log"] == []

    @pytest.mark.parametrize(
        ("call", "refusal", "message"),
        [
            ("unknown_attribute", 0, "has no attribute unknown; use a newer plugin library"),
            ("bad_attribute", 0, "is 2 instead of 0 or 1; export the model again"),
            ("float_attribute", 0, "is not an integer; export the model again"),
            ("older_engine", 0, "it was built with an older plugin library; export the model"),
            ("wrong_port_count", 0, "2 outputs, the node"),
            ("too_few_inputs", 0, "inputs and 2 outputs, the node"),
            ("half_parameters", 1, "is FP16 instead of FP32; export the model again"),
            ("bad_tactic", 1, "no tactic 12345; build the engine anew"),
            ("early_enqueue", 1, "enqueue came before onShapeChange"),
            ("bad_shape", 1, "(2, 1000, 6)"),
        ],
    )
    def test_refusals_reach_the_logger(
        self, answer: dict[str, Any], op: str, call: str, refusal: int, message: str
    ) -> None:
        assert answer[call] == refusal
        (line,) = answer[f"{call}_log"]
        assert line.startswith(f"dvmsr {op}: ")
        assert message in line

    def test_channel_major_tensors_are_refused(self, answer: dict[str, Any], op: str) -> None:
        scan = op == "SelectiveScan"
        assert answer["token_major"] == scan
        assert answer["channel_major"] == 0
        (line,) = answer["channel_major_log"]
        reason = "channel_major is 1, but the kernels" if scan else "has no attribute channel_major"
        assert line.startswith(f"dvmsr {op}: {reason}")

    def test_channels_come_in_whole_groups(self, answer: dict[str, Any], op: str) -> None:
        """Six channels in four groups."""
        scan = op == "SelectiveScan"
        assert answer["bad_groups"] == scan
        messages = " ".join(answer["bad_groups_log"])
        assert ("D must be a multiple of the number of groups G" in messages) == scan


class TestVersions:
    """A stand-in for TensorRT of some version loads the libraries."""

    @staticmethod
    def load(
        library: Library, folder: Path, version: int, call: str, mode: str = "LOCAL"
    ) -> tuple[str, str]:
        """Output and errors of a process that has that TensorRT and does `call`; `fake` is its
        path there, `mode` how it is loaded."""
        fake = folder / f"libnvinfer_fake{version}.so"
        flags = ("-shared", "-fPIC", "-Wno-deprecated-declarations", f"-DFAKE_VERSION={version}")
        library.compile("tensorrt_fake.cpp", fake, *flags)
        values = f"{str(library.pure)!r}, {str(library.registering)!r}, {str(fake)!r}"
        script = (
            f"import ctypes, shutil, subprocess\npure, registering, fake = {values}\n"
            f"trt = ctypes.CDLL(fake, ctypes.RTLD_{mode})\n{call}"
        )
        command = [sys.executable, "-u", "-c", script]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    PURE = "print(trt.load_library(pure.encode()))"
    REGISTERING = "ctypes.CDLL(registering)"

    def test_own_version(self, library: Library, tmp_path: Path) -> None:
        version = 10000 * library.major + 200
        assert self.load(library, tmp_path, version, self.PURE) == ("2\n", "")
        registered = "".join(f"dvmsr::{op}\n" for op in OPERATORS)
        assert self.load(library, tmp_path, version, self.REGISTERING) == (registered, "")

    LINKED = (
        "linked = fake.replace('libnvinfer_fake', 'libnvinfer_plugin')\n"
        "command = ['cc', '-shared', '-x', 'c', '/dev/null', '-x', 'none', '-Wl,--no-as-needed']\n"
        "subprocess.run([*command, fake, '-o', linked], check=True)\n"
        "ctypes.CDLL(linked)\n"
    )
    """Another library, by whose handle TensorRT's functions are found, too."""
    TWICE = "ctypes.CDLL(shutil.copy(fake, fake.replace('fake', 'again')))\n"
    """A second TensorRT with a registry of its own."""

    @pytest.mark.parametrize("mode", ["LOCAL", "GLOBAL"])
    @pytest.mark.parametrize(
        ("before", "registries"), [("", 1), (LINKED, 1), (TWICE, 2)], ids=["one", "linked", "two"]
    )
    def test_registers_once_per_registry(
        self, library: Library, tmp_path: Path, before: str, registries: int, mode: str
    ) -> None:
        """However many handles find it."""
        own = 10000 * library.major + 200
        output, errors = self.load(library, tmp_path, own, before + self.REGISTERING, mode)
        registered = "".join(f"dvmsr::{op}\n" for op in OPERATORS)
        assert (output, errors) == (registered * registries, "")
        output, errors = self.load(library, tmp_path, 120304, before + self.REGISTERING, mode)
        assert (output, errors.count("are not registered with TensorRT 12.3.4")) == ("", registries)

    @pytest.mark.parametrize(
        ("version", "unit", "name"), [(8601, 1000, "8.6.1"), (120304, 10000, "12.3.4")]
    )
    @pytest.mark.parametrize("call", [PURE, REGISTERING], ids=["pure", "registering"])
    def test_refuses_another_major(
        self, library: Library, tmp_path: Path, version: int, unit: int, name: str, call: str
    ) -> None:
        output, errors = self.load(library, tmp_path, version, call)
        assert output in ("0\n", "")
        assert errors == (
            f"dvmsr: the plugins for TensorRT {library.major} are not registered with TensorRT "
            f"{name}; load the library that was built for it, libdvmsr_trt{version // unit}\n"
        )

    def test_rtx_takes_only_the_pure_library(self, library: Library, tmp_path: Path) -> None:
        assert self.load(library, tmp_path, 10701, self.PURE) == ("2\n", "")
        output, errors = self.load(library, tmp_path, 10701, self.REGISTERING)
        assert output == ""
        assert "TensorRT for RTX 1.7.1" in errors
        assert f"load libdvmsr_trt{library.major}.so through IPluginRegistry::loadLibrary" in errors

    def test_without_tensorrt(self, library: Library) -> None:
        script = f"import ctypes; ctypes.CDLL({str(library.registering)!r})"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert result.returncode == 0
        assert f"libnvinfer.so.{library.major} was not found" in result.stderr
