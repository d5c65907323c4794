"""Who pays a bill that somebody is paying already: another set of bills, a relative, the window, two at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.due import begin_send, take
from core.errors import AlreadyPaid, BillNotPayable, PaymentOpenElsewhere, StillWorking
from core.models import HisLock, Message, Payer, Payment, PaymentLine, Refund, StaffCase
from core.money import Fen
from core.payments import Started
from core.ports import MessageKind
from core.states import LineStatus, LockStatus, PaymentStatus
from core.telling import TOLD_TOGETHER_WITHIN, Telling
from core.transactions import atomically
from tests.core.test_story_ends import paid_evidence
from tests.core.test_story_messages import poll
from tests.support.house import House

SOON = timedelta(minutes=4)
"""Before the first attempt's pay sheet ends by itself."""


@pytest.fixture
def his() -> dict[str, Any]:
    return {}


@pytest.fixture
async def house(tortoise: object, his: dict[str, Any]) -> House:
    return await House.build(settings={"merge": True}, **his)


class Family:
    """A patient, and two people who have bound him."""

    def __init__(self, house: House, patient: UUID, first: Payer, second: Payer) -> None:
        self.house, self.patient, self.first, self.second = house, patient, first, second

    @classmethod
    async def of(cls, house: House) -> Family:
        first, second = await house.payer(), await house.payer("王小红", "19900000001")
        patient = await house.bound(first)
        assert await house.bound(second) == patient
        return cls(house, patient, first, second)

    def bills(self, *amounts: int) -> list[str]:
        return [self.house.bill(total_fen=fen, items=[("费用", fen)]) for fen in amounts]

    async def start(self, payer: Payer, *bills: str, **changes: Any) -> Started:
        shown = Fen(sum(self.house.his.bills[bill].to_pay_fen for bill in bills))
        keys = tuple(("", bill) for bill in bills)
        return await self.house.start(payer, self.patient, bills[0], bills=keys, shown_fen=shown, **changes)

    def booked(self, *bills: str) -> list[int]:
        books = self.house.his.books()["bills"]
        return [sum(one["paid_by"] == "mobile" for one in books[bill]["bookings"]) for bill in bills]

    async def statuses(self, started: Started) -> dict[str, LineStatus]:
        return {line.his_bill_id: line.status for line in await self.house.lines(started.order_no)}


async def told(house: House, started: Started) -> list[tuple[str, int, dict[str, int]]]:
    """What the payer was told of how the payment's bills have ended: kind, fen, and of how many bills what."""
    payment = await house.payment(started.order_no)
    said = []
    for message in await Message.filter(payment_id=payment.id, dedup_key__startswith="told:").order_by("created_at"):
        values = house.services.outside.keyring.decrypt_json(message.values_enc, place="message.values")
        said.append(
            (message.kind, values["amount_fen"], {n: values[n] for n in ("refused", "booked", "waiting", "of")})
        )
    return said


@pytest.mark.parametrize("who", ["the same person", "a relative"])
async def test_another_set_of_bills_ends_the_first_attempt_and_frees_what_it_held(house: House, who: str) -> None:
    family = await Family.of(house)
    one, two, three = family.bills(1000, 250, 33)
    other = family.first if who == "the same person" else family.second
    first = await family.start(family.first, one, two)
    second = await family.start(other, two, three)
    assert house.pay_sheet(first) == "closed"
    assert (await house.payment(first.order_no)).status is PaymentStatus.CLOSED
    held = await HisLock.filter(status=LockStatus.HELD)
    assert {lock.confirm_no for lock in held} == {line.confirm_no for line in await house.lines(second.order_no)}
    assert house.his.books()["bills"][one]["locked_by"] == ""
    third = await family.start(family.first, one)
    assert (house.pay_sheet(second), house.pay_sheet(third)) == ("paid", "paid")
    await house.settle()
    assert family.booked(one, two, three) == [1, 1, 1]
    assert await Refund.all().count() == 0
    assert await StaffCase.all().count() == 0


async def test_the_same_bills_in_another_order_are_the_same_payment_for_one_person_alone(house: House) -> None:
    family = await Family.of(house)
    one, two = family.bills(1000, 250)
    first = await family.start(family.first, one, two)
    again = await family.start(family.first, two, one)
    assert (again.order_no, again.pay, again.resumed) == (first.order_no, first.pay, True)
    other = await family.start(family.second, two, one)
    assert other.order_no != first.order_no
    assert house.pay_sheet(first) == "closed"
    assert house.pay_sheet(other) == "paid"
    with pytest.raises(AlreadyPaid):
        await family.start(family.first, one)
    await house.settle()
    assert family.booked(one, two) == [1, 1]


async def test_two_people_merge_the_same_bills_crosswise_at_once(house: House) -> None:
    family = await Family.of(house)
    one, two = family.bills(1000, 250)
    outcomes = await asyncio.gather(
        *(family.start(who, *bills) for who in (family.first, family.second) for bills in ((one, two), (two, one))),
        return_exceptions=True,
    )
    started = {outcome.order_no: outcome for outcome in outcomes if isinstance(outcome, Started)}
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Started)]
    # Whoever was first may learn that the other has ended his attempt while it was being made.
    assert {type(outcome) for outcome in refused} <= {StillWorking, PaymentOpenElsewhere, BillNotPayable}
    assert {one.values["reason"] for one in refused if isinstance(one, BillNotPayable)} <= {"busy"}
    claims = await PaymentLine.filter(claims_bill=True)
    assert len({line.payment_id for line in claims}) == 1
    assert sorted(line.his_bill_id for line in claims) == sorted([one, two])
    paid = [order for order, each in started.items() if house.pay_sheet(each) == "paid"]
    assert len(paid) <= 1
    await house.settle()
    assert family.booked(one, two) == [len(paid)] * 2
    if not paid:  # nobody has a pay sheet that lives: the bills are free again by now
        assert house.pay_sheet(await family.start(family.first, one, two)) == "paid"


@pytest.mark.parametrize(
    ("his", "back"), [({"confirm_unit": "bill"}, 1), ({"confirm_unit": "payment"}, 2)], ids=["bill", "payment"]
)
async def test_going_on_although_the_other_set_is_open_gives_back_what_is_paid_twice(house: House, back: int) -> None:
    family = await Family.of(house)
    one, two, three = family.bills(1000, 250, 33)
    first = await family.start(family.first, one, two)
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    with pytest.raises(PaymentOpenElsewhere) as told:
        await family.start(family.second, two, three)
    assert told.value.values["until"]
    house.faults.script("wechatpay.answer_lost", key=first.order_no, times=6)
    second = await family.start(family.second, two, three, despite_open=True)
    with pytest.raises(PaymentOpenElsewhere):  # who goes on takes over no more than he was asked about
        await family.start(family.second, one)
    house.faults.clear()
    assert house.pay_sheet(second) == "paid"
    await house.settle(within=timedelta(seconds=20))
    assert set((await family.statuses(second)).values()) == {LineStatus.CONFIRMED}
    # The first pay sheet was confirmed after all, and the channel took the money.
    order = house.pay.orders[next(key for key in house.pay.orders if key[1] == first.order_no)]
    order.closed_at = None
    await house.services.applier.apply(paid_evidence(await house.payment(first.order_no)))
    await house.settle(within=timedelta(minutes=1))
    (refund,) = await Refund.all()
    first_payment = await house.payment(first.order_no)
    assert (refund.payment_id, refund.cause) == (first_payment.id, "paid_elsewhere")
    assert refund.amount_fen == (250 if back == 1 else 1250)
    statuses = await family.statuses(first)
    assert statuses[two] in {LineStatus.RETURNING, LineStatus.RETURNED}
    assert (statuses[one] is LineStatus.CONFIRMED) == (back == 1)
    assert family.booked(one, two, three) == [int(back == 1), 1, 1]
    (message,) = await Message.filter(kind=MessageKind.REFUSED_RETURNED)
    values = house.services.outside.keyring.decrypt_json(message.values_enc, place="message.values")
    assert (message.payment_id, message.payer_id) == (first_payment.id, family.first.id)
    assert (values["refused"], values["of"], values["reasons"]) == (back, 2, ["paid_elsewhere"])
    if back == 2:
        assert (await family.start(family.first, one)).pay is not None


# ---------------------------------------------------------------- the window and the doctor


def meddle(house: House, what: str, bill: str) -> None:
    if what == "paid":
        house.his.window_pay(bill, force=True)
    else:
        house.his.cancel(bill, force=True)


@pytest.mark.parametrize("what", ["paid", "cancelled"])
async def test_an_event_of_the_his_ends_the_pay_sheet_and_frees_the_other_bills(house: House, what: str) -> None:
    family = await Family.of(house)
    one, two = family.bills(1000, 250)
    started = await family.start(family.first, one, two)
    meddle(house, what, one)
    await house.settle(within=SOON)
    assert house.pay_sheet(started) == "closed"
    assert (await house.payment(started.order_no)).status is PaymentStatus.CLOSED
    assert await HisLock.filter(status=LockStatus.HELD).count() == 0
    with pytest.raises(BillNotPayable) as refused:
        await family.start(family.first, one, two)
    assert refused.value.values["reason"] == what
    assert house.pay_sheet(await family.start(family.second, two)) == "paid"
    await house.settle()
    assert family.booked(one, two) == [0, 1]


@pytest.mark.parametrize("what", ["paid", "cancelled"])
@pytest.mark.parametrize("his", [{"no_events": True}], ids=["no events"])
async def test_a_his_that_tells_nothing_is_asked_about_bills_under_a_pay_sheet(house: House, what: str) -> None:
    family = await Family.of(house)
    (old,) = family.bills(777)
    house.clock.advance(timedelta(minutes=20))  # no window of new bills shows it any more
    await poll(house)
    started = await family.start(family.first, old)
    house.clock.advance(timedelta(minutes=1))
    await poll(house)
    assert (await house.payment(started.order_no)).status is PaymentStatus.PENDING
    meddle(house, what, old)
    house.clock.advance(timedelta(minutes=1))
    await poll(house)
    assert house.pay_sheet(started) == "closed"
    assert (await house.payment(started.order_no)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("what", ["paid", "cancelled"])
async def test_when_the_event_is_lost_the_booking_is_refused_and_that_bill_goes_back(house: House, what: str) -> None:
    family = await Family.of(house)
    one, two = family.bills(1000, 250)
    started = await family.start(family.first, one, two)
    house.faults.script("hospital.event_lost", key=one)
    meddle(house, what, one)
    await house.settle(within=timedelta(seconds=20))
    assert house.pay_sheet(started) == "paid"
    await house.settle()
    assert await family.statuses(started) == {one: LineStatus.RETURNED, two: LineStatus.CONFIRMED}
    (refund,) = await Refund.all()
    assert (refund.amount_fen, refund.cause) == (1000, f"BILL_{what.upper()}")
    payment = await house.payment(started.order_no)
    assert (payment.paid_fen, payment.refunded_fen) == (1250, 1000)
    assert await StaffCase.all().count() == 0


# ---------------------------------------------------------------- together, and apart


async def test_a_group_that_is_decided_late_does_not_hold_the_others_money(house: House) -> None:
    """After 30 seconds what is refused goes back; what is refused later goes back by itself."""
    family = await Family.of(house)
    one, two, three = family.bills(1000, 250, 33)
    started = await family.start(family.first, one, two, three)
    assert house.pay_sheet(started) == "paid"
    numbers = {line.his_bill_id: line.confirm_no for line in await house.lines(started.order_no)}
    house.his.cancel(one, force=True)
    house.his.cancel(two, force=True)
    house.faults.script("hospital.request_lost", key=numbers[two])
    paid_at = house.clock.now()
    await house.settle(within=timedelta(seconds=25))
    assert await Refund.all().count() == 0
    assert (await family.statuses(started))[one] is LineStatus.REJECTED
    await house.settle(within=timedelta(seconds=20))
    (refund,) = await Refund.all()
    assert refund.amount_fen == 1000
    assert timedelta(seconds=29) < refund.created_at - paid_at < timedelta(seconds=40)
    await house.settle()
    assert sorted(refund.amount_fen for refund in await Refund.all()) == [250, 1000]
    assert (await family.statuses(started))[three] is LineStatus.CONFIRMED
    assert (await house.payment(started.order_no)).refunded_fen == 1250
    first, *later = await told(house, started)
    # Told together within 30 seconds; what ends later has its own message, of the same payment.
    assert first == (MessageKind.REFUSED_RETURNED, 1000, {"refused": 1, "booked": 1, "waiting": 1, "of": 3})
    assert later == [(MessageKind.REFUSED_RETURNED, 250, {"refused": 1, "booked": 0, "waiting": 0, "of": 3})]


async def test_a_message_that_somebody_is_sending_is_not_added_to_and_one_of_a_dead_sender_is(house: House) -> None:
    family = await Family.of(house)
    started = await family.start(family.first, *family.bills(1000, 250, 33))
    payment, lines = await house.payment(started.order_no), await house.lines(started.order_no)
    telling, begun_at = Telling(house.services.outside, house.services.messages), house.clock.now()

    async def take_it(holder: str) -> None:
        message = await Message.filter(dedup_key__startswith="told:").get()
        lease = timedelta(seconds=10)
        assert await take(
            "message", message.id, house.institution_id, now=house.clock.now(), holder=holder, lease=lease
        )

    async def ends(line: PaymentLine, status: LineStatus) -> None:
        line.status = status
        await atomically(lambda: telling.ended(payment, lines, [line]))

    one, two, three = lines
    one.status = two.status = three.status = LineStatus.CONFIRMING
    await ends(one, LineStatus.CONFIRMED)
    assert (await Message.get(dedup_key=f"told:{one.confirm_no}")).due_at == begun_at + TOLD_TOGETHER_WITHIN
    await take_it("dead")
    house.clock.advance(timedelta(seconds=11))
    await ends(two, LineStatus.CONFIRMED)
    both = [(MessageKind.PAID, one.amount_fen + two.amount_fen, {"refused": 0, "booked": 2, "waiting": 1, "of": 3})]
    assert await told(house, started) == both
    message = await Message.get(dedup_key=f"told:{one.confirm_no}")
    slow: dict[str, Any] = {"holder": "dead", "now": begun_at + timedelta(seconds=9), "statuses": ["queued"]}
    assert not await begin_send("message", message.id, house.institution_id, **slow)  # he would say the old words
    await take_it("sender")
    await ends(three, LineStatus.REJECTED)
    alone = (MessageKind.REFUSED_RETURNED, three.amount_fen, {"refused": 1, "booked": 0, "waiting": 0, "of": 3})
    assert await told(house, started) == [*both, alone]
    assert (await Message.get(dedup_key=f"told:{three.confirm_no}")).due_at == house.clock.now()


async def test_a_refused_bill_can_be_paid_again_while_its_money_is_on_its_way_back(house: House) -> None:
    family = await Family.of(house)
    one, two = family.bills(1000, 250)
    started = await family.start(family.first, one, two)
    assert house.pay_sheet(started) == "paid"
    numbers = {line.his_bill_id: line.confirm_no for line in await house.lines(started.order_no)}
    house.his.change_amount(one, 1100, force=True)
    house.faults.script("hospital.request_lost", key=numbers[two])  # so that the refused one waits
    await house.settle(within=timedelta(seconds=10))
    assert (await family.statuses(started))[one] is LineStatus.REJECTED
    again = await family.start(family.second, one)
    assert house.pay_sheet(again) == "paid"
    await house.settle()
    assert family.booked(one, two) == [1, 1]
    assert await family.statuses(again) == {one: LineStatus.CONFIRMED}
    assert await family.statuses(started) == {one: LineStatus.RETURNED, two: LineStatus.CONFIRMED}


async def test_a_bill_of_nothing_that_is_refused_among_others_moves_no_money(house: House) -> None:
    family = await Family.of(house)
    free, dear = family.bills(0, 1000)
    started = await family.start(family.first, free, dear)
    assert house.pay_sheet(started) == "paid"
    house.his.cancel(free, force=True)
    await house.settle()
    assert await family.statuses(started) == {free: LineStatus.RETURNED, dear: LineStatus.CONFIRMED}
    assert await Refund.all().count() == 0
    assert await told(house, started) == [
        (MessageKind.REFUSED_RETURNED, 0, {"refused": 1, "booked": 1, "waiting": 0, "of": 2})
    ]
    assert await Payment.filter(refunded_fen=0).count() == 1


async def test_bills_of_two_branches_and_too_many_are_refused_in_clear_words(house: House) -> None:
    family = await Family.of(house)
    one, *_ = bills = family.bills(*range(100, 121))
    keys = (("", one), ("north", bills[1]))
    with pytest.raises(BillNotPayable) as refused:
        await house.start(family.first, family.patient, one, bills=keys, shown_fen=Fen(201))
    assert refused.value.values["reason"] == "branches"
    with pytest.raises(BillNotPayable) as refused:
        await family.start(family.first, *bills)
    assert refused.value.values == {"reason": "too_many", "max": 20}
    started = await family.start(family.first, *bills[:20])
    assert house.pay_sheet(started) == "paid"
    await house.settle()
    assert family.booked(*bills[:20]) == [1] * 20
