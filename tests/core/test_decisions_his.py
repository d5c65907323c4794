"""What two people attest of a HIS that does not say what it took back, or has booked after all what it had refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tortoise.expressions import F

from core.actors import Actor, Role
from core.decision_kinds import DecisionKind, Proposal
from core.errors import ActionNotPossible, AlreadyDecided, InvalidRequest
from core.evidence import booking_evidence
from core.his_evidence import reversal_evidence
from core.models import Message, Payment, PaymentEvent, PaymentLine, Refund, StaffCase
from core.money import Fen
from core.ports import BillReceipt, Booking, Reversal
from core.states import LineStatus, ProofKind, RefundStatus
from tests.core.test_external_refunds import is_over, off, open_cases
from tests.support.house import House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, accounts, booked, given_back, request, staff

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(
        settings={"refund_approve_above_fen": 10_000, "refund_daily_cap_fen": 10_000, "merge": True}
    )


async def two(house: House) -> tuple[Actor, Actor]:
    return await staff(house, "2001", frozenset(Role)), await staff(house, "2002", frozenset(Role))


async def decide(house: House, people: tuple[Actor, Actor], kind: DecisionKind, number: str, **values: Any) -> None:
    wanted = Proposal(kind=kind, number=number, reason="与医院核对", document="医院的书面答复", **values)
    view = await house.services.decisions.propose(people[0], wanted, key=f"{kind} {number} {values}")
    await house.services.decisions.approve(people[1], view.decision_id)


# ---------------------------------------------------------------- reversals


async def silent_reversal(house: House, amount_fen: int | None = None) -> Refund:
    """Staff want money back, and the HIS never says whether it has taken the booking back."""
    payment, (line,) = await booked(house)
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, amount_fen))
    house.faults.rate("hospital.never_answers_reversal", 1.0)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    assert refund.status is RefundStatus.REVERSING_AT_HIS
    assert refund.his_sends_started > refund.his_sends_unreached
    assert await open_cases() == [("reversal_outcome_unknown", refund.refund_no)]
    return refund


async def test_a_reversal_that_the_his_never_tells_of_is_attested_and_paid(house: House, database: Database) -> None:
    refund = await silent_reversal(house)
    people = await two(house)
    with pytest.raises(InvalidRequest, match="their_number"):
        await decide(house, people, DecisionKind.REVERSAL_DONE, refund.refund_no, amount_fen=Fen(8650))
    with pytest.raises(ActionNotPossible, match="amount_differs"):
        await decide(
            house, people, DecisionKind.REVERSAL_DONE, refund.refund_no, amount_fen=Fen(8649), their_number="H1"
        )
    await decide(house, people, DecisionKind.REVERSAL_DONE, refund.refund_no, amount_fen=Fen(8650), their_number="H1")
    with pytest.raises(AlreadyDecided):
        await decide(house, people, DecisionKind.REVERSAL_KEPT, refund.refund_no)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.red_receipt_no) == (RefundStatus.REFUNDED, "H1")
    proof = await PaymentEvent.get(id=refund.his_proof_id)
    assert (proof.proves, proof.proof_kind, proof.source) == ("reversed", "staff_attested", "staff")
    await is_over(house, database, await Payment.get(id=refund.payment_id), back_fen=8650)


async def test_a_reversal_that_the_his_will_not_make_is_attested_once_nothing_is_on_its_way(
    house: House, database: Database
) -> None:
    refund = await silent_reversal(house, 3000)
    people = await two(house)
    await Refund.filter(id=refund.id).update(his_last_sent_at=house.clock.now())
    with pytest.raises(ActionNotPossible, match="too_early"):
        await decide(house, people, DecisionKind.REVERSAL_KEPT, refund.refund_no)
    house.clock.advance(HOUR)
    await decide(house, people, DecisionKind.REVERSAL_KEPT, refund.refund_no)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.due_at, refund.refusal_text) == (RefundStatus.DECLINED, None, "与医院核对")
    assert await open_cases() == []
    assert await off(database) == set()


async def test_a_reversal_of_another_amount_is_attested_as_it_was_and_just_that_goes_back(
    house: House, database: Database
) -> None:
    payment, (line,) = await booked(house)
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, 5000))
    house.faults.script("hospital.never_answers_reversal", times=50)
    await house.settle(within=timedelta(minutes=2))
    said = Reversal(reversed=True, red_receipt_no="H9", amounts_fen={line.his_bill_id: Fen(4999)})
    await house.services.applier.apply(reversal_evidence(payment.order_no, refund.refund_no, said))
    assert await open_cases() == [("reversal_differs", refund.refund_no)]
    people = await two(house)
    kind, values = DecisionKind.REVERSAL_DONE, {"amount_fen": Fen(4999)}
    with pytest.raises(ActionNotPossible, match="amount_differs"):  # that is not what the HIS said of it
        await decide(house, people, kind, refund.refund_no, their_number="H8", **values)
    await decide(house, people, kind, refund.refund_no, their_number="H9", **values)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    followed = await Refund.get(red_receipt_no="H9")
    assert (refund.status, refund.due_at) == (RefundStatus.DECLINED, None)
    assert (followed.status, followed.amount_fen, followed.origin) == (RefundStatus.REFUNDED, 4999, "hospital")
    assert (await house.lines(payment.order_no))[0].status is LineStatus.CONFIRMED
    await is_over(house, database, payment, back_fen=4999, kept_fen=3651)


async def test_one_red_receipt_is_not_attested_for_two_refunds(house: House) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    first = await request(house.services, clerk, payment, (line.id, 1000))
    await house.settle(within=HOUR)
    red_receipt_no = (await Refund.get(id=first.id)).red_receipt_no
    refund = await request(house.services, clerk, payment, (line.id, 1000))
    house.faults.rate("hospital.never_answers_reversal", 1.0)
    await house.settle(within=HOUR)
    people = await two(house)
    with pytest.raises(ActionNotPossible, match="number_used"):
        await decide(
            house,
            people,
            DecisionKind.REVERSAL_DONE,
            refund.refund_no,
            amount_fen=Fen(1000),
            their_number=red_receipt_no,
        )
    assert given_back(house, payment.order_no) == 1000
    assert (await accounts(payment))["his_confirmed"] == -7650


# ---------------------------------------------------------------- disputes


async def disputed(house: House) -> tuple[Payment, list[PaymentLine]]:
    """The HIS refuses both bills of a payment; before the money has left it has booked the first one after all."""
    payer = await house.payer()
    bills = [house.bill(), house.bill(total_fen=1200)]
    started = await house.start(
        payer, await house.bound(payer), bills[0], bills=tuple(("", bill) for bill in bills), shown_fen=Fen(9850)
    )
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm", times=2)
    house.faults.rate("wechatpay.not_reached", 1.0)
    await house.settle(within=timedelta(minutes=2))
    lines = await house.lines(started.order_no)
    assert {line.status for line in lines} == {LineStatus.RETURNING}
    receipt = BillReceipt(his_bill_id=lines[0].his_bill_id, receipt_no="S1")
    said = Booking(booked=True, receipts=(receipt,))
    await house.services.applier.apply(
        booking_evidence(started.order_no, lines[0].confirm_no, said, proof=ProofKind.AUTHENTICATED_QUERY)
    )
    house.faults.clear()
    await house.settle(within=HOUR)
    lines = await house.lines(started.order_no)
    assert [line.status for line in lines] == [LineStatus.DISPUTED, LineStatus.RETURNING]
    assert given_back(house, started.order_no) == 0
    return await house.payment(started.order_no), lines


async def test_one_person_pays_nothing_out_that_the_his_has_booked(house: House) -> None:
    payment, _ = await disputed(house)
    case = await StaffCase.get(kind="hospital_contradicts_itself")
    with pytest.raises(ActionNotPossible, match="disputed"):
        await house.services.case_work.resume((await two(house))[0], case.id)
    await house.settle(within=HOUR)
    assert given_back(house, payment.order_no) == 0


async def test_what_the_his_keeps_stays_paid_and_only_the_rest_goes_back(house: House, database: Database) -> None:
    payment, (line, _) = await disputed(house)
    people = await two(house)
    await decide(house, people, DecisionKind.BOOKING_STANDS, line.confirm_no)
    await house.settle(within=HOUR)
    line, other = await house.lines(payment.order_no)
    assert (line.status, line.receipt_no, line.reason_code) == (LineStatus.CONFIRMED, "S1", "")
    assert other.status is LineStatus.RETURNED
    refunds = [(refund.status, refund.amount_fen) for refund in await Refund.all().order_by("id")]
    assert refunds == [(RefundStatus.DEAD, 9850), (RefundStatus.REFUNDED, 1200)]
    assert await Message.filter(kind="paid", dedup_key=f"stands:{line.confirm_no}").count() == 1
    await is_over(house, database, payment, back_fen=1200, kept_fen=8650)
    with pytest.raises(AlreadyDecided):
        await decide(house, people, DecisionKind.BOOKING_UNDONE, line.confirm_no, their_number="H1")


async def test_what_the_his_has_undone_goes_back(house: House, database: Database) -> None:
    payment, (line, _) = await disputed(house)
    await decide(house, await two(house), DecisionKind.BOOKING_UNDONE, line.confirm_no, their_number="H1")
    await house.settle(within=HOUR)
    assert {line.status for line in await house.lines(payment.order_no)} == {LineStatus.RETURNED}
    await is_over(house, database, payment, back_fen=9850)


async def test_a_booking_does_not_stand_once_its_money_may_have_left(house: House) -> None:
    payment, (line, _) = await disputed(house)
    await Refund.all().update(sends_started=F("sends_started") + 1)
    with pytest.raises(ActionNotPossible, match="money_left"):
        await decide(house, await two(house), DecisionKind.BOOKING_STANDS, line.confirm_no)
    assert (await house.lines(payment.order_no))[0].status is LineStatus.DISPUTED


async def test_a_booking_does_not_stand_beside_another_one_of_its_bill(house: House) -> None:
    _, (line, _) = await disputed(house)
    house.his.bills[line.his_bill_id].cancelled = False
    payer = await house.payer("王小红", "19900000002")
    again = await house.start(payer, await house.bound(payer), line.his_bill_id)
    house.pay_sheet(again)
    await house.settle(within=HOUR)
    assert [each.status for each in await house.lines(again.order_no)] == [LineStatus.CONFIRMED]
    with pytest.raises(ActionNotPossible, match="bill_taken"):
        await decide(house, await two(house), DecisionKind.BOOKING_STANDS, line.confirm_no)
