"""Whatever order statements arrive in, and however often, the facts are the same."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.evidence import (
    Evidence,
    Facts,
    StoredEvidence,
    booking_evidence,
    fold,
    never_sent_evidence,
    nothing_to_collect_evidence,
    refund_evidence,
    refusal_evidence,
    rejection_evidence,
    trade_evidence,
)
from core.money import Fen
from core.ports import BillReceipt, Booking, RefundState, RefundTrade, Trade
from core.states import PaymentStatus, ProofKind

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
QUERY = ProofKind.AUTHENTICATED_QUERY


def a_trade(**changes: Any) -> Trade:
    values: dict[str, Any] = {
        "order_no": "P1",
        "exists": True,
        "ever_paid": True,
        "paid_fen": Fen(8650),
        "paid_at": NOON,
        "channel_trade_no": "4200001",
        "refunded_fen": None,
        "closed": False,
        "state_text": "SUCCESS",
        "raw": b"{}",
        **changes,
    }
    return Trade(**values)


def an_unpaid_trade(**changes: Any) -> Trade:
    return a_trade(
        **{
            "ever_paid": False,
            "paid_fen": None,
            "paid_at": None,
            "channel_trade_no": "",
            "state_text": "NOTPAY",
            **changes,
        }
    )


STATEMENTS: list[Evidence] = [
    trade_evidence(an_unpaid_trade(), source="wechatpay", proof=QUERY),
    trade_evidence(an_unpaid_trade(closed=True), source="wechatpay", proof=ProofKind.AUTHENTICATED_CLOSE),
    trade_evidence(an_unpaid_trade(exists=False), source="wechatpay", proof=QUERY, absence_is_proof=True),
    trade_evidence(a_trade(), source="wechatpay", proof=ProofKind.VERIFIED_NOTICE),
    trade_evidence(a_trade(), source="wechatpay", proof=QUERY),
    trade_evidence(a_trade(paid_fen=Fen(8651)), source="wechatpay", proof=QUERY),
    trade_evidence(a_trade(channel_trade_no="4200002"), source="wechatpay", proof=QUERY),
    trade_evidence(a_trade(paid_at=NOON - timedelta(seconds=1)), source="wechatpay", proof=QUERY),
    trade_evidence(a_trade(closed=True, refunded_fen=Fen(8650)), source="wechatpay", proof=QUERY),
    refusal_evidence("P1", source="wechatpay", code="ORDER_CLOSED", message="closed"),
    never_sent_evidence("P1", reason="the channel was not reached"),
]
ENDS = {PaymentStatus.PAID, PaymentStatus.CLOSED, PaymentStatus.FAILED}


def stored(statements: list[Evidence]) -> list[StoredEvidence]:
    """As the database keeps it: each digest once, with an id that grows with its arrival."""
    rows: dict[str, StoredEvidence] = {}
    for number, said in enumerate(statements, 1):
        row = StoredEvidence(id=UUID(int=number), proves=said.proves, proof_kind=said.proof_kind, facts=said.facts)
        rows.setdefault(said.digest, row)
    return list(rows.values())


def what_counts(facts: Facts) -> tuple[object, ...]:
    """Everything but the ids of the proofs, which depend on the order of arrival."""
    return (
        facts.ever_paid,
        facts.paid_fen,
        facts.paid_at,
        facts.channel_trade_no,
        facts.contradicting_amounts,
        facts.status and facts.status[0],
    )


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12), st.randoms(use_true_random=False))
def test_order_and_repetition_of_statements_change_nothing(said: list[Evidence], rng: random.Random) -> None:
    once = list(dict.fromkeys(said_once.digest for said_once in said))
    by_digest = {piece.digest: piece for piece in said}
    again = [by_digest[digest] for digest in once] + rng.choices(said, k=len(said)) if said else []
    rng.shuffle(again)
    assert what_counts(fold(stored(again))) == what_counts(fold(stored(said)))


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12), st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_read_changes_nothing_at_all(said: list[Evidence], rng: random.Random) -> None:
    rows = stored(said)
    shuffled = rng.choices(rows, k=len(rows)) + rows if rows else []
    rng.shuffle(shuffled)
    assert fold(shuffled) == fold(rows)


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12))
def test_the_proof_is_the_first_row_that_proves_the_end(said: list[Evidence]) -> None:
    rows = stored(said)
    end = fold(rows).status
    proofs = {row.proves for row in rows if row.proves in ENDS}
    if end is None:
        assert not proofs
    else:
        strongest = next(status for status in ("paid", "closed", "failed") if status in proofs)
        assert end == (strongest, min(row.id for row in rows if row.proves == strongest))


def test_paid_beats_closed_and_closed_beats_failed() -> None:
    unpaid, closed, _, paid, *_, failed = STATEMENTS
    assert fold(stored([unpaid])).status is None
    assert fold(stored([failed])).status == (PaymentStatus.FAILED, UUID(int=1))
    assert fold(stored([failed, closed])).status == (PaymentStatus.CLOSED, UUID(int=2))
    assert fold(stored([failed, closed, paid])).status == (PaymentStatus.PAID, UUID(int=3))
    assert fold(stored([paid, closed, failed])).status == (PaymentStatus.PAID, UUID(int=1))


def test_amounts_that_contradict_each_other_are_flagged_and_the_larger_counts() -> None:
    facts = fold(stored([STATEMENTS[5], STATEMENTS[3]]))
    assert facts.contradicting_amounts
    assert facts.paid_fen == 8651
    assert not fold(stored([STATEMENTS[3], STATEMENTS[4]])).contradicting_amounts


def test_two_numbers_of_the_channel_contradict_each_other_too() -> None:
    assert fold(stored([STATEMENTS[3], STATEMENTS[6]])).contradicting_amounts


def test_the_earliest_moment_counts_whatever_zone_it_is_told_in() -> None:
    shanghai = timezone(timedelta(hours=8))
    ten_there = a_trade(paid_at=datetime(2026, 5, 6, 10, 0, tzinfo=shanghai))  # 02:00 UTC
    three = a_trade(paid_at=datetime(2026, 5, 6, 3, 0, tzinfo=UTC))
    rows = stored([trade_evidence(trade, source="wechatpay", proof=QUERY) for trade in (three, ten_there)])
    assert fold(rows).paid_at == datetime(2026, 5, 6, 2, 0, tzinfo=UTC)


def test_nothing_said_is_nothing_known() -> None:
    assert fold([]) == Facts()
    assert Facts().status is None


# ---------------------------------------------------------------- what proves what


@pytest.mark.parametrize(
    ("trade", "absence_is_proof", "proves", "kind"),
    [
        (a_trade(), False, "paid", QUERY),
        (a_trade(closed=True), False, "paid", QUERY),  # closed after it was paid, for example by a full refund
        (a_trade(exists=False), True, "paid", QUERY),
        (an_unpaid_trade(closed=True), False, "closed", QUERY),
        (an_unpaid_trade(), False, None, None),
        (an_unpaid_trade(), True, None, None),  # an open order is not an absent one
        (an_unpaid_trade(exists=False), False, None, None),  # too early to be sure
        (an_unpaid_trade(exists=False), True, "closed", ProofKind.ABSENT_AFTER_DEADLINE),
    ],
)
def test_a_trade_proves_only_what_it_says(
    trade: Trade, absence_is_proof: bool, proves: str | None, kind: ProofKind | None
) -> None:
    piece = trade_evidence(trade, source="wechatpay", proof=QUERY, absence_is_proof=absence_is_proof)
    assert (piece.proves, piece.proof_kind) == (proves, kind)
    assert piece.facts["paid_fen"] == (8650 if trade.ever_paid else 0)


def test_an_amount_without_payment_is_not_kept_as_paid() -> None:
    piece = trade_evidence(an_unpaid_trade(paid_fen=Fen(8650)), source="wechatpay", proof=QUERY)
    assert piece.facts["paid_fen"] == 0


@pytest.mark.parametrize(
    ("state", "proves"),
    [
        (RefundState.REFUNDED, "refunded"),
        (RefundState.DEAD, "dead"),
        (RefundState.PROCESSING, None),
        (RefundState.STUCK, None),
        (RefundState.ABSENT, None),
    ],
)
def test_a_refund_is_proven_only_by_its_end(state: RefundState, proves: str | None) -> None:
    refund = RefundTrade(
        refund_no="R1", order_no="P1", state=state, amount_fen=Fen(100), channel_refund_no="50", state_text="X"
    )
    piece = refund_evidence(refund, "P1", source="wechatpay", proof=QUERY)
    assert piece.proves == proves
    assert (piece.proof_kind is None) == (proves is None)
    assert (piece.refund_no, piece.confirm_no) == ("R1", "")


def test_every_state_of_a_refund_is_known_here() -> None:
    assert {state.value for state in RefundState} >= {"refunded", "dead"}
    for state in RefundState:
        refund = RefundTrade(refund_no="R1", order_no="P1", state=state, amount_fen=Fen(100))
        piece = refund_evidence(refund, "P1", source="wechatpay", proof=QUERY)
        assert piece.proves in {None, "refunded", "dead"}


def test_the_other_statements_prove_what_they_are_for() -> None:
    booking = Booking(booked=True, receipts=(BillReceipt(his_bill_id="B1", receipt_no="S1", guide_text="二楼"),))
    booked = booking_evidence("P1", "C1", booking, proof=QUERY)
    assert (booked.proves, booked.proof_kind, booked.confirm_no) == ("confirmed", QUERY, "C1")
    assert booked.facts["receipts"]["B1"]["receipt_no"] == "S1"
    rejected = rejection_evidence("P1", "C1", code="BILL_PAID", message="已缴费")
    assert (rejected.proves, rejected.proof_kind) == ("rejected", ProofKind.EXPLICIT_REFUSAL)
    free = nothing_to_collect_evidence("P1", paid_at=NOON)
    assert (free.proves, free.proof_kind, free.facts["paid_fen"]) == ("paid", ProofKind.NOTHING_TO_COLLECT, 0)
    refused = refusal_evidence("P1", source="wechatpay", code="X", message="")
    assert (refused.proves, refused.proof_kind) == ("failed", ProofKind.EXPLICIT_REFUSAL)
    never = never_sent_evidence("P1", reason="")
    assert (never.proves, never.proof_kind, never.source) == ("failed", ProofKind.NEVER_SENT, "ourselves")


# ---------------------------------------------------------------- digests


def test_the_same_statement_has_one_digest_whatever_bytes_it_came_in() -> None:
    one = trade_evidence(a_trade(raw=b"one"), source="wechatpay", proof=QUERY)
    two = trade_evidence(a_trade(raw=b"two"), source="wechatpay", proof=QUERY)
    assert one.digest == two.digest
    assert len(one.digest) == 64


def test_a_different_statement_has_another_digest() -> None:
    pieces = [
        *STATEMENTS,
        trade_evidence(a_trade(), source="alipay", proof=QUERY),
        trade_evidence(a_trade(state_text="REFUND"), source="wechatpay", proof=QUERY),
        rejection_evidence("P1", "C1", code="X", message=""),
        rejection_evidence("P1", "C2", code="X", message=""),
    ]
    assert len({piece.digest for piece in pieces}) == len(pieces)


def test_a_statement_does_not_show_its_raw_bytes() -> None:
    assert "secret" not in repr(trade_evidence(a_trade(raw=b"secret"), source="wechatpay", proof=QUERY))
