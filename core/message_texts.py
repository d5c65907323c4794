"""What a payer is told, field by field, in Chinese and English. Pure.

No drug, no diagnosis, no full name: a lock screen is read by others too. What matters stands first in a note: of an
English one WeChat shows no more characters than of a Chinese one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.money import Fen, yuan_text
from core.ports import MessageKind
from core.texts import BILL_TITLE, LANGUAGES, RETURN_REASONS, time_text

NOTE_CHARACTERS_MAX = 20
"""So much of a note WeChat's templates show."""


def message_fields(kind: MessageKind, values: Mapping[str, Any], *, language: str, hospital: str) -> dict[str, str]:
    """The fields of a message, in our neutral names."""
    language = language if language in LANGUAGES else "zh"
    zh = language == "zh"
    amount = yuan_text(Fen(int(values.get("amount_fen", 0))))
    moment = values.get("at")
    fields = {
        "hospital": hospital,
        "title": BILL_TITLE[language],
        "amount": f"¥{amount}",
        "time": time_text(datetime.fromisoformat(str(moment)), language) if moment else "",
        "name": str(values.get("masked_name", "")),
        "number": str(values.get("order_no", "")),
    }
    if kind is MessageKind.NEW_BILL:
        fields["status"] = "待缴费" if zh else "To pay"
        fields["note"] = "点击查看并缴费" if zh else "Tap to view and pay"
    elif kind is MessageKind.PAID:
        fields["status"] = "缴费成功" if zh else "Paid"
        fields["note"] = _paid_note(values, zh=zh)
    elif kind is MessageKind.REFUSED_RETURNED:
        whole = int(values.get("refused", 1)) == int(values.get("of", 1))
        if whole:
            fields["status"] = "医院未入账" if zh else "Not booked"
        else:
            fields["status"] = "部分未入账" if zh else "Partly not booked"
        fields["note"] = _refused_note(values, language)
    elif kind is MessageKind.REFUND_ARRIVED:
        fields["status"] = "退款成功" if zh else "Refunded"
        fields["note"] = "已退回原支付账户" if zh else "Returned to where you paid from"
    elif kind is MessageKind.PHONE_CODE:
        fields["code"] = str(values.get("code", ""))
    return fields


def _paid_note(values: Mapping[str, Any], *, zh: bool) -> str:
    """Where to go now; of a merged payment how many of its bills are booked, unless it is all of them."""
    booked, waiting, of = (int(values.get(name, least)) for name, least in (("booked", 1), ("waiting", 0), ("of", 1)))
    if waiting and zh:
        return f"{booked}张已缴费，{waiting}张医院确认中"
    if waiting:
        return f"Paid {booked} of {of} bills, booking {waiting}"
    if booked < of:
        return f"同一笔支付另{booked}张已缴费" if zh else f"Paid {booked} more of {of} bills"
    guides = list(values.get("guides", ()))
    if len(guides) == 1:
        return str(guides[0])
    if guides:
        return f"{booked}张都已缴费，点击看指引" if zh else f"Paid all {booked} bills: tap for where to go"
    return "请按医院指引就诊" if zh else "Please follow the hospital's signs"


def _refused_note(values: Mapping[str, Any], language: str) -> str:
    """Why money goes back; of a merged payment of how many of its bills, and what has become of the others."""
    refused, booked, waiting, of = (
        int(values.get(name, least)) for name, least in (("refused", 1), ("booked", 0), ("waiting", 0), ("of", 1))
    )
    zh, moves = language == "zh", values.get("amount_fen") != 0
    reasons = list(values.get("reasons", ("",)))
    reason = RETURN_REASONS.get(str(reasons[0]), RETURN_REASONS[""])[language] if len(reasons) == 1 else ""
    if of == 1:
        if not moves:
            return f"{reason}，没有扣款" if zh else f"Not charged: {reason}"
        return f"{reason}，正在原路退款" if zh else f"Refunding: {reason}"
    if zh:
        end = "退款中" if moves else "没有扣款"
        if booked and waiting:
            return f"{refused}张{end}，{booked}张已缴，{waiting}张确认中"
        if booked:
            return f"{refused}张未入账，{end}；{booked}张已缴费"
        why = f"{refused}张未入账：{reason}，{end}"
        return why if reason and len(why) <= NOTE_CHARACTERS_MAX else f"{refused}张未入账，{end}"
    start = "Refunding" if moves else "Not charged"
    rest = (f", paid {booked}" if booked else "") + (f", booking {waiting}" if booked and waiting else "")
    return f"{start} {refused}{rest} of {of} bills" + (f": {reason}" if reason else "")
