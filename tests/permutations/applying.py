"""Evidence of payments applied to a real database in random order, repeated, by several connections at once.

The same end as in order once: status and amounts of the payment, its lines with their reasons, its confirmations and
locks, what its refunds and its transfers add up to, the balance of every account, what kinds of things its payer is
told, which cases are open, and whether anything is still due. Four things belong to the order and are not compared:

- Nothing can be said about a number before it exists. A booking that "arrives" before its confirmation is dropped,
  as the HIS cannot have meant it; whoever holds the row asks again, so at the end everything is said once more.
- In how many refunds money goes back: lines that are refused before somebody looks go back together.
- Numbers and moments of our own: of the refund, of its row, of each transfer.
- A HIS that says both "booked" and "refused" of one number contradicts itself: its first word counts and the second
  is a case. There the end must keep every identity of `zhenfu invariants`, and the case must be there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from core.evidence import Evidence, booking_evidence, refund_evidence, rejection_evidence
from core.invariants import check_invariants
from core.models import HisLock, Payer, Payment, PaymentLine, Refund
from core.money import Fen
from core.ports import BillReceipt, Booking, RefundState, RefundTrade
from core.states import LockStatus, PaymentStatus, ProofKind
from core.transactions import rows
from runtime.database import credentials_of
from tests.permutations.folding import MISTAKES_MAX, Figures
from tests.permutations.statements import CLOSED, FAILED, NEUTRAL, paid, said
from tests.support.house import METHOD, House

CONNECTIONS = 4  # that work on one payment
PATIENCE = 1  # how often a statement whose subject is not there yet waits for another turn
BOOKED, REFUSED, BOTH = "booked", "refused", "both"
QUERY = ProofKind.AUTHENTICATED_QUERY


@dataclass(frozen=True, slots=True)
class Shape:
    """What becomes of a payment; the same shape has the same end."""

    answers: tuple[str, ...]  # of the HIS, one for each bill
    together: bool  # the HIS books all bills as one
    ended: str  # an end that is proven, too: "closed", "failed" or ""
    refund_ends: tuple[RefundState, ...]  # of one number after the other
    taken_too_much: int  # fen

    @classmethod
    def of(cls, draw: random.Random) -> Shape:
        together = draw.random() < 0.3
        number = draw.choice((1, 1, 2, 3))
        kinds = draw.choices((BOOKED, REFUSED, BOTH), (10, 8, 1), k=1 if together else number)
        return cls(
            answers=tuple(kinds * number if together else kinds),
            together=together,
            ended=draw.choice(("", "", "closed", "failed")),
            refund_ends=draw.choice(((RefundState.REFUNDED,), (RefundState.STUCK, RefundState.REFUNDED)))
            if draw.random() < 0.7
            else (RefundState.DEAD, RefundState.REFUNDED),
            taken_too_much=draw.choice((0, 0, 0, 0, 7)),
        )

    @property
    def is_contradictory(self) -> bool:
        return BOTH in self.answers and not self.taken_too_much


@dataclass(kw_only=True)
class Town:
    """A hospital, its payer, and the payments that are made for them."""

    house: House
    reader: asyncpg.Connection
    payer: Payer
    patient_id: Any
    number: int = 0
    ends: dict[Shape, dict[str, Any]] = field(default_factory=dict)

    async def payment(self, shape: Shape) -> Payment:
        """A payment that waits for its payer, as after its order was placed."""
        outside, self.number = self.house.services.outside, self.number + 1
        here, now = self.house.institution_id, outside.clock.now()
        amounts = [Fen(100 + 10 * position) for position in range(len(shape.answers))]
        payment = await Payment.create(
            id=outside.ids.uuid(),
            institution_id=here,
            merchant_account_id=self.house.merchant_account_id,
            payer_id=self.payer.id,
            patient_id=self.patient_id,
            site_id=self.house.site_id,
            his_patient_id="P10001",
            method=METHOD,
            scene="mobile",
            order_no=outside.ids.order_no(),
            asked_fen=Fen(sum(amounts)),
            created_at=now,
            due_at=now,
        )
        common = outside.ids.confirm_no()
        for position, amount in enumerate(amounts):
            confirm_no = common if shape.together else outside.ids.confirm_no()
            await PaymentLine.create(
                id=outside.ids.uuid(),
                institution_id=here,
                payment_id=payment.id,
                position=position,
                his_bill_id=f"B{self.number}-{position}",
                kind="western",
                amount_fen=amount,
                confirm_no=confirm_no,
            )
            if position == 0 or not shape.together:
                await HisLock.create(
                    id=outside.ids.uuid(),
                    institution_id=here,
                    payment_id=payment.id,
                    site_id=self.house.site_id,
                    confirm_no=confirm_no,
                    created_at=now,
                )
        await HisLock.filter(institution_id=here, payment_id=payment.id).update(status=LockStatus.HELD)
        if shape.ended != "failed":
            await Payment.filter(institution_id=here, id=payment.id).update(status=PaymentStatus.PENDING)
        return payment


@dataclass(kw_only=True)
class Story:
    """One payment, and all that is said about it."""

    town: Town
    shape: Shape
    payment: Payment
    lines: list[PaymentLine]

    @classmethod
    async def begin(cls, town: Town, shape: Shape) -> Story:
        payment = await town.payment(shape)
        lines = await town.house.services.payments.lines(payment)
        return cls(town=town, shape=shape, payment=payment, lines=lines)

    def steps(self) -> list[str]:
        """Everything that is said or looked at, in order, each once."""
        ended = {"closed": ["closed"], "failed": ["failed"]}.get(self.shape.ended, [])
        bookings = [f"booking {place}" for place in range(len(self.lines)) if place == 0 or not self.shape.together]
        refunds = [f"refund {place}" for place in range(len(self.shape.refund_ends))]
        return ["unpaid", *ended, "paid by notice", "paid by query", *bookings, "return", "refund slow", *refunds]

    async def take(self, step: str) -> bool:
        """False: nobody can say this yet."""
        name, _, place = step.partition(" ")
        if name == "return":
            await self.town.house.services.returning.return_lines(
                self.payment.id, self.payment.institution_id, held_too=True
            )
            return True
        if name == "refund":
            return await self._refund_step(place)
        for piece in self._pieces(name, place):
            await self.town.house.services.applier.apply(piece)
        return True

    def _pieces(self, name: str, place: str) -> list[Evidence]:
        if name == "booking":
            return self._booking(int(place))
        if name == "paid":
            trade = paid(self.payment.asked_fen + self.shape.taken_too_much, trade_no=f"T{self.payment.order_no}")
            pieces = [said(trade, ProofKind.VERIFIED_NOTICE if place == "by notice" else QUERY)]
        else:
            pieces = [{"unpaid": NEUTRAL, "closed": CLOSED, "failed": FAILED}[name][0]]
        return [_about(piece, self.payment.order_no) for piece in pieces]

    def _booking(self, place: int) -> list[Evidence]:
        line, order_no = self.lines[place], self.payment.order_no
        bills = [one.his_bill_id for one in self.lines if one.confirm_no == line.confirm_no]
        receipts = tuple(BillReceipt(his_bill_id=bill, receipt_no=f"S{bill}") for bill in bills)
        booked = booking_evidence(order_no, line.confirm_no, Booking(booked=True, receipts=receipts), proof=QUERY)
        refused = rejection_evidence(order_no, line.confirm_no, code="BILL_CANCELLED", message="")
        return {BOOKED: [booked], REFUSED: [refused], BOTH: [booked, refused]}[self.shape.answers[place]]

    async def _refund_step(self, place: str) -> bool:
        """About the number that was made `place`-th for its lines; STUCK and what follows are said of the first."""
        ends = self.shape.refund_ends
        number = 0 if place == "slow" or ends[0] is RefundState.STUCK else int(place)
        known = [chain[number] for chain in await self._chains() if number < len(chain)]
        for refund in known:
            trade = RefundTrade(
                refund_no=refund.refund_no,
                order_no=self.payment.order_no,
                state=RefundState.PROCESSING if place == "slow" else ends[int(place)],
                amount_fen=refund.amount_fen,
            )
            await self.town.house.services.applier.apply(
                refund_evidence(trade, self.payment.order_no, source="wechatpay", proof=QUERY)
            )
        return bool(known)

    async def _chains(self) -> list[list[Refund]]:
        """The payment's refunds, each followed by the one that replaces it."""
        refunds = await Refund.filter(institution_id=self.payment.institution_id, payment_id=self.payment.id)
        followers = {refund.replaces_id: refund for refund in refunds}
        chains = [[refund] for refund in refunds if refund.replaces_id is None]
        for chain in chains:
            while (following := followers.get(chain[-1].id)) is not None:
                chain.append(following)
        return chains

    # ------------------------------------------------------------ how it is said

    async def in_order(self) -> None:
        """Once."""
        for step in self.steps():
            await self.take(step)

    async def at_random(self, draw: random.Random, counts: Counter[str]) -> None:
        """Shuffled and repeated, by several connections at once."""
        steps = [step for step in self.steps() for _ in range(draw.choice((1, 1, 2, 3)))]
        steps = [step for step in steps if draw.random() > 0.1]
        draw.shuffle(steps)
        waiting = deque((step, PATIENCE) for step in steps)

        async def worker() -> None:
            while waiting:
                step, patience = waiting.popleft()
                counts["arrivals"] += 1
                if not await self.take(step) and patience:
                    counts["arrivals before their subject"] += 1
                    waiting.append((step, patience - 1))

        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))

    # ------------------------------------------------------------ the end

    async def end(self) -> dict[str, Any]:
        """What is compared."""
        here, payment_id = self.payment.institution_id, self.payment.id

        async def found(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in await rows(sql, here, payment_id)]

        of = "institution_id = $1 AND payment_id = $2"
        return {
            "payment": await found(
                "SELECT status, paid_fen, refunded_fen, refund_reserved_fen, paid_at, due_at IS NULL AS done"
                " FROM payment WHERE institution_id = $1 AND id = $2"
            ),
            "lines": await found(
                "SELECT position, status, claims_bill, reason_code, receipt_no <> '' AS receipt, due_at IS NULL AS done"
                f" FROM payment_line WHERE {of} ORDER BY position"
            ),
            "confirmations": sorted(await found(f"SELECT status, due_at IS NULL AS done FROM confirmation WHERE {of}")),
            "locks": sorted(await found(f"SELECT status, due_at IS NULL AS done FROM his_lock WHERE {of}")),
            "refunds": await found(
                f"SELECT status, cause, due_at IS NULL AS done, sum(amount_fen)::bigint AS fen FROM refund WHERE {of}"
                " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
            "transfers": await found(
                f"SELECT kind, debit, credit, sum(amount_fen)::bigint AS fen FROM transfer WHERE {of}"
                " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
            "balances": await found(
                "SELECT account, sum(fen)::bigint AS fen FROM (SELECT debit AS account, amount_fen AS fen"
                f" FROM transfer WHERE {of} UNION ALL SELECT credit, -amount_fen FROM transfer WHERE {of}) AS moved"
                " GROUP BY account ORDER BY account"
            ),
            "told": await found(f"SELECT DISTINCT kind FROM message WHERE {of} ORDER BY kind"),
            "cases": await found(f"SELECT kind FROM staff_case WHERE {of} AND status = 'open' ORDER BY kind"),
        }


def _about(piece: Evidence, order_no: str) -> Evidence:
    return Evidence(
        order_no=order_no,
        kind=piece.kind,
        source=piece.source,
        facts=piece.facts,
        proves=piece.proves,
        proof_kind=piece.proof_kind,
    )


@asynccontextmanager
async def a_town(app_dsn: str) -> AsyncIterator[Town]:
    """On a database whose models are open already."""
    house = await House.build()
    payer = await house.payer()
    reader = await asyncpg.connect(**credentials_of(app_dsn))
    try:
        yield Town(house=house, reader=reader, payer=payer, patient_id=await house.bound(payer))
    finally:
        await reader.close()


async def run(town: Town, cases: int, seed: int) -> Figures:
    """Random cases; stops early when several have gone wrong. At the end every identity must hold."""
    figures = Figures()
    began = time.monotonic()
    draw = random.Random(f"{seed}/applying")
    while figures.cases < cases and len(figures.mistakes) < MISTAKES_MAX:
        shape = Shape.of(draw)
        figures.cases += 1
        if problem := await _wrong_with(town, shape, draw, figures.counts):
            figures.mistakes.append(f"case {figures.cases} of seed {seed}, {shape}: {problem}")
    for outcome in await check_invariants(town.reader):
        if not outcome.ok:
            figures.mistakes.append(f"{outcome.identity}: {[str(place) for place in outcome.places[:3]]}")
    figures.seconds = time.monotonic() - began
    return figures


async def _wrong_with(town: Town, shape: Shape, draw: random.Random, counts: Counter[str]) -> str:
    story = await Story.begin(town, shape)
    await story.at_random(draw, counts)
    await story.in_order()
    found = await story.end()
    counts[f"payment ended {found['payment'][0][0]}"] += 1
    for line in found["lines"]:
        counts[f"line ended {line[1]}"] += 1
    counts["refunds"] += len(found["refunds"])
    if shape.is_contradictory:
        counts["HIS contradicts itself"] += 1
        if ("hospital_contradicts_itself",) not in found["cases"]:
            return "the HIS contradicts itself, and no case says so"
        return ""
    if shape not in town.ends:
        once = await Story.begin(town, shape)
        await once.in_order()
        town.ends[shape] = await once.end()
        counts["shapes"] += 1
    expected = town.ends[shape]
    return "; ".join(
        f"{name} {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]
    )
