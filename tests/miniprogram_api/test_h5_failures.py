"""A page while something of ours is away: words and a button, never a blank page or a program's own text."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ConfigurationError, ServiceUnavailable
from core.institutions import Institutions
from core.paper import Papers
from miniprogram_api.auth import Auth
from tests.miniprogram_api.web import BROWSER, WECHAT, Page, Web

HOME = "/h/renhe/"
FAILURES = [ServiceUnavailable(), ConfigurationError("the key is missing")]
NAMES = ["database", "setting"]


def fails(error: Exception) -> Any:
    async def call(*_: object, **__: object) -> None:
        raise error

    return call


def check_told(page: Page, retry: str) -> None:
    """Status, sentence, button; nothing of the failure itself."""
    assert page.status in (500, 503)
    assert page.headers.get("retry-after") == (None if page.status == 500 else "5")
    assert page.headers["content-type"].startswith("text/html")
    assert "没有办成" in page.text
    assert "款项不会丢失" in page.text
    assert page.link("再试一次") == retry
    assert "refused" not in page.html
    assert "missing" not in page.html


@pytest.mark.parametrize("error", FAILURES, ids=NAMES)
@pytest.mark.parametrize("agent", [WECHAT, BROWSER], ids=["in the app", "outside"])
async def test_whose_page_it_is_cannot_be_read(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, agent: str
) -> None:
    web.agent = agent
    monkeypatch.setattr(Institutions, "profile_by_code", fails(error))
    monkeypatch.setattr(Papers, "read", fails(error))
    check_told(await web.get(f"{HOME}paid"), f"{HOME}paid")
    check_told(await web.get("/p/abc"), "/p/abc")
    logged = [record for record in caplog.records if record.getMessage() == "page_failed"]
    expected = [] if isinstance(error, ServiceUnavailable) else [error, error]  # the engine has logged that one
    assert [record.exc_info[1] for record in logged if record.exc_info] == expected


@pytest.mark.parametrize("error", FAILURES, ids=NAMES)
async def test_the_sign_in_cannot_be_begun(web: Web, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Institutions, "chat_account_on", fails(error))
    page = await web.get(HOME)
    check_told(page, HOME)
    assert "仁和医院" in page.text


@pytest.mark.parametrize("error", FAILURES, ids=NAMES)
async def test_it_fails_between_the_session_and_the_page(
    web: Web, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await web.get(HOME)
    monkeypatch.setattr(Auth, "payer", fails(error))
    check_told(await web.get(HOME), HOME)


async def test_nobody_is_signed_in_and_the_hospital_cannot_be_read_the_second_time(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Institutions.profile_by_code
    asked = 0

    async def breaks(self: Institutions, code: str) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ServiceUnavailable()
        return await once(self, code)

    monkeypatch.setattr(Institutions, "profile_by_code", breaks)
    check_told(await web.get(HOME), HOME)
