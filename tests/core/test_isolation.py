"""No statement reaches into another institution: the whole story and every service method on a watching connection."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import uuid4

import pytest
from tortoise.exceptions import DoesNotExist

from core.actors import Actor, Role
from core.chat_texts import ChatQuestion
from core.clock import business_day
from core.consents import ConsentKind
from core.due import DueRow
from core.errors import ConfigurationError, ConsentNeeded, NotFound, PatientNotBound, RequestError
from core.evidence import Evidence, refund_evidence
from core.models import Decision, Message, Payment, StaffCase
from core.money import Fen
from core.paper import PaperStage
from core.ports import (
    HospitalPatient,
    Identifier,
    IdentifierType,
    MessageKind,
    RefundState,
    RefundTrade,
    Scene,
    Unverified,
)
from core.seals import newest_heads
from core.services import Services
from core.states import CaseStatus, LineStatus, PaymentStatus, ProofKind
from core.tenancy import across_institutions, scoped
from runtime.database import database
from scheduler.loops import claim_due, loops
from tests.support.fakes import with_phones
from tests.support.house import METHOD, House
from tests.support.isolation import NotScoped, Watch, tenant_tables, unscoped, watched_connection
from tests.support.postgres import Database
from tests.support.refunding import request, staff
from tests.support.staff_walk import walk_staff


@pytest.fixture
async def watch(database: Database) -> AsyncIterator[Watch]:
    """The models on a connection that refuses unscoped statements."""
    watch = Watch()
    async with opened(database.app_dsn, watch):
        yield watch


def opened(url: str, watch: Watch) -> Any:
    return database(url, connection_class=watched_connection(watch))


# ---------------------------------------------------------------- the watcher itself


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM payment WHERE id = $1",
        'SELECT "id" FROM "payment" WHERE "order_no"=$1',
        "SELECT institution_id FROM payment",
        "SELECT * FROM payment WHERE institution_id IS NOT NULL",
        "SELECT * FROM payment WHERE reason = 'institution_id = $1'",
        "UPDATE payment SET institution_id = $1 WHERE id = $2",
        "DELETE FROM idempotency_record WHERE created_at < $1",
        "INSERT INTO transfer (id, kind) VALUES ($1, $2)",
        "SELECT * FROM payment p JOIN payment_line l ON l.payment_id = p.id WHERE p.institution_id = $1",
        "SELECT * FROM payment WHERE institution_id = $1 AND id IN (SELECT payment_id FROM refund WHERE id = $2)",
        "INSERT INTO message (id, institution_id) SELECT id, institution_id FROM payment",
        "WITH x AS (SELECT id FROM refund WHERE due_at < $1) UPDATE refund t SET holder = '' FROM x WHERE t.id = x.id",
    ],
)
def test_a_statement_that_names_no_institution_is_found(sql: str) -> None:
    assert unscoped(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM payment WHERE institution_id = $1 AND id = $2",
        'SELECT "id" FROM "payment" WHERE "institution_id"=$1 AND "order_no"=$2 FOR NO KEY UPDATE',
        'SELECT COUNT(*) FROM "binding" WHERE "institution_id"=\'0196a3c5-0000-7000-8000-000000000000\'',
        "UPDATE payment SET status = $3 WHERE institution_id = $1 AND id = $2",
        "INSERT INTO transfer (id, institution_id, kind) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        "SELECT * FROM payment p JOIN refund r ON r.institution_id = $1 WHERE p.institution_id = $1",
        "SELECT * FROM institution WHERE code = $1",
        "SELECT 1",
        "BEGIN;",
    ],
)
def test_a_statement_that_names_its_institution_passes(sql: str) -> None:
    assert not unscoped(sql)


def test_the_tenants_tables_are_known() -> None:
    assert {"payment", "payment_line", "payment_event", "transfer", "message", "inbound", "patient"} <= tenant_tables()
    assert not {"institution", "deployment", "unverified_inbound"} & tenant_tables()


async def test_the_connection_refuses_before_anything_is_sent(watch: Watch) -> None:
    with pytest.raises(NotScoped):
        await Payment.all()
    with pytest.raises(NotScoped):
        await Payment.filter(id=uuid4()).update(method="x")
    with pytest.raises(NotScoped):
        await Message.filter(payment_id=uuid4()).count()
    assert sum(watch.violations.values()) == 3
    assert await scoped(uuid4()).of(Payment).all() == []
    with across_institutions("a test looks"):
        assert await Payment.all() == []
    with pytest.raises(NotScoped):
        await Payment.all()
    assert watch.reasons == {"a test looks": 1}


# ---------------------------------------------------------------- every service method


def public_methods() -> dict[str, tuple[type[Any], str]]:
    """Every coroutine method that programs may call on Services."""
    found = {}
    hints = inspect.get_annotations(Services, eval_str=True)
    for part in fields(Services):
        kind = hints[part.name]
        if part.name != "outside":
            for name, method in inspect.getmembers(kind, inspect.iscoroutinefunction):
                if not name.startswith("_") and method.__module__.startswith("core."):
                    found[f"{part.name}.{name}"] = (kind, name)
    return found


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the service methods that were called."""
    seen: set[str] = set()

    def noted(label: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def call(*arguments: Any, **named: Any) -> Any:
            seen.add(label)
            return await method(*arguments, **named)

        return call

    for label, (kind, name) in public_methods().items():
        monkeypatch.setattr(kind, name, noted(label, getattr(kind, name)))
    return seen


async def with_claims(house: House) -> None:
    """What the worker does with what is due now, the asking for new bills too."""
    for loop in loops(house.services):
        for row in await claim_due(loop, house.services):
            await loop.work(row)


async def look(model: type[Any], **wanted: Any) -> list[Any]:
    with across_institutions("a test looks"):
        return list(await model.filter(**wanted).order_by("id"))


async def odd_amount(house: House, order_no: str) -> None:
    """The channel says that it took another amount than was asked."""
    payment = await house.payment(order_no)
    facts = {"ever_paid": True, "paid_fen": 650, "paid_at": house.clock.now().isoformat(), "channel_trade_no": "T1"}
    await house.services.applier.apply(
        Evidence(
            order_no=payment.order_no,
            kind="trade",
            source="wechatpay",
            proves="paid",
            proof_kind=ProofKind.VERIFIED_NOTICE,
            facts=facts,
        )
    )


async def test_every_service_method_names_its_institution(watch: Watch, called: set[str]) -> None:
    house = await House.build(
        settings={
            "merge": True,
            "insured_online": "second_tap",
            "paper_code": "his_asks",
            "refund_daily_cap_fen": 250,
        }
    )
    services, here = house.services, house.institution_id
    payer = await house.payer()
    patient = await house.bound(payer)

    # who and where
    await services.institutions.profile_by_code("renhe")
    await services.institutions.all_sites()
    await services.institutions.all_merchants()
    await services.institutions.all_chat_accounts()
    assert [
        m.code for m in await services.institutions.methods(here, scene=Scene.MOBILE, app_id=house.mini_app_id)
    ] == [METHOD]
    assert [bound.patient_id for bound in await services.patients.bound(payer)] == [patient]
    (bound_by,) = await services.patients.payers_bound(payer, patient)
    with pytest.raises(NotFound):
        await services.patients.remove_binding(payer, patient, uuid4())
    with pytest.raises(RequestError):
        await services.patients.bind(
            payer, name="查无此人", identifier=Identifier(type=IdentifierType.PASSPORT, value="E1"), phone="1"
        )

    # bills
    bill, second = house.bill(), house.bill(total_fen=100)
    await services.bills.unpaid(here, payer.id, patient)
    await services.bills.detail(here, payer.id, patient, "", bill)
    assert len(await services.bills.several(here, payer.id, patient, [("", bill)])) == 1
    await services.bills.paid(here, payer.id, patient)
    await house.settle()
    await with_claims(house)
    (site,) = await services.institutions.sites(here)
    await services.new_bills.announce(site, bill)

    # cancelled, resumed, refreshed, paid in one go
    cancelled = await house.start(payer, patient, bill)
    assert (await house.start(payer, patient, bill)).order_no == cancelled.order_no
    assert (await services.payments.cancel(payer.id, here, cancelled.order_no)).status is PaymentStatus.CLOSED
    merged = await house.start(payer, patient, bill, bills=(("", bill), ("", second)), shown_fen=8750)
    payment = await house.payment(merged.order_no)
    await services.payments.ask_soon(payment)
    assert (await services.payments.refreshed(payer.id, here, merged.order_no)).status is PaymentStatus.PENDING
    house.pay_sheet(merged)
    await house.settle()
    await with_claims(house)
    assert {line.status for line in await house.lines(merged.order_no)} == {LineStatus.CONFIRMED}
    await services.payments.fail(payment, "nothing was sent, says somebody who is wrong")
    assert (await house.payment(merged.order_no)).status is PaymentStatus.PAID
    await services.returning.stop_unsent(payment)
    await services.returning.go_on(payment)
    account = await services.institutions.merchant(here, house.merchant_account_id)
    await services.payments.misconfigured(account, ConfigurationError("a key is missing"))
    await services.cases.settle(here, ("channel_misconfigured",), account.merchant_no)
    assert [row.order_no for row in await services.payments.paid_list(payer.id, here, [patient])] == [merged.order_no]
    with pytest.raises(RequestError):
        await house.start(payer, patient, bill)

    # refused by the HIS, returned, seen in a case
    refused = await house.start(payer, patient, house.bill(total_fen=300))
    house.pay_sheet(refused)
    house.faults.script("hospital.refuses_confirm")
    house.faults.script("wechatpay.refund_closed")
    await house.settle(within=timedelta(days=5))
    assert {line.status for line in await house.lines(refused.order_no)} == {LineStatus.RETURNED}
    external = RefundTrade(refund_no="50300", order_no=merged.order_no, state=RefundState.REFUNDED, amount_fen=Fen(100))
    await services.applier.apply(
        refund_evidence(external, merged.order_no, source="wechatpay", proof=ProofKind.VERIFIED_NOTICE)
    )
    (case,) = await look(StaffCase, status=CaseStatus.OPEN)
    await services.cases.settle(here, ("external_refund",), case.subject)

    # asked for by staff, decided by others; taken back at the window, within the day's cap and above it
    clerk, head, other = [await staff(house, code) for code in ("1001", "1002", "1003")]
    sold = await house.start(payer, patient, house.bill(total_fen=900))
    house.pay_sheet(sold)
    await house.settle()
    (sold_line,) = await house.lines(sold.order_no)
    assert len(await services.staff_refunds.options(clerk, sold.order_no)) == 1
    asked_for = [await request(services, clerk, await house.payment(sold.order_no), (sold_line.id, 100)) for _ in "ab"]
    assert len(await services.staff_refunds.waiting(head)) == 2
    await services.staff_refunds.decline(head, asked_for[0].refund_no, reason="no")
    await services.staff_refunds.approve(head, asked_for[1].refund_no)
    await house.settle()
    for amount in (100, 300, 200):  # the cap is 250
        house.his.reverse_at_window(sold_line.his_bill_id, amount_fen=amount)
        await house.settle()
    _, _, *above = await services.staff_refunds.of_payment(head, sold.order_no)
    assert [refund.status for refund in above] == ["refunded", "requested", "requested"]
    decision = Decision(proposed_by=head.staff_id, decided_by=other.staff_id)
    released = await services.staff_refunds.release(above[1], decision)
    await services.staff_refunds.keep(above[2], decision, text="no")
    await house.settle()
    assert (await house.payment(sold.order_no)).refunded_fen == 200 + released.amount_fen

    # ended at the window
    open_bill = house.bill(total_fen=500)
    at_window = await house.start(payer, patient, open_bill)
    site = await services.institutions.site(here, house.site_id)
    assert await services.payments.bills_being_paid(site, limit=20) == [open_bill]
    house.his.window_pay(open_bill, force=True)
    await house.settle()
    assert (await house.payment(at_window.order_no)).status is PaymentStatus.CLOSED
    await services.payments.bill_ended_elsewhere(here, "", open_bill)

    # a lock whose answer was lost, a channel that was never reached, wrong money
    house.faults.script("hospital.answer_lost", times=2)
    with pytest.raises(RequestError):
        await house.start(payer, patient, house.bill(total_fen=600))
    await house.settle()
    house.faults.clear()
    odd = await house.start(payer, patient, house.bill(total_fen=700))
    await odd_amount(house, odd.order_no)
    house.clock.advance(timedelta(hours=25))
    await house.settle(within=timedelta(minutes=1))

    # what cannot be trusted, and what is about nobody
    (account,) = await services.institutions.all_merchants()
    token = account.notify_url.rpartition("/")[2]
    await services.inbounds.receive_notice(token, {}, b"{}")
    with pytest.raises(NotFound):
        await services.inbounds.receive_notice("nobody", {}, b"{}")
    with pytest.raises(NotFound):
        await services.inbounds.receive_event("nobody", {}, b"{}")
    house.his.send_probe()
    await house.step()

    # a paper in a stranger's hand, what he has agreed to, and his phone
    stranger = await house.payer("过路人", "19900000099")
    token = await services.papers.link(site, house.bill(total_fen=800))
    with pytest.raises(NotFound):
        await services.papers.read("nobody-s-token")
    paper = await services.papers.read(token)
    assert (await services.papers.look(paper, stranger)).stage is PaperStage.CONSENT
    await services.consents.give(stranger, ConsentKind.PERSONAL, version="1", way="h5")
    await services.consents.give(stranger, ConsentKind.SMS, version="1", way="h5", phone="19900000099")
    with pytest.raises(RequestError):
        await services.papers.prove(paper, stranger, "9999")
    opened = await services.papers.prove(paper, stranger, "0001")
    assert not (await services.patients.access(here, stranger.id, opened)).is_bound
    assert (await services.papers.look(paper, stranger)).patient_id == opened
    assert await services.papers.by_barcode(stranger, paper.his_bill_id) != token
    assert (await services.papers.printed(site, paper.his_bill_id)).url == services.papers.url(token)
    event_token = house.his.events_url.rpartition("/")[2]
    _, asked = await services.inbounds.read_link_request(event_token, {}, b"{}")
    assert isinstance(asked, Unverified)
    await services.consents.required(stranger, ConsentKind.PERSONAL, version="1")
    assert await services.consents.phone(stranger) == "19900000099"
    assert len(await services.consents.given(stranger)) == 2
    people = HospitalPatient(his_patient_id="P10006", name="MARTIN EXAMPLE")
    assert await services.patients.known_to_hospital(site, people) != opened
    await services.consents.withdraw(stranger, ConsentKind.PERSONAL)
    await with_phones(house)
    assert await services.messages.can_write_to_phones(here)
    await services.phones.send_code(stranger, "19900000099")
    with pytest.raises(RequestError):
        await services.phones.check_code(stranger, "19900000099", "wrong")
    for question in ChatQuestion:
        assert await services.answers.text(payer, question)
        await services.messages.enqueue_for(
            here, payer.id, MessageKind.CHAT_ANSWER, dedup_key=f"c:{question}", values={"question": question.value}
        )
    later = timedelta(seconds=30)
    assert await services.messages.answer_later(stranger, ChatQuestion.OWED, event_id="e1", lease=later) is not None
    assert await services.messages.answer_later(stranger, ChatQuestion.OWED, event_id="e2", lease=later) is None
    assert (await services.patients.joined(payer)).id == payer.id
    await services.patients.set_reachable(payer, False, at=house.clock.now())
    await services.patients.set_reachable(payer, True, at=house.clock.now())
    assert {each.platform for each in await services.institutions.chat_accounts(here)} >= {"wechat_service"}
    official = await services.institutions.chat_account_on(here, "wechat_service")
    assert official is not None
    assert await services.messages.can_answer_later(official)
    with pytest.raises(NotFound):
        await services.institutions.chat_account_by_callback("nobody's")
    await house.settle(within=timedelta(minutes=1))
    sent = (await look(Message, status="sent", chat_account_id=official.id))[0]
    await services.messages.delivered(official, sent.platform_message_id, ok=False, code="failed", at=house.clock.now())
    await services.messages.delivered(official, "nobody's", ok=True, at=house.clock.now())

    # staff at work
    await walk_staff(house, payer, patient)

    # the rest, by hand
    await services.payments.forget_old_keys()
    await services.rotation.stale()
    await services.rotation.step()
    await services.adopting.walk(business_day(house.clock.now()))
    assert [head.number for head in await services.seals.seal_due()] == [1]
    assert len(await newest_heads()) == 1
    await services.messages.enqueue(payment, MessageKind.PAID, dedup_key="x", values={})
    await services.messages.enqueue_for(here, payer.id, MessageKind.PAID, dedup_key="y", values={})
    await services.cases.open(here, "k", "s")
    (message,) = await look(Message, dedup_key="x")
    raising = DueRow(id=message.id, institution_id=here, attempts=9, lease_until=house.clock.now(), holder="walk")
    await services.failing.failed("message", raising, LookupError())
    await services.failing.worked("message", raising)
    assert await services.failing.sweep() == 0
    await services.patients.payers_of(here, "", payment.his_patient_id)
    await services.patients.unbind(payer, patient)
    await house.bound(payer)
    (bound_again,) = await services.patients.payers_bound(payer, patient)
    assert bound_again.binding_id != bound_by.binding_id
    await services.patients.remove_binding(payer, patient, bound_again.binding_id)
    await with_claims(house)

    assert not watch.violations
    assert set(public_methods()) - called == set(), "a new service method: walk it here"
    assert watch.institutions == {here}
    touched = tenant_tables() - set(watch.tables)
    assert touched == set(), "a table that this story does not touch"


async def test_nothing_of_one_institution_is_there_for_another(watch: Watch) -> None:
    house = await House.build(settings={"paper_code": "his_asks"})
    payer = await house.payer()
    patient = await house.bound(payer)
    (site,) = await house.services.institutions.sites(house.institution_id)
    paper = await house.services.papers.read(await house.services.papers.link(site, house.bill()))
    await house.services.consents.give(payer, ConsentKind.PERSONAL, version="1", way="h5")
    await house.services.consents.give(payer, ConsentKind.SMS, version="1", way="h5", phone="19900000001")
    started = await house.start(payer, patient, house.bill())
    payment = await house.payment(started.order_no)
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    services = house.services
    (binding,) = await services.patients.payers_bound(payer, patient)
    payer.institution_id = other  # the same payer, as the other institution would know him
    for attempt in (
        services.patients.payers_bound(payer, patient),
        services.patients.remove_binding(payer, patient, binding.binding_id),
        services.bills.unpaid(other, payer.id, patient),
        services.bills.several(other, payer.id, patient, [("", "any")]),
        services.patients.check_bound(other, payer.id, patient),
        services.patients.access(other, payer.id, patient),
    ):
        with pytest.raises(PatientNotBound):
            await attempt
    stranger = Actor(staff_id=uuid4(), institution_id=other, code="1", roles=frozenset(Role))
    for hidden in (
        services.staff_refunds.options(stranger, started.order_no),
        services.staff_refunds.of_payment(stranger, started.order_no),
        services.staff_refunds.approve(stranger, "R" + "0" * 25),
        services.payments.of_payer(payer.id, other, started.order_no),
        services.payments.cancel(payer.id, other, started.order_no),
        services.payments.refreshed(payer.id, other, started.order_no),
        services.institutions.chat_account_by_app(other, house.mini_app_id),
        services.papers.look(paper, payer),
        services.papers.prove(paper, payer, "0001"),
        services.papers.by_barcode(payer, paper.his_bill_id),
    ):
        with pytest.raises(NotFound):
            await hidden
    for absent in (
        services.institutions.site(other, house.site_id),
        services.institutions.merchant(other, house.merchant_account_id),
        services.patients.masked_name(other, patient),
        services.returning.return_lines(payment.id, other),
    ):
        with pytest.raises(DoesNotExist):
            await absent
    with pytest.raises(ConsentNeeded):
        await services.consents.required(payer, ConsentKind.PERSONAL, version="1")
    assert await services.consents.given(payer) == []
    assert await services.consents.phone(payer) == ""
    assert await services.institutions.chat_accounts(other) == []
    assert await services.institutions.chat_account_on(other, "wechat_service") is None
    assert not await services.messages.can_write_to_phones(other)
    assert "安和医院" not in await services.answers.text(payer, ChatQuestion.PAID)
    assert await services.patients.bound(payer) == []
    assert await services.institutions.sites(other) == []
    assert await services.institutions.methods(other, scene=Scene.MOBILE, app_id=house.mini_app_id) == []
    assert await services.patients.his_ids(other, patient) == []
    assert await services.patients.payers_of(other, "", payment.his_patient_id) == []
    assert await services.payments.paid_list(payer.id, other, [patient]) == []
    assert await services.payments.bill_ended_elsewhere(other, "", "any") == []
    assert (await house.payment(started.order_no)).status is PaymentStatus.PENDING
