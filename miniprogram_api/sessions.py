"""Signing in."""

from __future__ import annotations

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.errors import PlatformUnavailable
from miniprogram_api import views
from miniprogram_api.limits import SIGN_IN
from miniprogram_api.requests import ApiRequest, language, reply
from miniprogram_api.room import Room
from miniprogram_api.schemas import SignIn, read


def blueprint(room: Room) -> Blueprint:
    sessions = Blueprint("sessions", url_prefix="/api/v1/sessions")

    @sessions.post("/")
    async def sign_in(request: ApiRequest) -> HTTPResponse:
        body = read(SignIn, request)
        await room.limits.check(SIGN_IN, f"{body.institution}:{request.remote_addr or request.ip}")
        token, expires_at = await room.running.in_time(
            room.tap_seconds,
            room.auth.sign_in(
                institution=body.institution, app_id=body.app_id, code=body.code, language=language(request)
            ),
            late=PlatformUnavailable(),
        )
        return reply(views.session(token, expires_at), 201)

    return sessions
