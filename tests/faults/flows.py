"""The flows through which every fault is led. A new one is an entry of FLOWS and a file in tests/faults/ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from core.consents import ConsentKind
from core.paper import PaperStage
from core.transactions import rows
from tests.faults.stage import Stage
from tests.support.house import ELDER, MCHID


class BookedLine(NamedTuple):
    id: UUID
    order_no: str


Flow = Callable[[Stage], Awaitable[None]]


async def single(stage: Stage) -> None:
    """One bill, paid on the phone."""
    await stage.pay(stage.bill())
    await stage.rest()


async def merged(stage: Stage) -> None:
    """Two bills of a visit in one payment; the HIS books each by itself."""
    await stage.pay(stage.bill(), stage.bill(total_fen=1200))
    await stage.rest()


async def paper(stage: Stage) -> None:
    """Somebody who has bound nobody scans the paper, shows that he may, and pays."""
    papers, payer, bill = stage.house.services.papers, stage.stranger, stage.bill()
    (site,) = await stage.house.services.institutions.sites(stage.house.institution_id)
    read = await papers.read(await papers.link(site, bill))
    person = stage.house.his.patients[ELDER]
    view = await stage.again(lambda: papers.look(read, payer))
    if view is not None and view.stage is PaperStage.CONSENT:
        await stage.house.services.consents.give(payer, ConsentKind.PERSONAL, version="1", way="h5")
    patient_id = await stage.again(lambda: papers.prove(read, payer, person.phones[0][-4:]))
    if patient_id is not None:
        await stage.pay(bill, payer=payer, patient_id=patient_id)
    await stage.rest()


async def cancel(stage: Stage) -> None:
    """The payer closes the pay sheet instead of paying."""
    if await stage.open_sheet(stage.bill()) is not None and stage.started is not None:
        order_no = stage.started.order_no
        cancelled = stage.house.services.payments.cancel
        await stage.again(lambda: cancelled(stage.payer.id, stage.house.institution_id, order_no))
    await stage.rest()


async def late(stage: Stage) -> None:
    """The payment is closed, and the channel lets it be paid all the same."""
    if await stage.open_sheet(stage.bill()) is not None and stage.started is not None:
        await stage.rest(within=timedelta(minutes=40))
        _revive(stage, stage.started.order_no)
        await stage.moment("paid")
    await stage.rest()


async def returned(stage: Stage) -> None:
    """The doctor takes the prescription back while it is being paid: the money goes back by itself."""
    bill = stage.bill()
    await stage.pay(bill)
    if not stage.house.his.bills[bill].booked and not stage.house.his.bills[bill].cancelled:
        stage.house.his.cancel(bill, force=True)
    await stage.rest()


async def staff_refund(stage: Stage) -> None:
    """The hospital gives a booked bill back: one person asks, another one approves, the HIS agrees, the money goes."""
    line = await _booked(stage)
    if line is not None:
        refunds, order_no = stage.house.services.staff_refunds, line.order_no
        parts = [(line.id, None, ())]
        refund = await stage.again(
            lambda: refunds.request(stage.clerk, order_no, parts, reason="药品未取", key=order_no)
        )
        if refund is not None:
            await stage.again(lambda: refunds.approve(stage.head, refund.refund_no))
    await stage.rest()


async def red_receipt(stage: Stage) -> None:
    """The cashier takes a booked bill back and leaves the money to us; the HIS tells us."""
    if await _booked(stage) is not None:
        stage.house.his.reverse_at_window(stage.bills[0], money_by="us_original_route")
    await stage.rest()


async def _booked(stage: Stage) -> BookedLine | None:
    """A bill paid on the phone, with no counterparty's fault on the way: those are for what follows."""
    with stage.aim.at_rest():
        await stage.pay(stage.bill())
        await stage.rest()
    found = await rows(
        "SELECT l.id, p.order_no FROM payment_line l JOIN payment p ON p.id = l.payment_id"
        " WHERE l.institution_id = $1 AND l.his_bill_id = $2 AND l.status = 'confirmed'",
        stage.house.institution_id,
        stage.bills[0],
    )
    return BookedLine(**found[0]) if found else None


def _revive(stage: Stage, order_no: str) -> None:
    """The channel lets a closed order be paid, whatever its documents say."""
    order = stage.house.pay.orders.get((MCHID, order_no))
    if order is None or order.paid_at is not None:
        return
    order.closed_at = None
    reference = stage.house.pay.references[order.current_reference]
    reference.valid_until = max(reference.valid_until, stage.house.clock.now() + timedelta(minutes=1))
    stage.house.pay.pay(order_no)


ALL = (single, merged, paper, cancel, late, returned, staff_refund, red_receipt)
FLOWS: Mapping[str, Flow] = {flow.__name__: flow for flow in ALL}
