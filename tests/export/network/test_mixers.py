"""Which nodes become a mixer, and what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import mamba_blocks as blocks
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dvmsr.compat.inner import mamba_inner_fn
from dvmsr.compat.mamba import Mamba
from dvmsr.export import export_network
from dvmsr.export.network.mixers import merge
from dvmsr.kernels import cpu
from dvmsr.runtime import open_model
from dvmsr.runtime.backends.onnxrt.contents import read_contents

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None, reason="dvmsr was built without its native operators"
)
TOKENS = {0: "batch", 1: "tokens"}


class Inner(nn.Module):
    """`mamba_inner_fn` with the weights of a `Mamba`, but for those that are given."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.mamba, self.options = Mamba(d_model=6, d_state=4), options

    def forward(self, x: Tensor) -> Tensor:
        m = self.mamba
        arguments = {
            "A": -m.A_log.exp(), "D": m.D, "delta_bias": m.dt_proj.bias,
            "out_proj_bias": None, "conv1d_bias": m.conv1d.bias,
        } | self.options  # fmt: skip
        return mamba_inner_fn(
            m.in_proj(x).mT, m.conv1d.weight, x_proj_weight=m.x_proj.weight,
            delta_proj_weight=m.dt_proj.weight, out_proj_weight=m.out_proj.weight, **arguments,
        )  # fmt: skip


class Driven(Inner):
    """Whose D or A comes of its input."""

    def __init__(self, argument: str) -> None:
        super().__init__()
        self.argument = argument

    def forward(self, x: Tensor) -> Tensor:
        made = x[0, 0, 0].sigmoid().expand(12)
        self.options = {self.argument: made if self.argument == "D" else -made[:, None].tile(1, 4)}
        return super().forward(x)


class Twice(nn.Module):
    """One mixer after the other, with the same weights."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.mamba = Mamba(d_model=channels, d_state=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.mamba(self.mamba(x))


def mamba(channels: int = 6, state: int = 4, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Mamba(d_model=channels, d_state=state, **options)


def exported(folder: Path, module: nn.Module, **options: Any) -> onnx.ModelProto:
    torch.manual_seed(0)
    path, (name, *_) = folder / "m.onnx", signature(module.forward).parameters
    options = {"progress": lambda _: None, "dynamic": {name: TOKENS}, "verify": False, **options}
    x = torch.randn(1, 9, getattr(module, "d_model", 6))
    export_network(module, (x,), path, overwrite=True, **options)
    return onnx.load(path)


def check(folder: Path, module: nn.Module, *sizes: int, limit: float = 1e-5) -> None:
    """Compare the file with PyTorch, natively and by the bodies in the file."""
    x = torch.randn(*sizes, getattr(module, "d_model", 6))
    with torch.no_grad():
        expected = module(x).numpy()
    for backend in ("native", "portable"):
        model = open_model(folder / "m.onnx", backend)
        ((name, port),) = model.inputs.items()
        (found,) = model(**{name: x.numpy().astype(port.dtype)}).values()
        np.testing.assert_allclose(found, expected, atol=limit * np.abs(expected).max())


def count(model: onnx.ModelProto, *operators: str) -> tuple[int, ...]:
    nodes = [node.op_type for node in model.graph.node]
    return tuple(map(nodes.count, operators))


# Network; then its mixers and the scans that are none
MIXERS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "mamba": (mamba(), 1, 0),
    "of one channel": (mamba(1, 1, expand=1, d_conv=1), 1, 0),
    "of many states": (mamba(6, 64, d_conv=3, dt_rank=5), 1, 0),
    "of many channels": (mamba(272, 16, conv_bias=False), 1, 0),
    "with biases outside": (mamba(bias=True, d_conv=6), 1, 0),
    "without D": (lambda: Inner(D=None), 1, 0),
    "twice": (Twice, 2, 0),
    "of many channels twice": (lambda: Twice(1040), 2, 0),
    "Vim's": (blocks.Directions, 2, 0),
    "two of its own": (mamba(bimamba_type="v2"), 2, 0),
    "other forms": (blocks.Forms, 3, 1),
    "a second scan of the same": (mamba(bimamba_type="v1"), 0, 2),
    "a bias of B": (lambda: Inner(B_proj_bias=torch.full((4,), 0.1)), 0, 1),
    "a norm of delta": (lambda: Inner(dt_rms_weight=torch.ones(12)), 0, 1),
    "no softplus": (lambda: Inner(delta_softplus=False, delta_bias=torch.ones(12)), 0, 1),
    "a D that is none": (lambda: Driven("D"), 0, 1),
    "an A that is none": (lambda: Driven("A"), 0, 1),
}
"""A of more values than PyTorch's exporter folds, and biases, where there are many channels."""


@pytest.mark.parametrize(("make", "mixers", "scans"), MIXERS.values(), ids=MIXERS)
def test_a_mixer_is_one_node(
    tmp_path: Path, make: Callable[[], nn.Module], mixers: int, scans: int
) -> None:
    module = make().eval()
    if isinstance(module, Twice):
        module.d_model = module.mamba.d_model
    model = exported(tmp_path, module)
    assert count(model, "MambaMixer", "SelectiveScan") == (mixers, scans)
    check(tmp_path, module, 2, 14)
    check(tmp_path, module, 1, 1)


@pytest.mark.parametrize("dynamic", [{}, {0: "batch"}, {1: "tokens"}], ids=str)
@pytest.mark.parametrize("opset", [18, 24])
def test_sizes_may_be_fixed(tmp_path: Path, dynamic: dict[int, str], opset: int) -> None:
    module = Mamba(d_model=6, d_state=4).eval()
    model = exported(tmp_path, module, dynamic={"hidden_states": dynamic}, opset=opset)
    assert count(model, "MambaMixer", "SelectiveScan") == (1, 0)
    check(tmp_path, module, 1 + (0 in dynamic), 9 + (1 in dynamic))


def test_a_C_from_elsewhere(tmp_path: Path) -> None:
    module = Inner(C=torch.full((1, 1, 4, 9), 0.1)).eval()
    model = exported(tmp_path, module, dynamic=None)
    assert count(model, "MambaMixer", "SelectiveScan") == (0, 1)
    check(tmp_path, module, 1, 9)


def test_what_it_takes_is_all_that_is_left(tmp_path: Path) -> None:
    model = exported(tmp_path, Mamba(d_model=6, d_state=4), verify=True)
    operators = {node.op_type for node in model.graph.node}
    assert operators == {"MatMul", "MambaMixer", "Shape", "Concat", "ConstantOfShape"}
    assert count(model, "MatMul") == (1,)
    read = {name for node in model.graph.node for name in node.input}
    assert {weight.name for weight in model.graph.initializer} <= read
    of_weights = sum(math.prod(w.dims) for w in model.graph.initializer if w.data_type == 1)
    assert of_weights == sum(weight.numel() for weight in Mamba(d_model=6, d_state=4).parameters())
    (scan,) = read_contents(tmp_path / "m.onnx")["scans"]
    assert scan == {"count": 1, "D": 12, "N": 4, "G": 1, "gate": True, "channel_major": False}


def test_weights_are_shared_as_before(tmp_path: Path) -> None:
    def sizes(module: nn.Module) -> list[list[int]]:
        return sorted(list(weight.dims) for weight in exported(tmp_path, module).graph.initializer)

    assert sizes(Twice()) == sizes(Mamba(d_model=6, d_state=4))


def test_the_layouts_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = exported(tmp_path, blocks.Directions())
    monkeypatch.setattr("dvmsr.export.network.mixers.merge", lambda graph: None)
    apart = exported(tmp_path, blocks.Directions())
    assert count(apart, "SelectiveScan") == count(merged, "MambaMixer") == (2,)
    assert count(merged, "Transpose") == count(apart, "Transpose")
    assert len(merged.graph.node) == len(apart.graph.node) - 2 * 9


@pytest.mark.parametrize("make", [blocks.Forms, lambda: Inner(conv1d_bias=None, D=None)])
def test_half_precision(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    module = make().eval()
    mixed = exported(tmp_path, module, precision="fp16")
    assert count(mixed, "MambaMixer", "Cast") == (3 if isinstance(module, blocks.Forms) else 1, 0)
    check(tmp_path, module, 2, 14, limit=1e-2)


MIXER = """<ir_version: 8, opset_import: ["": 18, "dvmsr": 1]>
g (float[1, 5, 4] xz, float[1, 2, 3] h0, float[1, 1, 2] tail, bool flag) => (float[1, 5, 2] y OUT)
<float[1, 5, 2] x, float[1, 5, 2] z, float[1, 5, 2] u, float[1, 5, 7] dbc>
{
    x, z = Split <axis = -1> (xz, halves)
    u, new_tail = dvmsr.CausalConv1d (x, taps, bias, tail)
    dbc = MatMul (u, x_proj)
    dt, b, c = Split <axis = 2> (dbc, sizes)
    delta = MatMul (dt, dt_proj)
    B = Unsqueeze (b, group)
    C = Unsqueeze (c, group)
    y, h = dvmsr.SelectiveScan (u, delta, A, B, C, D, bias, h0, z)
    READ
}"""
IF = """other = If (flag) <then_branch = a () => (float[1, 5, 2] t) {{ {} }},
                          else_branch = b () => (float[1, 5, 2] e) {{ e = Identity (tail) }}>"""
BETWEEN = ("x", "z", "u", "dbc", "delta", "new_tail", "B")


def parsed(read: str = "", out: str = "", changed: tuple[str, str] = ("", "")) -> onnx.ModelProto:
    text = MIXER.replace(*changed) if changed[0] else MIXER
    assert changed[0] in MIXER
    model = onnx.parser.parse_model(text.replace("READ", read).replace("OUT", out))
    sizes = {"taps": (2, 2), "bias": (2,), "x_proj": (2, 7), "dt_proj": (1, 2), "A": (2, 3)}
    arrays: dict[str, np.ndarray] = {
        name: np.ones(size, np.float32) for name, size in {**sizes, "D": (2,)}.items()
    }
    arrays |= {"halves": np.array([2, 2]), "sizes": np.array([1, 3, 3]), "group": np.array([2])}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    return model


def merged(model: onnx.ModelProto) -> bool:
    """Whether a mixer came of it; if not, it is as it was."""
    before = model.SerializeToString(deterministic=True)
    merge(model.graph)
    found = count(model, "MambaMixer", "SelectiveScan") == (1, 0)
    assert found or model.SerializeToString(deterministic=True) == before
    return found


@pytest.mark.parametrize("read", ["", "other = Identity (tail)", "other = Identity (h)"])
def test_what_is_around_it_may_be_read(read: str) -> None:
    assert merged(parsed(read))
    assert merged(parsed(out=", float h, float new_tail"))


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_between_is_read_nowhere_else(name: str) -> None:
    assert not merged(parsed(f"other = Identity ({name})"))
    assert not merged(parsed(IF.format(f"t = Identity ({name})")))
    assert not merged(parsed(out=f", float {name}")) or name == "new_tail"


def test_projections_back_are_taken_where_they_alone_read_it() -> None:
    back = "out = MatMul (y, dt_proj)"
    for read, inputs in ((f"{back} other = Identity (y)", 15), (back, 15)):
        model = parsed(read)
        assert merged(model)
        assert len(model.graph.node[0].input) == inputs
        assert not model.graph.node[0].input[12]


CHANGES = {
    "x and z swapped": ("x, z =", "z, x ="),
    "B and C swapped": ("dt, b, c =", "dt, c, b ="),
    "other widths": ("(dbc, sizes)", "(dbc, taps)"),
    "halves of another axis": ("axis = -1", "axis = 1"),
    "another group": ("B = Unsqueeze (b, group)", "B = Unsqueeze (b, sizes)"),
    "a convolution without SiLU": ("CausalConv1d (", "CausalConv1d <activation = 0> ("),
    "no softplus": ("SelectiveScan (", "SelectiveScan <delta_softplus = 0> ("),
    "channel-major": ("SelectiveScan (", "SelectiveScan <channel_major = 1> ("),
    "no gate": ("h0, z)", "h0)"),
    "a gate from elsewhere": ("h0, z)", "h0, tail)"),
    "delta of something else": ("MatMul (dt, dt_proj)", "MatMul (c, dt_proj)"),
    "a weight that is given": ("bool flag)", "bool flag, float[2, 3] A_in)"),
    "a product of another operator": ("= MatMul (dt", "= Add (dt"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_scans_stay(change: tuple[str, str]) -> None:
    model = parsed(changed=change)
    if change[1].endswith("A_in)"):
        model.graph.node[-1].input[2] = "A_in"
    assert not merged(model)


def test_those_in_branches_stay() -> None:
    inner = MIXER[MIXER.index("x, z =") : MIXER.index("READ")].replace("y, h", "t, h")
    text = MIXER[: MIXER.index("x, z =")] + IF.format(inner) + " y = Identity (other) }"
    model = parsed()
    branched = onnx.parser.parse_model(text.replace("OUT", ""))
    model.graph.CopyFrom(branched.graph)
    assert not merged(model)
