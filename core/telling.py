"""What a payer is told of a paid payment: one message for all of its groups that end together, not one for each.

A group's end and the wish to tell of it are one transaction: the first end writes the message, later ones add to it
until somebody has begun to send it. It leaves when nothing of the payment is being decided any more, or at the latest
`TOLD_TOGETHER_WITHIN` after the first end; what ends later has a message of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from core.messages import Messages
from core.models import Payment, PaymentLine
from core.money import Fen
from core.outside import Outside
from core.ports import MessageKind
from core.states import LineStatus
from core.transactions import rows

TOLD_TOGETHER_WITHIN = timedelta(seconds=30)
"""How long the message about a payment's first group waits for the payment's other groups."""

BEING_DECIDED = frozenset({LineStatus.WAITING, LineStatus.CONFIRMING})


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """What has become of some groups of one payment: how many bills are booked, how many go back and why."""

    confirm_nos: tuple[str, ...]
    booked: int
    booked_fen: Fen
    refused: int
    refused_fen: Fen
    reasons: tuple[str, ...]  # of what goes back, each once
    guides: tuple[str, ...]  # where to go now, each once

    @classmethod
    def of(cls, ended: Sequence[PaymentLine]) -> Self:
        booked = [line for line in ended if line.status is LineStatus.CONFIRMED]
        refused = [line for line in ended if line.status is not LineStatus.CONFIRMED]
        return cls(
            confirm_nos=_once(line.confirm_no for line in ended),
            booked=len(booked),
            booked_fen=Fen(sum(line.amount_fen for line in booked)),
            refused=len(refused),
            refused_fen=Fen(sum(line.amount_fen for line in refused)),
            reasons=_once(line.reason_code for line in refused),
            guides=_once(line.guide_text for line in booked if line.guide_text),
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From the values of a message."""
        return cls(
            confirm_nos=tuple(values["confirm_nos"]),
            booked=int(values["booked"]),
            booked_fen=Fen(int(values["booked_fen"])),
            refused=int(values["refused"]),
            refused_fen=Fen(int(values["refused_fen"])),
            reasons=tuple(values["reasons"]),
            guides=tuple(values["guides"]),
        )

    def and_of(self, other: Ends) -> Ends:
        return Ends(
            confirm_nos=_once((*self.confirm_nos, *other.confirm_nos)),
            booked=self.booked + other.booked,
            booked_fen=Fen(self.booked_fen + other.booked_fen),
            refused=self.refused + other.refused,
            refused_fen=Fen(self.refused_fen + other.refused_fen),
            reasons=_once((*self.reasons, *other.reasons)),
            guides=_once((*self.guides, *other.guides)),
        )

    @property
    def kind(self) -> MessageKind:
        """Once anything goes back, that is what the message is about; it says what is paid, too."""
        return MessageKind.REFUSED_RETURNED if self.refused else MessageKind.PAID

    def values(self, payment: Payment, *, of: int, waiting: int, now: datetime) -> dict[str, Any]:
        """`of` is how many bills the payment has, `waiting` how many of them are still being decided."""
        return {
            "order_no": payment.order_no,
            "amount_fen": self.refused_fen if self.refused else self.booked_fen,
            "at": (now if self.refused else payment.paid_at or now).isoformat(),
            "of": of,
            "waiting": waiting,
            **asdict(self),
        }


@dataclass(frozen=True, slots=True)
class Telling:
    """Part of the caller's transaction, under the payment's lock."""

    outside: Outside
    messages: Messages

    async def ended(self, payment: Payment, lines: Sequence[PaymentLine], ended: Sequence[PaymentLine]) -> None:
        """Tell, once, how these of the payment's `lines` have ended."""
        if not ended:
            return
        now = self.outside.clock.now()
        waiting = sum(line.status in BEING_DECIDED for line in lines)
        ends = Ends.of(ended)
        collecting = await self._collecting(payment, now) if len(ended) < len(lines) else None
        if collecting is not None:
            ends = Ends.read(self._opened(collecting)).and_of(ends)
        values = ends.values(payment, of=len(lines), waiting=waiting, now=now)
        if collecting is not None:
            await self._add(payment, collecting, ends.kind, values, due_at=None if waiting else now)
            return
        await self.messages.enqueue(
            payment,
            ends.kind,
            dedup_key=f"told:{ends.confirm_nos[0]}",
            values=values,
            due_at=now + TOLD_TOGETHER_WITHIN if waiting else now,
        )

    async def stands(self, payment: Payment, lines: Sequence[PaymentLine], booked: Sequence[PaymentLine]) -> None:
        """These of the payment's `lines` are booked after all: it had been told that they go back."""
        values = Ends.of(booked).values(payment, of=len(lines), waiting=0, now=self.outside.clock.now())
        key = f"stands:{booked[0].confirm_no}"
        await self.messages.enqueue(payment, MessageKind.PAID, dedup_key=key, values=values)

    async def returned_whole(self, payment: Payment, lines: Sequence[PaymentLine]) -> None:
        """All that was taken goes back, which is not what was asked."""
        now = self.outside.clock.now()
        values = Ends.of(lines).values(payment, of=len(lines), waiting=0, now=now)
        await self.messages.enqueue(
            payment,
            MessageKind.REFUSED_RETURNED,
            dedup_key=f"told:{lines[0].confirm_no}",
            values=values | {"amount_fen": payment.paid_fen},
        )

    async def _collecting(self, payment: Payment, now: datetime) -> dict[str, Any] | None:
        """The message about other groups of this payment that nobody has begun to send, under its lock.

        Not one that goes another way because it was not delivered: that is the same message once more.
        """
        found = await rows(
            "SELECT id, values_enc FROM message WHERE institution_id = $1 AND payment_id = $2 AND status = 'queued'"
            " AND dedup_key LIKE 'told:%' AND sends_started = 0 AND chat_account_id IS NULL"
            " AND (lease_until IS NULL OR lease_until <= $3) ORDER BY created_at DESC, id LIMIT 1 FOR NO KEY UPDATE",
            payment.institution_id,
            payment.id,
            now,
        )
        return found[0] if found else None

    async def _add(
        self,
        payment: Payment,
        collecting: Mapping[str, Any],
        kind: MessageKind,
        values: Mapping[str, Any],
        *,
        due_at: datetime | None,
    ) -> None:
        """Whoever held the message and has not begun to send it does not hold it any more: he has the old words."""
        await rows(
            "UPDATE message SET kind = $3, values_enc = $4, due_at = coalesce($5, due_at), lease_until = NULL,"
            " holder = '' WHERE institution_id = $1 AND id = $2 RETURNING id",
            payment.institution_id,
            collecting["id"],
            kind.value,
            self.outside.keyring.encrypt(json.dumps(dict(values), ensure_ascii=False), place="message.values"),
            due_at,
        )

    def _opened(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.outside.keyring.decrypt_json(message["values_enc"], place="message.values"))


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
