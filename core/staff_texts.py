"""Every sentence a member of staff can read, in Chinese and English. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import RequestError, StaffError

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
    return sentences[language].format(**(values | error.values)).strip()
