"""How the simulated HIS takes bookings back: asked by us under a refund number, or at its own window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from simulators.faults import Fault
from simulators.hospital_books import Booked, Fields, HisBill, Red, Refusal, Unclear
from simulators.hospital_faults import NAME, REFUND_REPEAT

if TYPE_CHECKING:
    from simulators.hospital import HospitalSimulator

HANDED_OUT = {"treatment": ("EXECUTED", "检查已执行，不能退费")}
ALREADY_TAKEN = ("DISPENSED", "药品已发出，不能退费")


@dataclass(kw_only=True)
class Reversing:
    """One refund number: what it carried, and how far it is."""

    content: Fields
    state: str = "pending"  # pending | reversed | unclear
    red_receipt_no: str = ""
    due_at: datetime | None = None
    times_received: int = 1
    asked_since: bool = False  # a query came after the last time it was sent


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is to be taken back of one booking."""

    bill: HisBill
    booked: Booked
    amount_fen: int
    item_ids: tuple[str, ...] = ()


class RefundDesk:
    """Part of the HIS: the same books, the same clock."""

    def __init__(self, his: HospitalSimulator) -> None:
        self._his = his
        self.reversings: dict[str, Reversing] = {}
        self.red_receipts: dict[str, list[tuple[HisBill, Red]]] = {}
        self._processing: set[str] = set()

    # ------------------------------------------------------------ the hospital's own people

    def dispense(self, bill_id: str, item_ids: Sequence[str] = ()) -> None:
        """The pharmacy hands these items out, or all that have not come back; the laboratory does the test."""
        bill = self._his.bills[bill_id]
        bill.handed_out.update(item_ids or [item for item in bill.item_ids() if item not in bill.taken_back])

    def reverse_at_window(
        self,
        bill_id: str,
        *,
        money_by: str | None = None,
        amount_fen: int | None = None,
        confirm_no: str = "",
        also: Sequence[str] = (),
    ) -> str:
        """The cashier takes back what is left of a paid bill, or `amount_fen` of it; returns the red receipt's number.

        `also` are bills that the same red receipt takes back whole. `money_by` is what the HIS says of the money;
        unsaid, it goes back the way it came.
        """
        his = self._his
        now = his.settled()
        part = self._part_at_window(bill_id, confirm_no, amount_fen)
        others = [self._part_at_window(other, "", None) for other in also]
        if money_by is None:
            money_by = "us_original_route" if part.booked.paid_by == "mobile" else "hospital_cash"
        number = self._take_back([part, *others], now, refund_no="", money_by=money_by, about=part.booked.receipt_no)
        his.tell_refunded(part.bill, number)
        return number

    def _part_at_window(self, bill_id: str, confirm_no: str, amount_fen: int | None) -> Part:
        bill = self._his.bill(bill_id)
        open_ones = [booked for booked in bill.booked if not booked.reversed]
        booked = next((one for one in open_ones if not confirm_no or one.confirm_no == confirm_no), None)
        if booked is None:
            raise Refusal("NOT_PAID")
        if self._under_way(bill_id):
            raise Refusal("LOCKED", "线上退费正在办理")
        left = booked.amount_fen - booked.returned_fen
        if amount_fen is not None and not 0 < amount_fen <= left:
            raise Refusal("REFUND_ABOVE_REST")
        return Part(bill=bill, booked=booked, amount_fen=left if amount_fen is None else amount_fen)

    def resolve(self, refund_no: str, *, take_back: bool) -> None:
        """The HIS's staff settle a reversal whose outcome the HIS itself did not know."""
        now = self._his.settled()
        reversing = self.reversings[refund_no]
        if reversing.state != "unclear":
            raise Refusal("NOT_UNCLEAR")
        if take_back:
            self._reverse(refund_no, reversing, now)
        else:
            del self.reversings[refund_no]

    # ------------------------------------------------------------ the profile's operations

    def check(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        self._his.known_patient(fields["patient_id"])
        return {"bills": [self._allowed(str(row["bill_id"]), str(row["confirm_no"])) for row in fields["bills"]]}

    def _allowed(self, bill_id: str, confirm_no: str) -> Fields:
        bill = self._his.bill(bill_id)
        booked = _of_number(bill, confirm_no)
        if booked is None:
            return {"bill_id": bill_id, "allowed_fen": 0, "reason": "没有缴费记录或已退费", "items": []}
        refused = self._refused_text(bill)
        items = []
        for item_id, row in zip(bill.item_ids(), bill.items, strict=True):
            why = "已退费" if item_id in bill.taken_back else refused if item_id in bill.handed_out else ""
            items.append(
                {
                    "item_id": item_id,
                    "name": row["name"],
                    "amount_fen": row["amount_fen"],
                    "refundable": not why,
                    "reason": why,
                }
            )
        allowed = self._rest(bill, booked)
        less = refused if bill.handed_out - bill.taken_back else ""
        return {"bill_id": bill_id, "allowed_fen": allowed, "reason": less, "items": items}

    def confirm(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        refund_no = str(fields["refund_no"])
        content = {name: fields[name] for name in ("patient_id", "bills", "order_no", "total_fen")}
        earlier = self.reversings.get(refund_no)
        if earlier:
            return self._confirmed_again(refund_no, earlier, content, now)
        what = fault.name.partition(".")[2] if fault else ""
        if not content["bills"] or content["total_fen"] != sum(row["amount_fen"] for row in content["bills"]):
            raise Refusal("REQUEST_UNREADABLE")
        if what == "handed_out_meanwhile":
            self.dispense(str(content["bills"][0]["bill_id"]))
        self._his.known_patient(fields["patient_id"])
        self._parts(content, checked=True)
        reversing = Reversing(content=content)
        self.reversings[refund_no] = reversing
        if what == "never_answers_reversal":
            reversing.state = "unclear"
            raise Unclear
        if what == "reverses_slowly":
            reversing.due_at = now + timedelta(seconds=self._his.slow_booking_seconds)
            self._processing.add(refund_no)
            return {"refund_no": refund_no, "reversed": False}
        self._reverse(refund_no, reversing, now)
        if what == "reversed_but_unlisted_code":
            raise Refusal("-99", "系统异常")
        return self._reversal(refund_no, reversing)

    def _confirmed_again(self, refund_no: str, earlier: Reversing, content: Fields, now: datetime) -> Fields:
        earlier.times_received += 1
        if earlier.content != content:
            raise Refusal("REFUND_NO_REUSED", "同一退费号内容不同")
        if self._his.weak and earlier.state in ("pending", "reversed") and not earlier.asked_since:
            if earlier.state == "pending":
                self._reverse(refund_no, earlier, now)  # the first one is still under way: both will be done
            self._reverse(refund_no, earlier, now)
        earlier.asked_since = False
        if earlier.state == "unclear":
            raise Unclear
        if earlier.state == "pending":
            return {"refund_no": refund_no, "reversed": False}
        if self._his.faults.pick(NAME, REFUND_REPEAT, refund_no, specific=True):
            raise Refusal("ALREADY_REFUNDED", "已退费")
        return self._reversal(refund_no, earlier)

    def query(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        refund_no = str(fields["refund_no"])
        reversing = self.reversings.get(refund_no)
        if reversing is None:
            return {"refund_no": refund_no, "reversed": False}
        reversing.asked_since = True
        if reversing.state == "unclear":
            raise Unclear
        if reversing.state == "pending":
            return {"refund_no": refund_no, "reversed": False}
        return self._reversal(refund_no, reversing)

    def query_red_receipt(self, fields: Fields, now: datetime, fault: Fault | None) -> Fields:
        number = str(fields["red_receipt_no"])
        entries = self.red_receipts.get(number)
        if not entries:
            return {"red_receipt_no": number, "known": False}
        _, red = entries[0]
        what = fault.name.partition(".")[2] if fault else ""
        return {
            "red_receipt_no": number,
            "known": True,
            "refund_no": red.refund_no,
            "confirm_no": red.confirm_no,
            "bills": [{"bill_id": bill.bill_id, "amount_fen": one.amount_fen} for bill, one in entries],
            "money_by": "" if what == "red_receipt_says_nothing_of_money" else red.money_by,
        }

    # ------------------------------------------------------------ the books

    def settle(self, now: datetime) -> None:
        """What was to happen by itself until now has happened."""
        for number in sorted(self._processing):
            reversing = self.reversings[number]
            assert reversing.due_at is not None
            if reversing.due_at <= now:
                self._reverse(number, reversing, reversing.due_at)

    def _reverse(self, refund_no: str, reversing: Reversing, at: datetime) -> None:
        parts = self._parts(reversing.content, checked=False)
        number = self._take_back(parts, at, refund_no=refund_no, money_by="us_original_route", about=refund_no)
        reversing.state = "reversed"
        reversing.red_receipt_no = reversing.red_receipt_no or number
        self._processing.discard(refund_no)
        self._his.tell_refunded(parts[0].bill, number)

    def _take_back(self, parts: list[Part], at: datetime, *, refund_no: str, money_by: str, about: str) -> str:
        number = self._his.new_number("H", "red", about)
        for part in parts:
            red = Red(
                red_receipt_no=number,
                receipt_no=part.booked.receipt_no,
                amount_fen=part.amount_fen,
                at=at,
                refund_no=refund_no,
                confirm_no=part.booked.confirm_no,
                money_by=money_by,
            )
            part.bill.red.append(red)
            self.red_receipts.setdefault(number, []).append((part.bill, red))
            part.booked.returned_fen += part.amount_fen
            part.bill.taken_back.update(part.item_ids)
            if part.booked.returned_fen >= part.booked.amount_fen:
                part.booked.reversed = True
                part.bill.cancelled = True
        return number

    def _parts(self, content: Fields, *, checked: bool) -> list[Part]:
        """What a request is about. Raises Refusal, all or none, unless it has been checked before."""
        parts = []
        for row in content["bills"]:
            bill, amount_fen = self._his.bill(row["bill_id"]), row["amount_fen"]
            booked = _of_number(bill, str(row["confirm_no"]), open_only=checked)
            item_ids = tuple(map(str, row["item_ids"]))
            if booked is None:
                done = _of_number(bill, str(row["confirm_no"]), open_only=False)
                raise Refusal(*(("ALREADY_REFUNDED", "已退费") if done else ("NOT_BOOKED", "没有缴费记录")))
            if checked:
                self._check_part(bill, booked, amount_fen, item_ids)
            parts.append(Part(bill=bill, booked=booked, amount_fen=amount_fen, item_ids=item_ids))
        return parts

    def _check_part(self, bill: HisBill, booked: Booked, amount_fen: int, item_ids: tuple[str, ...]) -> None:
        if type(amount_fen) is not int or amount_fen <= 0:
            raise Refusal("REQUEST_UNREADABLE")
        if bill.invoiced_on_paper:
            raise Refusal("INVOICED_ON_PAPER", "已开具纸质发票，请到窗口退费")
        amounts = {item_id: row["amount_fen"] for item_id, row in zip(bill.item_ids(), bill.items, strict=True)}
        if not set(item_ids) <= amounts.keys():
            raise Refusal("REQUEST_UNREADABLE")
        if set(item_ids) & bill.taken_back:
            raise Refusal("ALREADY_REFUNDED", "已退费")
        refusal = HANDED_OUT.get(bill.kind.word, ALREADY_TAKEN)
        if set(item_ids) & bill.handed_out:
            raise Refusal(*refusal)
        if amount_fen > booked.amount_fen - booked.returned_fen:
            raise Refusal("REFUND_ABOVE_REST", "退费金额超过可退金额")
        if amount_fen > self._rest(bill, booked):
            raise Refusal(*refusal)
        if item_ids and amount_fen != sum(amounts[item_id] for item_id in item_ids):
            raise Refusal("REFUND_ABOVE_REST", "退费金额与项目不符")

    def _rest(self, bill: HisBill, booked: Booked) -> int:
        """What may still go back: not what was handed out, not what has come back."""
        out = sum(
            row["amount_fen"]
            for item_id, row in zip(bill.item_ids(), bill.items, strict=True)
            if item_id in bill.handed_out - bill.taken_back
        )
        rest: int = booked.amount_fen - booked.returned_fen - out - self._under_way(bill.bill_id)
        return max(rest, 0)

    def _under_way(self, bill_id: str) -> int:
        """What requests that are not settled yet want of this bill."""
        open_ones = [reversing for reversing in self.reversings.values() if reversing.state != "reversed"]
        return sum(
            row["amount_fen"]
            for reversing in open_ones
            for row in reversing.content["bills"]
            if str(row["bill_id"]) == bill_id
        )

    @staticmethod
    def _refused_text(bill: HisBill) -> str:
        return HANDED_OUT.get(bill.kind.word, ALREADY_TAKEN)[1]

    def _reversal(self, refund_no: str, reversing: Reversing) -> Fields:
        return {
            "refund_no": refund_no,
            "reversed": True,
            "red_receipt_no": reversing.red_receipt_no,
            "bills": [
                {"bill_id": row["bill_id"], "amount_fen": row["amount_fen"]} for row in reversing.content["bills"]
            ],
        }


def _of_number(bill: HisBill, confirm_no: str, *, open_only: bool = True) -> Booked | None:
    found = [booked for booked in bill.booked if booked.confirm_no == confirm_no]
    return next((booked for booked in found if not booked.reversed or not open_only), None)
