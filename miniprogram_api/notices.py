"""Counterparties' notices: stored, acknowledged, and worked by somebody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sanic import Blueprint
from sanic.response import HTTPResponse, raw

from core.errors import TooManyRequests
from core.ports import Acknowledgement
from miniprogram_api.requests import ApiRequest, lower_case_headers, path_text
from miniprogram_api.room import Room

AT_ONCE_MAX = 64
BUSY_RETRY_SECONDS = 5


class Gate:
    """At most so many messages of one counterparty at once; it sends the rest again."""

    def __init__(self, *, at_once_max: int = AT_ONCE_MAX) -> None:
        self._at_once_max = at_once_max
        self._inside: Counter[str] = Counter()

    def open_for(self) -> list[str]:
        """Whose messages are inside now."""
        return list(self._inside)

    @contextmanager
    def enter(self, token: str) -> Iterator[None]:
        """Raises TooManyRequests."""
        if self._inside[token] >= self._at_once_max:
            raise TooManyRequests(retry_after_seconds=BUSY_RETRY_SECONDS)
        self._inside[token] += 1
        try:
            yield
        finally:
            self._inside[token] -= 1
            if not self._inside[token]:
                del self._inside[token]


def blueprint(room: Room) -> Blueprint:
    notices = Blueprint("notices")
    inbounds = room.services.inbounds
    gate = Gate()

    @notices.post("/n/<token:str>")
    async def channel_notice(request: ApiRequest, token: str) -> HTTPResponse:
        with gate.enter(path_text(token)):
            return acknowledged(
                await room.running.finish(inbounds.receive_notice(token, lower_case_headers(request), request.body))
            )

    @notices.post("/his/v1/events/<token:str>")
    async def hospital_event(request: ApiRequest, token: str) -> HTTPResponse:
        with gate.enter(path_text(token)):
            return acknowledged(
                await room.running.finish(inbounds.receive_event(token, lower_case_headers(request), request.body))
            )

    return notices


def acknowledged(answer: Acknowledgement) -> HTTPResponse:
    """A counterparty's message, answered in its own form."""
    return raw(answer.body, status=answer.status, content_type=answer.content_type, headers=dict(answer.headers))
