"""Access tokens: one per app, in a TokenStore that may forget at any moment, and the calls that use them.

The token comes from stable_token (document "获取稳定版接口调用凭据"), whose normal mode gives every caller
the same token, so that two processes asking at once do no harm; or from the hospital's own token service,
when the account's params name one. The lock saves calls, correctness does not lean on it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.wechat.client import Answer, WechatApi, param
from bot.wechat.mapping import Meaning
from core.clock import Clock
from core.errors import CounterpartyError, NotReached, Refused
from core.ports import ChatAccount, TokenStore
from wire.http import HttpRequest

logger = logging.getLogger(__name__)

REFRESH_BEFORE = timedelta(minutes=5)  # the platform renews in the last five minutes
ASK_AGAIN_AFTER = timedelta(seconds=10)  # between two fetches of a token that is about to end
LOCK_LIFE = timedelta(seconds=15)
FORCED_SPACING = timedelta(minutes=75)  # the platform allows 20 forced refreshes a day
OTHERS_WAITS = 20  # while another process fetches
OTHERS_WAIT_SECONDS = 0.1
APPS_MAX = 1000  # tokens that this process remembers
LIFE_MAX = timedelta(hours=2)
SERVICE_LIFE_DEFAULT = timedelta(minutes=1)  # for a token service that does not say how long its token lives
TOTAL_SECONDS_MAX = 40  # the longest that post() may take, with the API's standard CALL_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    token: str = field(repr=False)
    refresh_at: datetime
    expires_at: datetime

    def text(self) -> str:
        return json.dumps([self.token, self.refresh_at.timestamp(), self.expires_at.timestamp()])

    @staticmethod
    def of_text(text: str | None) -> _Entry | None:
        """None for what was forgotten and for what we cannot read, which is the same."""
        try:
            token, refresh_at, expires_at = json.loads(text or "")
            return _Entry(
                token=str(token),
                refresh_at=datetime.fromtimestamp(refresh_at, UTC),
                expires_at=datetime.fromtimestamp(expires_at, UTC),
            )
        except (ValueError, TypeError, OverflowError, OSError):
            return None


class AccessTokens:
    """Keeps every app's access token fresh.

    `post` and `ask` make a call with it. What goes wrong on the way to a token is NotReached (the call itself has not
    left) or Refused with the platform's code, when a person must act or a quota is used up.
    """

    def __init__(
        self,
        *,
        api: WechatApi,
        store: TokenStore,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._pause = pause
        self._known: dict[str, _Entry] = {}  # for when the store forgets
        self._forced_at: dict[str, datetime] = {}
        self._flights: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def post(self, account: ChatAccount, path: str, body: Mapping[str, Any]) -> Answer:
        """POST with the access token."""
        return await self._with_token(account, lambda token: self._api.post(account, path, body, access_token=token))

    async def ask(self, account: ChatAccount, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """GET with the access token."""
        return await self._with_token(
            account, lambda token: self._api.get(account, path, {"access_token": token, **(query or {})})
        )

    async def _with_token(self, account: ChatAccount, call: Callable[[str], Awaitable[Answer]]) -> Answer:
        """A refused token is replaced, first by what another process may have stored, then by a fresh one.

        A call refused for its token has done nothing, so it is made again; after that the refusal stands.
        """
        token = await self.get(account)
        answer = await call(token)
        if answer.meaning is Meaning.TOKEN:
            stored = _Entry.of_text(await self._store.get(_key(account)))
            if stored is not None and stored.token != token:
                token = stored.token
                answer = await call(token)
        if answer.meaning is Meaning.TOKEN:
            logger.warning("wechat_token_refused", extra=_about(account, answer))
            token = await self._fetched(account, refused=token)
            answer = await call(token)
        return answer

    async def get(self, account: ChatAccount) -> str:
        """A token with some life left. Raises NotReached or Refused when there is none."""
        entry = await self._entry(account)
        now = self._clock.now()
        if entry is not None and now < entry.refresh_at:
            return entry.token
        try:
            return await self._fetched(account)
        except CounterpartyError:
            if entry is None or now >= entry.expires_at:
                raise
            # The old one still works for a while; ask again a little later, not with every call.
            later = min(now + ASK_AGAIN_AFTER, entry.expires_at)
            self._remember(account, _Entry(token=entry.token, refresh_at=later, expires_at=entry.expires_at))
            return entry.token

    async def check(self, account: ChatAccount) -> str:
        """Ask for a token, whatever is kept: one line for an operator. Raises NotReached or Refused."""
        await self._fetch(account, refused="")
        return "gives an access token" + (" (the hospital's own service)" if account.params.get("token_url") else "")

    async def _entry(self, account: ChatAccount, refused: str = "") -> _Entry | None:
        """What the store and this process know, whichever lives longer."""
        entries = (_Entry.of_text(await self._store.get(_key(account))), self._known.get(account.app_id))
        return max(
            (entry for entry in entries if entry is not None and entry.token != refused),
            key=lambda entry: (entry.expires_at, entry.refresh_at),
            default=None,
        )

    async def _fetched(self, account: ChatAccount, refused: str = "") -> str:
        """A token that is not `refused`; all tasks that want it at once share one fetch and its failure."""
        name = (account.app_id, refused)
        if (flight := self._flights.get(name)) is None:
            flight = self._flights[name] = asyncio.create_task(self._fetch_or_wait(account, refused))
            flight.add_done_callback(lambda done: self._landed(name, done))
        return await asyncio.shield(flight)

    def _landed(self, name: tuple[str, str], flight: asyncio.Task[str]) -> None:
        del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # seen here too, should everybody who waited have gone away

    async def _fetch_or_wait(self, account: ChatAccount, refused: str) -> str:
        """Fetched by us or, meanwhile, by another process."""
        if (found := await self._fresh(account, refused)) is not None:
            return found
        lock, owner = f"{_key(account)}:lock", secrets.token_hex(8)
        ours = await self._store.acquire(lock, owner, life=LOCK_LIFE)
        try:
            for _ in range(0 if ours else OTHERS_WAITS):
                await self._pause(OTHERS_WAIT_SECONDS)
                if (found := await self._fresh(account, refused)) is not None:
                    return found
            return await self._fetch(account, refused)
        finally:
            if ours:
                await self._store.release(lock, owner)

    async def _fresh(self, account: ChatAccount, refused: str) -> str | None:
        entry = await self._entry(account, refused)
        return entry.token if entry is not None and self._clock.now() < entry.refresh_at else None

    async def _fetch(self, account: ChatAccount, refused: str) -> str:
        asked_at = self._clock.now()
        if account.params.get("token_url"):
            answer = await self._ask_service(account)
        else:
            answer = await self._ask_platform(account, force=False)
            if refused and answer.values.get("access_token") == refused and await self._may_force(account):
                answer = await self._ask_platform(account, force=True)
        token, life = answer.values.get("access_token"), answer.values.get("expires_in")
        if not isinstance(token, str) or not token:
            raise NotReached("the answer holds no access token")
        known = isinstance(life, int) and not isinstance(life, bool) and life > 0
        left = min(timedelta(seconds=life), LIFE_MAX) if known and life else SERVICE_LIFE_DEFAULT
        entry = _Entry(
            token=token,
            refresh_at=max(asked_at + left - REFRESH_BEFORE, asked_at + min(ASK_AGAIN_AFTER, left / 2)),
            expires_at=asked_at + left,
        )
        self._remember(account, entry)
        await self._store.set(_key(account), entry.text(), life=left)
        logger.info("wechat_token_fetched", extra=_about(account, answer))
        return token

    async def _ask_platform(self, account: ChatAccount, *, force: bool) -> Answer:
        body = {
            "grant_type": "client_credential",
            "appid": account.app_id,
            "secret": param(account, "secret"),
            "force_refresh": force,
        }
        try:
            answer = await self._api.post(account, "/cgi-bin/stable_token", body)
        except CounterpartyError as error:
            raise NotReached(f"no access token: {error}") from error
        if answer.meaning is Meaning.DONE:
            return answer
        logger.warning("wechat_token_not_given", extra=_about(account, answer))
        if answer.meaning in {Meaning.BUSY, Meaning.UNKNOWN}:
            raise NotReached(f"no access token: errcode {answer.errcode}")
        raise Refused(str(answer.errcode), "no access token")

    async def _ask_service(self, account: ChatAccount) -> Answer:
        """The hospital's own token service: GET with its key, answered with access_token and expires_in."""
        headers = {"accept": "application/json"}
        if key := account.params.get("token_key"):
            headers["authorization"] = f"Bearer {key}"
        try:
            return await self._api.send(HttpRequest(method="GET", url=account.params["token_url"], headers=headers))
        except CounterpartyError as error:
            raise NotReached(f"no access token from the hospital's service: {error}") from error

    async def _may_force(self, account: ChatAccount) -> bool:
        """Whether a forced refresh is due, by this process's memory and by the shared one."""
        now = self._clock.now()
        last = self._forced_at.get(account.app_id)
        if last is not None and now - last < FORCED_SPACING:
            return False
        self._forced_at[account.app_id] = now
        # Never released: it ends by itself, and until then nobody forces.
        return await self._store.acquire(f"{_key(account)}:forced", secrets.token_hex(8), life=FORCED_SPACING)

    def _remember(self, account: ChatAccount, entry: _Entry) -> None:
        self._known.pop(account.app_id, None)
        self._known[account.app_id] = entry
        while len(self._known) > APPS_MAX:
            del self._known[next(iter(self._known))]


def _key(account: ChatAccount) -> str:
    return f"wechat:token:{account.app_id}"


def _about(account: ChatAccount, answer: Answer) -> dict[str, object]:
    return {"app_id": account.app_id, "errcode": answer.errcode, "rid": answer.rid}
