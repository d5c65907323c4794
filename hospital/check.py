"""The read-only connection check of a real HIS: what `zhenfu hospital check` prints.

Nothing is locked, booked or released: only questions that leave no trace in the HIS's books are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from core.clock import Clock
from core.errors import CounterpartyError, NotReached, OutcomeUnknown, Refused
from core.ports import HospitalSite
from hospital.rest import mapping
from hospital.rest.client import Answer, Exchange, Forging
from hospital.rest.hospital import RestHospital

CLOCK_SKEW_SECONDS_MAX = 30  # the signature tolerates 300; a hospital's clock should be better than that
NEW_BILLS_WINDOW = timedelta(minutes=10)
PAID_WINDOW = timedelta(days=30)
NOBODY, NO_BILL, NO_NUMBER = "ZHENFU-CHECK-NOBODY", "ZHENFU-CHECK-NO-BILL", "C0000000000000ZHENFUCHECK0"

_AMOUNTS = ("total_fen", "to_pay_fen", "amount_fen")
_TIMES = ("issued_at", "valid_until", "paid_at")
_KINDS = frozenset({"western", "chinese", "treatment", "other"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report; `what_to_do` is for the hospital's IT and empty when all is well."""

    name: str
    ok: bool
    detail: str
    what_to_do: str = ""


async def check_site(
    hospital: RestHospital, site: HospitalSite, clock: Clock, *, patient_id: str | None = None
) -> list[Finding]:
    """Ask everything that can be asked without moving anything.

    With `patient_id`, a patient of the hospital's test department, the bills are looked at as well. When
    the HIS cannot be reached at all, that is the only finding.
    """
    checks = _Checks(hospital, site, clock)
    if not await checks.reach():
        return checks.findings
    await checks.signatures()
    await checks.capabilities()
    await checks.unknown_things()
    await checks.new_bills()
    if patient_id:
        await checks.person(patient_id)
        await checks.bills_of(patient_id)
    else:
        checks.note(
            "bills",
            ok=False,
            detail="not looked at",
            what_to_do="run the check again with the patient id of a test patient who has an unpaid bill",
        )
    return checks.findings


class _Checks:
    def __init__(self, hospital: RestHospital, site: HospitalSite, clock: Clock) -> None:
        self._client = hospital.client
        self._site = site
        self._clock = clock
        self.findings: list[Finding] = []

    def note(self, name: str, *, ok: bool, detail: str, what_to_do: str = "") -> None:
        self.findings.append(Finding(name=name, ok=ok, detail=detail, what_to_do="" if ok else what_to_do))

    # ------------------------------------------------------------ line, clock and signatures

    async def reach(self) -> bool:
        """Whether there is anything at this address that sends bytes back."""
        try:
            exchange = await self._client.exchange(self._site, "ping", {})
        except (NotReached, OutcomeUnknown) as silence:
            self.note(
                "reachable",
                ok=False,
                detail=f"{type(silence).__name__}: {silence}",
                what_to_do="check the base URL, the firewall between us, the certificate, and that it answers "
                f"within {self._site.deadline_seconds} s",
            )
            return False
        self.note("reachable", ok=True, detail=f"HTTP {exchange.reply.status}")
        self._clock_skew(exchange)
        problem = self._client.signature_problem(self._site, exchange)
        self.note(
            "answer_signed",
            ok=not problem,
            detail=problem or "the answer's signature fits our request",
            what_to_do="sign every answer over STATUS, the request's nonce, timestamp, nonce and body "
            "(the worked example in docs/connect-a-hospital.md has all numbers)",
        )
        return True

    def _clock_skew(self, exchange: Exchange) -> None:
        text = exchange.reply.headers.get("zhenfu-timestamp", "")
        if not text.isascii() or not text.isdigit():
            self.note(
                "clock",
                ok=False,
                detail="no Zhenfu-Timestamp in the answer",
                what_to_do="send the time of the answer in seconds since 1970",
            )
            return
        skew_seconds = int(text) - self._clock.now().timestamp()
        self.note(
            "clock",
            ok=abs(skew_seconds) <= CLOCK_SKEW_SECONDS_MAX,
            detail=f"differs by {skew_seconds:+.0f} s",
            what_to_do="set both servers' clocks by NTP; beyond 300 s nothing is accepted",
        )

    async def signatures(self) -> None:
        """A request that is not properly ours must be refused."""
        for forging, name, what_to_do in (
            (Forging.UNSIGNED, "unsigned_refused", "refuse every request without a signature"),
            (Forging.WRONG_SIGNATURE, "wrong_signature_refused", "compare the signature, do not only look for it"),
            (Forging.OLD_TIMESTAMP, "old_request_refused", "refuse a timestamp more than 300 s from your clock"),
        ):
            try:
                exchange = await self._client.exchange(self._site, "ping", {}, forging=forging)
            except (NotReached, OutcomeUnknown) as silence:
                self.note(name, ok=False, detail=f"no answer: {silence}", what_to_do=what_to_do)
                continue
            fields = mapping.read_object(exchange.reply.body) or {}
            accepted = mapping.text(fields, "outcome") == "ok"
            clearly = 400 <= exchange.reply.status < 500 or mapping.text(fields, "outcome") == "refused"
            self.note(
                name,
                ok=clearly and not accepted,
                detail=f"HTTP {exchange.reply.status}, {'accepted' if accepted else 'refused' if clearly else '?'}",
                what_to_do=what_to_do + "; answer 401 with outcome refused",
            )

    async def capabilities(self) -> None:
        answer = await self._ask("ping", {"zhenfu_check_unknown_field": [1, None]}, name="extra_field_tolerated")
        if answer is None:
            return
        said = answer.fields.get("capabilities")
        if not isinstance(said, dict):
            self.note(
                "capabilities",
                ok=False,
                detail="ping does not say them",
                what_to_do="answer ping with the capabilities of the questionnaire",
            )
            return
        ours = self._site.capabilities
        names = ("lock", "lock_query", "query_payment", "list_paid", "statement", "poll_bills", "events",
                 "refund_check", "refund", "refund_query", "partial_refund", "patient_by_id", "confirm_unit",
                 "processing_limit_seconds", "lock_seconds")  # fmt: skip
        differing = [
            f"{name}: HIS {said[name]}, configured {getattr(ours, name)}"
            for name in names
            if name in said and said[name] != getattr(ours, name)
        ]
        self.note(
            "capabilities",
            ok=not differing,
            detail="; ".join(differing) or "as configured",
            what_to_do="correct the site's settings or the questionnaire",
        )

    # ------------------------------------------------------------ questions without a trace

    async def unknown_things(self) -> None:
        """A HIS must say "no such thing" and must not invent one."""
        await self._refusal("list_bills", {"patient_id": NOBODY}, "PATIENT_UNKNOWN", name="unknown_patient")
        await self._refusal("get_bill", {"bill_id": NO_BILL}, "BILL_UNKNOWN", name="unknown_bill")
        if self._site.capabilities.patient_by_id:
            await self._refusal("get_patient", {"patient_id": NOBODY}, "PATIENT_UNKNOWN", name="unknown_person")
        nobody = {"identifier": {"type": "hospital_card", "value": NOBODY}}
        answer = await self._ask("find_patients", nobody, name="unknown_card")
        if answer:
            self._expect("nobody_found", answer, "patients", [], "find nobody: answer patients: []")
        if self._site.capabilities.query_payment:
            answer = await self._ask("query_payment", {"confirm_no": NO_NUMBER}, name="unknown_payment")
            if answer:
                self._expect("not_booked", answer, "booked", False, "answer booked: false for a number never sent")
        if self._site.capabilities.lock and self._site.capabilities.lock_query:
            answer = await self._ask("query_lock", {"confirm_no": NO_NUMBER}, name="unknown_lock")
            if answer:
                self._expect("not_locked", answer, "state", "absent", "answer state: absent for an unknown number")

    async def new_bills(self) -> None:
        if not self._site.capabilities.poll_bills:
            return
        now = self._clock.now()
        window = {"since": mapping.time_text(now - NEW_BILLS_WINDOW), "until": mapping.time_text(now)}
        answer = await self._ask("list_new_bills", window, name="new_bills")
        if answer:
            self._rows("new_bills_readable", answer, "bills", needed=("bill_id", "patient_id"))

    async def person(self, patient_id: str) -> None:
        """The one who was asked for, with something that a stranger with a paper in hand can be asked."""
        if not self._site.capabilities.patient_by_id:
            return
        answer = await self._ask("get_patient", {"patient_id": patient_id}, name="person")
        if answer is None:
            return
        try:
            person = mapping.read_one_patient(answer.fields, his_patient_id=patient_id)
        except mapping.Unreadable as unreadable:
            self.note(
                "person_readable",
                ok=False,
                detail=str(unreadable),
                what_to_do="answer with the person who was asked for",
            )
            return
        missing = [name for name, value in (("name", person.name), ("birth_date", person.birth_date)) if not value]
        held = f"{len(person.phones)} phones, {len(person.identifiers)} documents"
        self.note(
            "person_readable",
            ok=not missing and bool(person.phones or person.identifiers),
            detail=held + (f"; {', '.join(missing)} missing" if missing else ""),
            what_to_do="give name, birth_date, and every phone and document that the HIS holds: without one of these "
            "nobody can open the patient's papers",
        )

    async def bills_of(self, patient_id: str) -> None:
        answer = await self._ask("list_bills", {"patient_id": patient_id}, name="bills")
        if answer is None:
            return
        rows = self._rows("bills_readable", answer, "bills", needed=("bill_id", "visit_no", "kind_text"))
        kinds = sorted({mapping.text(row, "kind") for row in rows} - _KINDS)
        self.note(
            "kinds",
            ok=not kinds,
            detail=f"unknown kinds: {', '.join(kinds)}" if kinds else "all known",
            what_to_do="unknown kinds are shown as 其他 and can be paid; map them if they are common",
        )
        if rows:
            bill_id = mapping.text(rows[0], "bill_id")
            one = await self._ask("get_bill", {"bill_id": bill_id}, name="one_bill")
            if one:
                self._one_bill(one, rows[0])
        if self._site.capabilities.list_paid:
            now = self._clock.now()
            window = {"since": mapping.time_text(now - PAID_WINDOW), "until": mapping.time_text(now)}
            paid = await self._ask("list_paid", {"patient_id": patient_id, **window}, name="paid")
            if paid:
                self._rows("paid_readable", paid, "records", needed=("bill_id", "paid_at", "amount_fen"))

    def _one_bill(self, answer: Answer, listed: Mapping[str, Any]) -> None:
        bill = answer.fields.get("bill")
        same = isinstance(bill, dict) and all(bill.get(name) == listed.get(name) for name in ("bill_id", "to_pay_fen"))
        items = bill.get("items") if isinstance(bill, dict) else None
        self.note(
            "one_bill_as_listed",
            ok=same and isinstance(items, list) and bool(items),
            detail="same amount, with items" if same and items else "differs from the list or has no items",
            what_to_do="get_bill must give the same bill as the list, with its items",
        )

    # ------------------------------------------------------------ small parts

    async def _ask(self, operation: str, fields: Mapping[str, Any], *, name: str) -> Answer | None:
        try:
            answer = await self._client.call(self._site, operation, fields)
        except CounterpartyError as error:
            detail = f"{type(error).__name__}: {error.code if isinstance(error, Refused) else error}"
            self.note(
                name,
                ok=False,
                detail=f"{operation}: {detail}",
                what_to_do=f"answer {operation} as its sample in docs/connect-a-hospital.md",
            )
            return None
        self.note(name, ok=True, detail=f"{operation} answers")
        return answer

    async def _refusal(self, operation: str, fields: Mapping[str, Any], code: str, *, name: str) -> None:
        try:
            await self._client.call(self._site, operation, fields)
            detail, ok = f"{operation} answers ok for something that does not exist", False
        except Refused as refused:
            detail, ok = f"{operation} refuses with {refused.code}", refused.code == code and refused.final
        except (NotReached, OutcomeUnknown) as silence:
            detail, ok = f"{operation}: {silence}", False
        self.note(name, ok=ok, detail=detail, what_to_do=f"answer {operation} with refused, code {code}")

    def _expect(self, name: str, answer: Answer, field: str, value: object, what_to_do: str) -> None:
        said = answer.fields.get(field)
        self.note(
            name,
            ok=said == value and type(said) is type(value),
            detail=f"{field}: {'as expected' if said == value else 'something else'}",
            what_to_do=what_to_do,
        )

    def _rows(self, name: str, answer: Answer, field: str, *, needed: tuple[str, ...]) -> list[dict[str, Any]]:
        """Look at every row of a list: what is missing, which amounts are not fen, which times have no zone."""
        try:
            rows = mapping.rows(answer.fields, field)
        except mapping.Unreadable as unreadable:
            self.note(name, ok=False, detail=str(unreadable), what_to_do=f"{field} must be a list, [] for none")
            return []
        problems = set()
        for row in rows:
            problems |= {f"{field_name} missing" for field_name in needed if not mapping.text(row, field_name)}
            problems |= _amount_problems(row) | _time_problems(row)
        self.note(
            name,
            ok=not problems,
            detail="; ".join(sorted(problems)) or f"{len(rows)} rows, all readable",
            what_to_do="amounts are whole numbers of fen; times are RFC 3339 with +08:00",
        )
        return rows


def _amount_problems(row: Mapping[str, Any]) -> set[str]:
    problems = set()
    for name in _AMOUNTS:
        try:
            mapping.amount(row, name)
        except mapping.Unreadable as unreadable:
            problems.add(str(unreadable))
    if all(mapping.is_nothing(row.get(name)) for name in _AMOUNTS):
        problems.add("no amount")
    return problems


def _time_problems(row: Mapping[str, Any]) -> set[str]:
    return {
        f"{name} has no zone or is no time"
        for name in _TIMES
        if mapping.text(row, name) and mapping.moment(row, name) is None
    }
