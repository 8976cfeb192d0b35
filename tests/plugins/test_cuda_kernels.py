"""The CUDA kernels, run on the host: the shared test vectors, odd inputs, and the sanitizers."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_emulation import (
    HOST,
    INVALID_VALUE,
    SCAN_SOURCES,
    Library,
    Plan,
    compile_for_host,
)
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
PLANS = [("relay", 48), ("relay", WHOLE), ("chunks", 16), ("chunks", 100), ("chunks", WHOLE)]
"""Parts of whole slices or tiles, of tiles and a bit, and the single pass, by variant."""

COMPILER = shutil.which("g++")
if not COMPILER:
    pytest.skip("needs g++ to compile the CUDA kernels for the host", allow_module_level=True)
MODEST = ScanCase(2, 70, 20, 16)
HELPERS = Path(__file__).parents[1] / "helpers"


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


def name_of(plan: Plan) -> str:
    return f"{plan[0]} {'whole' if plan[1] == WHOLE else plan[1]}"


@pytest.mark.parametrize("plan", PLANS, ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TAKEN, ids=str)
def test_scan_equals_the_truth(library: Library, case: ScanCase, dtype: str, plan: Plan) -> None:
    inputs, truth = scan_case(case, dtype)
    assert_close(library.scan(inputs, plan, softplus=case.softplus), truth, dtype)


def test_every_tactic_equals_the_truth(library: Library) -> None:
    inputs, truth = scan_case(ScanCase(1, 3000, 20, 16, "slow decay"), "float16")
    plans = {library.plan((1, 3000, 20, 1, 16), tactic, 7) for tactic in library.tactics()}
    assert {("relay", WHOLE), ("relay", 432), ("chunks", WHOLE), ("chunks", 112)} <= plans
    for plan in plans:
        assert_close(library.scan(inputs, plan), truth, "float16")


@pytest.mark.parametrize("zero", [True, False], ids=["zero h0", "random h0"])
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_parts_agree_with_the_single_pass(library: Library, case: ScanCase, zero: bool) -> None:
    inputs = dict(scan_case(case, "float32")[0])
    inputs["h0"] = inputs["h0"] * (0 if zero else 10)
    truth = scan_truth(inputs, case.softplus)
    plans = [("chunks", length) for length in (1, 7, 16, 33, 69, 70, 71)]
    plans += [("relay", length) for length in (16, 32, 48, 64, 70, 80)]
    for plan in plans:
        assert_close(library.scan(inputs, plan, softplus=case.softplus), truth, "float32")


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
    plan=st.tuples(st.just("chunks"), st.integers(8, 80))
    | st.tuples(st.just("relay"), st.integers(1, 3).map(lambda slices: 16 * slices)),
    seed=st.integers(0, 1000),
)
def test_scan_of_any_size(library: Library, case: ScanCase, plan: Plan, seed: int) -> None:
    inputs = cast(scan_inputs(case, seed), "float32")
    truth = scan_truth(inputs, case.softplus)
    assert_close(library.scan(inputs, plan, softplus=case.softplus), truth, "float32")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("plan", [("relay", 32), ("relay", WHOLE), ("chunks", 16)], ids=name_of)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_no_order_of_blocks_and_warps_changes_anything(
    library: Library, case: ScanCase, plan: Plan, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random ones, in which a warp stands still until no other can go on."""
    sizes = ScanCase(case.batch, 300, case.channels, case.state, "usual", case.groups, case.gate)
    inputs, _ = scan_case(sizes, "float32")
    expected = library.scan(inputs, plan)
    monkeypatch.setenv("HOST_CUDA_SEED", str(seed))
    for one, same in zip(library.scan(inputs, plan), expected, strict=True):
        assert np.array_equal(one, same)


@pytest.mark.parametrize(
    ("first", "second"),
    [(("chunks", 16), ("relay", WHOLE)), (("relay", 16), ("chunks", WHOLE))],
    ids=["chunks then relay", "relay then chunks"],
)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_a_second_call_goes_on_where_the_first_ended(
    library: Library, case: ScanCase, first: Plan, second: Plan
) -> None:
    inputs, truth = scan_case(case, "float32")
    before, after = dict(inputs), dict(inputs)
    for name in inputs.keys() & {"u", "delta", "B", "C", "z"}:
        before[name] = np.ascontiguousarray(inputs[name][:, :37])
        after[name] = np.ascontiguousarray(inputs[name][:, 37:])
    y1, state = library.scan(before, first, softplus=case.softplus)
    after["h0"] = state
    y2, h_last = library.scan(after, second, softplus=case.softplus)
    assert_close((np.concatenate([y1, y2], 1), h_last), truth, "float32")


@pytest.mark.parametrize("plan", [("relay", 16), ("chunks", 16)], ids=name_of)
def test_groups_are_scans_of_their_own(library: Library, plan: Plan) -> None:
    """Each of 131 channels: an odd number, and more than a block takes."""
    inputs, _ = scan_case(ScanCase(1, 40, 3 * 131, 16, groups=3), "float32")
    y, h_last = library.scan(inputs, plan)
    for group in range(3):
        channels = slice(131 * group, 131 * (group + 1))
        own = {name: inputs[name][..., channels] for name in ("u", "delta", "z")}
        own |= {name: inputs[name][channels] for name in ("A", "D", "delta_bias")}
        own |= {name: inputs[name][:, :, group : group + 1] for name in ("B", "C")}
        own["h0"] = inputs["h0"][:, channels]
        own = {name: np.ascontiguousarray(value) for name, value in own.items()}
        y_own, h_own = library.scan(own, plan)
        assert np.array_equal(y[..., channels], y_own)
        assert np.array_equal(h_last[:, channels], h_own)


@pytest.mark.parametrize("offset", [0, 1, 4], ids=lambda n: f"offset {n}")
@pytest.mark.parametrize("plan", [("relay", 16), ("chunks", 16)], ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES)
def test_token_strides(library: Library, dtype: str, plan: Plan, offset: int) -> None:
    """u and z as halves of one tensor, delta, B and C as parts of another, at aligned and unaligned
    places, y into a wider one."""
    inputs, truth = scan_case(ScanCase(2, 70, 20, 16, groups=2), dtype)
    uz = np.concatenate([inputs["u"], inputs["z"]], 2)
    rows = [inputs[name].reshape(2, 70, 32) for name in ("B", "C")]
    dbc = np.concatenate([inputs["delta"][..., :offset], *rows, inputs["delta"]], 2)
    views = {"u": uz[..., :20], "z": uz[..., 20:], "delta": dbc[..., 64 + offset :]}
    views |= {"B": dbc[..., offset : 32 + offset], "C": dbc[..., 32 + offset : 64 + offset]}
    for name in ("B", "C"):
        views[name] = np.lib.stride_tricks.as_strided(
            views[name], (2, 70, 2, 16), (*views[name].strides[:2], *inputs[name].strides[2:])
        )
    wide = np.zeros((2, 70, 23), inputs["u"].dtype)
    assert_close(library.scan(inputs | views, plan, y=wide[..., :20]), truth, dtype)
    assert not wide[..., 20:].any()


def spoiled(where: str, bad: float) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """50 tokens with one bad number, at token 20 where it is of a token, and their truth."""
    case = ScanCase(1, 50, 6, 4, groups=2)
    inputs = {k: v.copy() for k, v in scan_case(case, "float32")[0].items()}
    place = {"A": (2, 1), "h0": (0, 2, 1), "B": (0, 20, 1, 3), "C": (0, 20, 1, 3)}
    inputs[where][place.get(where, (0, 20, 3))] = bad
    with np.errstate(all="ignore"):
        return inputs, scan_truth(inputs)


SPOILED = ["u", "delta", "B", "C", "z", "h0", "A"]


@pytest.mark.parametrize("plan", [("relay", WHOLE), ("chunks", 16), ("chunks", WHOLE)], ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", SPOILED)
def test_nan_and_infinity_reach_what_depends_on_them(
    library: Library, where: str, bad: float, plan: Plan
) -> None:
    """Finite exactly where the truth is finite, and right there: of other groups, everywhere."""
    inputs, truth = spoiled(where, bad)
    for one, true in zip(library.scan(inputs, plan), truth, strict=True):
        finite = np.isfinite(true)
        np.testing.assert_array_equal(np.isfinite(one), finite)
        assert error(one[finite], true[finite]) <= TOLERANCES["float32"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", SPOILED)
def test_nan_and_infinity_end_at_the_latest_with_the_range_where_they_are_forgotten(
    library: Library, where: str, bad: float
) -> None:
    """Ranges of 16 tokens: right where the truth is finite, and spoiled at least to token 31."""
    inputs, truth = spoiled(where, bad)
    results = library.scan(inputs, ("relay", 16))
    for one, true in zip(results, truth, strict=True):
        finite = np.isfinite(true)
        assert np.isfinite(one[finite]).all()
        assert error(one[finite], true[finite]) <= TOLERANCES["float32"]
    first = 16 if where == "h0" else 32
    np.testing.assert_array_equal(
        np.isfinite(results[0][:, :first]), np.isfinite(truth[0][:, :first])
    )


@pytest.mark.parametrize("plan", [("relay", 48), ("chunks", 50)], ids=name_of)
def test_the_state_is_carried_for_as_long_as_it_counts(library: Library, plan: Plan) -> None:
    """A channel that never decays beside one that does at once, across many parts."""
    inputs = {k: v.copy() for k, v in scan_case(ScanCase(1, 600, 4, 16), "float32")[0].items()}
    inputs["A"][:] = np.array([0.0, -1e-6, -1.0, -1e4])[:, None]
    inputs["h0"][:] = 1000
    assert_close(library.scan(inputs, plan), scan_truth(inputs), "float32")


@pytest.mark.parametrize("state", [3, 16, 40])
def test_what_is_walked_back_for_stops_with_every_state(library: Library, state: int) -> None:
    """States from lasting ones to such as are gone at once, in one channel: over 20 ranges."""
    case = ScanCase(1, 640, 4, state)
    inputs = {k: v.copy() for k, v in scan_case(case, "float32")[0].items()}
    inputs["A"][:] = -np.geomspace(1e-5, 1e3, state)
    inputs["A"][1] = inputs["A"][1, ::-1]
    inputs["h0"][:] = 100
    assert_close(library.scan(inputs, ("relay", 32)), scan_truth(inputs), "float32")


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
    plans = [("chunks", 20), ("chunks", 80), ("relay", 16), ("relay", 80), ("relay", WHOLE)]
    for plan in plans:
        result = library.scan(inputs, plan, softplus=False)
        assert_close(result, scan_truth(inputs, softplus=False), "float32")


@pytest.mark.parametrize("softplus", [True, False], ids=["A above zero", "steps below zero"])
def test_nothing_stays_nothing_however_it_would_grow(library: Library, softplus: bool) -> None:
    """2000 tokens over which a state would grow beyond all numbers, if there were one: A above
    zero, or negative steps; then a few that start one."""
    case = ScanCase(1, 2048, 3, 16, softplus=softplus)
    inputs = {k: v.copy() for k, v in scan_case(case, "float32")[0].items()}
    inputs["A"][:] = 0.3 if softplus else -0.3
    inputs["delta"][:] = 1 if softplus else -1
    inputs["delta_bias"][:] = 0
    inputs["h0"][:] = 0
    inputs["u"][:, :2040] = 0
    truth = scan_truth(inputs, softplus)
    for plan in [("relay", 512), ("chunks", 256), ("relay", WHOLE)]:
        assert_close(library.scan(inputs, plan, softplus=softplus), truth, "float32")


def test_the_fastest_decay_keeps_the_state_where_no_time_passes(library: Library) -> None:
    """A of the lowest floats, across chunks whose delta is zero, whole ranges of them too."""
    inputs = {k: v.copy() for k, v in scan_case(ScanCase(1, 600, 4, 16), "float32")[0].items()}
    inputs["A"][:] = -np.finfo(np.float32).max * np.array([[1], [0.9], [0.5], [1e-3]])
    inputs["delta"][:, :, :2] = -1e4  # never passes
    inputs["delta"][:, 100:500, 2:] = -1e4
    truth = scan_truth(inputs)
    assert all(map(np.all, map(np.isfinite, truth)))
    for plan in [("chunks", 8), ("chunks", 50), ("relay", 16), ("relay", 64), ("relay", WHOLE)]:
        assert_close(library.scan(inputs, plan), truth, "float32")


def test_workspace(library: Library) -> None:
    sizes = (1, 172890, 120, 1, 16)
    assert library.workspace_size(sizes, ("chunks", WHOLE)) == 0
    assert library.workspace_size(sizes, ("relay", WHOLE)) == 0
    assert library.workspace_size(sizes, ("chunks", 1000)) == 173 * 120 * 17 * 4
    assert library.workspace_size((1, 172890, 480, 4, 16), ("chunks", 1000)) == 173 * 480 * 17 * 4
    assert library.workspace_size(sizes, ("relay", 1600)) == 108 * 4 * 17 * 32 * 4
    assert library.workspace_size((1, 3200, 3, 1, 17), ("relay", 1600)) == (32 + 2) * 32 * 4


@settings(max_examples=200, deadline=None)
@given(
    batch=st.integers(1, 9),
    length=st.integers(0, 1 << 22),
    groups=st.integers(1, 4),
    channels=st.integers(1, 300),
    state=st.integers(1, 64),
    multiprocessors=st.integers(1, 300),
    shrunk=st.integers(1, 4),
)
def test_no_tactic_needs_more_than_the_largest_workspace(
    library: Library,
    batch: int,
    length: int,
    groups: int,
    channels: int,
    state: int,
    multiprocessors: int,
    shrunk: int,
) -> None:
    """That of smaller sizes neither: TensorRT asks for the largest alone."""
    largest = library.largest_workspace((batch, length, groups * channels, groups, state))
    sizes = -(-batch // shrunk), length // shrunk, groups * channels, groups, state
    for tactic in [0, *library.tactics()]:
        plan = library.plan(sizes, tactic, multiprocessors)
        assert library.workspace_size(sizes, plan) <= largest
    assert largest <= 1024 * 128 * 65 * 4


def test_the_cost_model(library: Library) -> None:
    """As many parts as fill the device, in whole waves; one where there is no need of more."""
    variant, length = library.plan((1, 172890, 120, 1, 16), 0, 132)
    assert (variant, -(-172890 // length)) == ("relay", 33)  # of 4 blocks each
    assert library.plan((1, 16, 120, 1, 16), 0, 132)[1] == WHOLE
    assert library.plan((1024, 172890, 120, 1, 16), 0, 132)[1] == WHOLE
    of_fewer = library.plan((1, 172890, 120, 1, 16), 0, 20)[1]
    assert of_fewer > length
    # The columns of four groups of 120 channels are those of four batch elements.
    fours = (1, 172890, 480, 4, 16), (4, 172890, 120, 1, 16)
    assert len({library.plan(four, 0, 132) for four in fours}) == 1
    # 48 columns: 2 ranges would leave a quarter of the multiprocessors idle.
    _, length = library.plan((12, 65536, 120, 1, 16), 0, 132)
    assert -(-65536 // length) * 48 / 132 % 1 in (0, pytest.approx(1, abs=0.1))


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": -1},
        {"length": -1},
        {"length": 2**30},
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
    for plan in [("relay", WHOLE), ("chunks", WHOLE)]:
        assert library.scan(inputs, plan, **changed) == INVALID_VALUE


@pytest.mark.parametrize("plan", [("relay", 0), ("relay", 24), ("chunks", 0)], ids=name_of)
def test_scan_refuses_a_plan_that_is_none(library: Library, plan: Plan) -> None:
    assert library.scan(scan_case(MODEST, "float32")[0], plan) == INVALID_VALUE


def test_a_number_without_a_tactic_gives_no_plan(library: Library) -> None:
    for tactic in (-1, 1 + library.tactics()[-1]):
        assert library.plan((1, 70, 20, 1, 16), tactic, 132) == ("relay", 0)


def test_without_a_gate_its_stride_does_not_count(library: Library) -> None:
    inputs, truth = scan_case(FORMS[2], "float32")
    for plan in [("relay", WHOLE), ("chunks", WHOLE)]:
        assert_close(library.scan(inputs, plan, z_stride=-1), truth, "float32")


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


SLOW = """
import sys
from pathlib import Path
from cuda_emulation import Library
from vectors import ScanCase, cast, error, scan_inputs, scan_truth
inputs = cast(scan_inputs(ScanCase(1, 4096, 8, 16, "slow decay")), "float32")
results = Library(Path(sys.argv[1])).scan(inputs, ("relay", int(sys.argv[2])))
print(max(map(error, results, scan_truth(inputs))))
"""


def slow_decays_off(library: Path, bias: float, length: int) -> float:
    """By how much, where 2^x of the emulated device is off by so many ulp."""
    environment = {**os.environ, "HOST_CUDA_EX2_BIAS": str(bias), "PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-c", SLOW, str(library), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_accurate_decays_need_no_unbiased_exponential(
    request: pytest.FixtureRequest, cuda_on_host: Path
) -> None:
    folder = Path(request.config.cache.mkdir("cuda-accurate"))
    options = ["-O1", "-shared", "-fPIC", "-DDVMSR_CUDA_ACCURATE_DECAYS=1"]
    accurate = compile_for_host(COMPILER, folder, *options, sources=SCAN_SOURCES)
    for bias in (0.25, -0.5):
        assert slow_decays_off(cuda_on_host, bias, WHOLE) > TOLERANCES["float32"]
        assert slow_decays_off(accurate, bias, WHOLE) <= TOLERANCES["float32"] / 4
        assert slow_decays_off(accurate, bias, 512) <= TOLERANCES["float32"] / 4


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("address", ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
        ("thread", ("-O1", "-fsanitize=thread")),
    ],
    ids=["address and undefined", "thread"],
)
def test_sanitizers_find_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    """Out-of-bounds accesses, undefined behaviour, and what no barrier orders, in a program of its
    own."""
    probe = subprocess.run(
        [COMPILER, *options, "-x", "c++", "-", "-o", str(tmp_path / "probe")],
        input="int main() {}",
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        pytest.skip("g++ has no sanitizer libraries")
    folder = Path(request.config.cache.mkdir(f"cuda-sanitized-{kind}"))
    program = compile_for_host(COMPILER, folder, "-g1", *options, str(HOST / "sanitized.cpp"))
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        ("turn", (), "threads wait for a turn that never comes"),
        ("thread", (), "threads wait at a barrier that others never reach"),
        ("barrier", ("-fsanitize=thread",), "ThreadSanitizer: data race"),
    ],
    ids=["a turn that is not handed on", "a thread that misses a barrier", "no barrier"],
)
@pytest.mark.parametrize("seed", ["", "1"], ids=["in step", "random order"])
def test_the_emulated_device_shows(
    tmp_path: Path, fault: str, options: tuple[str, ...], message: str, seed: str
) -> None:
    source = HOST / "faulty.cpp"
    program = compile_for_host(COMPILER, tmp_path, *options, "-x", "c++", str(source), sources=())
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    if seed:
        environment["HOST_CUDA_SEED"] = seed
    done = subprocess.run([program, fault], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert message in done.stderr
