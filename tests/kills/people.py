"""What patients and relatives do with their phones, over HTTP and through whatever dies there."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp

from simulators.faults import chance
from simulators.hospital_books import Refusal
from tests.crash.people import KINDS
from tests.crash.world import MCHID, METHOD, Phone

if TYPE_CHECKING:
    from tests.kills.town import Town

TRIES_MAX = 5
AGAIN = frozenset({"amount_changed", "hospital_unavailable", "channel_unavailable", "still_working", "internal_error"})
PASSING = frozenset({"busy", "refused", "expired"})
Json = dict[str, Any]


class GaveUp(Exception):
    """This person tries no more."""


class NoAnswer(Exception):
    """The line went dead, or our server said that it does not know."""


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    body: Json

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))


async def visits(town: Town) -> None:
    """All visits of the day; returns when everybody has gone home."""
    async with asyncio.TaskGroup() as group:
        for number in range(town.world.day.visits + 1):
            draw = random.Random(f"{town.world.day.seed}/visit/{number}")
            group.create_task(_visit(town, number, draw))


async def _visit(town: Town, number: int, draw: random.Random) -> None:
    """A doctor prescribes, somebody pays, others meddle."""
    world, day = town.world, town.world.day
    await town.sleep(draw.uniform(0, 240))
    patient = draw.choice(sorted({his_id for phone in world.phones for his_id in phone.patients}))
    payers = [phone for phone in world.phones if patient in phone.patients]
    bills = [_prescribe(town, patient, draw) for _ in range(draw.choice((1, 1, 2, 3)))]
    together = day.merge and len(bills) > 1 and draw.random() < 0.7
    groups = [tuple(bills)] if together else [(bill,) for bill in bills]
    async with asyncio.TaskGroup() as group:
        for part, wanted in enumerate(groups):
            key = f"visit{number}.{part}"
            group.create_task(_pay(town, draw.choice(payers), patient, wanted, draw, key))
            if draw.random() < day.rivals:  # a relative, or the same person on another device
                group.create_task(_pay(town, draw.choice(payers), patient, wanted, draw, f"{key}b"))
        for bill in bills:
            if draw.random() < day.meddling:
                group.create_task(_meddle(town, bill, draw))


def _prescribe(town: Town, patient: str, draw: random.Random) -> str:
    options: dict[str, Any] = {"kind": draw.choice(KINDS)}
    if draw.random() < 0.06:
        options["total_fen"] = draw.choice((0, 1))
    if town.world.day.insured and draw.random() < 0.3:
        options["insured"] = True
    town.count("bills")
    bill = town.world.his.issue_bill(patient, **options)
    town.note("hospital", f"issues {bill} for {town.world.his.bills[bill].to_pay_fen} fen to {patient}")
    return bill


async def _meddle(town: Town, bill: str, draw: random.Random) -> None:
    """Something happens to a bill that somebody may be paying."""
    await town.sleep(draw.uniform(0, 150))
    what = draw.choice(("cancels", "takes the money at the window", "changes the amount"))
    force = draw.random() < 0.3  # a HIS that does not keep its own locks
    his = town.world.his
    try:
        if what == "cancels":
            his.cancel(bill, force=force)
        elif what == "changes the amount":
            his.change_amount(bill, his.bills[bill].to_pay_fen + 100, force=force)
        else:
            his.window_pay(bill, force=force)
    except Refusal as refusal:
        town.count(f"hospital refused itself: {refusal.code}")
    else:
        town.count(f"hospital {what}")
        town.note("hospital", f"{what}: {bill}")


async def _pay(town: Town, phone: Phone, patient: str, bills: tuple[str, ...], draw: random.Random, key: str) -> None:
    await town.sleep(draw.uniform(0, 60))
    try:
        await Payer(town, phone, patient, bills, random.Random(f"{town.world.day.seed}/{key}"), key).pay()
    except GaveUp:
        town.count("gave up")
        town.note(phone.name, "gives up")


class Payer:
    """One person who pays these bills, or tries to."""

    def __init__(
        self, town: Town, phone: Phone, patient: str, bills: tuple[str, ...], draw: random.Random, key: str
    ) -> None:
        self.town, self.phone, self.bills, self.draw, self.key = town, phone, bills, draw, key
        self.patient_id = phone.patients[patient]
        self.despite_open = False
        self.asked = 0

    async def pay(self) -> None:
        for attempt in range(1, TRIES_MAX + 1):
            started = await self._start(attempt)
            if started is None:
                continue
            if started["pay"] is None or await self._at_the_sheet(started):
                return
        raise GaveUp

    # --- asking our server ---

    async def ask(self, method: str, path: str, body: Json | None = None, *, key: str = "") -> Said:
        """Again when there is no answer. Raises GaveUp."""
        self.asked += 1
        for attempt in range(TRIES_MAX):
            try:
                return await self.once(method, path, body, key=key)
            except NoAnswer:
                self.town.count("phone met silence")
                wait = chance(self.town.world.day.seed, "phone waits", self.key, self.asked, attempt)
                await self.town.sleep(1 + 20 * wait)
        raise GaveUp

    async def once(self, method: str, path: str, body: Json | None, *, key: str) -> Said:
        headers = {"authorization": f"Bearer {await self._token()}"} if path != "sessions/" else {}
        if key:
            headers["idempotency-key"] = key
        said = await self.town.request(method, f"/api/v1/{path}", headers=headers, body=body)
        if said.code == "not_signed_in":
            self.town.forget_token(self.phone.name)
            raise NoAnswer
        if said.status >= 500 and said.code not in AGAIN:
            raise NoAnswer
        return said

    async def _token(self) -> str:
        known = self.town.token(self.phone.name)
        if known:
            return known
        world = self.town.world
        code = world.chat.new_login_code(world.users[self.phone.name], world.mini.app_id)
        body = {"institution": "renhe", "app_id": world.mini.app_id, "code": code}
        said = await self.once("POST", "sessions/", body, key="")
        if said.status != 201:
            raise NoAnswer
        self.town.keep_token(self.phone.name, str(said.body["token"]))
        return str(said.body["token"])

    async def _start(self, attempt: int) -> Json | None:
        """A pay sheet; None when this attempt came to nothing."""
        his = self.town.world.his
        body = {
            "patient_id": str(self.patient_id),
            "bills": [{"branch": "", "bill_id": bill} for bill in self.bills],
            "shown_fen": sum(his.bills[bill].to_pay_fen for bill in self.bills),
            "method": METHOD,
            "accept_self_paid": True,
            "despite_open": self.despite_open,
        }
        if self.draw.random() < 0.2:
            await self.ask("GET", f"patients/{self.patient_id}/bills")
        key = f"{self.key}/{attempt}"
        if self.draw.random() < 0.15:  # a second tap before the first has an answer
            taps = (self.ask("POST", "payments/", body, key=key) for _ in range(2))
            answers = await asyncio.gather(*taps, return_exceptions=True)
            good = [answer for answer in answers if isinstance(answer, Said)]
            if not good:
                raise GaveUp
            said = min(good, key=lambda answer: answer.status)
        else:
            said = await self.ask("POST", "payments/", body, key=key)
        if said.status in (200, 201):
            self.town.note(self.phone.name, f"has a pay sheet {said.body['order_no']} for {self.bills}")
            return said.body
        await self._refused(said)
        return None

    async def _refused(self, said: Said) -> None:
        reason = str(said.body.get("reason", ""))
        self.town.count(f"told the phone: {said.code} {reason}".rstrip())
        self.town.note(self.phone.name, f"is told {said.code} {reason}")
        if said.code in AGAIN:
            await self.pause(3, 60)
        elif said.code == "payment_open_elsewhere":
            if self.draw.random() < 0.6:
                self.despite_open = True
                self.town.world.knowingly.update(self.bills)
            await self.pause(3, 60)
        elif said.code == "bill_not_payable" and reason in PASSING:
            await self.pause(20, 90)
        elif said.status in (400, 401, 404, 405, 413, 422):
            self.town.complain(f"{self.phone.name} was told {said.status} {said.body}")
            raise GaveUp
        else:
            raise GaveUp

    # --- the pay sheet ---

    async def _at_the_sheet(self, started: Json) -> bool:
        """True when this person is done."""
        what = self.draw.choices(
            ("pays", "pays late", "pays much too late", "cancels", "forgets", "asks and pays"), (10, 3, 2, 2, 1, 3)
        )[0]
        self.town.count(f"phone {what}")
        own = f"payments/{started['order_no']}"
        if what == "pays":
            await self.pause(2, 40)
        elif what == "pays late":
            left = (datetime.fromisoformat(started["expires_at"]) - self.town.clock.now()).total_seconds()
            await self.town.sleep(max(left + self.draw.uniform(-3, 1), 0))
        elif what == "pays much too late":
            await self.pause(200, 500)
        elif what == "cancels":
            await self.pause(2, 30)
            await self.ask("POST", f"{own}/cancel")
            if self.draw.random() < 0.4:  # … and taps "pay" after all
                self._confirm(started)
            return self.draw.random() < 0.3
        elif what == "forgets":
            return True
        else:
            await self.pause(1, 5)
            await self.ask("GET", own)
        paid = self._confirm(started)
        for _ in range(self.draw.randint(0, 2)):
            await self.pause(0.9, 1.3)  # just when the channel's notice arrives
            await self.ask("GET", own)
        return paid or self.draw.random() < 0.5

    def _confirm(self, started: Json) -> bool:
        world = self.town.world
        self._twist(started["order_no"])
        result = world.pay.pay_with(dict(started["pay"]["values"]), self.phone.open_id)
        self.town.count(f"sheet: {result}")
        self.town.note(self.phone.name, f"confirms {started['order_no']}: {result}")
        return result in {"paid", "already_paid"}

    def _twist(self, order_no: str) -> None:
        """What no document provides for: another amount than was asked for, a closed order that can be paid."""
        world = self.town.world
        order = world.pay.orders.get((MCHID, order_no))
        if order is None or order.paid_at is not None:
            return
        if order.closed_at is None:
            if self.draw.random() < world.day.wrong_amounts:
                amount = order.asked["amount"]
                order.asked = order.asked | {"amount": amount | {"total": amount["total"] + 7}}
                self.town.count("wrong amounts taken")
        elif self._may_be_revived():
            order.closed_at = None
            reference = world.pay.references[order.current_reference]
            reference.valid_until = max(reference.valid_until, self.town.clock.now() + timedelta(minutes=1))
            world.knowingly.update(self.bills)
            self.town.count("closed orders revived")

    def _may_be_revived(self) -> bool:
        day = self.town.world.day
        told = "wechatpay.notice_lost" not in day.rates  # else only a statement could tell us
        return told and self.draw.random() < day.revivals

    async def pause(self, low: float, high: float) -> None:
        await self.town.sleep(self.draw.uniform(low, high))


async def fetch(
    session: aiohttp.ClientSession, method: str, url: str, *, headers: dict[str, str], body: Json | None
) -> Said:
    """Raises NoAnswer."""
    try:
        async with session.request(method, url, headers=headers, json=body, allow_redirects=False) as answer:
            said = await answer.json() if answer.content_type == "application/json" else {}
            return Said(answer.status, said.get("error", said))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise NoAnswer from error
