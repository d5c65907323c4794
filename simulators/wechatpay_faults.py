"""What may go wrong at the simulated WeChat Pay, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "wechatpay"

API_CALLS = frozenset({"create", "query", "close", "refund", "query_refund", "abnormal_refund", "certificates", "echo"})
# Asked beside the calls: how an accepted refund ends (key: refund number), what happens to a notice (key:
# order or refund number), whether a stranger claims that a fresh order is paid (key: order number).
REFUND_OUTCOME, NOTICE, FORGERY = "refund_outcome", "notice", "forgery"

_SENT_AGAIN = "The notice is refused, sent again in order 15 s later, and counts once."


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


_WRITES = frozenset({"create", "refund"})

FAULTS: tuple[Fault, ...] = (
    # The line.
    _fault(
        "not_reached",
        API_CALLS,
        "连不上微信支付",
        "Nothing happened there; the same call is made again.",
        effect=Effect.NOT_REACHED,
    ),
    _fault(
        "request_lost",
        API_CALLS,
        "请求在途中丢失",
        "Unknown at first; a query finds nothing, the same call follows.",
        effect=Effect.LOSE_REQUEST,
    ),
    _fault(
        "answer_lost",
        API_CALLS,
        "已受理但应答丢失",
        "Unknown at first; the next query or the same call again settles it.",
        effect=Effect.LOSE_ANSWER,
    ),
    _fault(
        "error_500_before",
        API_CALLS,
        "HTTP 500，未受理",
        "Unknown at first; the same call again settles it.",
        effect=Effect.ERROR_BEFORE,
    ),
    _fault(
        "error_500_after",
        API_CALLS,
        "HTTP 500，实际已受理",
        "Unknown at first; a query or the same call settles it.",
        effect=Effect.ERROR_AFTER,
    ),
    _fault(
        "answer_garbled",
        API_CALLS,
        "应答被截断",
        "The signature fails: unknown, asked again.",
        effect=Effect.GARBLED_ANSWER,
    ),
    # Answers that are not to be believed.
    _fault("answer_unsigned", API_CALLS, "成功应答没有签名", "Treated as forged: unknown, asked again."),
    _fault("answer_forged", API_CALLS, "应答由陌生密钥签名", "Treated as forged: unknown, asked again."),
    _fault(
        "answer_signtest",
        API_CALLS,
        "应答签名探测 SIGNTEST",
        "The probe fails verification: unknown, asked again.",
    ),
    _fault("answer_clock_skewed", API_CALLS, "应答时间戳偏差十分钟", "Refused for its age: unknown, asked again."),
    _fault("answer_unknown_serial", API_CALLS, "应答使用未知序列号", "No key for it: unknown, asked again."),
    # Answers in good order that say something awkward.
    _fault(
        "rate_limited",
        API_CALLS,
        "限流 429，未受理",
        "The same order is sent again after a pause; a question is asked later, ever slower.",
    ),
    _fault(
        "rate_limited_accepted",
        _WRITES,
        "限流 429，实际已受理",
        "The same order is sent again after a pause; a refund is queried first. Never done twice.",
    ),
    _fault(
        "system_error",
        API_CALLS,
        "SYSTEM_ERROR，未受理",
        "The same call with the same parameters settles it.",
    ),
    _fault(
        "system_error_accepted",
        _WRITES | {"close"},
        "SYSTEM_ERROR，实际已受理",
        "Queried, then settled; never twice.",
    ),
    _fault("unknown_trade_state", frozenset({"query"}), "查单返回未知状态", "Stays pending and is asked again."),
    _fault(
        "unknown_refund_state",
        frozenset({"query_refund"}),
        "查退款返回未知状态",
        "Stays pending, asked again.",
    ),
    _fault(
        "query_lags",
        frozenset({"query"}),
        "刚付款时查单仍为未支付",
        "Stays pending; the notice or a later query settles it.",
    ),
    _fault(
        "paid_just_before_close",
        frozenset({"close"}),
        "关单前一刻用户付款",
        "The close is refused, the query says paid, and it is booked as paid.",
    ),
    # Notices.
    _fault("notice_lost", frozenset({NOTICE}), "通知全部丢失", "A query settles it."),
    _fault(
        "notice_delayed",
        frozenset({NOTICE}),
        "通知迟到",
        "A query settles it; the late notice changes nothing.",
    ),
    _fault("notice_duplicated", frozenset({NOTICE}), "通知重复", "Counts once."),
    _fault("notice_stale", frozenset({NOTICE}), "通知时间戳过期", _SENT_AGAIN),
    _fault("notice_bad_signature", frozenset({NOTICE}), "通知签名错误", _SENT_AGAIN),
    _fault("notice_signtest", frozenset({NOTICE}), "通知签名探测 SIGNTEST", _SENT_AGAIN),
    _fault("notice_unknown_serial", frozenset({NOTICE}), "通知使用未知序列号", _SENT_AGAIN),
    _fault(
        "notice_signed_old_serial",
        frozenset({NOTICE}),
        "通知由平台证书签名",
        "Accepted where the certificate is known, else refused and sent again; counts once.",
    ),
    _fault(
        "notice_forged",
        frozenset({FORGERY}),
        "伪造的支付成功通知",
        "Refused; the order stays unpaid until it is paid.",
    ),
    _fault(
        "notice_before_answer",
        frozenset({"refund"}),
        "退款通知先到，应答丢失",
        "The notice settles the refund although its answer never came; it is not sent twice.",
    ),
    # Refunds.
    _fault("refund_slow", frozenset({REFUND_OUTCOME}), "退款到账很慢", "Stays pending for days, then refunded."),
    _fault(
        "refund_abnormal",
        frozenset({REFUND_OUTCOME}),
        "退款异常",
        "Stuck, a case for staff; refunded when they have named another account.",
        person=True,
    ),
    _fault(
        "refund_closed",
        frozenset({REFUND_OUTCOME}),
        "退款关闭",
        "Dead; replaced by a new refund with a new number.",
    ),
    _fault(
        "refund_not_enough_balance",
        frozenset({"refund"}),
        "商户余额不足",
        "Refused with NOT_ENOUGH; the same number and parameters again later, after the top-up.",
    ),
    _fault(
        "refund_payer_account_closed",
        frozenset({"refund"}),
        "用户账户已注销",
        "Refused with USER_ACCOUNT_ABNORMAL; staff return the money another way.",
        person=True,
    ),
)
