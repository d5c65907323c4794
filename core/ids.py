"""Our own numbers: primary keys, order, refund and confirmation numbers, tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from core.clock import Clock

NUMBER_CHARACTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # no I, L, O, U: read aloud at a window without mistakes
ORDER_NUMBER_LENGTH = 26
TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Ids:
    """Makes numbers from a clock and a source of randomness.

    Order numbers are random, never a sequence: a database restored from yesterday must not issue one again.
    """

    clock: Clock
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def uuid(self) -> UUID:
        """A UUIDv7: its first 48 bits are the time in milliseconds, so new rows lie together in an index."""
        milliseconds = int(self.clock.now().timestamp() * 1000)
        value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(self.random_bytes(10), "big")
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0x3 << 62) | 0x2 << 62
        return UUID(int=value)

    def order_no(self) -> str:
        """Number of a payment at the channel."""
        return "P" + self._number()

    def refund_no(self) -> str:
        """Number of a refund at the channel."""
        return "R" + self._number()

    def confirm_no(self) -> str:
        """Number under which the HIS locks and books."""
        return "C" + self._number()

    def token(self) -> str:
        """An address part that cannot be guessed (192 bits, hex)."""
        return self.random_bytes(TOKEN_BYTES).hex()

    def _number(self) -> str:
        return "".join(NUMBER_CHARACTERS[byte & 31] for byte in self.random_bytes(ORDER_NUMBER_LENGTH - 1))


def is_order_no(text: str) -> bool:
    """Whether it looks like a number that we give to payments."""
    return _looks_like("P", text)


def is_refund_no(text: str) -> bool:
    """Whether it looks like a number that we give to refunds."""
    return _looks_like("R", text)


def is_confirm_no(text: str) -> bool:
    """Whether it looks like a number that we give to the HIS."""
    return _looks_like("C", text)


def _looks_like(first: str, text: str) -> bool:
    is_ours = len(text) == ORDER_NUMBER_LENGTH and text[:1] == first
    return is_ours and all(character in NUMBER_CHARACTERS for character in text[1:])
