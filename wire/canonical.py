"""JSON with one spelling per value: the same content is the same bytes, so it signs and compares the same."""

from __future__ import annotations

from collections.abc import Mapping

import orjson


def canonical_json(value: Mapping[str, object]) -> bytes:
    """UTF-8, keys sorted, no blanks. Raises TypeError for fractions: money and counts are whole numbers."""
    _refuse_fractions(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def read_object(body: bytes | str) -> Mapping[str, object]:
    """A JSON object. Raises ValueError for anything else."""
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError("JSON, but not an object")
    return value


def _refuse_fractions(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("a fraction has no single spelling")
    if isinstance(value, Mapping):
        for part in value.values():
            _refuse_fractions(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_fractions(part)
