"""The Hospital port over the signed REST profile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson

from core.clock import Clock
from core.errors import NotReached, OutcomeUnknown, Refused
from core.ports import (
    Acknowledgement,
    Bill,
    BookedBill,
    Booking,
    ConfirmOrder,
    HospitalEvent,
    HospitalPatient,
    HospitalSite,
    Identifier,
    LinkRefusal,
    LinkRequest,
    LockGrant,
    LockOrder,
    LockState,
    PaidPage,
    PaidRecord,
    RedReceipt,
    RefundableBill,
    Reversal,
    ReverseOrder,
    Unverified,
)
from hospital.rest import mapping, refund_mapping
from hospital.rest.client import RestClient
from hospital.rest.signing import LINKS_PATH, SeenNonces, answer_headers, event_problem, read_keys
from wire.http import Transport

PARAMS = ("key_id", "secret", "other_key_id", "other_secret", "paper_key")
"""The parameters of a site; the other key only while one is being replaced, the paper key where papers are made."""

PARAMS_SECRET = frozenset({"secret", "other_secret", "paper_key"})


def fresh_nonce() -> str:
    """128 random bits."""
    return secrets.token_hex(16)


class RestHospital:
    """Every call is one exchange; only a final refusal to lock, book or reverse is asked back before it counts."""

    name = "rest"

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        nonce: Callable[[], str] = fresh_nonce,
        seen_nonces: SeenNonces | None = None,
    ) -> None:
        self.client = RestClient(transport, clock, nonce)
        self._nonce = nonce
        self._clock = clock
        self._seen_nonces = seen_nonces or SeenNonces()

    def paper_key(self, site: HospitalSite) -> bytes:
        return site.params.get("paper_key", "").encode()

    async def find_patients(self, site: HospitalSite, identifier: Identifier) -> tuple[HospitalPatient, ...]:
        asked = {"identifier": {"type": identifier.type.value, "value": identifier.value}}
        answer = await self.client.call(site, "find_patients", asked)
        with _reading():
            return mapping.read_patients(answer.fields)

    async def get_patient(self, site: HospitalSite, his_patient_id: str) -> HospitalPatient | None:
        """None only when the HIS says PATIENT_UNKNOWN."""
        try:
            answer = await self.client.call(site, "get_patient", {"patient_id": his_patient_id})
        except Refused as refused:
            if refused.final and refused.code == "PATIENT_UNKNOWN":
                return None
            raise
        with _reading():
            return mapping.read_one_patient(answer.fields, his_patient_id=his_patient_id)

    async def list_bills(self, site: HospitalSite, his_patient_id: str) -> tuple[Bill, ...]:
        """All bills of this patient that are not settled. Raises OutcomeUnknown rather than leave one out."""
        answer = await self.client.call(site, "list_bills", {"patient_id": his_patient_id})
        with _reading():
            return mapping.read_unpaid_bills(answer.fields, branch=site.branch, his_patient_id=his_patient_id)

    async def list_new_bills(self, site: HospitalSite, since: datetime, until: datetime) -> tuple[Bill, ...]:
        answer = await self.client.call(site, "list_new_bills", _window(since, until))
        with _reading():
            return mapping.read_new_bills(answer.fields, branch=site.branch)

    async def get_bill(self, site: HospitalSite, his_bill_id: str) -> Bill | None:
        """The bill with its items; None only when the HIS says BILL_UNKNOWN."""
        try:
            answer = await self.client.call(site, "get_bill", {"bill_id": his_bill_id})
        except Refused as refused:
            if refused.final and refused.code == "BILL_UNKNOWN":
                return None
            raise
        with _reading():
            return mapping.read_one_bill(answer.fields, branch=site.branch, his_bill_id=his_bill_id)

    async def lock_bills(self, site: HospitalSite, order: LockOrder) -> LockGrant:
        """Hold exactly these bills. An answer about other bills is OutcomeUnknown: ask, then release.

        Locking again after LOCK_LAPSED may meet bills that are paid, by us: that is Refused("LOCK_CONSUMED"),
        not final, and query_payment tells the rest.
        """
        try:
            answer = await self.client.call(site, "lock_bills", mapping.write_lock(order))
        except Refused as refused:
            booking = await self._asked_back(site, order.confirm_no, refused)
            raise Refused("LOCK_CONSUMED", final=False, raw=booking.raw) from refused
        with _reading():
            mapping.must_match(answer.fields, "confirm_no", order.confirm_no)
            return mapping.read_grant(
                answer.fields, asked=frozenset(order.his_bill_ids), now=self._clock.now(), site=site
            )

    async def query_lock(self, site: HospitalSite, confirm_no: str) -> LockState:
        answer = await self.client.call(site, "query_lock", {"confirm_no": confirm_no})
        with _reading():
            mapping.must_match(answer.fields, "confirm_no", confirm_no)
            return mapping.read_lock_state(answer.fields, now=self._clock.now(), site=site)

    async def release_lock(self, site: HospitalSite, confirm_no: str) -> None:
        await self.client.call(site, "release_lock", {"confirm_no": confirm_no})

    async def confirm_payment(self, site: HospitalSite, order: ConfirmOrder) -> Booking:
        """Tell the HIS that these bills are paid. `booked` false: it has received it and is still working."""
        try:
            answer = await self.client.call(site, "confirm_payment", mapping.write_confirm(order))
        except Refused as refused:
            return await self._asked_back(site, order.confirm_no, refused)
        with _reading():
            return mapping.read_booking(
                answer.fields, raw=answer.raw, confirm_no=order.confirm_no, amounts=_amounts(order)
            )

    async def _asked_back(self, site: HospitalSite, confirm_no: str, refused: Refused) -> Booking:
        """A listed refusal stands only if this confirm_no is not booked; returns the booking if it is.

        A HIS that forgets what it has booked answers a repeated confirm_no with "paid" (by us) or "unknown
        bill" (it left the list). Taken at its word, this would send booked money back to the patient.
        """
        if not refused.final:
            raise refused
        if not site.capabilities.query_payment:
            raise Refused(refused.code, refused.message, final=False, raw=refused.raw) from refused
        try:
            booking = await self.query_payment(site, confirm_no)
        except (Refused, NotReached) as silence:
            raise OutcomeUnknown(f"{refused.code}, and no word on whether we are the payer") from silence
        if not booking.booked:
            raise refused
        return booking

    async def query_payment(self, site: HospitalSite, confirm_no: str) -> Booking:
        answer = await self.client.call(site, "query_payment", {"confirm_no": confirm_no})
        with _reading():
            return mapping.read_booking(answer.fields, raw=answer.raw, confirm_no=confirm_no)

    async def list_paid(
        self, site: HospitalSite, his_patient_id: str, since: datetime, until: datetime
    ) -> tuple[PaidRecord, ...]:
        asked = {"patient_id": his_patient_id, **_window(since, until)}
        answer = await self.client.call(site, "list_paid", asked)
        with _reading():
            return mapping.read_paid(answer.fields, branch=site.branch, his_patient_id=his_patient_id)

    async def statement(self, site: HospitalSite, since: datetime, until: datetime, page: int) -> PaidPage:
        answer = await self.client.call(site, "statement", {**_window(since, until), "page": page})
        with _reading():
            return mapping.read_statement(answer.fields, branch=site.branch)

    async def refund_check(
        self, site: HospitalSite, his_patient_id: str, bills: Sequence[BookedBill]
    ) -> tuple[RefundableBill, ...]:
        answer = await self.client.call(site, "refund_check", refund_mapping.write_refund_check(his_patient_id, bills))
        with _reading():
            return refund_mapping.read_refundable(answer.fields, asked=frozenset(bill.his_bill_id for bill in bills))

    async def confirm_refund(self, site: HospitalSite, order: ReverseOrder) -> Reversal:
        """Ask the HIS to take these bookings back. `reversed` false: it has received it and is still working."""
        try:
            answer = await self.client.call(site, "confirm_refund", refund_mapping.write_confirm_refund(order))
        except Refused as refused:
            return await self._reversed_after_all(site, order.refund_no, refused)
        with _reading():
            return refund_mapping.read_reversal(
                answer.fields,
                raw=answer.raw,
                refund_no=order.refund_no,
                amounts={line.his_bill_id: line.amount_fen for line in order.lines},
            )

    async def _reversed_after_all(self, site: HospitalSite, refund_no: str, refused: Refused) -> Reversal:
        """A listed refusal stands only if this refund_no is not reversed: ALREADY_REFUNDED may mean by us."""
        if not refused.final:
            raise refused
        if not site.capabilities.refund_query:
            raise Refused(refused.code, refused.message, final=False, raw=refused.raw) from refused
        try:
            reversal = await self.query_refund(site, refund_no)
        except (Refused, NotReached) as silence:
            raise OutcomeUnknown(f"{refused.code}, and no word on whether it was reversed for us") from silence
        if not reversal.reversed:
            raise refused
        return reversal

    async def query_refund(self, site: HospitalSite, refund_no: str) -> Reversal:
        answer = await self.client.call(site, "query_refund", {"refund_no": refund_no})
        with _reading():
            return refund_mapping.read_reversal(answer.fields, raw=answer.raw, refund_no=refund_no)

    async def query_red_receipt(self, site: HospitalSite, red_receipt_no: str) -> RedReceipt:
        answer = await self.client.call(site, "query_red_receipt", {"red_receipt_no": red_receipt_no})
        with _reading():
            return refund_mapping.read_red_receipt(answer.fields, raw=answer.raw, red_receipt_no=red_receipt_no)

    async def read_event(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> HospitalEvent | Unverified:
        """Verify, then read. `now` is the moment of arrival: read again with the same `now` is no replay."""
        problem = event_problem(read_keys(site.params), headers, body=body, now=now)
        if problem:
            return Unverified(reason=problem)
        if self._seen_nonces.is_replay(headers["zhenfu-key"], headers["zhenfu-nonce"], now):
            return Unverified(reason="this nonce has been used before")
        try:
            return mapping.read_event_body(body)
        except mapping.Unreadable as unreadable:
            return Unverified(reason=str(unreadable))

    def acknowledge(self, *, accepted: bool) -> Acknowledgement:
        """200 once the event is stored; anything else makes the HIS send it again."""
        if accepted:
            return Acknowledgement(status=200, body=b'{"outcome":"ok"}')
        return Acknowledgement(status=401, body=b'{"outcome":"refused","code":"EVENT_NOT_ACCEPTED"}')

    async def read_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> LinkRequest | Unverified:
        """The same request again is answered again, so a nonce is not remembered: only its HIS can read the answer."""
        problem = event_problem(read_keys(site.params), headers, body=body, now=now, target=LINKS_PATH)
        return Unverified(reason=problem) if problem else mapping.read_link_request(body)

    def answer_link_request(
        self, site: HospitalSite, headers: Mapping[str, str], said: Mapping[str, str] | LinkRefusal, now: datetime
    ) -> Acknowledgement:
        """Signed, so that nobody puts another address on a paper; only a refused signature is answered without one."""
        if isinstance(said, LinkRefusal):
            body = orjson.dumps({"outcome": "refused", "code": said.value})
            if said is LinkRefusal.NOT_ACCEPTED:
                return Acknowledgement(status=401, body=body)
        else:
            body = orjson.dumps({"outcome": "ok", **said})
        signed = answer_headers(read_keys(site.params), headers, status=200, nonce=self._nonce(), now=now, body=body)
        return Acknowledgement(status=200, body=body, headers=signed)

    def opens_at(self, site: HospitalSite) -> datetime | None:
        """Whoever guards this adapter knows better."""
        return None

    async def check(self, site: HospitalSite) -> str:
        """Ask for the time and the version with our signature; money and bills are not touched."""
        answer = await self.client.call(site, "ping", {})
        with _reading():
            skew_seconds = (mapping.needed_moment(answer.fields, "time") - self._clock.now()).total_seconds()
        version = mapping.text(answer.fields, "version") or "of unknown version"
        return f"HIS {version} answers, its signature is right, its clock differs by {skew_seconds:+.0f} s"


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except mapping.Unreadable as unreadable:
        raise OutcomeUnknown(f"the answer cannot be read: {unreadable}") from unreadable


def _window(since: datetime, until: datetime) -> dict[str, Any]:
    return {"since": mapping.time_text(since), "until": mapping.time_text(until)}


def _amounts(order: ConfirmOrder) -> dict[str, Any]:
    return {line.his_bill_id: line.amount_fen for line in order.lines}
