"""Which names each stand-in has: the modules of mamba-ssm, causal-conv1d and the compiled ones."""

from typing import Any

from dvmsr.compat import conv, extension, generation, inner, mamba, norm, scan
from dvmsr.compat.refusals import refused_class, refused_function

_SCANS = {
    "selective_scan_fn": scan.selective_scan_fn,
    "selective_scan_ref": scan.selective_scan_fn,
    "mamba_inner_fn": inner.mamba_inner_fn,
    "mamba_inner_ref": inner.mamba_inner_fn,
    "mamba_inner_fn_no_out_proj": inner.mamba_inner_fn_no_out_proj,
    "bimamba_inner_fn": inner.bimamba_inner_fn,
    "bimamba_inner_ref": inner.bimamba_inner_fn,
}
_NORMS = {
    "RMSNorm": norm.RMSNorm,
    "rms_norm_fn": norm.rms_norm_fn,
    "layer_norm_fn": norm.layer_norm_fn,
}
_CONVS = {
    "causal_conv1d_fn": conv.causal_conv1d_fn,
    "causal_conv1d_update": conv.causal_conv1d_update,
}
_SSD = "Mamba-2 (one scalar A per head, chunked scan) is another operator than the selective scan"
_MAMBA3 = "Mamba-3 is another operator than the selective scan"
_TEXT = generation.TEXT
_HUB = "it downloads; give torch.load or safetensors the file"


def _refused(module: str, names: str, reason: str) -> dict[str, Any]:
    """Capitalised names are classes."""
    found = {}
    for name in names.split():
        make = refused_class if name[0].isupper() else refused_function
        found[name] = make(f"{module}.{name}", reason)
    return found


def _compiled(module: Any) -> dict[str, Any]:
    return {"fwd": module.fwd, "bwd": module.bwd}


_REFUSED = {
    module: _refused(module, names, reason)
    for module, names, reason in (
        ("mamba_ssm.modules.mamba2", "Mamba2", _SSD),
        ("mamba_ssm.modules.mamba2_simple", "Mamba2Simple", _SSD),
        ("mamba_ssm.modules.ssd_minimal", "ssd_minimal_discrete", _SSD),
        ("mamba_ssm.modules.mamba3", "Mamba3", _MAMBA3),
        ("mamba_ssm.modules.mha", "MHA", _TEXT),
        ("mamba_ssm.modules.mlp", "GatedMLP", _TEXT),
        (
            "mamba_ssm.ops.triton.ssd_combined",
            "mamba_chunk_scan_combined mamba_split_conv1d_scan_combined mamba_chunk_scan "
            "ssd_selective_scan ssd_chunk_scan_combined_ref",
            _SSD,
        ),
        ("mamba_ssm.ops.triton.layernorm_gated", "RMSNorm rmsnorm_fn layernorm_fn", _SSD),
        (
            "mamba_ssm.models.mixer_seq_simple",
            "MambaLMHeadModel MixerModel create_block _init_weights",
            _TEXT,
        ),
        ("mamba_ssm.models.config_mamba", "MambaConfig", _TEXT),
        (
            "mamba_ssm.utils.generation",
            "sample decode update_graph_cache capture_graph",
            _TEXT,
        ),
        ("mamba_ssm.utils.hf", "load_config_hf load_state_dict_hf", _HUB),
    )
}

_NAMES: dict[str, dict[str, Any]] = {
    **_REFUSED,
    "mamba_ssm": {
        "__version__": "2.2.4+dvmsr",
        "selective_scan_fn": scan.selective_scan_fn,
        "mamba_inner_fn": inner.mamba_inner_fn,
        "Mamba": mamba.Mamba,
        "Mamba2": _REFUSED["mamba_ssm.modules.mamba2"]["Mamba2"],
        "Mamba3": _REFUSED["mamba_ssm.modules.mamba3"]["Mamba3"],
        "MambaLMHeadModel": _REFUSED["mamba_ssm.models.mixer_seq_simple"]["MambaLMHeadModel"],
    },
    "mamba_ssm.ops.selective_scan_interface": _SCANS,
    "mamba_ssm.ops.triton.layer_norm": _NORMS,
    "mamba_ssm.ops.triton.layernorm": _NORMS,  # its name in mamba-ssm 1.x
    "mamba_ssm.ops.triton.selective_state_update": {
        "selective_state_update": scan.selective_state_update,
        "selective_state_update_ref": scan.selective_state_update,
    },
    "mamba_ssm.modules.mamba_simple": {"Mamba": mamba.Mamba, "Block": mamba.Block},
    "mamba_ssm.modules.block": {"Block": mamba.BlockWithMlp},
    "mamba_ssm.utils.generation": {
        **_REFUSED["mamba_ssm.utils.generation"],
        "InferenceParams": generation.InferenceParams,
        "GenerationMixin": generation.GenerationMixin,
    },
    "causal_conv1d": {"__version__": "1.5.0+dvmsr", **_CONVS},
    "causal_conv1d.causal_conv1d_interface": _CONVS,
    "selective_scan_cuda": _compiled(extension.SelectiveScanCuda),
    "selective_scan_cuda_core": _compiled(extension.SelectiveScanCudaCore),
    "selective_scan_cuda_nrow": _compiled(extension.SelectiveScanCudaCore),
    "selective_scan_cuda_oflex": _compiled(extension.SelectiveScanCudaOflex),
    "selective_scan_cuda_ndstate": _compiled(extension.SelectiveScanCudaNdstate),
}


def _with_packages(names: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """And the packages on the way to each, `mamba_ssm.ops` for one."""
    ways = {".".join(parts[:n]) for parts in map(_parts, names) for n in range(1, len(parts))}
    return {**{way: {} for way in sorted(ways)}, **names}


def _parts(name: str) -> list[str]:
    return name.split(".")


STAND_INS = _with_packages(_NAMES)
"""What each module has, by its dotted name."""
PACKAGES = frozenset(name for name in STAND_INS if "." not in name)
"""The topmost ones, below which there is nothing else."""
