"""Seals: what stood in an institution's ledger, minute by minute, each seal bound to the one before it.

A chain shows that a payment's transfers were changed; a seal shows that whole payments, or the last transfers of
some, are gone. The newest seal's mac, kept outside, shows that seals themselves are gone. A quiet minute makes
none: the next seal begins where the one before it ends, so a gap is always one.

The database gives each transfer its place in the ledger, and a seal is over a run of places: no clock decides what
is in it. Before it is made, whoever may hold a lower place and has not committed yet is waited for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from core.ledger import ledger_key, mac_of, moment_text
from core.outside import Outside
from core.tenancy import across_institutions
from core.transactions import rows

SEALED_EVERY = timedelta(minutes=1)
"""An institution gets no seal sooner after its last one, however many workers try."""

TRANSFERS_MAX = 20_000
"""A seal holds no more; what is left gets the next one at once."""

SEALS_AT_ONCE_MAX = 200
WRITERS_ASKED_MAX = 30
WRITERS_ASKED_EVERY_SECONDS = 0.1
"""Three seconds for transactions that last milliseconds; after that, the next time seals them."""

MEMBER_SEQ_BYTES = 4
MEMBER_BYTES = 16 + MEMBER_SEQ_BYTES


class SealedTransfer(NamedTuple):
    """A transfer, as far as a seal looks at it; a tuple, as millions of them are sorted and forgotten."""

    member: bytes
    place: int
    mac: str
    debit: str
    credit: str
    amount_fen: int


def member_of(payment_id_hex: str, seq: int) -> bytes:
    """A transfer's name: payment and number."""
    return bytes.fromhex(payment_id_hex) + seq.to_bytes(MEMBER_SEQ_BYTES, "big", signed=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a seal says of the transfers in it; the same for the same transfers in any order."""

    transfers: int
    balances: Mapping[str, int]  # account → fen, debits less credits
    members: bytes
    digest: str

    @classmethod
    def of(cls, transfers: Iterable[SealedTransfer]) -> Self:
        ordered = sorted(transfers)
        balances: Counter[str] = Counter()
        for transfer in ordered:
            balances[transfer.debit] += transfer.amount_fen
            balances[transfer.credit] -= transfer.amount_fen
        lines = [b"%s%d:%s" % (transfer.member, transfer.place, transfer.mac.encode()) for transfer in ordered]
        return cls(
            transfers=len(ordered),
            balances=dict(sorted(balances.items())),
            members=b"".join(transfer.member for transfer in ordered),
            digest=hashlib.sha256(b"".join(lines)).hexdigest(),
        )


def seal_mac(
    key: bytes,
    contents: Contents,
    *,
    row_id: UUID,
    institution_id: UUID,
    number: int,
    after_place: int,
    last_place: int,
    previous_mac: str,
    at: datetime,
) -> str:
    """What a seal must carry."""
    written = [
        "seal",
        previous_mac,
        row_id.hex,
        institution_id.hex,
        number,
        after_place,
        last_place,
        contents.transfers,
        json.dumps(dict(contents.balances), sort_keys=True),
        hashlib.sha256(contents.members).hexdigest(),
        contents.digest,
        moment_text(at),
    ]
    return mac_of(key, json.dumps(written).encode())


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
        """Seal what is committed and not sealed yet; the heads of the seals that we made, oldest first.

        Any number of programs may do this at once: of two seals with one number the database takes the first.
        At most SEALS_AT_ONCE_MAX of an institution at a time; after a long pause the rest follows with the next
        call. Nothing is sealed while a transaction that writes transfers does not end.
        """
        due = await self._due()
        if not due or not await _written():
            return []
        made: list[Head] = []
        for last in due:
            number, after_place, mac = last["number"], last["last_place"], last["mac"]
            for _ in range(SEALS_AT_ONCE_MAX):
                last_place = await _end(last["id"], after_place, last["newest"])
                number += 1
                head = await self._seal(last["id"], last["code"], number, (after_place, last_place), mac)
                if head is None:
                    break  # somebody else has made it meanwhile
                made.append(head)
                after_place, mac = last_place, head.mac
                if after_place == last["newest"]:
                    break
        return made

    async def _due(self) -> list[dict[str, Any]]:
        """Institutions with transfers that no seal holds, the newest place of those, and the last seal of each."""
        now = self.outside.clock.now()
        with across_institutions("one task seals all institutions"):
            return await rows(
                """
                SELECT i.id, i.code, coalesce(s.number, 0) AS number, coalesce(s.last_place, 0) AS last_place,
                    coalesce(s.mac, '') AS mac, t.newest
                FROM institution i
                LEFT JOIN LATERAL (
                    SELECT number, last_place, mac, at FROM seal
                    WHERE institution_id = i.id ORDER BY number DESC LIMIT 1
                ) s ON true
                CROSS JOIN LATERAL (
                    SELECT max(place) AS newest FROM transfer
                    WHERE institution_id = i.id AND place > coalesce(s.last_place, 0)
                ) t
                WHERE t.newest IS NOT NULL AND (s.at > $1 AND s.at <= $2) IS NOT TRUE
                """,
                now - SEALED_EVERY,
                now,
            )

    async def _seal(
        self, institution_id: UUID, code: str, number: int, places: tuple[int, int], previous_mac: str
    ) -> Head | None:
        """The seal over the places after the first one of `places` up to the second; None when there is one already."""
        after_place, last_place = places
        found = await rows(
            "SELECT payment_id, seq, place, mac, debit, credit, amount_fen FROM transfer"
            " WHERE institution_id = $1 AND place > $2 AND place <= $3",
            institution_id,
            after_place,
            last_place,
        )
        contents = Contents.of(
            SealedTransfer(
                member=member_of(row["payment_id"].hex, row["seq"]),
                place=row["place"],
                mac=row["mac"],
                debit=row["debit"],
                credit=row["credit"],
                amount_fen=row["amount_fen"],
            )
            for row in found
        )
        row_id, at = self.outside.ids.uuid(), self.outside.clock.now()
        mac = seal_mac(
            ledger_key(self.outside.keyring),
            contents,
            row_id=row_id,
            institution_id=institution_id,
            number=number,
            after_place=after_place,
            last_place=last_place,
            previous_mac=previous_mac,
            at=at,
        )
        made = await rows(
            "INSERT INTO seal (id, institution_id, number, after_place, last_place, transfers, balances, members,"
            " digest, previous_mac, at, mac) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12)"
            " ON CONFLICT ON CONSTRAINT seal_in_turn DO NOTHING RETURNING id",
            row_id,
            institution_id,
            number,
            after_place,
            last_place,
            contents.transfers,
            json.dumps(contents.balances),
            contents.members,
            contents.digest,
            previous_mac,
            at,
            mac,
        )
        return Head(institution=code, number=number, mac=mac) if made else None


async def _end(institution_id: UUID, after_place: int, newest: int) -> int:
    """The last place of the seal that begins after `after_place`."""
    found = await rows(
        "SELECT place FROM transfer WHERE institution_id = $1 AND place > $2 AND place <= $3"
        " ORDER BY place OFFSET $4 LIMIT 1",
        institution_id,
        after_place,
        newest,
        TRANSFERS_MAX - 1,
    )
    return int(found[0]["place"]) if found else newest


_WRITERS = """
SELECT DISTINCT virtualtransaction AS writer FROM pg_locks WHERE locktype = 'relation'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation = 'transfer'::regclass AND mode = 'RowExclusiveLock' AND granted
"""


async def _written() -> bool:
    """Wait until every place that has been given away is committed or given up; False when that takes too long.

    Who writes a transfer holds a lock on the table from before it gets its place until its transaction has ended
    and everybody sees the row. So whoever has a place lower than one that was seen before holds the lock now, or
    has ended.
    """
    waited_for = {row["writer"] for row in await rows(_WRITERS)}
    for _ in range(WRITERS_ASKED_MAX):
        if not waited_for:
            return True
        await asyncio.sleep(WRITERS_ASKED_EVERY_SECONDS)
        waited_for &= {row["writer"] for row in await rows(_WRITERS)}
    return not waited_for
