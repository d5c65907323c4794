"""Leads a fault through a flow and says how it ended; compares that with the listing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from core.consents import ConsentKind
from core.invariants import check_invariants
from core.models import HospitalSiteRow, Payment
from core.transactions import rows
from simulators.faults import Fault
from tests.faults.acts import ACTS
from tests.faults.catalogue import ALL, PATIENCE, PATIENCE_OF, SEEN_IN_STATEMENT, Act
from tests.faults.flows import FLOWS
from tests.faults.stage import Hooked, Stage
from tests.support.house import House
from tests.support.postgres import Database
from tests.support.refunding import CLERK, HEAD, staff

NONE, SAME = "none", "same"
RIDERS = ("wechat", "sms")
OF_MESSAGES = "messages_misconfigured"  # a case that a riding fault of messages may leave
BASELINE = "nothing goes wrong"
PHONE = "13800000009"
FOLDER = Path(__file__).parent / "ends"
DAY = timedelta(days=1)


@asynccontextmanager
async def a_stage(database: Database) -> AsyncIterator[Stage]:
    """On a database whose models are open already; at a HIS that books twice what is sent twice without asking."""
    house = await House.build(weak=True, sms=True, settings={"merge": True, "paper_code": "his_asks"})
    payer, relative = await house.payer(), await house.payer("王小红", "19900000001")
    stranger = await house.payer("过路人", "19900000099")
    texter = await house.payer("王大明", "19900000001")
    house.chat.unfollow(house.user_of(texter), house.service_app_id)
    await house.services.consents.give(texter, ConsentKind.SMS, version="1", way="h5", phone=PHONE)
    patient_id = await house.bound(payer)
    for other in (relative, texter):
        await house.bound(other)
    superuser = await asyncpg.connect(**database.superuser_credentials)
    hooked = Hooked(house.transport.inner, house)
    house.transport.inner = hooked
    stage = Stage(
        house=house,
        payer=payer,
        relative=relative,
        stranger=stranger,
        texter=texter,
        patient_id=patient_id,
        clerk=await staff(house, "1001", CLERK),
        head=await staff(house, "1002", HEAD),
        superuser=superuser,
        hooked=hooked,
    )
    setattr(house.faults, "pick", stage.aim.pick)  # noqa: B010
    try:
        await stage.rest()
        yield stage
    finally:
        await superuser.close()


async def walk(stage: Stage, flow: str, faults: Sequence[Fault | Act]) -> str:
    """How the flow ends that these faults may strike; raises AssertionError where books or rows are not in order."""
    await _tidy(stage)
    began = stage.house.clock.now()
    stage.aim.at([fault for fault in faults if isinstance(fault, Fault)])
    stage.patience = max((PATIENCE_OF.get(fault.name, PATIENCE) for fault in faults), default=PATIENCE)
    for act in (fault for fault in faults if isinstance(fault, Act)):
        stage.act, stage.act_moment = ACTS[act.name], act.moment
    off_before = await _off(stage)
    await stage.moment("begin")
    await FLOWS[flow](stage)
    end = await _end(stage, began, alone=len(faults) < 2)
    excused = "case=-" not in end or any(flow in SEEN_IN_STATEMENT.get(fault.name, ()) for fault in faults)
    problems = [*await _books(stage, has_case=excused), *sorted(await _off(stage) - off_before)]
    assert not problems, f"{end}: {problems}"
    return end


async def _tidy(stage: Stage) -> None:
    """A new morning, on which nobody waits for what the day before has left open."""
    house = stage.house
    for loop in house.loops():
        await stage.superuser.execute(f"UPDATE {loop.table} SET due_at = NULL WHERE due_at IS NOT NULL")
    house.pay.deliveries.waiting.clear()
    house.his.deliveries.waiting.clear()
    house.tokens.forget()  # type: ignore[attr-defined]
    for person in (stage.payer, stage.relative, stage.stranger):
        house.chat.follow(house.user_of(person), house.service_app_id)
    await HospitalSiteRow.filter(institution_id=house.institution_id).update(maintenance=[])
    now = house.clock.now()
    morning = datetime(now.year, now.month, now.day, 2, tzinfo=UTC) + DAY
    house.clock.advance(morning - now)
    stage.bills, stage.started, stage.at_hand, stage.act, stage.acted = [], None, None, None, 0
    stage.hooked.hook = None


# ---------------------------------------------------------------- the end


async def _end(stage: Stage, began: datetime, *, alone: bool) -> str:
    """Payments with lines and refunds, what their payers were told, how often bills stay booked, the cases left.

    A message that the platform refuses counts as told: the page says the same.
    """
    here = stage.house.institution_id
    payments = await _payments(stage)
    parts = []
    for payment in payments:
        of = "institution_id = $1 AND payment_id = $2"
        lines = await rows(f"SELECT status FROM payment_line WHERE {of} ORDER BY position", here, payment.id)
        refunds = await rows(f"SELECT status FROM refund WHERE {of} ORDER BY id", here, payment.id)
        told = await rows(f"SELECT DISTINCT kind, status = 'queued' AS waits FROM message WHERE {of}", here, payment.id)
        words = [str(payment.status), *sorted(str(row["status"]) for row in lines)]
        words += [f"refund-{row['status']}" for row in refunds]
        words += sorted(f"told-{row['kind']}{'-later' if row['waits'] else ''}" for row in told)
        parts.append(" ".join(words))
    cases = await rows(
        "SELECT DISTINCT kind FROM staff_case WHERE institution_id = $1 AND status = 'open' AND opened_at >= $2"
        " ORDER BY kind",
        here,
        began,
    )
    booked = sorted(sum(not one.reversed for one in stage.house.his.bills[bill].booked) for bill in stage.bills)
    kinds = [str(row["kind"]) for row in cases]
    left = ",".join(kind for kind in kinds if alone or kind != OF_MESSAGES) or "-"
    return f"{' + '.join(sorted(parts)) or 'no payment'}; booked={','.join(map(str, booked))} case={left}"


async def _payments(stage: Stage) -> list[Payment]:
    found = await rows(
        "SELECT DISTINCT payment_id FROM payment_line WHERE institution_id = $1 AND his_bill_id = ANY ($2::text[])",
        stage.house.institution_id,
        stage.bills,
    )
    return await Payment.filter(
        institution_id=stage.house.institution_id, id__in=[row["payment_id"] for row in found]
    ).order_by("created_at", "id")


async def _books(stage: Stage, *, has_case: bool) -> list[str]:
    """The channel's, the HIS's and ours: taken = booked + given back, order by order, unless a person must look."""
    stage.house.pay.advance()
    wrong = []
    booked: defaultdict[str, int] = defaultdict(int)
    for bill in stage.bills:
        mobile = [one for one in stage.house.his.bills[bill].booked if one.paid_by == "mobile"]
        if len(mobile) > 1:
            wrong.append(f"{bill} is booked {len(mobile)} times")
        for one in mobile:
            booked[one.order_no] += one.amount_fen - one.returned_fen
    books = {order["out_trade_no"]: order for order in stage.house.pay.books()["orders"]}
    for payment in await _payments(stage):
        order = books.get(payment.order_no)
        taken, given_back = (order["taken_fen"], order["refunded_fen"]) if order else (0, 0)
        if taken < booked[payment.order_no] + given_back and not has_case:
            wrong.append(f"{payment.order_no}: the channel has taken {taken}, more has gone")
        if not has_case and (taken, given_back) != (payment.paid_fen, payment.refunded_fen):
            wrong.append(
                f"{payment.order_no}: channel {taken} {given_back}, we {payment.paid_fen} {payment.refunded_fen}"
            )
        if not has_case and taken != booked[payment.order_no] + given_back:
            wrong.append(f"{payment.order_no}: taken {taken}, booked {booked[payment.order_no]}, back {given_back}")
        balances = await rows(
            "SELECT sum(CASE WHEN debit = 'channel_receivable' THEN amount_fen WHEN credit = 'channel_receivable'"
            " THEN -amount_fen ELSE 0 END)::bigint AS channel, sum(CASE WHEN credit = 'his_confirmed' THEN amount_fen"
            " WHEN debit = 'his_confirmed' THEN -amount_fen ELSE 0 END)::bigint AS hospital"
            " FROM transfer WHERE institution_id = $1 AND payment_id = $2",
            payment.institution_id,
            payment.id,
        )
        ledger = (balances[0]["channel"] or 0, balances[0]["hospital"] or 0)
        if not has_case and ledger != (taken - given_back, booked[payment.order_no]):
            wrong.append(f"{payment.order_no}: the ledger says {ledger}")
    return wrong


async def _off(stage: Stage) -> set[str]:
    """Identities that do not hold, with their places."""
    outcomes = await check_invariants(stage.superuser)
    return {f"{outcome.identity} {place}" for outcome in outcomes for place in outcome.places}


# ---------------------------------------------------------------- the listing


async def walked(
    stage: Stage, flow: str, groups: Sequence[Sequence[Fault | Act]], listing: Mapping[str, str]
) -> AsyncIterator[str]:
    """What does not end as listed, after the flow itself without any fault."""
    if (end := await walk(stage, flow, [])) != listing[BASELINE]:
        yield f"{flow} without a fault ends as {end}"
    for group in groups:
        for wrong in wrong_with(stage, group, await walk(stage, flow, group), listing):
            yield wrong


def plan(listing: Mapping[str, str]) -> list[list[Fault | Act]]:
    """Which faults are led through a flow together: all that must not touch it, and each other one by itself.

    Messages move no money: a fault of the chat and one of the text messages that change nothing ride along with one
    of another counterparty that changes nothing either.
    """
    listed_as = {fault.name: listing.get(fault.name, NONE) for fault in ALL}
    untouched = [fault for fault in ALL if isinstance(fault, Fault) and listed_as[fault.name] == NONE]
    alone = [[fault] for fault in ALL if fault not in untouched]
    carriers = [
        group
        for group in alone
        if listed_as[group[0].name] == SAME and area_of(group[0]) not in RIDERS and _is_calm(group)
    ]
    groups: list[list[Fault | Act]] = [list(untouched), *alone]
    for area in RIDERS:
        riders = [group for group in alone if area_of(group[0]) == area and listed_as[group[0].name] == SAME]
        for carrier, rider in zip(carriers, riders, strict=False):
            carrier.extend(rider)
            groups.remove(rider)
    return [group for group in groups if group]


def area_of(fault: Fault | Act) -> str:
    return fault.name.partition(".")[0]


def _is_calm(group: Sequence[Fault | Act]) -> bool:
    """A fault of the channel itself: it takes no message away."""
    return isinstance(group[0], Fault) and area_of(group[0]) == "wechatpay"


def wrong_with(stage: Stage, group: Sequence[Fault | Act], end: str, listing: Mapping[str, str]) -> list[str]:
    """Where an end is not the listed one."""
    wrong = []
    for fault in group:
        wanted = listing.get(fault.name, "")
        struck = stage.aim.struck[fault.name] if isinstance(fault, Fault) else stage.acted
        expected = listing[BASELINE] if wanted in {NONE, SAME} else wanted
        if end != expected:
            wrong.append(f"{fault.name}: {end} instead of {expected or 'an entry in the listing'}")
        if area_of(fault) in RIDERS:
            continue  # which message it meets, if any, is chance: new bills are told to whole families
        if wanted != NONE and not struck:
            wrong.append(f"{fault.name} has not struck")
        if wanted == NONE and struck:
            wrong.append(f"{fault.name} has struck")
    return wrong


def listed(flow: str) -> dict[str, str]:
    """Fault → its end in this flow."""
    path = FOLDER / f"{flow}.txt"
    if not path.exists():
        return {}
    pairs = (line.partition(": ") for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {name: end for name, _, end in pairs}


def write_listing(flow: str, ends: dict[str, Any]) -> None:
    text = "".join(f"{name}: {end}\n" for name, end in ends.items())
    (FOLDER / f"{flow}.txt").write_text(text, encoding="utf-8")
