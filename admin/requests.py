"""What a request and an answer are in this room: a key in the header, JSON, never cached."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from sanic import Request
from sanic.response import HTTPResponse, raw

from core.errors import InvalidRequest, NotFound, NotSignedIn
from core.paging import PAGE_DEFAULT, PAGE_MAX, Place, place_from
from core.texts import language_of

StaffRequest = Request[Any, Any]

TEXT_LENGTH_MAX = 128
KIND_LENGTH_MAX = 48
HEADERS = {"cache-control": "no-store"}


def language(request: StaffRequest) -> str:
    """The language of whoever asks, "zh" or "en"."""
    return language_of(str(request.headers.get("accept-language", "")))


def reply(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    return raw(
        orjson.dumps(value), status=status, headers={**HEADERS, **(headers or {})}, content_type="application/json"
    )


def request_id(request: StaffRequest) -> str:
    """Under which this request stands in the log; the server has given it one, or it gets one now."""
    return str(getattr(request.ctx, "request_id", "") or secrets.token_hex(8))


def key_of(request: StaffRequest) -> str:
    """Raises NotSignedIn."""
    scheme, _, key = str(request.headers.get("authorization", "")).partition(" ")
    if scheme.lower() != "bearer":
        raise NotSignedIn()
    return key.strip()


def idempotency_key(request: StaffRequest) -> str:
    """Raises InvalidRequest."""
    text = str(request.headers.get("idempotency-key", ""))
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not (text.isascii() and text.isprintable()):
        raise InvalidRequest(field="Idempotency-Key", problem=f"1 to {TEXT_LENGTH_MAX} characters are needed")
    return text


def id_in_path(text: str) -> UUID:
    """Raises NotFound."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound() from None


def number_in_path(text: str) -> str:
    """One of our numbers. Raises NotFound for what cannot be one."""
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not text.isprintable():
        raise NotFound()
    return text


def word(request: StaffRequest, name: str, *, length_max: int = TEXT_LENGTH_MAX) -> str:
    """A text of the query, empty when it is not there. Raises InvalidRequest."""
    text = str(request.args.get(name, ""))
    if len(text) > length_max or not text.isprintable():
        raise InvalidRequest(field=name, problem="has the wrong form")
    return text


def place(request: StaffRequest, name: str) -> Place | None:
    """Where the list goes on. Raises InvalidRequest."""
    return place_from(word(request, name), name)


def limit(request: StaffRequest) -> int:
    """How many of a list. Raises InvalidRequest."""
    text = word(request, "limit") or str(PAGE_DEFAULT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= PAGE_MAX):
        raise InvalidRequest(field="limit", problem=f"is a number from 1 to {PAGE_MAX}")
    return int(text)
