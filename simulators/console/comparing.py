"""The three books side by side: what the HIS, WeChat Pay and the product each say about one order. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from simulators.console.comparing_refunds import RefundRow, refund_rows

Fields = Mapping[str, Any]

SETTLED_LINES = frozenset({"confirmed", "returned", "void", "disputed"})
MOVING_REFUNDS = frozenset({"requested", "approved", "reversing_at_his", "sending", "pending"})

VIEWS = {
    "to_pay": "待缴费",
    "paying": "等待付款",
    "confirming": "医院确认中",
    "paid": "已缴费",
    "returning": "退款中",
    "returned": "已退款",
    "part_returning": "部分退款中",
    "part_returned": "部分已退款",
    "refunding": "退费中",
    "refunded": "已退费",
    "checking": "金额核对中",
    "not_paid": "未支付",
}
STATUSES = {
    "created": "正在下单",
    "pending": "等待付款",
    "paid": "已收款",
    "closed": "已关闭",
    "failed": "未支付",
}
PAY_STATES = {"NOTPAY": "未支付", "SUCCESS": "已支付", "REFUND": "有退款", "CLOSED": "已关闭"}
BILL_STATES = {"unpaid": "未缴费", "paid": "已缴费", "cancelled": "已作废", "expired": "已过期"}


class Verdict(StrEnum):
    """How far the three agree."""

    AGREE = "agree"
    MOVING = "moving"  # something is still under way; a difference is not an error yet
    DIFFER = "differ"
    NOTHING = "nothing"  # no money has been asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One book's word on one order. `fen` is what it holds after everything given back; None: not in this book."""

    word: str
    fen: int | None = None
    notes: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        return {"word": self.word, "fen": self.fen, "notes": list(self.notes)}


ABSENT = Entry(word="没有记录")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One order, or one bill that nobody has an order for."""

    key: str
    title: str
    at: str  # RFC 3339
    his: Entry
    wechatpay: Entry
    ours: Entry
    verdict: Verdict
    said: str  # the verdict in a sentence
    bill_ids: tuple[str, ...] = field(default=())
    refunds: tuple[RefundRow, ...] = field(default=())

    @property
    def off(self) -> list[str]:
        """The books whose amount stands alone, once everything has come to rest."""
        fens = {"his": self.his.fen or 0, "wechatpay": self.wechatpay.fen or 0, "ours": self.ours.fen or 0}
        if self.verdict is not Verdict.DIFFER or len(set(fens.values())) == 1:
            return []
        return [book for book, fen in fens.items() if list(fens.values()).count(fen) == 1]

    def shown(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "title": self.title,
            "at": self.at,
            "bill_ids": list(self.bill_ids),
            "his": self.his.shown(),
            "wechatpay": self.wechatpay.shown(),
            "ours": self.ours.shown(),
            "verdict": self.verdict.value,
            "said": self.said,
            "off": self.off,
            "refunds": [refund.shown() for refund in self.refunds],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Booking:
    """What the HIS has booked for one order. What its cashier gives back in cash does not touch the phone's money."""

    bill_id: str
    title: str
    fen: int
    taken_back_fen: int
    in_cash_fen: int  # of what was taken back
    receipt_no: str
    at: str

    @property
    def held_fen(self) -> int:
        """What the HIS holds of the phone's money."""
        return self.fen - self.taken_back_fen + self.in_cash_fen


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}" if fen >= 0 else f"-{yuan(-fen)}"


def compare(his: Fields, wechatpay: Fields, ours: Fields) -> list[Row]:
    """Newest first: an entry for each order that any book knows, then for bills without an order."""
    bills: Mapping[str, Fields] = his.get("bills", {})
    bookings = _bookings(bills)
    orders = {str(order["out_trade_no"]): order for order in wechatpay.get("orders", [])}
    payments = {str(payment["order_no"]): payment for payment in ours.get("payments", [])}
    oldest = min((_moment(payment["created_at"]) for payment in payments.values()), default=None)
    rows = [
        _of_payment(payment, orders.get(order_no), bookings.get(order_no, []), bills, wechatpay)
        for order_no, payment in payments.items()
    ]
    for order_no, order in orders.items():
        # Our books come newest first and may stop somewhere: what is older than their end is not missing in them.
        if order_no not in payments and (oldest is None or _moment(order["created_at"]) >= oldest):
            rows.append(_of_stranger(order_no, order, bookings.get(order_no, [])))
    for order_no, booked in bookings.items():
        if order_no and order_no not in payments and order_no not in orders:
            rows.append(_of_stranger(order_no, None, booked))
    asked_for = {bill_id for row in rows for bill_id in row.bill_ids}
    rows += [_of_bill(bill_id, bill) for bill_id, bill in bills.items() if bill_id not in asked_for]
    return sorted(rows, key=lambda row: (_moment(row.at), row.key), reverse=True)


def totals(his: Fields, wechatpay: Fields, ours: Fields) -> dict[str, int]:
    """What each book holds from phones, after everything given back."""
    booked = [entry for entries in _bookings(his.get("bills", {})).values() for entry in entries]
    payments: Iterable[Fields] = ours.get("payments", [])
    return {
        "his_fen": sum(entry.held_fen for entry in booked),
        "wechatpay_fen": sum(order["taken_fen"] - order["refunded_fen"] for order in wechatpay.get("orders", [])),
        "ours_fen": sum(int(payment["paid_fen"]) - _refunded(payment) for payment in payments),
    }


def _bookings(bills: Mapping[str, Fields]) -> dict[str, list[_Booking]]:
    """The HIS's mobile bookings by order number, each with what was taken back of it."""
    found: defaultdict[str, list[_Booking]] = defaultdict(list)
    for bill_id, bill in bills.items():
        reds: Counter[str] = Counter()
        in_cash: Counter[str] = Counter()
        for red in bill["red_receipts"]:
            reds[str(red["receipt_no"])] += int(red["amount_fen"])
            if str(red.get("money_by", "")).startswith("hospital_"):
                in_cash[str(red["receipt_no"])] += int(red["amount_fen"])
        for booked in bill["bookings"]:
            if booked["paid_by"] == "mobile":
                found[str(booked["order_no"])].append(
                    _Booking(
                        bill_id=bill_id,
                        title=str(bill["title"]),
                        fen=int(booked["amount_fen"]),
                        taken_back_fen=reds[str(booked["receipt_no"])],
                        in_cash_fen=in_cash[str(booked["receipt_no"])],
                        receipt_no=str(booked["receipt_no"]),
                        at=str(booked["paid_at"]),
                    )
                )
    return dict(found)


def _of_payment(
    payment: Fields,
    order: Fields | None,
    bookings: Sequence[_Booking],
    bills: Mapping[str, Fields],
    wechatpay: Fields,
) -> Row:
    lines: Sequence[Fields] = payment.get("lines", [])
    refunds: Sequence[Fields] = payment.get("refunds", [])
    moving = (
        payment["status"] in {"created", "pending"}
        or (payment["status"] == "paid" and any(line["status"] not in SETTLED_LINES for line in lines))
        or any(refund["status"] in MOVING_REFUNDS for refund in refunds)
    )
    problems = list(_problems(payment, order, bookings))
    if moving:
        verdict, said = Verdict.MOVING, _what_moves(payment, order, lines, refunds)
    elif problems:
        verdict, said = Verdict.DIFFER, "；".join(problems)
    elif payment["status"] == "paid":
        whole = _refunded(payment) == int(payment["paid_fen"]) > 0
        verdict, said = Verdict.AGREE, "钱已原路退回，三本账一致" if whole else "三本账一致"
    else:
        word = PAY_STATES.get(str(order["state"]), "") if order else "没有下单"
        verdict, said = Verdict.NOTHING, f"微信支付{word}，没有收款，三本账一致"
    bill_ids = tuple(str(line["his_bill_id"]) for line in lines)
    titles = [str(line.get("title") or bills.get(str(line["his_bill_id"]), {}).get("title", "")) for line in lines]
    receipts = tuple(sorted(f"收据 {line['receipt_no']}" for line in lines if line.get("receipt_no")))
    returned = _refunded(payment)
    view = VIEWS.get(str(payment.get("view", "")), "") or STATUSES.get(str(payment["status"]), str(payment["status"]))
    title = "、".join(dict.fromkeys(filter(None, titles))) or "门诊缴费"
    return Row(
        key=str(payment["order_no"]),
        title=f"{title}（{len(lines)} 张）" if len(lines) > 1 else title,
        at=str(payment["created_at"]),
        his=_his_entry(bookings, [bills[bill_id] for bill_id in bill_ids if bill_id in bills]),
        wechatpay=_pay_entry(order),
        ours=Entry(
            word=view,
            fen=int(payment["paid_fen"]) - returned,
            notes=receipts + ((f"已退 {yuan(returned)} 元",) if returned else ()),
        ),
        verdict=verdict,
        said=said,
        bill_ids=bill_ids,
        refunds=refund_rows(str(payment["order_no"]), wechatpay, refunds),
    )


def _problems(payment: Fields, order: Fields | None, bookings: Sequence[_Booking]) -> Iterable[str]:
    """What does not fit when everything has come to rest."""
    paid, returned = int(payment["paid_fen"]), _refunded(payment)
    taken = int(order["taken_fen"]) if order else 0
    given_back = int(order["refunded_fen"]) if order else 0
    held = sum(booking.held_fen for booking in bookings)
    confirmed = sum(_at_the_his(line) for line in payment.get("lines", []))
    if paid != taken:
        yield f"微信支付收了 {yuan(taken)} 元，诊付记了 {yuan(paid)} 元"
    if returned != given_back:
        yield f"微信支付退了 {yuan(given_back)} 元，诊付记了 {yuan(returned)} 元"
    if confirmed != held:
        yield f"医院记账 {yuan(held)} 元，诊付认为是 {yuan(confirmed)} 元"
    if len({booking.bill_id for booking in bookings}) < len(bookings):
        yield "医院把同一张处方记了两次账"


def _at_the_his(line: Fields) -> int:
    """What the product believes that the HIS holds of the phone's money for one of its bills."""
    if line["status"] == "confirmed":
        return int(line["amount_fen"]) - int(line.get("refunded_fen", 0))
    return int(line.get("paid_out_fen", 0))


def _what_moves(payment: Fields, order: Fields | None, lines: Sequence[Fields], refunds: Sequence[Fields]) -> str:
    if payment["status"] in {"created", "pending"}:
        if order and order["taken_fen"]:
            return "微信支付已收款，诊付正在核实"
        return "等待付款"
    if any(refund["status"] in MOVING_REFUNDS for refund in refunds):
        return "正在原路退款"
    if any(line["status"] == "held" for line in lines):
        return "金额不符，等待工作人员处理"
    if any(line["status"] in {"rejected", "surplus", "returning"} for line in lines):
        return "医院没有入账，准备退款"
    return "已收款，等待医院记账"


def _of_stranger(order_no: str, order: Fields | None, bookings: Sequence[_Booking]) -> Row:
    """Money or a booking under a number that the product does not know."""
    money = bool(bookings) or bool(order and order["taken_fen"])
    return Row(
        key=order_no,
        title=bookings[0].title if bookings else "门诊缴费",
        at=str(order["created_at"]) if order else bookings[0].at,
        his=_his_entry(bookings),
        wechatpay=_pay_entry(order),
        ours=ABSENT,
        verdict=Verdict.DIFFER if money else Verdict.NOTHING,
        said="诊付没有这笔订单" if money else "没有收款",
        bill_ids=tuple(dict.fromkeys(booking.bill_id for booking in bookings)),
    )


def _of_bill(bill_id: str, bill: Fields) -> Row:
    at_window = next((booked for booked in bill["bookings"] if booked["paid_by"] == "window"), None)
    state = BILL_STATES.get(str(bill["state"]), str(bill["state"]))
    entry = Entry(word=state, fen=int(bill["to_pay_fen"]))
    if at_window is not None:
        entry = Entry(
            word="窗口已收款" if bill["state"] == "paid" else state,
            fen=int(at_window["amount_fen"]),
            notes=(f"收据 {at_window['receipt_no']}",),
        )
    return Row(
        key=bill_id,
        title=str(bill["title"]),
        at=str(bill["issued_at"]),
        his=entry,
        wechatpay=ABSENT,
        ours=ABSENT,
        verdict=Verdict.NOTHING,
        said="不在手机上收款" if at_window is not None else "还没有人在手机上付款",
        bill_ids=(bill_id,),
    )


def _his_entry(bookings: Sequence[_Booking], bills: Sequence[Fields] = ()) -> Entry:
    at_window = [booked for bill in bills for booked in bill["bookings"] if booked["paid_by"] == "window"]
    elsewhere = tuple(f"窗口另收 {yuan(int(booked['amount_fen']))} 元" for booked in at_window)
    if not bookings:
        return Entry(word="未记账", fen=0, notes=elsewhere)
    booked, taken_back, in_cash = (
        sum(getattr(booking, name) for booking in bookings) for name in ("fen", "taken_back_fen", "in_cash_fen")
    )
    notes = sorted(f"收据 {booking.receipt_no}" for booking in bookings)
    if in_cash:
        notes.append(f"窗口退现金 {yuan(in_cash)} 元")
    word = "已红冲" if taken_back >= booked else "部分红冲" if taken_back else "已记账"
    return Entry(word=word, fen=sum(booking.held_fen for booking in bookings), notes=(*notes, *elsewhere))


def _pay_entry(order: Fields | None) -> Entry:
    if order is None:
        return ABSENT
    given_back, on_its_way = int(order["refunded_fen"]), int(order["returning_fen"])
    word = PAY_STATES.get(str(order["state"]), str(order["state"]))
    if given_back and given_back == int(order["taken_fen"]):
        word = "已全额退款"
    notes = []
    if given_back:
        notes.append(f"已退 {yuan(given_back)} 元")
    if on_its_way:
        notes.append(f"退款中 {yuan(on_its_way)} 元")
    return Entry(word=word, fen=int(order["taken_fen"]) - given_back, notes=tuple(notes))


def _refunded(payment: Fields) -> int:
    return sum(int(refund["amount_fen"]) for refund in payment.get("refunds", []) if refund["status"] == "refunded")


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text))
