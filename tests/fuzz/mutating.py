"""Small and large harm to a body, decided by a seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from tests.fuzz.corpus import ODD_VALUES, PIECES
from tests.support.pushes import as_json, as_xml

MUTATIONS = (1, 1, 1, 1, 2, 2, 3, 4)  # of one body
BOMB_BYTES_MAX = 700_000  # more than any reader takes
BOMBS_IN_1000 = 4  # they cost a thousand times what others do
SLICE_BYTES_MAX = 200
_TOKEN = re.compile(rb'<!\[CDATA\[|\]\]>|<[^<>]*>|"[^"]*"|[{}\[\],:]|[^<>"{}\[\],:]+')


def mutated(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """This body after a few mutations, now and then grown beyond all bounds."""
    for _ in range(random.choice(MUTATIONS)):
        body = random.choice(HARMS)(body, others, random)
    if random.randrange(1000) < BOMBS_IN_1000:
        body = bombed(body, random)
    return body


def mutated_document(document: Mapping[str, Any], others: Sequence[Mapping[str, Any]], random: Random) -> bytes:
    """A well-formed body whose values are not what belongs there."""
    values = dict(document)
    for _ in range(random.choice(MUTATIONS)):
        name, other = random.choice(sorted(values) or ["A"]), random.choice(others)
        match random.randrange(5):
            case 0:
                values[name] = random.choice(ODD_VALUES)
            case 1:
                values.pop(name, None)
            case 2:
                values[name] = random.choice(list(other.values()))
            case 3:
                values |= {each: other[each] for each in random.sample(sorted(other), k=min(2, len(other)))}
            case _:
                values[name] = [values.get(name, ""), values.get(name, "")]
    if random.randrange(2):
        with suppress(TypeError):  # XML has no word for nothing and for fractions
            return as_xml(values)
    return as_json(values)


def _cut(body: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(body))
    return start, min(len(body), start + random.randint(1, SLICE_BYTES_MAX))


def flip_bits(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    if not body:
        return body
    altered = bytearray(body)
    for _ in range(random.randint(1, 8)):
        altered[random.randrange(len(altered))] ^= 1 << random.randrange(8)
    return bytes(altered)


def delete(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    start, end = _cut(body, random)
    return body[:start] + body[end:]


def duplicate(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    start, end = _cut(body, random)
    return body[:end] + body[start:end] + body[end:]


def splice(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(others)
    return body[: random.randint(0, len(body))] + other[random.randint(0, len(other)) :]


def insert(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    place = random.randint(0, len(body))
    return body[:place] + random.choice(PIECES) + body[place:]


def _with_tokens(body: bytes, change: Callable[[list[bytes]], None]) -> bytes:
    tokens = _TOKEN.findall(body[:20_000])
    if len(tokens) > 1:
        change(tokens)
    return b"".join(tokens) + body[20_000:]


def swap_tokens(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    def change(tokens: list[bytes]) -> None:
        one, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        tokens[one], tokens[other] = tokens[other], tokens[one]

    return _with_tokens(body, change)


def replace_token(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    def change(tokens: list[bytes]) -> None:
        tokens[random.randrange(len(tokens))] = random.choice(PIECES)

    return _with_tokens(body, change)


def repeat_token(body: bytes, others: Sequence[bytes], random: Random) -> bytes:
    def change(tokens: list[bytes]) -> None:
        place = random.randrange(len(tokens))
        tokens[place] *= random.randint(2, 20)

    return _with_tokens(body, change)


def bombed(body: bytes, random: Random) -> bytes:
    """A part of it, or a piece that hurts, over and over."""
    start, end = _cut(body, random)
    part = random.choice([body[start:end] or b"<a>", random.choice(PIECES), b"<a>", b"[", b'{"a":', b"<a/>", b"x"])
    return body[:end] + part * (random.randint(1, BOMB_BYTES_MAX) // len(part)) + body[end:]


HARMS = (flip_bits, delete, duplicate, splice, insert, swap_tokens, replace_token, repeat_token)
