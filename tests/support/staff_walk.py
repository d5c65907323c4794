"""Everything that members of staff can do, once: for tests that watch what is asked of the database."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from core.actors import Actor, Role
from core.decision_kinds import DecisionKind, Proposal
from core.errors import ActionNotPossible
from core.models import Payer
from core.money import Fen
from core.states import LineStatus
from tests.support.house import House


async def _two(house: House) -> tuple[Actor, Actor]:
    people, here = house.services.staff, house.institution_id
    await people.add(here, "2001", "钱会计", [Role.LOOK])
    await people.set_roles(here, "2001", tuple(Role))
    first = await people.authenticate(await people.new_key(here, "2001"))
    second = await people.authenticate(await people.add(here, "2002", "孙主任", tuple(Role)))
    assert {view.code for view in await people.members(here)} >= {"2001", "2002"}
    return first, second


async def walk_staff(house: House, payer: Payer, patient: UUID) -> None:
    """A case is looked into, asked about, decided by two and closed; then somebody leaves."""
    services, here = house.services, house.institution_id
    first, second = await _two(house)
    started = await house.start(payer, patient, house.bill(total_fen=400))
    payment = await house.payment(started.order_no)
    await services.cases.open(here, "payment_outcome_unknown", started.order_no, payment_id=payment.id)
    assert (await services.case_work.counts(first))["payment_outcome_unknown"] == 1
    (case,) = (await services.case_work.list(first, kind="payment_outcome_unknown", limit=9)).items
    await services.case_work.ask_now(first, case.case_id)

    paid = Proposal(
        kind=DecisionKind.PAYMENT_PAID,
        number=started.order_no,
        reason="没有答复",
        document="后台截图",
        amount_fen=Fen(400),
        their_number="T400",
        at=house.clock.now(),
    )
    declined = await services.decisions.propose(first, paid, key="a", case_id=case.case_id)
    assert await services.decisions.document(second, declined.decision_id) == "后台截图"
    await services.decisions.decline(second, declined.decision_id)
    proposed = await services.decisions.propose(first, paid, key="b")
    assert len((await services.decisions.open(second, limit=9)).items) == 1
    await services.decisions.approve(second, proposed.decision_id)
    assert (await services.decisions.show(first, proposed.decision_id)).status == "approved"
    assert len(await services.decisions.of_payment(first, payment.id)) == 2
    await house.settle(within=timedelta(minutes=5))
    assert {line.status for line in await house.lines(started.order_no)} == {LineStatus.CONFIRMED}

    assert (await services.case_work.show(first, case.case_id)).case.status == "closed"
    assert len(await services.payment_files.find(first, started.order_no)) == 1
    shown = await services.payment_files.of(await services.payment_files.payment(first, started.order_no))
    assert shown == await services.payment_files.by_order(first, started.order_no)
    assert await services.payment_files.raw(first, next(event.event_id for event in shown.evidence if event.has_raw))
    await services.cases.open(here, "contradicting_evidence", started.order_no, payment_id=payment.id)
    (odd,) = (await services.case_work.list(first, kind="contradicting_evidence", limit=9)).items
    with pytest.raises(ActionNotPossible):
        await services.case_work.resume(first, odd.case_id)
    await services.case_work.close(first, odd.case_id, "已核对")
    await services.audit.write(first, "looked", started.order_no)
    assert (await services.audit.list(first, limit=9)).items
    assert await services.audit.about(first, [started.order_no], limit=9)
    await services.staff.deactivate(here, "2001")
