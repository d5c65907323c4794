"""Our errors as HTTP for staff: the only table, and the one shape in which every error is answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sanic.exceptions import SanicException
from sanic.response import HTTPResponse

from admin.requests import StaffRequest, language, reply, request_id
from core.errors import InvalidRequest, RequestError, StaffError
from core.staff_texts import ERRORS, staff_error_text

log = logging.getLogger("zhenfu.staff")

STATUS: Mapping[str, int] = {
    "invalid_request": 400,
    "not_signed_in": 401,
    "not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "needs_another": 409,
    "already_decided": 409,
    "action_not_possible": 409,
    "refund_not_possible": 409,
    "body_too_large": 413,
    "idempotency_conflict": 422,
    "too_many_requests": 429,
    "internal_error": 500,
    "hospital_unavailable": 503,
    "channel_unavailable": 503,
    "service_unavailable": 503,
    "took_too_long": 503,
}
"""Every code that this API answers with. A code never changes its meaning."""

RETRY_AFTER_SECONDS: Mapping[str, int] = {"service_unavailable": 5, "took_too_long": 5}

_OF_THE_SERVER = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    503: "took_too_long",  # the server's patience with us has ended
}


async def answer(request: StaffRequest, exception: Exception) -> HTTPResponse:
    """Any exception as an answer. What we did not expect is logged whole and told as one sentence."""
    if isinstance(exception, RequestError | StaffError) and exception.code in STATUS:
        return _refusal(request, exception)
    if isinstance(exception, SanicException):
        if code := _OF_THE_SERVER.get(exception.status_code):
            allowed = {name: value for name, value in exception.headers.items() if name.lower() == "allow"}
            return _sentence(request, code, allowed)
        if exception.status_code < 500:
            return _refusal(request, InvalidRequest(field="request", problem="is malformed"))
    log.error("request_failed", exc_info=exception, extra={"fields": {"request_id": request_id(request)}})
    return _sentence(request, "internal_error", {})


def _refusal(request: StaffRequest, error: RequestError | StaffError) -> HTTPResponse:
    headers = {}
    if seconds := error.values.get("retry_after_seconds") or RETRY_AFTER_SECONDS.get(error.code):
        headers["retry-after"] = str(seconds)
    if error.code == "not_signed_in":
        headers["www-authenticate"] = "Bearer"
    message = staff_error_text(error, language(request))
    body = {**error.values, "code": error.code, "message": message, "request_id": request_id(request)}
    return reply({"error": body}, STATUS[error.code], headers)


def _sentence(request: StaffRequest, code: str, headers: Mapping[str, str]) -> HTTPResponse:
    body = {"code": code, "message": ERRORS[code][language(request)], "request_id": request_id(request)}
    if seconds := RETRY_AFTER_SECONDS.get(code):
        headers = {**headers, "retry-after": str(seconds)}
    return reply({"error": body}, STATUS[code], headers)
