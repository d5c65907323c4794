"""Templates into pages, each with a policy that names all it may load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, partial
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from sanic.response import HTTPResponse, html

from core.clock import shanghai
from core.institutions import Profile
from core.page_texts import NOTICE_PARTS, page_text
from core.texts import time_text
from miniprogram_api.h5.addresses import page_of
from miniprogram_api.h5.assets import Assets
from miniprogram_api.h5.looks import look_of
from miniprogram_api.requests import NO_BRANCH, ApiRequest

REFRESH_SECONDS = 2
"""A page that waits asks again after so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """Where a waiting page goes by itself, without a script."""

    url: str
    seconds: int = REFRESH_SECONDS
    only_without_script: bool = False


@dataclass(frozen=True, slots=True)
class Renderer:
    assets: Assets

    def page(
        self,
        request: ApiRequest,
        template: str,
        *,
        profile: Profile | None,
        status: int = 200,
        form_token: str = "",
        sign_in_origin: str = "",
        scripts: Sequence[str] = (),
        script_origins: Sequence[str] = (),
        refresh: Refresh | None = None,
        **values: Any,
    ) -> HTTPResponse:
        """`sign_in_origin`: where a form may lead whose session has ended meanwhile."""
        look = look_of(request)
        text = partial(page_text, language=look.language)
        body = (
            environment()
            .get_template(template)
            .render(
                t=text,
                when=partial(moment_text, language=look.language),
                clock=clock_text,
                language=look.language,
                look=look,
                profile=profile,
                hospital=hospital_name(profile, look.language),
                base=f"/h/{quote(profile.code, safe='')}" if profile is not None else "",
                here=page_of(request, profile),
                form_token=form_token,
                styles=[url for name in ("weui.min.css", "h5.css") if (url := self.assets.url(name))],
                scripts=[self.assets.url(name) for name in scripts],
                refresh=refresh,
                **values,
            )
        )
        policy = content_policy(has_scripts=bool(scripts), script_origins=script_origins, form_origin=sign_in_origin)
        return html(body, status=status, headers={"content-security-policy": policy})


def content_policy(*, has_scripts: bool, script_origins: Sequence[str] = (), form_origin: str = "") -> str:
    """The style's own pictures are `data:`; everything else comes from us."""
    scripts = " ".join(("'self'", *script_origins)) if has_scripts else "'none'"
    parts: Mapping[str, str] = {
        "default-src": "'none'",
        "style-src": "'self'",
        "script-src": scripts,
        "connect-src": "'self'" if has_scripts else "'none'",
        "img-src": "'self' data:",
        "form-action": f"'self' {form_origin}".strip(),
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("miniprogram_api.h5"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.globals["notice_parts"] = NOTICE_PARTS
    made.filters["part"] = partial(quote, safe="")
    made.filters["branch"] = lambda branch: quote(branch, safe="") or NO_BRANCH
    return made


def hospital_name(profile: Profile | None, language: str) -> str:
    if profile is None:
        return ""
    return (profile.name_en if language == "en" else "") or profile.name_zh


def moment_text(moment: str, language: str) -> str:
    """A time of the API in the reader's words."""
    return time_text(datetime.fromisoformat(moment), language)


def clock_text(moment: str) -> str:
    """14:05, Shanghai time, in any language."""
    return f"{shanghai(datetime.fromisoformat(moment)):%H:%M}"


def day_text(day: date | None, language: str) -> str:
    if day is None:
        return ""
    return day.isoformat() if language == "en" else f"{day.year}年{day.month}月{day.day}日"


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
