"""The innermost line of a stack that is a network's own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx_ir
import onnxscript
import pytest
import torch

import dvmsr
from dvmsr.export.network.lines import last_line

BETWEEN = [
    str(Path(package.__file__ or "").parent / "inner" / "file.py")
    for package in (torch, onnxscript, onnx_ir, dvmsr)
]


def stack(*files: str) -> str:
    return "".join(f'  File "{file}", line {n}, in f\n    f()\n' for n, file in enumerate(files))


@pytest.mark.parametrize("between", [*BETWEEN, contextlib.__file__, "<frozen runpy>"])
@pytest.mark.parametrize("own", ["/home/a/dvmsr/net.py", "/torch/net.py", "/x/onnx_ir/net.py"])
def test_a_network_may_lie_anywhere(own: str, between: str) -> None:
    assert last_line(stack("<frozen runpy>", own, between, between)) == f"{own}, line 1"


def test_there_may_be_none() -> None:
    assert last_line(stack(*BETWEEN)) == last_line("") == ""
