"""What an ONNX file would read from outside itself, found without the onnx package.

A tensor can name a file by path, offset and length, and onnxruntime opens it: a hostile graph could ask for any file
that the process may read. So all tensors are found first: messages of the protobuf wire format are walked along the
fields of onnx.proto that lead to one (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

DEEPEST = 64  # nested messages; a graph within a graph takes three
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are of proto1
NAME, EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 8, 13, 14, 1  # of TensorProto, and a value of data_location
# message -> field number -> message, for the fields of onnx.proto that lead to a TensorProto
FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


class External(NamedTuple):
    """A tensor that lies outside its graph: its name, and the file that it asks for."""

    name: str
    location: str


def externals(model: memoryview) -> list[External]:
    """Return the tensors of a serialized ModelProto that lie outside of it.

    Raises:
        ValueError: It is no protobuf message, or nested deeper than any graph of a bundle.
    """
    found, waiting = [], [(model, "model", 0)]
    while waiting:
        message, kind, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"messages nested deeper than {DEEPEST}")
        if kind == "tensor":
            found += external(message)
            continue
        for field, value in fields(message):
            if (inner := FIELDS[kind].get(field)) and isinstance(value, memoryview):
                waiting.append((value, inner, depth + 1))
    return found


def external(tensor: memoryview) -> list[External]:
    """Return what a TensorProto asks for, or nothing."""
    held = list(fields(tensor))
    entries = [dict(fields(value)) for field, value in held if field == EXTERNAL_DATA and isinstance(value, memoryview)]
    if not entries and (DATA_LOCATION, EXTERNAL) not in held:
        return []
    places = [text(entry.get(2, b"")) for entry in entries if text(entry.get(1, b"")) == "location"]
    names = [text(value) for field, value in held if field == NAME]
    return [External(*(" and ".join(found) for found in (names, places)))]


def text(value: int | memoryview | bytes) -> str:
    """Return a string field; what is none of UTF-8 equals no name."""
    return "" if isinstance(value, int) else str(value, "utf-8", "replace")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field numbers with their values: a whole number, or the bytes of a string, message or fixed-size number.

    Raises:
        ValueError: The message is cut short, or malformed.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = varint(message, at)
            yield tag >> 3, value
            continue
        if kind == BYTES:
            size, at = varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if size > len(message) - at:
            raise ValueError(f"a field of {size} bytes, {len(message) - at} are left")
        yield tag >> 3, message[at : at + size]
        at += size


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the whole number of up to 64 bits at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("a number of more than 10 bytes")
