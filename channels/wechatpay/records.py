"""Reading their JSON: a value is there and of its kind, or the message is Unreadable. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from core.money import Fen
from wire.canonical import read_object

Record = Mapping[str, object]


class Unreadable(Exception):
    """An authentic message does not say what it must say, or not about what we asked."""


def record_of(body: bytes) -> Record:
    """Raises Unreadable."""
    try:
        return read_object(body)
    except ValueError as error:
        raise Unreadable("no JSON object") from error


def text(record: Record, name: str, *, required: bool = True) -> str:
    value = record.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise Unreadable(f"{name} is missing or no text")
    return value


def fen(record: Record, name: str, *, required: bool = True) -> Fen:
    value = record.get(name)
    if value is None and not required:
        return Fen(0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(f"{name} is no amount in fen")
    return Fen(value)


def inner(record: Record, name: str, *, required: bool = True) -> Record:
    """The object under this name."""
    value = record.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is missing or no object")
    return value


def moment(record: Record, name: str) -> datetime | None:
    said = text(record, name, required=False)
    if not said:
        return None
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise Unreadable(f"{name} is no time") from None
    if at.tzinfo is None:
        raise Unreadable(f"{name} has no zone")
    return at.astimezone(UTC)


def expect(record: Record, name: str, ours: str) -> None:
    if text(record, name) != ours:
        raise Unreadable(f"{name} is not ours")
