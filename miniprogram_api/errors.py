"""Our errors as HTTP: the only table, and the one shape in which every error is answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sanic.exceptions import SanicException
from sanic.response import HTTPResponse

from core.errors import InvalidRequest, RequestError
from core.texts import ERRORS, error_text
from miniprogram_api.requests import ApiRequest, language, reply

log = logging.getLogger("zhenfu.api")

STATUS: Mapping[str, int] = {
    "request_error": 400,
    "invalid_request": 400,
    "not_signed_in": 401,
    "patient_not_bound": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "bill_not_payable": 409,
    "amount_changed": 409,
    "payment_open_elsewhere": 409,
    "already_paid": 409,
    "still_working": 409,
    "body_too_large": 413,
    "consent_needed": 422,
    "binding_refused": 422,
    "factor_wrong": 422,
    "phone_code_refused": 422,
    "method_not_available": 422,
    "idempotency_conflict": 422,
    "factor_locked": 429,
    "too_many_requests": 429,
    "internal_error": 500,
    "hospital_unavailable": 503,
    "channel_unavailable": 503,
    "platform_unavailable": 503,
    "service_unavailable": 503,
    "took_too_long": 503,
}
"""Every code that this API answers with. A code never changes its meaning."""

RETRY_AFTER_SECONDS: Mapping[str, int] = {
    "still_working": 2,
    "hospital_unavailable": 30,
    "channel_unavailable": 30,
    "platform_unavailable": 5,
    "service_unavailable": 5,
    "took_too_long": 5,
}

OF_THE_SERVER: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    503: "took_too_long",
}
"""What the web server itself says of a request: its only 503 is the end of its patience with us."""


def answer(request: ApiRequest, exception: Exception) -> HTTPResponse:
    """Any exception as an answer. What we did not expect is logged whole and told as one sentence."""
    if isinstance(exception, RequestError):
        return _refusal(request, exception)
    code = server_code(exception)
    if code is not None and isinstance(exception, SanicException):
        if code == "invalid_request":
            return _refusal(request, InvalidRequest(field="request", problem="is malformed"), exception.status_code)
        allowed = {name: value for name, value in exception.headers.items() if name.lower() == "allow"}
        return _sentence(request, code, allowed)
    log.error("request_failed", exc_info=exception, extra={"fields": {"request_id": request.ctx.request_id}})
    return _sentence(request, "internal_error", {})


def server_code(exception: Exception) -> str | None:
    """Our code for what the web server refuses by itself; None for everything else."""
    if not isinstance(exception, SanicException):
        return None
    return OF_THE_SERVER.get(exception.status_code, "invalid_request" if exception.status_code < 500 else None)


def _refusal(request: ApiRequest, error: RequestError, status: int | None = None) -> HTTPResponse:
    headers = {}
    seconds = error.values.get("retry_after_seconds") or RETRY_AFTER_SECONDS.get(error.code)
    if seconds:
        headers["retry-after"] = str(seconds)
    if error.code == "not_signed_in":
        headers["www-authenticate"] = "Bearer"
    body = {
        **error.values,
        "code": error.code,
        "message": error_text(error, language(request)),
        "request_id": request.ctx.request_id,
    }
    if seconds:
        body["retry_after_seconds"] = seconds
    return reply({"error": body}, status or STATUS[error.code], headers)


def _sentence(request: ApiRequest, code: str, headers: Mapping[str, str]) -> HTTPResponse:
    body: dict[str, str | int] = {
        "code": code,
        "message": ERRORS[code][language(request)],
        "request_id": request.ctx.request_id,
    }
    if seconds := RETRY_AFTER_SECONDS.get(code):
        headers = {**headers, "retry-after": str(seconds)}
        body["retry_after_seconds"] = seconds
    return reply({"error": body}, STATUS[code], headers)
