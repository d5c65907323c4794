"""What may go wrong at the simulated Alipay, and how business struck by it must end."""

from __future__ import annotations

from simulators.faults import Effect, Fault

NAME = "alipay"

API_CALLS = frozenset({"create", "precreate", "query", "close", "cancel", "refund", "query_refund", "bill"})
# Asked beside the calls: what happens to a notice (key: order number), whether a stranger claims that a fresh
# order is paid (key: order number), what the pay sheet tells the program that called it up (key: order number).
NOTICE, FORGERY, PAY_SHEET = "notice", "forgery", "pay_sheet"

_SENT_AGAIN = "The notice is refused, sent again in order after the next gap, and counts once."
_ASKED_ABOUT = "Signed, yet about something else: nothing is booked by it, a query settles what is true."
_FORGED = "Treated as forged: unknown, asked again."


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


_WRITES = frozenset({"create", "precreate", "close", "cancel", "refund"})

FAULTS: tuple[Fault, ...] = (
    # The line.
    _fault(
        "not_reached",
        API_CALLS,
        "连不上支付宝网关",
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
        "已受理但应答丢失或太慢",
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
        "No complete node: unknown, asked again.",
        effect=Effect.GARBLED_ANSWER,
    ),
    _fault(
        "bad_gateway",
        API_CALLS,
        "HTTP 502，实际已受理",
        "Unknown at first; a query or the same call settles it.",
    ),
    _fault(
        "html_answer",
        API_CALLS,
        "HTTP 200 的 GBK 网页，实际已受理",
        "No JSON is no answer: unknown; a query or the same call settles it.",
    ),
    # Answers that are not to be believed.
    _fault("answer_unsigned", API_CALLS, "成功应答没有签名", _FORGED),
    _fault("answer_forged", API_CALLS, "应答由陌生密钥签名", _FORGED),
    _fault(
        "answer_sha1", API_CALLS, "应答用 SHA-1 签名", "The application is RSA2: " + _FORGED[0].lower() + _FORGED[1:]
    ),
    _fault("answer_node_twice", API_CALLS, "应答节点出现两次", "Ambiguous, treated as forged: unknown, asked again."),
    _fault("answer_altered", API_CALLS, "应答签名后被改写", _FORGED),
    _fault(
        "answer_of_another_method",
        API_CALLS,
        "应答节点属于另一个接口",
        "The expected node is missing: unknown, asked again.",
    ),
    # Answers in good order that say something awkward.
    _fault(
        "unavailable",
        API_CALLS,
        "20000 isp.unknow-error，未受理",
        "Unknown at first; a query or the same call settles it.",
    ),
    _fault(
        "unavailable_accepted",
        _WRITES,
        "20000 aop.ACQ.SYSTEM_ERROR，实际已受理",
        "Queried, then settled; never done twice.",
    ),
    _fault(
        "system_error",
        API_CALLS,
        "ACQ.SYSTEM_ERROR，未受理",
        "Unknown at first; the same call with the same parameters settles it.",
    ),
    _fault(
        "system_error_accepted",
        _WRITES,
        "ACQ.SYSTEM_ERROR，实际已受理",
        "Queried, then settled; never done twice.",
    ),
    _fault(
        "call_limited",
        API_CALLS,
        "40005 限流，未受理",
        "The same order is sent again after a pause; a question is asked later, ever slower.",
    ),
    _fault(
        "in_process",
        frozenset({"create", "precreate"}),
        "10003 等待用户付款，实际已受理",
        "Unknown word for this call: pending, asked again; then paid or expired as the query says.",
    ),
    _fault(
        "unknown_sub_code",
        API_CALLS,
        "40004 未知错误码，实际已受理",
        "An unknown word is unknown, never a refusal: asked again.",
    ),
    _fault("unknown_trade_state", frozenset({"query"}), "查单返回未知状态", "Stays pending and is asked again."),
    _fault(
        "query_lags",
        frozenset({"query"}),
        "刚付款时查单仍为等待付款",
        "Stays pending; the notice or a later query settles it.",
    ),
    _fault(
        "query_does_not_find",
        frozenset({"query"}),
        "交易刚创建时查单仍返回交易不存在",
        "No proof of absence before the deadline: stays pending, asked again.",
    ),
    _fault(
        "paid_just_before_close",
        frozenset({"close"}),
        "关单前一刻用户付款",
        "The close is refused, the query says paid, and it is booked as paid.",
    ),
    _fault(
        "opened_just_after_close",
        frozenset({"close"}),
        "关单时交易尚不存在，随后用户扫码付款",
        "Not found is no end: the late payment is booked, or returned when it has been superseded.",
    ),
    _fault(
        "cancel_again",
        frozenset({"cancel"}),
        "撤销要求重试，实际未撤销",
        "retry_flag is Y: the cancel is sent again until it says N.",
    ),
    # Notices.
    _fault("notice_lost", frozenset({NOTICE}), "通知全部丢失", "A query settles it."),
    _fault(
        "notice_delayed",
        frozenset({NOTICE}),
        "通知迟到，可能次序颠倒",
        "A query settles it; the late notice changes nothing.",
    ),
    _fault("notice_duplicated", frozenset({NOTICE}), "通知重复", "Counts once."),
    _fault("notice_bad_signature", frozenset({NOTICE}), "通知签名错误", _SENT_AGAIN),
    _fault("notice_sha1", frozenset({NOTICE}), "通知用 SHA-1 签名", _SENT_AGAIN),
    _fault(
        "notice_signed_with_type",
        frozenset({NOTICE}),
        "通知按另一规则签名（含 sign_type）",
        _SENT_AGAIN,
    ),
    _fault("notice_of_another_app", frozenset({NOTICE}), "通知的 app_id 属于他人", _ASKED_ABOUT),
    _fault("notice_wrong_amount", frozenset({NOTICE}), "通知金额与订单不符", _ASKED_ABOUT, person=True),
    _fault("notice_wrong_seller", frozenset({NOTICE}), "通知的收款方不符", _ASKED_ABOUT),
    _fault(
        "notice_in_gbk",
        frozenset({NOTICE}),
        "通知用 GBK 编码",
        "Verified over its GBK bytes and counted like any other.",
    ),
    _fault(
        "notice_unknown_state",
        frozenset({NOTICE}),
        "通知的交易状态未知",
        "Proves nothing; a query settles it.",
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
        "The notice or the query settles the refund although its answer never came; it is not sent twice.",
    ),
    # The pay sheet.
    _fault(
        "sheet_says_unknown",
        frozenset({PAY_SHEET}),
        "收银台返回 6004，实际已付款",
        "A hint only: the query says paid.",
    ),
    _fault(
        "sheet_says_processing",
        frozenset({PAY_SHEET}),
        "收银台返回 8000，实际已付款",
        "A hint only: the query says paid.",
    ),
    _fault(
        "sheet_says_paid",
        frozenset({PAY_SHEET}),
        "收银台返回 9000，实际未付款",
        "A hint only: it stays unpaid until the query or a notice says otherwise.",
    ),
    # Refunds.
    _fault(
        "refund_says_nothing_moved",
        frozenset({"refund"}),
        "退款成功但 fund_change=N",
        "N is no failure: the refund query settles it, nothing is refunded twice.",
    ),
    _fault(
        "refund_nothing_moved",
        frozenset({"refund"}),
        "应答 10000、fund_change=N，实际未退",
        "The refund query says nothing; the same number and amount again moves the money once.",
    ),
    _fault(
        "refund_query_says_nothing",
        frozenset({"query_refund"}),
        "退款查询没有 refund_status",
        "No proof that nothing was refunded: stays pending, asked again.",
    ),
    _fault(
        "unknown_refund_state",
        frozenset({"query_refund"}),
        "退款查询返回未知状态",
        "Stays pending, asked again.",
    ),
    _fault(
        "refund_shown_late",
        frozenset({"refund"}),
        "退款两天后才能查到",
        "fund_change=Y is kept; pending until the query knows it, refunded once.",
    ),
    _fault(
        "refund_not_enough_balance",
        frozenset({"refund"}),
        "商户余额不足",
        "Refused with ACQ.SELLER_BALANCE_NOT_ENOUGH; the same number and amount again after the top-up.",
    ),
    _fault(
        "refund_trade_frozen",
        frozenset({"refund"}),
        "交易被冻结",
        "Refused with ACQ.REASON_TRADE_BEEN_FREEZEN; staff settle it with Alipay.",
        person=True,
    ),
    _fault(
        "refund_payer_account_closed",
        frozenset({"refund"}),
        "买家账户已注销",
        "Refused with ACQ.BUYER_NOT_EXIST; staff return the money another way.",
        person=True,
    ),
    # Bills.
    _fault(
        "bill_link_expired",
        frozenset({"bill"}),
        "账单下载地址立即失效",
        "The page behind it is no zip: another address is asked for.",
    ),
)
