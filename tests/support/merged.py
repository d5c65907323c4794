"""Merged payments by the hundred in one house, and what must be true of each when its groups are decided."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from uuid import UUID

from core.message_texts import message_fields
from core.models import Message, Payer, Payment, PaymentLine, Refund, RefundLine, StaffCase, Transfer
from core.money import Fen
from core.ports import MessageKind
from core.states import LineStatus, PaymentStatus, RefundStatus
from tests.support.house import MCHID, House

UNITS = ("bill", "visit", "payment")
AT_ONCE = 64
"""Payments that are open in the house at the same time."""

WAYS = {"cancelled": "BILL_CANCELLED", "paid": "BILL_PAID", "amount": "AMOUNT_MISMATCH"}
"""How a bill comes to be refused, and the HIS's code for it."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A payment of so many bills, of which some are refused, by their places."""

    count: int
    refused: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One payment as it was begun."""

    order_no: str
    bills: tuple[str, ...]
    amounts: dict[str, int]
    visits: dict[str, str]
    refused: dict[str, str]  # bill → the HIS's code


def every_subset(counts: Iterable[int]) -> Iterator[Wanted]:
    for count in counts:
        for size in range(count + 1):
            for chosen in combinations(range(count), size):
                yield Wanted(count=count, refused=frozenset(chosen))


def random_subsets(draw: random.Random, times: int, *, most: int = 20) -> Iterator[Wanted]:
    for _ in range(times):
        count = draw.randint(1, most)
        yield Wanted(count=count, refused=frozenset(draw.sample(range(count), draw.randint(0, count))))


class MergedHouse:
    """One hospital, one payer, one patient, and as many payments as are asked for."""

    def __init__(self, house: House, payer: Payer, patient_id: UUID, *, seed: int) -> None:
        self.house, self.payer, self.patient_id = house, payer, patient_id
        self.draw = random.Random(f"merged/{seed}")
        self.numbers = Counter[str]()

    @classmethod
    async def build(cls, unit: str, *, seed: int = 7) -> MergedHouse:
        house = await House.build(seed=seed, settings={"merge": True}, confirm_unit=unit, no_events=True)
        payer = await house.payer()
        patient_id = await house.bound(payer)
        await Payer.all().update(reachable=False)  # messages are written, and nobody is written to
        return cls(house, payer, patient_id, seed=seed)

    async def run(self, wanted: Sequence[Wanted]) -> None:
        """Begin, pay, refuse, let time pass, check; then pay what came back once more."""
        for start in range(0, len(wanted), AT_ONCE):
            trials = [await self._begin(each) for each in wanted[start : start + AT_ONCE]]
            await self._delay_some(trials)
            await self.house.settle()
            books = Books.of(self.house)
            for trial in trials:
                await self._check(trial, books)
            await self._pay_again(trials, books)
        assert await StaffCase.all().count() == 0

    async def _begin(self, wanted: Wanted) -> Trial:
        house, draw = self.house, self.draw
        self.numbers["payments"] += 1
        number = self.numbers["payments"]
        visits_max = draw.randint(1, 4)
        bills: dict[str, str] = {}
        for _ in range(wanted.count):
            visit = f"MZ{number}-{draw.randrange(visits_max)}"
            amount = 0 if draw.random() < 0.08 else draw.randint(1, 20_000)
            bill = house.bill(total_fen=amount, items=[("费用", amount)], visit_no=visit, merge_group=f"G{number}")
            bills[bill] = visit
        order = list(bills)
        started = await self._start(order)
        assert started.amount_fen == sum(house.his.bills[bill].to_pay_fen for bill in bills)
        amounts = {bill: house.his.bills[bill].to_pay_fen for bill in bills}
        if started.pay is not None:
            assert house.pay_sheet(started) == "paid"
        refused = {}
        for place in sorted(wanted.refused):
            way = draw.choice(sorted(WAYS))
            refused[order[place]] = WAYS[way]
            if way == "amount":
                house.his.change_amount(order[place], amounts[order[place]] + 100, force=True)
            elif way == "cancelled":
                house.his.cancel(order[place], force=True)
            else:
                house.his.window_pay(order[place], force=True)
        self.numbers["lines"] += len(order)
        return Trial(order_no=started.order_no, bills=tuple(order), amounts=amounts, visits=bills, refused=refused)

    async def _start(self, bills: Sequence[str]) -> Any:
        shown = Fen(sum(self.house.his.bills[bill].to_pay_fen for bill in bills))
        shuffled = self.draw.sample(list(bills), len(bills))
        keys = tuple(("", bill) for bill in shuffled)
        return await self.house.start(self.payer, self.patient_id, bills[0], bills=keys, shown_fen=shown)

    async def _delay_some(self, trials: Sequence[Trial]) -> None:
        """Some groups are decided seconds after the others: the HIS is not reached at first."""
        for trial in self.draw.sample(list(trials), len(trials) // 8):
            lines = await self.house.lines(trial.order_no)
            late = self.draw.choice(lines)
            self.house.faults.script("hospital.not_reached", key=late.confirm_no)
            self.numbers["delayed"] += 1

    async def _pay_again(self, trials: Sequence[Trial], books: Books) -> None:
        """Whatever came back and is unpaid at the HIS can be paid at once, all of a payment's together."""
        again: dict[str, list[str]] = {}
        for trial in trials:
            lines = await self.house.lines(trial.order_no)
            unpaid = [
                line.his_bill_id
                for line in lines
                if line.status is LineStatus.RETURNED and books.bills[line.his_bill_id]["state"] == "unpaid"
            ]
            if unpaid:
                started = await self._start(unpaid)
                if started.pay is not None:
                    assert self.house.pay_sheet(started) == "paid"
                again[started.order_no] = unpaid
        await self.house.settle()
        books = Books.of(self.house)
        for order_no, bills in again.items():
            self.numbers["paid again"] += len(bills)
            for line in await self.house.lines(order_no):
                assert line.status is LineStatus.CONFIRMED
                assert books.booked(line.his_bill_id) == [(order_no, line.amount_fen)]

    # ------------------------------------------------------------ what must be true

    async def _check(self, trial: Trial, books: Books) -> None:
        payment = await self.house.payment(trial.order_no)
        lines = await self.house.lines(trial.order_no)
        assert {line.his_bill_id: line.amount_fen for line in lines} == trial.amounts
        back = self._goes_back(trial, lines)
        assert {line.his_bill_id for line in lines if line.status is LineStatus.RETURNED} == back
        assert {line.his_bill_id for line in lines if line.status is LineStatus.CONFIRMED} == set(trial.bills) - back
        self.numbers["returned"] += len(back)
        for line in lines:
            self._check_line(trial, line, books)
        fen = sum(trial.amounts[bill] for bill in back)
        asked = sum(trial.amounts.values())
        assert payment.status is PaymentStatus.PAID
        assert (payment.paid_fen, payment.refunded_fen, payment.refund_reserved_fen) == (asked, fen, fen)
        order = books.orders.get(trial.order_no, {"taken_fen": 0, "refunded_fen": 0, "returning_fen": 0})
        assert (order["taken_fen"], order["refunded_fen"], order["returning_fen"]) == (asked, fen, 0)
        await self._check_refund(payment, {line.id: line.amount_fen for line in lines if line.his_bill_id in back})
        await self._check_ledger(payment, asked, fen)
        await self._check_messages(payment, trial, back, lines)

    def _goes_back(self, trial: Trial, lines: Sequence[PaymentLine]) -> set[str]:
        """The groups of the refused bills, worked out from the unit alone."""
        unit = self.house.his.confirm_unit
        if unit == "bill":
            return set(trial.refused)
        if unit == "payment":
            return set(trial.bills) if trial.refused else set()
        visits = {trial.visits[bill] for bill in trial.refused}
        return {bill for bill in trial.bills if trial.visits[bill] in visits}

    def _check_line(self, trial: Trial, line: PaymentLine, books: Books) -> None:
        ours = [booked for booked in books.booked(line.his_bill_id) if booked[0] == trial.order_no]
        if line.status is LineStatus.CONFIRMED:
            assert ours == [(trial.order_no, line.amount_fen)]
            assert line.receipt_no
        else:
            assert ours == []
            group = [bill for bill in trial.refused if self._same_group(trial, bill, line.his_bill_id)]
            assert line.reason_code in {trial.refused[bill] for bill in group}
        assert line.claims_bill is False
        assert books.bills[line.his_bill_id]["locked_by"] == ""

    def _same_group(self, trial: Trial, one: str, other: str) -> bool:
        unit = self.house.his.confirm_unit
        return unit == "payment" or one == other or (unit == "visit" and trial.visits[one] == trial.visits[other])

    async def _check_refund(self, payment: Payment, back: dict[UUID, int]) -> None:
        """One refund for all that the HIS refused, with a part for each line; none where nothing moves."""
        refunds = await Refund.filter(payment_id=payment.id)
        if not sum(back.values()):
            assert refunds == []
            return
        (refund,) = refunds
        assert (refund.status, refund.amount_fen) == (RefundStatus.REFUNDED, sum(back.values()))
        parts = await RefundLine.filter(refund_id=refund.id)
        assert {part.line_id: part.amount_fen for part in parts} == back
        self.numbers["refunds"] += 1

    async def _check_ledger(self, payment: Payment, asked: int, fen: int) -> None:
        found: Counter[str] = Counter()
        for transfer in await Transfer.filter(payment_id=payment.id):
            found[transfer.debit] += transfer.amount_fen
            found[transfer.credit] -= transfer.amount_fen
        assert {account: amount for account, amount in found.items() if amount} == {
            account: amount
            for account, amount in {"channel_receivable": asked - fen, "his_confirmed": fen - asked}.items()
            if amount
        }
        self.numbers["fen"] += asked

    async def _check_messages(
        self, payment: Payment, trial: Trial, back: set[str], lines: Sequence[PaymentLine]
    ) -> None:
        """One message for all groups, and one when money is back."""
        written = await Message.filter(payment_id=payment.id)
        kinds = Counter(message.kind for message in written)
        main = MessageKind.REFUSED_RETURNED if back else MessageKind.PAID
        moves = bool(sum(trial.amounts[bill] for bill in back))
        assert kinds == Counter({main: 1, MessageKind.REFUND_ARRIVED: int(moves)})
        for message in written:
            if message.kind != main:
                continue
            values = self.house.services.outside.keyring.decrypt_json(message.values_enc, place="message.values")
            assert Counter(values["confirm_nos"]) == Counter({line.confirm_no: 1 for line in lines})
            assert (values["refused"], values["booked"], values["waiting"]) == (len(back), len(lines) - len(back), 0)
            fields = message_fields(main, values, language="zh", hospital="H")
            about = back or set(trial.bills)
            assert fields["amount"] == f"¥{sum(trial.amounts[bill] for bill in about) / 100:.2f}"
            if back and len(back) < len(lines):
                assert fields["note"].startswith(f"{len(back)}张未入账")
                assert fields["note"].endswith(f"{len(lines) - len(back)}张已缴费")


@dataclass(frozen=True)
class Books:
    """The two counterparties' books at one moment."""

    bills: dict[str, Any]
    orders: dict[str, Any]

    @classmethod
    def of(cls, house: House) -> Books:
        orders = {order["out_trade_no"]: order for order in house.pay.books()["orders"]}
        assert all(number in house.pay.orders or (MCHID, number) in house.pay.orders for number in orders)
        return cls(house.his.books()["bills"], orders)

    def booked(self, bill: str) -> list[tuple[str, int]]:
        """(our order, fen) of every booking that came from a phone."""
        return [
            (one["order_no"], one["amount_fen"]) for one in self.bills[bill]["bookings"] if one["paid_by"] == "mobile"
        ]
