"""What staff did stands beside the deed, whole or not at all, and is read page by page."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from core.actors import Actor, Role
from core.audit import Audit, AuditView
from core.errors import InvalidRequest, NotAllowed
from core.models import Staff
from core.paging import place_from
from core.transactions import atomically
from tests.support.house import House


async def somebody(house: House, *roles: Role, code: str = "1001") -> Actor:
    staff = await Staff.create(
        id=uuid4(),
        institution_id=house.institution_id,
        code=code,
        roles=[role.value for role in roles],
        created_at=house.clock.now(),
    )
    return Actor(staff_id=staff.id, institution_id=house.institution_id, code=code, roles=frozenset(roles))


async def test_entries_are_read_newest_first_and_page_by_page(tortoise: object) -> None:
    house = await House.build()
    audit = Audit(house.services.outside)
    actor = await somebody(house, Role.LOOK)
    for number in range(5):
        await audit.write(
            actor, "looked", f"P{number}", {"number": number, "name": "王小明", "note": "电话13812345678"}
        )
        house.clock.advance(timedelta(seconds=number % 2))
    seen: list[AuditView] = []
    place = None
    while True:
        page = await audit.list(actor, before=place, limit=2)
        seen += page.items
        if page.next is None:
            break
        place = place_from(str(page.next), "before")
    assert sorted(entry.subject for entry in seen) == ["P0", "P1", "P2", "P3", "P4"]
    assert [entry.at for entry in seen] == sorted((entry.at for entry in seen), reverse=True)
    assert seen[0].details == {"number": 4, "name": "***", "note": "电话***"}
    assert seen[0].staff_code == "1001"
    assert [entry.subject for entry in (await audit.list(actor, subject="P3", limit=9)).items] == ["P3"]


async def test_an_entry_goes_with_a_deed_that_failed(tortoise: object) -> None:
    house = await House.build()
    audit = Audit(house.services.outside)
    actor = await somebody(house, Role.LOOK)

    async def deed() -> None:
        await audit.write(actor, "looked", "P1")
        raise RuntimeError("the deed fails")

    with pytest.raises(RuntimeError):
        await atomically(deed)
    assert (await audit.list(actor, limit=9)).items == []


async def test_who_may_not_look_reads_no_audit(tortoise: object) -> None:
    house = await House.build()
    with pytest.raises(NotAllowed):
        await Audit(house.services.outside).list(await somebody(house, Role.ATTEST), limit=9)


@pytest.mark.parametrize("text", ["x", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00_" + "0" * 32, "_"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        place_from(text, "before")
