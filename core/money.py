"""Money is integer fen; yuan exist as text at an edge only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NewType

Fen = NewType("Fen", int)
"""An amount in fen (1/100 yuan)."""

AMOUNT_FEN_MAX = Fen(1_000_000_00)  # one million yuan: above it an outpatient bill is a mistake
_YUAN_TEXT = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,2}))?")


def yuan_text(amount: Fen) -> str:
    """1998 → "19.98"; a negative amount keeps its sign."""
    yuan, fen = divmod(abs(amount), 100)
    return f"{'-' if amount < 0 else ''}{yuan}.{fen:02d}"


def fen_from_yuan_text(text: str) -> Fen:
    """ "19.98" → 1998. Raises ValueError for anything but digits with at most two decimals."""
    match = _YUAN_TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError("an amount is written as yuan with at most two decimals, for example 19.98")
    yuan, fen = match.groups()
    return Fen(int(yuan) * 100 + int((fen or "0").ljust(2, "0")))


def share(total: Fen, weights: Sequence[Fen]) -> list[Fen]:
    """Split `total` in proportion to `weights` without losing a fen; the earliest parts take the remainder."""
    weight_sum = sum(weights)
    if total < 0 or weight_sum <= 0 or any(weight < 0 for weight in weights):
        raise ValueError("a share needs a total of at least 0 and weights whose sum is positive")
    parts = [total * weight // weight_sum for weight in weights]
    left = total - sum(parts)
    for position, weight in enumerate(weights):
        if left and weight:
            parts[position] += 1
            left -= 1
    return [Fen(part) for part in parts]
