"""What the page's buttons do and what its screens show, on the simulators of this process."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from simulators.console.chatting import Chatting
from simulators.console.comparing import BILL_STATES, compare, totals
from simulators.console.faulting import FaultSwitches
from simulators.console.papers import FACTORS, MODES
from simulators.console.paying import Paying
from simulators.console.phones import Person
from simulators.console.world import ConsoleWorld, Mistake, person_of
from simulators.hospital_books import HisBill, Refusal
from simulators.hospital_stock import DOCTORS, KINDS, Doctor

AMOUNT_FEN_MAX = 1_000_000_00
ROWS_MAX = 40
BILLS_MAX = 12
PAPERS_MAX = 8
CLOCK_STEPS_MINUTES = frozenset({1, 10, 24 * 60})
CHILD_DAYS = 14 * 365
MONEY_BY = frozenset({"us_original_route", "hospital_cash"})
"""Who gives the money back when the cashier takes back what was paid on a phone."""

VALID_DAYS = 3  # a bill of the desk lives over midnight, whenever somebody plays

Fields = Mapping[str, Any]


class Acts:
    """One method for each thing a person can do at the desk, at the window and with the clock."""

    def __init__(self, world: ConsoleWorld) -> None:
        self._world = world
        self._switches = FaultSwitches(world.faults)
        self._chatting = Chatting(world)
        paying = Paying(world)
        self.gets: Mapping[str, Callable[[Fields], Awaitable[dict[str, Any]]]] = {
            "state": self.state,
            "papers": self.papers,
            "fault-catalogue": self._switches.catalogue,
        }
        self.posts: Mapping[str, Callable[[Fields], Awaitable[dict[str, Any]]]] = {
            "desk/issue": self.issue,
            "desk/window-pay": self.window_pay,
            "desk/window-reverse": self.window_reverse,
            "desk/cancel": self.cancel,
            "desk/clear": self.clear,
            "desk/change-amount": self.change_amount,
            "desk/paper": self.choose_paper,
            "clock": self.move_clock,
            "faults": self._switches.set_fault,
            "faults/clear": self._switches.clear_faults,
            **self._chatting.posts,
            **paying.posts,
        }

    # ------------------------------------------------------------ what the page shows

    async def state(self, asked: Fields) -> dict[str, Any]:
        """Everything that the page looks at again and again, in one answer."""
        world, person = self._world, person_of(self._world, asked)
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
            "messages": self._chatting.notices(person),
            "phones": self._chatting.phones(),
            "bills": self._bills(person, now),
            "paper": {"mode": world.printer.mode, "factor": world.printer.factor},
            "ours_known": ours_known,
            "rows": [row.shown() for row in rows[:ROWS_MAX]],
            "totals": totals(his, pay, ours),
            "cases": list(ours.get("cases", [])),
            "due": list(ours.get("due", [])),
            "faults_on": self._switches.switched_on(),
        }

    def _bills(self, person: Person, now: datetime) -> list[dict[str, Any]]:
        mine = [bill for bill in self._world.hospital.bills.values() if bill.patient_id in person.his_patient_ids]
        mine.sort(key=lambda bill: (bill.issued_at, bill.bill_id), reverse=True)
        return [_bill_shown(bill, now) for bill in mine[:BILLS_MAX]]

    async def papers(self, asked: Fields) -> dict[str, Any]:
        """The printed prescriptions that lie on the desk, the newest first, with what a scanner reads on each."""
        world, now = self._world, self._world.clock.now()
        bills = sorted(world.hospital.bills.values(), key=lambda bill: (bill.issued_at, bill.bill_id), reverse=True)
        return {
            "papers": [
                _bill_shown(bill, now)
                | {
                    "patient_name": world.hospital.patients[bill.patient_id].name,
                    "department": bill.department,
                    "doctor": bill.doctor,
                    "content": await world.printer.content(bill.bill_id),
                }
                for bill in bills[:PAPERS_MAX]
            ]
        }

    async def paper_content(self, bill_id: str) -> str:
        """What a scanner reads on this bill's paper. Raises Refusal for an unknown bill."""
        if bill_id not in self._world.hospital.bills:
            raise Refusal("BILL_UNKNOWN")
        return await self._world.printer.content(bill_id)

    # ------------------------------------------------------------ the doctor's desk and the window

    async def issue(self, asked: Fields) -> dict[str, Any]:
        person, kind = person_of(self._world, asked), str(asked.get("kind", "western"))
        if kind not in KINDS:
            raise Mistake("没有这种处方")
        if not person.his_patient_ids:
            raise Mistake(f"{person.name}不是患者")
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
        """`money_by` unsaid: the way it came."""
        money_by = str(asked.get("money_by", "")) or None
        if money_by is not None and money_by not in MONEY_BY:
            raise Mistake("没有这种退法")
        number = self._world.hospital.reverse_at_window(str(asked.get("bill_id", "")), money_by=money_by)
        return {"red_receipt_no": number}

    async def cancel(self, asked: Fields) -> dict[str, Any]:
        self._world.hospital.cancel(str(asked.get("bill_id", "")))
        return {}

    async def clear(self, asked: Fields) -> dict[str, Any]:
        """A story begins anew: what this person has not paid is cancelled, and no fault is on."""
        person, now = person_of(self._world, asked), self._world.clock.now()
        await self._switches.clear_faults(asked)
        for bill in list(self._world.hospital.bills.values()):
            if bill.patient_id in person.his_patient_ids and bill.state(now) in {"unpaid", "expired"}:
                with suppress(Refusal):  # somebody pays it at this moment
                    self._world.hospital.cancel(bill.bill_id)
        return {}

    async def change_amount(self, asked: Fields) -> dict[str, Any]:
        fen = _fen(str(asked.get("amount", "")).strip())
        self._world.hospital.change_amount(str(asked.get("bill_id", "")), fen)
        return {"to_pay_fen": fen}

    async def choose_paper(self, asked: Fields) -> dict[str, Any]:
        """The hospital decides how its papers carry a code, in its printer and in the product's settings."""
        printer = self._world.printer
        mode, factor = str(asked.get("mode", printer.mode)), str(asked.get("factor", printer.factor))
        if mode not in MODES or factor not in FACTORS:
            raise Mistake("没有这种方式")
        await self._world.choose_paper(mode, factor)
        printer.mode, printer.factor = mode, factor
        return {"mode": mode, "factor": factor}

    # ------------------------------------------------------------ the clock

    async def move_clock(self, asked: Fields) -> dict[str, Any]:
        minutes = asked.get("minutes")
        if type(minutes) is not int or minutes not in CLOCK_STEPS_MINUTES:
            raise Mistake("时钟只能前进 1 分钟、10 分钟或 1 天")
        self._world.clock.advance(timedelta(minutes=minutes))
        return {"now": self._world.clock.now().isoformat()}


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
