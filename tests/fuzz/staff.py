"""Harmed requests to the staff's API: each begins as one that means something; a seed decides what is done to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import quote

from tests.fuzz.corpus import ODD_VALUES
from tests.fuzz.mutating import mutated

TEXT_LENGTH_MAX = 3_000
HARMS = ("path", "query", "header", "value", "value", "bytes", "method", "nothing")


@dataclass(frozen=True, kw_only=True)
class Call:
    """`path` is below the API's address and percent-encoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Calls that mean something, and words of which more can be made."""

    calls: Sequence[Call]
    words: Sequence[str]


def harmed(material: Material, random: Random) -> Call:
    call = random.choice(material.calls)
    for _ in range(random.choice((1, 1, 2))):
        call = _harm(call, material, random)
    return call


def _harm(call: Call, material: Material, random: Random) -> Call:
    match random.choice(HARMS):
        case "path":
            path, _, query = call.path.partition("?")
            parts = path.split("/")
            parts[random.randrange(1, len(parts))] = quote(_odd(material, random), safe="")
            return replace(call, path="/".join(parts) + (f"?{query}" if query else ""))
        case "query":
            name = random.choice(("limit", "after", "before", "kind", "number", "subject", "x"))
            joint = "&" if "?" in call.path else "?"
            return replace(call, path=f"{call.path}{joint}{name}={quote(_odd(material, random), safe='')}")
        case "header":
            name = random.choice(sorted(call.headers))
            value = "".join(letter for letter in _odd(material, random) if letter.isprintable() and letter < "\xff")
            return replace(call, headers={**call.headers, name: value})
        case "value":
            return replace(call, body=_with_odd_value(call.body, material, random))
        case "bytes":
            return replace(call, body=mutated(call.body, [each.body for each in material.calls], random))
        case "method":
            return replace(call, method=random.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")))
        case _:
            return call


def _odd(material: Material, random: Random) -> str:
    """A word of another place, a harmed one, or what no place takes."""
    word = random.choice(material.words)
    if random.randrange(2):
        return word
    return mutated(word.encode(), [each.encode() for each in material.words], random).decode(errors="replace")[
        :TEXT_LENGTH_MAX
    ]


def _with_odd_value(body: bytes, material: Material, random: Random) -> bytes:
    try:
        values = json.loads(body)
    except ValueError:
        return body
    if not isinstance(values, dict):
        return body
    name = random.choice([*sorted(values), "more"])
    odd: Any = random.choice((*ODD_VALUES, *material.words))
    if random.randrange(4) == 0:
        values.pop(name, None)
    else:
        values[name] = odd
    return json.dumps(values).encode()
