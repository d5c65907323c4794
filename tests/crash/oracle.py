"""Judges a day by the counterparties' books; ours are read for cases, due rows and the ledger alone."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import asyncpg

from core.failing import CASE as WORK_FAILS
from core.failing import split_subject
from core.invariants import IDENTITIES, Outcome, check_invariants
from core.ledger import ledger_key
from core.ledger_report import Report
from core.verifying import verify_ledger
from runtime.database import credentials_of
from simulators.hospital_books import HisBill, Red
from tests.crash.bells import DUE, ENDLESS
from tests.crash.world import MCHID, World

CASES_OF_FAULTS = {
    # Which faults may leave which case with staff; every other case closes by itself once nothing goes wrong.
    "confirmation_outcome_unknown": {"hospital.never_answers_booking"},
    "refund_stuck": {"wechatpay.refund_abnormal"},
    "refund_blocked": {
        "wechatpay.refund_payer_account_closed",
        "wechatpay.refund_not_enough_balance",
    },
    "messages_misconfigured": {"wechat.ip_40164", "wechat.token_refused", "wechat.token_rotated"},
    "reversal_outcome_unknown": {"hospital.never_answers_reversal"},
    "hospital_refund_unclear": {"hospital.red_receipt_says_nothing_of_money"},
    "inbound_not_worked": {"hospital.never_answers_reversal"},  # a red receipt waits for our own reversal
}
SMALL_CAP_FEN = 1500
CASES_AFTER_STAFF = frozenset({"messages_misconfigured"})


@dataclass(frozen=True, slots=True)
class Line:
    order_no: str
    confirm_no: str
    his_bill_id: str
    amount_fen: int
    status: str


def judge(world: World) -> list[str]:
    """Everything that is not as it must be, as sentences; empty: all is well."""
    checks = (_money, _bills, _refunds, _attempts, _proofs, _ledger, _identities, _ours, _messages)
    return [sentence for check in checks for sentence in check(world)]


def judge_cases(world: World) -> list[str]:
    """Before staff act: the case list holds what a fault leaves to people, all of it, and nothing else."""
    struck = {name for name, number in world.faults.struck.items() if number}
    found = _open_cases(world)
    wrong = []
    for kind, subject in found:
        expected = kind == "wrong_amount" and world.scheduler.counts["wrong amounts taken"]
        expected = expected or (kind == "refund_above_daily_cap" and world.day.refund_daily_cap_fen <= SMALL_CAP_FEN)
        if not expected and not struck & CASES_OF_FAULTS.get(kind, set()):
            wrong.append(f"a case that no fault explains: {kind} {subject}")
    for number, confirm in world.his.confirms.items():
        if confirm.state == "unclear" and ("confirmation_outcome_unknown", number) not in found:
            wrong.append(f"the HIS does not know about {number}, and staff are not told")
    for (_, number), refund in world.pay.refunds.items():
        if refund.state == "ABNORMAL" and ("refund_stuck", number) not in found:
            wrong.append(f"refund {number} is stuck, and staff are not told")
    return wrong


def _open_cases(world: World) -> list[tuple[str, str]]:
    rows = world.postgres.query("SELECT kind, subject FROM staff_case WHERE status = 'open' ORDER BY kind, subject")
    return [(kind, subject) for kind, subject in rows if kind != WORK_FAILS or _is_due(world, subject)]


def _is_due(world: World, subject: str) -> bool:
    """A case of failing work whose row has ended by another way is closed within a minute, by a sweep."""
    table, row_id = split_subject(subject)
    return bool(world.postgres.query(f"SELECT FROM {table} WHERE id = %s AND due_at IS NOT NULL", row_id))


def count(world: World) -> None:
    """Add the day's totals to the scheduler's counts."""
    counts, books = world.scheduler.counts, world.pay.books()
    counts["payments"] = len(books["orders"])
    counts["payments paid"] = sum(order["taken_fen"] > 0 for order in books["orders"])
    counts["fen taken"] = sum(order["taken_fen"] for order in books["orders"])
    counts["fen returned"] = sum(order["refunded_fen"] for order in books["orders"])
    counts["fen confirmed"] = sum(
        booked.amount_fen for bill in world.his.bills.values() for booked in bill.booked if booked.paid_by == "mobile"
    )
    counts["refunds"] = len(books["refunds"])
    counts["faults"] = sum(world.faults.struck.values())
    counts["lives"] = len(world.scheduler.lives)
    for word, number in world.unanswered.words.items():
        counts[f"calls {word}"] = number
    for ended in _unknowns(world):
        counts[ended] += 1
    for kind, status, number in world.postgres.query("SELECT kind, status, count(*) FROM staff_case GROUP BY 1, 2"):
        counts[f"case {status}: {kind}"] = number
    for status, number in world.postgres.query("SELECT status, count(*) FROM payment GROUP BY 1"):
        counts[f"payment ended {status}"] = number
    for status, number in world.postgres.query("SELECT status, count(*) FROM payment_line GROUP BY 1"):
        counts[f"line ended {status}"] = number
    for kind, number in world.postgres.query(
        "SELECT e.proof_kind, count(*) FROM payment p JOIN payment_event e ON e.id = p.proof_id GROUP BY 1"
    ):
        counts[f"payment's proof: {kind}"] = number


def _unknowns(world: World) -> Iterator[str]:
    """How every piece of business ended of which some call had no definite answer."""
    ends: dict[str, str] = {}
    for table, number in (
        ("payment", "order_no"),
        ("refund", "refund_no"),
        ("his_lock", "confirm_no"),
        ("confirmation", "confirm_no"),
        ("message", "replace(id::text, '-', '')"),
    ):
        for name, status in world.postgres.query(f"SELECT {number}, status FROM {table}"):
            ends[name] = f"{table} {status}"
    for call, number in world.unanswered.unknown:
        yield f"unknown {call}: {ends.get(number, 'a question')}"


# ---------------------------------------------------------------- counterparties' books against each other


def _booked(world: World) -> dict[str, int]:
    """What the HIS has booked for each of our orders, less what it has taken back for us to return."""
    booked: Counter[str] = Counter()
    for bill in world.his.bills.values():
        orders = {}
        for one in bill.booked:
            if one.paid_by == "mobile":
                booked[one.order_no] += one.amount_fen
                orders[one.receipt_no] = one.order_no
        for red in bill.red:
            if red.receipt_no in orders and _is_ours_to_return(world, red):
                booked[orders[red.receipt_no]] -= red.amount_fen
    return booked


def _paid_out(world: World) -> dict[str, int]:
    """What the window has given back in cash of each of our orders, and has told us."""
    paid_out: Counter[str] = Counter()
    for bill in world.his.bills.values():
        orders = {one.receipt_no: one.order_no for one in bill.booked if one.paid_by == "mobile"}
        for red in bill.red:
            if red.receipt_no in orders and red.money_by == "hospital_cash" and _is_told(world, red):
                paid_out[orders[red.receipt_no]] += red.amount_fen
    return paid_out


def _is_told(world: World, red: Red) -> bool:
    return any(event.red_receipt_no == red.red_receipt_no and event.accepted_at for event in world.his.events)


def _is_ours_to_return(world: World, red: Red) -> bool:
    """Asked for by us, or made at the window, told to us, and not kept by two people above the cap."""
    if red.refund_no:
        return True
    return red.money_by == "us_original_route" and _is_told(world, red) and red.red_receipt_no not in world.kept


def _money(world: World) -> Iterator[str]:
    """For every order: taken = booked at the HIS + given back."""
    booked = _booked(world)
    orders = {order["out_trade_no"]: order for order in world.pay.books()["orders"]}
    for number, order in orders.items():
        if order["returning_fen"]:
            yield f"{number}: {order['returning_fen']} fen are still on their way back"
        if order["taken_fen"] != booked.get(number, 0) + order["refunded_fen"]:
            yield (
                f"{number}: taken {order['taken_fen']}, booked at the HIS {booked.get(number, 0)},"
                f" given back {order['refunded_fen']}"
            )
    for number, amount in booked.items():
        if amount and number not in orders:
            yield f"{number}: the HIS has booked {amount} fen for an order that the channel does not know"


def _bills(world: World) -> Iterator[str]:
    """No bill is paid twice."""
    for bill in world.his.bills.values():
        for one in bill.booked:
            if one.returned_fen > one.amount_fen:
                yield f"of bill {bill.bill_id} more was taken back than was booked: {bill.red}"
        if sum(not one.reversed for one in bill.booked) > 1 + sum(red.amount_fen == 0 for red in bill.red):
            yield f"bill {bill.bill_id} has been paid {len(bill.booked)} times: {bill.booked}"
    for number, confirm in world.his.confirms.items():
        if confirm.state != "booked":
            yield f"{number} is {confirm.state} at the HIS"


def _refunds(world: World) -> Iterator[str]:
    """Money goes back only for bills that the HIS would not take."""
    orders = {order["out_trade_no"]: order for order in world.pay.books()["orders"]}
    for order_no, groups in _groups(world).items():
        order = orders.get(order_no)
        asked = sum(line.amount_fen for lines in groups.values() for line in lines)
        if order is None or not order["taken_fen"] or order["taken_fen"] != asked:
            continue  # another amount than was asked goes back whole
        for confirm_no, lines in groups.items():
            bills = [world.his.bills[line.his_bill_id] for line in lines]
            if any(one.order_no == order_no for bill in bills for one in bill.booked):
                continue
            if not any(_not_wanted(world, line, bill, order) for line, bill in zip(lines, bills, strict=True)):
                yield (
                    f"{order_no}: {[bill.bill_id for bill in bills]} were given back although the HIS would take them"
                    f" ({confirm_no} was refused with {world.his.refused.get(confirm_no, 'nothing')})"
                )


def _not_wanted(world: World, line: Line, bill: HisBill, order: dict[str, Any]) -> str:
    """Why the HIS would not book this line, from its own books; empty: it would."""
    if bill.booked:
        return "paid otherwise"
    if bill.cancelled:
        return "cancelled"
    if bill.to_pay_fen != line.amount_fen:
        return "another amount"
    if "BILL_EXPIRED" in world.his.refused.get(line.confirm_no, ()):
        return "expired"
    return ""


def _attempts(world: World) -> Iterator[str]:
    """Two orders for one bill can be paid at the same time only if somebody was told so and went on."""
    lives: defaultdict[str, list[tuple[datetime, datetime, str]]] = defaultdict(list)
    for order_no, groups in _groups(world).items():
        order = world.pay.orders.get((MCHID, order_no))
        if order is not None:
            end = order.paid_at or order.closed_at or order.expires_at
            for line in (line for lines in groups.values() for line in lines):
                lives[line.his_bill_id].append((order.created_at, min(end, order.expires_at), order_no))
    for bill_id, spans in lives.items():
        spans.sort()
        for (_, end, first), (begin, _, second) in pairwise(spans):
            if begin < end and bill_id not in world.knowingly:
                yield f"{first} and {second} could both be paid for {bill_id}, and nobody was asked"


def _proofs(world: World) -> Iterator[str]:
    """What ended a payment is true in the channel's books."""
    for order_no, status, proof in world.postgres.query(
        "SELECT p.order_no, p.status, e.proof_kind FROM payment p JOIN payment_event e ON e.id = p.proof_id"
    ):
        order = world.pay.orders.get((MCHID, order_no))
        if proof in {"never_sent", "absent_after_deadline", "explicit_refusal"} and order is not None:
            yield f"{order_no} is {status} by {proof}, but the channel has it"
        elif world.scheduler.counts["closed orders revived"]:
            continue
        elif status == "closed" and proof == "authenticated_close" and (order is None or order.closed_at is None):
            yield f"{order_no} is closed by {proof}, but not at the channel"
    for order_no, kind, times in world.postgres.query(
        "SELECT p.order_no, e.kind, count(*) FROM payment_event e JOIN payment p ON p.id = e.payment_id"
        " GROUP BY p.order_no, e.payment_id, e.kind, e.source, e.confirmation_id, e.refund_id, e.proves, e.proof_kind,"
        " e.facts HAVING count(*) > 1"
    ):
        yield f"{order_no}: the same statement ({kind}) is recorded {times} times"


def _groups(world: World) -> dict[str, dict[str, list[Line]]]:
    """Which bills each order was for, in the groups that the HIS books as one."""
    found: defaultdict[str, defaultdict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for row in world.postgres.query(
        "SELECT p.order_no, l.confirm_no, l.his_bill_id, l.amount_fen, l.status"
        " FROM payment_line l JOIN payment p ON p.id = l.payment_id ORDER BY p.order_no, l.position"
    ):
        line = Line(*row)
        found[line.order_no][line.confirm_no].append(line)
    return {order_no: dict(groups) for order_no, groups in found.items()}


# ---------------------------------------------------------------- our own rows


def _ledger(world: World) -> Iterator[str]:
    """Transfers add up to what the counterparties' books say."""
    booked, paid_out = _booked(world), _paid_out(world)
    orders = {order["out_trade_no"]: order for order in world.pay.books()["orders"]}
    balances: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for order_no, debit, credit, amount in world.postgres.query(
        "SELECT p.order_no, t.debit, t.credit, t.amount_fen FROM transfer t JOIN payment p ON p.id = t.payment_id"
    ):
        balances[order_no][debit] += amount
        balances[order_no][credit] -= amount
    for order_no, status, paid_fen, refunded_fen, reserved_fen in world.postgres.query(
        "SELECT order_no, status, paid_fen, refunded_fen, refund_reserved_fen FROM payment ORDER BY order_no"
    ):
        order = orders.get(order_no)
        taken, given_back = (order["taken_fen"], order["refunded_fen"]) if order else (0, 0)
        if (paid_fen, refunded_fen, reserved_fen) != (taken, given_back, given_back):
            yield (
                f"{order_no}: our row says paid {paid_fen}, refunded {refunded_fen}, reserved {reserved_fen};"
                f" the channel says {taken} and {given_back}"
            )
        if (status == "paid") != (taken > 0) and not (status == "paid" and order is None):
            yield f"{order_no}: {status}, but the channel has taken {taken} fen"
        cash = paid_out.get(order_no, 0)
        expected = Counter(
            {
                "channel_receivable": taken - given_back,
                "his_confirmed": cash - booked.get(order_no, 0),
                "hospital_cash": -cash,
            }
        )
        found = balances[order_no]
        for account in sorted(expected.keys() | found.keys()):
            if expected[account] != found[account]:
                yield f"{order_no}: the ledger's {account} is {found[account]}, the books say {expected[account]}"
    known = {order_no for (order_no,) in world.postgres.query("SELECT order_no FROM payment")}
    for number in sorted(orders.keys() - known):
        yield f"{number}: an order at the channel that we have no row for"


def _identities(world: World) -> Iterator[str]:
    """What the product itself says of its books: `zhenfu invariants` and `zhenfu ledger verify`."""

    async def look() -> tuple[list[Outcome], Report]:
        connection = await asyncpg.connect(**credentials_of(world.postgres.place.app_dsn))
        try:
            return await check_invariants(connection), await verify_ledger(connection, ledger_key(world.keyring))
        finally:
            await connection.close()

    with ThreadPoolExecutor(max_workers=1) as thread:  # this one's loop has a clock of its own
        outcomes, report = thread.submit(lambda: asyncio.run(look())).result()
    for outcome in outcomes:
        for place in outcome.places:
            yield f"{IDENTITIES[outcome.identity]}: not so at {place}"
    for finding in report.findings:
        yield f"the ledger is not as it was written: {finding}"


def _ours(world: World) -> Iterator[str]:
    """Nothing open, nothing due, no case that no fault explains, no surprise in our own programs."""
    for table in DUE:
        if table == ENDLESS:
            continue
        for row in world.postgres.query(f"SELECT id, status, due_at FROM {table} WHERE due_at IS NOT NULL"):
            yield f"{table} {row[0]} is still due: {row[1]} at {row[2]}"
    ends = {
        "payment": "paid closed failed",
        "payment_line": "confirmed returned void",
        "confirmation": "confirmed rejected",
        "refund": "refunded dead declined",
        "his_lock": "released consumed refused",
        "message": "sent refused unknown skipped",
        "inbound": "worked",
    }
    for table, statuses in ends.items():
        for row in world.postgres.query(
            f"SELECT id, status FROM {table} WHERE NOT status = ANY (%s)", statuses.split()
        ):
            yield f"{table} {row[0]} ended as {row[1]}"
    for kind, subject in _open_cases(world):
        if kind not in CASES_AFTER_STAFF:
            yield f"a case that nobody needs any more: {kind} {subject}"
    for mistake in world.mistakes:
        yield f"an error in our own programs: {mistake}"
    for complaint in world.scheduler.complaints:
        yield f"complaint: {complaint}"
    for event in world.pay.events:
        if event["kind"] == "flawed_notice_accepted":
            yield f"a notice that proves nothing was believed: {event}"


def _messages(world: World) -> Iterator[str]:
    """Nobody is told the same thing twice, and whoever paid is told."""
    written = Counter(
        union
        for (union,) in world.postgres.query("SELECT p.union_lookup FROM message m JOIN payer p ON p.id = m.payer_id")
    )
    for user in world.chat.books()["users"]:
        union = world.keyring.lookup(world.chat.union_id(user["user"]), place="payer.union_id")
        if len(user["messages"]) > written[union]:
            yield f"{user['name']} has got {len(user['messages'])} messages of the {written[union]} that were written"
        numbers = Counter(message["client_msg_id"] for message in user["messages"] if message["client_msg_id"])
        for number, times in numbers.items():
            if times > 1:
                moments = [message["at"] for message in user["messages"] if message["client_msg_id"] == number]
                yield f"{user['name']} was told {times} times about {number}, at {', '.join(moments)}"
    told: Counter[tuple[str, str]] = Counter()
    for order_no, stored in world.postgres.query(
        "SELECT p.order_no, m.values_enc FROM message m JOIN payment p ON p.id = m.payment_id"
        " WHERE starts_with(m.dedup_key, 'told:') AND split_part(m.dedup_key, ':', 3) = ''"  # no second ways
    ):
        values = world.keyring.decrypt_json(stored, place="message.values")
        told.update((order_no, confirm_no) for confirm_no in values["confirm_nos"])
    ended = world.postgres.query(
        "SELECT DISTINCT p.order_no, l.confirm_no FROM payment_line l JOIN payment p ON p.id = l.payment_id"
        " WHERE p.status = 'paid' AND l.status NOT IN ('waiting', 'confirming', 'held')"
    )
    for order_no, confirm_no in ended:
        if told[order_no, confirm_no] != 1:
            yield f"{order_no}: how {confirm_no} has ended was told {told[order_no, confirm_no]} times"
    if strangers := told.keys() - set(ended):
        yield f"told of before their end: {sorted(strangers)}"
