"""One signed exchange with a HIS: from bytes to a genuine answer, or to one of the three errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from core.clock import Clock
from core.errors import OutcomeUnknown, Refused
from core.ports import HospitalSite
from hospital.rest.mapping import FINAL_REFUSALS, read_object, text
from hospital.rest.signing import API_PREFIX, answer_problem, read_keys, request_headers
from wire.http import HttpReply, HttpRequest, Transport

MESSAGE_CHARACTERS_MAX = 200


class Forging(StrEnum):
    """How the connection check spoils a request, to see that the HIS refuses it."""

    UNSIGNED = "unsigned"
    WRONG_SIGNATURE = "wrong_signature"
    OLD_TIMESTAMP = "old_timestamp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A genuine answer whose outcome is ok."""

    fields: Mapping[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """What came back, not yet judged, and the nonce that a genuine answer is bound to."""

    nonce: str
    reply: HttpReply


class RestClient:
    """Stateless: keys and addresses come with the site of each call."""

    def __init__(self, transport: Transport, clock: Clock, nonce: Callable[[], str]) -> None:
        self._transport = transport
        self._clock = clock
        self._nonce = nonce

    async def call(self, site: HospitalSite, operation: str, fields: Mapping[str, Any]) -> Answer:
        """Ask, and return what a genuine "ok" carries.

        Raises NotReached; Refused, final for the codes listed for this operation; OutcomeUnknown for
        everything else: silence, an answer that is unsigned, garbled or too late, an outcome we do not know.
        """
        exchange = await self.exchange(site, operation, fields)
        return self.judge(site, operation, exchange)

    async def exchange(
        self, site: HospitalSite, operation: str, fields: Mapping[str, Any], *, forging: Forging | None = None
    ) -> Exchange:
        """Send one request, signed unless it is spoiled on purpose. Raises NotReached or OutcomeUnknown."""
        body = orjson.dumps({"branch": site.branch, **fields})
        target, nonce = API_PREFIX + operation, self._nonce()
        headers = request_headers(
            read_keys(site.params), target=target, nonce=nonce, now=self._signing_time(forging), body=body
        )
        if forging is Forging.UNSIGNED:
            headers = {}
        elif forging is Forging.WRONG_SIGNATURE:
            headers["Zhenfu-Signature"] = headers["Zhenfu-Signature"][::-1]
        request = HttpRequest(
            method="POST",
            url=site.base_url.rstrip("/") + target,
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Accept": "application/json",
                **headers,
            },
            body=body,
        )
        reply = await self._transport.send(request, deadline_seconds=site.deadline_seconds)
        return Exchange(nonce=nonce, reply=reply)

    def judge(self, site: HospitalSite, operation: str, exchange: Exchange) -> Answer:
        """Say what a reply proves. Raises Refused or OutcomeUnknown."""
        reply = exchange.reply
        problem = self.signature_problem(site, exchange)
        if problem:
            raise OutcomeUnknown(f"HTTP {reply.status}, {problem}")
        fields = read_object(reply.body)
        if fields is None:
            raise OutcomeUnknown(f"HTTP {reply.status}, the body is not a JSON object")
        outcome = text(fields, "outcome")
        if outcome == "ok" and reply.status == 200:
            return Answer(fields=fields, raw=reply.body)
        if outcome == "refused" and (reply.status == 200 or 400 <= reply.status < 500):
            code = text(fields, "code") or "UNSPECIFIED"
            raise Refused(
                code,
                text(fields, "message")[:MESSAGE_CHARACTERS_MAX],
                final=reply.status == 200 and code in FINAL_REFUSALS[operation],
                raw=reply.body,
            )
        known = outcome if outcome in ("ok", "refused", "unknown") else "a word we do not know"
        raise OutcomeUnknown(f"HTTP {reply.status}, outcome: {known}")

    def signature_problem(self, site: HospitalSite, exchange: Exchange) -> str:
        """Why a reply is not proven to be the HIS's answer to this request, or an empty text."""
        return answer_problem(
            read_keys(site.params),
            exchange.reply.headers,
            status=exchange.reply.status,
            request_nonce=exchange.nonce,
            body=exchange.reply.body,
            now=self._clock.now(),
        )

    def _signing_time(self, forging: Forging | None) -> datetime:
        now = self._clock.now()
        return now - timedelta(hours=1) if forging is Forging.OLD_TIMESTAMP else now
