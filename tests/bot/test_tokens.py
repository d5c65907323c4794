"""Access tokens: one per app, whoever asks, whatever the store forgets, and nothing of them in a log."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from datetime import timedelta
from typing import Any

import pytest

from bot.wechat.tokens import FORCED_SPACING, AccessTokens, _key
from core.errors import NotReached, OutcomeUnknown, Refused
from core.memory import MemoryTokenStore
from core.ports import SendOutcome
from simulators.kit import create_app
from tests.support.transports import WatchedTransport
from tests.support.wechat import PHONE, WechatOfTests
from wire.http import HttpClient, HttpReply, HttpRequest

SEND = "/cgi-bin/message/template/send"


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


class ForgetfulStore(MemoryTokenStore):
    """Loses everything before every third operation or so."""

    def __init__(self, world: WechatOfTests, seed: int) -> None:
        super().__init__(clock=world.clock)
        self._random = random.Random(seed)

    async def _maybe_forget(self) -> None:
        await asyncio.sleep(0)
        if self._random.random() < 0.3:
            self.forget()

    async def get(self, key: str) -> str | None:
        await self._maybe_forget()
        return await super().get(key)

    async def set(self, key: str, value: str, *, life: timedelta) -> None:
        await self._maybe_forget()
        await super().set(key, value, life=life)

    async def acquire(self, key: str, owner: str, *, life: timedelta) -> bool:
        await self._maybe_forget()
        return await super().acquire(key, owner, life=life)

    async def release(self, key: str, owner: str) -> None:
        await self._maybe_forget()
        await super().release(key, owner)


def stable_calls(world: WechatOfTests) -> int:
    return world.simulator.calls["stable_token"]


async def test_fifty_messages_at_once_ask_for_one_token_over_loopback(serve: Any) -> None:
    world = WechatOfTests()
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        adapters = world.wire(http)
        account = world.account(world.official)
        results = await asyncio.gather(
            *(adapters.template.send(account, world.message(world.official, number=number)) for number in range(1, 51))
        )
    assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}
    assert stable_calls(world) == 1
    assert len(world.simulator.inbox(world.open_id(world.official))) == 50


async def test_two_processes_share_one_token_through_the_store(world: WechatOfTests) -> None:
    store = MemoryTokenStore(clock=world.clock)
    one, other = (world.wire(world.transport(), store).tokens for _ in range(2))
    account = world.account(world.official)
    assert len(set(await asyncio.gather(one.get(account), other.get(account)))) == 1
    assert stable_calls(world) == 1


async def test_official_account_and_mini_program_have_tokens_of_their_own(world: WechatOfTests) -> None:
    tokens = world.wire(world.transport()).tokens
    first = await tokens.get(world.account(world.official))
    assert await tokens.get(world.account(world.mini)) != first
    assert stable_calls(world) == 2


async def test_a_token_is_refreshed_when_less_than_five_minutes_remain(world: WechatOfTests) -> None:
    tokens = world.wire(world.transport()).tokens
    account = world.account(world.official)
    first = await tokens.get(account)
    world.clock.advance(timedelta(minutes=114, seconds=59))
    assert await tokens.get(account) == first
    assert stable_calls(world) == 1
    world.clock.advance(timedelta(seconds=1))
    second = await tokens.get(account)
    assert second != first
    assert await tokens.get(account) == second
    assert stable_calls(world) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_a_store_that_forgets_at_any_moment_changes_nothing_for_the_patient(
    world: WechatOfTests, seed: int
) -> None:
    store = ForgetfulStore(world, seed)
    processes = [world.wire(world.transport(), store).template for _ in range(3)]
    account = world.account(world.official)
    for round_ in range(6):
        sends = [
            process.send(account, world.message(world.official, number=100 * round_ + place))
            for place, process in enumerate(processes * 4)
        ]
        assert {result.outcome for result in await asyncio.gather(*sends)} == {SendOutcome.ACCEPTED}
        world.clock.advance(timedelta(minutes=40))
    assert len(world.simulator.inbox(world.open_id(world.official))) == 72


async def test_unreadable_entries_count_as_forgotten(world: WechatOfTests) -> None:
    store = MemoryTokenStore(clock=world.clock)
    account = world.account(world.official)
    for text in ("", "token", "[]", '["t", "soon", 1]', '["t", 1e99, 1e99]', '{"token": 1}'):
        await store.set(_key(account), text, life=timedelta(hours=1))
        assert await world.wire(world.transport(), store).tokens.get(account)


async def test_a_token_that_somebody_else_rotated_is_replaced_within_the_call(world: WechatOfTests) -> None:
    adapters = world.wire(world.transport())
    account = world.account(world.official)
    await adapters.tokens.get(account)
    world.faults.script("wechat.token_rotated")
    result = await adapters.template.send(account, world.message(world.official))
    assert result.outcome is SendOutcome.ACCEPTED
    assert world.simulator.calls["template_send"] == 2
    assert stable_calls(world) == 2


@pytest.mark.parametrize("code", [40001, 40014, 42001, 42007])
async def test_every_token_code_is_answered_with_one_fresh_token(world: WechatOfTests, code: int) -> None:
    transport = Answers(world, [{"errcode": code, "errmsg": "x"}, {"errcode": 0, "errmsg": "ok", "msgid": 5}])
    result = await world.wire(transport).template.send(world.account(world.official), world.message(world.official))
    assert result.outcome is SendOutcome.ACCEPTED
    assert len(transport.sends) == 2


async def test_the_store_is_read_again_before_the_platform_is_asked(world: WechatOfTests) -> None:
    """While our call is under way another process stores a newer token."""
    store = MemoryTokenStore(clock=world.clock)
    account = world.account(world.official)
    other = world.wire(world.transport(), store).tokens

    class Meanwhile(WatchedTransport):
        async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
            if SEND in request.url and not any(SEND in earlier.url for earlier in self.requests):
                world.simulator.rotate_token(account.app_id)
                store.forget()
                other._known.clear()
                await other.get(account)
            return await super().send(request, deadline_seconds=deadline_seconds)

    transport = Meanwhile(world.transport())
    result = await world.wire(transport, store).template.send(account, world.message(world.official))
    assert result.outcome is SendOutcome.ACCEPTED
    assert [SEND in request.url for request in transport.requests] == [False, True, True]


async def test_a_forced_refresh_follows_only_when_the_platform_keeps_handing_out_the_refused_token(
    world: WechatOfTests,
) -> None:
    adapters = world.wire(world.transport())
    account = world.account(world.official)
    world.faults.script("wechat.token_refused")
    assert (await adapters.template.send(account, world.message(world.official))).outcome is SendOutcome.ACCEPTED
    assert world.simulator.books()["apps"][0]["tokens_made"] == 2
    assert sum(world.official.forced.values()) == 1


async def test_forced_refreshes_never_reach_the_platforms_twenty_a_day(world: WechatOfTests) -> None:
    """A day on which a new process is refused once every ten minutes."""
    store = MemoryTokenStore(clock=world.clock)
    account = world.account(world.official)
    for number in range(144):
        messenger = world.wire(world.transport(), store).template
        world.faults.script("wechat.token_refused")
        result = await messenger.send(account, world.message(world.official, number=number))
        assert result.outcome is SendOutcome.ACCEPTED
        world.clock.advance(timedelta(minutes=10))
    assert max(world.official.forced.values()) <= 20
    assert FORCED_SPACING.total_seconds() / 60 > 24 * 60 / 20


async def test_a_refusal_that_outlives_a_fresh_token_stands(world: WechatOfTests) -> None:
    transport = Answers(world, [{"errcode": 40001, "errmsg": "x"}] * 9)
    result = await world.wire(transport).template.send(world.account(world.official), world.message(world.official))
    assert (result.outcome, result.code) == (SendOutcome.MISCONFIGURED, "40001")
    assert len(transport.sends) == 2


@pytest.mark.parametrize(
    "fault", ["not_reached", "request_lost", "answer_lost", "error_500_after", "garbled", "system_busy_-1"]
)
async def test_without_a_token_the_message_has_not_left(world: WechatOfTests, fault: str) -> None:
    world.faults.script(f"wechat.{fault}", key=world.official.app_id)
    with pytest.raises(NotReached):
        await world.wire(world.transport()).template.send(world.account(world.official), world.message(world.official))
    assert world.simulator.calls["template_send"] == 0


async def test_a_wrong_secret_is_for_an_operator(world: WechatOfTests) -> None:
    tokens = world.wire(world.transport()).tokens
    with pytest.raises(Refused) as refused:
        await tokens.get(world.account(world.official, secret="0" * 32))
    assert refused.value.code == "40125"
    with pytest.raises(Refused) as refused:
        await tokens.get(world.account(world.official, secret=""))
    assert refused.value.code == "no_secret"


async def test_all_who_wait_for_one_token_share_its_failure(world: WechatOfTests) -> None:
    tokens = world.wire(world.transport()).tokens
    world.faults.script("wechat.not_reached")
    results = await asyncio.gather(
        *(tokens.get(world.account(world.official)) for _ in range(20)), return_exceptions=True
    )
    assert {type(result) for result in results} == {NotReached}
    assert await tokens.get(world.account(world.official))


async def test_the_old_token_serves_while_no_new_one_can_be_had(world: WechatOfTests) -> None:
    transport = world.transport()
    tokens = world.wire(transport).tokens
    account = world.account(world.official)
    first = await tokens.get(account)
    world.clock.advance(timedelta(minutes=116))
    world.faults.rate("wechat.not_reached", 1.0)
    assert [await tokens.get(account) for _ in range(10)] == [first] * 10
    world.clock.advance(timedelta(minutes=4))
    with pytest.raises(NotReached):
        await tokens.get(account)


async def test_a_cancelled_caller_takes_nobody_with_it(world: WechatOfTests) -> None:
    tokens = world.wire(world.transport(), SlowStore(world)).tokens
    account = world.account(world.official)
    impatient, patient = (asyncio.create_task(tokens.get(account)) for _ in range(2))
    await asyncio.sleep(0.01)
    impatient.cancel()
    assert await patient
    assert impatient.cancelled()


class SlowStore(MemoryTokenStore):
    def __init__(self, world: WechatOfTests) -> None:
        super().__init__(clock=world.clock)

    async def acquire(self, key: str, owner: str, *, life: timedelta) -> bool:
        await asyncio.sleep(0.05)
        return await super().acquire(key, owner, life=life)


async def test_a_dead_process_with_the_lock_holds_nobody_up_for_long(world: WechatOfTests) -> None:
    store = MemoryTokenStore(clock=world.clock)
    account = world.account(world.official)
    assert await store.acquire(f"{_key(account)}:lock", "dead", life=timedelta(hours=1))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    tokens = AccessTokens(api=world.wire(world.transport()).tokens._api, store=store, clock=world.clock, pause=pause)
    assert await tokens.get(account)
    assert 0 < sum(pauses) <= 2.001


class Answers:
    """Tokens from the simulator, everything else from a list."""

    def __init__(self, world: WechatOfTests, answers: list[dict[str, Any]]) -> None:
        self._simulator = world.transport()
        self._answers = list(answers)
        self.sends: list[HttpRequest] = []

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        if "stable_token" in request.url:
            return await self._simulator.send(request, deadline_seconds=deadline_seconds)
        self.sends.append(request)
        return HttpReply(status=200, body=json.dumps(self._answers.pop(0)).encode())


# ---------------------------------------------------------------- the hospital's own token service


async def test_a_hospitals_own_token_service_is_asked_instead_over_loopback(serve: Any) -> None:
    world = WechatOfTests()
    path, key = world.simulator.open_token_service(world.official.app_id)
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        account = world.account(world.official, token_url=base_url + path, token_key=key, secret="")
        messenger = world.wire(http).template
        for number in (1, 2):
            result = await messenger.send(account, world.message(world.official, number=number))
            assert result.outcome is SendOutcome.ACCEPTED
    assert stable_calls(world) == 0
    assert world.simulator.calls["token_service"] == 1


async def test_a_rotated_token_is_fetched_again_from_the_service(world: WechatOfTests) -> None:
    path, key = world.simulator.open_token_service(world.official.app_id)
    account = world.account(world.official, token_url=world.base_url + path, token_key=key, secret="")
    world.faults.script("wechat.token_rotated")
    messenger = world.wire(world.transport()).template
    assert (await messenger.send(account, world.message(world.official))).outcome is SendOutcome.ACCEPTED
    assert (stable_calls(world), world.simulator.calls["token_service"]) == (0, 2)


async def test_a_token_service_that_refuses_our_key_means_nothing_was_sent(world: WechatOfTests) -> None:
    path, _ = world.simulator.open_token_service(world.official.app_id)
    account = world.account(world.official, token_url=world.base_url + path, token_key="wrong", secret="")
    with pytest.raises(NotReached):
        await world.wire(world.transport()).tokens.get(account)


@pytest.mark.parametrize("extra", [{}, {"expires_in": 0}, {"expires_in": "7200"}, {"expires_in": None}])
async def test_a_token_service_that_does_not_say_how_long_is_asked_again_soon(
    world: WechatOfTests, extra: dict[str, Any]
) -> None:
    transport = Answers(world, [{"access_token": f"t{number}", **extra} for number in range(3)])
    account = world.account(world.official, token_url="http://tokens.test/t")
    tokens = world.wire(transport).tokens
    assert [await tokens.get(account) for _ in range(3)] == ["t0"] * 3
    world.clock.advance(timedelta(seconds=61))
    assert await tokens.get(account) == "t1"


# ---------------------------------------------------------------- nothing leaks


async def test_logs_and_reprs_hold_no_token_secret_openid_code_or_phone(
    world: WechatOfTests, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path, key = world.simulator.open_token_service(world.official.app_id)
    transport = world.transport()
    adapters = world.wire(transport)
    account, mini = world.account(world.official), world.account(world.mini, world.one_time)
    other = world.account(world.official, token_url=f"{world.base_url}{path}?k={key}", token_key=key)
    code, phone_code = (
        world.simulator.new_login_code(world.user, mini.app_id),
        world.simulator.new_phone_code(world.user, mini.app_id),
    )
    session = await adapters.platform.open_session(mini, code)
    shown = [repr(session), repr(session.identity), repr(account), repr(other)]
    assert await adapters.platform.phone_number(mini, phone_code) == PHONE
    message = world.message(world.official)
    shown.append(repr(message))
    for fault in (*(name for name in world.faults.catalogue), ""):
        if fault:
            world.faults.script(fault)
        for messenger, who in (
            (adapters.template, account),
            (adapters.template, other),
            (adapters.subscribe, mini),
        ):
            app = world.official if who is not mini else world.mini
            try:
                shown.append(repr(await messenger.send(who, world.message(app))))
            except (NotReached, OutcomeUnknown) as error:
                shown += [repr(error), str(error), repr(error.__cause__)]
        for attempt in (
            lambda: adapters.platform.sign_in(mini, world.simulator.new_login_code(world.user, mini.app_id)),
            lambda: adapters.platform.phone_number(mini, "spent"),
        ):
            try:
                shown.append(repr(await attempt()))
            except (NotReached, OutcomeUnknown, Refused) as error:
                shown += [repr(error), str(error), repr(error.__cause__)]
        world.faults.clear()
    shown += [repr(request) for request in transport.requests]
    shown += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    text = "\n".join(shown)
    assert "wechat_token_fetched" in text
    assert "message_refused" in text
    private = {
        world.official.secret,
        world.mini.secret,
        key,
        code,
        phone_code,
        PHONE,
        session.session_key,
        world.open_id(world.official),
        world.open_id(world.mini),
        world.simulator.union_id(world.user),
        *world.official.tokens,
        *world.mini.tokens,
    }
    assert [each for each in private if each in text] == []
