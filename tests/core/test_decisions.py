"""What takes two: proposed with a document by one, decided by another, done once, by the rules of all evidence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from core.actors import Actor, Role
from core.decision_kinds import DecisionKind, Proposal
from core.errors import (
    ActionNotPossible,
    AlreadyDecided,
    IdempotencyConflict,
    InvalidRequest,
    NeedsAnother,
    NotAllowed,
    NotFound,
)
from core.evidence import Evidence
from core.models import AuditEntry, Confirmation, Decision, PaymentEvent, Refund, StaffCase, Transfer
from core.money import Fen
from core.payment_files import balances_of
from core.payments import Started
from core.states import CaseStatus, DecisionStatus, LineStatus, PaymentStatus, ProofKind, RefundStatus
from tests.support.house import House

DOCUMENT = "微信支付商户后台截图：交易单号 4200001，支付成功 86.50"


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def staff(house: House, code: str, *roles: Role) -> Actor:
    key = await house.services.staff.add(house.institution_id, code, f"员工{code}", roles or tuple(Role))
    return await house.services.staff.authenticate(key)


async def two(house: House) -> tuple[Actor, Actor]:
    return await staff(house, "1001"), await staff(house, "1002")


async def started(house: House, total_fen: int = 8650) -> Started:
    payer = await house.payer()
    return await house.start(payer, await house.bound(payer), house.bill(total_fen=total_fen))


def proposal(kind: DecisionKind, number: str, house: House, **changes: Any) -> Proposal:
    values: dict[str, Any] = {
        "kind": kind,
        "number": number,
        "reason": "渠道一直无答复",
        "document": DOCUMENT,
        "amount_fen": Fen(8650),
        "their_number": "4200001",
        "at": house.clock.now(),
        **changes,
    }
    return Proposal(**values)


async def decided(house: House, wanted: Proposal, first: Actor, second: Actor) -> None:
    view = await house.services.decisions.propose(first, wanted, key="k1")
    assert (await house.services.decisions.approve(second, view.decision_id)).status == "approved"


async def takes(house: House, order_no: str, paid_fen: int) -> None:
    """The channel says that it took this much."""
    facts = {
        "ever_paid": True,
        "paid_fen": paid_fen,
        "paid_at": house.clock.now().isoformat(),
        "channel_trade_no": "T1",
    }
    await house.services.applier.apply(
        Evidence(
            order_no=order_no,
            kind="trade",
            source="wechatpay",
            proves="paid",
            proof_kind=ProofKind.VERIFIED_NOTICE,
            facts=facts,
        )
    )


async def balances(house: House, order_no: str) -> dict[str, int]:
    payment = await house.payment(order_no)
    found = balances_of(await Transfer.filter(institution_id=house.institution_id, payment_id=payment.id))
    return {account: amount for account, amount in found.items() if amount}


# ---------------------------------------------------------------- attested


async def test_what_two_attest_as_paid_is_booked_like_any_payment(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    view = await house.services.decisions.propose(first, proposal(DecisionKind.PAYMENT_PAID, order_no, house), key="k1")
    assert (await house.payment(order_no)).status is PaymentStatus.PENDING
    with pytest.raises(NeedsAnother):
        await house.services.decisions.approve(first, view.decision_id)
    done = await house.services.decisions.approve(second, view.decision_id)
    assert (done.status, done.proposed_by, done.decided_by) == ("approved", "1001", "1002")
    payment = await house.payment(order_no)
    assert (payment.status, payment.paid_fen, payment.channel_trade_no) == (PaymentStatus.PAID, 8650, "4200001")
    proof = await PaymentEvent.get(institution_id=house.institution_id, id=payment.proof_id)
    assert (proof.proof_kind, proof.source, proof.facts["decision"]) == (
        "staff_attested",
        "staff",
        str(view.decision_id),
    )
    assert (await house.services.decisions.approve(second, view.decision_id)).status == "approved"  # twice is once
    await house.settle(within=timedelta(minutes=5))
    assert {line.status for line in await house.lines(order_no)} == {LineStatus.CONFIRMED}
    actions = [entry.action for entry in await AuditEntry.filter(institution_id=house.institution_id).order_by("id")]
    assert sorted(actions) == ["decision_approved", "decision_proposed"]
    stored = await Decision.get(institution_id=house.institution_id, id=view.decision_id)
    assert "4200001，支付成功" not in stored.document_enc
    assert await house.services.decisions.document(second, view.decision_id) == DOCUMENT
    assert await AuditEntry.filter(institution_id=house.institution_id, action="document_read").count() == 1


async def test_paid_beats_what_was_attested_as_closed(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    await decided(house, proposal(DecisionKind.PAYMENT_CLOSED, order_no, house), first, second)
    assert (await house.payment(order_no)).status is PaymentStatus.CLOSED
    await takes(house, order_no, 8650)
    assert (await house.payment(order_no)).status is PaymentStatus.PAID
    with pytest.raises(AlreadyDecided):
        await house.services.decisions.propose(first, proposal(DecisionKind.PAYMENT_CLOSED, order_no, house), key="k2")


async def test_an_attested_amount_that_was_not_asked_is_held(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    await decided(house, proposal(DecisionKind.PAYMENT_PAID, order_no, house, amount_fen=Fen(8651)), first, second)
    assert {line.status for line in await house.lines(order_no)} == {LineStatus.HELD}
    assert await balances(house, order_no) == {"channel_receivable": -8651, "held": 8651}


async def test_a_booking_is_attested_with_its_receipt_and_refused_only_when_nothing_is_on_its_way(
    house: House,
) -> None:
    first, second = await two(house)
    start = await started(house)
    house.faults.script("hospital.answer_lost", times=50)
    house.pay_sheet(start)
    await house.settle(within=timedelta(seconds=40))
    (confirmation,) = await Confirmation.filter(institution_id=house.institution_id)
    assert confirmation.status == "open"
    assert confirmation.last_sent_at is not None
    rejected = proposal(DecisionKind.BOOKING_REJECTED, confirmation.confirm_no, house)
    with pytest.raises(ActionNotPossible, match="too_early"):
        await house.services.decisions.propose(first, rejected, key="k0")
    confirmed = proposal(DecisionKind.BOOKING_CONFIRMED, confirmation.confirm_no, house, their_number="S0099")
    await decided(house, confirmed, first, second)
    (line,) = await house.lines(start.order_no)
    assert (line.status, line.receipt_no) == (LineStatus.CONFIRMED, "S0099")
    house.clock.advance(timedelta(hours=1))
    with pytest.raises(AlreadyDecided):
        await house.services.decisions.propose(first, rejected, key="k3")


async def test_a_refund_is_attested_at_its_amount(house: House) -> None:
    first, second = await two(house)
    start = await started(house)
    house.pay_sheet(start)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_abnormal")
    await house.settle(within=timedelta(hours=1))
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert refund.status is RefundStatus.STUCK
    house.clock.advance(timedelta(minutes=5))
    other = proposal(DecisionKind.REFUND_REFUNDED, refund.refund_no, house, amount_fen=Fen(1))
    with pytest.raises(ActionNotPossible, match="amount_differs"):
        await house.services.decisions.propose(first, other, key="k0")
    await decided(house, proposal(DecisionKind.REFUND_REFUNDED, refund.refund_no, house), first, second)
    assert {line.status for line in await house.lines(start.order_no)} == {LineStatus.RETURNED}
    assert await balances(house, start.order_no) == {}
    assert await StaffCase.filter(institution_id=house.institution_id, status=CaseStatus.OPEN).count() == 0


# ---------------------------------------------------------------- money of another amount


async def test_more_than_was_asked_can_be_booked_and_the_rest_goes_back(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    await takes(house, order_no, 9000)
    wanted = proposal(DecisionKind.BOOK_ANYWAY, order_no, house, amount_fen=None, at=None)
    await decided(house, wanted, first, second)
    found = await balances(house, order_no)
    assert found == {"channel_receivable": -9000, "awaiting_his": 8650, "refund_payable": 350}
    (refund,) = await Refund.filter(institution_id=house.institution_id)
    assert (refund.amount_fen, refund.status) == (350, RefundStatus.APPROVED)
    assert await StaffCase.filter(institution_id=house.institution_id, status=CaseStatus.OPEN).count() == 0


async def test_less_than_was_asked_can_only_go_back(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    await takes(house, order_no, 8000)
    book = proposal(DecisionKind.BOOK_ANYWAY, order_no, house, amount_fen=None, at=None)
    with pytest.raises(ActionNotPossible, match="too_little"):
        await house.services.decisions.propose(first, book, key="k0")
    await decided(house, proposal(DecisionKind.RETURN_NOW, order_no, house, amount_fen=None, at=None), first, second)
    assert await balances(house, order_no) == {"channel_receivable": -8000, "refund_payable": 8000}
    assert {line.status for line in await house.lines(order_no)} == {LineStatus.RETURNING}


async def test_a_bill_that_somebody_else_has_booked_is_not_booked_again(house: House) -> None:
    first, second = await two(house)
    payer = await house.payer()
    patient, bill = await house.bound(payer), house.bill()
    held = await house.start(payer, patient, bill)
    await takes(house, held.order_no, 9000)
    await house.step()  # what the HIS held for it is given back
    again = await house.start(payer, patient, bill)
    house.pay_sheet(again)
    await house.settle(within=timedelta(minutes=5))
    assert {line.status for line in await house.lines(again.order_no)} == {LineStatus.CONFIRMED}
    wanted = proposal(DecisionKind.BOOK_ANYWAY, held.order_no, house, amount_fen=None, at=None)
    view = await house.services.decisions.propose(first, wanted, key="k1")
    with pytest.raises(ActionNotPossible, match="bill_taken"):
        await house.services.decisions.approve(second, view.decision_id)
    assert (await balances(house, held.order_no))["held"] == 9000
    assert (await house.services.decisions.show(first, view.decision_id)).status == "proposed"


# ---------------------------------------------------------------- red receipts above the day's cap


async def above_the_cap(house: House) -> tuple[Started, Refund]:
    """Booked, taken back at the window, and more than the institution lets go in a day."""
    start = await started(house)
    house.pay_sheet(start)
    await house.settle(within=timedelta(minutes=5))
    (line,) = await house.lines(start.order_no)
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle(within=timedelta(minutes=5))
    refund = await Refund.get(institution_id=house.institution_id)
    assert refund.status is RefundStatus.REQUESTED
    return start, refund


@pytest.mark.parametrize(
    ("kind", "status", "left"),
    [
        (DecisionKind.RELEASE_REFUND, RefundStatus.REFUNDED, {}),
        (DecisionKind.KEEP_REFUND, RefundStatus.DECLINED, {"channel_receivable": -8650, "his_confirmed": 8650}),
    ],
)
async def test_two_decide_what_red_receipts_want_above_the_daily_cap(
    tortoise: object, kind: DecisionKind, status: RefundStatus, left: dict[str, int]
) -> None:
    house = await House.build(settings={"refund_daily_cap_fen": 100})
    first, second = await two(house)
    start, refund = await above_the_cap(house)
    cases = await house.services.case_work.list(first, kind="refund_above_daily_cap", limit=9)
    assert [view.subject for view in cases.items] == [refund.refund_no]
    await decided(house, proposal(kind, refund.refund_no, house, amount_fen=None, at=None), first, second)
    await house.settle(within=timedelta(days=3))
    assert (await Refund.get(institution_id=house.institution_id)).status is status
    assert await balances(house, start.order_no) == left
    assert await StaffCase.filter(institution_id=house.institution_id, status=CaseStatus.OPEN).count() == 0
    with pytest.raises(AlreadyDecided):
        await house.services.decisions.propose(
            first, proposal(DecisionKind.RELEASE_REFUND, refund.refund_no, house), key="k9"
        )


# ---------------------------------------------------------------- who, how often, how many at once


async def test_the_same_click_is_one_proposal_and_another_one_is_refused(house: House) -> None:
    first, second = await two(house)
    order_no = (await started(house)).order_no
    wanted = proposal(DecisionKind.PAYMENT_PAID, order_no, house)
    propose = house.services.decisions.propose
    one, other = await asyncio.gather(propose(first, wanted, key="k"), propose(first, wanted, key="k"))
    assert one.decision_id == other.decision_id
    with pytest.raises(IdempotencyConflict):
        await propose(first, proposal(DecisionKind.PAYMENT_PAID, order_no, house, amount_fen=Fen(1)), key="k")
    with pytest.raises(ActionNotPossible, match="proposed_already"):
        await propose(second, wanted, key="k")
    assert [view.decision_id for view in (await house.services.decisions.open(second, limit=9)).items] == [
        one.decision_id
    ]
    assert (await house.services.decisions.decline(first, one.decision_id)).status == "declined"
    with pytest.raises(AlreadyDecided):
        await house.services.decisions.approve(second, one.decision_id)
    assert (await house.payment(order_no)).status is PaymentStatus.PENDING


async def test_many_who_decide_at_once_have_one_effect(house: House) -> None:
    first = await staff(house, "1001")
    others = [await staff(house, f"20{number:02}") for number in range(6)]
    order_no = (await started(house)).order_no
    view = await house.services.decisions.propose(first, proposal(DecisionKind.PAYMENT_PAID, order_no, house), key="k")
    results = await asyncio.gather(
        *(
            (house.services.decisions.approve if number % 2 else house.services.decisions.decline)(
                actor, view.decision_id
            )
            for number, actor in enumerate(others)
        ),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert {type(result) for result in results if isinstance(result, BaseException)} == {AlreadyDecided}
    stored = await Decision.get(institution_id=house.institution_id, id=view.decision_id)
    attested = await PaymentEvent.filter(institution_id=house.institution_id, proof_kind="staff_attested").count()
    assert attested == (1 if stored.status is DecisionStatus.APPROVED else 0)
    assert await AuditEntry.filter(institution_id=house.institution_id).count() == 2


async def test_it_takes_the_role_and_the_institution(house: House) -> None:
    first, second = await two(house)
    looker = await staff(house, "1003", Role.LOOK, Role.WORK_CASES, Role.APPROVE_REFUND)
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    stranger = await house.services.staff.authenticate(
        await house.services.staff.add(other, "1001", "别人", tuple(Role))
    )
    order_no = (await started(house)).order_no
    wanted = proposal(DecisionKind.PAYMENT_PAID, order_no, house)
    with pytest.raises(NotAllowed):
        await house.services.decisions.propose(looker, wanted, key="k")
    with pytest.raises(NotFound):
        await house.services.decisions.propose(stranger, wanted, key="k")
    view = await house.services.decisions.propose(first, wanted, key="k")
    for act in (house.services.decisions.approve, house.services.decisions.decline, house.services.decisions.document):
        with pytest.raises(NotAllowed):
            await act(looker, view.decision_id)
        with pytest.raises(NotFound):
            await act(stranger, view.decision_id)
    assert (await house.services.decisions.open(stranger, limit=9)).items == []
    assert (await house.services.decisions.show(second, view.decision_id)).order_no == order_no


def test_a_proposal_says_what_its_document_shows() -> None:
    good: dict[str, Any] = {"kind": DecisionKind.PAYMENT_CLOSED, "number": "P1", "reason": "r", "document": "d"}
    Proposal(**good)
    for wrong in (
        {"document": " "},
        {"document": "d" * 20_001},
        {"reason": ""},
        {"kind": DecisionKind.PAYMENT_PAID},
        {"kind": DecisionKind.BOOKING_CONFIRMED},
        {"amount_fen": Fen(0)},
        {"their_number": "x" * 65},
    ):
        with pytest.raises(InvalidRequest):
            Proposal(**{**good, **wrong})
