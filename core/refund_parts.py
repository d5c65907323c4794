"""What may go back of a line, and what is asked for, checked before anything is reserved. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from core.errors import InvalidRequest, RefundNotPossible
from core.models import PaymentLine
from core.money import Fen
from core.ports import RefundableBill, RefundItem
from core.reversals import RefundPart
from core.states import LineStatus

AskedPart = tuple[UUID, Fen | None, Sequence[str]]
"""A line, how much of it (None: all that may go back), and the ids of the HIS's items (none: by amount)."""

PARTS_MAX = 20
ITEMS_MAX = 200
REASON_LENGTH_MAX = 200
KEY_LENGTH_MAX = 128
GOES_BACK = frozenset({LineStatus.REVERSING, LineStatus.RETURNING, LineStatus.RETURNED, LineStatus.DISPUTED})


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundOption:
    """One line of a payment as it stands now: what may go back, and why not the rest."""

    line_id: UUID
    his_bill_id: str
    title: str
    status: LineStatus
    amount_fen: Fen
    refunded_fen: Fen  # gone back, on the way or asked for
    paid_out_fen: Fen  # by the hospital itself
    allowed_fen: Fen
    reason: str = ""  # as of RefundNotPossible
    his_text: str = ""  # the HIS's own words
    items: tuple[RefundItem, ...] = field(repr=False, default=())


def option_of(line: PaymentLine, said: RefundableBill | None, barred: str) -> RefundOption:
    """What `said` and what has gone back leave of this line; `barred` is why nothing can go back at all."""
    rest = line.amount_fen - line.refunded_fen - line.paid_out_fen
    allowed, reason, his_text = rest, barred, ""
    if line.status is not LineStatus.CONFIRMED:
        reason = reason or why_not(line.status)
    elif said is not None:
        allowed, his_text = min(rest, said.allowed_fen), said.reason
        reason = "" if allowed else "his_refuses" if rest else "too_much"
    elif not rest:
        reason = reason or "too_much"
    return RefundOption(
        line_id=line.id,
        his_bill_id=line.his_bill_id,
        title=line.title,
        status=line.status,
        amount_fen=line.amount_fen,
        refunded_fen=line.refunded_fen,
        paid_out_fen=line.paid_out_fen,
        allowed_fen=Fen(0 if reason else allowed),
        reason=reason,
        his_text=his_text,
        items=said.items if said else (),
    )


def why_not(status: LineStatus) -> str:
    """Why nothing of a line that does not stand as booked can go back: it goes back already, or never was booked."""
    return "under_way" if status in GOES_BACK else "not_confirmed"


def part_of(line: PaymentLine, amount: Fen | None, items: Sequence[str], said: RefundableBill | None) -> RefundPart:
    """How much of a line is asked for. Raises RefundNotPossible."""
    rest = line.amount_fen - line.refunded_fen - line.paid_out_fen
    if items:
        priced = {item.item_id: item for item in said.items} if said else {}
        if not set(items) <= priced.keys():
            raise RefundNotPossible(reason="his_refuses", his_text=said.reason if said else "")
        refused = next((priced[item] for item in items if not priced[item].refundable), None)
        if refused is not None:
            raise RefundNotPossible(reason="his_refuses", his_text=refused.reason)
        total = Fen(sum(priced[item].amount_fen for item in items))
        if amount is not None and amount != total:
            raise RefundNotPossible(reason="too_much")
        amount = total
    if amount is None:
        amount = Fen(rest)
    if not 0 < amount <= rest:
        raise RefundNotPossible(reason="too_much")
    if said is not None and amount > said.allowed_fen:
        raise RefundNotPossible(reason="his_refuses", his_text=said.reason)
    return RefundPart(line=line, amount_fen=amount, his_items=tuple(items))


def check_text(text: str, name: str, length_max: int) -> None:
    if not text.strip() or len(text) > length_max or not text.isprintable():
        raise InvalidRequest(field=name, problem=f"1 to {length_max} characters are needed")


def digest_of(order_no: str, parts: Sequence[AskedPart], reason: str, key: str) -> str:
    """What makes two requests the same. Raises InvalidRequest for one that cannot be meant."""
    check_text(reason, "reason", REASON_LENGTH_MAX)
    check_text(key, "key", KEY_LENGTH_MAX)
    lines = [line_id for line_id, _, _ in parts]
    if not 0 < len(parts) <= PARTS_MAX or len(set(lines)) != len(lines):
        raise InvalidRequest(field="parts", problem=f"1 to {PARTS_MAX} different lines are needed")
    for _, amount, items in parts:
        if amount is not None and amount <= 0:
            raise InvalidRequest(field="amount_fen", problem="has the wrong form")
        if len(items) > ITEMS_MAX or len(set(items)) != len(items):
            raise InvalidRequest(field="his_items", problem=f"at most {ITEMS_MAX} different items")
    said = [order_no, reason, sorted([str(line_id), amount, sorted(items)] for line_id, amount, items in parts)]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()
