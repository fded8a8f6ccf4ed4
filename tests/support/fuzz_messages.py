"""Messages of any kind and what comes near them, from their descriptors alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf, nan
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Texts = Callable[[str], SearchStrategy[str]]
"""The texts for a field, by its name."""

_INT32, _INT64 = 2**31, 2**63
NUMBERS: Mapping[int, SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.one_of(
        st.integers(-2, 10), st.sampled_from([_INT32 - 1, -_INT32]), st.integers(-_INT32, 1000)
    ),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 2**32 - 1]),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(
        st.integers(-2, 10),
        st.sampled_from([_INT64 - 1, -_INT64, 10**18, 253_402_300_800, -62_135_596_801]),
        st.integers(-_INT64, _INT64 - 1),
    ),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**64 - 1]),
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(-2, 8), st.sampled_from([-_INT32, 99])),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
}
"""Values by their type: small, extreme and any."""
_DEEPEST = 4
"""Messages within messages."""


def messages(kind: Descriptor, texts: Texts, depth: int = 0) -> SearchStrategy[Message]:
    """Messages of a kind, each field set or not, to what is legal and to what is not."""

    @st.composite
    def build(draw: DrawFn) -> Message:
        message = GetMessageClass(kind)()
        for field in kind.fields:
            if depth < _DEEPEST and draw(st.booleans()):
                _fill(draw, message, field, texts, depth)
        return message

    return build()


def _fill(draw: DrawFn, message: Message, field: FieldDescriptor, texts: Texts, depth: int) -> None:
    """Set a field to something."""
    values = _values(field, texts, depth)
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key, value = (inner.fields_by_name[name] for name in ("key", "value"))
        pairs = st.dictionaries(
            _values(key, texts, depth), _values(value, texts, depth), max_size=3
        )
        for each, worth in draw(pairs).items():
            if value.message_type is None:
                getattr(message, field.name)[each] = worth
            else:
                getattr(message, field.name)[each].CopyFrom(worth)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(values, max_size=4)))
    elif inner is not None:
        getattr(message, field.name).CopyFrom(draw(values))
    else:
        setattr(message, field.name, draw(values))


def _values(field: FieldDescriptor, texts: Texts, depth: int) -> SearchStrategy[Any]:
    """The values of a field, by its descriptor."""
    if field.message_type is not None:
        return messages(field.message_type, texts, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=100)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return texts(field.name)
    return NUMBERS[field.cpp_type]


def varied(valid: Message, texts: Texts) -> SearchStrategy[Message]:
    """A valid message but for a field or two: left out, or set to something else."""

    @st.composite
    def build(draw: DrawFn) -> Message:
        message = type(valid)()
        message.CopyFrom(valid)
        for _ in range(draw(st.integers(1, 2)) if valid.DESCRIPTOR.fields else 0):
            field = draw(st.sampled_from(_fields(valid)))
            message.ClearField(field.name)
            if draw(st.integers(0, 5)):
                _fill(draw, message, field, texts, depth=0)
        return message

    return build()


def _fields(message: Message) -> Sequence[FieldDescriptor]:
    fields: Any = message.DESCRIPTOR.fields  # two types of one name, says the stub
    return list(fields)


# ----------------------------------------------------------------------- edges

EDGES: Mapping[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: [0, 1, -1, _INT32 - 1, -_INT32],
    FieldDescriptor.CPPTYPE_UINT32: [0, 2**32 - 1],
    FieldDescriptor.CPPTYPE_INT64: [0, -1, 10**12, _INT64 - 1, -_INT64],
    FieldDescriptor.CPPTYPE_UINT64: [0, 2**64 - 1],
    FieldDescriptor.CPPTYPE_ENUM: [0, 1, -1, 99, _INT32 - 1],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_DOUBLE: [0.0, -1.0, inf, -inf, nan, 5e-324, 1e308],
    FieldDescriptor.CPPTYPE_FLOAT: [0.0, -1.0, inf, -inf, nan],
}


def at_the_edges(valid: Message, texts: Callable[[str], Sequence[str]]) -> Iterator[Message]:
    """A valid message again and again, one of its fields at one edge of what it can hold."""
    for field in _fields(valid):
        for edge in _edges(field, texts):
            message = type(valid)()
            message.CopyFrom(valid)
            message.ClearField(field.name)
            _put(message, field, edge)
            yield message


def _edges(field: FieldDescriptor, texts: Callable[[str], Sequence[str]]) -> Iterable[Any]:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return [{text: "1"} for text in texts("key")] + [{"a.b": text} for text in texts("value")]
    if inner is not None:
        return at_the_edges(GetMessageClass(inner)(), texts)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [b"", b"\xff" * 1000]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return texts(field.name)
    return EDGES[field.cpp_type]


def _put(message: Message, field: FieldDescriptor, edge: Any) -> None:
    """Set a field to a value: a repeated one to the value, and to more of it than anybody needs."""
    if isinstance(edge, dict):
        getattr(message, field.name).update(edge)
    elif field.is_repeated:
        getattr(message, field.name).extend([edge] * (1 if isinstance(edge, str) else 2000))
    elif isinstance(edge, Message):
        getattr(message, field.name).CopyFrom(edge)
    else:
        setattr(message, field.name, edge)


# ----------------------------------------------------------------------- bytes


def mangled(data: bytes) -> SearchStrategy[bytes]:
    """A serialised message that was cut, flipped, doubled or followed by something."""

    @st.composite
    def build(draw: DrawFn) -> bytes:
        mangled = data
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, max(0, len(mangled) - 1)))
            before, after = mangled[:place], mangled[place:]
            match draw(st.sampled_from(["cut", "flip", "insert", "double", "drop", "unknown"])):
                case "cut":
                    mangled = before
                case "flip" if after:
                    mangled = before + bytes([after[0] ^ 1 << draw(st.integers(0, 7))]) + after[1:]
                case "insert":
                    mangled = before + draw(st.binary(min_size=1, max_size=8)) + after
                case "double":
                    mangled += mangled[:100_000]
                case "drop":
                    mangled = before + after[2:]
                case _:
                    mangled += draw(st.sampled_from(UNKNOWN))
        return mangled

    return build()


def wire_fields(kind: Descriptor) -> SearchStrategy[bytes]:
    """Fields with the numbers of a kind and others, of any wire type, text of any bytes."""
    numbers = st.sampled_from([*(field.number for field in kind.fields), 99, 2**29 - 1])
    field = st.tuples(numbers, st.integers(0, 5), st.binary(max_size=40), st.integers(0, 2**64 - 1))
    return st.lists(field, max_size=6).map(lambda fields: b"".join(map(_wire_field, fields)))


def _wire_field(field: tuple[int, int, bytes, int]) -> bytes:
    number, wire_type, data, integer = field
    tag = varint(number << 3 | wire_type)
    match wire_type:
        case 0:
            return tag + varint(integer)
        case 1:
            return tag + struct.pack("<Q", integer)
        case 2:
            return tag + varint(len(data)) + data
        case 5:
            return tag + struct.pack("<I", integer % 2**32)
        case _:  # the beginning and the end of a group
            return tag + data


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


UNKNOWN: Sequence[bytes] = [
    varint(1000 << 3 | 2) + varint(5) + b"hello",
    varint(1000 << 3) + varint(2**64 - 1),
    varint(1000 << 3 | 3) * 200 + varint(1000 << 3 | 4) * 200,  # groups within groups
    varint(1 << 3 | 2) + varint(2**31 - 1),  # a length far beyond the end
    b"\x0a\x02\xff\xfe",  # a text that is not UTF-8
    b"\x0a\x03\xed\xa0\x80",  # half of a surrogate pair
]
"""Ends of messages that readers may stumble over."""
