"""Which cases there are, and what a member of staff may do with each. Pure; core/staff_texts.py has the words."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from core.actors import Role


class CaseAction(StrEnum):
    """What can be done with a case."""

    ASK_NOW = "ask_now"  # the channel and the HIS are asked at once
    ATTEST = "attest"  # with a document, by two people
    DECIDE_AMOUNT = "decide_amount"  # money of another amount: back, or booked all the same; by two people
    RELEASE = "release"  # what red receipts want above a day's cap: paid, or kept; by two people
    REFUND = "refund"  # of what the HIS has booked, as any staff refund
    RESUME = "resume"  # a refund that waits for a person goes on
    CLOSE = "close"  # with a reason, once no money of it is open


ROLE_OF: Mapping[CaseAction, Role] = {
    CaseAction.ASK_NOW: Role.WORK_CASES,
    CaseAction.ATTEST: Role.ATTEST,
    CaseAction.DECIDE_AMOUNT: Role.ATTEST,
    CaseAction.RELEASE: Role.ATTEST,
    CaseAction.REFUND: Role.REQUEST_REFUND,
    CaseAction.RESUME: Role.APPROVE_REFUND,
    CaseAction.CLOSE: Role.WORK_CASES,
}

_ASK, _ATTEST, _RESUME, _CLOSE = CaseAction.ASK_NOW, CaseAction.ATTEST, CaseAction.RESUME, CaseAction.CLOSE

ACTIONS: Mapping[str, tuple[CaseAction, ...]] = {
    # These hold money or a row open and close by themselves when the matter settles: nobody closes them.
    "payment_outcome_unknown": (_ASK, _ATTEST),
    "confirmation_outcome_unknown": (_ASK, _ATTEST),
    "wrong_amount": (CaseAction.DECIDE_AMOUNT,),
    "line_waits": (_ASK,),
    "lock_not_released": (_ASK,),
    "refund_stuck": (_ASK, _RESUME, _ATTEST),
    "refund_blocked": (_ASK, _ATTEST),
    "refund_outcome_unknown": (_ASK, _ATTEST),
    "refund_above_daily_cap": (CaseAction.RELEASE,),
    "reversal_outcome_unknown": (_ASK, _ATTEST),
    # These say that something is odd: a person looks, and closes them once no money is open.
    "contradicting_evidence": (_ASK, _RESUME, CaseAction.REFUND, _CLOSE),
    "hospital_contradicts_itself": (_ASK, _ATTEST, _RESUME, CaseAction.REFUND, _CLOSE),
    "his_booked_without_money": (_CLOSE,),
    # Closing the first of these is the end of its message: it is worked no more.
    "inbound_not_worked": (_ASK, _CLOSE),
    "work_fails": (_ASK, _CLOSE),
    "refund_never_succeeds": (_RESUME, _CLOSE),
    "refund_contradiction": (_ASK, _RESUME, _CLOSE),
    "refund_amount_differs": (_ASK, _ATTEST, _CLOSE),
    "reversal_differs": (_ASK, _ATTEST, _CLOSE),
    "hospital_refund_unclear": (CaseAction.REFUND, _CLOSE),
    "external_refund": (_ASK, _ATTEST, _CLOSE),
    "notice_for_unknown_order": (_CLOSE,),
    "order_without_row": (_CLOSE,),
    "refund_without_row": (_CLOSE,),
    "refund_not_approved": (_CLOSE,),
    "booking_without_row": (_CLOSE,),
    "channel_misconfigured": (_CLOSE,),
    "messages_misconfigured": (_CLOSE,),
}
"""By kind of case, in the order in which they are best tried."""


def actions_of(kind: str) -> tuple[CaseAction, ...]:
    """What may be done with a case of this kind; with one that this release does not know, only asking."""
    return ACTIONS.get(kind, (_ASK,))
