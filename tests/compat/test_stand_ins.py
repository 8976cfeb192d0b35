"""install, uninstall and importing; what the stand-in modules say of what they lack."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dvmsr import compat
from dvmsr.compat.table import STAND_INS


def test_nothing_changes_without_install() -> None:
    """In a process of its own, in which nothing else was imported."""
    script = (
        "import sys, torch\n"
        "before = list(sys.meta_path), torch.cuda.device\n"
        "import dvmsr.compat\n"
        "assert (list(sys.meta_path), torch.cuda.device) == before\n"
        "assert 'mamba_ssm' not in sys.modules\n"
        "import importlib.util as u\n"
        "spec = u.find_spec('mamba_ssm')\n"
        "assert spec is None or spec.origin != 'dvmsr.compat'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", STAND_INS)
def test_every_module_has_its_names(name: str) -> None:
    module = importlib.import_module(name)
    for attribute, value in STAND_INS[name].items():
        assert getattr(module, attribute) is value
    assert importlib.util.find_spec(name) is not None


@pytest.mark.usefixtures("installed")
def test_the_imports_of_networks() -> None:
    """As MambaIR, MambaVision, Vim, U-Mamba and VMamba write them."""
    lines = """
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref
from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, bimamba_inner_fn
from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn_no_out_proj
from mamba_ssm import Mamba, Mamba2
from mamba_ssm.modules.mamba_simple import Mamba, Block
from mamba_ssm.utils.generation import GenerationMixin
from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
from mamba_ssm.ops.triton.layernorm import RMSNorm, layer_norm_fn, rms_norm_fn
from mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn
from mamba_ssm.ops.triton.selective_state_update import selective_state_update
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
import mamba_ssm.ops.selective_scan_interface as interface
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
import selective_scan_cuda, selective_scan_cuda_core, selective_scan_cuda_oflex
"""
    found: dict[str, object] = {}
    exec(lines, found)
    interface = found["interface"]
    assert isinstance(interface, ModuleType)
    assert found["selective_scan_fn"] is interface.selective_scan_fn


@pytest.mark.usefixtures("installed")
def test_a_missing_name_is_named() -> None:
    sentence = "mamba_ssm.ops.selective_scan_interface has no other_fn in dvmsr's stand-in"
    with pytest.raises(ImportError, match=sentence):
        exec("from mamba_ssm.ops.selective_scan_interface import other_fn", {})
    module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    with pytest.raises(AttributeError, match=sentence):
        _ = module.other_fn
    assert not hasattr(module, "other_fn")
    with pytest.raises(ModuleNotFoundError, match="mamba_ssm has no distributed"):
        importlib.import_module("mamba_ssm.distributed.tensor_parallel")


@pytest.mark.usefixtures("installed")
def test_what_cannot_be_is_refused_when_called() -> None:
    import mamba_ssm
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    from mamba_ssm.utils.generation import GenerationMixin
    from mamba_ssm.utils.hf import load_config_hf

    with pytest.raises(compat.NotSupportedError, match=r"modules\.mamba2\.Mamba2 is not part"):
        mamba_ssm.Mamba2(64)
    with pytest.raises(compat.NotSupportedError, match="mamba_chunk_scan_combined is not part"):
        mamba_chunk_scan_combined(1, 2, chunk_size=3)
    with pytest.raises(compat.NotSupportedError, match="load_config_hf is not part"):
        load_config_hf("name")

    class Network(torch.nn.Module, GenerationMixin):
        pass

    with pytest.raises(compat.NotSupportedError, match="generation of text"):
        Network().generate()
    assert not isinstance(Network(), mamba_ssm.Mamba2)


def fake_package(folder: Path) -> None:
    (folder / "mamba_ssm" / "ops").mkdir(parents=True)
    (folder / "mamba_ssm" / "__init__.py").write_text("__version__ = 'real'\n")
    (folder / "mamba_ssm" / "ops" / "__init__.py").write_text("")


def test_uninstall_gives_back_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mamba_ssm is installed and imported before."""
    fake_package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    finders, device = list(sys.meta_path), torch.cuda.device
    real = importlib.import_module("mamba_ssm")
    try:
        compat.install()
        compat.install()
        assert importlib.import_module("mamba_ssm").Mamba
        assert importlib.import_module("mamba_ssm.modules.mamba_simple")
        compat.uninstall()
        assert sys.modules["mamba_ssm"] is real
        assert "mamba_ssm.modules" not in sys.modules
        assert (sys.meta_path, torch.cuda.device) == (finders, device)
        assert importlib.import_module("mamba_ssm.ops").__file__
        compat.uninstall()
    finally:
        for name in ("mamba_ssm", "mamba_ssm.ops"):
            sys.modules.pop(name, None)


def test_the_operators_do_not_take_a_stand_in_for_mamba_ssm() -> None:
    """On a GPU without kernels they use mamba-ssm, which must not lead back to them."""
    from dvmsr import ops

    for found in (ops._mamba_scan, ops._causal_conv1d_fn):
        found.cache_clear()
    compat.install()
    try:
        assert ops._mamba_scan() is None
        assert ops._causal_conv1d_fn() is None
    finally:
        compat.uninstall()
        for found in (ops._mamba_scan, ops._causal_conv1d_fn):
            found.cache_clear()
