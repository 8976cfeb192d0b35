"""The CUDA kernels, run on the host: the shared test vectors, odd inputs, and the sanitizers."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cuda_emulation import HOST, INVALID_VALUE, Library, compile_for_host
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import (
    CONV_CASES,
    SCAN_CASES,
    TOLERANCE,
    ConvCase,
    ScanCase,
    cast,
    conv_inputs,
    conv_truth,
    error,
    scan_inputs,
    scan_truth,
)

from dvmsr.kernels.cuda import WHOLE

pytestmark = pytest.mark.slow

try:
    import ml_dtypes  # noqa: F401  (gives numpy its bfloat16)
except ImportError:
    BFLOAT16 = pytest.param("bfloat16", marks=pytest.mark.skip(reason="needs ml_dtypes"))
else:
    BFLOAT16 = pytest.param("bfloat16")

DTYPES = ["float32", "float16", BFLOAT16]
TOLERANCES = TOLERANCE | {"bfloat16": 1.6e-2}  # three bits fewer than float16
CHUNKS = [16, 100, WHOLE]
"""Chunks of one tile, of tiles and a bit, and the single pass."""

COMPILER = shutil.which("g++")
if not COMPILER:
    pytest.skip("needs g++ to compile the CUDA kernels for the host", allow_module_level=True)
MODEST = ScanCase(2, 70, 20, 16)


@pytest.fixture(scope="session")
def library(cuda_on_host: Path) -> Library:
    return Library(cuda_on_host)


TAKEN = [case for case in SCAN_CASES if case.state <= 64]
"""Those that the kernels take."""
FORMS = [
    ScanCase(2, 70, 20, 16),
    ScanCase(2, 70, 20, 16, groups=4),
    ScanCase(2, 70, 20, 16, gate=False),
    ScanCase(2, 70, 20, 16, groups=4, gate=False, softplus=False),
]


@functools.cache
def scan_case(case: ScanCase, dtype: str) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    inputs = cast(scan_inputs(case), dtype)
    return inputs, scan_truth(inputs, case.softplus)


def assert_close(actual: object, truth: tuple[np.ndarray, ...], dtype: str) -> None:
    assert isinstance(actual, tuple), f"status {actual}"
    for one, true in zip(actual, truth, strict=True):
        assert one.shape == true.shape
        assert error(one, true) <= TOLERANCES[dtype]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TAKEN, ids=str)
def test_scan_equals_the_truth(library: Library, case: ScanCase, dtype: str, chunk: int) -> None:
    inputs, truth = scan_case(case, dtype)
    assert_close(library.scan(inputs, chunk, softplus=case.softplus), truth, dtype)


def test_every_tactic_equals_the_truth(library: Library) -> None:
    tactics = library.tactics()
    assert tactics == sorted(set(tactics))
    assert tactics[-1] == WHOLE
    inputs, truth = scan_case(ScanCase(1, 3000, 20, 16, "slow decay"), "float16")
    for tactic in tactics:
        assert_close(library.scan(inputs, tactic), truth, "float16")


@pytest.mark.parametrize("zero", [True, False], ids=["zero h0", "random h0"])
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_chunks_agree_with_the_single_pass(library: Library, case: ScanCase, zero: bool) -> None:
    inputs = dict(scan_case(case, "float32")[0])
    inputs["h0"] = inputs["h0"] * (0 if zero else 10)
    truth = scan_truth(inputs, case.softplus)
    for chunk in (1, 7, 16, 33, 69, 70, 71):
        assert_close(library.scan(inputs, chunk, softplus=case.softplus), truth, "float32")


@settings(max_examples=25, deadline=None)
@given(
    case=st.builds(
        lambda groups, channels, **sizes: ScanCase(
            channels=groups * channels, groups=groups, kind="usual", **sizes
        ),
        groups=st.integers(1, 5),
        channels=st.integers(1, 140),  # of a group
        batch=st.integers(1, 3),
        length=st.integers(0, 40),
        state=st.integers(1, 64),
        gate=st.booleans(),
        softplus=st.booleans(),
    ),
    chunk=st.integers(8, 80),
    seed=st.integers(0, 1000),
)
def test_scan_of_any_size(library: Library, case: ScanCase, chunk: int, seed: int) -> None:
    inputs = cast(scan_inputs(case, seed), "float32")
    truth = scan_truth(inputs, case.softplus)
    assert_close(library.scan(inputs, chunk, softplus=case.softplus), truth, "float32")


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_a_second_call_goes_on_where_the_first_ended(library: Library, case: ScanCase) -> None:
    inputs, truth = scan_case(case, "float32")
    first, second = dict(inputs), dict(inputs)
    for name in inputs.keys() & {"u", "delta", "B", "C", "z"}:
        first[name] = np.ascontiguousarray(inputs[name][:, :37])
        second[name] = np.ascontiguousarray(inputs[name][:, 37:])
    y1, state = library.scan(first, 16, softplus=case.softplus)
    second["h0"] = state
    y2, h_last = library.scan(second, WHOLE, softplus=case.softplus)
    assert_close((np.concatenate([y1, y2], 1), h_last), truth, "float32")


def test_groups_are_scans_of_their_own(library: Library) -> None:
    """Each of 131 channels: an odd number, and more than a block takes."""
    inputs, _ = scan_case(ScanCase(1, 40, 3 * 131, 16, groups=3), "float32")
    y, h_last = library.scan(inputs, 16)
    for group in range(3):
        channels = slice(131 * group, 131 * (group + 1))
        own = {name: inputs[name][..., channels] for name in ("u", "delta", "z")}
        own |= {name: inputs[name][channels] for name in ("A", "D", "delta_bias")}
        own |= {name: inputs[name][:, :, group : group + 1] for name in ("B", "C")}
        own["h0"] = inputs["h0"][:, channels]
        own = {name: np.ascontiguousarray(value) for name, value in own.items()}
        y_own, h_own = library.scan(own, 16)
        assert np.array_equal(y[..., channels], y_own)
        assert np.array_equal(h_last[:, channels], h_own)


@pytest.mark.parametrize("dtype", DTYPES)
def test_token_strides(library: Library, dtype: str) -> None:
    """u and z as halves of one tensor, delta, B and C as parts of another, y into a wider one."""
    inputs, truth = scan_case(ScanCase(2, 70, 20, 16, groups=2), dtype)
    uz = np.concatenate([inputs["u"], inputs["z"]], 2)
    rows = [inputs[name].reshape(2, 70, 32) for name in ("B", "C")]
    dbc = np.concatenate([inputs["delta"], *rows], 2)
    views = {"u": uz[..., :20], "z": uz[..., 20:], "delta": dbc[..., :20]}
    views |= {"B": dbc[..., 20:52], "C": dbc[..., 52:]}
    for name in ("B", "C"):
        views[name] = np.lib.stride_tricks.as_strided(
            views[name], (2, 70, 2, 16), (*views[name].strides[:2], *inputs[name].strides[2:])
        )
    wide = np.zeros((2, 70, 23), inputs["u"].dtype)
    assert_close(library.scan(inputs | views, 16, y=wide[..., :20]), truth, dtype)
    assert not wide[..., 20:].any()


@pytest.mark.parametrize("chunk", [16, WHOLE])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["u", "delta", "B", "C", "z", "h0", "A"])
def test_nan_and_infinity_reach_what_depends_on_them(
    library: Library, where: str, bad: float, chunk: int
) -> None:
    """Finite exactly where the truth is finite, and right there: of other groups, everywhere."""
    case = ScanCase(1, 50, 6, 4, groups=2)
    inputs = {k: v.copy() for k, v in scan_case(case, "float32")[0].items()}
    place = {"A": (2, 1), "h0": (0, 2, 1), "B": (0, 20, 1, 3), "C": (0, 20, 1, 3)}
    inputs[where][place.get(where, (0, 20, 3))] = bad
    with np.errstate(all="ignore"):
        truth = scan_truth(inputs)
    for one, true in zip(library.scan(inputs, chunk), truth, strict=True):
        finite = np.isfinite(true)
        np.testing.assert_array_equal(np.isfinite(one), finite)
        assert error(one[finite], true[finite]) <= TOLERANCES["float32"]


def test_the_state_is_carried_for_as_long_as_it_counts(library: Library) -> None:
    """A channel that never decays beside one that does at once, across many chunks."""
    inputs = {k: v.copy() for k, v in scan_case(ScanCase(1, 600, 4, 16), "float32")[0].items()}
    inputs["A"][:] = np.array([0.0, -1e-6, -1.0, -1e4])[:, None]
    inputs["h0"][:] = 1000
    assert_close(library.scan(inputs, 50), scan_truth(inputs), "float32")


def test_a_state_that_grows_again_is_carried(library: Library) -> None:
    """Without softplus, steps forwards and as many backwards: what had decayed comes back."""
    case = ScanCase(1, 160, 3, 4, gate=False, softplus=False)
    inputs = {k: v.copy() for k, v in scan_case(case, "float32")[0].items()}
    inputs["A"][:] = -1
    inputs["delta_bias"][:] = 0
    inputs["delta"][:, :80] = 0
    inputs["delta"][:, 80:120] = 0.75  # to 2^-43
    inputs["delta"][:, 120:] = -0.75
    inputs["u"][:] = 0
    for chunk in (20, 80, WHOLE):
        result = library.scan(inputs, chunk, softplus=False)
        assert_close(result, scan_truth(inputs, softplus=False), "float32")


def test_the_fastest_decay_keeps_the_state_where_no_time_passes(library: Library) -> None:
    """A of the lowest floats, across chunks whose delta is zero, whole ranges of them too."""
    inputs = {k: v.copy() for k, v in scan_case(ScanCase(1, 600, 4, 16), "float32")[0].items()}
    inputs["A"][:] = -np.finfo(np.float32).max * np.array([[1], [0.9], [0.5], [1e-3]])
    inputs["delta"][:, :, :2] = -1e4  # never passes
    inputs["delta"][:, 100:500, 2:] = -1e4
    truth = scan_truth(inputs)
    assert all(map(np.all, map(np.isfinite, truth)))
    for chunk in (8, 50, WHOLE):
        assert_close(library.scan(inputs, chunk), truth, "float32")


def test_workspace_and_choice(library: Library) -> None:
    sizes = (1, 172890, 120, 1, 16)
    assert library.workspace_size(sizes, WHOLE) == 0
    assert library.workspace_size(sizes, 1000) == 173 * 120 * 17 * 4
    assert library.workspace_size((1, 172890, 480, 4, 16), 1000) == 173 * 480 * 17 * 4
    assert library.best_chunk((1, 16, 120, 1, 16), 132) == WHOLE
    assert library.best_chunk((1024, 172890, 120, 1, 16), 132) == WHOLE
    assert 100 < library.best_chunk(sizes, 132) < 10000
    assert library.best_chunk(sizes, 20) > library.best_chunk(sizes, 132)
    # The blocks of four groups of 120 channels are those of four batch elements.
    fours = (1, 172890, 480, 4, 16), (4, 172890, 120, 1, 16)
    assert len({library.best_chunk(four, 132) for four in fours}) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": -1},
        {"length": -1},
        {"channels": 0},
        {"state": 0},
        {"state": 65},
        {"groups": 0},
        {"groups": -1},
        {"groups": 3},
        {"groups": 2},  # of 16 states: 32 elements per token
        {"dtype": 3},
        {"u_stride": 19},
        {"B_stride": 15},
        {"z_stride": 19},
        {"y_stride": 2**31},
    ],
    ids=lambda changed: "-".join(f"{k}={v}" for k, v in changed.items()),
)
def test_scan_refuses(library: Library, changed: dict[str, int]) -> None:
    inputs, _ = scan_case(MODEST, "float32")
    assert library.scan(inputs, WHOLE, **changed) == INVALID_VALUE


def test_scan_refuses_a_chunk_without_tokens(library: Library) -> None:
    assert library.scan(scan_case(MODEST, "float32")[0], 0) == INVALID_VALUE


def test_without_a_gate_its_stride_does_not_count(library: Library) -> None:
    inputs, truth = scan_case(FORMS[2], "float32")
    assert_close(library.scan(inputs, WHOLE, z_stride=-1), truth, "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_conv_equals_the_truth(library: Library, case: ConvCase, dtype: str) -> None:
    inputs = cast(conv_inputs(case), dtype)
    truth = conv_truth(inputs, case.activation)
    assert_close(library.conv(inputs, activation=case.activation), truth, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1, 24], ids=lambda n: f"offset {n}")
def test_conv_token_strides(library: Library, dtype: str, offset: int) -> None:
    """x as a part of a wider tensor, at aligned and unaligned places."""
    inputs = cast(conv_inputs(ConvCase(2, 33, 24, 4)), dtype)
    wide = np.full((2, 33, 56), np.nan, inputs["x"].dtype)
    wide[..., offset : offset + 24] = inputs["x"]
    truth = conv_truth(inputs)
    inputs["x"] = wide[..., offset : offset + 24]
    assert_close(library.conv(inputs), truth, dtype)


@pytest.mark.parametrize(
    "changed", [{"length": -1}, {"width": 0}, {"dtype": 3}, {"x_stride": 2}], ids=str
)
def test_conv_refuses(library: Library, changed: dict[str, int]) -> None:
    inputs = cast(conv_inputs(ConvCase(1, 3, 3, 4)), "float32")
    assert library.conv(inputs, **changed) == INVALID_VALUE


def test_sanitizers_find_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Out-of-bounds accesses and undefined behaviour, in a program of its own."""
    options = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    probe = subprocess.run(
        [COMPILER, *options, "-x", "c++", "-", "-o", str(tmp_path / "probe")],
        input="int main() {}",
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        pytest.skip("g++ has no sanitizer libraries")
    folder = Path(request.config.cache.mkdir("cuda-sanitized"))
    program = compile_for_host(COMPILER, folder, *options, str(HOST / "sanitized.cpp"))
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
