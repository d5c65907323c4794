"""What the domain knows as JSON, and the schema of that JSON: both from the same frozen values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from core.clock import shanghai
from core.money import Fen, yuan_text

Json = dict[str, Any]
_FEN = "_fen"


def rendered(value: Any) -> Any:
    """Times with their zone (+08:00); beside each `…_fen` stands the same amount in yuan, as text."""
    if is_dataclass(value):
        record: Json = {}
        for each in fields(value):
            part = getattr(value, each.name)
            record[each.name] = rendered(part)
            if each.name.endswith(_FEN):
                record[each.name.removesuffix(_FEN)] = None if part is None else yuan_text(Fen(part))
        return record
    if isinstance(value, datetime):
        return shanghai(value).isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): rendered(part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [rendered(part) for part in value]
    return value


def schema(kind: Any) -> Json:
    """The JSON Schema of what `rendered` makes of a value of this kind; other records are referred to by name."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {UnionType, Union}:
        (inner,) = (part for part in arguments if part is not type(None))
        return {"oneOf": [schema(inner), {"type": "null"}]}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": {} if arguments[1] is Any else schema(arguments[1])}
    if origin is not None:
        return {"type": "array", "items": schema(arguments[0])}
    if is_dataclass(kind):
        return {"$ref": f"#/components/schemas/{getattr(kind, '__name__', '')}"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    return dict(_PLAIN[getattr(kind, "__supertype__", kind)])


_PLAIN: Mapping[Any, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    UUID: {"type": "string", "format": "uuid"},
    datetime: {"type": "string", "format": "date-time"},
}


@cache
def record_schema(kind: type) -> Json:
    """An object whose fields are always all there."""
    properties: Json = {}
    for name, hint in get_type_hints(kind).items():
        properties[name] = schema(hint)
        if name.endswith(_FEN):
            text: Json = {"type": "string", "description": "The same amount in yuan, to show"}
            is_optional = type(None) in get_args(hint)
            properties[name.removesuffix(_FEN)] = {"oneOf": [text, {"type": "null"}]} if is_optional else text
    return {"type": "object", "properties": properties, "required": list(properties)}


def records_in(kind: Any) -> set[type]:
    """This record and all that it refers to."""
    if is_dataclass(kind) and isinstance(kind, type):
        return {kind}.union(*(records_in(hint) for hint in get_type_hints(kind).values()))
    return set().union(*(records_in(part) for part in get_args(kind)))
