"""`dvmsr parity` with networks other than DVMSR."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from foreign_model import save_foreign

from dvmsr.errors import DvmsrError, ParityError, UsageError
from dvmsr.kernels import cpu
from dvmsr.runtime.backends.tensors import Arrays, TensorNetwork
from dvmsr.runtime.parity.difference import ArrayDifference, measure_arrays
from dvmsr.runtime.parity.tensors import compare

Command = Callable[..., tuple[int, str, str]]
native = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `dvmsr parity` in this process: arguments -> exit code, stdout, stderr."""
    return partial(command, "parity")


def giving(**outputs: object) -> TensorNetwork:
    class Fake(TensorNetwork):
        model, backend, precision = "fake", "native", "fp32"
        inputs, examples = {}, {}

        def _run(self, feeds: Arrays) -> Arrays:
            return {name: np.asarray(array) for name, array in outputs.items()}

    return Fake()


@pytest.mark.parametrize(
    ("output", "truth", "max_abs", "relative"),
    [
        ([1.0, 2.5], [1.0, -2.0], 4.5, 2.25),
        ([0.0], [0.0], 0.0, 0.0),
        ([], [], 0.0, 0.0),
        ([np.nan, np.inf, 4.0], [np.nan, np.inf, 5.0], 1.0, 0.2),
        ([np.nan], [1.0], np.inf, np.inf),
        ([1.0], [np.inf], np.inf, np.inf),
        ([np.inf], [-np.inf], np.inf, np.inf),
        ([3, 4], [3, 8], 4.0, 0.5),
        ([True, False], [True, True], 1.0, 1.0),
        ([np.float16(6e4)], [np.float16(-6e4)], 120000.0, 2.0),
    ],
)
def test_differences(output: list, truth: list, max_abs: float, relative: float) -> None:
    found = measure_arrays(np.array(output), np.array(truth))
    assert found == ArrayDifference(max_abs, relative)


def test_outputs_are_matched() -> None:
    (one,) = compare(giving(output=[1.0]), giving(y=[2.0]), {}, {})
    assert (one.output, one.shape, one.max_abs, one.relative) == ("output", (1,), 1.0, 0.5)
    found = compare(giving(b=1, a=2), giving(a_out_out=2, b=2), {}, {})
    assert [(row.output, row.max_abs) for row in found] == [("b", 1.0), ("a", 0.0)]


@pytest.mark.parametrize(
    ("a", "b", "kind", "message"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, UsageError, "fake gives a, b and fake a; compare networks"),
        ({"a": 1, "a_out": 2}, {"a": 1, "c": 2}, UsageError, "gives a, a_out and fake a, c"),
        ({"a": [1]}, {"a": [1, 2]}, ParityError, r"output a has shape \(1,\) from fake \(native\)"),
        ({"a": ["x"]}, {"a": ["x"]}, UsageError, "output a of fake is <U1, which cannot be"),
    ],
)
def test_outputs_that_cannot_be_compared(
    a: dict, b: dict, kind: type[DvmsrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        compare(giving(**a), giving(**b), {}, {})


@native
def test_a_factory_and_its_file(command: Command, exported: Callable[[str], Path]) -> None:
    """On the sizes that the file tells; every output counts."""
    file = exported("gated")
    code, out, err = command("mamba_patterns:gated:torch", file)
    assert (code, err) == (0, "")
    assert "inputs: tokens float32 2x5x8" in out
    assert "within the limits: at most 1e-05 of the largest" in out
    code, out, err = command(
        f"{file}:portable", "mamba_patterns:gated", "--input", "1x9x8", "--json"
    )
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["inputs"] == {"tokens": "float32 1x9x8"}
    assert [(o["output"], o["shape"]) for o in report["outputs"]] == [
        ("tokens_out", [1, 9, 8]), ("states", [2, 1, 8, 4]),
    ]  # fmt: skip
    assert (report["a"]["backend"], report["b"]["backend"]) == ("portable", "torch")
    assert report["passed"]
    assert all(0 < output["relative"] < 1e-5 for output in report["outputs"])


def test_beyond_the_limits(command: Command, tmp_path: Path) -> None:
    """The table is printed first; arrays come from a file."""
    np.savez(tmp_path / "in.npz", picture=np.full((1, 3, 4, 4), 0.5, np.float32))
    clip, log = (save_foreign(tmp_path / f"{name}.onnx", name) for name in ("Clip", "Log"))
    given = ("--inputs", tmp_path / "in.npz")
    code, out, err = command(clip, log, *given)
    assert code == 3
    assert "result │ 1x3x8x8 │ 1.19e+00 │ 1.72e+00" in out
    assert "differ: result: 1.7 of the largest where 1e-05 is allowed" in err
    assert command(clip, log, *given, "--limits", "max-abs=1.2")[0] == 0
    assert command(clip, log, *given, "--limits", "max-abs=1.2,relative=1")[0] == 3


def test_what_a_network_prints_is_no_result(command: Command) -> None:
    code, out, err = command(*2 * ["own_network:talkative"], "--input", "3", "--json")
    assert (code, err) == (0, 2 * "making\n" + 2 * "computing\n")
    assert json.loads(out)["passed"]


@pytest.mark.parametrize("backend", ["portable", "torch"])
def test_dvmsr_as_a_file_and_by_a_factory(command: Command, backend: str) -> None:
    """Their inputs have other names."""
    code, out, _ = command("own_network:student", f"student:{backend}", "--input", "1x3x8x8")
    assert code == 0
    assert "output │ 1x3x32x32" in out


def test_dvmsr_beside_another_network(command: Command) -> None:
    code, out, err = command("student:portable", "own_network:enlarge", "--input", "1x3x8x8")
    assert (code, out) == (3, "")
    assert "has shape (1, 3, 32, 32) from" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["student", "own_network:enlarge", "--images", "x"], "leave out --images, and give"),
        (["own_network:enlarge", "student", "--layers"], "own_network:enlarge is compared on arr"),
        (["own_network:enlarge", "student", "--heat-map", "x.png"], "leave out --heat-map"),
        (["own_network:enlarge", "student", "--limits", "psnr=60"], "--limits takes relative="),
        (["student", "student:portable", "--input", "1x3x8x8"], "are compared on pictures; give"),
        (["student", "student", "--inputs", "x.npz"], "give --images in place of --inputs"),
        (["nothing", "own_network:enlarge"], "no model named nothing"),
        (["own_network:enlarge", "own_network:enlarge"], "does not tell the sizes of its inputs"),
        (["own_network:enlarge:native", "student", "--input", "1"], "backend native runs ONNX"),
    ],
)
def test_what_makes_no_sense(command: Command, arguments: list[str], message: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
