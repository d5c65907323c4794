"""Our thin client of Tencent Cloud SMS, API 2021-01-11: one signed call, one answer, HTTP 200 and a code in the body.

It tells what the platform said, or raises NotReached or OutcomeUnknown; what a code means is mapping.py's. The
answers carry no signature: that they are the platform's rests on TLS alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bot.sms.signing import CONTENT_TYPE, authorization
from core.clock import Clock
from core.errors import OutcomeUnknown
from core.ports import ChatAccount
from wire.http import HttpRequest, Transport

BASE_URL = "https://sms.tencentcloudapi.com"
REGION = "ap-guangzhou"
VERSION = "2021-01-11"
SERVICE = "sms"
CALL_SECONDS = 10
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,127}")
_REQUEST_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The platform's own answer; `error` is the code when the call as a whole failed, else empty.

    `request_id` is what its support asks for. Its messages are never looked at: they change, and may quote a phone.
    """

    error: str = ""
    request_id: str = ""
    values: Mapping[str, Any] = field(repr=False, default_factory=dict)


class SmsApi:
    """Calls for any account; which one is an argument of each call. None takes longer than `call_seconds`."""

    def __init__(self, *, transport: Transport, clock: Clock, call_seconds: float = CALL_SECONDS) -> None:
        self._transport = transport
        self._clock = clock
        self._call_seconds = call_seconds

    async def call(self, account: ChatAccount, action: str, values: Mapping[str, Any]) -> Answer:
        """Raises NotReached or OutcomeUnknown."""
        params = account.params
        url = f"{(params.get('base_url') or BASE_URL).rstrip('/')}/"
        host = urlsplit(url).netloc
        timestamp = int(self._clock.now().timestamp())
        body = json.dumps(values, ensure_ascii=False).encode()
        reply = await self._transport.send(
            HttpRequest(
                method="POST",
                url=url,
                headers={
                    "host": host,
                    "content-type": CONTENT_TYPE,
                    "x-tc-action": action,
                    "x-tc-version": VERSION,
                    "x-tc-region": params.get("region") or REGION,
                    "x-tc-timestamp": str(timestamp),
                    "authorization": authorization(
                        secret_id=params.get("secret_id", ""),
                        secret_key=params.get("secret_key", ""),
                        host=host,
                        service=SERVICE,
                        action=action,
                        timestamp=timestamp,
                        body=body,
                    ),
                },
                body=body,
            ),
            deadline_seconds=self._call_seconds,
        )
        return read_answer(reply.status, reply.body)


def sdk_app_id(account: ChatAccount) -> str:
    """The SMS application; the account is named after it unless its params say otherwise."""
    return account.params.get("sdk_app_id") or account.app_id


def read_answer(status: int, body: bytes) -> Answer:
    """The platform's answer from raw bytes. Raises OutcomeUnknown for what is not in its own format."""
    if status != 200:
        raise OutcomeUnknown(f"HTTP {status}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        # Not chained: the parser's error carries the whole answer.
        raise OutcomeUnknown("the answer is not JSON") from None
    values = content.get("Response") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise OutcomeUnknown("the answer has no Response")
    request_id = values.get("RequestId")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        request_id = ""
    if "Error" not in values:
        return Answer(request_id=request_id, values=values)
    error = values["Error"]
    return Answer(error=code_of(error), request_id=request_id, values=values)


def code_of(stated: object) -> str:
    """The `Code` of an error or a status. Raises OutcomeUnknown when there is none in the platform's form."""
    code = stated.get("Code") if isinstance(stated, dict) else None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise OutcomeUnknown("the answer's code is not a code")
    return code
