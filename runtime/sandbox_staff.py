"""Ready members of staff of the sandbox: one who asks, one who decides, so that what takes two can be played."""

from __future__ import annotations

from uuid import UUID

from core.actors import Role
from core.staff import StaffService
from simulators.console.world import StaffMember

READY = (
    ("cashier", "收费员小钱", (Role.LOOK, Role.REQUEST_REFUND, Role.WORK_CASES, Role.ATTEST)),
    ("approver", "财务科孙主任", tuple(Role)),
)
"""Code, how the page calls him, and what he may do."""


async def ready_staff(people: StaffService, institution_id: UUID) -> tuple[StaffMember, ...]:
    """Enter them; their keys live as long as this sandbox."""
    return tuple(
        [
            StaffMember(code=code, title=title, key=await people.add(institution_id, code, title, roles))
            for code, title, roles in READY
        ]
    )
