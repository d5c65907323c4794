"""Every sentence a member of staff can read, in Chinese and English. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import RequestError, StaffError
from core.texts import PROBLEMS_ZH

ERRORS: Mapping[str, Mapping[str, str]] = {
    "request_error": {"zh": "请求没有完成。请稍后再试。", "en": "The request was not completed. Please try again."},
    "invalid_request": {
        "zh": "提交的内容有误（{field}：{problem}），没有做任何改动。",
        "en": "Something in the request is not right ({field}: {problem}). Nothing was changed.",
    },
    "not_signed_in": {
        "zh": "密钥无效或已停用。请联系系统管理员。",
        "en": "The key is not valid, or has been taken back. Please ask your administrator.",
    },
    "not_found": {"zh": "本机构没有这条记录。", "en": "This institution has no such record."},
    "idempotency_conflict": {
        "zh": "同一个 Idempotency-Key 已用于另一项请求，没有做任何改动。",
        "en": "This Idempotency-Key was used for another request. Nothing was changed.",
    },
    "too_many_requests": {
        "zh": "请求太频繁，请{retry_after_seconds}秒后再试。",
        "en": "Too many requests. Please try again in {retry_after_seconds} seconds.",
    },
    "hospital_unavailable": {
        "zh": "现在无法联系医院系统，没有做任何改动。请稍后再试。",
        "en": "The HIS cannot be reached now. Nothing was changed. Please try again later.",
    },
    "channel_unavailable": {
        "zh": "现在无法联系支付渠道，没有做任何改动。请稍后再试。",
        "en": "The payment channel cannot be reached now. Nothing was changed. Please try again later.",
    },
    "method_not_allowed": {"zh": "这个地址不支持该操作。", "en": "This address does not take that method."},
    "body_too_large": {"zh": "提交的内容太大，没有做任何改动。", "en": "The body is too large. Nothing was changed."},
    "internal_error": {
        "zh": "系统出错，已记录。请刷新后核对，不要重复操作。",
        "en": "Something went wrong and has been recorded. Reload and look before you try again.",
    },
    "service_unavailable": {
        "zh": "系统暂时不能处理。请稍后刷新核对，再决定是否重做。",
        "en": "This cannot be worked on right now. Reload in a moment and look before you try again.",
    },
    "took_too_long": {
        "zh": "处理时间较长，还没有结果。请稍后刷新核对，不要重复操作。",
        "en": "This takes long and has no result yet. Reload in a moment and look before you try again.",
    },
    "request_timeout": {
        "zh": "请求没有发送完整，没有做任何改动。请检查网络后再试。",
        "en": "The request did not arrive completely. Nothing was changed. Please check the connection and try again.",
    },
    "staff_error": {"zh": "操作没有完成。", "en": "This was not done."},
    "not_allowed": {
        "zh": "您没有这项权限（{role}）。请联系系统管理员。",
        "en": "You may not do this (it takes {role}). Please ask your administrator.",
    },
    "needs_another": {
        "zh": "须由另一位同事复核：提出的人不能自己批准。",
        "en": "It takes two people: whoever proposed it cannot approve it.",
    },
    "already_decided": {
        "zh": "已有结果（{status}），没有重复处理。请刷新。",
        "en": "It has been settled already ({status}); nothing was done twice. Please reload.",
    },
    "refund_not_possible.not_confirmed": {
        "zh": "医院没有入账，不能按已入账退费。",
        "en": "The HIS has not booked this, so there is no booking to take back.",
    },
    "refund_not_possible.too_much": {
        "zh": "退款金额超过可退金额。",
        "en": "The amount is more than what can still be refunded.",
    },
    "refund_not_possible.window_only": {
        "zh": "医院要求到窗口办理退费。{his_text}",
        "en": "The HIS takes this refund at the window only. {his_text}",
    },
    "refund_not_possible.his_refuses": {
        "zh": "医院不同意退费。{his_text}",
        "en": "The HIS does not agree to the refund. {his_text}",
    },
    "refund_not_possible.too_late": {
        "zh": "已超过支付渠道的退款期限，请线下退还。",
        "en": "The payment channel no longer refunds this payment; pay it back by other means.",
    },
    "refund_not_possible.under_way": {
        "zh": "这笔款项已在退款中。",
        "en": "A refund of this money is under way already.",
    },
    "refund_not_possible": {"zh": "不能退款。{his_text}", "en": "This cannot be refunded. {his_text}"},
    "action_not_possible.not_for_this_case": {
        "zh": "这类事项没有这项操作。",
        "en": "This kind of case does not have that action.",
    },
    "action_not_possible.unsettled": {
        "zh": "款项还没有着落，不能关闭。请先处理款项。",
        "en": "Its money is not settled yet, so the case cannot be closed. Deal with the money first.",
    },
    "action_not_possible.closed": {"zh": "这件事项已经关闭。", "en": "This case has been closed already."},
    "action_not_possible.nothing_waits": {
        "zh": "没有可以查询或继续的内容，请刷新。",
        "en": "Nothing of it waits any more. Please reload.",
    },
    "action_not_possible.proposed_already": {
        "zh": "同样的申请正等待复核。",
        "en": "The same has been proposed and waits for a second person.",
    },
    "action_not_possible.too_early": {
        "zh": "刚刚发出的请求还可能生效，请几分钟后再试。",
        "en": "A request that we sent just now may still have its effect. Try again in a few minutes.",
    },
    "action_not_possible.too_little": {
        "zh": "实收少于应收，不能入账，只能退还。",
        "en": "Less was taken than was asked: it cannot be booked, only returned.",
    },
    "action_not_possible.bill_taken": {
        "zh": "账单已被另一笔支付占用或入账，不能再入账，只能退还。",
        "en": "Another payment holds or has booked this bill: it cannot be booked again, only returned.",
    },
    "action_not_possible.refunded_elsewhere": {
        "zh": "这笔钱已记为在渠道后台退款，不能再认定一次。",
        "en": "This money is on record as refunded in the channel's console; it cannot be attested a second time.",
    },
    "action_not_possible.disputed": {
        "zh": "医院先拒绝、后又入账：凭医院的书面答复，由两人认定入账有效或已撤销。",
        "en": "The HIS has booked after it had refused: two people attest that the booking stands, or is undone.",
    },
    "action_not_possible.money_left": {
        "zh": "款项已退或正在退，入账不能保留。请医院撤销入账。",
        "en": "The money has gone back or may have: the booking cannot stand. Have the HIS undo it.",
    },
    "action_not_possible.number_used": {
        "zh": "这个红票号已是另一笔退款的，不能再认定一次。",
        "en": "This red receipt is another refund's already; it cannot be attested a second time.",
    },
    "action_not_possible.amount_differs": {
        "zh": "金额与退款单不一致，请核对凭证。",
        "en": "The amount is not that of the refund. Please check the document.",
    },
    "action_not_possible": {"zh": "现在不能这样做。", "en": "This is not possible now."},
}
"""Why something was not done, by `code` or `code.reason`."""


def staff_error_text(error: RequestError | StaffError, language: str) -> str:
    """The sentence for an error; a reason without one of its own is told by its code."""
    reason = error.values.get("reason")
    sentences = ERRORS.get(f"{error.code}.{reason}") or ERRORS.get(error.code) or ERRORS["staff_error"]
    values = {"his_text": "", "field": "", "problem": "", "role": "", "status": "", "retry_after_seconds": ""}
    values |= {name: str(value) for name, value in error.values.items()}
    if language == "zh":
        values["problem"] = PROBLEMS_ZH.get(values["problem"], values["problem"])
    return sentences[language].format(**values).strip()


CASES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "payment_outcome_unknown": (
        {"zh": "支付渠道一直没有说明订单结果", "en": "The channel has not said how an order ended"},
        {
            "zh": "再次查询；仍无结果，到渠道后台查这个订单，凭后台截图由两人认定。",
            "en": "Ask again. If it stays silent, look the order up in the channel's console and attest that, by two.",
        },
    ),
    "confirmation_outcome_unknown": (
        {"zh": "已收款，医院没有说明是否入账", "en": "Money taken; the HIS has not said whether it booked"},
        {
            "zh": "再次查询；请医院按入账号核实，凭收据或书面答复由两人认定。",
            "en": "Ask again. Have the HIS look up the confirm number; attest its answer with a document, two people.",
        },
    ),
    "wrong_amount": (
        {"zh": "实收与应收不一致", "en": "The channel took another amount than was asked"},
        {
            "zh": "没有入账，24小时后自动全额退还；也可由两人决定立即退还，或按应收入账并退还多收部分。",
            "en": "Nothing is booked; all goes back after 24 hours. Two people may return it now, or book the amount"
            " asked and return the rest.",
        },
    ),
    "contradicting_evidence": (
        {"zh": "同一来源前后说法不一", "en": "A source contradicts what it had proven before"},
        {
            "zh": "核对各次证据；未发出的退款等您决定是否继续。款项了结后关闭。",
            "en": "Compare the evidence; unsent refunds wait for you. Close it once the money is settled.",
        },
    ),
    "hospital_contradicts_itself": (
        {"zh": "医院先后说法相反（入账／未入账）", "en": "The HIS said booked and not booked"},
        {
            "zh": "请医院核实是否入账，凭其答复由两人认定入账有效（不退）或已撤销（退款继续）。款项了结后关闭。",
            "en": "Settle with the HIS whether it is booked; attest, two people, that it stands (nothing goes back) or"
            " is undone (the refund goes on). Close it once no money is open.",
        },
    ),
    "his_booked_without_money": (
        {"zh": "医院已入账，但没有收到款项", "en": "The HIS booked what nobody paid"},
        {"zh": "请医院撤销这笔入账，然后关闭。", "en": "Have the HIS take the booking back, then close this."},
    ),
    "lock_not_released": (
        {"zh": "医院没有释放账单锁定", "en": "The HIS does not release a bill"},
        {
            "zh": "再次查询；请医院按入账号释放账单。释放后自动关闭。",
            "en": "Ask again, or have the HIS free the bill by the confirm number. It closes by itself.",
        },
    ),
    "inbound_not_worked": (
        {"zh": "一条通知处理不了", "en": "A stored notice or event cannot be worked"},
        {
            "zh": "再次处理；仍不行请技术人员查日志。医院红票：与收费处核实是否要退款。处理好后关闭，此后不再重试。",
            "en": "Work it again; else its error is in the log. Of a red receipt find out whether money is owed. Close"
            " it when all is seen to: it is not tried again then.",
        },
    ),
    "work_fails": (
        {"zh": "系统内部的一项工作一再出错", "en": "A piece of our own work fails again and again"},
        {
            "zh": "请技术人员按编号查日志并改正；成功后自动关闭。已经改正而没有自动关闭的，可以关闭。",
            "en": "Have its error in the log put right, by the subject's number; it closes by itself once the work is"
            " done.",
        },
    ),
    "line_waits": (
        {"zh": "款项在等同一账单的另一笔支付", "en": "Money waits for another payment of the same bill"},
        {
            "zh": "一般会自行了结；查看另一笔支付的事项。",
            "en": "It usually settles by itself; look at the other payment.",
        },
    ),
    "refund_stuck": (
        {"zh": "退款异常，渠道要人工处理", "en": "The channel waits for a person to refund"},
        {
            "zh": "在商户后台为付款人另选账户；处理后点继续，或凭后台截图由两人认定。",
            "en": "Give another account in the merchant console, then resume; or attest the console's word, by two.",
        },
    ),
    "refund_blocked": (
        {"zh": "渠道拒绝退款，多为余额不足", "en": "A refund is refused, often for lack of balance"},
        {
            "zh": "向商户号充值，然后再次查询；会用同一退款单号重发。",
            "en": "Top up the merchant account, then ask now: it is sent again under the same number.",
        },
    ),
    "refund_outcome_unknown": (
        {"zh": "退款久无结果", "en": "A refund has been open for long"},
        {
            "zh": "再次查询；仍无结果，到商户后台按退款单号查，凭截图由两人认定。",
            "en": "Ask again; else look the refund number up in the merchant console and attest it, two people.",
        },
    ),
    "refund_never_succeeds": (
        {"zh": "退款多次失败", "en": "Refund after refund has failed"},
        {
            "zh": "查明原因后点继续，以新单号再退；或线下退还。",
            "en": "Find out why, then resume: a new number is sent. Else pay it back by other means.",
        },
    ),
    "refund_contradiction": (
        {"zh": "渠道对退款前后说法不一", "en": "The channel contradicts itself about a refund"},
        {
            "zh": "与商户后台核对；未发出的退款等您决定是否继续。",
            "en": "Compare with the merchant console; unsent refunds wait for you.",
        },
    ),
    "refund_amount_differs": (
        {"zh": "渠道退款金额与退款单不一致", "en": "The channel refunded another amount than was asked"},
        {
            "zh": "与商户后台核对，凭截图由两人认定；差额线下处理。",
            "en": "Compare with the merchant console and attest, two people; settle the difference by other means.",
        },
    ),
    "reversal_outcome_unknown": (
        {"zh": "已申请退费，医院没有说明是否冲销", "en": "The HIS has not said whether it took a booking back"},
        {
            "zh": "没有动款。再次查询；请医院按退款单号核实，仍无答复的，凭红票或书面答复由两人认定已冲销或未冲销。",
            "en": "No money moves meanwhile. Ask again; have the HIS look up the refund number. If it stays silent,"
            " attest its red receipt or its refusal, two people.",
        },
    ),
    "reversal_differs": (
        {"zh": "医院冲销的账单或金额与申请不符", "en": "The HIS took back something else than was asked"},
        {
            "zh": "款项在等待。与医院核对：已改正的再次查询；或凭红票由两人认定冲销金额（只退该金额），或认定未冲销。",
            "en": "The money waits. Settle it with the HIS and ask again; or attest, two people, what its red receipt"
            " shows (just that goes back), or that it keeps the booking.",
        },
    ),
    "hospital_refund_unclear": (
        {"zh": "红票没有说明由谁退款，或与入账不符", "en": "A red receipt does not say who gives the money back"},
        {
            "zh": "问收费处是否已付现金；没有付，请医院重发原路退回的通知，或在此申请退款，然后关闭。",
            "en": "Was it paid out in cash? If not, have the HIS send the event again with us as payer, or"
            " request the refund here; then close this.",
        },
    ),
    "refund_above_daily_cap": (
        {"zh": "当日红票退款超过上限", "en": "Today's red receipts ask for more than the daily cap"},
        {
            "zh": "先查明医院系统是否异常；由两人决定放行退款或不予退款。",
            "en": "Look whether the HIS runs amok; two people release the refund or keep the money.",
        },
    ),
    "external_refund": (
        {"zh": "有人在渠道后台直接退款", "en": "Somebody refunded in the channel's console"},
        {
            "zh": "与医院核对是否已退费。渠道没有说明金额而那就是我们要退的款时，凭截图由两人认定。",
            "en": "Make the HIS agree with it. Where the channel names no amount and it was the money that we were to"
            " return, attest that, two people.",
        },
    ),
    "notice_for_unknown_order": (
        {"zh": "真实通知，但没有这个订单", "en": "A genuine notice for an order that we do not have"},
        {
            "zh": "查明是否恢复过数据库，或别的系统共用商户号；核对后关闭。",
            "en": "A restored database, or another system on this merchant number? Close it when you know.",
        },
    ),
    "order_without_row": (
        {"zh": "渠道账单有我们的订单，库里没有", "en": "The channel lists an order of ours that has no row"},
        {
            "zh": "数据恢复后丢失的订单：在渠道后台查清，线下入账或退还，然后关闭。",
            "en": "Lost with a restore: look it up in the console, book or return it by hand, then close this.",
        },
    ),
    "refund_without_row": (
        {"zh": "渠道账单有我们的退款，库里没有", "en": "The channel lists a refund of ours that has no row"},
        {
            "zh": "数据恢复后丢失的退款：与医院核对是否已退费，不要再退，然后关闭。",
            "en": "Lost with a restore: see that the HIS agrees, do not refund again, then close this.",
        },
    ),
    "refund_not_approved": (
        {
            "zh": "医院或渠道已办理的退款，库里没有同意",
            "en": "HIS or channel has done a refund that is not approved here",
        },
        {
            "zh": "恢复前已同意的退款：请再次同意，会先问医院和渠道，不会重复退；库里为不同意的，与医院核对后关闭。",
            "en": "Approved after the copy was made: approve it again, HIS and channel are asked before anything is"
            " sent. One that stands as declined: see that the HIS agrees, then close this.",
        },
    ),
    "booking_without_row": (
        {"zh": "医院有我们编号的入账，库里没有", "en": "The HIS has a booking of ours that has no row"},
        {
            "zh": "数据恢复后丢失的入账：在“订单”一类事项里找到对应收款，核对后关闭。",
            "en": "Lost with a restore: its payment is among the orders without a row. Close this when they agree.",
        },
    ),
    "channel_misconfigured": (
        {"zh": "商户号的密钥或参数不可用", "en": "A merchant account cannot be used as it is set up"},
        {
            "zh": "运行 zhenfu doctor，改正机构文件后重新导入，然后关闭。",
            "en": "Run zhenfu doctor, correct the institution's file, run zhenfu setup, then close this.",
        },
    ),
    "messages_misconfigured": (
        {"zh": "消息模板或密钥不可用", "en": "Messages cannot be sent as the account is set up"},
        {
            "zh": "运行 zhenfu doctor，改正机构文件后重新导入；发出后自动关闭。",
            "en": "Run zhenfu doctor, correct the file, run zhenfu setup. It closes once a message leaves.",
        },
    ),
}
"""By kind of case: what it is, and what to do."""


def case_text(kind: str, language: str) -> tuple[str, str]:
    """Title and what to do; a kind that this release does not know is told by its own name."""
    if kind not in CASES:
        return kind, ""
    title, to_do = CASES[kind]
    return title[language], to_do[language]
