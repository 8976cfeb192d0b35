"""Loops, found in made-up machine code."""

from __future__ import annotations

from control_flow import Flow
from made_up_code import code

NESTED = """MOV
FADD
FMUL
@P0 BRA >2
@P1 BRA >6
EXIT
FFMA
BRA >1"""
"""The outer loop's last part lies behind the end."""

BRANCHES = """MOV
BRA.U !UP0, >5
FFMA a
@P0 BRA >2
BRA >7
FFMA b
@P0 BRA >5
FADD
@P1 BRA >1
EXIT"""
"""A pass goes through one inner loop or the other."""

CALLS = """MOV
FADD
FMUL
CALL.REL.NOINC >9
@P0 CALL.REL.NOINC >6
BRA >2
FFMA
@P1 BRA >1
EXIT
MUFU.RCP
RET.REL.NODEC R2 >0"""
"""A subroutine is called; another call leaves the inner loop."""

DIVERGED = """MOV
FADD
BRA.DIV UR4, >5
@P0 BRA >1
EXIT
WARPSYNC
BRA >3"""


def bodies(flow: Flow) -> list[list[str]]:
    return [[one.opcode for one in flow.instructions(loop.blocks)] for loop in flow.loops]


def test_nested_loops() -> None:
    flow = Flow(code(NESTED))
    assert bodies(flow) == [["FMUL", "BRA"], ["FADD", "FMUL", "BRA", "BRA", "FFMA", "BRA"]]
    inner, outer = flow.loops
    assert (flow.around(inner), flow.around(outer)) == ([outer], [])
    assert flow.passing(outer, inner) == outer.blocks


def test_calls() -> None:
    flow = Flow(code(CALLS))
    inner = ["FMUL", "CALL.REL.NOINC", "CALL.REL.NOINC", "BRA"]
    assert bodies(flow) == [inner, ["FADD", *inner, "FFMA", "BRA"]]


def test_a_pass_leaves_out_the_other_branch() -> None:
    flow = Flow(code(BRANCHES))
    first, second, outer = flow.loops
    for loop, there, absent in ((first, "a", "b"), (second, "b", "a")):
        operands = {one.operands for one in flow.instructions(flow.passing(outer, loop))}
        assert there in operands
        assert absent not in operands


def test_warps_whose_lanes_went_apart_are_left_out() -> None:
    assert bodies(Flow(code(DIVERGED))) == [["FADD", "BRA.DIV", "BRA"]]


def test_without_loops() -> None:
    assert Flow(code("FADD\n@P0 EXIT\nFMUL\nEXIT")).loops == []
