"""What a network decides by sizes while it is traced: a graph holds one outcome of each."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvmsr.export.network.inputs import Inputs
from dvmsr.export.network.lines import folder_of

_LOGGER = "torch.fx.experimental.symbolic_shapes"
_SIZE = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")
_RELATION = re.compile(r"(Eq|Ne)\((.+), (\w+)\)")
_REMAINDER = re.compile(r"(?:Python)?Mod\((-?\w+), (\d+)\)")
_FACTOR = re.compile(r"-?(\w+) % (\d+) == 0")
_PLAIN = re.compile(r"-?\w+( % \d+)? (==|!=|<|<=|>|>=) -?\w+( % \d+)?")
_ONE = re.compile(r"Eq\(.+, 1\)")
_RANGE = re.compile(r"\w+ (<|<=|>|>=) \w+")
_TORCH = folder_of("torch")
_MACHINERY = (folder_of("logging"), f"{_TORCH}__init__.py", str(Path(_TORCH, "fx", "experimental")))
"""Between a size that is asked for and the code that asks."""


@dataclass(frozen=True)
class Decision:
    """One that the network's own code took; those of PyTorch's operators are checks."""

    holds: str
    """In words, what is true of the sizes that the graph was made with."""
    line: str
    fixes: bool
    """Whether a size, or a number made of sizes, became a constant, as int() does it."""

    @property
    def is_range(self) -> bool:
        """Whether one size is above or below a number or another size."""
        return bool(_RANGE.fullmatch(self.holds))


def fixed_at(decisions: Sequence[Decision]) -> str:
    """` at` the lines that made constants of sizes; empty if none did."""
    lines = list(dict.fromkeys(decision.line for decision in decisions if decision.fixes))
    return f" at {' and '.join(lines[:2])}" if lines else ""


@dataclass
class Decisions:
    """What was noted, in order; in PyTorch's own names for sizes until `of` is asked."""

    _noted: list[tuple[str, str]] = field(default_factory=list)
    _sizes: dict[str, tuple[str, int]] = field(default_factory=dict)
    _ones: list[str] = field(default_factory=list)

    def ones(self, inputs: Inputs) -> list[str]:
        """The dynamic axes of which something was made that had the size 1, which PyTorch takes
        for a constant."""
        text = " ".join(self._ones)
        return [
            inputs.dynamic[name][axis]
            for symbol, (name, axis) in self._sizes.items()
            if axis in inputs.dynamic.get(name, {}) and re.search(rf"\b{symbol}\b", text)
        ]

    def of(self, inputs: Inputs) -> list[Decision]:
        """Each once, with sizes called as the dynamic axes are."""
        labels = {
            symbol: inputs.dynamic.get(name, {}).get(axis, symbol)
            for symbol, (name, axis) in self._sizes.items()
        }
        found = (_decision(text, line, labels) for text, line in self._noted)
        return list(dict.fromkeys(found))


class _Recorder(logging.Handler):
    """Reads what PyTorch notes of each size that it is asked to decide by."""

    def __init__(self, decisions: Decisions) -> None:
        super().__init__(logging.INFO)
        self.decisions = decisions

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        if record.msg.startswith("create_symbol") and len(arguments) > 2:
            if match := _SIZE.fullmatch(str(arguments[2])):
                self.decisions._sizes[str(arguments[0])] = match[1], int(match[2])
        elif "[guard added]" in record.msg and arguments[:1] == ("eval",):
            if _ONE.fullmatch(str(arguments[1])):
                self.decisions._ones.append(str(arguments[1]))
            file, line = _asker()
            if not file.startswith(_TORCH):
                self.decisions._noted.append((str(arguments[1]), f"{file}, line {line}"))


def _asker() -> tuple[str, int]:
    frame = sys._getframe()
    while frame.f_back is not None and (
        frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(_MACHINERY)
    ):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


@contextlib.contextmanager
def recording() -> Iterator[Decisions]:
    """While a network is traced in the block."""
    decisions = Decisions()
    recorder = _Recorder(decisions)
    logger = logging.getLogger(_LOGGER)
    level, passes = logger.level, logger.propagate
    handlers = logger.handlers[:]
    logger.handlers[:] = [recorder]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield decisions
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = passes


def _decision(text: str, line: str, labels: dict[str, str]) -> Decision:
    used = [symbol for symbol in labels if re.search(rf"\b{symbol}\b", text)]
    fixes = "ToInt(" in text and text.startswith("Eq(")
    for symbol in used:
        text = re.sub(rf"\b{symbol}\b", labels[symbol], text)
    words = _REMAINDER.sub(r"\1 % \2", text)
    if match := _RELATION.fullmatch(words):
        words = f"{match[2]} {'==' if match[1] == 'Eq' else '!='} {match[3]}"
    fixes = fixes or bool(re.fullmatch(r"\w+ == \d+", words))
    if match := _FACTOR.fullmatch(words):
        words = f"{match[1]} is a multiple of {match[2]}"
    elif not _PLAIN.fullmatch(words):
        named = ", ".join(dict.fromkeys(labels[symbol] for symbol in used))
        words = f"{named or 'a size'} {'are' if ' ' in named else 'is'} as in the example"
    return Decision(words, line, fixes)
