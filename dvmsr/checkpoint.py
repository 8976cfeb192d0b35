"""Checkpoints on disk: our own `.safetensors` and the official `.pth`.

A `.safetensors` file carries its configuration as JSON under `dvmsr.config` in its metadata. A
`.pth` file is a state dict, or one under `params_ema` (preferred) or `params`; its configuration
is read off the shapes of its tensors. What (Distributed)DataParallel and torch.compile put into the
names of either is passed over. Nothing that a file contains is ever executed.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dvmsr.config import PRESETS, UPSAMPLER_CHANNELS, DVMSRConfig
from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.model import DVMSR
from dvmsr.utils.atomic import write_atomically
from dvmsr.utils.paths import check_input, unreadable
from dvmsr.weights.registry import check_checkpoint

CONFIG_KEY = "dvmsr.config"

_SHOWN = 3
_WRAPPERS = {"module", "_orig_mod"}
"""Parts of names that do not come from the network but from (Distributed)DataParallel and
torch.compile around it or one of its modules."""
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Of weights; narrower ones mean nothing without their scales."""
_VIMM = r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\."

Shapes = dict[str, tuple[int, ...]]


def load(path: str | os.PathLike[str], vimm_residual: bool | None = None) -> DVMSR:
    """Read a network: FP32, on the CPU, in eval mode.

    Args:
        path: a `.safetensors` or `.pth` file.
        vimm_residual: whether each ViMM adds its input; by default as the file's configuration
            says, and off for a file without one (the official code; the weights do not show it).

    Raises:
        UsageError: if there is no such file, or its name is not that of a checkpoint.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is damaged or not a checkpoint of this network.
    """
    path = Path(path)
    tensors, config = _read(path)
    _check_kinds(path, tensors)
    tensors = _unwrapped(tensors)
    found = _shapes(tensors)
    config = config or _infer_config(found)
    expected = _expected_shapes(config) if config else None
    if config is None or expected != found:
        raise IncompatibleModelError(_explain_mismatch(path, expected, found))
    if vimm_residual is not None:
        config = replace(config, vimm_residual=vimm_residual)
    with torch.random.fork_rng(devices=[]):  # the fresh weights are discarded
        model = DVMSR(config)
    model.load_state_dict(tensors)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise IncompatibleModelError(
                f"{path} holds values in {name} that are no finite numbers; train the network "
                "again or take an earlier checkpoint"
            )
    return model.eval()


def save(
    model: DVMSR, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a `.safetensors` file with its configuration inside, over an existing one if need be.

    Args:
        metadata: more strings for the file's header.

    Raises:
        UsageError: if the path does not end in `.safetensors`.
        DvmsrError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} must end in .safetensors, the format of checkpoints")
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    header = {**(metadata or {}), CONFIG_KEY: model.config.to_json()}
    data = _with_sorted_metadata(safetensors.torch.save(state, header))
    write_atomically(path, data, overwrite=True)


def _with_sorted_metadata(data: bytes) -> bytes:
    """A `.safetensors` file whose bytes depend on its content alone.

    The library writes the metadata in random order. The file is the length of the header in 8
    bytes, little-endian, the header in JSON, padded with spaces to a multiple of 8, and the data.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, data[start:]))


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal digest of the file's bytes.

    Raises:
        UsageError: if there is no such file.
        DvmsrError: if it cannot be read.
    """
    check_input(Path(path))
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise unreadable(Path(path), error) from None


def _read(path: Path) -> tuple[dict[str, Tensor], DVMSRConfig | None]:
    """The tensors of a file, and its configuration where it carries one."""
    check_checkpoint(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise unreadable(path, error) from None
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return _read_pth(path), None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], DVMSRConfig | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise IncompatibleModelError(
            f"{path} is damaged or no .safetensors file ({error}); get a complete copy of it"
        ) from None
    if CONFIG_KEY not in metadata:
        return tensors, None
    try:
        return tensors, DVMSRConfig.from_json(metadata[CONFIG_KEY])
    except UsageError as error:
        raise IncompatibleModelError(
            f"{path} has an unusable configuration: {error}; take another checkpoint"
        ) from None


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        if "Unsupported global" in str(error):
            raise IncompatibleModelError(
                f"{path} holds Python objects besides tensors, which are never loaded; "
                "save its state dict alone"
            ) from None
        if any("pickle protocol" in str(warning.message) for warning in warned):
            raise IncompatibleModelError(
                f"{path} is in a pickle protocol that cannot be loaded safely; save it again with "
                "torch.save and its default protocol"
            ) from None
        raise IncompatibleModelError(
            f"{path} is damaged or no PyTorch checkpoint; get a complete copy of it"
        ) from None
    for key in ("params_ema", "params"):
        if isinstance(content, dict) and key in content:
            content = content[key]
            break
    if not isinstance(content, dict) or not all(_is_weight(item) for item in content.items()):
        raise IncompatibleModelError(
            f"{path} is not a state dict, alone or under `params_ema` or `params`; "
            "save its state dict alone"
        )
    return content


def _is_weight(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _check_kinds(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """
    Raises:
        IncompatibleModelError: if a tensor is not one of plain floating-point numbers.
    """
    for name, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else "sparse"
        elif tensor.is_meta:
            kind = "without values"
        elif tensor.dtype not in _TYPES:
            kind = f"of type {str(tensor.dtype).removeprefix('torch.')}"
        else:
            continue
        raise IncompatibleModelError(
            f"{path} holds {name} as a tensor that is {kind}; save dense floating-point weights"
        )


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names in the bare network, if those differ from each other."""
    parts = (name.split(".") for name in tensors)
    names = [".".join(part for part in name if part not in _WRAPPERS) for name in parts]
    distinct = len(set(names)) == len(names)
    return dict(zip(names, tensors.values(), strict=True)) if distinct else tensors


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _expected_shapes(config: DVMSRConfig) -> Shapes:
    with torch.device("meta"):
        return _shapes(DVMSR(config).state_dict())


def _infer_config(shapes: Shapes) -> DVMSRConfig | None:
    """The configuration with these shapes, which a missing tensor need not prevent."""

    def shape(pattern: str) -> tuple[int, ...]:
        return next(size for key, size in shapes.items() if re.search(pattern, key))

    try:
        vimms = {match.groups() for key in shapes if (match := re.match(_VIMM, key))}
        rssbs = sorted({int(i) for i, _ in vimms})
        (channels,) = shape(r"norm.*\.weight$")
        inner, state = shape(r"\.A_log$")
        upsampler = "pixelshuffle" if "conv_last.weight" in shapes else "pixelshuffledirect"
        shuffled = shape(r"^upsample\.0\.")[0]
        if upsampler == "pixelshuffledirect":
            scale = round((shuffled / 3) ** 0.5)
        elif any(key.startswith("upsample.2.") for key in shapes):
            scale = 4
        else:
            scale = round((shuffled / UPSAMPLER_CHANNELS) ** 0.5)
        return DVMSRConfig(
            channels=channels,
            depths=tuple(sum(int(i) == rssb for i, _ in vimms) for rssb in rssbs),
            state=state,
            expand=inner // channels,
            conv_width=shape(r"\.conv1d\.weight$")[2],
            scale=scale,
            upsampler=upsampler,
            bidirectional=any(key.endswith(".A_b_log") for key in shapes),
        )
    except (StopIteration, ValueError, IndexError, ZeroDivisionError, UsageError):
        return None


def _explain_mismatch(path: Path, expected: Shapes | None, found: Shapes) -> str:
    """One sentence: which tensors differ from those expected, and which preset might fit."""
    presets = {name: _expected_shapes(config) for name, config in PRESETS.items()}
    closest = min(presets, key=lambda name: len(presets[name].items() ^ found.items()))
    expected = expected or presets[closest]
    if not expected.keys() & found.keys():
        strange = _list(sorted(found))
        return f"{path} is no DVMSR checkpoint, none of its {strange} belongs to one; name another"
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshaped = [
        f"{key} is {_size(found[key])} instead of {_size(expected[key])}"
        for key in sorted(expected.keys() & found.keys())
        if expected[key] != found[key]
    ]
    groups = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    problems = ", ".join(f"{kind} {_list(keys)}" for kind, keys in groups.items() if keys)
    return f"{path} does not fit a DVMSR network: {problems}; the closest preset is {closest}"


def _list(keys: list[str]) -> str:
    """`2 tensors (a, b)`, with the first few of many."""
    shown = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
    return f"{len(keys)} tensor{'s' * (len(keys) != 1)}" + (f" ({shown})" if keys else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
