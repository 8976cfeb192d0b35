"""Machine code as benchmarks/gpu/disassembly.py reads it, made up in tests."""

from __future__ import annotations

from disassembly import Instruction


def code(text: str) -> list[Instruction]:
    """Lines of `[@predicate] OPCODE [operands]`; `>n` in operands is the address of line n."""
    made = []
    for place, line in enumerate(text.split("\n")):
        words = line.split()
        predicate = words.pop(0)[1:] if words[0].startswith("@") else ""
        operands = " ".join(
            hex(16 * int(word[1:])) if word.startswith(">") else word for word in words[1:]
        )
        made.append(Instruction(16 * place, predicate, words[0], operands))
    return made
