"""The operators in standard ONNX operators: the model-local functions of every exported file.

A runtime that has operators of its own under the same names uses those instead (ONNX Runtime does,
from 1.20 to 1.32). The functions of composed operators call those of the others. Sizes other than
K are read off the inputs; activations may be half precision, and the arithmetic of scans and
convolutions is FP32.
"""

import onnx
from onnx import helper, parser

from dvmsr.export.onnx.forms import Form, form_of, unify, unify_composed
from dvmsr.runtime.backends.onnxrt.composed import COMPOSED, example, parts
from dvmsr.runtime.backends.onnxrt.onnx_file import ATTRIBUTES, DOMAIN, DOMAIN_VERSION

CHUNK = 16
"""Tokens per iteration of the scan's body: long enough to hide the cost of an iteration, short
enough that its (CHUNK, G, N, D/G) tensors stay in the cache."""


def attach(model: onnx.ModelProto) -> None:
    """Give a model the bodies of the operators that its nodes use, in place of any it has. Nodes
    in different forms are brought to one.

    Raises:
        IncompatibleModelError: if the model does not tell how many taps a convolution has.
    """
    detach(model)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    outer = [_composed(example(node), opset) for node in unify_composed(model.graph)]
    unify([model.graph, *outer])
    called = {node.op_type for node in model.graph.node}
    called |= {node.op_type for body in outer for node in body.node}
    inner = functions(opset, form_of(model.graph, outer))
    model.functions.extend(body for body in inner if body.name in called)
    model.functions.extend(outer)


def detach(model: onnx.ModelProto) -> None:
    """Take the operators' bodies away."""
    kept = [body for body in model.functions if body.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)


def functions(opset: int, form: Form) -> list[onnx.FunctionProto]:
    """Those of SelectiveScan and CausalConv1d, for a model of that opset (17 or later)."""
    return [
        parser.parse_function(f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n{text}')
        for text in (_selective_scan(form), _causal_conv1d(form))
    ]


def _composed(node: onnx.NodeProto, opset: int) -> onnx.FunctionProto:
    """The body of a composed operator in the form of that node."""
    operator = COMPOSED[node.op_type]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    attributes = [*operator.attributes, *ATTRIBUTES]
    names = operator.arguments, operator.outputs
    return helper.make_function(DOMAIN, node.op_type, *names, parts(node), imports, attributes)


def _each(pattern: str, separator: str = ", ") -> str:
    """The pattern for t = 0 ... CHUNK - 1, with {s} = t + 1."""
    return separator.join(pattern.format(t=t, s=t + 1) for t in range(CHUNK))


def _chunks_of(name: str, shape: str, pads: str = "pads", fill: str = "") -> str:
    """`{name}` (B, L, ...) -> `{name}_chunks` (chunks, B, CHUNK, G, ., .), FP32."""
    return f"""
    {name}_float = Cast <to = 1> ({name})
    {name}_padded = Pad ({name}_float, {pads}, {fill})
    {name}_split = Reshape ({name}_padded, {shape})
    {name}_chunks = Transpose <perm = [1, 0, 2, 3, 4, 5]> ({name}_split)"""


def _lines(*lines: str) -> str:
    return "\n            ".join(lines)


_TO_TOKENS = """
    u = Transpose <perm = [0, 2, 1]> (u_in)
    delta = Transpose <perm = [0, 2, 1]> (delta_in)
    B = Transpose <perm = [0, 3, 1, 2]> (B_in)
    C = Transpose <perm = [0, 3, 1, 2]> (C_in)"""
_Z_TO_TOKENS = """
    z = Transpose <perm = [0, 2, 1]> (z_in)"""

# log1p(e) is 2 atanh(e / (2 + e)), because log(1 + e) loses small e.
_SOFTPLUS = _lines(
    "x = Add (delta_t, bias_row)",
    "x_abs = Abs (x)",
    "x_neg = Neg (x_abs)",
    "e = Exp (x_neg)",
    "e_plus_2 = Add (e, two)",
    "ratio = Div (e, e_plus_2)",
    "half_log1p = Atanh (ratio)",
    "log1p = Mul (two, half_log1p)",
    "x_positive = Relu (x)",
    "step = Add (x_positive, log1p)",
)
_GATE = _lines(
    "z_sigmoid = Sigmoid (z_t)", "gate = Mul (z_t, z_sigmoid)", "y_t = Mul (ungated, gate)"
)


def _selective_scan(form: Form) -> str:
    """The scan in rows of D/G channels, one for each group and state: (B, tokens, G, N, D/G).

    The tokens are padded to whole chunks with what gives a step of 0, hence a decay of 1 and a
    drive of 0, so that the state passes unchanged: with softplus delta = -inf, without it a zero
    once the bias has been added. The loop's sizes are left open: ONNX Runtime would take the same
    name in the bodies of two nodes for the same size.
    """
    z = "z" if form.gate else ""
    if form.delta_softplus:
        delta = _chunks_of("delta", "by_channel", fill="minus_inf")
        step = _SOFTPLUS
    else:
        delta = """
    delta_wide = Cast <to = 1> (delta)
    biased = Add (delta_wide, delta_bias)""" + _chunks_of("biased", "by_channel").replace(
            "biased_chunks", "delta_chunks"
        )
        step = "step = Identity (delta_t)"
    z_given = "float[?, ?, ?, 1, ?] z_t," if z else ""
    attributes = "plugin_version, plugin_namespace, delta_softplus"
    inputs, y, to_tokens, from_tokens = "u, delta, A, B, C, D, delta_bias, h0", "y", "", ""
    if form.channel_major:
        attributes += ", channel_major"
        inputs, y = "u_in, delta_in, A, B_in, C_in, D, delta_bias, h0", "y_out"
        to_tokens = _TO_TOKENS + (_Z_TO_TOKENS if z else "")
        from_tokens = "y_out = Transpose <perm = [0, 2, 1]> (y)"
        z = "z_in" if z else ""
    return f"""
SelectiveScan <{attributes}> ({inputs}{f", {z}" if z else ""}) => ({y}, h_last)
{{
    {to_tokens}
    zero = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    rest = Constant <value = int64[1] {{-1}}> ()
    chunk = Constant <value = int64[1] {{{CHUNK}}}> ()
    ones = Constant <value = int64[{CHUNK}] {{{_each("1")}}}> ()
    two = Constant <value = float {{2.0}}> ()
    minus_inf = Constant <value = float {{-inf}}> ()

    length = Shape <start = 1, end = 2> (u)
    channels = Shape <start = 2> (u)
    groups = Shape <start = 2, end = 3> (B)
    per_group = Div (channels, groups)
    states = Shape <start = 1> (A)
    last = Sub (length, one)
    after = Add (last, chunk)
    needed = Div (after, chunk)
    chunks = Max (needed, one)
    padded = Mul (chunks, chunk)
    missing = Sub (padded, length)
    pads = Concat <axis = 0> (zero, zero, zero, zero, missing, zero)
    row_pads = Concat <axis = 0> (zero, zero, zero, zero, zero, missing, zero, zero)
    by_channel = Concat <axis = 0> (zero, rest, chunk, groups, one, per_group)
    by_state = Concat <axis = 0> (zero, rest, chunk, groups, states, one)
    by_state_row = Concat <axis = 0> (zero, rest, chunk, groups, one, states)
    by_token = Concat <axis = 0> (zero, rest, channels)
    of_state = Concat <axis = 0> (zero, groups, per_group, states)
    of_A = Concat <axis = 0> (groups, rest, states)
    of_row = Concat <axis = 0> (groups, one, rest)

    {_chunks_of("u", "by_channel")}
    {delta}
    {_chunks_of("z", "by_channel") if z else ""}
    {_chunks_of("B", "by_state", "row_pads")}
    {_chunks_of("C", "by_state_row", "row_pads")}

    A_split = Reshape (A, of_A)
    A_rows = Transpose <perm = [0, 2, 1]> (A_split)
    D_row = Reshape (D, of_row)
    bias_row = Reshape (delta_bias, of_row)
    h0_split = Reshape (h0, of_state)
    h0_rows = Transpose <perm = [0, 1, 3, 2]> (h0_split)
    h0_token = Unsqueeze (h0_rows, one)

    h_end, y_chunks = Scan <
        num_scan_inputs = {4 + bool(z)},
        body = chunk_of_tokens (
            float[?, 1, ?, ?, ?] state0,
            float[?, ?, ?, 1, ?] u_t, float[?, ?, ?, 1, ?] delta_t, {z_given}
            float[?, ?, ?, ?, 1] B_t, float[?, ?, ?, 1, ?] C_t
        ) => (float[?, 1, ?, ?, ?] state_out, float[?, ?, ?, 1, ?] y_t) {{
            {step}
            gain = Mul (step, u_t)
            exponent = Mul (step, A_rows)
            decay = Exp (exponent)
            drive = Mul (gain, B_t)
            {_each("decay{t}")} = Split <axis = 1> (decay, ones)
            {_each("drive{t}")} = Split <axis = 1> (drive, ones)
            {_each("kept{t} = Mul (decay{t}, state{t}) state{s} = Add (kept{t}, drive{t})", " ")}
            states_t = Concat <axis = 1> ({_each("state{s}")})
            state_out = Identity (state{CHUNK})

            readout = MatMul (C_t, states_t)
            skip = Mul (D_row, u_t)
            {"ungated" if z else "y_t"} = Add (readout, skip)
            {_GATE if z else ""}
        }}
    > (h0_token, u_chunks, delta_chunks, {"z_chunks, " if z else ""}B_chunks, C_chunks)

    y_split = Transpose <perm = [1, 0, 2, 3, 4, 5]> (y_chunks)
    y_padded = Reshape (y_split, by_token)
    y_float = Slice (y_padded, zero, length, one)
    y = CastLike (y_float, u)
    {from_tokens}
    h_rows = Squeeze (h_end, one)
    h_split = Transpose <perm = [0, 1, 3, 2]> (h_rows)
    of_h = Shape (h0)
    h_last = Reshape (h_split, of_h)
}}
"""


def _causal_conv1d(form: Form) -> str:
    """Each tap's channel weights times the tokens that it sees, added up; one after the other,
    because TensorRT for RTX 1.7 fails on a Scan over the taps. Where K differs, taps of zero come
    before a node's own."""
    width = max(form.widths)
    taps = range(width)
    pad = len(form.widths) > 1
    silu = f"""
    sum_sigmoid = Sigmoid (sum{width})
    y_float = Mul (sum{width}, sum_sigmoid)"""
    return f"""
CausalConv1d <plugin_version, plugin_namespace, activation> (x, weight, bias, tail) => (y, new_tail)
{{
    axis1 = Constant <value = int64[1] {{1}}> ()
    ones = Constant <value = int64[{width}] {{{", ".join("1" for _ in taps)}}}> ()

    history = Concat <axis = 1> (tail, x)
    length = Shape <start = 1, end = 2> (x)
    length_all = Shape <start = 1, end = 2> (history)
    new_tail = Slice (history, length, length_all, axis1)

    {"own_float" if pad else "history_float"} = Cast <to = 1> (history)
    {"own_rows" if pad else "weight_rows"} = Transpose <perm = [1, 0]> (weight)
    {_PADDED_TAPS.format(width=width) if pad else ""}
    {", ".join(f"tap{k}" for k in taps)} = Split <axis = 0> (weight_rows, ones)
    sum0 = Identity (bias)
    {"".join(_TAP.format(k=k, s=k + 1) for k in taps)}
    {silu if form.activation else f"y_float = Identity (sum{width})"}
    y = CastLike (y_float, x)
}}
"""


_PADDED_TAPS = """
    widest = Constant <value = int64[1] {{{width}}}> ()
    zero = Constant <value = int64[1] {{0}}> ()
    own = Shape <start = 1> (weight)
    missing = Sub (widest, own)
    row_pads = Concat <axis = 0> (missing, zero, zero, zero)
    weight_rows = Pad (own_rows, row_pads)
    token_pads = Concat <axis = 0> (zero, missing, zero, zero, zero, zero)
    history_float = Pad (own_float, token_pads)
"""

_TAP = """
    start{k} = Constant <value = int64[1] {{{k}}}> ()
    end{k} = Add (start{k}, length)
    seen{k} = Slice (history_float, start{k}, end{k}, axis1)
    weighted{k} = Mul (tap{k}, seen{k})
    sum{s} = Add (sum{k}, weighted{k})
"""
