"""Sign-in of web pages inside WeChat, and what a page needs to use its scanner, for official accounts."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from bot.wechat.client import WechatApi, param
from bot.wechat.platform import granted, page_signature, proper_code
from bot.wechat.tokens import AccessTokens
from core.clock import Clock
from core.errors import NotReached, OutcomeUnknown, Refused
from core.ports import ChatAccount, ChatIdentity, TokenStore

OPEN_BASE_URL = "https://open.weixin.qq.com"
STATE_LENGTH_MAX = 128
TICKET_REFRESH_BEFORE = timedelta(minutes=5)
TICKET_LIFE_MAX = timedelta(hours=2)
TICKETS_MAX = 1000  # that this process remembers
_STATE = re.compile(rf"[A-Za-z0-9]{{0,{STATE_LENGTH_MAX}}}", re.ASCII)


class WechatOfficial:
    """A ChatPlatform."""

    name = "wechat_service"

    def __init__(
        self,
        *,
        api: WechatApi,
        tokens: AccessTokens,
        store: TokenStore,
        clock: Clock,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._api = api
        self._tokens = tokens
        self._store = store
        self._clock = clock
        self._nonce = nonce
        self._tickets: dict[str, str] = {}  # for when the store forgets

    def shows(self, user_agent: str) -> bool:
        said = user_agent.lower()
        return "micromessenger" in said and "miniprogram" not in said

    def sign_in_url(self, account: ChatAccount, *, back_to: str, state: str) -> str:
        """Silent (snsapi_base). The order of the parameters matters to the app."""
        if not _STATE.fullmatch(state):
            raise ValueError("state takes at most 128 letters and digits")
        base = (account.params.get("open_base_url") or OPEN_BASE_URL).rstrip("/")
        return (
            f"{base}/connect/oauth2/authorize?appid={quote(account.app_id, safe='')}"
            f"&redirect_uri={quote(back_to, safe='')}&response_type=code&scope=snsapi_base&state={state}"
            "#wechat_redirect"
        )

    async def sign_in(self, account: ChatAccount, code: str) -> ChatIdentity:
        """The user of a page. A snapshot of a page shows a made-up user, who is nobody: Refused(final=True)."""
        query = {
            "appid": account.app_id,
            "secret": param(account, "secret"),
            "code": proper_code(code),
            "grant_type": "authorization_code",
        }
        values = granted(await self._api.get(account, "/sns/oauth2/access_token", query))
        if values.get("is_snapshotuser") == 1:
            raise Refused("snapshot_user", "a snapshot of the page, not a person", final=True)
        open_id, union_id = values.get("openid"), values.get("unionid")
        if not isinstance(open_id, str) or not open_id:
            raise OutcomeUnknown("the answer holds no openid")
        return ChatIdentity(open_id=open_id, union_id=union_id if isinstance(union_id, str) else "")

    async def phone_number(self, account: ChatAccount, code: str) -> str:
        raise Refused("no_phone", "web pages get no phone from the platform", final=True)

    async def union_id(self, account: ChatAccount, open_id: str) -> str:
        """The platform tells it of followers, where the accounts are bound to one open platform."""
        query = {"openid": open_id, "lang": "zh_CN"}
        found = granted(await self._tokens.ask(account, "/cgi-bin/user/info", query)).get("unionid")
        return found if isinstance(found, str) else ""

    async def page_config(self, account: ChatAccount, url: str) -> Mapping[str, str]:
        """The values of wx.config for the page at this address."""
        ticket = await self._ticket(account)
        nonce, timestamp = self._nonce(), str(int(self._clock.now().timestamp()))
        return {
            "appId": account.app_id,
            "timestamp": timestamp,
            "nonceStr": nonce,
            "signature": page_signature(ticket=ticket, nonce=nonce, timestamp=timestamp, url=url),
        }

    async def _ticket(self, account: ChatAccount) -> str:
        """Kept in the store until shortly before its end; asking for it twice does no harm."""
        key = f"wechat:ticket:{account.app_id}"
        for kept in (await self._store.get(key), self._tickets.get(account.app_id)):
            known, refresh_at = _read(kept)
            if known and self._clock.now() < refresh_at:
                return known
        values = granted(await self._tokens.ask(account, "/cgi-bin/ticket/getticket", {"type": "jsapi"}))
        ticket, life = values.get("ticket"), values.get("expires_in")
        if not isinstance(ticket, str) or not ticket or not isinstance(life, int) or isinstance(life, bool):
            raise NotReached("the answer holds no ticket")
        left = min(timedelta(seconds=max(life, 0)), TICKET_LIFE_MAX)
        text = json.dumps([ticket, (self._clock.now() + left - TICKET_REFRESH_BEFORE).timestamp()])
        self._tickets.pop(account.app_id, None)
        self._tickets[account.app_id] = text
        while len(self._tickets) > TICKETS_MAX:
            del self._tickets[next(iter(self._tickets))]
        await self._store.set(key, text, life=left)
        return ticket


def _read(text: str | None) -> tuple[str, datetime]:
    """Empty for what was forgotten and for what we cannot read, which is the same."""
    try:
        ticket, refresh_at = json.loads(text or "")
        return str(ticket), datetime.fromtimestamp(refresh_at, UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return "", datetime.fromtimestamp(0, UTC)
