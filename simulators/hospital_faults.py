"""What may go wrong at the simulated HIS, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "hospital"

API_CALLS = frozenset(
    {
        "find_patients",
        "get_patient",
        "list_bills",
        "list_new_bills",
        "get_bill",
        "lock_bills",
        "query_lock",
        "release_lock",
        "confirm_payment",
        "query_payment",
        "list_paid",
        "statement",
        "refund_check",
        "confirm_refund",
        "query_refund",
        "query_red_receipt",
        "ping",
    }
)
# Asked beside the calls: what happens to an event (key: bill id), how a repeated booking is answered (key:
# confirm_no).
EVENT, REPEAT = "event", "confirm_repeated"
# … and how a repeated reversal is answered (key: refund_no).
REFUND_REPEAT = "refund_repeated"

_CONFIRM = frozenset({"confirm_payment"})
_LOCK = frozenset({"lock_bills"})
_EVENT = frozenset({EVENT})
_REFUND = frozenset({"confirm_refund"})

_ASKED = "Unknown at first; query_payment or query_lock tells, then the same call goes on under its number."


def _fault(
    name: str,
    calls: frozenset[str],
    title_zh: str,
    ends: str,
    *,
    effect: Effect = Effect.SPECIFIC,
    person: bool = False,
) -> Fault:
    return Fault(
        name=f"{NAME}.{name}",
        counterparty=NAME,
        calls=calls,
        effect=effect,
        title_zh=title_zh,
        ends=ends,
        needs_person=person,
    )


FAULTS: tuple[Fault, ...] = (
    # The line.
    _fault(
        "not_reached",
        API_CALLS,
        "连不上医院",
        "Nothing happened there; the same call is made again.",
        effect=Effect.NOT_REACHED,
    ),
    _fault("request_lost", API_CALLS, "请求在途中丢失", _ASKED, effect=Effect.LOSE_REQUEST),
    _fault("answer_lost", API_CALLS, "已办理但应答丢失", _ASKED, effect=Effect.LOSE_ANSWER),
    _fault("error_500", API_CALLS, "HTTP 500，未办理", _ASKED, effect=Effect.ERROR_BEFORE),
    _fault(
        "booked_but_error_500",
        _CONFIRM,
        "HTTP 500，实际已记账",
        "Unknown at first; query_payment says booked, and it is booked once.",
        effect=Effect.ERROR_AFTER,
    ),
    _fault("answer_garbled", API_CALLS, "应答截断", _ASKED, effect=Effect.GARBLED_ANSWER),
    # Answers that prove nothing.
    _fault("answer_unsigned", API_CALLS, "应答没有签名", _ASKED),
    _fault("answer_forged", API_CALLS, "应答签名不对", _ASKED),
    _fault("answer_of_another_request", API_CALLS, "应答串号（属于另一请求）", _ASKED),
    _fault("outcome_unknown_word", API_CALLS, "结果代码不认识", _ASKED),
    _fault("login_page", API_CALLS, "网关返回 HTTP 200 登录页，未办理", _ASKED),
    _fault(
        "no_value_words",
        API_CALLS,
        '空值写成 ""、"null"、[]、-1，另有多余字段',
        "The bill shows and is paid as usual.",
    ),
    # Locks.
    _fault(
        "lock_lapses_early",
        _LOCK,
        "锁定提前失效",
        "Booking is refused with LOCK_LAPSED; locked again under the same number, then booked.",
    ),
    _fault(
        "lock_held_by_other_once",
        _LOCK,
        "处方正被窗口占用",
        "The patient is told to try again; the next attempt works; nothing was charged.",
    ),
    _fault(
        "amount_changes_after_lock",
        _CONFIRM,
        "锁定后金额变了",
        "Refused with AMOUNT_MISMATCH; the money goes back and the bill shows at its new amount.",
    ),
    # Booking.
    _fault(
        "refuses_confirm",
        _CONFIRM,
        "记账时处方已被作废",
        "Refused with BILL_CANCELLED; this bill's money goes back, the others stand.",
    ),
    _fault(
        "bill_paid_at_window_meanwhile",
        _CONFIRM,
        "记账时已在窗口缴费",
        "Refused with BILL_PAID; the money goes back, the window's receipt stands.",
    ),
    _fault(
        "books_slowly",
        _CONFIRM,
        "记账慢，先答处理中",
        "Waits; query_payment says booked within the declared processing limit; booked once.",
    ),
    _fault(
        "booked_but_unlisted_code",
        _CONFIRM,
        "已记账却返回不在表内的错误码",
        "The code is not listed, so it proves nothing; query_payment says booked, and it is booked once.",
    ),
    _fault(
        "repeat_says_paid",
        frozenset({REPEAT}),
        "重复记账请求被答“已缴费”（其实是我们缴的）",
        "Asked back whether this number is booked: yes, so nothing is returned.",
    ),
    _fault(
        "never_answers_booking",
        _CONFIRM,
        "记账结果一直不明",
        "The HIS neither books nor refuses until its staff act; lies in the case list until then.",
        person=True,
    ),
    # Taking back.
    _fault(
        "reversed_but_error_500",
        _REFUND,
        "HTTP 500，实际已退费",
        "Unknown at first; query_refund says reversed, and the money goes back once.",
        effect=Effect.ERROR_AFTER,
    ),
    _fault(
        "reverses_slowly",
        _REFUND,
        "退费慢，先答处理中",
        "Waits; query_refund says reversed within the declared processing limit; reversed once.",
    ),
    _fault(
        "reversed_but_unlisted_code",
        _REFUND,
        "已退费却返回不在表内的错误码",
        "The code is not listed, so it proves nothing; query_refund says reversed, and the money goes back once.",
    ),
    _fault(
        "refund_repeat_says_refunded",
        frozenset({REFUND_REPEAT}),
        "重复退费请求被答“已退费”（其实是我们退的）",
        "Asked back whether this number is reversed: yes, so the money goes back, once.",
    ),
    _fault(
        "handed_out_meanwhile",
        _REFUND,
        "申请退费时药品刚被发出",
        "Refused with DISPENSED or EXECUTED; nothing goes back, the line stays booked, whoever asked reads why.",
    ),
    _fault(
        "never_answers_reversal",
        _REFUND,
        "退费结果一直不明",
        "The HIS neither reverses nor refuses until its staff act; lies in the case list until then.",
        person=True,
    ),
    _fault(
        "red_receipt_says_nothing_of_money",
        frozenset({"query_red_receipt"}),
        "红票没有说由谁退钱",
        "Nothing is paid; lies in the case list until a person knows who gives the money back.",
        person=True,
    ),
    # Events.
    _fault("event_lost", _EVENT, "新单通知没有发出", "The list shows the bill anyway; only the push is missing."),
    _fault("event_duplicated", _EVENT, "通知重复发送", "One event, one push."),
    _fault("event_forged", _EVENT, "有人伪造通知", "Refused as unverified; nothing changes."),
    _fault(
        "event_replayed",
        _EVENT,
        "同一通知被原样重放",
        "Refused as a replay or dropped as a duplicate; one push.",
    ),
)
