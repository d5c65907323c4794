"""Seals: what stood in an institution's ledger, minute by minute, each seal bound to the one before it.

A chain shows that a payment's transfers were changed; a seal shows that whole payments, or the last transfers of
some, are gone. The newest seal's mac, kept outside, shows that seals themselves are gone. A quiet minute makes
none: the next seal begins where the one before it ends, so a gap is always one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from core.ledger import ledger_key, mac_of, moment_text
from core.outside import Outside
from core.tenancy import across_institutions
from core.transactions import rows

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Where an institution's first seal begins; the database holds it too."""

SETTLED_AFTER = timedelta(minutes=2)
"""A transfer is visible that long after its time: a transaction's statements, waits for locks and pauses are each
bounded by seconds, and clocks of our machines differ by less."""

TRANSFERS_MAX = 20_000
"""A seal of several minutes ends before it holds more; a single minute is never divided."""

SEALS_AT_ONCE_MAX = 200
MEMBER_SEQ_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedTransfer:
    """A transfer, as far as a seal looks at it."""

    payment_id: UUID
    seq: int
    debit: str
    credit: str
    amount_fen: int
    mac: str

    @property
    def member(self) -> bytes:
        """Its place in the ledger: payment and number."""
        return self.payment_id.bytes + self.seq.to_bytes(MEMBER_SEQ_BYTES, "big")


MEMBER_BYTES = 16 + MEMBER_SEQ_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a seal says of the transfers in it; the same for the same transfers in any order."""

    transfers: int
    balances: Mapping[str, int]  # account → fen, debits less credits
    members: bytes
    digest: str

    @classmethod
    def of(cls, transfers: Iterable[SealedTransfer]) -> Self:
        ordered = sorted(transfers, key=lambda transfer: transfer.member)
        balances: Counter[str] = Counter()
        digest = hashlib.sha256()
        for transfer in ordered:
            balances[transfer.debit] += transfer.amount_fen
            balances[transfer.credit] -= transfer.amount_fen
            digest.update(transfer.member)
            digest.update(transfer.mac.encode())
        return cls(
            transfers=len(ordered),
            balances=dict(sorted(balances.items())),
            members=b"".join(transfer.member for transfer in ordered),
            digest=digest.hexdigest(),
        )


def seal_mac(
    key: bytes,
    contents: Contents,
    *,
    row_id: UUID,
    institution_id: UUID,
    number: int,
    since: datetime,
    until: datetime,
    previous_mac: str,
    at: datetime,
) -> str:
    """What a seal must carry."""
    return mac_of(
        key,
        [
            "seal",
            previous_mac,
            row_id.hex,
            institution_id.hex,
            number,
            moment_text(since),
            moment_text(until),
            contents.transfers,
            json.dumps(dict(contents.balances), sort_keys=True),
            hashlib.sha256(contents.members).hexdigest(),
            contents.digest,
            moment_text(at),
        ],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The newest seal of an institution, or one that was the newest when somebody wrote it down."""

    institution: str  # its code
    number: int
    mac: str

    def __str__(self) -> str:
        return f"{self.institution}:{self.number}:{self.mac}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError for anything but institution:number:mac."""
        institution, number, mac = text.strip().rsplit(":", 2)
        return cls(institution=institution, number=int(number), mac=mac)


async def newest_heads() -> list[Head]:
    """The newest seal of every institution that has one."""
    with across_institutions("an operator keeps all heads"):
        found = await rows(
            "SELECT DISTINCT ON (s.institution_id) i.code, s.number, s.mac FROM seal s"
            " JOIN institution i ON i.id = s.institution_id ORDER BY s.institution_id, s.number DESC"
        )
    heads = [Head(institution=row["code"], number=row["number"], mac=row["mac"]) for row in found]
    return sorted(heads, key=lambda head: head.institution)


@dataclass(frozen=True, slots=True)
class Seals:
    outside: Outside

    async def seal_due(self) -> list[Head]:
        """Seal what is settled and not sealed yet; the heads of the seals that we made, oldest first.

        Any number of programs may do this at once: of two seals with one number the database takes the first.
        At most SEALS_AT_ONCE_MAX at a time; after a long pause the rest follows with the next call.
        """
        settled = (self.outside.clock.now() - SETTLED_AFTER).replace(second=0, microsecond=0)
        made: list[Head] = []
        for _ in range(SEALS_AT_ONCE_MAX):
            due = await self._due(settled)
            if not due:
                break
            for row in due:
                head = await self._seal(row, settled)
                if head is not None:
                    made.append(head)
        return made

    async def _due(self, settled: datetime) -> list[dict[str, Any]]:
        """Institutions with transfers before `settled` that no seal holds, and the last seal of each."""
        with across_institutions("one task seals all institutions"):
            return await rows(
                """
                SELECT i.id, i.code, coalesce(s.number, 0) AS number, coalesce(s.until, $2) AS until,
                    coalesce(s.mac, '') AS mac
                FROM institution i LEFT JOIN LATERAL (
                    SELECT number, until, mac FROM seal WHERE institution_id = i.id ORDER BY number DESC LIMIT 1
                ) s ON true
                WHERE EXISTS (
                    SELECT FROM transfer t
                    WHERE t.institution_id = i.id AND t.at >= coalesce(s.until, $2) AND t.at < $1
                )
                """,
                settled,
                BEGINNING,
            )

    async def _seal(self, last: Mapping[str, Any], settled: datetime) -> Head | None:
        """The seal after `last`; None when somebody else has made it meanwhile."""
        institution_id, since = last["id"], last["until"]
        until = await self._end(institution_id, since, settled)
        found = await rows(
            "SELECT payment_id, seq, debit, credit, amount_fen, mac FROM transfer"
            " WHERE institution_id = $1 AND at >= $2 AND at < $3",
            institution_id,
            since,
            until,
        )
        contents = Contents.of(SealedTransfer(**row) for row in found)
        row_id, number, at = self.outside.ids.uuid(), last["number"] + 1, self.outside.clock.now()
        mac = seal_mac(
            ledger_key(self.outside.keyring),
            contents,
            row_id=row_id,
            institution_id=institution_id,
            number=number,
            since=since,
            until=until,
            previous_mac=last["mac"],
            at=at,
        )
        made = await rows(
            "INSERT INTO seal (id, institution_id, number, since, until, transfers, balances, members, digest,"
            " previous_mac, at, mac) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12)"
            " ON CONFLICT ON CONSTRAINT seal_in_turn DO NOTHING RETURNING id",
            row_id,
            institution_id,
            number,
            since,
            until,
            contents.transfers,
            json.dumps(contents.balances),
            contents.members,
            contents.digest,
            last["mac"],
            at,
            mac,
        )
        return Head(institution=last["code"], number=number, mac=mac) if made else None

    async def _end(self, institution_id: UUID, since: datetime, settled: datetime) -> datetime:
        """`settled`, or an earlier full minute, so that the seal stays of a bearable size."""
        beyond = await rows(
            "SELECT at FROM transfer WHERE institution_id = $1 AND at >= $2 AND at < $3 ORDER BY at OFFSET $4 LIMIT 1",
            institution_id,
            since,
            settled,
            TRANSFERS_MAX,
        )
        if not beyond:
            return settled
        minute: datetime = beyond[0]["at"].replace(second=0, microsecond=0)
        return minute if minute > since else minute + timedelta(minutes=1)
