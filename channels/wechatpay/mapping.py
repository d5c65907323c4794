"""Their fields, states and codes ↔ ours. No I/O. Source: WeChat Pay merchant documents, APIv3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.wechatpay.parties import Parties
from channels.wechatpay.records import Record, Unreadable, expect, fen, inner, moment, record_of, text
from core.clock import shanghai
from core.errors import CounterpartyError, OutcomeUnknown, Refused
from core.money import Fen
from core.ports import RefundOrder, RefundState, RefundTrade, Trade, TradeOrder

CURRENCY = "CNY"
DESCRIPTION_BYTES_MAX = 127
REASON_BYTES_MAX = 80


class Call(StrEnum):
    """The calls we make."""

    CREATE = "create"
    QUERY = "query"
    CLOSE = "close"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"
    CERTIFICATES = "certificates"
    ECHO = "echo"
    STATEMENT = "statement"


# ---------------------------------------------------------------- what we ask


INSTRUMENT_PRODUCTS = {"miniprogram": "jsapi", "jsapi": "jsapi", "native": "native"}


def order_body(order: TradeOrder, *, parties: Parties, app_id: str, notify_url: str) -> Record:
    """The same order gives the same body: anything else would be OUT_TRADE_NO_USED."""
    app = parties.apps[app_id]
    body: dict[str, object] = {
        **app.names,
        **parties.numbers,
        "description": _cut(order.description, DESCRIPTION_BYTES_MAX),
        "out_trade_no": order.order_no,
        "time_expire": time_text(order.expires_at),
        "notify_url": notify_url,
        "amount": {"total": order.amount_fen, "currency": CURRENCY},
    }
    if order.instrument != "native":
        body["payer"] = {app.open_id_name: order.payer_open_id}
    return body


def refund_body(refund: RefundOrder, *, parties: Parties, notify_url: str) -> Record:
    """Without `notify_url` the notice of this refund might come in the V2 form, to another address."""
    body: dict[str, object] = {
        **parties.refund_numbers,
        "out_trade_no": refund.order_no,
        "out_refund_no": refund.refund_no,
        "notify_url": notify_url,
        "amount": {"refund": refund.amount_fen, "total": refund.total_fen, "currency": CURRENCY},
    }
    if reason := _cut(refund.reason, REASON_BYTES_MAX):
        body["reason"] = reason
    return body


def time_text(moment: datetime) -> str:
    """RFC 3339 with +08:00, whole seconds, never later than the moment itself."""
    return shanghai(moment).replace(microsecond=0).isoformat()


# ---------------------------------------------------------------- what they answer


PAID_WORDS = frozenset({"SUCCESS", "REFUND"})
"""A partial refund, too, turns SUCCESS into REFUND."""
CLOSED_WORD = "CLOSED"
REFUND_STATES = {
    "PROCESSING": RefundState.PROCESSING,
    "SUCCESS": RefundState.REFUNDED,
    "ABNORMAL": RefundState.STUCK,
    "CLOSED": RefundState.DEAD,
}


def trade_of(record: Record, *, parties: Parties, order_no: str | None, raw: bytes) -> Trade:
    """A transaction object. `order_no` None: whichever it is about (a notice). Raises Unreadable.

    Paid means: a word that goes with having been paid, and the facts of a payment. One alone moves nothing.
    """
    parties.expect(record)
    if order_no is not None:
        expect(record, "out_trade_no", order_no)
    word = text(record, "trade_state")
    amount = inner(record, "amount", required=False)
    trade_no = text(record, "transaction_id", required=False)
    paid_at = moment(record, "success_time")
    total = fen(amount, "total", required=False)
    ever_paid = word in PAID_WORDS and bool(trade_no) and paid_at is not None and total > 0
    if ever_paid:
        _expect_currency(amount)
    return Trade(
        order_no=text(record, "out_trade_no"),
        exists=True,
        ever_paid=ever_paid,
        paid_fen=total if ever_paid else Fen(0),
        paid_at=paid_at if ever_paid else None,
        channel_trade_no=trade_no if ever_paid else "",
        # A notice tells of the moment of payment, however late it arrives; it knows nothing of refunds.
        refunded_fen=Fen(0) if ever_paid and word == "SUCCESS" and order_no is not None else None,
        has_refund=word == "REFUND",
        closed=word == CLOSED_WORD,
        state_text=word,
        raw=raw,
    )


def refund_of(record: Record, *, refund_no: str | None, state_name: str, raw: bytes) -> RefundTrade:
    """A refund object: `status` in answers, `refund_status` in notices. Raises Unreadable."""
    if refund_no is not None:
        expect(record, "out_refund_no", refund_no)
    word = text(record, state_name)
    amount = inner(record, "amount")
    _expect_currency(amount)
    state = REFUND_STATES.get(word, RefundState.UNKNOWN)
    return RefundTrade(
        refund_no=text(record, "out_refund_no"),
        order_no=text(record, "out_trade_no"),
        state=state,
        amount_fen=fen(amount, "refund"),
        refunded_at=moment(record, "success_time") if state is RefundState.REFUNDED else None,
        channel_refund_no=text(record, "refund_id"),
        state_text=word,
        raw=raw,
    )


def check_refund(record: Record, refund: RefundOrder) -> None:
    """The accepted refund is the one that we asked for. Raises Unreadable."""
    expect(record, "out_trade_no", refund.order_no)
    if refund.channel_trade_no:
        expect(record, "transaction_id", refund.channel_trade_no)
    amount = inner(record, "amount")
    for name, asked in (("refund", refund.amount_fen), ("total", refund.total_fen)):
        if (said := fen(amount, name)) != asked:
            raise Unreadable(f"amount.{name} is {said}, we asked for {asked}")


def _expect_currency(amount: Record) -> None:
    if text(amount, "currency", required=False) not in ("", CURRENCY):
        raise Unreadable("another currency")


def _cut(value: str, bytes_max: int) -> str:
    return value.encode()[:bytes_max].decode(errors="ignore")


# ---------------------------------------------------------------- what their errors mean


class Absent(Refused):
    """There is nothing under this number."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error in the format of WeChat Pay."""

    code: str
    message: str


FINAL: Mapping[Call, frozenset[tuple[int, str]]] = {
    Call.CREATE: frozenset(
        {
            (400, "PARAM_ERROR"),
            (400, "APPID_MCHID_NOT_MATCH"),
            (400, "MCH_NOT_EXISTS"),
            (401, "SIGN_ERROR"),
            (403, "NO_AUTH"),
            (403, "RULE_LIMIT"),
        }
    ),
    # Not NOT_ENOUGH, SIGN_ERROR, NO_AUTH: after the top-up or the repair the same number is sent again.
    Call.REFUND: frozenset({(400, "PARAM_ERROR"), (403, "USER_ACCOUNT_ABNORMAL")}),
}
"""The closed list: this call had no effect, and the same bytes never will. An earlier call under the same
number may have had one; whoever sent one whose answer is unknown asks first."""

DEFINITE = frozenset(
    {
        (400, "PARAM_ERROR"),
        (400, "INVALID_REQUEST"),
        (400, "APPID_MCHID_NOT_MATCH"),
        (400, "MCH_NOT_EXISTS"),
        (404, "MCH_NOT_EXISTS"),
        (400, "ORDER_CLOSED"),
        (400, "ORDERPAID"),
        (400, "ORDER_PAID"),
        (401, "SIGN_ERROR"),
        (403, "NO_AUTH"),
        (403, "RULE_LIMIT"),
        (403, "TRADE_ERROR"),
        (403, "OUT_TRADE_NO_USED"),
        (403, "NOT_ENOUGH"),
        (403, "USER_ACCOUNT_ABNORMAL"),
        (403, "REQUEST_BLOCKED"),
        (404, "ORDER_NOT_EXIST"),
        (404, "RESOURCE_NOT_EXISTS"),
        (429, "FREQUENCY_LIMITED"),
        (429, "RATELIMIT_EXCEEDED"),
    }
)
"""What the documents list. On a call that moves something, any other code is no answer."""

UNDOCUMENTED_STATUS = frozenset({"TRADE_OVERDUE", "REFUND_FEE_MISMATCH"})
"""Refusals of refunds that the documents name without saying with which status they come."""

TOO_OFTEN_STATUS = 429
"""Nowhere documented whether an order was created all the same; it is unsigned anyway."""

ABSENT = {Call.QUERY: (404, "ORDER_NOT_EXIST"), Call.QUERY_REFUND: (404, "RESOURCE_NOT_EXISTS")}
"""How a question is answered when there is nothing under this number."""
_MOVES = frozenset({Call.CREATE, Call.REFUND})


def error_body(body: bytes) -> ErrorBody | None:
    """None when this is not an error as WeChat Pay writes it."""
    try:
        record = record_of(body)
        return ErrorBody(text(record, "code"), text(record, "message", required=False))
    except Unreadable:
        return None


def error_of(call: Call, status: int, body: bytes) -> CounterpartyError:
    """What an answer that is not 2xx means. These are never signed, so few of them prove anything."""
    error = error_body(body)
    if error is None or not 400 <= status < 500:
        return OutcomeUnknown(f"{call}: HTTP {status}{f' {error.code}' if error else ''}")
    if call is Call.REFUND and status == TOO_OFTEN_STATUS:
        # "可能已受理": a refund refused for its frequency may have been accepted.
        return OutcomeUnknown(f"{call}: HTTP {status} {error.code}")
    if ABSENT.get(call) == (status, error.code):
        return Absent(error.code, error.message, raw=body)
    known = (status, error.code) in DEFINITE or error.code in UNDOCUMENTED_STATUS
    if call in _MOVES and not known:
        return OutcomeUnknown(f"{call}: unknown code {error.code} with HTTP {status}")
    final = (status, error.code) in FINAL.get(call, frozenset())
    return Refused(error.code, error.message, final=final, too_often=status == TOO_OFTEN_STATUS, raw=body)
