"""Our thin client of the WeChat platform's server API: one call, one answer, HTTP 200 plus errcode.

It tells what the platform said, or raises NotReached or OutcomeUnknown; what a code means is mapping.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bot.wechat.mapping import Meaning, meaning_of
from core.errors import OutcomeUnknown, Refused
from core.ports import ChatAccount
from wire.http import HttpRequest, Transport

BASE_URL = "https://api.weixin.qq.com"
CALL_SECONDS = 5
_RID = re.compile(r"rid: ?([0-9a-zA-Z-]{1,64})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The platform's own answer. `rid` is what its support asks for; the text of errmsg is never compared.

    `explicit` is false when the answer names no errcode, as answers to logins and tokens do when all is well.
    """

    errcode: int
    explicit: bool
    rid: str = ""
    values: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def meaning(self) -> Meaning:
        return meaning_of(self.errcode)


class WechatApi:
    """Calls for any account; which one is an argument of each call. None takes longer than CALL_SECONDS."""

    def __init__(self, *, transport: Transport, call_seconds: float = CALL_SECONDS) -> None:
        self._transport = transport
        self._call_seconds = call_seconds

    async def get(self, account: ChatAccount, path: str, query: Mapping[str, str]) -> Answer:
        return await self.send(HttpRequest(method="GET", url=_url(account, path, query)))

    async def post(self, account: ChatAccount, path: str, body: Mapping[str, Any], *, access_token: str = "") -> Answer:
        return await self.send(
            HttpRequest(
                method="POST",
                url=_url(account, path, {"access_token": access_token} if access_token else {}),
                headers={"content-type": "application/json"},
                body=json.dumps(body, ensure_ascii=False).encode(),
            )
        )

    async def send(self, request: HttpRequest) -> Answer:
        reply = await self._transport.send(request, deadline_seconds=self._call_seconds)
        return read_answer(reply.status, reply.body)


def _url(account: ChatAccount, path: str, query: Mapping[str, str]) -> str:
    base = account.params.get("base_url") or BASE_URL
    return f"{base.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")


def param(account: ChatAccount, name: str) -> str:
    """A parameter that the account must have. Raises Refused with the code no_<name> when it lacks it."""
    value = account.params.get(name, "")
    if not value:
        raise Refused(f"no_{name}", f"the chat account's params lack {name}")
    return value


def read_answer(status: int, body: bytes) -> Answer:
    """The platform's answer from raw bytes. Raises OutcomeUnknown for what is not in its own format."""
    if status != 200:
        raise OutcomeUnknown(f"HTTP {status}")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        # Not chained: the parser's error carries the whole answer.
        raise OutcomeUnknown("the answer is not JSON") from None
    if not isinstance(values, dict):
        raise OutcomeUnknown("the answer is not an object")
    errcode = values.get("errcode", 0)
    if not isinstance(errcode, int) or isinstance(errcode, bool):
        raise OutcomeUnknown("the answer's errcode is not a number")
    rid = _RID.search(str(values.get("errmsg", "")))
    return Answer(errcode=errcode, explicit="errcode" in values, rid=rid[1] if rid else "", values=values)
