"""Builds the services and the adapters that they stand on: the only place that picks classes."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable

from bot.conversation import ANSWER_SECONDS, Conversation
from bot.sms.client import SmsApi
from bot.sms.messenger import SmsMessenger
from bot.wechat.callback import PUSH_SECONDS, Callback
from bot.wechat.client import WechatApi
from bot.wechat.messenger import SubscribeMessenger, TemplateMessenger
from bot.wechat.official import WechatOfficial
from bot.wechat.platform import WechatMiniProgram
from bot.wechat.tokens import AccessTokens
from channels.wechatpay.channel import WechatPay
from core.clock import Clock
from core.errors import ConfigurationError
from core.ids import Ids
from core.keyring import Keyring
from core.models import Deployment
from core.outside import Background, Outside
from core.ports import ChatPlatform, Limiter, Messenger, TokenStore
from core.services import Services
from hospital.guard import GuardedHospital, GuardSettings
from hospital.rest.hospital import RestHospital
from wire.http import Downloads, Transport

log = logging.getLogger("zhenfu.background")

BACKGROUND_MAX = 200


class BoundedBackground:
    """Runs work in tasks of this process; beyond the bound it declines, and the worker does it from the row."""

    def __init__(self, *, tasks_max: int = BACKGROUND_MAX) -> None:
        self._tasks_max = tasks_max
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> bool:
        if len(self._tasks) >= self._tasks_max:
            return False
        task = asyncio.create_task(self._run(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("background_work_failed", extra={"fields": {"work": name}})

    async def finish(self, *, seconds: float) -> None:
        """Wait a while for what is under way; the rest comes back from its rows."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)


def program_name(kind: str) -> str:
    """Names this program among those that hold leases."""
    return f"{kind}@{socket.gethostname()[:20]}:{os.getpid()}"


def build_services(
    *,
    clock: Clock,
    ids: Ids,
    keyring: Keyring,
    transport: Transport,
    tokens: TokenStore,
    limiter: Limiter,
    background: Background,
    public_url: str,
    program: str,
    guard: GuardSettings | None = None,
    nonce: Callable[[], str] | None = None,
    downloads: Downloads | None = None,
) -> Services:
    """Everything on one transport, one clock and one source of numbers."""
    fresh = nonce or (lambda: secrets.token_hex(16))
    api = WechatApi(transport=transport)
    access_tokens = AccessTokens(api=api, store=tokens, clock=clock)
    channels = [WechatPay(transport, clock, fresh, downloads)]
    hospitals = [GuardedHospital(RestHospital(transport, clock, fresh), clock, guard)]
    platforms: list[ChatPlatform] = [
        WechatMiniProgram(api=api, tokens=access_tokens),
        WechatOfficial(api=api, tokens=access_tokens, store=tokens, clock=clock, nonce=fresh),
    ]
    messengers: list[Messenger] = [
        TemplateMessenger(tokens=access_tokens, clock=clock),
        SubscribeMessenger(tokens=access_tokens, clock=clock),
        SmsMessenger(api=SmsApi(transport=transport, clock=clock), clock=clock),
    ]
    return Services.on(
        Outside(
            clock=clock,
            ids=ids,
            keyring=keyring,
            channels={channel.name: channel for channel in channels},
            hospitals={hospital.name: hospital for hospital in hospitals},
            platforms={platform.name: platform for platform in platforms},
            messengers={messenger.name: messenger for messenger in messengers},
            limiter=limiter,
            background=background,
            public_url=public_url,
            program=program,
        )
    )


def build_callback(
    services: Services,
    *,
    transport: Transport,
    tokens: TokenStore,
    nonce: Callable[[], str] | None = None,
    answer_seconds: float = ANSWER_SECONDS,
    push_seconds: float = PUSH_SECONDS,
) -> Callback:
    """Where WeChat's pushes go: the conversation behind it, on the same store as the access tokens."""
    return Callback(
        services,
        Conversation(services, tokens, answer_seconds=answer_seconds),
        transport,
        nonce or (lambda: secrets.token_hex(8)),
        push_seconds=push_seconds,
    )


async def check_deployment(deployment_id: str, keyring: Keyring) -> None:
    """Raises ConfigurationError when this is not our database or not our keys; nothing has been written by then."""
    row = await Deployment.get_or_none(name="this")
    if row is None:
        raise ConfigurationError("the database has no deployment yet: run `zhenfu migrate`")
    check_whose(row.deployment_id, row.canary_enc, deployment_id, keyring)


def check_whose(stored_id: str, stored_canary: str, deployment_id: str, keyring: Keyring) -> None:
    """Raises ConfigurationError unless the stored row carries our name and opens with our keys."""
    if stored_id != deployment_id:
        raise ConfigurationError(
            f"the database belongs to deployment {stored_id!r}, ZHENFU_DEPLOYMENT_ID says {deployment_id!r}"
        )
    try:
        keyring.check_canary(stored_canary)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"ZHENFU_KEYS do not open what this database holds ({error}): put the lost key back into the ring"
        ) from error
