"""The REST profile's fields and codes ↔ ours. Pure: no network, no clock.

Optional fields may be missing, "", "null", [], {} or -1: all of them mean "no value". A compulsory field that
cannot be read raises Unreadable, which the caller turns into OutcomeUnknown: an answer that we do not
understand never becomes "nothing to pay", "not booked" or another amount.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from core.money import AMOUNT_FEN_MAX, Fen
from core.ports import (
    Bill,
    BillItem,
    BillKind,
    BillReceipt,
    Booking,
    ConfirmOrder,
    HospitalEvent,
    HospitalEventKind,
    HospitalPatient,
    HospitalSite,
    Identifier,
    IdentifierType,
    LinkRequest,
    LockGrant,
    LockOrder,
    LockState,
    LockWord,
    PaidPage,
    PaidRecord,
)

FINAL_REFUSALS: Mapping[str, frozenset[str]] = {
    "find_patients": frozenset(),
    "get_patient": frozenset({"PATIENT_UNKNOWN"}),
    "list_bills": frozenset({"PATIENT_UNKNOWN"}),
    "list_new_bills": frozenset(),
    "get_bill": frozenset({"BILL_UNKNOWN"}),
    "lock_bills": frozenset(
        {
            "BILL_PAID",
            "BILL_CANCELLED",
            "BILL_EXPIRED",
            "BILL_UNKNOWN",
            "NOT_PAYABLE_ONLINE",
            "PATIENT_UNKNOWN",
            "MERGE_NOT_ALLOWED",
        }
    ),
    "query_lock": frozenset(),
    "release_lock": frozenset({"LOCK_CONSUMED"}),
    "confirm_payment": frozenset(
        {
            "BILL_PAID",
            "BILL_CANCELLED",
            "BILL_EXPIRED",
            "BILL_UNKNOWN",
            "AMOUNT_MISMATCH",
            "NOT_PAYABLE_ONLINE",
            "PATIENT_UNKNOWN",
            "MERGE_NOT_ALLOWED",
        }
    ),
    "query_payment": frozenset(),
    "list_paid": frozenset({"PATIENT_UNKNOWN"}),
    "statement": frozenset(),
    "refund_check": frozenset(),
    "confirm_refund": frozenset(
        {
            "DISPENSED",
            "EXECUTED",
            "INVOICED_ON_PAPER",
            "REFUND_TOO_LATE",
            "REFUND_WINDOW_ONLY",
            "REFUND_ABOVE_REST",
            "ALREADY_REFUNDED",
            "PARTIAL_NOT_ALLOWED",
            "NOT_BOOKED",
            "BILL_UNKNOWN",
            "PATIENT_UNKNOWN",
        }
    ),
    "query_refund": frozenset(),
    "query_red_receipt": frozenset(),
    "ping": frozenset(),
}
"""The closed list: per operation, the codes that prove that nothing was done and nothing will be."""

BILL_ID_LENGTH_MAX = 128

OPERATIONS = frozenset(FINAL_REFUSALS)

_NO_VALUE: tuple[Any, ...] = (None, "", "null", "NULL", [], {}, -1)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(\.\d{1,6})?\d*(?:([Zz])|([+-]\d{2}:\d{2}))", re.ASCII
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_BILL_STATES = frozenset({"unpaid", "paid", "cancelled", "expired"})
_TRUE: tuple[Any, ...] = (True, 1, "1", "true", "True", "Y", "y")
_FALSE: tuple[Any, ...] = (False, 0, "0", "false", "False", "N", "n")


class Unreadable(Exception):
    """Not what the profile demands; the text names the field, never its value."""


# ---------------------------------------------------------------- single values


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in these bytes, or None."""
    try:
        value = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def is_nothing(value: object) -> bool:
    """Whether a field says "no value" in one of the ways that are common among HIS."""
    return not isinstance(value, bool) and value in _NO_VALUE


def text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if is_nothing(value) or isinstance(value, bool | list | dict):
        return ""
    return str(value).replace("\x00", "").strip()


def needed_text(fields: Mapping[str, Any], name: str) -> str:
    value = text(fields, name)
    if not value:
        raise Unreadable(f"{name} is missing")
    return value


def texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if not isinstance(value, list):
        value = [value]
    return tuple(
        str(entry).replace("\x00", "").strip()
        for entry in value
        if not is_nothing(entry) and isinstance(entry, str | int)
    )


def flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str):
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
    return default


def amount(fields: Mapping[str, Any], name: str) -> Fen | None:
    """An amount in whole fen, or None for no value. Yuan, fractions and texts are refused, never guessed."""
    value = fields.get(name)
    if is_nothing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= AMOUNT_FEN_MAX:
        raise Unreadable(f"{name} is not a whole number of fen")
    return Fen(value)


def needed_amount(fields: Mapping[str, Any], name: str) -> Fen:
    value = amount(fields, name)
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value


def moment(fields: Mapping[str, Any], name: str) -> datetime | None:
    """A time with its zone, in UTC; None for no value and for a time without zone."""
    match = _RFC3339.fullmatch(text(fields, name))
    if match is None:
        return None
    day, time, fraction, _, offset = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{time}{(fraction or '.0').ljust(7, '0')}{offset or '+00:00'}").astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        return None


def needed_moment(fields: Mapping[str, Any], name: str) -> datetime:
    value = moment(fields, name)
    if value is None:
        raise Unreadable(f"{name} is not a time with zone")
    return value


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC, whole seconds unless there are microseconds."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def rows(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list that must be there: only an explicit empty list means "none"."""
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Unreadable(f"{name} is not a list of objects")
    return value


def optional_rows(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [] if is_nothing(fields.get(name)) else rows(fields, name)


def must_match(fields: Mapping[str, Any], name: str, asked: str) -> None:
    """What comes back, if it is said at all, must be what we asked about."""
    said = text(fields, name)
    if said and said != asked:
        raise Unreadable(f"{name} is not the one that was asked for")


# ---------------------------------------------------------------- patients and bills


def read_patients(answer: Mapping[str, Any]) -> tuple[HospitalPatient, ...]:
    return tuple(_patient(row) for row in rows(answer, "patients"))


def read_one_patient(answer: Mapping[str, Any], *, his_patient_id: str) -> HospitalPatient:
    """The person who was asked for; somebody else is Unreadable."""
    row = answer.get("patient")
    if not isinstance(row, dict):
        raise Unreadable("patient is missing")
    must_match(row, "patient_id", his_patient_id)
    return _patient({**row, "patient_id": his_patient_id})


def _patient(row: Mapping[str, Any]) -> HospitalPatient:
    return HospitalPatient(
        his_patient_id=needed_text(row, "patient_id"),
        name=text(row, "name"),
        phones=texts(row, "phones"),
        identifiers=tuple(_identifiers(row)),
        birth_date=text(row, "birth_date") if _DATE.fullmatch(text(row, "birth_date")) else "",
    )


def _identifiers(row: Mapping[str, Any]) -> list[Identifier]:
    known = frozenset(IdentifierType)
    return [
        Identifier(type=IdentifierType(text(entry, "type")), value=text(entry, "value"))
        for entry in optional_rows(row, "identifiers")
        if text(entry, "type") in known and text(entry, "value")
    ]


def read_unpaid_bills(answer: Mapping[str, Any], *, branch: str, his_patient_id: str) -> tuple[Bill, ...]:
    """The bills of one patient that are not settled. Another patient's bill among them is Unreadable."""
    bills = []
    for row in rows(answer, "bills"):
        must_match(row, "patient_id", his_patient_id)
        bills.append(read_bill({**row, "patient_id": his_patient_id}, branch=branch, state_unsaid="unpaid"))
    return tuple(bill for bill in _once(bills) if bill.state not in ("paid", "cancelled"))


def read_new_bills(answer: Mapping[str, Any], *, branch: str) -> tuple[Bill, ...]:
    return _once([read_bill(row, branch=branch, state_unsaid="unpaid") for row in rows(answer, "bills")])


def read_one_bill(answer: Mapping[str, Any], *, branch: str, his_bill_id: str) -> Bill:
    """The bill under the HIS's own spelling of its number: whoever asks for "cf1" at a HIS that does not mind the
    case gets "CF1", so that one bill is never paid under two names.
    """
    row = answer.get("bill")
    if not isinstance(row, dict):
        raise Unreadable("bill is missing")
    if needed_text(row, "bill_id").casefold() != his_bill_id.casefold():
        raise Unreadable("bill_id is not the one that was asked for")
    return read_bill(row, branch=branch, state_unsaid="unknown")


def read_bill(row: Mapping[str, Any], *, branch: str, state_unsaid: str) -> Bill:
    """One bill. `branch` is the site's own, so that a bill keeps its name whatever the HIS says."""
    total, to_pay = amount(row, "total_fen"), amount(row, "to_pay_fen")
    if total is None and to_pay is None:
        raise Unreadable("total_fen and to_pay_fen are missing")
    state = text(row, "state") or state_unsaid
    kind_text = text(row, "kind_text")
    return Bill(
        branch=branch,
        his_bill_id=needed_text(row, "bill_id"),
        his_patient_id=needed_text(row, "patient_id"),
        visit_no=text(row, "visit_no"),
        kind=read_kind(text(row, "kind")),
        kind_text=kind_text,
        title=text(row, "title") or kind_text,
        department=text(row, "department"),
        doctor=text(row, "doctor"),
        issued_at=moment(row, "issued_at"),
        total_fen=_first(total, to_pay),
        to_pay_fen=_first(to_pay, total),
        insured=flag(row, "insured", default=False),
        payable_online=flag(row, "payable_online", default=True),
        not_payable_reason=text(row, "not_payable_reason"),
        state=state if state in _BILL_STATES else "unknown",
        merge_group=text(row, "merge_group"),
        treat_first=flag(row, "treat_first", default=False),
        valid_until=moment(row, "valid_until"),
        items=tuple(
            BillItem(
                name=text(item, "name"),
                specification=text(item, "specification"),
                quantity=text(item, "quantity"),
                unit=text(item, "unit"),
                amount_fen=needed_amount(item, "amount_fen"),
            )
            for item in optional_rows(row, "items")
        ),
    )


def read_kind(word: str) -> BillKind:
    """An unknown kind is OTHER and still payable."""
    try:
        return BillKind(word)
    except ValueError:
        return BillKind.OTHER


def _first(value: Fen | None, otherwise: Fen | None) -> Fen:
    chosen = otherwise if value is None else value
    assert chosen is not None
    return chosen


def _once(bills: list[Bill]) -> tuple[Bill, ...]:
    seen: dict[str, Bill] = {}
    for bill in bills:
        if seen.setdefault(bill.his_bill_id, bill) != bill:
            raise Unreadable("one bill_id stands for two different bills")
    return tuple(seen.values())


# ---------------------------------------------------------------- locks


def write_lock(order: LockOrder) -> dict[str, Any]:
    return {
        "confirm_no": order.confirm_no,
        "patient_id": order.his_patient_id,
        "bill_ids": list(order.his_bill_ids),
        "until": time_text(order.until),
    }


def read_grant(
    answer: Mapping[str, Any], *, asked: frozenset[str] | None, now: datetime, site: HospitalSite
) -> LockGrant:
    """The bills held and their amounts. Raises Unreadable unless exactly the bills asked for are held."""
    amounts: dict[str, Fen] = {}
    for row in rows(answer, "bills"):
        his_bill_id = needed_text(row, "bill_id")
        if his_bill_id in amounts:
            raise Unreadable("one bill_id is held twice")
        amounts[his_bill_id] = needed_amount(row, "amount_fen")
    if not amounts or (asked is not None and amounts.keys() != asked):
        raise Unreadable("the bills held are not the bills asked for")
    return LockGrant(
        lock_id=needed_text(answer, "lock_id"),
        amounts_fen=amounts,
        expires_at=moment(answer, "expires_at") or now + timedelta(seconds=site.capabilities.lock_seconds),
    )


def read_lock_state(answer: Mapping[str, Any], *, now: datetime, site: HospitalSite) -> LockState:
    try:
        word = LockWord(text(answer, "state"))
    except ValueError as error:
        raise Unreadable("state is not a word we know") from error
    if word is not LockWord.HELD:
        return LockState(word=word)
    return LockState(word=word, grant=read_grant(answer, asked=None, now=now, site=site))


# ---------------------------------------------------------------- payments


def write_confirm(order: ConfirmOrder) -> dict[str, Any]:
    return {
        "confirm_no": order.confirm_no,
        "lock_id": order.lock_id,
        "patient_id": order.his_patient_id,
        "bills": [{"bill_id": line.his_bill_id, "amount_fen": line.amount_fen} for line in order.lines],
        "total_fen": sum(line.amount_fen for line in order.lines),
        "order_no": order.order_no,
        "method": order.method,
        "channel_trade_no": order.channel_trade_no,
        "paid_at": time_text(order.paid_at),
    }


def read_booking(
    answer: Mapping[str, Any], *, raw: bytes, confirm_no: str, amounts: Mapping[str, Fen] | None = None
) -> Booking:
    """What the HIS says about one confirm_no: `booked` must be a plain true or false.

    With `amounts`, receipts of bills that were not confirmed or that name another amount are Unreadable.
    """
    must_match(answer, "confirm_no", confirm_no)
    booked = answer.get("booked")
    if not isinstance(booked, bool):
        raise Unreadable("booked is neither true nor false")
    if not booked:
        return Booking(booked=False, raw=raw)
    receipts = []
    for row in optional_rows(answer, "receipts"):
        his_bill_id, said = needed_text(row, "bill_id"), amount(row, "amount_fen")
        if amounts is not None:
            if his_bill_id not in amounts:
                raise Unreadable("a receipt is for a bill that was not confirmed")
            if said is not None and said != amounts[his_bill_id]:
                raise Unreadable("a receipt's amount is not the one that was confirmed")
        receipts.append(
            BillReceipt(
                his_bill_id=his_bill_id,
                receipt_no=text(row, "receipt_no"),
                guide_text=text(row, "guide_text"),
                receipt_url=link(row, "receipt_url"),
                ebill_url=link(row, "ebill_url"),
            )
        )
    return Booking(booked=True, receipts=tuple(receipts), raw=raw)


def link(fields: Mapping[str, Any], name: str) -> str:
    """An address that may be opened by a patient's phone; anything but http and https is dropped."""
    value = text(fields, name)
    return value if value.lower().startswith(("https://", "http://")) else ""


def read_paid(answer: Mapping[str, Any], *, branch: str, his_patient_id: str) -> tuple[PaidRecord, ...]:
    records = []
    for row in rows(answer, "records"):
        must_match(row, "patient_id", his_patient_id)
        records.append(_paid_record(row, branch=branch, his_patient_id=his_patient_id))
    return tuple(records)


def read_statement(answer: Mapping[str, Any], *, branch: str) -> PaidPage:
    return PaidPage(
        records=tuple(
            _paid_record(row, branch=branch, his_patient_id=text(row, "patient_id")) for row in rows(answer, "records")
        ),
        has_more=flag(answer, "more", default=False),
    )


def _paid_record(row: Mapping[str, Any], *, branch: str, his_patient_id: str) -> PaidRecord:
    return PaidRecord(
        branch=branch,
        his_bill_id=needed_text(row, "bill_id"),
        his_patient_id=his_patient_id,
        title=text(row, "title") or text(row, "kind_text"),
        kind_text=text(row, "kind_text"),
        amount_fen=needed_amount(row, "amount_fen"),
        paid_at=needed_moment(row, "paid_at"),
        receipt_no=text(row, "receipt_no"),
        paid_by=text(row, "paid_by"),
        confirm_no=text(row, "confirm_no"),
        guide_text=text(row, "guide_text"),
        ebill_url=link(row, "ebill_url"),
    )


# ---------------------------------------------------------------- events


def read_event_body(body: bytes) -> HospitalEvent:
    fields = read_object(body)
    if fields is None:
        raise Unreadable("the body is not a JSON object")
    try:
        kind = HospitalEventKind(text(fields, "type"))
    except ValueError:
        kind = HospitalEventKind.OTHER
    return HospitalEvent(
        event_id=needed_text(fields, "event_id"),
        kind=kind,
        his_bill_id=text(fields, "bill_id"),
        his_patient_id=text(fields, "patient_id"),
        happened_at=moment(fields, "happened_at"),
        red_receipt_no=text(fields, "red_receipt_no"),
    )


def read_link_request(body: bytes) -> LinkRequest:
    """What a verified request for an address asks; without a bill number that we can keep, an empty one."""
    fields = read_object(body) or {}
    his_bill_id = text(fields, "bill_id")
    is_usable = len(his_bill_id) <= BILL_ID_LENGTH_MAX and his_bill_id.isprintable()
    return LinkRequest(
        his_bill_id=his_bill_id if is_usable else "",
        label=flag(fields, "label", default=False),
        name=text(fields, "name"),
        issued_at=moment(fields, "issued_at"),
    )
