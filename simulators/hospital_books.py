"""The rows of the simulated HIS's books, and its two ways of not saying yes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from simulators.hospital_stock import Kind

Fields = dict[str, Any]


class Refusal(Exception):
    """The HIS says no, with a code of the profile."""

    def __init__(self, code: str, message: str = "") -> None:
        self.code, self.message = code, message
        super().__init__(code)


class Unclear(Exception):
    """The HIS itself does not know."""


@dataclass(kw_only=True)
class Booked:
    """Money taken for a bill, by whomever."""

    confirm_no: str  # empty at the window
    amount_fen: int
    receipt_no: str
    paid_at: datetime
    paid_by: str  # "mobile" | "window"
    order_no: str = ""
    channel_trade_no: str = ""
    returned_fen: int = 0
    reversed: bool = False  # all of it has been taken back


@dataclass(kw_only=True)
class Red:
    """What was taken back of a receipt, all or a part. One number may stand for several bills."""

    red_receipt_no: str
    receipt_no: str
    amount_fen: int
    at: datetime
    refund_no: str = ""  # whoever asked for it; empty: the cashier
    confirm_no: str = ""
    money_by: str = ""


@dataclass(kw_only=True)
class HisBill:
    bill_id: str
    patient_id: str
    visit_no: str
    kind: Kind
    department: str
    doctor: str
    issued_at: datetime
    total_fen: int
    to_pay_fen: int
    insured: bool
    payable_online: bool
    not_payable_reason: str
    merge_group: str
    treat_first: bool
    valid_until: datetime | None
    items: list[Fields]
    cancelled: bool = False
    booked: list[Booked] = field(default_factory=list)
    red: list[Red] = field(default_factory=list)
    handed_out: set[str] = field(default_factory=set)  # ids of items that the patient has, or that are done
    taken_back: set[str] = field(default_factory=set)
    invoiced_on_paper: bool = False

    def item_ids(self) -> list[str]:
        return [str(position) for position in range(1, len(self.items) + 1)]

    def state(self, now: datetime) -> str:
        if self.cancelled:
            return "cancelled"
        if any(not booked.reversed for booked in self.booked):
            return "paid"
        if self.valid_until is not None and self.valid_until <= now:
            return "expired"
        return "unpaid"


@dataclass(kw_only=True)
class Lock:
    confirm_no: str
    lock_id: str
    bill_ids: tuple[str, ...]
    amounts: dict[str, int]
    expires_at: datetime  # what we said
    lapses_at: datetime  # what we do
    released: bool = False

    def holds(self, now: datetime) -> bool:
        return not self.released and now < self.lapses_at


@dataclass(kw_only=True)
class Confirm:
    """One confirm_no: what it carried, and how far it is."""

    content: Fields
    state: str = "pending"  # pending | booked | unclear
    due_at: datetime | None = None
    times_received: int = 1
    asked_since: bool = False  # a query came after the last time it was sent


@dataclass(kw_only=True)
class Event:
    """Something told to the other side; `role` says what a fault made of it."""

    event_id: str
    type: str
    bill_id: str
    patient_id: str
    happened_at: datetime
    red_receipt_no: str = ""
    role: str = "genuine"  # genuine | lost | duplicate | replay | forged
    attempts: int = 0
    accepted_at: datetime | None = None
    last_status: int | None = None
