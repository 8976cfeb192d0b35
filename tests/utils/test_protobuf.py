from __future__ import annotations

import io

import onnx
import pytest

from dvmsr.utils import protobuf


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
@pytest.mark.parametrize("number", [1, 15, 16, 2000])
def test_writes_what_it_reads(number: int, size: int) -> None:
    content = bytes(size)
    data = protobuf.bytes_field(number, content)
    read = protobuf.fields(io.BytesIO(data), len(data), frozenset({number}))
    assert list(read) == [(number, content)]
    unread = protobuf.fields(io.BytesIO(data), len(data), frozenset())
    assert list(unread) == [(number, size)]


def test_pieces_make_up_the_message() -> None:
    message = onnx.TensorProto(name="a", dims=[3], data_type=1, raw_data=bytes(12))
    data = message.SerializeToString()
    pieces = list(protobuf.pieces(data))
    assert b"".join(written for _, _, written in pieces) == data
    assert {(field, value) for field, value, _ in pieces} == {
        *((1, 3), (2, 1), (8, b"a"), (9, bytes(12)))
    }


def test_writes_as_protocol_buffers_do() -> None:
    entry = onnx.StringStringEntryProto(key="k" * 200, value="é")
    written = protobuf.bytes_field(1, b"k" * 200) + protobuf.bytes_field(2, "é".encode())
    assert written == entry.SerializeToString()


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x00\x00", b"\x0a", b"\x80" * 20, b"\x0b\x01"])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"bad|field 0"):
        list(protobuf.fields(io.BytesIO(data), len(data), frozenset()))
