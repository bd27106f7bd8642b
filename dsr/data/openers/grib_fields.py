"""The fields of a GRIB file, located and cut out without decoding: positions, headers and packing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

# Offset in section 4 of the time at which an interval ends (7 bytes), by product definition template.
END_OF_INTERVAL = {8: 34, 9: 47, 10: 35, 11: 37, 12: 36}
PACKED = (0, 1, 2, 3, 40, 41, 42, 50, 51, 53)  # data representation templates of edition 2 that round to a quantum


class Field(NamedTuple):
    """The location of one field: first byte and size of the message, and the field's number within it."""

    offset: int
    size: int
    number: int = 0


Parts = dict[int, slice]  # the sections of one field, by number


def fields(data: Any) -> Iterator[tuple[Field, Parts]]:
    """Every field in the bytes of a file, with anything between messages. Raises ValueError if one is truncated."""
    at, count = _next(data, 0), 0
    while at >= 0:
        count += 1
        try:
            size = _size(data, at)
            if at + size > len(data) or data[at + size - 4 : at + size] != b"7777":
                raise IndexError
            parts = list(_parts(data, at, size))
        except IndexError:
            raise ValueError(f"message {count}, at byte {at}, is truncated or damaged") from None
        for number, sections in enumerate(parts):
            yield Field(at, size, number), sections
        at = _next(data, at + size)
    if not count:
        raise ValueError("it contains no message")


def _next(data: Any, start: int) -> int:
    """The start of the next message; -1 if there is none. The magic bytes may also occur between messages."""
    at = data.find(b"GRIB", start)
    while at >= 0 and at + 8 <= len(data) and data[at + 7] not in (1, 2):
        at = data.find(b"GRIB", at + 4)
    return at


def message(data: Any, field: Field, parts: Parts, with_values: bool = True) -> bytes:
    """One field as a separate message. Without values, messages of edition 2 are reduced to their header."""
    start = data[field.offset : field.offset + 8]
    if start[7] == 1:
        return bytes(data[field.offset : field.offset + field.size])
    sections = {number: data[part] for number, part in parts.items()}
    if not with_values:
        sections[7] = b"\0\0\0\5\7"
    body = b"".join(sections[number] for number in sorted(sections))
    return start + (16 + len(body) + 4).to_bytes(8, "big") + body + b"7777"


def header(data: Any, field: Field, parts: Parts) -> bytes:
    """The header of a field without reference time and packing: equal bytes have equal meaning."""
    if data[field.offset + 7] == 1:
        first = bytearray(data[parts[1]])
        first[12:17], first[24] = bytes(5), 0
        return bytes(first) + (data[parts[2]] if 2 in parts else b"")
    first, product = bytearray(data[parts[1]]), bytearray(data[parts[4]])
    first[12:19] = bytes(7)
    end = END_OF_INTERVAL.get(int.from_bytes(product[7:9], "big"))
    if end is not None:
        product[end : end + 7] = bytes(7)
    local = data[parts[2]] if 2 in parts else b""
    return data[field.offset + 6 : field.offset + 7] + bytes(first) + local + data[parts[3]] + bytes(product)


def reference_time(data: Any, field: Field, parts: Parts) -> int | None:
    """Seconds since 1970-01-01; None if the bytes are not a date, as in files of constant fields."""
    first = data[parts[1]]
    try:
        if data[field.offset + 7] == 1:
            moment = datetime((first[24] - 1) * 100 + first[12], *first[13:17])
        else:
            moment = datetime(int.from_bytes(first[12:14], "big"), *first[14:19])
    except ValueError:
        return None
    return round(moment.replace(tzinfo=UTC).timestamp())


def precision(data: Any, field: Field, parts: Parts) -> float:
    """The largest error due to packing as integers: half of the quantum; 0 if values are stored unpacked."""
    if data[field.offset + 7] == 1:
        first, packing = data[parts[1]], data[parts[4]]
        binary, decimal, bits = packing[4:6], first[26:28], packing[10]
    else:
        packing = data[parts[5]]
        binary, decimal, bits = packing[15:17], packing[17:19], packing[19] if len(packing) > 19 else 0
        if int.from_bytes(packing[9:11], "big") not in PACKED:
            return 0.0
    return 0.5 * 2.0 ** _signed(binary) * 10.0 ** -_signed(decimal) if bits else 0.0


def _signed(two: bytes) -> int:
    """A 16-bit number whose first bit is the sign."""
    value = int.from_bytes(two, "big")
    return -(value & 0x7FFF) if value & 0x8000 else value


def _size(data: Any, at: int) -> int:
    """The size of the message that starts here."""
    if data[at + 7] == 2:
        return int.from_bytes(data[at + 8 : at + 16], "big")
    size = int.from_bytes(data[at + 4 : at + 7], "big")
    if (
        size & 0x800000
    ):  # ECMWF's convention for more than 8 MB: units of 120 bytes, minus the length in the data section
        last = _sections_of_edition_1(data, at)[4]
        rest = int.from_bytes(data[last.start : last.start + 3], "big")
        if rest < 120:
            size = (size & 0x7FFFFF) * 120 - rest + 4
    return size


def _parts(data: Any, at: int, size: int) -> Iterator[Parts]:
    if data[at + 7] == 1:
        yield _sections_of_edition_1(data, at)
        return
    parts: Parts = {}
    bitmap = None
    at, end = at + 16, at + size - 4
    while at < end:
        length, number = int.from_bytes(data[at : at + 4], "big"), data[at + 4]
        if length < 5 or at + length > end:
            raise IndexError
        parts[number] = slice(at, at + length)
        if number == 6 and data[at + 5] == 254 and bitmap is not None:
            parts[6] = bitmap  # "as defined before in this message"
        elif number == 6:
            bitmap = parts[6]
        if number == 7:
            yield dict(parts)
        at += length


def _sections_of_edition_1(data: Any, at: int) -> Parts:
    """Sections 1 to 4; of the last only the first 11 bytes."""
    parts, flags = {}, data[at + 15]
    at += 8
    for number in (1, *((2,) if flags & 0x80 else ()), *((3,) if flags & 0x40 else ())):
        parts[number] = slice(at, at + int.from_bytes(data[at : at + 3], "big"))
        at = parts[number].stop
    parts[4] = slice(at, at + 11)
    return parts
