"""Refunds made in the channel's console, at every moment of a refund of ours: each ends, and nobody is paid twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.actors import Role
from core.decision_kinds import DecisionKind, Proposal
from core.errors import ActionNotPossible, InvalidRequest, RefundNotPossible
from core.evidence import refund_evidence
from core.invariants import check_invariants
from core.models import Institution, Message, Payment, PaymentEvent, PaymentLine, Refund, StaffCase
from core.money import Fen
from core.ports import RefundState, RefundTrade, Trade
from core.states import LineStatus, ProofKind, RefundStatus
from tests.support.fakes import held
from tests.support.house import MCHID, House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, HEAD, accounts, booked, given_back, request, staff, taken_back

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"refund_approve_above_fen": 10_000, "refund_daily_cap_fen": 10_000})


async def open_cases() -> list[tuple[str, str]]:
    return [(case.kind, case.subject) for case in await StaffCase.filter(status="open").order_by("id")]


async def told(house: House, payment: Payment, refund_no: str, amount_fen: int, **changes: Any) -> None:
    """The channel tells us of a refund that is not ours."""
    values: dict[str, Any] = {"state": RefundState.REFUNDED, "channel_refund_no": f"50{refund_no}", **changes}
    trade = RefundTrade(refund_no=refund_no, order_no=payment.order_no, amount_fen=Fen(amount_fen), **values)
    await house.services.applier.apply(
        refund_evidence(trade, payment.order_no, source="wechatpay", proof=ProofKind.VERIFIED_NOTICE)
    )


async def by_hand(house: House, payment: Payment, amount_fen: int) -> str:
    """Somebody refunds in the merchant console, and we are told when it is done."""
    number = house.pay.refund_by_hand(MCHID, payment.order_no, amount_fen)
    house.clock.advance(timedelta(minutes=2))
    house.pay.advance()
    account = await house.services.institutions.merchant(house.institution_id, house.merchant_account_id)
    trade = await held(house.services.outside.channels, "wechatpay").inner.query_refund(account, number)
    await told(house, payment, number, amount_fen, channel_refund_no=trade.channel_refund_no)
    return number


async def off(database: Database) -> set[str]:
    connection = await asyncpg.connect(**database.superuser_credentials)
    try:
        outcomes = await check_invariants(connection)
    finally:
        await connection.close()
    return {str(place) for outcome in outcomes for place in outcome.places} | {
        outcome.identity for outcome in outcomes if not outcome.ok
    }


async def is_over(house: House, database: Database, payment: Payment, *, back_fen: int, kept_fen: int = 0) -> None:
    """The three books agree, no row waits, and nobody needs to look."""
    assert given_back(house, payment.order_no) == back_fen
    payment = await house.payment(payment.order_no)
    assert (payment.refunded_fen, payment.external_refunded_fen) == (back_fen, 0)
    expected = {"channel_receivable": kept_fen, "his_confirmed": -kept_fen} if kept_fen else {}
    assert await accounts(payment) == expected
    assert await Refund.filter(due_at__isnull=False).count() == 0
    assert await open_cases() == []
    assert await off(database) == set()


# ---------------------------------------------------------------- what is recorded


async def test_it_is_recorded_once_however_often_it_is_told(house: House, database: Database) -> None:
    payment, (line,) = await booked(house)
    await told(house, payment, "X1", 3000, state=RefundState.PROCESSING)
    for word in ("SUCCESS", "SUCCESS", "success"):
        await told(house, payment, "X1", 3000, state_text=word)
    await told(house, payment, "X2", 650)
    await told(house, payment, "X3", 100, state=RefundState.DEAD)
    payment = await house.payment(payment.order_no)
    assert (payment.external_refunded_fen, payment.refunded_fen) == (3650, 0)
    assert await accounts(payment) == {"channel_receivable": 5000, "external_refund": 3650, "his_confirmed": -8650}
    assert ("external_refund", "X1") in await open_cases()
    assert ("external_refund", "X2") in await open_cases()
    assert await off(database) == set()
    clerk = await staff(house, "1001", CLERK)
    with pytest.raises(RefundNotPossible):
        await request(house.services, clerk, payment, (line.id, 8651))


async def test_what_is_told_before_the_payment_counts_as_what_is_told_after_it(
    house: House, database: Database
) -> None:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    await told(house, await house.payment(started.order_no), "X1", 3000)
    await house.settle(within=HOUR)
    payment = await house.payment(started.order_no)
    assert payment.external_refunded_fen == 3000
    assert await accounts(payment) == {"channel_receivable": 5650, "external_refund": 3000, "his_confirmed": -8650}
    assert await open_cases() == [("external_refund", "X1")]
    assert await off(database) == set()


# ---------------------------------------------------------------- at every moment of a refund of ours

Moment = Callable[[House, Payment, PaymentLine], Awaitable[None]]


async def before_it_is_asked_for(house: House, payment: Payment, line: PaymentLine) -> None:
    await by_hand(house, payment, 3000)
    assert [kind for kind, _ in await open_cases()] == ["external_refund"]
    await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))


async def before_the_his_has_taken_it_back(house: House, payment: Payment, line: PaymentLine) -> None:
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    house.faults.script("hospital.not_reached", key=refund.refund_no, times=2)
    await house.settle(within=timedelta(seconds=5))
    assert (await Refund.all())[0].status is RefundStatus.REVERSING_AT_HIS
    await by_hand(house, payment, 3000)


async def before_it_is_sent(house: House, payment: Payment, line: PaymentLine) -> None:
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    house.faults.script("wechatpay.not_reached", key=refund.refund_no, times=3)
    await house.settle(within=timedelta(seconds=5))
    assert (await Refund.all())[0].status is RefundStatus.SENDING
    await by_hand(house, payment, 3000)


async def after_it_was_sent_in_vain(house: House, payment: Payment, line: PaymentLine) -> None:
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    house.faults.script("wechatpay.request_lost", key=refund.refund_no)
    await house.settle(within=timedelta(seconds=5))
    (refund,) = await Refund.all()
    assert refund.sends_started > refund.sends_unreached
    await by_hand(house, payment, 3000)


async def while_it_is_refused(house: House, payment: Payment, line: PaymentLine) -> None:
    """Somebody else's refund has left too little: the channel refuses ours, until we count what he gave."""
    house.pay.top_up(MCHID, -house.pay.merchants[MCHID].balance_fen)
    await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    await house.settle(within=timedelta(minutes=5))
    house.pay.top_up(MCHID, 8650)
    await by_hand(house, payment, 3000)


async def its_number_dies(house: House, payment: Payment, line: PaymentLine) -> None:
    house.faults.script("wechatpay.refund_closed")
    await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    while not await Refund.filter(status=RefundStatus.DEAD).count():
        if not await house.step():
            house.clock.advance(timedelta(seconds=10))
    await by_hand(house, payment, 3000)


async def its_number_dies_after_it_was_counted(house: House, payment: Payment, line: PaymentLine) -> None:
    await by_hand(house, payment, 3000)
    house.faults.script("wechatpay.refund_closed")
    await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))


MOMENTS = (
    before_it_is_asked_for,
    before_the_his_has_taken_it_back,
    before_it_is_sent,
    after_it_was_sent_in_vain,
    while_it_is_refused,
    its_number_dies,
    its_number_dies_after_it_was_counted,
)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_somebody_gave_back_counts_and_only_the_rest_leaves(
    house: House, database: Database, moment: Moment
) -> None:
    payment, (line,) = await booked(house)
    await moment(house, payment, line)
    await house.settle(within=timedelta(hours=8))
    last = await Refund.all().order_by("-id").first()
    assert last is not None
    assert (last.status, last.amount_fen, last.external_fen) == (RefundStatus.REFUNDED, 8650, 3000)
    assert house.pay.refunds[(MCHID, last.refund_no)].refund_fen == 5650
    assert taken_back(house, line.his_bill_id) == [8650]
    assert (await house.lines(payment.order_no))[0].status is LineStatus.RETURNED
    assert await Message.filter(kind="refund_arrived").count() == 1
    await is_over(house, database, payment, back_fen=8650)


async def test_a_second_person_approves_what_others_have_partly_given_back(house: House, database: Database) -> None:
    payment, (line,) = await booked(house, 12_000)
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    assert refund.status is RefundStatus.REQUESTED
    await by_hand(house, payment, 3000)
    await house.settle(within=HOUR)
    assert (await house.payment(payment.order_no)).external_refunded_fen == 3000  # nothing is owed to anybody yet
    await house.services.staff_refunds.approve(await staff(house, "1002", HEAD), refund.refund_no)
    await house.settle(within=HOUR)
    assert house.pay.refunds[(MCHID, refund.refund_no)].refund_fen == 9000
    await is_over(house, database, payment, back_fen=12_000)


async def test_what_the_his_keeps_is_counted_towards_nothing(house: House, database: Database) -> None:
    payment, (line,) = await booked(house)
    refund = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    house.his.refunds.dispense(line.his_bill_id)
    await by_hand(house, payment, 3000)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.due_at) == (RefundStatus.DECLINED, None)
    assert await accounts(payment) == {"channel_receivable": 5650, "external_refund": 3000, "his_confirmed": -8650}
    assert [kind for kind, _ in await open_cases()] == ["external_refund"]
    assert await off(database) == set()


async def test_ours_left_first_and_what_others_gave_beside_it_waits_for_the_his(
    house: House, database: Database
) -> None:
    payment, (line,) = await booked(house)
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, 5000))
    house.faults.script("wechatpay.answer_lost", key=refund.refund_no)
    await house.settle(within=timedelta(seconds=5))
    await by_hand(house, payment, 3000)
    await house.settle(within=HOUR)
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.external_fen) == (RefundStatus.REFUNDED, 0)
    assert await accounts(payment) == {"channel_receivable": 650, "external_refund": 3000, "his_confirmed": -3650}
    assert [kind for kind, _ in await open_cases()] == ["external_refund"]
    agreed = await request(house.services, clerk, payment, (line.id, 3000))  # the HIS is made to agree
    await house.settle(within=HOUR)
    agreed = await Refund.get(id=agreed.id)
    assert (agreed.status, agreed.external_fen, agreed.sends_started) == (RefundStatus.REFUNDED, 3000, 0)
    proof = await PaymentEvent.get(id=agreed.proof_id)
    assert (proof.kind, proof.proves, proof.proof_kind) == ("external_counted", "refunded", "verified_notice")
    assert taken_back(house, line.his_bill_id) == [5000, 3000]
    await is_over(house, database, payment, back_fen=8000, kept_fen=650)


async def test_a_red_receipt_after_the_refund_in_the_console_pays_nobody_twice(
    house: House, database: Database
) -> None:
    payment, (line,) = await booked(house)
    await by_hand(house, payment, 5000)
    house.his.reverse_at_window(line.his_bill_id, amount_fen=4000)
    await house.settle(within=HOUR)
    (refund,) = await Refund.all()
    assert (refund.status, refund.external_fen, refund.sends_started) == (RefundStatus.REFUNDED, 4000, 0)
    assert (await house.payment(payment.order_no)).external_refunded_fen == 1000
    house.his.reverse_at_window(line.his_bill_id)
    await house.settle(within=HOUR)
    assert (await house.lines(payment.order_no))[0].status is LineStatus.RETURNED
    await is_over(house, database, payment, back_fen=8650)


@pytest.mark.parametrize("is_console_first", [True, False])
async def test_what_the_hospital_gave_back_otherwise_is_the_refund_in_the_console(
    house: House, database: Database, is_console_first: bool
) -> None:
    payment, (line,) = await booked(house)
    if is_console_first:
        await by_hand(house, payment, 3000)
    house.his.reverse_at_window(line.his_bill_id, money_by="hospital_other", amount_fen=3000)
    await house.settle(within=HOUR)
    if not is_console_first:
        await by_hand(house, payment, 3000)
    assert await accounts(payment) == {"channel_receivable": 5650, "his_confirmed": -5650}
    assert await open_cases() == []
    await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, None))
    await house.settle(within=HOUR)
    assert (await house.lines(payment.order_no))[0].status is LineStatus.RETURNED
    assert given_back(house, payment.order_no) == 8650
    assert await accounts(payment) == {}
    assert await off(database) == set()


@pytest.mark.parametrize("is_replacement_sent", [True, False])
async def test_a_number_that_had_died_gives_the_money_all_the_same(
    house: House, database: Database, is_replacement_sent: bool
) -> None:
    payment, (line,) = await booked(house)
    house.faults.script("wechatpay.refund_closed")
    dead = await request(house.services, await staff(house, "1001", CLERK), payment, (line.id, 3000))
    while not await Refund.filter(status=RefundStatus.DEAD).count():
        if not await house.step():
            house.clock.advance(timedelta(seconds=10))
    if is_replacement_sent:
        await house.settle(within=HOUR)
    await told(house, payment, dead.refund_no, 3000, channel_refund_no="")
    await told(house, payment, dead.refund_no, 3000)  # with the channel's own number: it is the same money
    await house.settle(within=HOUR)
    successor = await Refund.get(replaces_id=dead.id)
    assert ("refund_contradiction", dead.refund_no) in await open_cases()
    assert ("external_refund", dead.refund_no) in await open_cases()
    assert (await house.payment(payment.order_no)).external_refunded_fen == 3000
    assert await off(database) == set()
    if is_replacement_sent:  # the payer has it twice, and the books say so
        assert await accounts(payment) == {"channel_receivable": 2650, "external_refund": 3000, "his_confirmed": -5650}
        return
    assert (successor.status, successor.due_at) == (RefundStatus.APPROVED, None)
    head = await staff(house, "1002", HEAD | {Role.WORK_CASES})
    case = await StaffCase.get(kind="refund_contradiction")
    await house.services.case_work.resume(head, case.id)
    await house.settle(within=HOUR)
    successor = await Refund.get(id=successor.id)
    assert (successor.status, successor.external_fen, successor.sends_started) == (RefundStatus.REFUNDED, 3000, 0)
    await house.services.case_work.close(head, case.id, "查实：已退")
    assert await accounts(payment) == {"channel_receivable": 5650, "his_confirmed": -5650}
    assert await open_cases() == []
    assert await off(database) == set()


@pytest.mark.parametrize("is_approved", [True, False])
async def test_a_number_that_nobody_has_approved_gives_the_money_all_the_same(
    house: House, database: Database, is_approved: bool
) -> None:
    await Institution.filter(id=house.institution_id).update(settings={"refund_approve_above_fen": 0})
    payment, (line,) = await booked(house)
    clerk, head = await staff(house, "1001", CLERK), await staff(house, "1002", HEAD)
    asked = await request(house.services, clerk, payment, (line.id, 3000))
    house.pay.refund_by_hand(MCHID, payment.order_no, 3000)
    house.clock.advance(timedelta(minutes=2))
    house.pay.advance()
    await told(house, payment, asked.refund_no, 3000)
    assert {kind for kind, _ in await open_cases()} == {"refund_contradiction", "external_refund"}
    refund = await Refund.get(id=asked.id)
    assert (refund.status, (await house.payment(payment.order_no)).external_refunded_fen) == ("requested", 3000)
    if is_approved:
        await house.services.staff_refunds.approve(head, asked.refund_no)
    else:
        await house.services.staff_refunds.decline(head, asked.refund_no, reason="查无此事")
    await house.settle(within=HOUR)
    await told(house, payment, asked.refund_no, 3000)
    refund = await Refund.get(id=asked.id)
    if is_approved:
        assert (refund.status, refund.external_fen, refund.sends_started) == (RefundStatus.REFUNDED, 3000, 0)
    else:
        assert refund.status is RefundStatus.DECLINED
        assert ("external_refund", asked.refund_no) in await open_cases()
    assert given_back(house, payment.order_no) == 3000
    assert await off(database) == set()


# ---------------------------------------------------------------- what the HIS has never booked


async def rejected(house: House) -> Payment:
    payer = await house.payer()
    started = await house.start(payer, await house.bound(payer), house.bill())
    house.pay_sheet(started)
    house.faults.script("hospital.refuses_confirm")
    return await house.payment(started.order_no)


async def test_all_of_it_was_given_back_before_ours_left(house: House, database: Database) -> None:
    payment = await rejected(house)
    number = await by_hand(house, payment, 8650)  # before we know that it is paid
    await house.settle(within=HOUR)
    (refund,) = await Refund.all()
    assert (refund.status, refund.external_fen, refund.sends_started) == (RefundStatus.REFUNDED, 8650, 0)
    assert (await house.lines(payment.order_no))[0].status is LineStatus.RETURNED
    counted = (await PaymentEvent.get(id=refund.proof_id)).facts
    assert counted["numbers"] == [house.pay.refunds[(MCHID, number)].refund_id]
    await is_over(house, database, payment, back_fen=8650)
    late = RefundTrade(
        refund_no=refund.refund_no, order_no=payment.order_no, state=RefundState.REFUNDED, amount_fen=Fen(8650)
    )
    evidence = refund_evidence(late, payment.order_no, source="wechatpay", proof=ProofKind.AUTHENTICATED_QUERY)
    await house.services.applier.apply(evidence)  # the channel has given it once more, whatever it said before
    assert await open_cases() == [("external_refund", refund.refund_no)]
    assert (await house.payment(payment.order_no)).external_refunded_fen == 8650


async def test_one_under_way_is_asked_about_and_waited_for(house: House, database: Database) -> None:
    payment = await rejected(house)
    house.faults.script("wechatpay.refund_slow")
    number = house.pay.refund_by_hand(MCHID, payment.order_no, 3000)
    await told(house, payment, number, 3000, state=RefundState.PROCESSING)
    await house.settle(within=timedelta(days=1))
    (refund,) = await Refund.all()
    assert (refund.status, refund.sends_started) == (RefundStatus.APPROVED, 0)
    assert ("external_refund", number) in await open_cases()
    await house.settle(within=timedelta(days=2))
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.external_fen) == (RefundStatus.REFUNDED, 3000)
    await is_over(house, database, payment, back_fen=8650)


async def test_one_that_failed_is_no_reason_to_wait(house: House, database: Database) -> None:
    payment = await rejected(house)
    await told(house, payment, "X1", 3000, state=RefundState.PROCESSING)  # the channel does not know it any more
    await house.settle(within=HOUR)
    (refund,) = await Refund.all()
    assert (refund.status, refund.external_fen) == (RefundStatus.REFUNDED, 0)
    await is_over(house, database, payment, back_fen=8650)


async def test_where_the_channel_names_no_amount_two_people_do(house: House, database: Database) -> None:
    payment = await rejected(house)
    number = house.pay.refund_by_hand(MCHID, payment.order_no, 3000)
    await house.settle(within=timedelta(hours=5))
    (refund,) = await Refund.all()
    assert (refund.status, refund.sends_started) == (RefundStatus.APPROVED, 0)
    assert await open_cases() == [("external_refund", payment.order_no)]
    roles = frozenset(Role)
    first, second = await staff(house, "1001", roles), await staff(house, "1002", roles)

    def proposal(amount_fen: int, their_number: str) -> Proposal:
        return Proposal(
            kind=DecisionKind.REFUND_REFUNDED,
            number=refund.refund_no,
            reason="商户平台已手工退款",
            document="商户平台截图",
            amount_fen=Fen(amount_fen),
            their_number=their_number,
            at=house.clock.now(),
        )

    with pytest.raises(ActionNotPossible, match="amount_differs"):
        await house.services.decisions.propose(first, proposal(8651, number), key="k1")
    with pytest.raises(InvalidRequest, match="their_number"):
        await house.services.decisions.propose(first, proposal(3000, ""), key="k2")
    proposed = await house.services.decisions.propose(first, proposal(3000, number), key="k3")
    await house.services.decisions.approve(second, proposed.decision_id)
    await house.settle(within=timedelta(hours=5))
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.external_fen) == (RefundStatus.REFUNDED, 3000)
    await is_over(house, database, payment, back_fen=8650)
    await by_hand_again(house, payment, number)
    await is_over(house, database, payment, back_fen=8650)


async def by_hand_again(house: House, payment: Payment, number: str) -> None:
    """The channel's list names later what two people have attested already: it is the same refund."""
    await told(house, payment, number, 3000)


async def test_the_channels_list_of_a_day_says_how_much_it_was(house: House, database: Database) -> None:
    payment = await rejected(house)
    day = house.clock.now().date()
    house.pay.refund_by_hand(MCHID, payment.order_no, 8650)
    await house.settle(within=timedelta(days=1))
    assert await open_cases() == [("external_refund", payment.order_no), *(await open_cases())[1:]]
    found = await house.services.adopting.walk(day)
    assert found.lost == 0
    await house.settle(within=HOUR)
    (refund,) = await Refund.all()
    assert (refund.status, refund.external_fen, refund.sends_started - refund.sends_unreached) == (
        RefundStatus.REFUNDED,
        8650,
        1,  # adopting doubts that it was never sent
    )
    await is_over(house, database, payment, back_fen=8650)


async def test_a_channel_that_tells_sums_is_believed_and_counts_no_number_twice(
    house: House, database: Database
) -> None:
    payment, (line,) = await booked(house)
    channel = held(house.services.outside.channels, "wechatpay")
    inner = channel.inner

    class Summing:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def query(self, account: Any, order_no: str) -> Trade:
            trade: Trade = await inner.query(account, order_no)
            sums = sum(one["refund_fen"] for one in house.pay.books()["refunds"] if one["state"] == "SUCCESS")
            return Trade(
                order_no=order_no, exists=True, ever_paid=True, paid_fen=trade.paid_fen, refunded_fen=Fen(sums)
            )

    channel.inner = Summing()
    house.pay.refund_by_hand(MCHID, payment.order_no, 3000)
    house.clock.advance(timedelta(minutes=15))
    clerk = await staff(house, "1001", CLERK)
    refund = await request(house.services, clerk, payment, (line.id, 5000))
    await house.settle(within=timedelta(hours=5))
    refund = await Refund.get(id=refund.id)
    assert (refund.status, refund.external_fen) == (RefundStatus.REFUNDED, 3000)
    channel.inner = inner
    await by_hand(house, payment, 1000)  # told by its number: less than the sum that is known
    assert (await house.payment(payment.order_no)).external_refunded_fen == 0
    channel.inner = Summing()
    await request(house.services, clerk, payment, (line.id, 3650))
    await house.settle(within=timedelta(hours=5))
    assert await Refund.filter(status=RefundStatus.REFUNDED).count() == 2
    await is_over(house, database, payment, back_fen=8650)
