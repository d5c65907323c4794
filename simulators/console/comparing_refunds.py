"""Refunds of one order side by side, matched by their own numbers: what the channel and the product say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Fields = Mapping[str, Any]

PAY_WORDS = {"PROCESSING": "退款处理中", "SUCCESS": "已到账", "ABNORMAL": "退款异常", "CLOSED": "退款已关闭"}
OUR_WORDS = {
    "requested": "已申请",
    "declined": "不同意",
    "approved": "准备发出",
    "reversing_at_his": "医院冲销中",
    "sending": "正在发出",
    "pending": "退款处理中",
    "refunded": "已到账",
    "stuck": "退款异常",
    "dead": "已失效",
}
CAUSES = {
    "surplus": "重复支付",
    "held": "金额不符",
    "rejected": "医院未入账",
    "BILL_CANCELLED": "处方已作废",
    "BILL_PAID": "处方已缴费",
    "AMOUNT_MISMATCH": "金额变了",
    "staff": "医院退费",
    "red_receipt": "窗口退费",
}
ENDED_BOTH = {("SUCCESS", "refunded"), ("CLOSED", "dead"), ("CLOSED", "stuck"), ("ABNORMAL", "stuck")}


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundRow:
    refund_no: str
    amount_fen: int
    cause: str
    wechatpay: str
    ours: str
    same: bool  # both have come to the same end, or are both on the way

    def shown(self) -> dict[str, Any]:
        return {
            "refund_no": self.refund_no,
            "amount_fen": self.amount_fen,
            "cause": self.cause,
            "wechatpay": self.wechatpay,
            "ours": self.ours,
            "same": self.same,
        }


def refund_rows(order_no: str, wechatpay: Fields, ours: Sequence[Fields]) -> tuple[RefundRow, ...]:
    """In the order in which they were made; one made by hand at the channel comes last."""
    theirs = {
        str(refund["out_refund_no"]): refund
        for refund in wechatpay.get("refunds", [])
        if refund["out_trade_no"] == order_no
    }
    rows = []
    for refund in ours:
        number, status = str(refund.get("refund_no", "")), str(refund["status"])
        other = theirs.pop(number, None)
        state = str(other["state"]) if other else ""
        cause = str(refund.get("cause", ""))
        rows.append(
            RefundRow(
                refund_no=number,
                amount_fen=int(refund["amount_fen"]),
                cause=CAUSES.get(cause, cause),
                wechatpay=PAY_WORDS.get(state, state) or "没有记录",
                ours=OUR_WORDS.get(status, status),
                same=(state, status) in ENDED_BOTH or state in {"", "PROCESSING"},
            )
        )
    for number, other in theirs.items():
        state = str(other["state"])
        rows.append(
            RefundRow(
                refund_no=number,
                amount_fen=int(other["refund_fen"]),
                cause="在商户平台手工退款" if other.get("by_hand") else "",
                wechatpay=PAY_WORDS.get(state, state),
                ours="没有记录",
                same=False,
            )
        )
    return tuple(rows)
