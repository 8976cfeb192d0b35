"""The two operators in standard ONNX operators: the model-local functions of every exported file.

A runtime that has operators of its own under the same names uses those instead (ONNX Runtime does,
from 1.20 to 1.32). Sizes other than K are read off the inputs; activations may be half precision,
and all arithmetic is FP32.
"""

import onnx
from onnx import parser

from dvmsr.runtime.backends.onnxrt.onnx_file import DOMAIN

ATTRIBUTES = {"plugin_version": "1", "plugin_namespace": "dvmsr"}

CHUNK = 16
"""Tokens per iteration of the scan's body: long enough to hide the cost of an iteration, short
enough that its (CHUNK, N, D) tensors stay in the cache."""


def functions(opset: int, conv_width: int) -> list[onnx.FunctionProto]:
    """Both bodies, for a model of that opset (17 or later) and K = `conv_width` taps."""
    return [
        parser.parse_function(f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n{text}')
        for text in (_SELECTIVE_SCAN, _causal_conv1d(conv_width))
    ]


def _each(pattern: str, separator: str = ", ") -> str:
    """The pattern for t = 0 ... CHUNK - 1, with {s} = t + 1."""
    return separator.join(pattern.format(t=t, s=t + 1) for t in range(CHUNK))


def _chunks_of(name: str, shape: str, fill: str = "") -> str:
    """`{name}` (B, L, .) -> `{name}_chunks` (chunks, B, CHUNK, .), FP32."""
    return f"""
    {name}_float = Cast <to = 1> ({name})
    {name}_padded = Pad ({name}_float, pads, {fill})
    {name}_split = Reshape ({name}_padded, {shape})
    {name}_chunks = Transpose <perm = [1, 0, 2, 3]> ({name}_split)"""


# The tokens are padded to whole chunks with delta = -inf: softplus gives a step of 0, hence a
# decay of 1 and a drive of 0, and the state passes unchanged.
# log1p(e) is 2 atanh(e / (2 + e)), because log(1 + e) loses small e.
_SELECTIVE_SCAN = f"""
SelectiveScan <plugin_version, plugin_namespace>
    (u, delta, A, B, C, D, z, delta_bias, h0) => (y, h_last)
{{
    zero = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    axis2 = Constant <value = int64[1] {{2}}> ()
    axis3 = Constant <value = int64[1] {{3}}> ()
    rest = Constant <value = int64[1] {{-1}}> ()
    chunk = Constant <value = int64[1] {{{CHUNK}}}> ()
    ones = Constant <value = int64[{CHUNK}] {{{_each("1")}}}> ()
    two = Constant <value = float {{2.0}}> ()
    minus_inf = Constant <value = float {{-inf}}> ()

    length = Shape <start = 1, end = 2> (u)
    channels = Shape <start = 2> (u)
    states = Shape <start = 2> (B)
    last = Sub (length, one)
    after = Add (last, chunk)
    needed = Div (after, chunk)
    chunks = Max (needed, one)
    padded = Mul (chunks, chunk)
    missing = Sub (padded, length)
    pads = Concat <axis = 0> (zero, zero, zero, zero, missing, zero)
    by_channel = Concat <axis = 0> (zero, rest, chunk, channels)
    by_state = Concat <axis = 0> (zero, rest, chunk, states)
    by_token = Concat <axis = 0> (zero, rest, channels)

    {_chunks_of("u", "by_channel")}
    {_chunks_of("delta", "by_channel", fill="minus_inf")}
    {_chunks_of("z", "by_channel")}
    {_chunks_of("B", "by_state")}
    {_chunks_of("C", "by_state")}

    A_rows = Transpose <perm = [1, 0]> (A)
    h0_rows = Transpose <perm = [0, 2, 1]> (h0)
    h0_token = Unsqueeze (h0_rows, one)

    h_end, y_chunks = Scan <
        num_scan_inputs = 5,
        body = chunk_of_tokens (
            float[batch, 1, n, d] state0,
            float[batch, t, d] u_t, float[batch, t, d] delta_t, float[batch, t, d] z_t,
            float[batch, t, n] B_t, float[batch, t, n] C_t
        ) => (float[batch, 1, n, d] state_out, float[batch, t, d] y_t) {{
            x = Add (delta_t, delta_bias)
            x_abs = Abs (x)
            x_neg = Neg (x_abs)
            e = Exp (x_neg)
            e_plus_2 = Add (e, two)
            ratio = Div (e, e_plus_2)
            half_log1p = Atanh (ratio)
            log1p = Mul (two, half_log1p)
            x_positive = Relu (x)
            step = Add (x_positive, log1p)

            gain = Mul (step, u_t)
            step_row = Unsqueeze (step, axis2)
            gain_row = Unsqueeze (gain, axis2)
            B_column = Unsqueeze (B_t, axis3)
            C_row = Unsqueeze (C_t, axis2)
            exponent = Mul (step_row, A_rows)
            decay = Exp (exponent)
            drive = Mul (gain_row, B_column)
            {_each("decay{t}")} = Split <axis = 1> (decay, ones)
            {_each("drive{t}")} = Split <axis = 1> (drive, ones)
            {_each("kept{t} = Mul (decay{t}, state{t}) state{s} = Add (kept{t}, drive{t})", " ")}
            states_t = Concat <axis = 1> ({_each("state{s}")})
            state_out = Identity (state{CHUNK})

            readout_row = MatMul (C_row, states_t)
            readout = Squeeze (readout_row, axis2)
            skip = Mul (D, u_t)
            ungated = Add (readout, skip)
            z_sigmoid = Sigmoid (z_t)
            gate = Mul (z_t, z_sigmoid)
            y_t = Mul (ungated, gate)
        }}
    > (h0_token, u_chunks, delta_chunks, z_chunks, B_chunks, C_chunks)

    y_split = Transpose <perm = [1, 0, 2, 3]> (y_chunks)
    y_padded = Reshape (y_split, by_token)
    y_float = Slice (y_padded, zero, length, one)
    y = CastLike (y_float, u)
    h_rows = Squeeze (h_end, one)
    h_last = Transpose <perm = [0, 2, 1]> (h_rows)
}}
"""


def _causal_conv1d(width: int) -> str:
    """Each tap's channel weights times the tokens that it sees, added up; one after the other,
    because TensorRT for RTX 1.7 fails on a Scan over the taps."""
    taps = range(width)
    return f"""
CausalConv1d <plugin_version, plugin_namespace> (x, weight, bias, tail) => (y, new_tail)
{{
    axis1 = Constant <value = int64[1] {{1}}> ()
    ones = Constant <value = int64[{width}] {{{", ".join("1" for _ in taps)}}}> ()

    history = Concat <axis = 1> (tail, x)
    length = Shape <start = 1, end = 2> (x)
    length_all = Shape <start = 1, end = 2> (history)
    new_tail = Slice (history, length, length_all, axis1)

    history_float = Cast <to = 1> (history)
    weight_rows = Transpose <perm = [1, 0]> (weight)
    {", ".join(f"tap{k}" for k in taps)} = Split <axis = 0> (weight_rows, ones)
    sum0 = Identity (bias)
    {"".join(_TAP.format(k=k, s=k + 1) for k in taps)}
    sum_sigmoid = Sigmoid (sum{width})
    y_float = Mul (sum{width}, sum_sigmoid)
    y = CastLike (y_float, x)
}}
"""


_TAP = """
    start{k} = Constant <value = int64[1] {{{k}}}> ()
    end{k} = Add (start{k}, length)
    seen{k} = Slice (history_float, start{k}, end{k}, axis1)
    weighted{k} = Mul (tap{k}, seen{k})
    sum{s} = Add (sum{k}, weighted{k})
"""
