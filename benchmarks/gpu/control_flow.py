"""The loops of a kernel, from the branches in its machine code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from disassembly import Instruction

Blocks = frozenset[int]
"""Basic blocks, by the position of their first instruction."""


@dataclass(frozen=True)
class Loop:
    """A natural loop: what is entered at `header` alone and leads back to it."""

    header: int
    blocks: Blocks


class Flow:
    """A kernel's basic blocks and loops.

    Branches for warps whose lanes went apart (`BRA.DIV`) count as never taken: no kernel lets
    a warp's lanes go apart where it shuffles or votes. Subroutines belong to no loop.
    """

    def __init__(self, code: Sequence[Instruction]) -> None:
        self.code = code
        places = {one.address: place for place, one in enumerate(code)}
        targets = {
            place: places[int(found[1], 16)]
            for place, one in enumerate(code)
            if (found := re.search(r"0x([0-9a-f]+)$", one.operands)) and _branches(one)
        }
        after = (place + 1 for place, one in enumerate(code) if place in targets or _ends(one))
        starts = sorted({0, *targets.values(), *after} - {len(code)})
        self._ends = dict(zip(starts, [*starts[1:], len(code)], strict=True))
        self._next = {
            start: self._successors(end - 1, targets) for start, end in self._ends.items()
        }
        self._before: dict[int, set[int]] = {start: set() for start in starts}
        for start, following in self._next.items():
            for other in following:
                self._before[other].add(start)
        self.loops = self._loops()
        """Outer ones after those within them."""

    def instructions(self, blocks: Iterable[int]) -> list[Instruction]:
        return [one for start in sorted(blocks) for one in self.code[start : self._ends[start]]]

    def around(self, loop: Loop) -> list[Loop]:
        """The loops that it is in, from the innermost."""
        return [other for other in self.loops if loop.blocks < other.blocks]

    def passing(self, outer: Loop, inner: Loop) -> Blocks:
        """Blocks of `outer` that one pass of it can go through together with `inner`."""
        ahead = self._reached({inner.header}, self._before, outer, outer.header)
        behind = self._reached(inner.blocks, self._next, outer, outer.header)
        return frozenset(ahead | (behind - {outer.header}))

    def _successors(self, last: int, targets: dict[int, int]) -> list[int]:
        one, following = self.code[last], []
        taken = last in targets and not one.opcode.startswith("BRA.DIV")
        if taken:
            following.append(targets[last])
        leaves = (taken or _ends(one)) and not _conditional(one)
        if not leaves and last + 1 < len(self.code):
            following.append(last + 1)
        return following

    def _reached(
        self, starts: Iterable[int], step: dict[int, set[int]] | dict[int, list[int]],
        within: Loop, barrier: int,
    ) -> set[int]:  # fmt: skip
        """From the starts without leaving the loop or going on from the barrier."""
        found, left = set(starts), list(starts)
        while left:
            block = left.pop()
            if block == barrier and block not in starts:
                continue
            for other in step[block]:
                if other in within.blocks and other not in found:
                    found.add(other)
                    left.append(other)
        return found

    def _loops(self) -> list[Loop]:
        dominators = self._dominators()
        bodies: dict[int, set[int]] = {}
        for block, above in dominators.items():
            for header in above.intersection(self._next[block]):
                body, left = bodies.setdefault(header, {header}), [block]
                while left:
                    one = left.pop()
                    if one not in body:
                        body.add(one)
                        left += self._before[one] & dominators.keys()
        found = [Loop(header, frozenset(body)) for header, body in bodies.items()]
        return sorted(found, key=lambda loop: (len(loop.blocks), loop.header))

    def _dominators(self) -> dict[int, set[int]]:
        """Of every block that is reached, those on all ways to it."""
        reached, left = {0}, [0]
        while left:
            for other in self._next[left.pop()]:
                if other not in reached:
                    reached.add(other)
                    left.append(other)
        found = {block: set(reached) for block in reached}
        found[0] = {0}
        changed = True
        while changed:
            changed = False
            for block in sorted(reached - {0}):
                before = self._before[block] & reached
                now = set.intersection(*(found[one] for one in before)) | {block}
                changed |= now != found[block]
                found[block] = now
        return found


def _branches(one: Instruction) -> bool:
    """Calls with a condition are ways out of a loop, too; those of subroutines have none."""
    name = one.opcode.split(".")[0]
    return name in ("BRA", "JMP") or (name == "CALL" and bool(one.predicate))


def _ends(one: Instruction) -> bool:
    return one.opcode.split(".")[0] in ("EXIT", "RET", "BRX")


def _conditional(one: Instruction) -> bool:
    """Whether a branch or end has a condition."""
    return bool(one.predicate or re.match(r"!?U?P\d", one.operands))
