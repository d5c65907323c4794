"""A HIS with books of its own behind the REST profile: bills, locks, bookings, the cashier's window, events.

It shares no code with the product and has its own signatures. Numbers derive from the seed and from what
they are about, so the same story gives the same receipts; time comes from the clock alone. It refuses what a
real HIS refuses. With `weak` it does what some real ones do: it books twice what is sent twice without asking
in between, or while the first is still being booked.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

from simulators.clock import Clock
from simulators.faults import Fault, Faults
from simulators.hospital_books import Booked, Confirm, Event, Fields, HisBill, Lock, Refusal, Unclear
from simulators.hospital_faults import API_CALLS, EVENT, FAULTS, NAME, REPEAT
from simulators.hospital_refunds import RefundDesk
from simulators.hospital_signing import answer_headers, event_headers, why_refused
from simulators.hospital_stock import DOCTORS, KINDS, READY_PEOPLE, Doctor, Kind, Person
from simulators.kit import Deliveries, Delivery, Request, Response

API = "/zhenfu/v1/"
EVENTS = "/his/v1/events"
HOSPITAL_TIME = timezone(timedelta(hours=8))
KEY_ID = "sim-his-1"
SECRET = "simulated-hospital-secret-which-opens-nothing"
NONCE_LIFE = timedelta(minutes=10)
EVENT_RETRIES_SECONDS = (10, 30, 60, 300, 600, 1800, 3600, 7200, 14400)
LOOPBACK_NAMES = frozenset({"", "127.0.0.1", "localhost", "::1"})
VERSION = "sim-his 1.0"
REFUND_CALLS = frozenset({"refund_check", "confirm_refund", "query_refund", "query_red_receipt"})

STATEMENT_PAGE = 100


class HospitalSimulator:
    """A Simulator (simulators/kit.py) that also Delivers."""

    name = NAME

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults,
        seed: int,
        events_url: str = "",
        key_id: str = KEY_ID,
        secret: str = SECRET,
        weak: bool = False,
        no_lock: bool = False,
        no_events: bool = False,
        no_refund: bool = False,
        confirm_unit: str = "bill",
        lock_seconds: int = 900,
        slow_booking_seconds: int = 45,
        people: tuple[Person, ...] = READY_PEOPLE,
    ) -> None:
        self.clock = clock
        self.faults = faults
        faults.register(FAULTS)
        self.seed = seed
        self.deliveries = Deliveries()
        self.events_url = events_url
        self.keys = {key_id: secret}
        self.key_id = key_id  # signs events
        self.weak, self.no_lock, self.no_events, self.no_refund = weak, no_lock, no_events, no_refund
        self.confirm_unit = confirm_unit
        self.lock_seconds = lock_seconds
        self.slow_booking_seconds = slow_booking_seconds
        self.patients: dict[str, Person] = {person.patient_id: person for person in people}
        self.bills: dict[str, HisBill] = {}
        self.locks: dict[str, Lock] = {}
        self.confirms: dict[str, Confirm] = {}
        self.events: list[Event] = []
        self.calls: Counter[str] = Counter()
        self._nonces: set[str] = set()
        self._nonces_in_order: deque[tuple[datetime, str]] = deque()
        self._bills_of: defaultdict[str, list[HisBill]] = defaultdict(list)  # by patient
        self._numbers_on: defaultdict[str, list[str]] = defaultdict(list)  # confirm_nos that touched a bill
        self._processing: set[str] = set()
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._sending: dict[str, Event] = {}
        self.refunds = RefundDesk(self)
        self._operations: dict[str, Callable[[Fields, datetime, Fault | None], Fields]] = {
            "ping": self._ping,
            "find_patients": self._find_patients,
            "get_patient": self._get_patient,
            "list_bills": self._list_bills,
            "list_new_bills": self._list_new_bills,
            "get_bill": self._get_bill,
            "lock_bills": self._lock_bills,
            "query_lock": self._query_lock,
            "release_lock": self._release_lock,
            "confirm_payment": self._confirm_payment,
            "query_payment": self._query_payment,
            "list_paid": self._list_paid,
            "statement": self._statement,
            "refund_check": self.refunds.check,
            "confirm_refund": self.refunds.confirm,
            "query_refund": self.refunds.query,
            "query_red_receipt": self.refunds.query_red_receipt,
        }

    # ------------------------------------------------------------ the hospital's own people

    def add_patient(self, person: Person) -> None:
        self.patients[person.patient_id] = person

    def add_key(self, key_id: str, secret: str) -> None:
        """A second key, valid at the same time; answers are signed with the key of the request."""
        self.keys[key_id] = secret

    def drop_key(self, key_id: str) -> None:
        del self.keys[key_id]

    def issue_bill(
        self,
        patient_id: str,
        *,
        kind: str = "western",
        items: list[tuple[str, int]] | None = None,
        total_fen: int | None = None,
        to_pay_fen: int | None = None,
        doctor: Doctor | None = None,
        visit_no: str = "",
        insured: bool = False,
        payable_online: bool = True,
        not_payable_reason: str = "",
        merge_group: str | None = None,
        treat_first: bool = False,
        valid_days: int | None = 1,
        valid_until: datetime | None = None,
        issued_at: datetime | None = None,
    ) -> str:
        """A doctor prescribes; returns the bill's number and puts the new_bill event on its way.

        `items` are (name, amount_fen); without them a few goods of the kind are chosen. A bill is valid to
        the end of the day, `valid_days` counted from today; None (or treat_first) gives no date. Bills of
        one visit may be merged unless `merge_group` is "".
        """
        if patient_id not in self.patients:
            raise Refusal("PATIENT_UNKNOWN")
        now = self.settled()
        moment = issued_at or now
        day = moment.astimezone(HOSPITAL_TIME)
        nth = self._next("bill", patient_id)
        goods = KINDS[kind]
        who = doctor or DOCTORS[self._digits(4, "doctor", patient_id, nth) % len(DOCTORS)]
        rows = self._items(goods, patient_id, nth) if items is None else self._priced(items)
        if total_fen is not None:
            rows = self._priced([(goods.title, total_fen)]) if items is None else rows
        total = sum(row["amount_fen"] for row in rows) if total_fen is None else total_fen
        visit = visit_no or f"MZ{day:%Y%m%d}{self._digits(6, 'visit', patient_id, f'{day:%Y%m%d}'):06d}"
        if valid_until is None and valid_days is not None and not treat_first:
            last = day.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=valid_days)
            valid_until = last.astimezone(UTC)
        bill = HisBill(
            bill_id=f"{goods.prefix}{day:%Y%m%d}{self._digits(8, 'bill', patient_id, nth):08d}",
            patient_id=patient_id,
            visit_no=visit,
            kind=goods,
            department=who.department,
            doctor=who.name,
            issued_at=moment,
            total_fen=total,
            to_pay_fen=total if to_pay_fen is None else to_pay_fen,
            insured=insured,
            payable_online=payable_online,
            not_payable_reason=not_payable_reason,
            merge_group=f"{visit}-{'YB' if insured else 'ZF'}" if merge_group is None else merge_group,
            treat_first=treat_first,
            valid_until=valid_until,
            items=rows,
        )
        if bill.bill_id in self.bills:
            raise RuntimeError(f"two bills would be called {bill.bill_id}: choose another seed")
        self.bills[bill.bill_id] = bill
        self._bills_of[patient_id].append(bill)
        self._tell("new_bill", bill)
        return bill.bill_id

    def issue_ready_bills(self) -> list[str]:
        """One bill or more for each of the ready people, as the sandbox starts its day."""
        yesterday = self.clock.now() - timedelta(days=1)
        return [
            self.issue_bill("P10001"),
            self.issue_bill("P10001", kind="treatment"),
            self.issue_bill("P10003", kind="western", doctor=DOCTORS[2]),
            self.issue_bill(
                "P10004",
                kind="western",
                insured=True,
                payable_online=False,
                not_payable_reason="医保处方请到窗口结算",
            ),
            self.issue_bill("P10005", kind="chinese", doctor=DOCTORS[1]),
            self.issue_bill("P10006", kind="nutrition"),
            self.issue_bill("P10007", kind="treatment", treat_first=True, issued_at=yesterday),
            self.issue_bill("P10008", kind="western", valid_days=3),
            self.issue_bill("P10009", kind="treatment", valid_days=7),
        ]

    def window_pay(self, bill_id: str, *, force: bool = False) -> str:
        """A cashier takes the money; returns the receipt number.

        A locked bill is refused unless forced, one being booked always.
        """
        now = self.settled()
        bill = self._free_bill(bill_id, now, force=force)
        booked = self._book(bill, now, confirm_no="", amount_fen=bill.to_pay_fen, paid_by="window")
        self._tell("paid_at_window", bill)
        return booked.receipt_no

    def cancel(self, bill_id: str, *, force: bool = False) -> None:
        """The doctor takes the prescription back. A locked bill is refused unless forced."""
        bill = self._free_bill(bill_id, self.settled(), force=force)
        bill.cancelled = True
        self._tell("bill_cancelled", bill)

    def change_amount(self, bill_id: str, to_pay_fen: int, *, force: bool = False) -> None:
        """The doctor changes the prescription. A locked bill is refused unless forced."""
        bill = self._free_bill(bill_id, self.settled(), force=force)
        bill.total_fen += to_pay_fen - bill.to_pay_fen
        bill.to_pay_fen = to_pay_fen

    def reverse_at_window(
        self, bill_id: str, *, money_by: str | None = None, amount_fen: int | None = None, also: Sequence[str] = ()
    ) -> str:
        """A paid bill or a part of it, and others, are taken back at the window; returns the red receipt's number."""
        return self.refunds.reverse_at_window(bill_id, money_by=money_by, amount_fen=amount_fen, also=also)

    def dispense(self, bill_id: str) -> None:
        """The patient has got it all."""
        self.refunds.dispense(bill_id)

    def resolve(self, confirm_no: str, *, book: bool) -> None:
        """The HIS's staff settle a booking whose outcome the HIS itself did not know."""
        now = self.settled()
        confirm = self.confirms[confirm_no]
        if confirm.state != "unclear":
            raise Refusal("NOT_UNCLEAR")
        if book:
            self._book_all(confirm_no, confirm, now)
        else:
            del self.confirms[confirm_no]

    def send_probe(self) -> None:
        """Ask the other side to answer, nothing more."""
        self._send(self._event("probe", "", ""))

    def books(self) -> Fields:
        """Everything that an oracle compares with our own books; times as text."""
        now = self.settled()
        return {
            "bills": {
                bill.bill_id: {
                    "patient_id": bill.patient_id,
                    "title": bill.kind.title,
                    "kind": bill.kind.word,
                    "state": bill.state(now),
                    "total_fen": bill.total_fen,
                    "to_pay_fen": bill.to_pay_fen,
                    "issued_at": _time(bill.issued_at),
                    "valid_until": _time(bill.valid_until) if bill.valid_until else "",
                    "locked_by": self._holder(bill.bill_id, now),
                    "paid_by": bill.booked[0].paid_by if bill.booked else "",
                    "times_booked": len(bill.booked),
                    "bookings": [_plain(asdict(booked)) for booked in bill.booked],
                    "red_receipts": [_plain(asdict(red)) for red in bill.red],
                }
                for bill in self.bills.values()
            },
            "locks": {
                lock.confirm_no: {
                    "lock_id": lock.lock_id,
                    "bill_ids": list(lock.bill_ids),
                    "held": lock.holds(now) and not self._is_booked(lock.confirm_no),
                    "expires_at": _time(lock.expires_at),
                }
                for lock in self.locks.values()
            },
            "confirms": {
                number: {"state": confirm.state, "times_received": confirm.times_received}
                for number, confirm in self.confirms.items()
            },
            "reversals": {
                number: {"state": reversing.state, "times_received": reversing.times_received}
                for number, reversing in self.refunds.reversings.items()
            },
            "events": [_plain(asdict(event)) for event in self.events],
            "calls": dict(self.calls),
        }

    # ------------------------------------------------------------ Simulator

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith("/_"):
            return "console", ""
        operation = request.path.rpartition("/")[2]
        fields = _object(request.body) or {}
        identifier = fields.get("identifier")
        value = identifier.get("value") if isinstance(identifier, dict) else None
        for candidate in (
            fields.get("confirm_no"),
            fields.get("refund_no"),
            fields.get("red_receipt_no"),
            fields.get("bill_id"),
            fields.get("patient_id"),
            value,
            fields.get("since"),
        ):
            if isinstance(candidate, str) and candidate:
                return operation, candidate
        return operation, ""

    async def handle(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return self._console(request)
        start = request.target.find(API)
        operation = request.path.rpartition("/")[2]
        if request.method != "POST" or start < 0 or operation not in API_CALLS:
            return Response(status=404, headers={"content-type": "text/html"}, body=b"<html>not found</html>")
        now = self.settled()
        problem = why_refused(self.keys, request.method, request.target[start:], request.headers, request.body, now)
        if not problem and self._is_replay(request.headers["zhenfu-nonce"], now):
            problem = "NONCE_REPLAYED"
        if problem:
            refusal = {"outcome": "refused", "code": problem, "message": "验签未通过"}
            return self._answer(request, refusal, now, status=401, signed=problem in ("CLOCK_SKEW", "NONCE_REPLAYED"))
        self.calls[operation] += 1
        fault = self.faults.pick(self.name, *self.classify(request), specific=True)
        what = fault.name.partition(".")[2] if fault else ""
        if what == "login_page":
            return Response(status=200, headers={"content-type": "text/html"}, body=b"<html>login</html>")
        fields = self._outcome(operation, request, now, fault)
        if what == "outcome_unknown_word":
            fields["outcome"] = "处理完毕"
        elif what == "no_value_words":
            fields = _with_no_value_words(fields)
        return self._answer(request, fields, now, signed=what != "answer_unsigned", spoil=what)

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """The other side's answer to an event: anything but 200 with outcome ok means: again later."""
        event = self._sending[delivery.key]
        event.attempts += 1
        event.last_status = response.status if response else None
        answer = _object(response.body) if response else None
        if response is not None and response.status == 200 and answer and answer.get("outcome") == "ok":
            event.accepted_at = event.accepted_at or self.clock.now()
            return
        if event.role in ("genuine", "duplicate") and delivery.attempt <= len(EVENT_RETRIES_SECONDS):
            wait = timedelta(seconds=EVENT_RETRIES_SECONDS[delivery.attempt - 1])
            self.deliveries.schedule(
                due_at=self.clock.now() + wait,
                url=delivery.url,
                key=delivery.key,
                build=delivery.build,
                attempt=delivery.attempt + 1,
            )

    # ------------------------------------------------------------ the profile's operations

    def _outcome(self, operation: str, request: Request, now: datetime, fault: Fault | None) -> Fields:
        fields = _object(request.body)
        try:
            if fields is None:
                raise Refusal("REQUEST_UNREADABLE")
            if self.no_refund and operation in REFUND_CALLS:
                raise Refusal("OPERATION_UNSUPPORTED", "本院不支持线上退费")
            return {"outcome": "ok", **self._operations[operation](fields, now, fault)}
        except Refusal as refusal:
            return {"outcome": "refused", "code": refusal.code, "message": refusal.message}
        except Unclear:
            return {"outcome": "unknown"}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {"outcome": "refused", "code": "REQUEST_UNREADABLE", "message": "参数不全"}

    def _ping(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        return {
            "time": _time(now),
            "version": VERSION,
            "capabilities": {
                "lock": not self.no_lock,
                "lock_query": not self.no_lock,
                "query_payment": True,
                "list_paid": True,
                "statement": True,
                "poll_bills": True,
                "events": not self.no_events,
                "refund_check": not self.no_refund,
                "refund": not self.no_refund,
                "refund_query": not self.no_refund,
                "partial_refund": not self.no_refund,
                "patient_by_id": True,
                "confirm_unit": self.confirm_unit,
                "processing_limit_seconds": 120,
                "lock_seconds": self.lock_seconds,
            },
        }

    def _find_patients(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        asked = (fields["identifier"]["type"], fields["identifier"]["value"])
        return {"patients": [_shown(person) for person in self.patients.values() if asked in person.identifiers]}

    def _get_patient(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        return {"patient": _shown(self.patients[self.known_patient(fields["patient_id"])])}

    def _list_bills(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        patient_id = self.known_patient(fields["patient_id"])
        return {
            "bills": [
                self._render(bill, now)
                for bill in _by_issue(self._bills_of[patient_id])
                if bill.state(now) in ("unpaid", "expired")
            ]
        }

    def _list_new_bills(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        since, until = _moment(fields["since"]), _moment(fields["until"])
        return {
            "bills": [
                self._render(bill, now) for bill in _by_issue(self.bills.values()) if since <= bill.issued_at < until
            ]
        }

    def _get_bill(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        bill = self.bill(fields["bill_id"])
        return {"bill": {**self._render(bill, now), "items": bill.items}}

    def _lock_bills(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        self._needs_lock_feature()
        confirm_no, bill_ids = str(fields["confirm_no"]), tuple(map(str, fields["bill_ids"]))
        until = _moment(fields["until"])
        patient_id = self.known_patient(fields["patient_id"])
        what = fault.name.partition(".")[2] if fault else ""
        if what == "lock_held_by_other_once":
            raise Refusal("LOCK_HELD_BY_OTHER", "处方正在窗口办理")
        if confirm_no in self.confirms:
            raise Refusal("LOCK_CONSUMED", "该号已记账")
        held = self.locks.get(confirm_no)
        if held and held.holds(now) and held.bill_ids == bill_ids:
            return self._grant(held)
        bills = self._payable_bills(bill_ids, patient_id, now)
        for bill in bills:
            if self._holder(bill.bill_id, now) not in ("", confirm_no):
                raise Refusal("LOCK_HELD_BY_OTHER", "处方正由他人支付")
        expires_at = min(until, now + timedelta(seconds=self.lock_seconds))
        lock = Lock(
            confirm_no=confirm_no,
            lock_id=f"L{self._digits(12, 'lock', confirm_no, self._next('lock', confirm_no)):012d}",
            bill_ids=bill_ids,
            amounts={bill.bill_id: bill.to_pay_fen for bill in bills},
            expires_at=expires_at,
            lapses_at=now + (expires_at - now) / 60 if what == "lock_lapses_early" else expires_at,
        )
        self.locks[confirm_no] = lock
        self._touch(confirm_no, bill_ids)
        return self._grant(lock)

    def _query_lock(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        self._needs_lock_feature()
        confirm_no = str(fields["confirm_no"])
        lock = self.locks.get(confirm_no)
        if self._is_booked(confirm_no):
            return {"confirm_no": confirm_no, "state": "consumed"}
        if lock and (lock.holds(now) or confirm_no in self.confirms):
            return {**self._grant(lock), "state": "held"}
        return {"confirm_no": confirm_no, "state": "absent"}

    def _release_lock(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        self._needs_lock_feature()
        confirm_no = str(fields["confirm_no"])
        if confirm_no in self.confirms:
            raise Refusal("LOCK_CONSUMED", "该号已记账或正在记账")
        if confirm_no in self.locks:
            self.locks[confirm_no].released = True
        return {"confirm_no": confirm_no}

    def _confirm_payment(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        confirm_no = str(fields["confirm_no"])
        content = {name: fields[name] for name in ("patient_id", "bills", "order_no", "channel_trade_no")}
        earlier = self.confirms.get(confirm_no)
        if earlier:
            return self._confirmed_again(confirm_no, earlier, content, now)
        what = fault.name.partition(".")[2] if fault else ""
        lines = {str(line["bill_id"]): line["amount_fen"] for line in content["bills"]}
        if not lines or not all(type(amount) is int for amount in lines.values()):
            raise Refusal("REQUEST_UNREADABLE")
        patient_id = self.known_patient(fields["patient_id"])
        self._meddle(what, next(iter(lines)))
        self._check_confirm(confirm_no, fields, lines, patient_id, now)
        confirm = Confirm(content=content)
        self.confirms[confirm_no] = confirm
        self._touch(confirm_no, lines)
        if what == "never_answers_booking":
            confirm.state = "unclear"
            raise Unclear
        if what == "books_slowly":
            confirm.due_at = now + timedelta(seconds=self.slow_booking_seconds)
            self._processing.add(confirm_no)
            return {"confirm_no": confirm_no, "booked": False}
        self._book_all(confirm_no, confirm, now)
        if what == "booked_but_unlisted_code":
            raise Refusal("-99", "系统异常")
        return self._booking(confirm_no, confirm)

    def _confirmed_again(self, confirm_no: str, earlier: Confirm, content: Fields, now: datetime) -> Fields:
        earlier.times_received += 1
        if earlier.content != content:
            raise Refusal("CONFIRM_NO_REUSED", "同一确认号内容不同")
        if self.weak and earlier.state == "pending":
            self._book_all(confirm_no, earlier, now)  # the first one is still under way: both will be booked
            self._book_all(confirm_no, earlier, now)
        elif self.weak and earlier.state == "booked" and not earlier.asked_since:
            self._book_all(confirm_no, earlier, now)
        earlier.asked_since = False
        if earlier.state == "unclear":
            raise Unclear
        if earlier.state == "pending":
            return {"confirm_no": confirm_no, "booked": False}
        if self.faults.pick(self.name, REPEAT, confirm_no, specific=True):
            raise Refusal("BILL_PAID", "处方已缴费")
        return self._booking(confirm_no, earlier)

    def _meddle(self, what: str, bill_id: str) -> None:
        """Something else happens to the bill at the worst moment."""
        bill = self.bills.get(bill_id)
        if bill is None or bill.state(self.clock.now()) != "unpaid":
            return
        if what == "refuses_confirm":
            self.cancel(bill_id, force=True)
        elif what == "bill_paid_at_window_meanwhile":
            self.window_pay(bill_id, force=True)
        elif what == "amount_changes_after_lock":
            self.change_amount(bill_id, bill.to_pay_fen + 100, force=True)

    def _check_confirm(
        self, confirm_no: str, fields: Fields, lines: dict[str, int], patient_id: str, now: datetime
    ) -> None:
        lock = self.locks.get(confirm_no)
        held = lock is not None and lock.holds(now) and set(lock.bill_ids) == lines.keys()
        bills = self._payable_bills(tuple(lines), patient_id, now, honour_lock=held)
        if not self.no_lock:
            if lock is None or lock.released or lock.lock_id != fields["lock_id"]:
                raise Refusal("LOCK_ABSENT", "没有锁定")
            if not held:
                raise Refusal("LOCK_LAPSED", "锁定已过期")
        if any(bill.to_pay_fen != lines[bill.bill_id] for bill in bills):
            raise Refusal("AMOUNT_MISMATCH", "金额与医院不符")

    def _query_payment(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        confirm_no = str(fields["confirm_no"])
        confirm = self.confirms.get(confirm_no)
        if confirm is None:
            return {"confirm_no": confirm_no, "booked": False}
        confirm.asked_since = True
        if confirm.state == "unclear":
            raise Unclear
        if confirm.state == "pending":
            return {"confirm_no": confirm_no, "booked": False}
        return self._booking(confirm_no, confirm)

    def _list_paid(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        patient_id = self.known_patient(fields["patient_id"])
        since, until = _moment(fields["since"]), _moment(fields["until"])
        return {"records": [self._paid(*row) for row in self._booked_in(self._bills_of[patient_id], since, until)]}

    def _statement(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        since, until, page = _moment(fields["since"]), _moment(fields["until"]), int(fields["page"])
        rows = self._booked_in(self.bills.values(), since, until)
        first = page * STATEMENT_PAGE
        return {
            "records": [self._paid(*row) for row in rows[first : first + STATEMENT_PAGE]],
            "more": len(rows) > first + STATEMENT_PAGE,
        }

    def _booked_in(self, bills: Iterable[HisBill], since: datetime, until: datetime) -> list[tuple[HisBill, Booked]]:
        rows = [
            (bill, booked)
            for bill in bills
            for booked in bill.booked
            if not booked.reversed and since <= booked.paid_at < until
        ]
        return sorted(rows, key=lambda row: (row[1].paid_at, row[0].bill_id))

    def _paid(self, bill: HisBill, booked: Booked) -> Fields:
        return {
            "bill_id": bill.bill_id,
            "patient_id": bill.patient_id,
            "title": bill.kind.title,
            "kind_text": bill.kind.text,
            "amount_fen": booked.amount_fen - booked.returned_fen,
            "paid_at": _time(booked.paid_at),
            "receipt_no": booked.receipt_no,
            "paid_by": booked.paid_by,
            "confirm_no": booked.confirm_no,
            "guide_text": bill.kind.guide_text,
            "ebill_url": self._link("ebill", booked.receipt_no),
        }

    # ------------------------------------------------------------ the books

    def settled(self) -> datetime:
        """The time now, after everything that was to happen by itself until now has happened."""
        now = self.clock.now()
        for number in sorted(self._processing):
            confirm = self.confirms[number]
            assert confirm.due_at is not None
            if confirm.due_at <= now:
                self._book_all(number, confirm, confirm.due_at)
        self.refunds.settle(now)
        return now

    def _book_all(self, confirm_no: str, confirm: Confirm, at: datetime) -> None:
        for line in confirm.content["bills"]:
            self._book(
                self.bills[line["bill_id"]],
                at,
                confirm_no=confirm_no,
                amount_fen=line["amount_fen"],
                paid_by="mobile",
                order_no=confirm.content["order_no"],
                channel_trade_no=confirm.content["channel_trade_no"],
            )
        confirm.state = "booked"
        self._processing.discard(confirm_no)

    def _book(
        self,
        bill: HisBill,
        at: datetime,
        *,
        confirm_no: str,
        amount_fen: int,
        paid_by: str,
        order_no: str = "",
        channel_trade_no: str = "",
    ) -> Booked:
        number = self._digits(10, "receipt", bill.bill_id, confirm_no, self._next("receipt", bill.bill_id))
        booked = Booked(
            confirm_no=confirm_no,
            amount_fen=amount_fen,
            receipt_no=f"S{number:010d}",
            paid_at=at,
            paid_by=paid_by,
            order_no=order_no,
            channel_trade_no=channel_trade_no,
        )
        bill.booked.append(booked)
        return booked

    def _booking(self, confirm_no: str, confirm: Confirm) -> Fields:
        receipts = []
        for line in confirm.content["bills"]:
            bill = self.bills[line["bill_id"]]
            booked = next(entry for entry in bill.booked if entry.confirm_no == confirm_no)
            receipts.append(
                {
                    "bill_id": bill.bill_id,
                    "amount_fen": booked.amount_fen,
                    "receipt_no": booked.receipt_no,
                    "guide_text": bill.kind.guide_text,
                    "receipt_url": self._link("receipt", booked.receipt_no),
                    "ebill_url": self._link("ebill", booked.receipt_no),
                }
            )
        return {"confirm_no": confirm_no, "booked": True, "receipts": receipts}

    def _payable_bills(
        self, bill_ids: tuple[str, ...], patient_id: str, now: datetime, *, honour_lock: bool = False
    ) -> list[HisBill]:
        bills = [self.bill(bill_id) for bill_id in bill_ids]
        for bill in bills:
            if bill.patient_id != patient_id:
                raise Refusal("BILL_UNKNOWN", "该患者没有此处方")
            state = bill.state(now)
            if state == "expired" and not honour_lock:
                raise Refusal("BILL_EXPIRED", "处方已过有效期")
            if state in ("paid", "cancelled"):
                raise Refusal(f"BILL_{state.upper()}", "处方已缴费" if state == "paid" else "处方已作废")
            if not bill.payable_online:
                raise Refusal("NOT_PAYABLE_ONLINE", bill.not_payable_reason)
        if len(bills) > 1 and len({bill.merge_group or bill.bill_id for bill in bills}) > 1:
            raise Refusal("MERGE_NOT_ALLOWED", "这些处方不能合并支付")
        return bills

    def _free_bill(self, bill_id: str, now: datetime, *, force: bool) -> HisBill:
        bill = self.bill(bill_id)
        if bill.state(now) not in ("unpaid", "expired"):
            raise Refusal(f"BILL_{bill.state(now).upper()}")
        being_booked = any(number in self._processing for number in self._numbers_on[bill_id])
        if being_booked or (self._holder(bill_id, now) and not force):
            raise Refusal("LOCKED", "处方正在手机支付中")
        return bill

    def _holder(self, bill_id: str, now: datetime) -> str:
        """The confirm_no that holds this bill now, through a lock or a booking under way; else empty."""
        for number in self._numbers_on[bill_id]:
            if self._is_booked(number):
                continue
            confirm, lock = self.confirms.get(number), self.locks.get(number)
            if confirm and any(line["bill_id"] == bill_id for line in confirm.content["bills"]):
                return number
            if lock and bill_id in lock.bill_ids and lock.holds(now):
                return number
        return ""

    def _touch(self, confirm_no: str, bill_ids: Iterable[str]) -> None:
        for bill_id in bill_ids:
            if confirm_no not in self._numbers_on[bill_id]:
                self._numbers_on[bill_id].append(confirm_no)

    def _is_booked(self, confirm_no: str) -> bool:
        return confirm_no in self.confirms and self.confirms[confirm_no].state == "booked"

    def bill(self, bill_id: object) -> HisBill:
        if str(bill_id) not in self.bills:
            raise Refusal("BILL_UNKNOWN", "没有此处方")
        return self.bills[str(bill_id)]

    def known_patient(self, patient_id: object) -> str:
        if patient_id not in self.patients:
            raise Refusal("PATIENT_UNKNOWN", "没有此患者")
        return str(patient_id)

    def _needs_lock_feature(self) -> None:
        if self.no_lock:
            raise Refusal("OPERATION_UNSUPPORTED", "本院不支持锁定")

    def _render(self, bill: HisBill, now: datetime) -> Fields:
        return {
            "bill_id": bill.bill_id,
            "patient_id": bill.patient_id,
            "visit_no": bill.visit_no,
            "kind": bill.kind.word,
            "kind_text": bill.kind.text,
            "title": bill.kind.title,
            "department": bill.department,
            "doctor": bill.doctor,
            "issued_at": _time(bill.issued_at),
            "total_fen": bill.total_fen,
            "to_pay_fen": bill.to_pay_fen,
            "insured": bill.insured,
            "payable_online": bill.payable_online,
            "not_payable_reason": bill.not_payable_reason,
            "state": bill.state(now),
            "merge_group": bill.merge_group,
            "treat_first": bill.treat_first,
            "valid_until": _time(bill.valid_until) if bill.valid_until else "",
        }

    def _grant(self, lock: Lock) -> Fields:
        return {
            "confirm_no": lock.confirm_no,
            "lock_id": lock.lock_id,
            "expires_at": _time(lock.expires_at),
            "bills": [{"bill_id": bill_id, "amount_fen": lock.amounts[bill_id]} for bill_id in lock.bill_ids],
        }

    def _items(self, kind: Kind, patient_id: str, nth: int) -> list[Fields]:
        chosen = 1 + self._digits(3, "items", patient_id, nth) % len(kind.goods)
        rows = []
        for position, goods in enumerate(kind.goods[:chosen]):
            quantity = 1 + self._digits(3, "quantity", patient_id, nth, position) % 3
            quantity *= 10 if goods.unit == "克" else 1
            rows.append(
                {
                    "name": goods.name,
                    "specification": goods.specification,
                    "quantity": str(quantity),
                    "unit": goods.unit,
                    "amount_fen": quantity * goods.price_fen,
                }
            )
        return rows

    @staticmethod
    def _priced(items: list[tuple[str, int]]) -> list[Fields]:
        return [
            {"name": name, "specification": "", "quantity": "1", "unit": "", "amount_fen": amount_fen}
            for name, amount_fen in items
        ]

    def _link(self, what: str, receipt_no: str) -> str:
        return f"https://his.example.invalid/{what}/{self._digest('link', what, receipt_no)[:20]}"

    def new_number(self, letter: str, use: str, about: str) -> str:
        """A number that derives from what it is about and how many there have been."""
        return f"{letter}{self._digits(10, use, about, self._next(use, about)):010d}"

    def _digest(self, *parts: object) -> str:
        text = "\x1f".join([str(self.seed), *map(str, parts)])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _digits(self, length: int, *parts: object) -> int:
        return int(self._digest(*parts), 16) % int(10**length)

    def _next(self, *parts: str) -> int:
        self._counts[parts] += 1
        return self._counts[parts]

    # ------------------------------------------------------------ answers and events on the wire

    def _answer(
        self,
        request: Request,
        fields: Fields,
        now: datetime,
        *,
        status: int = 200,
        signed: bool = True,
        spoil: str = "",
    ) -> Response:
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json; charset=utf-8"}
        nonce = request.headers.get("zhenfu-nonce", "")
        if signed:
            key = request.headers["zhenfu-key"]
            headers |= answer_headers(
                key,
                "another-secret-than-the-one-we-share" if spoil == "answer_forged" else self.keys[key],
                status=status,
                request_nonce="0" * 32 if spoil == "answer_of_another_request" else nonce,
                now=now,
                nonce=self._digest("answer", nonce),
                body=body,
            )
        return Response(status=status, headers=headers, body=body)

    def _is_replay(self, nonce: str, now: datetime) -> bool:
        while self._nonces_in_order and now - self._nonces_in_order[0][0] >= NONCE_LIFE:
            self._nonces.discard(self._nonces_in_order.popleft()[1])
        if nonce in self._nonces:
            return True
        self._nonces.add(nonce)
        self._nonces_in_order.append((now, nonce))
        return False

    def _event(
        self, type_: str, bill_id: str, patient_id: str, role: str = "genuine", red_receipt_no: str = ""
    ) -> Event:
        nth = self._next("event", type_, bill_id, role)
        event = Event(
            event_id=f"E{self._digest('event', type_, bill_id, role, nth)[:24]}",
            type=type_,
            bill_id=bill_id,
            patient_id=patient_id,
            happened_at=self.clock.now(),
            red_receipt_no=red_receipt_no,
            role=role,
        )
        self.events.append(event)
        return event

    def tell_refunded(self, bill: HisBill, red_receipt_no: str) -> None:
        self._tell("refunded", bill, red_receipt_no)

    def _tell(self, type_: str, bill: HisBill, red_receipt_no: str = "") -> None:
        """Put an event on its way, unless this HIS has none or a fault strikes it."""
        if self.no_events or not self.events_url:
            return
        fault = self.faults.pick(self.name, EVENT, bill.bill_id, specific=True)
        what = fault.name.partition(".")[2] if fault else ""
        if what == "event_lost":
            self._event(type_, bill.bill_id, bill.patient_id, "lost", red_receipt_no)
            return
        if what == "event_forged":
            forged = self._event("paid_at_window", bill.bill_id, bill.patient_id, "forged")
            self._send(forged, secret="a-secret-that-somebody-has-made-up-himself")
        event = self._event(type_, bill.bill_id, bill.patient_id, red_receipt_no=red_receipt_no)
        sent: list[Request] = []
        self._send(event, keep=sent)
        if what == "event_duplicated":
            self._send(event, after_seconds=5)
        elif what == "event_replayed":
            replay = self._event(type_, bill.bill_id, bill.patient_id, "replay", red_receipt_no)
            replay.event_id = event.event_id
            self._send(replay, after_seconds=5, again=sent)

    def _send(
        self,
        event: Event,
        *,
        secret: str = "",
        after_seconds: int = 0,
        keep: list[Request] | None = None,
        again: list[Request] | None = None,
    ) -> None:
        """Schedule one sending. `keep` takes what was sent; `again` sends exactly that, byte for byte."""
        key = f"{event.event_id}/{event.role}/{self._next('sending', event.event_id)}"
        self._sending[key] = event

        def build(now: datetime) -> Request:
            if again:
                return again[0]
            request = self._signed_event(event, now, secret or self.keys[self.key_id], key)
            if keep is not None and not keep:
                keep.append(request)
            return request

        self.deliveries.schedule(
            due_at=self.clock.now() + timedelta(seconds=after_seconds),
            url=self.events_url,
            key=key,
            build=build,
        )

    def _signed_event(self, event: Event, now: datetime, secret: str, key: str) -> Request:
        body = json.dumps(
            {
                "event_id": event.event_id,
                "type": event.type,
                "bill_id": event.bill_id,
                "patient_id": event.patient_id,
                "happened_at": _time(event.happened_at),
            }
            | ({"red_receipt_no": event.red_receipt_no} if event.red_receipt_no else {}),
            separators=(",", ":"),
        ).encode()
        nonce = self._digest("event nonce", key, self._next("event nonce", key))
        headers = event_headers(self.key_id, secret, target=EVENTS, now=now, nonce=nonce, body=body)
        return Request(method="POST", target=urlsplit(self.events_url).path or EVENTS, headers=headers, body=body)

    # ------------------------------------------------------------ the console page's own routes

    def _console(self, request: Request) -> Response:
        """JSON beside the API, for the sandbox page on this computer alone."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if host not in LOOPBACK_NAMES:
            return Response.of_json({"error": "on this computer only"}, 403)
        fields = _object(request.body) or {}
        try:
            if request.method == "GET" and request.path == "/_books":
                return Response.of_json(self.books())
            if request.method == "GET" and request.path == "/_people":
                return Response.of_json({"people": [asdict(person) for person in self.patients.values()]})
            if request.method != "POST":
                return Response.of_json({"error": "no such page"}, 404)
            return Response.of_json(self._console_act(request.path, fields))
        except Refusal as refusal:
            return Response.of_json({"error": refusal.code, "message": refusal.message}, 409)
        except (KeyError, TypeError, ValueError) as error:
            return Response.of_json({"error": f"{type(error).__name__}: {error}"}, 400)

    def _console_act(self, path: str, fields: Fields) -> Fields:
        force = bool(fields.get("force", False))
        if path == "/_issue":
            return {"bill_id": self.issue_bill(**_issue_arguments(fields))}
        if path == "/_issue_ready":
            return {"bill_ids": self.issue_ready_bills()}
        if path == "/_window_pay":
            return {"receipt_no": self.window_pay(fields["bill_id"], force=force)}
        if path == "/_cancel":
            self.cancel(fields["bill_id"], force=force)
        elif path == "/_change_amount":
            self.change_amount(fields["bill_id"], int(fields["to_pay_fen"]), force=force)
        elif path == "/_reverse":
            money_by = fields.get("money_by") or None
            return {"red_receipt_no": self.reverse_at_window(fields["bill_id"], money_by=money_by)}
        elif path == "/_dispense":
            self.dispense(fields["bill_id"])
        elif path == "/_resolve":
            self.resolve(fields["confirm_no"], book=bool(fields["book"]))
        elif path == "/_probe":
            self.send_probe()
        else:
            raise KeyError(path)
        return {"done": True}


def _issue_arguments(fields: Fields) -> Fields:
    """What the console page may choose; times come as RFC 3339."""
    plain = {
        "patient_id",
        "kind",
        "total_fen",
        "to_pay_fen",
        "visit_no",
        "insured",
        "payable_online",
        "not_payable_reason",
        "merge_group",
        "treat_first",
        "valid_days",
    }
    chosen = {name: value for name, value in fields.items() if name in plain}
    for name in ("valid_until", "issued_at"):
        if fields.get(name):
            chosen[name] = _moment(fields[name])
    if "items" in fields:
        chosen["items"] = [(str(row["name"]), int(row["amount_fen"])) for row in fields["items"]]
    return chosen


def _with_no_value_words(fields: Fields) -> Fields:
    """The same answer as a HIS that writes "no value" in every way there is, and adds fields of its own."""
    words: tuple[Any, ...] = ("", "null", [], -1, None)

    def spoiled(row: Mapping[str, Any]) -> Fields:
        empty = iter(words * 4)
        optional = ("department", "doctor", "not_payable_reason", "guide_text", "birth_date", "receipt_url")
        return {
            **{name: next(empty) if name in optional else value for name, value in row.items()},
            "vendor_extra": {"深": [1, None, "null"]},
        }

    return {
        name: [spoiled(row) if isinstance(row, dict) else row for row in value]
        if isinstance(value, list)
        else spoiled(value)
        if isinstance(value, dict)
        else value
        for name, value in spoiled(fields).items()
    }


def _shown(person: Person) -> Fields:
    return {
        "patient_id": person.patient_id,
        "name": person.name,
        "phones": list(person.phones),
        "identifiers": [{"type": type_, "value": value} for type_, value in person.identifiers],
        "birth_date": person.birth_date,
    }


def _by_issue(bills: Iterable[HisBill]) -> list[HisBill]:
    return sorted(bills, key=lambda bill: (bill.issued_at, bill.bill_id))


def _object(body: bytes) -> Fields | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _moment(text: object) -> datetime:
    moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset")
    return moment.astimezone(UTC)


def _time(moment: datetime) -> str:
    return moment.astimezone(HOSPITAL_TIME).isoformat()


def _plain(fields: Fields) -> Fields:
    return {name: _time(value) if isinstance(value, datetime) else value for name, value in fields.items()}
