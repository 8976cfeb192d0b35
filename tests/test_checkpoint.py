from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from shared import official_weights, requires_shared

from dvmsr import checkpoint
from dvmsr.config import DVMSRConfig, preset
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.model import DVMSR

SMALL: dict[str, Any] = {"channels": 8, "depths": (1, 2), "state": 3, "conv_width": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "bidirectional": {"bidirectional": True},
    "expand3": {"expand": 3},
    "direct-x2": {"scale": 2},
    "direct-x3": {"scale": 3},
    "shuffle-x2": {"scale": 2, "upsampler": "pixelshuffle"},
    "shuffle-x3": {"scale": 3, "upsampler": "pixelshuffle"},
    "shuffle-x4": {"scale": 4, "upsampler": "pixelshuffle"},
}


def small(**fields: Any) -> DVMSR:
    torch.manual_seed(0)
    return DVMSR(DVMSRConfig(**{**SMALL, **fields}))


def assert_equal_weights(a: DVMSR, b: DVMSR) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(a.state_dict()[key], b.state_dict()[key]) for key in a.state_dict())


def refusal(path: Path) -> tuple[int, str]:
    """Exit code and message of a load that must fail with one sentence naming the file."""
    with pytest.raises(DvmsrError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return caught.value.exit_code, message


# --- what loads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_safetensors_round_trip(tmp_path: Path, variant: str) -> None:
    model = small(**VARIANTS[variant], vimm_residual=True)
    checkpoint.save(model, tmp_path / "a.safetensors", {"note": "hello"})
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.config == model.config and not loaded.training
    assert_equal_weights(loaded, model)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_configuration_of_a_pth_is_read_off_its_shapes(tmp_path: Path, variant: str) -> None:
    model = small(**VARIANTS[variant])
    torch.save(model.state_dict(), tmp_path / "a.pth")
    loaded = checkpoint.load(tmp_path / "a.pth")
    assert loaded.config == model.config
    assert_equal_weights(loaded, model)


def test_params_ema_is_preferred(tmp_path: Path) -> None:
    raw, averaged = small().state_dict(), small().state_dict()
    averaged["norm_f.bias"] = averaged["norm_f.bias"] + 1
    for content in ({"params": raw, "params_ema": averaged}, {"params": averaged}):
        torch.save(content, tmp_path / "a.pth")
        assert checkpoint.load(tmp_path / "a.pth").norm_f.bias.mean() == 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"^", "module."),
        (r"^", "_orig_mod."),
        (r"^", "module._orig_mod."),
        (r"^", "_orig_mod.module.module."),
        (r"(blocks\.\d+)\.", r"\1._orig_mod."),
        (r"^(conv_first|norm_f)\.", r"\1.module."),
    ],
    ids=["DDP", "compile", "both", "DDP twice", "compiled blocks", "two wrapped modules"],
)
def test_names_are_read_as_parallel_and_compiled_networks_give_them(
    tmp_path: Path, suffix: str, pattern: str, replacement: str
) -> None:
    path = tmp_path / f"a{suffix}"
    weights = {re.sub(pattern, replacement, k): v for k, v in small().state_dict().items()}
    assert weights.keys() != small().state_dict().keys()
    if suffix == ".pth":
        torch.save({"params": weights}, path)
    else:
        save_file(weights, path)
    assert_equal_weights(checkpoint.load(path), small())


def test_names_that_would_become_equal_stay(tmp_path: Path) -> None:
    weights = small().state_dict()
    torch.save({**weights, "module.norm_f.bias": torch.zeros(8)}, tmp_path / "a.pth")
    assert "unexpected 1 tensor (module.norm_f.bias)" in refusal(tmp_path / "a.pth")[1]


@pytest.mark.parametrize("wrapper", [torch.nn.DataParallel, torch.compile])
def test_what_pytorch_itself_wraps_is_read(tmp_path: Path, wrapper: Any) -> None:
    torch.save(wrapper(small()).state_dict(), tmp_path / "a.pth")
    assert_equal_weights(checkpoint.load(tmp_path / "a.pth"), small())


def test_half_precision_weights_become_fp32(tmp_path: Path) -> None:
    torch.save(small().half().state_dict(), tmp_path / "a.pth")
    assert {p.dtype for p in checkpoint.load(tmp_path / "a.pth").parameters()} == {torch.float32}


def test_vimm_residual_can_be_overridden(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    assert not checkpoint.load(tmp_path / "a.pth").config.vimm_residual
    model = checkpoint.load(tmp_path / "a.pth", vimm_residual=True)
    assert model.config.vimm_residual and model.layers[0].residual_group.blocks[0].residual
    checkpoint.save(model, tmp_path / "a.safetensors")
    assert checkpoint.load(tmp_path / "a.safetensors").config.vimm_residual
    plain = checkpoint.load(tmp_path / "a.safetensors", vimm_residual=False)
    assert not plain.config.vimm_residual


def test_safetensors_without_our_metadata(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors")
    assert checkpoint.load(tmp_path / "a.safetensors").config == small().config


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    before = torch.get_rng_state()
    checkpoint.load(tmp_path / "a.pth")
    assert torch.equal(before, torch.get_rng_state())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert checkpoint.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(UsageError, match="missing does not exist"):
        checkpoint.sha256(tmp_path / "missing")


@requires_shared
@pytest.mark.parametrize("name", ["dvmsr_df2k", "dvmsr_ntire"])
def test_official_weights_load_with_every_key(name: str) -> None:
    path = official_weights(name)
    content = torch.load(path, weights_only=True)
    weights = content.get("params_ema", content)
    model = checkpoint.load(path)
    assert model.config == preset("student")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


@requires_shared
@torch.no_grad()
def test_official_weights_in_fp32_and_fp64() -> None:
    model = checkpoint.load(official_weights("dvmsr_df2k"))
    pixels = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    single = model(pixels)
    torch.testing.assert_close(single.double(), model.double()(pixels.double()), rtol=0, atol=1e-4)
    # Even on noise, the 4x4 output pixels of an input pixel average to about its colour.
    assert (torch.nn.functional.avg_pool2d(single, 4) - pixels).abs().mean() < 0.15


# --- what does not fit --------------------------------------------------------------------------


@requires_shared
def test_another_networks_weights_are_named_as_such() -> None:
    code, message = refusal(official_weights("rlfn_ntire"))
    assert code == 5
    assert "no DVMSR checkpoint" in message and "block_1.c1_r.bias" in message


def broken_student(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A student's tensors with some replaced, added or (None) removed; `__` stands for a dot."""
    with torch.random.fork_rng():
        weights = DVMSR(preset("student")).state_dict()
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del weights[name]
        else:
            weights[name] = tensor
    return weights


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"norm_f__weight": None}, ["missing 1 tensor (norm_f.weight)"]),
        ({"conv_first__weight": None}, ["missing 1 tensor (conv_first.weight)"]),
        ({"upsample__0__weight": None}, ["missing 1 tensor (upsample.0.weight)"]),
        ({"extra": torch.zeros(3)}, ["unexpected 1 tensor (extra)"]),
        (
            {"norm_f__bias": torch.zeros(3, 64), "layers__3__conv__bias": torch.tensor(1.0)},
            [
                "misshaped 2 tensors (layers.3.conv.bias is a scalar instead of 60, "
                "norm_f.bias is 3x64 instead of 60)"
            ],
        ),
        (
            {f"extra__{i}": torch.zeros(1) for i in range(9)},
            ["unexpected 9 tensors (extra.0, extra.1, extra.2, ...)"],
        ),
        (
            {"norm_f__weight": None, "norm_g__weight": torch.zeros(60)},
            ["missing 1 tensor (norm_f.weight)", "unexpected 1 tensor (norm_g.weight)"],
        ),
        (
            {"layers__0__residual_group__blocks__0__mixer__A_log": torch.zeros(0, 0)},
            ["misshaped 1 tensor", "A_log is 0x0 instead of 120x16"],
        ),
    ],
)
def test_differences_are_named(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], parts: list[str]
) -> None:
    torch.save(broken_student(**changes), tmp_path / "a.pth")
    code, message = refusal(tmp_path / "a.pth")
    assert code == 5
    assert all(part in message for part in parts), message
    assert message.endswith("the closest preset is student")


KINDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "sparse": (torch.Tensor.to_sparse, "sparse"),
    "compressed": (lambda w: w[None].to_sparse_csr(), "sparse"),
    "meta": (lambda w: w.to("meta"), "without values"),
    "quantised": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "of type qint8"),
    "nested": (lambda w: torch.nested.nested_tensor([w, w]), "nested"),
    "jagged": (lambda w: torch.nested.nested_tensor([w, w], layout=torch.jagged), "nested"),
    "complex": (lambda w: w.to(torch.complex64), "of type complex64"),
    "boolean": (lambda w: w > 0, "of type bool"),
    "integers": (torch.Tensor.long, "of type int64"),
    "8 bits": (lambda w: w.to(torch.float8_e4m3fn), "of type float8_e4m3fn"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of what is in flux or old
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    make, told = KINDS[kind]
    weights = small().state_dict()
    torch.save({**weights, "norm_f.bias": make(weights["norm_f.bias"])}, tmp_path / "a.pth")
    code, message = refusal(tmp_path / "a.pth")
    assert code == 5 and f"holds norm_f.bias as a tensor that is {told}; save dense" in message


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "F4", "BOOL", "I64", "C64", "F6_E2M3"])
def test_other_types_of_a_safetensors_file_are_refused(tmp_path: Path, dtype: str) -> None:
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, 64]}
    sizes = {"I64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6}
    entry["data_offsets"] = [0, sizes.get(dtype, 8)]
    header = json.dumps({"norm_f.bias": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(sizes.get(dtype, 8)))
    assert refusal(path)[0] == 5


def test_closest_preset_is_the_one_that_fits_best(tmp_path: Path) -> None:
    weights = DVMSR(preset("ntire-student")).state_dict()
    del weights["norm_f.bias"]
    torch.save(weights, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth")[1].endswith(
        "missing 1 tensor (norm_f.bias); the closest preset is ntire-student"
    )


@pytest.mark.parametrize("number", ["9" * 9, "9" * 9999], ids=["10^9", "10^9999"])
def test_absurd_layer_numbers_cost_nothing(tmp_path: Path, number: str) -> None:
    key = f"layers.{number}.residual_group.blocks.0.norm.weight"
    torch.save({**broken_student(), key: torch.zeros(60)}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth")[0] == 5


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(3)],
        torch.zeros(3),
        {},
        {"epoch": 3},
        {"params": None},
        {"params_ema": [1, 2]},
        {"model": {"conv_first.weight": torch.zeros(60, 3, 3, 3)}},
        {3: torch.zeros(3)},
    ],
    ids=lambda content: str(content)[:20],
)
def test_other_contents_of_a_pth(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth")[0] == 5


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{",
        '{"chanels": 8}',
        '{"channels": 0}',
        '{"channels": 1000000000000}',
        '{"depths": [1000000000]}',
    ],
)
def test_safetensors_with_an_unusable_configuration(tmp_path: Path, config: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file(small().state_dict(), path, {checkpoint.CONFIG_KEY: config})
    code, message = refusal(path)
    assert code == 5 and "unusable configuration" in message


def test_safetensors_with_another_networks_configuration(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(broken_student(), path, {checkpoint.CONFIG_KEY: preset("ntire-student").to_json()})
    code, message = refusal(path)
    assert code == 5
    assert "unexpected 48 tensors" in message and message.endswith("preset is student")


# --- damaged files ------------------------------------------------------------------------------


class Payload:
    """Pickles to a call that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["torch.save", "pickle.dump"])
def test_code_in_a_pth_is_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "was-run"
    content = {"conv_first.weight": Payload(trace)}
    if writer == "torch.save":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    code, message = refusal(path)
    assert code == 5 and "Python objects" in message
    assert not trace.exists()


@pytest.mark.filterwarnings("error")
def test_another_pickle_protocol_is_refused_without_a_warning(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth", pickle_protocol=4)
    code, message = refusal(tmp_path / "a.pth")
    assert code == 5 and "torch.save and its default protocol" in message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"this is a text file, not a checkpoint\n", b"PK\x03\x04 nothing", bytes(4096)],
    ids=["0-byte", "1-byte", "text", "zip-header", "zeros"],
)
def test_files_of_something_else(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    code, message = refusal(path)
    assert code == 5 and "damaged" in message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(small().state_dict(), path)
    else:
        checkpoint.save(small(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert refusal(path)[0] == 5


def test_safetensors_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"conv_first.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert refusal(path)[0] == 5


def test_missing_file_folder_and_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "a.onnx").touch()
    for name, complaint in (
        ("missing.pth", "does not exist"),
        ("folder.pth", "is a folder"),
        ("a.onnx", "name a file ending in .safetensors, .pth, .pt"),
    ):
        code, message = refusal(tmp_path / name)
        assert code == 2 and complaint in message


# --- writing ------------------------------------------------------------------------------------


def test_save_wants_the_right_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.safetensors"):
        checkpoint.save(small(), tmp_path / "a.pth")


def test_save_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DvmsrError, match="cannot be written"):
        checkpoint.save(small(), tmp_path / "none" / "a.safetensors")


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(small(), path)
    old = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DvmsrError, match="No space left on device"):
        checkpoint.save(small(scale=2), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    notes = {f"note {k}": f"ünd {k}" for k in range(20)}
    names = ("a.safetensors", "b.safetensors")
    for name, metadata in zip(names, (notes, dict(reversed(notes.items()))), strict=True):
        checkpoint.save(small(), tmp_path / name, metadata)
    a, b = ((tmp_path / name).read_bytes() for name in names)
    assert a == b
    assert_equal_weights(checkpoint.load(tmp_path / "a.safetensors"), small())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert notes.items() <= file.metadata().items()


def test_save_takes_channels_last_weights(tmp_path: Path) -> None:
    model = small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.save(model, tmp_path / "a.safetensors")
    assert_equal_weights(checkpoint.load(tmp_path / "a.safetensors"), small())
