"""How a page is shown to this phone: language and size of type, kept in cookies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sanic.response import HTTPResponse

from core.texts import LANGUAGES, language_of
from miniprogram_api.requests import ApiRequest

CARE_COOKIE = "zhenfu_care"
LANGUAGE_COOKIE = "zhenfu_language"
KEPT = timedelta(days=365)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    language: str  # "zh" | "en"
    care: bool  # 关怀模式: large type

    @property
    def html_language(self) -> str:
        return "zh-CN" if self.language == "zh" else "en"


def look_of(request: ApiRequest) -> Look:
    chosen = cookie_of(request, LANGUAGE_COOKIE)
    language = chosen if chosen in LANGUAGES else language_of(str(request.headers.get("accept-language", "")))
    return Look(language=language, care=cookie_of(request, CARE_COOKIE) == "on")


def cookie_of(request: ApiRequest, name: str) -> str:
    """Empty when there is none."""
    return str(request.cookies.get(name) or "")


def keep_cookie(response: HTTPResponse, name: str, value: str, *, is_secure: bool, life: timedelta) -> None:
    """For our pages alone; no script may read it. A life of zero takes it away."""
    response.add_cookie(
        name,
        value,
        path="/",
        httponly=True,
        samesite="Lax",
        secure=is_secure,
        max_age=int(life.total_seconds()),
    )
