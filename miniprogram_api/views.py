"""Our values as the JSON that a page is made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from core.bills import ShownBill
from core.clock import shanghai
from core.consents import GivenConsent
from core.errors import AlreadyPaid, BillNotPayable, HospitalUnavailable, RequestError
from core.institutions import Profile
from core.models import Payment, PaymentLine, PaymentMethod
from core.money import Fen, yuan_text
from core.paper import PaperView
from core.patients import BoundPatient, BoundPayer
from core.payments import Started
from core.ports import Bill, BillItem
from core.states import LineStatus
from core.texts import (
    ASKING_TEXT,
    NOT_PAYABLE_NOTES,
    PLATFORM_TEXTS,
    RETURN_REASONS,
    STATUS_TEXTS,
    WALLET_TEXTS,
    error_text,
    time_text,
    valid_text,
)
from core.together import bills_max
from core.viewing import payment_view
from miniprogram_api.lists import (
    ALREADY_PAID,
    ASKING,
    NOT_TO_PAY,
    UNAVAILABLE,
    Counts,
    PaidEntry,
    PaidList,
    UnpaidBill,
)
from miniprogram_api.running import Asking

RETRY_AFTER_SECONDS = 2
COMES_BACK = frozenset({"returning", "returned", "checking"})

Json = dict[str, Any]


def moment(value: datetime | None) -> str | None:
    """A time as the hospital's clock shows it, with its zone."""
    return shanghai(value).isoformat(timespec="seconds") if value is not None else None


def money(name: str, amount: Fen) -> Json:
    """An amount twice: in fen to reckon with, in yuan to show."""
    return {f"{name}_fen": amount, name: yuan_text(amount)}


def asking(value: Asking, language: str) -> Json:
    return {
        "status": "asking",
        "message": ASKING_TEXT[language],
        "retry_after_seconds": RETRY_AFTER_SECONDS,
        "ticket": value.ticket,
    }


def session(token: str, expires_at: datetime) -> Json:
    return {"token": token, "expires_at": moment(expires_at)}


def patient(value: BoundPatient) -> Json:
    return {"patient_id": str(value.patient_id), "masked_name": value.masked_name}


def bound_payer(value: BoundPayer, language: str) -> Json:
    return {
        "binding_id": str(value.binding_id),
        "is_you": value.is_caller,
        "platform": value.platform,
        "platform_text": PLATFORM_TEXTS.get(value.platform, {}).get(language, value.platform),
        "bound_on": value.bound_on.isoformat(),
    }


def method(value: PaymentMethod, language: str) -> Json:
    channel, instrument, wallet = value.code.split("/")
    return {
        "code": value.code,
        "channel": channel,
        "instrument": instrument,
        "wallet": wallet,
        "title": WALLET_TEXTS.get(wallet, {}).get(language, wallet),
        "favourite": value.favourite,
    }


# ---------------------------------------------------------------- bills


def bill(value: UnpaidBill, profile: Profile, language: str) -> Json:
    shown = value.shown
    said = shown.bill
    return {
        "branch": said.branch,
        "bill_id": said.his_bill_id,
        "visit_no": said.visit_no,
        "kind": said.kind.value,
        "kind_text": said.kind_text,
        "title": said.title,
        "department": said.department,
        "doctor": said.doctor,
        "issued_at": moment(said.issued_at),
        **money("amount", said.to_pay_fen),
        **money("total", said.total_fen),
        "insured": said.insured,
        "treat_first": said.treat_first,
        "merge_group": said.merge_group,
        "payable": shown.payable,
        "payable_online": said.payable_online,
        "reason": shown.reason or None,
        "reason_text": _reason_text(shown, language) if shown.reason else None,
        "needs_second_tap": shown.needs_second_tap,
        "second_tap_text": NOT_PAYABLE_NOTES["insured"][language] if shown.needs_second_tap else None,
        "valid_until": moment(said.valid_until),
        "valid_until_text": _valid_text(said, profile, language) or None,
        "items_count": len(said.items) or None,
        "status": value.status,
        "status_text": STATUS_TEXTS[value.status][language],
        "order_no": value.order_no or None,
    }


def _valid_text(said: Bill, profile: Profile, language: str) -> str:
    """What was given before it was paid for does not lapse: there the institution's rule says nothing."""
    days = 0 if said.treat_first else profile.settings.display_valid_days
    return valid_text(said.valid_until, said.issued_at, rule_days=days, language=language)


def _reason_text(shown: ShownBill, language: str) -> str:
    """Why this bill cannot be paid here, with the HIS's own words where it gave some."""
    note = NOT_PAYABLE_NOTES.get(shown.reason)
    if note is None:
        return error_text(_why(shown), language)
    return f"{note[language]} {shown.his_text}".strip()


def _why(shown: ShownBill) -> RequestError:
    if shown.reason == ALREADY_PAID:
        return AlreadyPaid()
    return BillNotPayable(reason=shown.reason, his_text=shown.his_text)


def bills(values: Sequence[UnpaidBill], profile: Profile, language: str) -> Json:
    """`count` leaves out what has been paid through us already."""
    return {
        "bills": [bill(value, profile, language) for value in values],
        "count": sum(value.status not in NOT_TO_PAY for value in values),
        "merge": {"allowed": profile.settings.merge, "max": bills_max(profile.settings)},
    }


def bill_detail(value: UnpaidBill, profile: Profile, language: str) -> Json:
    return {**bill(value, profile, language), "items": [_item(item) for item in value.shown.bill.items]}


def _item(value: BillItem) -> Json:
    return {
        "name": value.name,
        "specification": value.specification,
        "quantity": value.quantity,
        "unit": value.unit,
        **money("amount", value.amount_fen),
    }


# ---------------------------------------------------------------- payments


def started(value: Started) -> Json:
    pay = {"kind": value.pay.kind, "values": dict(value.pay.values)} if value.pay else None
    return {
        "order_no": value.order_no,
        **money("amount", value.amount_fen),
        "expires_at": moment(value.expires_at),
        "pay": pay,
    }


def payment(value: Payment, lines: Sequence[PaymentLine], language: str) -> Json:
    status = payment_view(value, lines)
    return {
        "order_no": value.order_no,
        "patient_id": str(value.patient_id),
        "method": value.method,
        "status": status,
        "status_text": STATUS_TEXTS[status][language],
        **money("amount", value.asked_fen),
        **money("paid", value.paid_fen),
        **money("returning", _on_its_way_back(value, lines)),
        **money("refunded", value.refunded_fen),
        **money("paid_out", Fen(sum(line.paid_out_fen for line in lines))),
        "created_at": moment(value.created_at),
        "expires_at": moment(value.expires_at),
        "paid_at": moment(value.paid_at),
        "lines": [_line(value, line, language) for line in lines],
    }


def _on_its_way_back(value: Payment, lines: Sequence[PaymentLine]) -> Fen:
    """Of whole lines; what staff have asked for and others not yet agreed to is not on its way."""
    going = sum(line.amount_fen - line.paid_out_fen for line in lines if line.status is LineStatus.RETURNING)
    return Fen(min(going, value.refund_reserved_fen - value.refunded_fen))


def _line(value: Payment, line: PaymentLine, language: str) -> Json:
    status = payment_view(value, [line])
    return {
        "branch": line.branch,
        "bill_id": line.his_bill_id,
        "kind": line.kind,
        "kind_text": line.kind_text,
        "title": line.title,
        **money("amount", line.amount_fen),
        "status": status,
        "status_text": STATUS_TEXTS[status][language],
        "receipt_no": line.receipt_no or None,
        **_what_holds(status, line.guide_text, line.receipt_url, line.ebill_url),
        "return_reason": _return_reason(status, line.reason_code, line.reason_text, language),
    }


def _what_holds(status: str, guide_text: str, receipt_url: str, ebill_url: str) -> Json:
    """Nobody is sent to the pharmacy for, or shown an invoice of, what has been taken back."""
    holds = status == "paid"
    return {
        "guide_text": (holds and guide_text) or None,
        "receipt_url": (holds and receipt_url) or None,
        "ebill_url": (holds and ebill_url) or None,
    }


def _return_reason(status: str, code: str, his_text: str, language: str) -> Json | None:
    if status not in COMES_BACK:
        return None
    text = RETURN_REASONS.get(code, RETURN_REASONS[""])[language]
    return {"code": code, "text": text, "his_text": his_text or None}


def paid(value: PaidList, language: str) -> Json:
    return {
        "paid": [_paid_entry(entry, language) for entry in value.entries],
        "count": len(value.entries),
        **_hospital_part(value.hospital_part, value.ticket, language),
    }


def _paid_entry(value: PaidEntry, language: str) -> Json:
    return {
        "source": value.source,
        "order_no": value.order_no or None,
        "branch": value.branch,
        "bill_id": value.bill_id,
        "title": value.title,
        "kind_text": value.kind_text,
        **money("amount", value.amount_fen),
        "paid_at": moment(value.at),
        "paid_at_text": time_text(value.at, language),
        "status": value.status,
        "status_text": STATUS_TEXTS[value.status][language],
        "receipt_no": value.receipt_no or None,
        **_what_holds(value.status, value.guide_text, value.receipt_url, value.ebill_url),
        "paid_by": value.paid_by or None,
        "return_reason": _return_reason(value.status, value.reason_code, value.reason_text, language),
    }


def _hospital_part(part: str, ticket: str, language: str) -> Json:
    sentences = {ASKING: ASKING_TEXT[language], UNAVAILABLE: error_text(HospitalUnavailable(), language)}
    return {"hospital_part": part, "hospital_text": sentences.get(part), "ticket": ticket or None}


def counts(value: Counts, language: str) -> Json:
    return {
        "to_pay": value.to_pay,
        "paid": value.paid,
        **_hospital_part(value.hospital_part, value.ticket, language),
    }


# ---------------------------------------------------------------- papers and consents


def paper(view: PaperView, shown: Sequence[UnpaidBill], language: str) -> Json:
    """`shown` is the paper's bill and after it the others of the visit; empty until the paper is open."""
    profile = view.paper.profile
    return {
        "token": view.paper.token,
        "stage": view.stage.value,
        "hospital": profile.name_en if language == "en" and profile.name_en else profile.name_zh,
        "masked_name": view.masked_name,
        "issued_on": view.issued_on.isoformat() if view.issued_on else None,
        "consent_version": profile.settings.privacy_version,
        "asks_phone": view.asks_phone,
        "asks_document": view.asks_document,
        "order_no": view.own_order_no or None,
        "patient_id": str(view.patient_id) if view.patient_id else None,
        "bill": bill_detail(shown[0], profile, language) if shown else None,
        "others": [bill(each, profile, language) for each in shown[1:]],
    }


def consents(given: Sequence[GivenConsent], profile: Profile) -> Json:
    return {
        "version": profile.settings.privacy_version,
        "consents": [
            {
                "kind": each.kind.value,
                "version": each.version,
                "way": each.way,
                "given_at": moment(each.given_at),
            }
            for each in given
        ],
    }
