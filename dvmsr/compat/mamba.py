"""mamba-ssm's `Mamba` and the blocks around it, with its parameter names and shapes, so that state
dicts load both ways."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvmsr.compat.conv import causal_conv1d_update
from dvmsr.compat.inner import inner
from dvmsr.compat.norm import RMSNorm, layer_norm_fn
from dvmsr.compat.refusals import NotSupportedError
from dvmsr.compat.scan import selective_state_update


class Mamba(nn.Module):
    """The Mamba block (arXiv 2312.00752, Figure 3).

    Args:
        d_model: M, channels outside.
        d_state: N.
        d_conv: K, width of the convolution.
        expand: D is expand times M.
        dt_rank: R, inputs of the projection to delta; "auto" is a sixteenth of M.
        dt_min, dt_max, dt_init_floor: range of the first steps, softplus(dt_proj.bias).
        dt_init, dt_scale: "random" or "constant" first weights of dt_proj, and their scale.
        conv_bias, bias: whether the convolution, the outer projections have one.
        use_fast_path: changes nothing here.
        layer_idx: the key of this block's states in `inference_params`.
        bimamba_type: as in Vim (arXiv 2401.09417), "v2" for a second direction with weights of its
            own (`conv1d_b` and so on), "v1" for one that has only its A; "none".
        if_divide_out: whether both directions are halved before they leave.
        init_layer_scale: first value of `gamma`, which scales the output's channels.

    Raises:
        NotSupportedError: for another dt_init or bimamba_type.
    """

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: nn.Parameter
    D: nn.Parameter

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        bimamba_type: str = "none",
        if_divide_out: bool = False,
        init_layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if bimamba_type not in ("none", "v1", "v2"):
            raise NotSupportedError(f"Mamba: bimamba_type {bimamba_type!r} is not none, v1 or v2")
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.bimamba_type = bimamba_type
        self.if_divide_out = if_divide_out
        self.init_layer_scale = init_layer_scale
        self.d_model = d_model
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) else dt_rank
        self.use_fast_path = use_fast_path
        self.layer_idx = layer_idx
        self.activation = "silu"
        self.act = nn.SiLU()
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **options)
        self._add_direction("", conv_bias, options)
        if bimamba_type == "v2":
            self._add_direction("_b", conv_bias, options)
        elif bimamba_type == "v1":
            self.A_b_log = self._first_A_log(device)
        spread = self.dt_rank**-0.5 * dt_scale
        if dt_init == "random":
            nn.init.uniform_(self.dt_proj.weight, -spread, spread)
        elif dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, spread)
        else:
            raise NotSupportedError(f"Mamba: dt_init {dt_init!r} is neither random nor constant")
        low, high = math.log(dt_min), math.log(dt_max)
        step = torch.exp(low + (high - low) * torch.rand(self.d_inner, **options))
        step = step.clamp(min=dt_init_floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of it is step
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **options)
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(torch.full((d_model,), float(init_layer_scale)))

    def _add_direction(self, suffix: str, conv_bias: bool, options: dict[str, Any]) -> None:
        """The weights of a scan; A and D are FP32."""
        inner_channels, device = self.d_inner, options["device"]
        conv1d = nn.Conv1d(
            inner_channels,
            inner_channels,
            self.d_conv,
            groups=inner_channels,
            padding=self.d_conv - 1,
            bias=conv_bias,
            **options,
        )
        D = nn.Parameter(torch.ones(inner_channels, device=device))
        D._no_weight_decay = True  # type: ignore[attr-defined]  # training scripts ask for it
        rows = self.dt_rank + 2 * self.d_state
        setattr(self, f"conv1d{suffix}", conv1d)
        setattr(self, f"x_proj{suffix}", nn.Linear(inner_channels, rows, bias=False, **options))
        setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, inner_channels, **options))
        setattr(self, f"A{suffix}_log", self._first_A_log(device))
        setattr(self, f"D{suffix}", D)

    def _first_A_log(self, device: Any) -> nn.Parameter:
        A = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=device)
        A_log = nn.Parameter(A.log().repeat(self.d_inner, 1))
        A_log._no_weight_decay = True  # type: ignore[attr-defined]
        return A_log

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """(B, L, M) to (B, L, M).

        With `inference_params` (`seqlen_offset`, `key_value_memory_dict`) the states after the last
        token are kept there; beyond offset 0 they are what one more token, L = 1, continues from.

        Raises:
            NotSupportedError: with inference_params in two directions, which have no next token.
        """
        if inference_params is not None:
            if self.bimamba_type != "none":
                raise NotSupportedError("Mamba: inference_params goes in one direction only")
            states = self._get_states_from_cache(inference_params, hidden_states.shape[0])
            if inference_params.seqlen_offset > 0:
                return self.step(hidden_states, *states)[0]
        xz = self.in_proj(hidden_states)  # (B, L, 2 D)
        y, h_last = self._scan(xz, "")
        if self.bimamba_type == "v2":
            back, _ = self._scan(xz.flip(1), "_b")
            y = y + back.flip(1)
            if self.if_divide_out:
                y = y / 2
        if inference_params is not None:
            conv_state, ssm_state = states
            x = xz.detach()[..., : self.d_inner]
            conv_state.copy_(F.pad(x.mT, (self.d_conv - x.shape[1], 0)))
            ssm_state.copy_(h_last.detach())
        out: Tensor = self.out_proj(y)
        return out if self.init_layer_scale is None else out * self.gamma

    def _scan(self, xz: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
        """y (B, L, D) and the last state of one direction, or of both of v1."""
        conv1d, x_proj, dt_proj = (
            getattr(self, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj")
        )
        x, z = xz.chunk(2, -1)
        return inner(
            x,
            z,
            conv1d.weight,
            conv1d.bias,
            x_proj.weight,
            dt_proj.weight,
            self._A(suffix),
            D=getattr(self, f"D{suffix}"),
            delta_bias=dt_proj.bias,
            A_b=self._A("_b") if self.bimamba_type == "v1" else None,
        )

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token (B, 1, M); the states (B, D, K) and (B, D, N) are updated in place.

        Returns:
            (B, 1, M), and the two states.

        Raises:
            NotSupportedError: for more than one token.
        """
        if hidden_states.shape[1] != 1:
            raise NotSupportedError(f"Mamba.step: {hidden_states.shape[1]} tokens, takes one")
        x, z = self.in_proj(hidden_states.squeeze(1)).chunk(2, -1)  # (B, D)
        x = causal_conv1d_update(
            x, conv_state, self.conv1d.weight.squeeze(1), self.conv1d.bias, self.activation
        )
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = F.linear(dt, self.dt_proj.weight)
        y = selective_state_update(
            ssm_state, x, dt, self._A(), B, C, self.D, z, self.dt_proj.bias, True
        )
        return self.out_proj(y).unsqueeze(1), conv_state, ssm_state

    def _A(self, suffix: str = "") -> Tensor:
        A_log: Tensor = getattr(self, f"A{suffix}_log")
        return -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float())

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Zero states for `step`: (B, D, K) and (B, D, N)."""
        conv, step = self.conv1d.weight, self.dt_proj.weight
        return (
            conv.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype or conv.dtype),
            step.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype or step.dtype),
        )

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        if self.layer_idx is None:
            raise ValueError(
                "Mamba: inference_params needs a layer_idx, to be given when it is made"
            )
        kept = inference_params.key_value_memory_dict
        if self.layer_idx not in kept:
            kept[self.layer_idx] = self.allocate_inference_cache(batch_size, 0)
        elif initialize_states:
            for state in kept[self.layer_idx]:
                state.zero_()
        conv_state, ssm_state = kept[self.layer_idx]
        return conv_state, ssm_state


class Block(nn.Module):
    """Addition, norm, mixer, as in mamba-ssm 1.x (`mamba_ssm.modules.mamba_simple.Block`)."""

    mlp: nn.Module | None = None

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.mixer = mixer_cls(dim)
        self.norm = norm_cls(dim)
        self._check(self.norm)

    def _check(self, norm: nn.Module) -> None:
        if self.fused_add_norm and not isinstance(norm, (nn.LayerNorm, RMSNorm)):
            raise TypeError(f"Block: fused_add_norm takes LayerNorm or RMSNorm, not {norm}")

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor | None = None,
        inference_params: Any = None,
        **mixer_options: Any,
    ) -> tuple[Tensor, Tensor]:
        """The mixer's output and the new residual, both (B, L, M), from the block before's."""
        hidden_states, residual = self._add_and_norm(self.norm, hidden_states, residual)
        hidden_states = self.mixer(
            hidden_states, inference_params=inference_params, **mixer_options
        )
        if self.mlp is not None:
            hidden_states, residual = self._add_and_norm(self.norm2, hidden_states, residual)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def _add_and_norm(
        self, norm: Any, hidden_states: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.fused_add_norm:
            y, residual = layer_norm_fn(
                hidden_states,
                norm.weight,
                norm.bias,
                residual=residual,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                eps=norm.eps,
                is_rms_norm=isinstance(norm, RMSNorm),
            )
            return y, residual
        residual = hidden_states if residual is None else hidden_states + residual
        y = norm(residual.to(norm.weight.dtype))
        return y, residual.float() if self.residual_in_fp32 else residual

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **options: Any
    ) -> Any:
        """The mixer's."""
        allocate: Any = self.mixer.allocate_inference_cache
        return allocate(batch_size, max_seqlen, dtype=dtype, **options)


class BlockWithMlp(Block):
    """As in mamba-ssm 2.x (`mamba_ssm.modules.block.Block`): an MLP, if it is not nn.Identity,
    follows with a norm of its own."""

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__(dim, mixer_cls, norm_cls, fused_add_norm, residual_in_fp32)
        if mlp_cls is nn.Identity:
            self.mlp = None
        else:
            self.norm2 = norm_cls(dim)
            self.mlp = mlp_cls(dim)
            self._check(self.norm2)
