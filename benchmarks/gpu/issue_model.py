"""What the scan's kernels do per warp and token, and how long a multiprocessor takes at least.

A *warp-token* is one token of 32 channels, all their states. A kernel's *walk* is the loop that
takes it from token to token, the innermost one with the most exponentials, and so many loops
around it as `WALKS` says. Compilers unroll and peel loops, so how often the inner loop runs per
pass of the outer one, and how many tokens an unrolled pass takes, follows from the exponentials
that the algorithm needs. Within a pass every instruction counts, those that a condition skips,
too; other loops in it count once.

The model of a multiprocessor: four schedulers, each with its own units, in order, one instruction
a cycle. A walk takes the largest of these, in cycles per warp-token and scheduler:

* `issue`  1 for every instruction.
* `special` 8 for every special function (MUFU) and for conversions that run there (F2F, I2F,
  F2I): 16 lanes a cycle and multiprocessor.
* `fp32`   1 for every multiplication and addition, IMAD among them, which takes only one half of
  the unit and so at least 2; on compute capability 8.0, whose units are half as wide, 2.
* `integer` 2 for integers, comparisons, selections and predicates.
* `shared` 4 for every wavefront of the one shared-memory pipe: 1 for an access of 32 bits,
  for one of global memory and for a shuffle; 2 for reads of 64 bits, and of 128, which the scan
  does with one address for all or half of a warp; writes of 64 and 128 bits 2 and 4. No bank
  conflicts.

Latencies, waits for memory and for other warps, launches and uneven ends are not in it: these
are the least times, and a kernel with few warps takes longer. A whole scan is predicted from the
time of what walks every token to that with a correction, or a walk back, that does so, too: how
far these go depends on the weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from control_flow import Flow, Loop
from disassembly import Instruction

from dvmsr.errors import DvmsrError

CHANNELS, STATES = 120, 16
"""D and N that predictions are made for."""
LENGTHS = (16_384, 65_536, 172_890)


@dataclass(frozen=True)
class Multiprocessor:
    """One of a compute capability: cycles of `fp32`, most threads, bytes of shared memory."""

    fp32: int
    threads: int
    shared: int


MULTIPROCESSORS = {
    "8.0": Multiprocessor(2, 2048, 164 << 10),
    "8.6": Multiprocessor(1, 1536, 100 << 10),
    "8.9": Multiprocessor(1, 1536, 100 << 10),
    "9.0": Multiprocessor(1, 2048, 228 << 10),
    "10.0": Multiprocessor(1, 2048, 228 << 10),
    "12.0": Multiprocessor(1, 1536, 100 << 10),
}
"""By compute capability."""


@dataclass(frozen=True)
class Card:
    """A GPU: multiprocessors, their clock in GHz, and GB/s of its memory."""

    capability: str
    multiprocessors: int
    clock: float
    bandwidth: float


CARDS = {
    "H100": Card("9.0", 132, 1.755, 3352),
    "RTX 4090": Card("8.9", 128, 2.52, 1008),
    "A6000": Card("8.6", 84, 1.8, 768),
}


@dataclass(frozen=True)
class Walk:
    """How a kernel walks.

    Args:
        threads: of a block, from N.
        states: N from the numbers among the template arguments; the first, if nothing is said.
        exponentials: per warp-token, within the walk, from N.
        softplus: more of them in a form whose last template argument is true.
        step: exponentials of what the innermost loop repeats, from N; unrolled, it repeats several.
        around: how many loops around the innermost one belong to the walk, where there are so many.
        tokens: warp-tokens per pass of the outermost of these; None: as many, or such a part of
            one, as its exponentials are enough for.
        between: how often a loop between these two runs per pass of the outermost, from N.
    """

    threads: Callable[[int], int]
    exponentials: Callable[[int], int]
    states: Callable[..., int] = lambda n, *others: n
    step: Callable[[int], int] = int
    around: int = 0
    tokens: int | None = None
    between: Callable[[int], int] = int
    softplus: int = 0


WALKS = {
    "scan_chunks": Walk(lambda n: 128, lambda n: n + 2, step=lambda n: n + 2, around=1, tokens=16),
    "add_initial": Walk(lambda n: 128, lambda n: n + 2, step=lambda n: n + 2, around=1, tokens=16),
    "relay": Walk(
        lambda n: 512 if n <= 16 else 256,
        lambda n: n + 2,
        step=lambda n: 16,
        around=2,
        tokens=16,
        between=lambda n: n // 16,
    ),
    "reach_back": Walk(lambda n: 512, int, softplus=1),
    "chunk_edges": Walk(lambda n: 256, lambda n: 2 * n, lambda s: 16 * s),
    "chunk_gradients": Walk(
        lambda n: 256, lambda n: n + (3 if n <= 16 else 6), lambda lanes, each: lanes * each
    ),
}
"""By the kernels' names; of others only their resources are told."""
VARIANTS = {"chunks": ("scan_chunks", "add_initial"), "relay": ("relay", "reach_back")}
"""The kernels of a whole scan that walk: all tokens, and those that states before them reach."""

_KINDS = (
    ("fma", "fp32", r"FFMA"),
    ("mul", "fp32", r"FMUL"),
    ("add", "fp32", r"FADD"),
    ("ex2", "special", r"MUFU\.EX2"),
    ("rcp", "special", r"MUFU\.RCP"),
    ("mufu", "special", r"MUFU"),
    ("lds", "shared", r"LDS"),
    ("sts", "shared", r"STS|ATOMS"),
    ("ldg", "shared", r"LDG|LD\b"),
    ("stg", "shared", r"STG|ST\b|RED\b|ATOMG?\b"),
    ("local", "shared", r"LDL|STL"),
    ("shfl", "shared", r"SHFL"),
    ("sync", "", r"BAR|B2R|WARPSYNC|BSSY|BSYNC|BREAK|VOTE|MEMBAR|FENCE|YIELD|NANOSLEEP|DEPBAR"),
    ("const", "", r"U?LDCU?\b"),
    ("branch", "", r"BRA|BRX|JMP|CALL|RET|EXIT|U[IFP]\w*SETP|UP\w*LOP3"),
    ("branch", "integer", r"\w*SETP|PLOP3|P2R|R2P"),
    ("convert", "special", r"F2F\b|I2F\b|F2I\b"),
    ("convert", "integer", r"F2FP|I2FP|F2IP"),
    ("convert", "fp32", r"HADD2\.F32|HADD2\.BF16"),
    ("move", "imad", r"IMAD\.MOV"),
    ("move", "fp32", r"HFMA2(\.MMA)?(\.BF16\w*)? \w+, -RZ, RZ"),
    ("move", "", r"U?MOV|CS2R|S2U?R|R2UR"),
    ("int", "", r"U[A-Z]"),
    ("int", "imad", r"IMAD"),
    ("int", "integer", r"V?I|LEA|SHF|LOP3|PRMT|SEL|POPC|FLO|BREV"),
    ("select", "integer", r"FSEL|FMNMX|FCHK"),
)
"""Class, unit and what opcode and operands begin with; the first that fits counts."""
_CYCLES = {"special": 8, "integer": 2, "imad": 2}
CLASSES = (*dict.fromkeys(name for name, _, _ in _KINDS), "other")


@dataclass(frozen=True)
class Walked:
    """What a walk does per warp-token: instructions by class, cycles by unit. `hot`: instructions
    of its innermost loop, that runs `passes` times in `tokens` warp-tokens."""

    classes: dict[str, float]
    cycles: dict[str, float]
    hot: int
    passes: float
    tokens: float

    @property
    def instructions(self) -> float:
        return sum(self.classes.values())

    @property
    def bound(self) -> str:
        """The unit that takes longest."""
        return max(self.cycles, key=lambda unit: self.cycles[unit])


def name_of(kernel: str) -> str:
    """`scan_chunks` of `dvmsr::cuda::scan_chunks<__half, 16, true>`."""
    return kernel.partition("<")[0].rpartition("::")[2]


def states_of(kernel: str) -> int | None:
    """How many states a kernel of `WALKS` is compiled for; None for others."""
    walk, numbers = WALKS.get(name_of(kernel)), re.findall(r", (\d+)", kernel)
    return walk.states(*map(int, numbers)) if walk and numbers else None


def threads_of(kernel: str) -> int:
    """Threads per block of a kernel of `WALKS`."""
    states = states_of(kernel)
    assert states is not None
    return WALKS[name_of(kernel)].threads(states)


def walked(kernel: str, code: Sequence[Instruction], capability: str) -> Walked:
    """A kernel of `WALKS` per warp-token.

    Raises:
        DvmsrError: if its loops do not fit what `WALKS` says.
    """
    walk, states, flow = WALKS[name_of(kernel)], states_of(kernel), Flow(code)
    assert states is not None
    if kernel.endswith("true>"):
        needed = walk.exponentials(states) + walk.softplus
        walk = replace(walk, exponentials=lambda n: needed)
    found = [_pass(flow, loop, walk, states, capability) for loop in _hottest(flow)]
    fitting = [one for one in found if one]
    if not fitting:
        raise DvmsrError(
            f"the loops of {kernel} are not as WALKS (benchmarks/gpu/issue_model.py) has them: its "
            "instructions are not counted"
        )
    return min(fitting, key=lambda one: one.instructions)


def blocks_per_multiprocessor(kernel: str, registers: int, shared: int, capability: str) -> int:
    """How many blocks of a kernel of `WALKS` a multiprocessor has room for."""
    threads, one = threads_of(kernel), MULTIPROCESSORS[capability]
    by_registers = 65536 // (-(-registers // 8) * 8 * threads)
    if float(capability) < 9:  # from there on the compiler's figure has what the system takes
        shared += 1024
    return min(by_registers, one.threads // threads, one.shared // shared)


def microseconds(cycles: float, card: Card, length: int) -> float:
    """Of a walk over `length` tokens of `CHANNELS`, evenly over a card's schedulers."""
    warp_tokens = length * -(-CHANNELS // 32)
    return warp_tokens * cycles / (4 * card.multiprocessors * card.clock * 1e3)


def floors(card: Card, length: int, width: int) -> dict[str, float]:
    """The least microseconds of any scan of activations of so many bytes: an exponential per
    state, and every byte once."""
    exponentials = length * CHANNELS * STATES / (16 * card.multiprocessors * card.clock * 1e3)
    elements = 4 * CHANNELS + 2 * STATES  # u, delta, z, y; B, C
    moved = length * elements * width / (card.bandwidth * 1e3)
    return {"exponentials": exponentials, "bytes": moved}


def kind(one: Instruction) -> tuple[str, str]:
    """An instruction's class and unit."""
    text = f"{one.opcode} {one.operands}"
    return next(
        ((name, unit) for name, unit, begin in _KINDS if re.match(begin, text)), ("other", "")
    )


def _hottest(flow: Flow) -> list[Loop]:
    """The loops with the most exponentials of those that have none with any within them."""
    counts = {loop: _exponentials(flow, loop.blocks) for loop in flow.loops}
    outer = {other for loop in flow.loops if counts[loop] for other in flow.around(loop)}
    inner = {loop: count for loop, count in counts.items() if count and loop not in outer}
    most = max(inner.values(), default=0)
    return [loop for loop, count in inner.items() if count == most]


def _exponentials(flow: Flow, blocks: frozenset[int]) -> int:
    return sum(kind(one)[0] == "ex2" for one in flow.instructions(blocks))


def _pass(flow: Flow, hot: Loop, walk: Walk, states: int, capability: str) -> Walked | None:
    """A pass of the walk with this innermost loop, by warp-token; None where that does not fit."""
    around = flow.around(hot)[: walk.around]
    parts: list[tuple[frozenset[int], float]] = []  # blocks, and how often they run
    for inner, outer in pairwise([hot, *around]):
        once = flow.passing(outer, inner) - inner.blocks
        for loop in flow.loops:  # what is left over of an unrolled one
            if loop.blocks <= once and _exponentials(flow, loop.blocks):
                once -= loop.blocks
        parts.append((once, 1 if outer is around[-1] else walk.between(states)))
    needed, each = walk.exponentials(states), _exponentials(flow, hot.blocks)
    tokens, passes = each / needed, 1.0
    if walk.tokens is None and each % needed and needed % each:
        return None
    if walk.tokens is not None:
        tokens, step = walk.tokens, walk.step(states)
        rest = needed * walk.tokens - sum(
            often * _exponentials(flow, part) for part, often in parts
        )
        if rest < each or rest % step or each % step or (not around and rest != each):
            return None
        passes = rest / each
    parts.append((hot.blocks, passes))
    classes: defaultdict[str, float] = defaultdict(float)
    cycles: defaultdict[str, float] = defaultdict(float)
    for part, often in parts:
        for one in flow.instructions(part):
            name, unit = kind(one)
            classes[name] += often / tokens
            for taken, cost in _costs(one, unit, capability):
                cycles[taken] += often / tokens * cost
    cycles["fp32"] = max(cycles["fp32"], cycles.pop("imad", 0))
    size = len(flow.instructions(hot.blocks))
    return Walked(dict(classes), dict(cycles), size, passes, tokens)


def _costs(one: Instruction, unit: str, capability: str) -> Iterator[tuple[str, int]]:
    yield "issue", 1
    if unit in ("fp32", "imad"):
        yield "fp32", MULTIPROCESSORS[capability].fp32
    if unit == "shared":
        wide = {".64": (2, 2), ".128": (2, 4)}.get(one.opcode[one.opcode.rfind(".") :], (1, 1))
        yield unit, 4 * wide[not one.opcode.startswith("LDS")]
    elif unit in _CYCLES:
        yield unit, _CYCLES[unit]
