"""Messages in the wire format of protocol buffers, field by field, without a schema."""

import io
from collections.abc import Iterator
from typing import BinaryIO

_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
_ALL = frozenset(range(1, 64))
"""Every field number that ONNX has."""


def fields(file: BinaryIO, end: int, wanted: frozenset[int]) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message. Of fields that are not wanted, but have bytes, the
    value is how many; the file is at their first.

    Raises:
        ValueError: if this is not a message of exactly `end` bytes.
    """
    while file.tell() < end:
        field, kind = divmod(read_varint(file), 8)
        if field == 0:
            raise ValueError("field 0")
        if kind == _VARINT:
            yield field, read_varint(file)
            continue
        size = read_varint(file) if kind == _BYTES else _FIXED_SIZES.get(kind)
        if size is None or file.tell() + size > end:
            raise ValueError("bad field")
        if field in wanted:
            yield field, file.read(size)
        else:
            after = file.tell() + size
            yield field, size
            file.seek(after)


def pieces(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Field numbers, values and how each is written: joined, the message again.

    Raises:
        ValueError: as `fields`.
    """
    file, done = io.BytesIO(message), 0
    for field, value in fields(file, len(message), _ALL):
        yield field, value, message[done : file.tell()]
        done = file.tell()


def read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("bad varint")


def bytes_field(number: int, content: bytes) -> bytes:
    """A field that holds bytes, in its shortest form."""
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
