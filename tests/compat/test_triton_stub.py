"""A network with Triton kernels is imported where there is no triton; torch never sees the stub."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dvmsr import compat
from dvmsr.errors import MissingComponentError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None, reason="triton is installed here"
)

KERNELS = """
import triton
import triton.language as tl
from triton.language.extra import libdevice

@triton.autotune(configs=[triton.Config({"BC": 1}, num_warps=4)], key=["n"])
@triton.heuristics({"EVEN": lambda given: True})
@triton.jit
def kernel(x: tl.tensor, n: tl.constexpr):
    tl.store(x, tl.load(x) + 1)

blocks = triton.cdiv(33, 32), triton.next_power_of_2(33)
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "network_with_kernels.py").write_text(KERNELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "network_with_kernels", raising=False)
    return "network_with_kernels"


def test_is_there_for_the_import_alone(network: str) -> None:
    try:
        with compat.importing():
            module = importlib.import_module(network)
            assert importlib.util.find_spec("torch._thing") is None
        assert not any(name.partition(".")[0] == "triton" for name in sys.modules)
        assert importlib.util.find_spec("triton") is None
        assert module.blocks == (2, 64)
        with pytest.raises(MissingComponentError, match="kernel is a Triton kernel"):
            module.kernel[(1, 2)](torch.zeros(3), 3)
    finally:
        compat.uninstall()


@pytest.mark.usefixtures("installed")
def test_a_module_of_torch_finds_none(network: str) -> None:
    importlib.import_module(network)
    assert "triton" in sys.modules
    importlib.util.find_spec("torch._thing")  # as an import of one begins
    assert "triton" not in sys.modules
    asks = compile("import triton", "inside torch", "exec")
    with pytest.raises(ModuleNotFoundError):
        exec(asks, {"__name__": "torch._inductor.thing"})


@pytest.mark.slow
def test_export_and_compilation_work_after_it(network: str, tmp_path: Path) -> None:
    """In a process of its own, in which neither was imported before."""
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from dvmsr import compat
compat.install()
import torch, {network}
from mamba_ssm import Mamba
network, x = Mamba(16).eval(), torch.randn(1, 9, 16)
program = torch.export.export(network, (x,))
torch.testing.assert_close(program.module()(x), network(x))
torch.testing.assert_close(torch.compile(network, fullgraph=True)(x), network(x))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
