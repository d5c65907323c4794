"""The catalogue of named faults: what may go wrong around a payment. Data alone.

The faults of counterparties are carried out by their simulators, which also say what happens and how it ends; all
others are acts (tests/faults/acts.py) at a moment of a flow. How each flow ends that a fault strikes stands in
tests/faults/ends, one file for each flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from simulators import hospital_faults, sms_faults, wechat_faults, wechatpay_faults
from simulators.faults import Fault

SIMULATED: tuple[Fault, ...] = (
    *wechatpay_faults.FAULTS,
    *hospital_faults.FAULTS,
    *wechat_faults.FAULTS,
    *wechat_faults.CHAT_FAULTS,
    *sms_faults.FAULTS,
)

AREAS: Mapping[str, str] = {
    "wechatpay": "The payment channel",
    "hospital": "The HIS",
    "wechat": "The chat platform",
    "sms": "The text message platform",
    "house": "Our own house",
    "people": "People",
}
"""The first word of a fault's name → where it happens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """A fault that no simulator carries out."""

    name: str
    title_zh: str
    ends: str
    moment: str  # of the flow: "sheet" (the pay sheet is open), "paid" (the payer has paid), "begin"


def _act(name: str, moment: str, title_zh: str, ends: str) -> Act:
    return Act(name=name, title_zh=title_zh, ends=ends, moment=moment)


ACTS: tuple[Act, ...] = (
    # The channel.
    _act(
        "wechatpay.timeout",
        "begin",
        "微信支付已受理，但应答超时",
        "Unknown at first; asked, then settled; never twice.",
    ),
    _act(
        "wechatpay.order_not_found_too_early",
        "sheet",
        "刚下单时查单返回订单不存在",
        "Proves nothing before the order's absolute end; asked again, and paid when it is paid.",
    ),
    _act(
        "wechatpay.notice_before_create_answer",
        "begin",
        "支付通知先于下单应答到达",
        "The notice settles the payment; the answer that follows changes nothing.",
    ),
    _act(
        "wechatpay.wrong_amount",
        "sheet",
        "实收金额与应收不符",
        "Nothing is told to the HIS; held, a case, returned whole after 24 hours unless two people decide otherwise.",
    ),
    _act(
        "wechatpay.notice_for_unknown_order",
        "sheet",
        "收到不属于任何订单的真实通知",
        "Stored and shown to staff; no payment is touched.",
    ),
    _act(
        "wechatpay.refunded_in_console",
        "paid",
        "有人在商户平台手工退款",
        "Found before a refund of ours leaves, and shown to staff; nothing is refunded twice.",
    ),
    # The HIS.
    _act("hospital.slow", "begin", "医院每次应答都要八秒", "Waited for within the deadline; ends as always."),
    _act(
        "hospital.timeout",
        "begin",
        "医院已办理，但应答超时",
        "Unknown at first; asked under its number before anything is sent again.",
    ),
    _act("hospital.maintenance", "paid", "付款后医院进入维护时段", "Booked when the maintenance is over."),
    # Our own house.
    _act(
        "house.database_lost",
        "paid",
        "数据库连接全部断开",
        "What was not committed is done again; programs reconnect by themselves.",
    ),
    _act("house.redis_emptied", "paid", "Redis 被清空", "Tokens are fetched again; nothing else is kept there."),
    _act(
        "house.dies_before_call",
        "begin",
        "进程在每一种外部调用发出前被杀",
        "The row is due again when the lease is over; asked first, then sent.",
    ),
    _act(
        "house.dies_after_call",
        "begin",
        "进程在每一种外部调用办成后、记下前被杀",
        "The row is due again when the lease is over; asked first, so nothing is done twice.",
    ),
    _act(
        "house.lease_lost",
        "begin",
        "一个进程停顿过久，另一个已接手",
        "Whatever the slow one learns is evidence; what both learn counts once.",
    ),
    _act("house.clock_jumps", "sheet", "时钟前跳十分钟", "An order that has ended meanwhile is closed, with proof."),
    _act(
        "house.deadlock",
        "paid",
        "数据库死锁",
        "The database ends one of the two; the work is done again.",
    ),
    # People.
    _act("people.taps_twice", "sheet", "同一人再点一次支付", "The same payment's pay sheet is shown again."),
    _act(
        "people.pays_late",
        "sheet",
        "超过有效期才付款",
        "The sheet has expired and nothing is taken; a new attempt works.",
    ),
    _act("people.cancels_after_paying", "paid", "付款后又点取消", "The payment stays paid and is booked."),
    _act(
        "people.relative_pays_too",
        "sheet",
        "亲属同时支付同一处方",
        "The first attempt is closed before the second begins; one of them is paid and booked.",
    ),
    _act(
        "people.pays_at_window",
        "sheet",
        "手机未付完，又在窗口缴费",
        "The open phone payment is closed; the window's receipt stands.",
    ),
    _act(
        "people.paid_at_window_after",
        "paid",
        "手机付款后入账前，窗口又收了一次",
        "The HIS refuses the booking; the phone's money goes back.",
    ),
    _act(
        "people.doctor_cancels",
        "paid",
        "付款后入账前，医生作废处方",
        "The HIS refuses the booking; the money goes back.",
    ),
    _act(
        "people.doctor_changes_amount",
        "paid",
        "付款后入账前，处方金额变了",
        "The HIS refuses the booking; the money goes back and the bill shows at its new amount.",
    ),
)

SEEN_IN_STATEMENT: Mapping[str, frozenset[str]] = {
    "wechatpay.refunded_in_console": frozenset({"single", "merged", "paper", "late", "returned"}),
    "wechatpay.notice_lost": frozenset({"late"}),
    "hospital.event_lost": frozenset({"red_receipt"}),
}
"""Fault → flows in which nobody tells us: only the counterparty's statement of the day can show it."""

ELSEWHERE: Mapping[str, str] = {
    "hospital.repeat_says_paid": "tests/hospital/contract.py",
    "hospital.refund_repeat_says_refunded": "tests/hospital/contract.py",
}
"""Faults of counterparties that strike none of the flows here → a test in which they strike."""

PATIENCE = timedelta(hours=8)
PATIENCE_OF: Mapping[str, timedelta] = {
    "wechatpay.refund_slow": timedelta(hours=50),
    "wechatpay.wrong_amount": timedelta(hours=26),
    "wechat.quota_45009": timedelta(hours=26),
}
"""How long a flow is watched that the fault has struck."""

ALL: tuple[Fault | Act, ...] = (*SIMULATED, *ACTS)
NAMES: tuple[str, ...] = tuple(fault.name for fault in ALL)
