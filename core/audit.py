"""What members of staff did: written with the deed, in one transaction, and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.actors import Actor, Role
from core.models import AuditEntry
from core.models.fields import OUTSIDE_ID_LENGTH_MAX
from core.outside import Outside
from core.paging import Page, Place, page_of
from core.scrubbing import scrub, storable
from core.transactions import rows

ACTION_LENGTH_MAX = 48
DETAIL_LENGTH_MAX = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditView:
    """One entry, and by which code his colleagues know who did it."""

    id: UUID
    at: datetime
    staff_code: str
    action: str
    subject: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Audit:
    outside: Outside

    async def write(self, actor: Actor, action: str, subject: str, details: Mapping[str, Any] | None = None) -> None:
        """Part of the caller's transaction: there is no deed without its entry, and no entry without its deed.

        `subject` is a number of ours or a row's id; `details` carry what was decided, never names or phones.
        """
        await AuditEntry.create(
            id=self.outside.ids.uuid(),
            institution_id=actor.institution_id,
            staff_id=actor.staff_id,
            action=action[:ACTION_LENGTH_MAX],
            subject=subject[:OUTSIDE_ID_LENGTH_MAX],
            details=storable(scrub(dict(details or {})), length_max=DETAIL_LENGTH_MAX),
            at=self.outside.clock.now(),
        )

    async def list(
        self, actor: Actor, *, subject: str = "", before: Place | None = None, limit: int
    ) -> Page[AuditView]:
        """The newest first; `subject` narrows to one number. Raises NotAllowed."""
        actor.require(Role.LOOK)
        found = await rows(
            "SELECT a.id, a.at, s.code AS staff_code, a.action, a.subject, a.details"
            " FROM audit_entry a JOIN staff s ON s.institution_id = $1 AND s.id = a.staff_id"
            " WHERE a.institution_id = $1 AND ($2 = '' OR a.subject = $2)"
            " AND ($3::timestamptz IS NULL OR (a.at, a.id) < ($3, $4::uuid))"
            " ORDER BY a.at DESC, a.id DESC LIMIT $5",
            actor.institution_id,
            subject,
            before.at if before else None,
            before.id if before else None,
            limit + 1,
        )
        return page_of([_view(row) for row in found], limit, lambda entry: Place(entry.at, entry.id))

    async def about(self, actor: Actor, subjects: Sequence[str], *, limit: int) -> Sequence[AuditView]:
        """What was done with any of these numbers, the newest first. Raises NotAllowed."""
        actor.require(Role.LOOK)
        found = await rows(
            "SELECT a.id, a.at, s.code AS staff_code, a.action, a.subject, a.details"
            " FROM audit_entry a JOIN staff s ON s.institution_id = $1 AND s.id = a.staff_id"
            " WHERE a.institution_id = $1 AND a.subject = ANY($2::text[]) ORDER BY a.at DESC, a.id DESC LIMIT $3",
            actor.institution_id,
            [*subjects],
            limit,
        )
        return [_view(row) for row in found]


def _view(row: Mapping[str, Any]) -> AuditView:
    return AuditView(**{**row, "details": json.loads(row["details"])})
