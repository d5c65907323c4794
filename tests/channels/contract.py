"""The promises of Channel. A new adapter subclasses ChannelContract and supplies three fixtures.

`channel` is the adapter, `account` its merchant account, `counterparty` a Counterparty: what a test can do at
the other side. Nothing here knows a channel's name, fields or codes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

import pytest

from core.clock import Clock
from core.errors import CounterpartyError, NotReached, OutcomeUnknown, Refused
from core.money import Fen
from core.ports import (
    Channel,
    MerchantAccount,
    Notice,
    PayParams,
    RefundOrder,
    RefundState,
    Trade,
    TradeOrder,
    Unverified,
)
from wire.http import HttpRequest

TOTAL = Fen(12_34)
PART = Fen(2_00)


class Trouble(StrEnum):
    """What can go wrong with the next call (or notice), in words that fit every channel."""

    NOT_REACHED = "not_reached"
    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    ERROR_PAGE_UNDONE = "error_page_undone"
    ERROR_PAGE_DONE = "error_page_done"
    SYSTEM_ERROR_UNDONE = "system_error_undone"
    SYSTEM_ERROR_DONE = "system_error_done"
    ANSWER_CUT_OFF = "answer_cut_off"
    ANSWER_UNSIGNED = "answer_unsigned"
    ANSWER_BY_STRANGER = "answer_by_stranger"
    ANSWER_PROBE = "answer_probe"  # a deliberately wrong signature of the channel itself
    ANSWER_OLD = "answer_old"
    ANSWER_UNKNOWN_KEY = "answer_unknown_key"
    TOO_OFTEN = "too_often"
    TOO_OFTEN_YET_DONE = "too_often_yet_done"
    STRANGE_TRADE_WORD = "strange_trade_word"
    STRANGE_REFUND_WORD = "strange_refund_word"
    PAID_WHILE_CLOSING = "paid_while_closing"
    QUERY_LAGS = "query_lags"
    REFUND_STUCK = "refund_stuck"
    REFUND_DEAD = "refund_dead"
    NO_BALANCE = "no_balance"
    NOTICE_TWICE = "notice_twice"


UNBELIEVABLE = (
    Trouble.ANSWER_CUT_OFF,
    Trouble.ANSWER_UNSIGNED,
    Trouble.ANSWER_BY_STRANGER,
    Trouble.ANSWER_PROBE,
    Trouble.ANSWER_OLD,
    Trouble.ANSWER_UNKNOWN_KEY,
)


class Spoiling(StrEnum):
    """How a genuine notice is spoilt before we read it."""

    BODY_ALTERED = "body_altered"
    SIGNED_BY_STRANGER = "signed_by_stranger"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_PROBE = "signature_probe"
    UNKNOWN_KEY = "unknown_key"
    OTHER_CONTENT_SEALED_WRONG = "other_content_sealed_wrong"  # signed, but its inside is not encrypted for us
    OLDER_PROTOCOL = "older_protocol"


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A notice as it arrived."""

    headers: Mapping[str, str]
    body: bytes


class Counterparty(Protocol):
    """What a test can do at the other side of an adapter."""

    @property
    def clock(self) -> Clock: ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must never be seen outside the account's params."""
        ...

    def an_order(self, order_no: str, instrument: str = "") -> TradeOrder:
        """A correct order over TOTAL that lives five minutes, with this instrument or the usual one."""
        ...

    def a_hopeless_order(self, order_no: str) -> TradeOrder:
        """One that the channel refuses with a code of the closed list."""
        ...

    def let(self, trouble: Trouble, key: str | None = None) -> None:
        """It strikes the next call that it can strike (of this order or refund number)."""
        ...

    def refuse_next(self, *, status: int, code: str, after: int = 0) -> None:
        """The call after the next `after` ones meets an error in the channel's own format, unsigned."""
        ...

    def say_next(self, **changes: object) -> None:
        """The next answer is changed (None drops a value) and signed again; names as in core.ports."""
        ...

    async def pay(self, params: PayParams) -> bool:
        """The payer opens what was given and pays; whether money moved."""
        ...

    def pass_time(self, by: timedelta) -> None: ...

    async def notices(self, *, accepted: bool = True) -> list[Letter]:
        """Take delivery of everything that is due, answered with the adapter's own acknowledgement."""
        ...

    def spoil(self, letter: Letter, how: Spoiling) -> Letter: ...

    def taken_fen(self, order_no: str) -> int:
        """What the books say was taken for this order; 0 when there is none."""
        ...

    def given_back_fen(self, order_no: str) -> int:
        """What the books say is on its way back or has arrived."""
        ...

    def orders(self) -> list[str]: ...

    def requests(self) -> list[HttpRequest]:
        """All that the adapter has sent."""
        ...

    def stranger(self) -> MerchantAccount:
        """Another merchant of the same channel, who reads notices with the same verification keys."""
        ...

    def new_key(self, account: MerchantAccount) -> MerchantAccount:
        """The channel signs with a new key from now on; the account with the new one beside the old one."""
        ...

    def one_key_accounts(self) -> tuple[MerchantAccount, MerchantAccount]:
        """The account with the first kind of verification key alone, and with the second kind alone."""
        ...

    def sign_with(self, kind: int) -> None:
        """The channel signs its notices with the first (0) or second (1) kind of key from now on."""
        ...


class ChannelContract:
    """At least these promises hold for every channel."""

    # ---------------------------------------------------------------- placing an order

    async def test_what_the_payer_is_given_pays_the_order(self, channel, account, counterparty):
        """Every instrument that the channel declares."""
        for number, instrument in enumerate(sorted(channel.capabilities.instruments)):
            order = counterparty.an_order(f"PINSTRUMENT{number}", instrument)
            params = await channel.create(account, order)
            assert await counterparty.pay(params), instrument
            assert counterparty.taken_fen(order.order_no) == TOTAL

    async def test_the_same_order_number_twice_is_one_trade(self, channel, account, counterparty):
        order = counterparty.an_order("PTWICE1")
        await channel.create(account, order)
        params = await channel.create(account, order)
        assert await counterparty.pay(params)
        assert counterparty.orders() == ["PTWICE1"]
        assert counterparty.taken_fen("PTWICE1") == TOTAL

    async def test_the_same_order_is_the_same_bytes_however_late(self, channel, account, counterparty):
        order = counterparty.an_order("PBYTES1")
        await channel.create(account, order)
        counterparty.pass_time(timedelta(seconds=77))
        await channel.create(account, replace(order))
        first, second = counterparty.requests()[-2:]
        assert (first.method, first.url, first.body) == (second.method, second.url, second.body)

    async def test_other_content_under_the_same_number_is_refused(self, channel, account, counterparty):
        order = counterparty.an_order("POTHER1")
        params = await channel.create(account, order)
        with pytest.raises(Refused) as refused:
            await channel.create(account, replace(order, amount_fen=Fen(TOTAL + 1)))
        assert not refused.value.final, "an order stands under this number"
        assert await counterparty.pay(params)
        assert counterparty.taken_fen("POTHER1") == TOTAL

    async def test_a_lost_answer_is_unknown_and_a_query_settles_it(self, channel, account, counterparty):
        counterparty.let(Trouble.ANSWER_LOST)
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, counterparty.an_order("PLOST01"))
        trade = await channel.query(account, "PLOST01")
        assert trade.exists
        assert not trade.ever_paid
        assert not trade.closed

    async def test_a_lost_request_is_unknown_and_the_same_order_settles_it(self, channel, account, counterparty):
        order = counterparty.an_order("PLOST02")
        counterparty.let(Trouble.REQUEST_LOST)
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, order)
        assert not (await channel.query(account, "PLOST02")).exists
        assert await counterparty.pay(await channel.create(account, order))

    async def test_not_reached_is_not_unknown(self, channel, account, counterparty):
        counterparty.let(Trouble.NOT_REACHED)
        with pytest.raises(NotReached):
            await channel.create(account, counterparty.an_order("PNOWHERE"))
        assert counterparty.orders() == []

    @pytest.mark.parametrize("trouble", [Trouble.ERROR_PAGE_DONE, Trouble.SYSTEM_ERROR_DONE])
    async def test_an_error_of_theirs_is_unknown_and_a_query_settles_it(self, channel, account, counterparty, trouble):
        counterparty.let(trouble)
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, counterparty.an_order("PERROR1"))
        assert (await channel.query(account, "PERROR1")).exists

    @pytest.mark.parametrize("trouble", [Trouble.ERROR_PAGE_UNDONE, Trouble.SYSTEM_ERROR_UNDONE])
    async def test_an_error_of_theirs_is_unknown_though_nothing_happened(self, channel, account, counterparty, trouble):
        counterparty.let(trouble)
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, counterparty.an_order("PERROR2"))
        assert not (await channel.query(account, "PERROR2")).exists

    async def test_a_listed_refusal_is_final_and_nothing_stands(self, channel, account, counterparty):
        with pytest.raises(Refused) as refused:
            await channel.create(account, counterparty.a_hopeless_order("PHOPELESS"))
        assert refused.value.final
        assert refused.value.code
        assert counterparty.orders() == []

    @pytest.mark.parametrize("status", [400, 403, 404])
    async def test_a_code_that_nobody_knows_proves_nothing(self, channel, account, counterparty, status):
        counterparty.refuse_next(status=status, code="A_CODE_OF_NEXT_YEAR")
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, counterparty.an_order("PNEWCODE"))

    async def test_too_often_is_not_final(self, channel, account, counterparty):
        order = counterparty.an_order("POFTEN1")
        counterparty.let(Trouble.TOO_OFTEN)
        with pytest.raises(CounterpartyError) as raised:
            await channel.create(account, order)
        assert not (isinstance(raised.value, Refused) and raised.value.final)
        assert not isinstance(raised.value, NotReached)
        assert await counterparty.pay(await channel.create(account, order))

    @pytest.mark.parametrize("trouble", UNBELIEVABLE)
    async def test_a_success_without_a_good_signature_is_never_believed(self, channel, account, counterparty, trouble):
        counterparty.let(trouble)
        with pytest.raises(OutcomeUnknown):
            await channel.create(account, counterparty.an_order("PFORGED"))

    async def test_an_expired_order_cannot_be_paid(self, channel, account, counterparty):
        order = counterparty.an_order("PEXPIRED")
        params = await channel.create(account, order)
        counterparty.pass_time(order.expires_at - counterparty.clock.now())
        assert not await counterparty.pay(params)
        assert counterparty.taken_fen("PEXPIRED") == 0
        assert (await channel.close(account, "PEXPIRED")).closed

    # ---------------------------------------------------------------- asking

    async def test_an_order_that_was_never_placed_does_not_exist(self, channel, account, counterparty):
        trade = await channel.query(account, "PNEVER01")
        assert trade.order_no == "PNEVER01"
        assert not trade.exists
        assert not trade.ever_paid
        assert not trade.closed

    async def test_an_unpaid_order_is_neither_paid_nor_closed(self, channel, account, counterparty):
        await channel.create(account, counterparty.an_order("PUNPAID"))
        trade = await channel.query(account, "PUNPAID")
        assert trade.exists
        assert (trade.ever_paid, trade.closed, trade.paid_fen, trade.channel_trade_no) == (
            False,
            False,
            0,
            "",
        )
        assert trade.paid_at is None

    async def test_a_paid_order_says_how_much_when_and_under_which_number(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PPAID01")
        assert trade.ever_paid
        assert not trade.closed
        assert trade.paid_fen == TOTAL
        assert trade.channel_trade_no
        assert trade.paid_at is not None
        assert abs(counterparty.clock.now() - trade.paid_at) < timedelta(seconds=2)
        assert trade.raw

    async def test_a_word_that_nobody_knows_moves_nothing(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PWORD01")
        counterparty.let(Trouble.STRANGE_TRADE_WORD)
        trade = await channel.query(account, "PWORD01")
        assert trade.exists
        assert not trade.ever_paid
        assert not trade.closed
        assert trade.state_text
        assert (await channel.query(account, "PWORD01")).ever_paid

    @pytest.mark.parametrize("trouble", UNBELIEVABLE)
    async def test_a_payment_is_never_believed_without_a_good_signature(self, channel, account, counterparty, trouble):
        await self._paid(channel, account, counterparty, "PFORGED2")
        counterparty.let(trouble)
        with pytest.raises(OutcomeUnknown):
            await channel.query(account, "PFORGED2")

    async def test_a_refused_question_is_never_final(self, channel, account, counterparty):
        for status, code in ((400, "A_CODE_OF_NEXT_YEAR"), (404, "A_CODE_OF_NEXT_YEAR")):
            counterparty.refuse_next(status=status, code=code)
            with pytest.raises((Refused, OutcomeUnknown)) as raised:
                await channel.query(account, "PASKED01")
            assert not (isinstance(raised.value, Refused) and raised.value.final)

    async def test_an_answer_about_another_order_is_not_ours(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PMIXED1")
        counterparty.say_next(order_no="PMIXED2")
        with pytest.raises(OutcomeUnknown, match="not ours"):
            await channel.query(account, "PMIXED1")

    async def test_an_answer_about_another_merchant_is_not_ours(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PMIXED3")
        counterparty.say_next(merchant_no="1999999999")
        with pytest.raises(OutcomeUnknown, match="not ours"):
            await channel.query(account, "PMIXED3")

    async def test_a_wrong_amount_is_reported_as_the_channel_says_it(self, channel, account, counterparty):
        """Whether it is wrong is for the core to see: money that came is money that came."""
        await self._paid(channel, account, counterparty, "PWRONG1")
        counterparty.say_next(paid_fen=TOTAL - 1)
        trade = await channel.query(account, "PWRONG1")
        assert trade.ever_paid
        assert trade.paid_fen == TOTAL - 1

    @pytest.mark.parametrize("missing", ["channel_trade_no", "paid_at", "paid_fen"])
    async def test_a_word_without_the_facts_of_a_payment_is_no_payment(self, channel, account, counterparty, missing):
        await self._paid(channel, account, counterparty, "PWORD02")
        counterparty.say_next(**{missing: None})
        try:
            trade = await channel.query(account, "PWORD02")
        except OutcomeUnknown:
            return
        assert not trade.ever_paid

    # ---------------------------------------------------------------- closing

    async def test_closing_an_unpaid_order_is_proof(self, channel, account, counterparty):
        params = await channel.create(account, counterparty.an_order("PCLOSE1"))
        trade = await channel.close(account, "PCLOSE1")
        assert trade.closed
        assert not trade.ever_paid
        assert not await counterparty.pay(params)
        assert counterparty.taken_fen("PCLOSE1") == 0

    async def test_closing_twice_is_closing_once(self, channel, account, counterparty):
        await channel.create(account, counterparty.an_order("PCLOSE2"))
        assert (await channel.close(account, "PCLOSE2")).closed
        assert (await channel.close(account, "PCLOSE2")).closed

    async def test_closing_a_paid_order_reports_it_paid(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PCLOSE3")
        trade = await channel.close(account, "PCLOSE3")
        assert trade.ever_paid
        assert trade.paid_fen == TOTAL
        assert not trade.closed

    async def test_paid_while_being_closed_is_reported_as_paid(self, channel, account, counterparty):
        await channel.create(account, counterparty.an_order("PCLOSE4"))
        counterparty.let(Trouble.PAID_WHILE_CLOSING)
        trade = await channel.close(account, "PCLOSE4")
        assert trade.ever_paid
        assert not trade.closed
        assert counterparty.taken_fen("PCLOSE4") == TOTAL

    async def test_a_close_whose_answer_is_lost_is_settled_by_the_last_query(self, channel, account, counterparty):
        await channel.create(account, counterparty.an_order("PCLOSE5"))
        counterparty.let(Trouble.SYSTEM_ERROR_DONE, "PCLOSE5")
        assert (await channel.close(account, "PCLOSE5")).closed

    async def test_a_close_that_did_not_happen_is_not_claimed(self, channel, account, counterparty):
        params = await channel.create(account, counterparty.an_order("PCLOSE6"))
        counterparty.refuse_next(status=403, code="A_CODE_OF_NEXT_YEAR", after=1)
        with pytest.raises((Refused, OutcomeUnknown)) as raised:
            await channel.close(account, "PCLOSE6")
        assert not (isinstance(raised.value, Refused) and raised.value.final)
        assert not (await channel.query(account, "PCLOSE6")).closed
        assert await counterparty.pay(params)

    async def test_closing_what_was_never_placed_closes_nothing(self, channel, account, counterparty):
        """A request of ours that is still under way could yet arrive."""
        trade = await channel.close(account, "PCLOSE7")
        assert not trade.exists
        assert not trade.closed

    # ---------------------------------------------------------------- refunds

    async def test_a_refund_is_accepted_and_then_arrives(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND1")
        asked = await channel.refund(account, a_refund("R1", trade, TOTAL))
        assert asked.state in (RefundState.PROCESSING, RefundState.REFUNDED)
        assert (asked.refund_no, asked.order_no, asked.amount_fen) == ("R1", "PREFUND1", TOTAL)
        counterparty.pass_time(timedelta(minutes=10))
        arrived = await channel.query_refund(account, "R1")
        assert arrived.state is RefundState.REFUNDED
        assert arrived.refunded_at is not None
        assert (arrived.refund_no, arrived.order_no, arrived.amount_fen) == ("R1", "PREFUND1", TOTAL)
        assert arrived.channel_refund_no

    async def test_a_refund_twice_with_one_number_is_one_refund(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND2")
        await channel.refund(account, a_refund("R2", trade, PART))
        counterparty.pass_time(timedelta(minutes=10))
        again = await channel.refund(account, a_refund("R2", trade, PART))
        assert again.state is RefundState.REFUNDED
        assert counterparty.given_back_fen("PREFUND2") == PART

    async def test_a_refund_above_the_rest_is_refused(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND3")
        await channel.refund(account, a_refund("R3", trade, PART))
        counterparty.pass_time(timedelta(minutes=10))
        with pytest.raises(Refused):
            await channel.refund(account, a_refund("R4", trade, TOTAL))
        assert counterparty.given_back_fen("PREFUND3") == PART
        assert (await channel.query_refund(account, "R4")).state is RefundState.ABSENT

    async def test_a_partial_refund_leaves_the_order_paid(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND4")
        await channel.refund(account, a_refund("R5", trade, PART))
        counterparty.pass_time(timedelta(minutes=10))
        after = await channel.query(account, "PREFUND4")
        assert after.ever_paid
        assert not after.closed
        assert after.paid_fen == TOTAL
        assert after.channel_trade_no == trade.channel_trade_no
        assert after.refunded_fen in (None, PART)

    async def test_a_full_refund_leaves_the_order_paid_not_closed(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND5")
        await channel.refund(account, a_refund("R6", trade, TOTAL))
        counterparty.pass_time(timedelta(minutes=10))
        after = await channel.close(account, "PREFUND5")
        assert after.ever_paid
        assert not after.closed

    async def test_a_lost_refund_answer_is_unknown_and_a_query_settles_it(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND6")
        counterparty.let(Trouble.ANSWER_LOST)
        with pytest.raises(OutcomeUnknown):
            await channel.refund(account, a_refund("R7", trade, PART))
        assert (await channel.query_refund(account, "R7")).state is not RefundState.ABSENT
        assert counterparty.given_back_fen("PREFUND6") == PART

    async def test_a_lost_refund_request_is_absent_and_is_sent_again_as_the_same_bytes(
        self, channel, account, counterparty
    ):
        trade = await self._paid(channel, account, counterparty, "PREFUND7")
        counterparty.let(Trouble.REQUEST_LOST)
        with pytest.raises(OutcomeUnknown):
            await channel.refund(account, a_refund("R8", trade, PART))
        lost = counterparty.requests()[-1]
        assert (await channel.query_refund(account, "R8")).state is RefundState.ABSENT
        counterparty.pass_time(timedelta(minutes=2))
        await channel.refund(account, a_refund("R8", trade, PART))
        assert counterparty.requests()[-1].body == lost.body
        assert counterparty.given_back_fen("PREFUND7") == PART

    @pytest.mark.parametrize("trouble", [Trouble.TOO_OFTEN_YET_DONE, Trouble.SYSTEM_ERROR_DONE])
    async def test_a_refund_may_have_been_accepted_whatever_the_error_says(
        self, channel, account, counterparty, trouble
    ):
        trade = await self._paid(channel, account, counterparty, "PREFUND8")
        counterparty.let(trouble)
        with pytest.raises(OutcomeUnknown):
            await channel.refund(account, a_refund("R9", trade, PART))
        assert (await channel.query_refund(account, "R9")).state is not RefundState.ABSENT
        assert counterparty.given_back_fen("PREFUND8") == PART

    @pytest.mark.parametrize("status", [400, 403, 404, 429])
    async def test_a_refund_refused_with_a_code_that_nobody_knows_is_unknown(
        self, channel, account, counterparty, status
    ):
        trade = await self._paid(channel, account, counterparty, "PREFUND9")
        counterparty.refuse_next(status=status, code="A_CODE_OF_NEXT_YEAR")
        with pytest.raises(OutcomeUnknown):
            await channel.refund(account, a_refund("R10", trade, PART))

    async def test_a_refund_that_only_waits_for_money_is_not_over(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND10")
        counterparty.let(Trouble.NO_BALANCE)
        with pytest.raises(Refused) as refused:
            await channel.refund(account, a_refund("R11", trade, PART))
        assert not refused.value.final
        counterparty.pass_time(timedelta(minutes=2))
        await channel.refund(account, a_refund("R11", trade, PART))
        assert counterparty.given_back_fen("PREFUND10") == PART

    async def test_an_unpaid_order_gives_nothing_back(self, channel, account, counterparty):
        await channel.create(account, counterparty.an_order("PREFUND11"))
        trade = await channel.query(account, "PREFUND11")
        with pytest.raises((Refused, OutcomeUnknown)):
            await channel.refund(account, a_refund("R12", trade, PART))
        assert counterparty.given_back_fen("PREFUND11") == 0

    @pytest.mark.parametrize(
        ("trouble", "state"),
        [(Trouble.REFUND_STUCK, RefundState.STUCK), (Trouble.REFUND_DEAD, RefundState.DEAD)],
    )
    async def test_a_refund_that_goes_wrong_says_so(self, channel, account, counterparty, trouble, state):
        trade = await self._paid(channel, account, counterparty, "PREFUND12")
        counterparty.let(trouble)
        await channel.refund(account, a_refund("R13", trade, PART))
        counterparty.pass_time(timedelta(minutes=10))
        refund = await channel.query_refund(account, "R13")
        assert refund.state is state
        assert refund.refunded_at is None

    async def test_a_refund_word_that_nobody_knows_moves_nothing(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PREFUND13")
        await channel.refund(account, a_refund("R14", trade, PART))
        counterparty.pass_time(timedelta(minutes=10))
        counterparty.let(Trouble.STRANGE_REFUND_WORD)
        assert (await channel.query_refund(account, "R14")).state is RefundState.UNKNOWN

    @pytest.mark.parametrize("change", [{"refund_fen": 1}, {"order_no": "PMIXED4"}, {"total_fen": 1}])
    async def test_a_refund_answer_that_is_not_what_we_asked_is_unknown(self, channel, account, counterparty, change):
        trade = await self._paid(channel, account, counterparty, "PREFUND14")
        counterparty.say_next(**change)
        with pytest.raises(OutcomeUnknown, match=r"not ours|we asked for"):
            await channel.refund(account, a_refund("R15", trade, PART))

    async def test_a_refund_nobody_asked_for_is_absent(self, channel, account, counterparty):
        refund = await channel.query_refund(account, "RNEVER")
        assert (refund.refund_no, refund.state) == ("RNEVER", RefundState.ABSENT)

    # ---------------------------------------------------------------- notices

    async def test_a_notice_says_what_a_query_says(self, channel, account, counterparty):
        asked = await self._paid(channel, account, counterparty, "PNOTICE1")
        trade = (await self._notice(channel, account, counterparty)).trade
        assert trade is not None
        assert trade.ever_paid
        assert (trade.order_no, trade.paid_fen, trade.paid_at, trade.channel_trade_no) == (
            asked.order_no,
            asked.paid_fen,
            asked.paid_at,
            asked.channel_trade_no,
        )

    async def test_a_refund_notice_says_what_a_query_says(self, channel, account, counterparty):
        trade = await self._paid(channel, account, counterparty, "PNOTICE2")
        counterparty.pass_time(timedelta(minutes=1))
        await counterparty.notices()
        await channel.refund(account, a_refund("R16", trade, PART))
        notice = await self._notice(channel, account, counterparty)
        asked = await channel.query_refund(account, "R16")
        assert notice.kind == "refund"
        assert notice.refund is not None
        assert notice.refund.state is RefundState.REFUNDED
        assert (notice.refund.refund_no, notice.refund.order_no, notice.refund.amount_fen) == (
            asked.refund_no,
            asked.order_no,
            asked.amount_fen,
        )
        assert notice.refund.refunded_at == asked.refunded_at

    async def test_a_notice_that_comes_twice_says_the_same(self, channel, account, counterparty):
        counterparty.let(Trouble.NOTICE_TWICE)
        await self._paid(channel, account, counterparty, "PNOTICE3")
        counterparty.pass_time(timedelta(minutes=5))
        notices = [
            await channel.read_notice(account, letter.headers, letter.body) for letter in await counterparty.notices()
        ]
        assert len(notices) >= 2
        assert {notice.trade for notice in notices} == {notices[0].trade}

    @pytest.mark.parametrize("how", list(Spoiling))
    async def test_a_notice_that_is_not_genuine_is_unverified(self, channel, account, counterparty, how):
        await self._paid(channel, account, counterparty, "PNOTICE4")
        letter = await self._letter(counterparty)
        sent = len(counterparty.requests())
        spoilt = counterparty.spoil(letter, how)
        read = await channel.read_notice(account, spoilt.headers, spoilt.body)
        assert isinstance(read, Unverified)
        assert read.reason
        assert len(counterparty.requests()) == sent, "a notice never makes us call anybody"

    async def test_an_old_notice_played_again_is_unverified(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PNOTICE5")
        letter = await self._letter(counterparty)
        counterparty.pass_time(timedelta(seconds=290))
        assert isinstance(await channel.read_notice(account, letter.headers, letter.body), Notice)
        counterparty.pass_time(timedelta(seconds=20))
        assert isinstance(await channel.read_notice(account, letter.headers, letter.body), Unverified)

    async def test_another_merchants_notice_is_unverified(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PNOTICE6")
        letter = await self._letter(counterparty)
        read = await channel.read_notice(counterparty.stranger(), letter.headers, letter.body)
        assert isinstance(read, Unverified)

    async def test_a_notice_with_a_wrong_amount_is_reported_as_it_is(self, channel, account, counterparty):
        """Like a query: the core decides. Here the order itself was placed over another amount."""
        order = replace(counterparty.an_order("PNOTICE7"), amount_fen=Fen(TOTAL + 5))
        assert await counterparty.pay(await channel.create(account, order))
        notice = await self._notice(channel, account, counterparty)
        assert notice.trade is not None
        assert notice.trade.paid_fen == TOTAL + 5

    async def test_a_notice_not_accepted_comes_again_and_an_accepted_one_does_not(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PNOTICE8")
        counterparty.pass_time(timedelta(minutes=1))
        assert len(await counterparty.notices(accepted=False)) == 1
        counterparty.pass_time(timedelta(minutes=5))
        assert len(await counterparty.notices(accepted=True)) == 1
        counterparty.pass_time(timedelta(hours=24))
        assert await counterparty.notices(accepted=True) == []

    # ---------------------------------------------------------------- keys and secrets

    async def test_a_new_key_works_beside_the_old_one_and_the_old_one_goes(self, channel, account, counterparty):
        await self._paid(channel, account, counterparty, "PKEY01")
        old = await self._letter(counterparty)
        both = counterparty.new_key(account)
        await self._paid(channel, both, counterparty, "PKEY02")
        new = await self._letter(counterparty)
        assert isinstance(await channel.read_notice(account, new.headers, new.body), Unverified)
        for letter in (old, new):
            assert isinstance(await channel.read_notice(both, letter.headers, letter.body), Notice)
        assert isinstance(await channel.read_notice(account, old.headers, old.body), Notice)

    async def test_one_kind_of_key_gives_way_to_the_other_and_back(self, channel, account, counterparty):
        """`account` holds both kinds all the time and never stops reading."""
        accounts = counterparty.one_key_accounts()
        for step, kind in enumerate((0, 1, 0)):
            counterparty.sign_with(kind)
            await self._paid(channel, accounts[kind], counterparty, f"PKIND0{step}")
            letter = await self._letter(counterparty)
            assert isinstance(await channel.read_notice(account, letter.headers, letter.body), Notice)
            own = await channel.read_notice(accounts[kind], letter.headers, letter.body)
            assert isinstance(own, Notice)
            other = await channel.read_notice(accounts[1 - kind], letter.headers, letter.body)
            assert isinstance(other, Unverified)

    async def test_the_check_proves_the_way_there_and_back(self, channel, account, counterparty):
        line = await channel.check(account)
        assert line
        assert "\n" not in line
        assert counterparty.orders() == []
        counterparty.pass_time(timedelta(minutes=1))
        for letter in await counterparty.notices():
            notice = await channel.read_notice(account, letter.headers, letter.body)
            assert isinstance(notice, Notice)
            assert (notice.kind, notice.trade, notice.refund) == ("probe", None, None)

    async def test_the_check_fails_when_answers_cannot_be_believed(self, channel, account, counterparty):
        counterparty.let(Trouble.ANSWER_BY_STRANGER)
        with pytest.raises(CounterpartyError):
            await channel.check(account)

    async def test_nothing_secret_is_logged_or_shown(self, channel, account, counterparty, caplog):
        caplog.set_level(logging.DEBUG)
        order = counterparty.an_order("PSECRET")
        seen = [await channel.create(account, order), order, account, channel]
        assert await counterparty.pay(seen[0])
        trade = await channel.query(account, "PSECRET")
        seen += [trade, await channel.refund(account, a_refund("R17", trade, PART))]
        counterparty.pass_time(timedelta(minutes=5))
        for letter in await counterparty.notices():
            seen.append(await channel.read_notice(account, letter.headers, letter.body))
        for trouble in (*UNBELIEVABLE, Trouble.TOO_OFTEN, Trouble.SYSTEM_ERROR_UNDONE, Trouble.NOT_REACHED):
            counterparty.let(trouble)
            with pytest.raises(CounterpartyError) as raised:
                await channel.query(account, "PSECRET")
            seen.append(raised.value)
        seen.extend(counterparty.requests())
        seen.extend(inside(channel))
        shown = repr(seen) + "".join(str(value) for value in seen)
        logged = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
        for secret in counterparty.secrets:
            assert secret not in shown
            assert secret not in logged

    # ---------------------------------------------------------------- the way there

    async def _paid(
        self, channel: Channel, account: MerchantAccount, counterparty: Counterparty, order_no: str
    ) -> Trade:
        params = await channel.create(account, counterparty.an_order(order_no))
        assert await counterparty.pay(params)
        return await channel.query(account, order_no)

    async def _letter(self, counterparty: Counterparty) -> Letter:
        """The one notice that is under way."""
        counterparty.pass_time(timedelta(minutes=1))
        (letter,) = await counterparty.notices()
        return letter

    async def _notice(self, channel: Channel, account: MerchantAccount, counterparty: Counterparty) -> Notice:
        letter = await self._letter(counterparty)
        notice = await channel.read_notice(account, letter.headers, letter.body)
        assert isinstance(notice, Notice)
        assert notice.notice_id
        return notice


def inside(value: object, depth: int = 6) -> list[object]:
    """The objects of ours that this one holds, and what those hold: a crash report shows them."""
    names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
    held: list[object] = [getattr(value, name) for name in names if hasattr(value, name)]
    if isinstance(value, Mapping):
        held = list(value.values())
    ours = [part for part in held if type(part).__module__.partition(".")[0] in ("channels", "wire", "core")]
    mappings = [part for part in held if isinstance(part, dict)]
    deeper = [found for part in (*ours, *mappings) for found in inside(part, depth - 1)] if depth else []
    return [*ours, *deeper]


def a_refund(refund_no: str, trade: Trade, amount_fen: Fen) -> RefundOrder:
    return RefundOrder(
        refund_no=refund_no,
        order_no=trade.order_no,
        channel_trade_no=trade.channel_trade_no,
        amount_fen=amount_fen,
        total_fen=TOTAL,
        reason="医生取消了处方",
    )
