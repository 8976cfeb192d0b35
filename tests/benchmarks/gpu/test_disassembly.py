"""What cuobjdump prints, read."""

from __future__ import annotations

import runpy
from pathlib import Path

import disassembly
import pytest
from disassembly import Instruction
from shared import REPOSITORY

from dvmsr.errors import DvmsrError, MissingComponentError
from dvmsr.kernels.nvcc import Nvcc

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function _ZN4toys4walkIfLi16EEEvPf:
  REG:40 STACK:16 SHARED:5120 LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function plain:
  REG:8 STACK:0 SHARED:0 LOCAL:4 CONSTANT[0]:528 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
CODE = """
	code for sm_90
	.target	sm_90

		Function : _ZN4toys4walkIfLi16EEEvPf
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;        /* 0x00000a00ff017b82 */
                                                                 /* 0x000ff00000000800 */
        /*0010*/              @!P1 MUFU.EX2 R3, R3 ;             /* 0x0000000300037308 */
                                                                 /* 0x000e240000000800 */
        /*0020*/              @P0  BRA.U !UP0, 0x10 ;            /* 0x00000000ff007947 */
        /*0030*/                   EXIT ;                        /* 0x000000000000794d */
		..........
		Function : plain
        /*0000*/                   EXIT ;                        /* 0x000000000000794d */
"""


def test_what_kernels_take() -> None:
    assert disassembly.usages(USAGE) == [
        {"kernel": "toys::walk<float, 16>", "reg": 40, "stack": 16, "shared": 5120, "local": 0},
        {"kernel": "plain", "reg": 8, "stack": 0, "shared": 0, "local": 4},
    ]


def test_instructions() -> None:
    assert disassembly.instructions(CODE) == {
        "toys::walk<float, 16>": [
            Instruction(0x00, "", "LDC", "R1, c[0x0][0x28]"),
            Instruction(0x10, "!P1", "MUFU.EX2", "R3, R3"),
            Instruction(0x20, "P0", "BRA.U", "!UP0, 0x10"),
            Instruction(0x30, "", "EXIT", ""),
        ],
        "plain": [Instruction(0, "", "EXIT", "")],
    }


@pytest.fixture
def beside_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an nvcc beside which tools are looked for, and nowhere else."""
    monkeypatch.setattr(disassembly.nvcc, "find", lambda: Nvcc(tmp_path / "nvcc", (13, 0, 88)))
    monkeypatch.setattr(disassembly.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return tmp_path


def test_a_missing_tool_is_named_with_its_package(beside_nvcc: Path) -> None:
    with pytest.raises(MissingComponentError, match="pip install nvidia-cuda-cuobjdump, or"):
        disassembly.resources(beside_nvcc / "kernels.cubin")


def cuobjdump(folder: Path, said: str) -> None:
    """One that fails with these words."""
    script = folder / "cuobjdump"
    script.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 255\n')
    script.chmod(0o755)


def test_what_the_tool_cannot_read(beside_nvcc: Path) -> None:
    cuobjdump(beside_nvcc, "fatal: no ELF")
    with pytest.raises(
        DvmsrError, match=r"cannot read .*kernels\.cubin \(fatal: no ELF\); compile"
    ):
        disassembly.resources(beside_nvcc / "kernels.cubin")


def test_a_library_for_the_host_has_no_kernels(beside_nvcc: Path) -> None:
    cuobjdump(beside_nvcc, "cuobjdump info    : File 'x.so' does not contain device code")
    assert disassembly.resources(beside_nvcc / "x.so") == []


def test_a_build_goes_on_without_it_and_says_so(
    beside_nvcc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = runpy.run_path(str(REPOSITORY / "benchmarks" / "gpu" / "build.py"))
    assert build["resources"](beside_nvcc / "libdvmsr_cuda.so") == []
    said = "no registers told: reading machine code needs cuobjdump; pip install "
    assert capsys.readouterr().err.startswith(said)
