"""What the page's buttons do and what its screens show, on the simulators of this process."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from simulators.console.comparing import BILL_STATES, compare, totals
from simulators.console.world import ConsoleWorld, Person
from simulators.hospital_books import HisBill
from simulators.hospital_stock import DOCTORS, KINDS, Doctor

AMOUNT_FEN_MAX = 1_000_000_00
ROWS_MAX = 40
BILLS_MAX = 12
MESSAGES_MAX = 50
CLOCK_STEPS_MINUTES = frozenset({1, 10, 24 * 60})
SLOW_SHEET_SECONDS = 8.0
ONE_TIME_GRANTS = 20  # of each template, as if the phone had been asked that often
CHILD_DAYS = 14 * 365
VALID_DAYS = 3  # a bill of the desk lives over midnight, whenever somebody plays

COUNTERPARTIES = {"wechatpay": "微信支付", "hospital": "医院 HIS", "wechat": "微信平台"}

Fields = Mapping[str, Any]


class Mistake(Exception):
    """The page asked for something that cannot be done; the text is shown."""


class Acts:
    """One method for each thing a person can do here."""

    def __init__(self, world: ConsoleWorld) -> None:
        self._world = world
        self._people = {person.key: person for person in world.people}
        self._scripted: Counter[str] = Counter()  # faults arranged for the next call
        self._struck_before: dict[str, int] = {}
        self.posts: Mapping[str, Callable[[Fields], Awaitable[dict[str, Any]]]] = {
            "desk/issue": self.issue,
            "desk/window-pay": self.window_pay,
            "desk/window-reverse": self.window_reverse,
            "desk/cancel": self.cancel,
            "desk/change-amount": self.change_amount,
            "phone/login-code": self.login_code,
            "phone/phone-code": self.phone_code,
            "phone/allow-messages": self.allow_messages,
            "phone/pay-sheet": self.pay_sheet,
            "phone/pay": self.pay,
            "clock": self.move_clock,
            "faults": self.set_fault,
            "faults/clear": self.clear_faults,
        }

    # ------------------------------------------------------------ what the page shows

    async def state(self, asked: Fields) -> dict[str, Any]:
        """Everything that the page looks at again and again, in one answer."""
        world, person = self._world, self._person(asked)
        try:
            ours, ours_known = await world.our_books(), True
        except Exception:  # whatever keeps the product's books closed, the page goes on without them
            ours, ours_known = {}, False
        # Read after ours and without a pause: what happens meanwhile makes ours late, never wrong.
        his, pay = world.hospital.books(), world.wechatpay.books()
        rows = compare(his, pay, ours) if ours_known else []
        now = world.clock.now()
        return {
            "now": now.isoformat(),
            "offset_seconds": int(world.clock.offset().total_seconds()),
            "messages": self._messages(person),
            "bills": self._bills(person, now),
            "ours_known": ours_known,
            "rows": [row.shown() for row in rows[:ROWS_MAX]],
            "totals": totals(his, pay, ours),
            "cases": list(ours.get("cases", [])),
            "due": list(ours.get("due", [])),
            "faults_on": self._faults_on(),
        }

    def _messages(self, person: Person) -> list[dict[str, Any]]:
        wechat = self._world.wechat
        shown = [
            {**message.shown(), "app_kind": kind}
            for kind, app_id in (
                ("service", self._world.service_app_id),
                ("miniprogram", self._world.miniprogram_app_id),
            )
            for message in wechat.inbox(wechat.open_id(person.open_id_user_key, app_id))
        ]
        return sorted(shown, key=lambda message: str(message["at"]))[-MESSAGES_MAX:]

    def _bills(self, person: Person, now: datetime) -> list[dict[str, Any]]:
        mine = [bill for bill in self._world.hospital.bills.values() if bill.patient_id in person.his_patient_ids]
        mine.sort(key=lambda bill: (bill.issued_at, bill.bill_id), reverse=True)
        return [_bill_shown(bill, now) for bill in mine[:BILLS_MAX]]

    async def faults(self, asked: Fields) -> dict[str, Any]:
        """The catalogue, by counterparty, each with what is set and how often it struck."""
        faults = self._world.faults
        return {
            "groups": [
                {
                    "counterparty": counterparty,
                    "title": title,
                    "faults": [
                        {
                            "name": fault.name,
                            "title": fault.title_zh,
                            "needs_person": fault.needs_person,
                            "mode": self._mode(fault.name),
                            "struck": faults.struck[fault.name],
                        }
                        for fault in faults.catalogue.values()
                        if fault.counterparty == counterparty
                    ],
                }
                for counterparty, title in COUNTERPARTIES.items()
            ]
        }

    def _mode(self, name: str) -> str:
        if self._world.faults.rates.get(name, 0.0) > 0:
            return "always"
        struck = self._world.faults.struck[name] - self._struck_before.get(name, 0)
        return "once" if self._scripted[name] > struck else "off"

    def _faults_on(self) -> list[dict[str, str]]:
        return [
            {"name": name, "title": fault.title_zh, "mode": mode}
            for name, fault in self._world.faults.catalogue.items()
            if (mode := self._mode(name)) != "off"
        ]

    # ------------------------------------------------------------ the doctor's desk and the window

    async def issue(self, asked: Fields) -> dict[str, Any]:
        person, kind = self._person(asked), str(asked.get("kind", "western"))
        if kind not in KINDS:
            raise Mistake("没有这种处方")
        amount = str(asked.get("amount", "")).strip()
        patient = self._world.hospital.patients[person.his_patient_ids[0]]
        bill_id = self._world.hospital.issue_bill(
            patient.patient_id,
            kind=kind,
            doctor=_doctor_for(kind, patient.birth_date, self._world.clock.now()),
            total_fen=_fen(amount) if amount else None,
            insured=bool(asked.get("insured")),
            treat_first=bool(asked.get("treat_first")),
            valid_days=VALID_DAYS,
        )
        bill = self._world.hospital.bills[bill_id]
        return {"bill_id": bill_id, "title": bill.kind.title, "to_pay_fen": bill.to_pay_fen}

    async def window_pay(self, asked: Fields) -> dict[str, Any]:
        return {"receipt_no": self._world.hospital.window_pay(str(asked.get("bill_id", "")))}

    async def window_reverse(self, asked: Fields) -> dict[str, Any]:
        return {"red_receipt_no": self._world.hospital.reverse_at_window(str(asked.get("bill_id", "")))}

    async def cancel(self, asked: Fields) -> dict[str, Any]:
        self._world.hospital.cancel(str(asked.get("bill_id", "")))
        return {}

    async def change_amount(self, asked: Fields) -> dict[str, Any]:
        fen = _fen(str(asked.get("amount", "")).strip())
        self._world.hospital.change_amount(str(asked.get("bill_id", "")), fen)
        return {"to_pay_fen": fen}

    # ------------------------------------------------------------ the phone

    async def login_code(self, asked: Fields) -> dict[str, Any]:
        """wx.login."""
        person = self._person(asked)
        return {"code": self._world.wechat.new_login_code(person.open_id_user_key, self._world.miniprogram_app_id)}

    async def phone_code(self, asked: Fields) -> dict[str, Any]:
        """The phone button (getPhoneNumber)."""
        person = self._person(asked)
        return {"code": self._world.wechat.new_phone_code(person.open_id_user_key, self._world.miniprogram_app_id)}

    async def allow_messages(self, asked: Fields) -> dict[str, Any]:
        """wx.requestSubscribeMessage, answered with "always": every template of the mini program may be sent."""
        person, app_id = self._person(asked), self._world.miniprogram_app_id
        apps: list[dict[str, Any]] = self._world.wechat.books()["apps"]
        templates = [template_id for app in apps if app["appid"] == app_id for template_id in app["templates"]]
        for template_id in templates:
            self._world.wechat.grant(person.open_id_user_key, app_id, template_id, times=ONE_TIME_GRANTS)
        return {"allowed": len(templates)}

    async def pay_sheet(self, asked: Fields) -> dict[str, Any]:
        """wx.requestPayment up to the sheet: WeChat checks the signed parameters and shows its own amount."""
        params = _params(asked)
        refused = self._world.wechatpay.check_pay_params(params, appid=self._world.miniprogram_app_id)
        if refused is not None:
            raise Mistake(f"微信拒绝打开支付：{refused}")
        prepay_id = str(params["package"]).removeprefix("prepay_id=")
        order = next(
            (order for order in self._world.wechatpay.orders.values() if order.current_reference == prepay_id), None
        )
        if order is None:
            raise Mistake("微信支付没有这笔订单")
        return {
            "order_no": order.out_trade_no,
            "amount_fen": order.total_fen,
            "description": str(order.asked["description"]),
            "payee": self._world.institution_name,
            "expires_at": order.expires_at.isoformat(),
        }

    async def pay(self, asked: Fields) -> dict[str, Any]:
        """The person confirms or closes the sheet; `how`: confirm, cancel, slow."""
        person, how, params = self._person(asked), str(asked.get("how", "")), _params(asked)
        if how not in {"confirm", "cancel", "slow"}:
            raise Mistake("不认识的操作")
        if how == "slow":
            await asyncio.sleep(SLOW_SHEET_SECONDS)
        open_id = self._world.wechat.open_id(person.open_id_user_key, self._world.miniprogram_app_id)
        return {"result": self._world.wechatpay.pay_with(params, open_id, confirm=how != "cancel")}

    # ------------------------------------------------------------ clock and faults

    async def move_clock(self, asked: Fields) -> dict[str, Any]:
        minutes = asked.get("minutes")
        if type(minutes) is not int or minutes not in CLOCK_STEPS_MINUTES:
            raise Mistake("时钟只能前进 1 分钟、10 分钟或 1 天")
        self._world.clock.advance(timedelta(minutes=minutes))
        return {"now": self._world.clock.now().isoformat()}

    async def set_fault(self, asked: Fields) -> dict[str, Any]:
        name, mode, faults = str(asked.get("name", "")), asked.get("mode"), self._world.faults
        if name not in faults.catalogue:
            raise Mistake("没有这种故障")
        if mode == "once":
            if self._mode(name) == "off":
                self._scripted[name], self._struck_before[name] = 0, faults.struck[name]
            faults.script(name)
            self._scripted[name] += 1
        elif mode == "always":
            faults.rate(name, 1.0)
        elif mode == "off":
            self._switch_off(name)
        else:
            raise Mistake("不认识的开关")
        return {"mode": self._mode(name)}

    def _switch_off(self, name: str) -> None:
        """One fault off, the others as they were: what waits for its next call can only be dropped as a whole."""
        faults = self._world.faults
        others_always = {other: rate for other, rate in faults.rates.items() if rate > 0 and other != name}
        others_once = [other for other in faults.catalogue if other != name and self._mode(other) == "once"]
        left = {
            other: self._scripted[other] - (faults.struck[other] - self._struck_before.get(other, 0))
            for other in others_once
        }
        faults.clear()
        self._scripted.clear()
        self._struck_before.clear()
        for other, rate in others_always.items():
            faults.rate(other, rate)
        for other, times in left.items():
            faults.script(other, times=times)
            self._scripted[other], self._struck_before[other] = times, faults.struck[other]

    async def clear_faults(self, asked: Fields) -> dict[str, Any]:
        self._world.faults.clear()
        self._scripted.clear()
        self._struck_before.clear()
        return {}

    def _person(self, asked: Fields) -> Person:
        person = self._people.get(str(asked.get("person", "")))
        if person is None:
            raise Mistake("没有这个人")
        return person


def _doctor_for(kind: str, birth_date: str, now: datetime) -> Doctor:
    """Somebody whom this person would see for it."""
    general, herbal, children, _ = DOCTORS
    if birth_date and now.date().toordinal() - date.fromisoformat(birth_date).toordinal() < CHILD_DAYS:
        return children
    return herbal if kind == "chinese" else general


def _fen(text: str) -> int:
    """12.8 yuan → 1280 fen."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,2})?", text):
        raise Mistake("金额请写成 12 或 12.80")
    whole, _, part = text.partition(".")
    fen = int(whole) * 100 + int(part.ljust(2, "0") or "0")
    if fen > AMOUNT_FEN_MAX:
        raise Mistake("金额太大")
    return fen


def _params(asked: Fields) -> dict[str, Any]:
    params = asked.get("params")
    if not isinstance(params, dict):
        raise Mistake("缺少支付参数")
    return params


def _bill_shown(bill: HisBill, now: datetime) -> dict[str, Any]:
    state = bill.state(now)
    return {
        "bill_id": bill.bill_id,
        "title": bill.kind.title,
        "issued_at": bill.issued_at.isoformat(),
        "to_pay_fen": bill.to_pay_fen,
        "insured": bill.insured,
        "state": state,
        "state_text": BILL_STATES.get(state, state),
        "paid_by": bill.booked[-1].paid_by if bill.booked else "",
    }
