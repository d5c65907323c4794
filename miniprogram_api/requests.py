"""What a request and an answer are in this room: typed, numbered, JSON, never cached."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import orjson
from sanic import Request, Sanic
from sanic.config import Config
from sanic.response import HTTPResponse, raw

from core.errors import InvalidRequest, NotFound
from core.services import Services
from core.texts import language_of

TEXT_LENGTH_MAX = 128
NO_BRANCH = "-"
"""How a path writes the empty branch."""

App = Sanic[Config, Services]


class RequestContext(SimpleNamespace):
    """What we know of a request before anything is read from it."""

    request_id: str
    began: float

    def __init__(self) -> None:
        super().__init__(request_id=secrets.token_hex(8), began=time.perf_counter())


class ApiRequest(Request[App, RequestContext]):
    """A request with our own number; a caller's X-Request-ID could be anything."""

    @staticmethod
    def make_context() -> RequestContext:
        return RequestContext()


def language(request: ApiRequest) -> str:
    """The language of the phone, "zh" or "en"."""
    return language_of(str(request.headers.get("accept-language", "")))


def reply(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    return raw(orjson.dumps(value), status=status, headers=dict(headers or {}), content_type="application/json")


def branch_of(text: str) -> str:
    """A branch as it stands in a path. Raises NotFound."""
    return "" if text == NO_BRANCH else path_text(text)


def path_text(text: str) -> str:
    """A number or name from a path: nothing that could not stand in the database. Raises NotFound."""
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not text.isprintable():
        raise NotFound()
    return text


def header_text(request: ApiRequest, name: str) -> str:
    """A compulsory header of printable ASCII. Raises InvalidRequest."""
    text = str(request.headers.get(name, ""))
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not (text.isascii() and text.isprintable()):
        raise InvalidRequest(field=name, problem=f"1 to {TEXT_LENGTH_MAX} characters are needed")
    return text


def lower_case_headers(request: ApiRequest) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in request.headers.items()}
