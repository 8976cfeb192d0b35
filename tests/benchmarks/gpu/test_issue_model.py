"""The model of a multiprocessor, on made-up kernels whose counts are plain to see."""

from __future__ import annotations

import issue_model
import pytest
from disassembly import Instruction
from issue_model import CARDS
from made_up_code import code

from dvmsr.errors import DvmsrError

SCAN = "dvmsr::cuda::scan_chunks<__half, 16, true>"
EX2 = "MUFU.EX2 R0, R0\n"


def scan(unrolled: int, peeled: int) -> list[Instruction]:
    """16 tokens in an outer loop: 16 loads ahead, 18 exponentials per token; the inner loop takes
    `unrolled` tokens, and `peeled` ones are behind it."""
    inside = unrolled * (18 * EX2 + "FFMA\n")
    text = "MOV\n" + 16 * "LDG.E.U16\n" + inside + "@P0 BRA >17\n" + peeled * 18 * EX2
    return code(text + "@P1 BRA >1\nEXIT")


@pytest.mark.parametrize(("unrolled", "peeled"), [(1, 0), (4, 0), (8, 0), (3, 1), (5, 0), (16, 0)])
def test_unrolled_and_peeled_loops(unrolled: int, peeled: int) -> None:
    walked = issue_model.walked(SCAN, scan(unrolled, peeled), "9.0")
    assert walked.hot == 19 * unrolled + 1
    assert (walked.passes, walked.tokens) == ((16 - peeled) / unrolled, 16)
    expected = {"ex2": 18, "ldg": 1, "fma": (16 - peeled) / 16}
    assert {name: walked.classes[name] for name in expected} == pytest.approx(expected)
    assert walked.bound == "special"
    assert walked.cycles["special"] == pytest.approx(144)
    assert walked.cycles["issue"] == pytest.approx(walked.instructions)


@pytest.mark.parametrize("exponentials", [17, 20, 54])
def test_loops_that_do_not_fit_are_an_error(exponentials: int) -> None:
    """54 in the loop would be three tokens, but there are 20 ahead of it."""
    ahead = 20 if exponentials == 54 else 1
    text = "MOV\n" + ahead * EX2 + exponentials * EX2 + f"@P0 BRA >{ahead + 1}\n@P1 BRA >1\nEXIT"
    with pytest.raises(DvmsrError, match="are not as WALKS"):
        issue_model.walked(SCAN, code(text), "9.0")


def test_states_in_blocks_of_16() -> None:
    """48 states in three blocks: the first of each is ahead of a loop that takes three at a time;
    32 exponentials are none of the states'."""
    block = "LDS R0, [R1]\n" + 16 * EX2
    text = "MOV\n" + 32 * EX2 + block + 48 * EX2 + "@P0 BRA >50\n@P1 BRA >33\n@P2 BRA >1\nEXIT"
    walked = issue_model.walked("dvmsr::cuda::relay::relay<float, 48, true>", code(text), "9.0")
    assert walked.passes == (50 * 16 - 32 - 3 * 16) / 48
    assert (walked.classes["ex2"], walked.classes["lds"]) == (50, 3 / 16)


def test_a_loop_that_lacks_the_one_around_it_is_an_error() -> None:
    text = "MOV\n" + 4 * 18 * EX2 + "@P0 BRA >1\nEXIT"
    with pytest.raises(DvmsrError, match="are not as WALKS"):
        issue_model.walked(SCAN, code(text), "9.0")


def test_a_loop_without_one_around_is_as_many_tokens_as_its_exponentials_are_for() -> None:
    kernel = "dvmsr::cuda::chunk_edges<float, 4>"
    walked = issue_model.walked(kernel, code("MOV\n" + 256 * EX2 + "@P0 BRA >1\nEXIT"), "8.0")
    assert (walked.tokens, walked.classes["ex2"]) == (2, 128)
    walked = issue_model.walked(kernel, code("MOV\n" + 32 * EX2 + "@P0 BRA >1\nEXIT"), "8.0")
    assert (walked.tokens, walked.classes["ex2"]) == (0.25, 128)
    with pytest.raises(DvmsrError, match="are not as WALKS"):
        issue_model.walked(kernel, code("MOV\n" + 200 * EX2 + "@P0 BRA >1\nEXIT"), "8.0")


@pytest.mark.parametrize(
    ("capability", "line", "name", "cycles"),
    [
        ("9.0", "FFMA R1, R2, R3, R4", "fma", {"fp32": 1}),
        ("8.0", "FADD.FTZ R1, R2, R3", "add", {"fp32": 2}),
        ("9.0", "IMAD.WIDE R1, R2, R3, R4", "int", {"fp32": 2}),
        ("9.0", "IMAD.MOV.U32 R1, RZ, RZ, R4", "move", {"fp32": 2}),
        ("9.0", "IADD3.X R1, R2, R3, R4", "int", {"integer": 2}),
        ("9.0", "UIADD3 UR1, UR2, UR3, URZ", "int", {}),
        ("9.0", "ISETP.GE.AND P0, PT, R1, R2, PT", "branch", {"integer": 2}),
        ("9.0", "HADD2.F32 R1, -RZ, R2.H0_H0", "convert", {"fp32": 1}),
        ("9.0", "HFMA2.MMA R1, -RZ, RZ, 0, 0", "move", {"fp32": 1}),
        ("9.0", "F2F.F16.F32 R1, R2", "convert", {"special": 8}),
        ("9.0", "F2FP.F16.F32.PACK_AB R1, RZ, R2", "convert", {"integer": 2}),
        ("9.0", "MUFU.RCP R1, R2", "rcp", {"special": 8}),
        ("9.0", "LDS.128 R4, [R1]", "lds", {"shared": 8}),
        ("9.0", "LDS R4, [R1]", "lds", {"shared": 4}),
        ("9.0", "STS.128 [R1], R4", "sts", {"shared": 16}),
        ("9.0", "LDG.E.U16.CONSTANT R1, [R2.64]", "ldg", {"shared": 4}),
        ("9.0", "STG.E.U16 [R2.64], R1", "stg", {"shared": 4}),
        ("9.0", "SHFL.BFLY PT, R1, R2, 0x1, 0x1f", "shfl", {"shared": 4}),
        ("9.0", "STL.64 [R1], R2", "local", {"shared": 8}),
        ("9.0", "LDL R2, [R1]", "local", {"shared": 4}),
        ("9.0", "LDC.64 R2, c[0x0][R1]", "const", {}),
        ("9.0", "BAR.SYNC.DEFER_BLOCKING 0x0", "sync", {}),
        ("9.0", "FMNMX R1, R2, R3, PT", "select", {"integer": 2}),
        ("9.0", "NOP", "other", {}),
    ],
)
def test_classes_and_units(capability: str, line: str, name: str, cycles: dict[str, int]) -> None:
    kernel = "dvmsr::cuda::chunk_gradients<float, 16, 1>"
    plain = code("MOV R1, R2\n" + 19 * EX2 + "@P0 BRA >1\nEXIT")
    more = code(f"MOV R1, R2\n{line}\n" + 19 * EX2 + "@P0 BRA >1\nEXIT")
    before = issue_model.walked(kernel, plain, capability)
    after = issue_model.walked(kernel, more, capability)
    units = {
        unit: after.cycles[unit] - before.cycles.get(unit, 0)
        for unit in after.cycles
        if after.cycles[unit] != before.cycles.get(unit, 0)
    }
    assert after.classes.get(name, 0) - before.classes.get(name, 0) == 1
    assert units == {"issue": 1, **cycles}


def test_blocks_that_fit() -> None:
    fit = issue_model.blocks_per_multiprocessor
    assert fit(SCAN, 128, 5120, "9.0") == 4
    assert fit(SCAN, 129, 5120, "9.0") == 3
    assert fit(SCAN, 32, 40_000, "8.9") == 2
    assert fit("dvmsr::cuda::chunk_edges<float, 1>", 32, 2048, "8.6") == 6


def test_times_and_floors() -> None:
    """As reckoned by hand: 1310 tokens per multiprocessor at 100 cycles, 1.755 GHz."""
    h100 = CARDS["H100"]
    assert issue_model.microseconds(100, h100, 172_890) == pytest.approx(74.6, abs=0.1)
    floors = issue_model.floors(h100, 172_890, 2)
    assert floors == pytest.approx({"exponentials": 89.5, "bytes": 52.8}, abs=0.1)


def test_names_and_states() -> None:
    assert issue_model.name_of(SCAN) == "scan_chunks"
    assert issue_model.states_of(SCAN) == 16
    assert issue_model.states_of("dvmsr::cuda::chunk_edges<__half, 4>") == 64
    assert issue_model.states_of("dvmsr::cuda::chunk_gradients<float, 32, 2>") == 64
    assert issue_model.states_of("dvmsr::cuda::relay::reach_back<float, 8, 4>") == 8
    assert issue_model.states_of("dvmsr::cuda::join_chunks") is None
