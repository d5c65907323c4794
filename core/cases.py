"""Work for staff: a case is opened once per subject, and closed by itself when the matter settles."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.models import StaffCase
from core.outside import Outside
from core.states import CaseStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

SETTLED_BY_ITSELF = "settled_by_itself"


@dataclass(frozen=True, slots=True)
class Cases:
    outside: Outside

    async def open(
        self,
        institution_id: UUID,
        kind: str,
        subject: str,
        *,
        payment_id: UUID | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a case unless one of this kind and subject is open; part of the caller's transaction."""
        await rows(
            "INSERT INTO staff_case (id, institution_id, kind, subject, payment_id, details, status, opened_at,"
            " closed_reason, note) VALUES ($1, $2, $3, $4, $5, $6::jsonb, 'open', $7, '', '')"
            " ON CONFLICT DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            institution_id,
            kind,
            subject,
            payment_id,
            _json(details or {}),
            self.outside.clock.now(),
        )

    async def open_while(
        self,
        institution_id: UUID,
        kind: str,
        subject: str,
        *,
        table: str,
        row_id: UUID,
        statuses: Collection[str],
        payment_id: UUID | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a case about a row, provided that it still is in one of these states; a transaction of its own.

        The row is locked, and whoever moves it on settles its cases after that, in the same transaction: whatever the
        order of the two, no case stays open about a matter that has ended.
        """

        async def write() -> None:
            found = await rows(
                f"SELECT id FROM {table} WHERE institution_id = $1 AND id = $2 AND status = ANY ($3::text[])"
                " FOR NO KEY UPDATE",
                institution_id,
                row_id,
                [str(status) for status in statuses],
            )
            if found:
                await self.open(institution_id, kind, subject, payment_id=payment_id, details=details)

        await atomically(write)

    async def settle(self, institution_id: UUID, kinds: tuple[str, ...], subject: str) -> None:
        """Close open cases whose matter has settled without anybody's help."""
        await scoped(institution_id).change(
            StaffCase,
            {"kind": kinds, "subject": subject, "status": CaseStatus.OPEN},
            status=CaseStatus.CLOSED,
            closed_at=self.outside.clock.now(),
            closed_reason=SETTLED_BY_ITSELF,
        )

    async def settle_of_payment(self, institution_id: UUID, kinds: tuple[str, ...], payment_id: UUID) -> None:
        """The same for all of a payment, whatever their subjects."""
        await scoped(institution_id).change(
            StaffCase,
            {"kind": kinds, "payment_id": payment_id, "status": CaseStatus.OPEN},
            status=CaseStatus.CLOSED,
            closed_at=self.outside.clock.now(),
            closed_reason=SETTLED_BY_ITSELF,
        )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, default=str)
