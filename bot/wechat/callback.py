"""`/wx/<token>`: where the WeChat platform pushes what people do in an account's chat.

Every push is answered within the platform's five seconds, whatever happens behind it: with `success` when there is
nothing to say, and with 503 when it was not read or its answer is still being made, so that the platform repeats it.
Three ways of connecting, the account's param `connection`:

own        the account's console names our address. With `forward_url` there was another vendor before us, who gets
           what we have no words for, byte for byte, and whose answer is passed back.
forwarded  the console names another vendor, who sends us each push as he got it. What is ours we answer; the rest
           is answered with the header `zhenfu-handled: no`, and he answers himself.
none       nobody pushes to us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, raw

from bot.conversation import Conversation, Heard, StillBeingMade
from bot.events import Reply
from bot.wechat.params import connection_of
from bot.wechat.pushes import Echo, Push, PushKeys, read_echo, read_push, write_reply
from core.errors import ConfigurationError, CounterpartyError, NotFound
from core.ports import Acknowledgement, ChatAccount, Unverified
from core.services import Services
from wire.http import HttpRequest, Transport

log = logging.getLogger("zhenfu.chat")

PUSH_SECONDS = 4.4
"""From the push to our answer: the platform hangs up after five."""

FORWARD_SECONDS = 4.0  # of those, until another vendor must have answered
FORWARD_SECONDS_MIN = 0.2
FORWARD_BYTES_MAX = 1 << 16
TASKS_MAX = 800
TOKEN_LENGTH_MAX = 64
QUERY_LENGTH_MAX = 4_096
QUERY_FIELDS_MAX = 20
HANDLED = "zhenfu-handled"
FORWARDED_TYPES = frozenset({"text/xml", "application/xml", "application/json", "text/plain"})
REPLYING = "wechat_service"  # a mini program's chat takes no text as an answer

SUCCESS = Acknowledgement(status=200, body=b"success", content_type="text/plain")
NOT_FOUND = Acknowledgement(status=404, content_type="text/plain")
FORBIDDEN = Acknowledgement(status=403, content_type="text/plain")
AGAIN = Acknowledgement(status=503, content_type="text/plain")
"""The platform repeats what is not answered with 200, as it does what is not answered in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arrived:
    """A push as it came, and when, on the event loop's clock."""

    query: str
    body: bytes
    content_type: str
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    acknowledgement: Acknowledgement
    handled: str = "no"  # or "yes", towards a vendor who passes pushes on; empty: does not say


class Callback:
    def __init__(
        self,
        services: Services,
        conversation: Conversation,
        transport: Transport,
        nonce: Callable[[], str],
        *,
        push_seconds: float = PUSH_SECONDS,
    ) -> None:
        self._services = services
        self._conversation = conversation
        self._transport = transport
        self._nonce = nonce
        self._push_seconds = push_seconds
        self._tasks: set[asyncio.Task[_Answer]] = set()

    async def check(self, token: str, query: str) -> Acknowledgement:
        """The platform asks whether the address is ours."""
        try:
            _, keys = await self._account(token)
        except NotFound:
            return NOT_FOUND
        echo = read_echo(keys, _values(query))
        if isinstance(echo, Echo):
            return Acknowledgement(status=200, body=echo.text.encode(), content_type="text/plain")
        log.warning("chat_check_refused", extra={"fields": {"app_id": keys.app_id, "reason": echo.reason}})
        return FORBIDDEN

    async def push(self, token: str, query: str, body: bytes, content_type: str) -> _Answer:
        """What has begun goes on when the platform hangs up or time is over."""
        if len(self._tasks) >= TASKS_MAX:
            log.warning("chat_pushes_too_many")
            return _Answer(acknowledgement=AGAIN)
        arrived = _Arrived(
            query=query,
            body=body,
            content_type=content_type,
            at=asyncio.get_running_loop().time(),
        )
        task = asyncio.create_task(self._worked(token, arrived))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task}, timeout=self._push_seconds)
        if task.done() and not task.cancelled():
            return task.result()
        log.warning("chat_push_late")
        return _Answer(acknowledgement=AGAIN)  # what is still being made is kept for the repeat

    async def finish(self, *, seconds: float) -> None:
        """Let what is under way end."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _worked(self, token: str, arrived: _Arrived) -> _Answer:
        try:
            return await self._read(token, arrived)
        except NotFound:
            return _Answer(acknowledgement=NOT_FOUND)
        except StillBeingMade:
            log.info("chat_answer_elsewhere")
        except Exception:
            log.exception("chat_push_failed")
        return _Answer(acknowledgement=AGAIN)

    async def _read(self, token: str, arrived: _Arrived) -> _Answer:
        """Raises NotFound, StillBeingMade, and whatever goes wrong; nothing is done twice when it comes again."""
        account, keys = await self._account(token)
        now = self._services.outside.clock.now()
        push = read_push(keys, _values(arrived.query), arrived.body, arrived.content_type, now)
        if isinstance(push, Unverified):
            log.warning("chat_push_refused", extra={"fields": {"app_id": account.app_id, "reason": push.reason}})
            return _Answer(acknowledgement=FORBIDDEN)
        places = self._conversation.places(push.event.kind)
        if not await places.take():
            log.warning("chat_no_place", extra={"fields": {"kind": push.event.kind.value}})
            heard = await self._conversation.crowded(account, push.event)
            if heard is None:
                return _Answer(acknowledgement=AGAIN)
            return _Answer(acknowledgement=self._reply(account, keys, push, heard), handled="yes")
        try:
            return await self._answered(account, keys, push, arrived)
        finally:
            places.give()

    async def _answered(self, account: ChatAccount, keys: PushKeys, push: Push, arrived: _Arrived) -> _Answer:
        heard = await self._conversation.hear(account, push.event, arrived_at=arrived.at)
        if heard.dropped:
            return _Answer(acknowledgement=SUCCESS)
        ours = self._reply(account, keys, push, heard)
        if heard.ours:
            return _Answer(acknowledgement=ours, handled="yes")
        if connection_of(account) == "forwarded":
            return _Answer(acknowledgement=Acknowledgement(status=200, content_type="text/plain"))
        if forward_url := account.params.get("forward_url", "").strip():
            async with self._conversation.places(push.event.kind).left():
                theirs = await self._passed_on(account, forward_url, arrived)
            return _Answer(acknowledgement=theirs or ours, handled="")
        return _Answer(acknowledgement=ours, handled="")

    async def _account(self, token: str) -> tuple[ChatAccount, PushKeys]:
        """Raises NotFound for an address that is nobody's, and for an account that nobody pushes for."""
        if not (1 <= len(token) <= TOKEN_LENGTH_MAX and token.isascii() and token.isalnum()):
            raise NotFound()
        account = await self._services.institutions.chat_account_by_callback(token)
        if connection_of(account) == "none":
            raise NotFound()
        try:
            return account, PushKeys.read(account)
        except ConfigurationError as error:
            log.warning("chat_push_settings", extra={"fields": {"problem": str(error)}})
            raise NotFound() from error

    def _reply(self, account: ChatAccount, keys: PushKeys, push: Push, heard: Heard) -> Acknowledgement:
        reply = Reply(text=heard.text) if heard.text and account.platform == REPLYING else None
        return write_reply(keys, push, reply, now=self._services.outside.clock.now(), nonce=self._nonce())

    async def _passed_on(self, account: ChatAccount, forward_url: str, arrived: _Arrived) -> Acknowledgement | None:
        """The other vendor's answer to the same bytes and signature; None when he has none in time."""
        left = arrived.at + FORWARD_SECONDS - asyncio.get_running_loop().time()
        if left < FORWARD_SECONDS_MIN:
            return None
        request = HttpRequest(
            method="POST",
            url=f"{forward_url}{'&' if '?' in forward_url else '?'}{arrived.query}",
            headers={"content-type": arrived.content_type or "text/xml"},
            body=arrived.body,
        )
        try:
            reply = await self._transport.send(request, deadline_seconds=left)
        except CounterpartyError as error:
            log.warning("chat_forward_failed", extra={"fields": {"app_id": account.app_id, "problem": str(error)}})
            return None
        if reply.status != 200 or len(reply.body) > FORWARD_BYTES_MAX:
            log.warning("chat_forward_refused", extra={"fields": {"app_id": account.app_id, "status": reply.status}})
            return None
        said = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Acknowledgement(
            status=200, body=reply.body, content_type=said if said in FORWARDED_TYPES else "text/plain"
        )


def blueprint(callback: Callback) -> Blueprint:
    wechat = Blueprint("wechat_callback")

    @wechat.get("/wx/<token:str>")
    async def check(request: Request, token: str) -> HTTPResponse:
        return _response(_Answer(acknowledgement=await callback.check(token, request.query_string), handled=""))

    @wechat.post("/wx/<token:str>")
    async def push(request: Request, token: str) -> HTTPResponse:
        content_type = str(request.headers.get("content-type", ""))
        return _response(await callback.push(token, request.query_string, request.body, content_type))

    @wechat.before_server_stop
    async def finish(_: object) -> None:
        await callback.finish(seconds=PUSH_SECONDS)

    return wechat


def _values(query: str) -> dict[str, str]:
    """Empty for what no platform sends; then nothing in it is signed."""
    try:
        return dict(parse_qsl(query[:QUERY_LENGTH_MAX], keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX))
    except ValueError:
        return {}


def _response(answer: _Answer) -> HTTPResponse:
    said = answer.acknowledgement
    headers = {HANDLED: answer.handled} if answer.handled else {}
    return raw(said.body, status=said.status, content_type=said.content_type, headers=headers)
