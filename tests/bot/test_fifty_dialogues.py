"""Fifty people at once on one real application, from the chat to the receipt, everything repeated and interleaved.

In the end each intent has one order in the channel's books, the books add up, and no line of the log names anybody.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from core.models import Payment, StaffCase
from simulators.hospital_stock import Person as HisPerson
from simulators.hospital_stock import id_card
from tests.miniprogram_api.web import paper_of
from tests.support.crowd import Crowd, EagerWeb, a_crowd
from tests.support.dialogues import ENGLISH, SCRIPTS, Talker
from tests.support.fakes import held
from tests.support.house import PUSH_AES_KEY, PUSH_TOKEN
from tests.support.watched_logs import Watched, watched_logs

PEOPLE = 50
SURNAMES = ("欧阳", "司徒", "诸葛", "上官", "皇甫", "尉迟", "公孙", "慕容", "令狐", "宇文")
GIVEN = ("婉嫣", "翊骁", "芷萱", "瑾瑜", "霁月")
MENU = [
    {"type": "click", "name": "缴费", "key": "zhenfu.owed"},
    {"type": "click", "name": "查询", "key": "zhenfu.paid"},
]

pytestmark = pytest.mark.timeout(300)


async def a_talker(crowd: Crowd, number: int, seed: int, *, english: bool, stack: AsyncExitStack) -> Talker:
    house, phone = crowd.house, f"1990123{number:04}"
    name = f"QUENTIN SAMPLE{number:02}" if english else SURNAMES[number % 10] + GIVEN[number // 10]
    document = ("passport", f"X9971{number:04}") if english else ("id_card", id_card("1971-03-04", 100 + number))
    person = HisPerson(
        patient_id=f"P77{number:03}",
        name=name,
        phones=(phone,),
        identifiers=(document, ("hospital_card", f"00177{number:03}")),
    )
    house.his.add_patient(person)
    user = house.chat.add_user(name, phone=phone)
    http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
    rng = random.Random(f"{seed}/{number}")
    talker = Talker(
        crowd=crowd,
        number=number,
        rng=rng,
        his=person,
        user=user,
        web=EagerWeb(
            house=house,
            base_url=crowd.base_url,
            http=http,
            user=user,
            rng=rng,
            language="en-GB,en;q=0.9" if english else "zh-CN,zh;q=0.9",
        ),
        english=english,
        amount_fen=3000 + 37 * number,
    )
    talker.bill_id = house.bill(person.patient_id, total_fen=talker.amount_fen)
    return talker


def drawn(seed: int) -> list[Any]:
    """A script for everybody, each at least once."""
    rng = random.Random(seed)
    scripts = [*SCRIPTS, *rng.choices(list(SCRIPTS), weights=list(SCRIPTS.values()), k=PEOPLE - len(SCRIPTS))]
    rng.shuffle(scripts)
    return scripts


@pytest.mark.parametrize("seed", [1])
async def test_fifty_people_at_once_end_well_and_are_never_named(tortoise: object, tmp_path: Path, seed: int) -> None:
    with watched_logs(tmp_path / "log") as watched:
        async with a_crowd(seed=seed) as crowd, AsyncExitStack() as stack:
            crowd.house.chat.record.apps[crowd.house.service_app_id].menu = MENU
            talkers = []
            scripts = drawn(seed)
            for number, script in enumerate(scripts):
                english = script in ENGLISH and random.Random(f"{seed}/{number}/english").random() < 0.3
                talkers.append(await a_talker(crowd, number, seed, english=english, stack=stack))
            ends = await asyncio.gather(
                *(script(talker) for script, talker in zip(scripts, talkers, strict=True)), return_exceptions=True
            )
            failed = [
                f"{number} {script.__name__}: {end!r:.300}"
                for number, (script, end) in enumerate(zip(scripts, ends, strict=True))
                if end is not None
            ]
            assert failed == [], "\n".join(failed)
            assert crowd.pushed_twice == []
        await crowd.house.settle(within=timedelta(hours=3))
        await books_add_up(crowd, talkers)
    assert {talker.end for talker in talkers} == {"receipt", "cancelled", "returned", "unbound"}
    nobody_is_named(crowd, talkers, watched)


HOSPITAL_FAULTS = (
    "answer_garbled", "answer_unsigned", "answer_forged", "answer_of_another_request", "outcome_unknown_word",
    "login_page", "error_500", "request_lost", "not_reached",
)  # fmt: skip


async def test_what_goes_wrong_names_nobody_either(tortoise: object, tmp_path: Path) -> None:
    """A HIS that answers in every wrong way, an app without its messages, and mistakes of our own."""
    with watched_logs(tmp_path / "log") as watched:
        async with a_crowd(seed=3) as crowd, AsyncExitStack() as stack:
            house = crowd.house
            patient, stranger = [await a_talker(crowd, n, 3, english=False, stack=stack) for n in (1, 2)]
            for talker in (patient, stranger):
                await talker.follows()
                talker.papers.append(await paper_of(house, talker.bill_id))
            await crowd.register(patient.user, patient.his)
            page = await stranger.web.submit(await stranger.web.get(f"/p/{stranger.papers[0]}"), "/consent")
            for fault in HOSPITAL_FAULTS:
                house.faults.rate(f"hospital.{fault}", 1)
                assert "不是没有账单" in await patient.says("缴费")
                await patient.web.get("/h/renhe/")
                await stranger.web.submit(page, "/factor", factor="0002")
                house.faults.clear()
                house.clock.advance(timedelta(minutes=6))  # until the HIS is asked again
            bound = await stranger.binds_as(house.his.patients["P10006"])
            assert bound.status == 422, bound.text
            for name in ("list_bills", "get_bill", "find_patients"):
                hospital = held(house.services.outside.hospitals, "rest")
                hospital.fail(name, RuntimeError("a mistake of ours"))
            house.chat.chat.say(patient.user, patient.app_id, "缴费")
            for address in ("/h/renhe/", f"/p/{stranger.papers[0]}"):
                await patient.web.once("GET", address)
            await crowd.pause(2)
    written = watched.written()
    assert {line["event"] for line in written if "error_lines" in line} >= {"chat_push_failed", "page_failed"}
    both = [patient, stranger]
    assert watched.leaks(personal_of(crowd, both) | secrets_of(crowd, both)) == []


async def books_add_up(crowd: Crowd, talkers: list[Talker]) -> None:
    """One order per intent at the channel, one booking at the HIS, and ours the same to the fen."""
    house = crowd.house
    books, his = house.pay.books(), house.his.books()["bills"]
    orders: dict[str, list[dict[str, Any]]] = {talker.user: [] for talker in talkers}
    people = {house.chat.open_id(talker.user, house.service_app_id): talker.user for talker in talkers}
    for order in books["orders"]:
        orders[people[order["payer_openid"]]].append(order)
    for talker in talkers:
        own, bill = orders[talker.user], his[talker.bill_id]
        paid = [order for order in own if order["taken_fen"]]
        assert (len(own), len(paid)) == (talker.orders_wanted, talker.paid_wanted), talker.number
        assert {order["total_fen"] for order in own} <= {talker.amount_fen}
        assert all(order["state"] == "CLOSED" for order in own if order not in paid)
        stands = talker.paid_wanted - talker.returned
        assert [booked["amount_fen"] for booked in bill["bookings"]] == [talker.amount_fen] * stands
        assert sum(order["refunded_fen"] for order in own) == talker.amount_fen * talker.returned
        assert bool(talker.end), talker.number
    payments = await Payment.filter(institution_id=house.institution_id)
    assert Counter(payment.order_no for payment in payments) == Counter(o["out_trade_no"] for o in books["orders"])
    taken = {order["out_trade_no"]: (order["taken_fen"], order["refunded_fen"]) for order in books["orders"]}
    assert {payment.order_no: (payment.paid_fen, payment.refunded_fen) for payment in payments} == taken
    kept = sum(fen - back for fen, back in taken.values())
    assert kept == sum(booked["amount_fen"] for bill in his.values() for booked in bill["bookings"])
    assert kept == sum(talker.amount_fen for talker in talkers if talker.end == "receipt")
    assert await StaffCase.filter(institution_id=house.institution_id).count() == 0


def secrets_of(crowd: Crowd, talkers: list[Talker]) -> set[str]:
    """Keys, tokens, codes, cookies."""
    house = crowd.house
    secrets = {PUSH_TOKEN, PUSH_AES_KEY, house.sms.account.secret_key, house.sms.account.secret_id}
    secrets |= set(house.his.keys.values())
    for app in house.chat.record.apps.values():
        secrets |= {app.secret, *app.tokens}
        if app.callback:
            secrets.add(app.callback.url.rpartition("/")[2])
    for talker in talkers:
        secrets |= {*talker.codes, *talker.papers, *talker.web.secrets}
    return secrets


def personal_of(crowd: Crowd, talkers: list[Talker]) -> set[str]:
    house, personal = crowd.house, set[str]()
    for talker in talkers:
        personal |= {talker.his.name, *talker.his.phones, *(number for _, number in talker.his.identifiers)}
        personal |= {house.chat.open_id(talker.user, app) for app in (house.mini_app_id, house.service_app_id)}
        personal |= {house.chat.union_id(talker.user), talker.his.patient_id}
    return personal


def nobody_is_named(crowd: Crowd, talkers: list[Talker], watched: Watched) -> None:
    personal = personal_of(crowd, talkers)
    assert watched.leaks(personal | secrets_of(crowd, talkers)) == []
    written = watched.written()
    assert [line for line in written if line["level"] in {"error", "critical"}] == []
    routes = Counter(line["route"] for line in written if line["event"] == "request")
    assert routes.total() > 15 * PEOPLE
    assert set(routes) <= crowd.routes | {""}, "an address in place of its template"
    addresses = [address for talker in talkers for address in talker.web.addresses]
    codes = {code for talker in talkers for code in talker.codes}
    assert [each for each in addresses if any(secret in each for secret in personal | codes)] == []


def test_the_watch_sees_what_it_must(tmp_path: Path) -> None:
    import logging

    log = logging.getLogger("zhenfu.test")
    with watched_logs(tmp_path / "log") as watched:
        log.debug("seen", extra={"fields": {"who": "尉迟霁月"}})
        log.info("seen", extra={"fields": {"phone": "19901230001"}})
        try:
            raise ValueError("token-of-a-paper")
        except ValueError:
            log.exception("seen")
        logging.getLogger("aiohttp.test").warning("042137")
        log.info("0421370 and 1042137")
    for secret, lines in (("尉迟霁月", 2), ("19901230001", 1), ("token-of-a-paper", 2), ("042137", 1), ("皇甫婉嫣", 0)):
        assert len(watched.leaks([secret])) == lines, secret
