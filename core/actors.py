"""Who acts on behalf of the hospital, and what he may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from core.errors import NotAllowed


class Role(StrEnum):
    """What a member of staff may do at his institution; nobody may do more than he needs."""

    LOOK = "look"  # payments and cases, without personal data beyond need
    REQUEST_REFUND = "request_refund"
    APPROVE_REFUND = "approve_refund"
    WORK_CASES = "work_cases"
    ATTEST = "attest"  # proposes or decides what only a document proves


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """One member of staff at one institution, proven."""

    staff_id: UUID
    institution_id: UUID
    code: str
    roles: frozenset[Role]

    def require(self, role: Role) -> None:
        """Raises NotAllowed."""
        if role not in self.roles:
            raise NotAllowed(role=role.value)
