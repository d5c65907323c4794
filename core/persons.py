"""One person on several accounts: a mini program, an official account. The platform's union id joins them."""

from __future__ import annotations

from uuid import UUID

from core.transactions import rows


async def lock_person(institution_id: UUID, payer_id: UUID) -> list[UUID]:
    """The same, locked until the transaction ends: consents and what rests on them change one at a time."""
    persons = await same_person(institution_id, payer_id)
    await rows(
        "SELECT id FROM payer WHERE institution_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE",
        institution_id,
        persons,
    )
    return persons


async def same_person(institution_id: UUID, payer_id: UUID) -> list[UUID]:
    """This payer and the payers who are known to be the same person, the payer first."""
    found = await rows(
        "SELECT p.id FROM payer me JOIN payer p ON p.institution_id = me.institution_id"
        " AND p.union_lookup = me.union_lookup AND p.union_lookup <> '' AND p.id <> me.id"
        " WHERE me.institution_id = $1 AND p.institution_id = $1 AND me.id = $2 ORDER BY p.id",
        institution_id,
        payer_id,
    )
    return [payer_id, *(row["id"] for row in found)]
