"""The directories of a TIFF, which EXIF data is, too: read as they are, and added to (TIFF 6.0,
section 2, and BigTIFF, https://www.awaresystems.be/imaging/tiff/bigtiff.html)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

BYTE, SHORT, LONG, RATIONAL, UNDEFINED, FLOAT, DOUBLE, LONG8 = 1, 3, 4, 5, 7, 11, 12, 16
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of one value, by its type."""
_CODES = {
    1: "B",
    3: "H",
    4: "I",
    5: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    10: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
_PARTS = {EXIF, GPS, INTEROPERABILITY}
"""Tags whose value is the place of a directory."""
_DEEPEST = 3
"""Directories in directories."""
_MOST = 64 << 20
"""Bytes of a value; what claims more is damaged."""
_MOST_ENTRIES = 4096


class Damaged(Exception):
    """A directory that cannot be read."""


@dataclass(frozen=True)
class Value:
    """Of a tag."""

    type: int
    data: bytes
    """Little-endian."""
    inner: Mapping[int, Value] | None = None
    """The directory, of a tag that stands for one."""

    @classmethod
    def of(cls, type: int, *numbers: float) -> Value:
        """Of a type that is no text."""
        return cls(type, struct.pack(f"<{len(numbers)}{_CODES[type]}", *numbers))

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its numbers; of ratios, numerators and denominators in turn."""
        code = _CODES.get(self.type, "B")
        return struct.unpack(f"<{len(self.data) // struct.calcsize('<' + code)}{code}", self.data)


@dataclass(frozen=True)
class _Raw:
    """An entry as it is stored: a value, or the place of one."""

    type: int
    count: int
    field: bytes


@dataclass(frozen=True)
class _Layout:
    """How a file stores its directories."""

    order: str
    """Of bytes, "<" or ">"."""
    big: bool
    """Whether places have 64 bits, not 32."""

    @property
    def word(self) -> str:
        """The code of a place."""
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def many(self) -> str:
        """The code of the number of entries."""
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def field(self) -> int:
        """Bytes of an entry that hold its value, or the place of one that is longer."""
        return 8 if self.big else 4

    @property
    def entry(self) -> int:
        """Bytes of an entry."""
        return 4 + 2 * self.field

    def swapped(self, type: int, data: bytes) -> bytes:
        """A value between little-endian and the order of the file."""
        code = _CODES.get(type, "B")
        size = struct.calcsize(f"<{code}")
        if self.order == "<" or size == 1:
            return data
        count = len(data) // size
        return struct.pack(f"<{count}{code}", *struct.unpack(f">{count}{code}", data))

    def written(self, values: Mapping[int, _Raw | Value], place: int, following: int = 0) -> bytes:
        """A directory that stands at that place, with all that belongs to it."""
        head = struct.pack(self.many, len(values))
        start = place + len(head) + self.entry * len(values) + self.field
        entries, bodies = bytearray(), bytearray()
        for tag, value in sorted(values.items()):
            if isinstance(value, _Raw):
                raw, body = value, b""
            elif value.inner is not None:
                field = struct.pack(self.word, start + len(bodies))
                raw = _Raw(LONG8 if self.big else LONG, 1, field)
                body = self.written(value.inner, start + len(bodies))
            else:
                body = self.swapped(value.type, value.data)
                raw = _Raw(value.type, len(body) // _SIZES[value.type], body)
                if len(body) > self.field:
                    field = struct.pack(self.word, start + len(bodies))
                    raw = _Raw(raw.type, raw.count, field)
                else:
                    body = b""
            entries += struct.pack(f"{self.order}HH", tag, raw.type)
            entries += struct.pack(self.word, raw.count) + raw.field.ljust(self.field, b"\0")
            bodies += body + b"\0" * (len(body) % 2)
        return head + entries + struct.pack(self.word, following) + bodies


class Tiff:
    """A file that is read or added to.

    Args:
        file: open; its position does not matter.

    Raises:
        Damaged: if it does not begin as a TIFF.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        head = file.read(4)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or head[2:] not in (struct.pack(f"{order}H", k) for k in (42, 43)):
            raise Damaged
        self._layout = _Layout(order, head[2:] == struct.pack(f"{order}H", 43))
        self._left = file.seek(0, 2)
        """Bytes of values that may still be read: together they are no more than the file, though
        many tags can point to one place."""
        self._link = self._layout.field
        """Where the file says where its first directory is."""

    def directory(
        self,
        wanted: Callable[[int], bool] = lambda tag: True,
        at: int | None = None,
        depth: int = 0,
    ) -> dict[int, Value]:
        """The values of a directory, with those that it holds, but for what is damaged of them.

        Args:
            wanted: tag -> whether its value is read.
            at: its place; None for that of the first picture.
            depth: how many directories it is in.

        Raises:
            Damaged: if no value can be read.
        """
        entries, _ = self._entries(self._number(self._link) if at is None else at)
        found = {}
        for tag, entry in entries.items():
            if not wanted(tag) or entry.type not in _SIZES:
                continue
            with suppress(Damaged):
                value = self._value(entry)
                if tag in _PARTS and value.numbers and depth < _DEEPEST:
                    inner = self.directory(at=int(value.numbers[0]), depth=depth + 1)
                    value = Value(LONG, b"", inner)
                found[tag] = value
        return found

    def place(self, number: int) -> int:
        """Where the directory of a page is.

        Raises:
            Damaged: if there is none.
        """
        at = self._number(self._link)
        for _ in range(number):
            _, at = self._entries(at)
        return at

    def pages(self, *tags: int) -> Iterator[dict[int, Value]]:
        """Those values of every picture in the file, one after the other.

        Raises:
            Damaged: if that of the first cannot be read, or pages follow each other in a circle.
        """
        at, seen = self._number(self._link), set[int]()
        while at:
            if at in seen:
                raise Damaged
            seen.add(at)
            try:
                entries, following = self._entries(at)
                found = {tag: self._value(entries[tag]) for tag in tags if tag in entries}
            except (Damaged, KeyError):
                if len(seen) == 1:
                    raise Damaged from None
                return  # as Pillow, which ends there
            yield found
            at = following

    def change(self, values: Mapping[int, Value | None]) -> None:
        """Give the first picture further tags, or, by None, take one away.

        Its new directory is written at the end of the file; nothing else moves.

        Raises:
            Damaged: if the file cannot be read, or has no room left for it.
        """
        entries, following = self._entries(self._number(self._link))
        kept: dict[int, _Raw | Value] = {**entries}
        for tag, value in values.items():
            if value is None:
                kept.pop(tag, None)
            else:
                kept[tag] = value
        end = self._file.seek(0, 2)
        place = end + end % 2
        made = self._layout.written(kept, place, following)
        if not self._layout.big and place + len(made) >= 1 << 32:
            raise Damaged
        self._file.write(b"\0" * (end % 2) + made)
        self._file.seek(self._link)
        self._file.write(struct.pack(self._layout.word, place))

    def _entries(self, at: int) -> tuple[dict[int, _Raw], int]:
        """Those of a directory, and the place of the next."""
        layout = self._layout
        count = struct.unpack(layout.many, self._bytes(at, struct.calcsize(layout.many)))[0]
        if count > _MOST_ENTRIES:
            raise Damaged
        at += struct.calcsize(layout.many)
        data = self._bytes(at, count * layout.entry + layout.field)
        found = {}
        for start in range(0, count * layout.entry, layout.entry):
            tag, type = struct.unpack_from(f"{layout.order}HH", data, start)
            number = struct.unpack_from(layout.word, data, start + 4)[0]
            end = start + layout.entry
            found[tag] = _Raw(type, number, data[end - layout.field : end])
        return found, struct.unpack_from(layout.word, data, count * layout.entry)[0]

    def _value(self, entry: _Raw) -> Value:
        size = entry.count * _SIZES[entry.type]
        if size > _MOST:
            raise Damaged
        data = entry.field[:size]
        self._left -= size
        if self._left < 0:
            raise Damaged
        if size > len(entry.field):
            data = self._bytes(struct.unpack(self._layout.word, entry.field)[0], size)
        return Value(entry.type, self._layout.swapped(entry.type, data))

    def _number(self, at: int) -> int:
        return int(struct.unpack(self._layout.word, self._bytes(at, self._layout.field))[0])

    def _bytes(self, at: int, count: int) -> bytes:
        try:
            self._file.seek(at)
            data = self._file.read(count)
        except (OverflowError, ValueError):
            raise Damaged from None
        if len(data) < count:
            raise Damaged
        return data


def as_exif(values: Mapping[int, Value]) -> bytes:
    """A directory as EXIF data."""
    return b"II*\0" + struct.pack("<I", 8) + _Layout("<", big=False).written(values, 8)
