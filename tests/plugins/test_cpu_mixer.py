"""The mixer's CPU kernel through its C interface, against the FP64 truth."""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixer_vectors import EPSILON, MIXER_CASES, MixerCase, mixer_inputs, mixer_truth
from packed_kernels import packed_mixer
from shared import REPOSITORY
from vectors import TOLERANCE, error

from dvmsr.errors import DvmsrError
from dvmsr.kernels import cpu

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)

DTYPES = ["float32", "float16"]
OUTPUTS = ("y", "new_tail", "h_last")
BLOCKS = [
    MixerCase(2, length, 20, 16, 3, 4, 10, 7)
    for length in (1, 2, 3, 95, 96, 97, 191, 192, 193, 500)
]
"""Around the runs of tokens that are computed at a time."""
STATES = [MixerCase(1, 50, 9, state, 1, width) for state, width in ((1, 1), (8, 2), (64, 5))]
Arrays = dict[str, np.ndarray]


def run(inputs: Arrays, threads: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with packed_mixer(inputs, EPSILON) as mixer:
        return mixer(inputs, threads)


def check(inputs: Arrays, threads: int = 1) -> None:
    dtype = str(inputs["x"].dtype)
    tolerances = TOLERANCE[dtype], TOLERANCE[dtype], TOLERANCE["float32"]
    for name, output, truth, tolerance in zip(
        OUTPUTS, run(inputs, threads), mixer_truth(inputs), tolerances, strict=True
    ):
        assert output.shape == truth.shape
        assert error(output, truth) <= tolerance, name


@pytest.mark.parametrize("threads", [1, 2, 24])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*MIXER_CASES, *BLOCKS, *STATES], ids=str)
def test_equals_fp64(case: MixerCase, dtype: str, threads: int) -> None:
    check(mixer_inputs(case, dtype), threads)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    case=st.builds(
        MixerCase,
        batch=st.integers(0, 3),
        length=st.one_of(st.integers(0, 9), st.sampled_from([95, 96, 97, 191, 193, 300])),
        inner=st.integers(1, 70),
        state=st.sampled_from([1, 2, 3, 8, 16, 17, 64]),
        rank=st.integers(1, 9),
        width=st.integers(1, 5),
        channels=st.integers(1, 70),
        out_channels=st.integers(1, 70),
        norm=st.booleans(),
        in_proj=st.booleans(),
        out_proj=st.booleans(),
    ),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_any_shape(case: MixerCase, dtype: str, threads: int, seed: int) -> None:
    check(mixer_inputs(case, dtype, seed), threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        MixerCase(2, 500, 40, 16, 3, 4, 20, 20),
        MixerCase(1, 300, 130, 3, 5, 2),
        *(MixerCase(1, length, 70, 16, norm=False, in_proj=False) for length in (13, 64, 197)),
    ],
    ids=str,
)
def test_threads_change_no_bit(case: MixerCase, dtype: str) -> None:
    inputs = mixer_inputs(case, dtype)
    with packed_mixer(inputs, EPSILON) as mixer:
        outputs = mixer(inputs, 1)
        for threads in (2, 3, 5, 16):
            for one, other in zip(outputs, mixer(inputs, threads), strict=True):
                np.testing.assert_array_equal(one, other)


CUT_CASES = [MixerCase(2, 203, 20, 16, 3, width) for width in (1, 2, 4)]
# In half precision the tail is rounded, but for that of values that were in half precision already.
CUTS = [
    *((case, "float32") for case in CUT_CASES),
    *((replace(case, norm=False, in_proj=False), "float16") for case in CUT_CASES),
]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 96, 101, 192, 202, 203])
@pytest.mark.parametrize(("case", "dtype"), CUTS, ids=str)
def test_two_calls_equal_one_to_the_bit(case: MixerCase, dtype: str, cut: int) -> None:
    inputs = mixer_inputs(case, dtype)
    with packed_mixer(inputs, EPSILON) as mixer:
        y, *states = mixer(inputs)
        first, tail, h = mixer(inputs | {"x": inputs["x"][:, :cut]})
        second, *ended = mixer({"x": inputs["x"][:, cut:], "tail": tail, "h0": h})
    np.testing.assert_array_equal(np.concatenate([first, second], 1), y)
    for one, other in zip(ended, states, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_elements_do_not_know_each_other(dtype: str) -> None:
    inputs = mixer_inputs(MixerCase(3, 130, 20, 16), dtype)
    per_element = ("x", "tail", "h0")
    inputs["x"][1] = np.nan
    with packed_mixer(inputs, EPSILON) as mixer:
        outputs = mixer(inputs, 3)
        for i in range(3):
            alone = mixer({name: inputs[name][i : i + 1] for name in per_element})
            for together, one in zip(outputs, alone, strict=True):
                np.testing.assert_array_equal(together[i : i + 1], one)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize(
    ("name", "place"),
    [("x", (0, 100, 3)), ("tail", (1, 2, 3)), ("h0", (0, 4, 5)), ("D", 7), ("out_proj", (2, 3))],
)
@pytest.mark.parametrize("norm", [False, True])
def test_nan_and_infinity_reach_the_same_places(
    name: str, place: tuple[int, ...] | int, norm: bool, threads: int, value: float
) -> None:
    inputs = mixer_inputs(MixerCase(2, 210, 20, 16, norm=norm), "float32")
    inputs[name][place] = value
    with np.errstate(all="ignore"):
        truths = mixer_truth(inputs)
    for output, truth in zip(run(inputs, threads), truths, strict=True):
        np.testing.assert_array_equal(np.isnan(output), np.isnan(truth))
        np.testing.assert_array_equal(np.isinf(output), np.isinf(truth))


def test_concurrent_calls_of_one_mixer() -> None:
    cases = [mixer_inputs(MixerCase(1, length, 40, 16), "float32") for length in (3, 130, 500)]
    weights = {k: v for k, v in cases[0].items() if k not in ("x", "tail", "h0")}
    cases = [case | weights for case in cases] * 4
    with packed_mixer(cases[0], EPSILON) as mixer:
        expected = [mixer(case) for case in cases]
        with ThreadPoolExecutor(4) as pool:
            for outputs, one in zip(pool.map(lambda c: mixer(c, 2), cases), expected, strict=True):
                for a, b in zip(outputs, one, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", [1, -1])
def test_tasks_may_run_one_after_the_other(order: int) -> None:
    """A parallel_for with a single thread, which the kernel was told are sixteen."""
    inputs = mixer_inputs(MixerCase(2, 500, 40, 16), "float32")
    ran: list[int] = []

    def in_turn(_context: object, task: int, count: int, data: int) -> None:
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(task)
        for index in range(count)[::order]:
            ran.append(index)
            function(data, index)

    with packed_mixer(inputs, EPSILON) as mixer, pytest.MonkeyPatch.context() as patch:
        expected = mixer(inputs)
        kind = dict(cpu._Executor._fields_)["parallel_for"]
        executor = cpu._Executor(16, kind(in_turn), None)
        patch.setattr(cpu, "_Executor", lambda threads: executor)
        outputs = mixer(inputs)
    assert ran == list(range(len(ran))[::order]) and len(ran) > 1
    for output, one in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, one)


SIZES = {
    "dtype": 0, "epsilon": 1e-5, "channels": 4, "inner": 3, "state": 2, "rank": 1, "width": 2,
    "out_channels": 5, "in_proj_x": 64, "in_proj_z": 64, "out_proj": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("channels", "inner", "state", "rank", "width", "out_channels")),
        *({name: -1} for name in ("channels", "inner", "state", "rank", "width", "out_channels")),
        *({"dtype": dtype} for dtype in (-1, 2, 3)),
        *({name: None} for name in ("in_proj_x", "in_proj_z", "out_proj")),
        {"in_proj_x": None, "in_proj_z": None},
        {"norm_weight": 64},
        {"norm_bias": 64},
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused(wrong: dict[str, int | None]) -> None:
    with (
        pytest.raises(DvmsrError, match="native mixer_pack: invalid argument"),
        cpu.packed("mixer", cpu.MixerWeights(**SIZES | wrong)),
    ):
        pass


@pytest.mark.parametrize("sizes", [(-1, 1), (1, -1)], ids=str)
def test_negative_sizes_are_refused(sizes: tuple[int, int]) -> None:
    inputs = mixer_inputs(MixerCase(1, 1, 3, 2), "float32")
    with (
        packed_mixer(inputs, EPSILON) as mixer,
        pytest.raises(DvmsrError, match="native mamba_mixer_forward: invalid argument"),
    ):
        cpu.call(
            "mamba_mixer_forward",
            mixer._handle,
            cpu.MixerInputs(*sizes),
            cpu.MixerOutputs(),
            threads=1,
        )


HEADER = (REPOSITORY / "plugins" / "include" / "dvmsr_ops.h").read_text()


@pytest.mark.parametrize(
    "name", ["MixerWeights", "MixerInputs", "MixerOutputs", "Conv3x3Weights", "Conv3x3Inputs"]
)
def test_bound_structures_are_those_of_the_header(name: str) -> None:
    declared = "dvmsr_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    (body,) = re.findall(rf"typedef struct \{{([^}}]*)\}} {declared};", HEADER)
    members = [
        (part.strip(" *"), statement.split()[0])
        for statement in re.sub(r"/\*.*?\*/", "", body, flags=re.S).split(";")[:-1]
        for part in re.sub(r"^\s*(const\s+)?\w+\s", "", statement).split(",")
    ]
    kinds = {
        "dvmsr_dtype": ctypes.c_int,
        "float": ctypes.c_float,
        "int64_t": ctypes.c_int64,
        "const": ctypes.c_void_p,
        "void": ctypes.c_void_p,
    }
    assert [(member, kinds[kind]) for member, kind in members] == getattr(cpu, name)._fields_
