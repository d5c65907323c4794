"""The application on a simulated hospital, and phones that use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from sanic import Sanic

from miniprogram_api.app import build_app
from tests.miniprogram_api.phone import Phone, Post
from tests.miniprogram_api.web import H5_METHOD, WECHAT, Web
from tests.support.house import PUBLIC_URL, House

SESSION_KEY = b"k" * 32
PAGE_WAIT_SECONDS = 0.4
TAP_WAIT_SECONDS = 8.0

Serve = Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]
NewPhone = Callable[..., Awaitable[Phone]]
NewWeb = Callable[..., Awaitable[Web]]


@pytest.fixture
def his() -> dict[str, Any]:
    """What the HIS cannot do; a test that is about it says so by parametrising this."""
    return {}


@pytest.fixture
async def house(tortoise: object, his: dict[str, Any]) -> House:
    return await House.build(**his)


@pytest.fixture
def tap_wait_seconds() -> float:
    """How long what a tap has begun is waited for; a test that is about it says so by parametrising this."""
    return TAP_WAIT_SECONDS


@pytest.fixture
async def base_url(house: House, serve: Serve, tap_wait_seconds: float) -> AsyncIterator[str]:
    app = build_app(
        house.services,
        session_key=SESSION_KEY,
        page_wait_seconds=PAGE_WAIT_SECONDS,
        tap_wait_seconds=tap_wait_seconds,
    )
    async with serve(app) as url:
        yield url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def new_phone(house: House, base_url: str, http: aiohttp.ClientSession) -> NewPhone:
    """`await new_phone()`: a person on the chat platform who has opened the mini program and signed in."""

    async def new(name: str = "王秀兰", phone: str = "19900000001", *, signed_in: bool = True) -> Phone:
        user = house.chat.add_user(name, phone=phone)
        made = Phone(house=house, base_url=base_url, http=http, user=user, app_id=house.mini_app_id)
        if signed_in:
            await made.sign_in()
        return made

    return new


@pytest.fixture
def post(house: House, base_url: str, http: aiohttp.ClientSession) -> Post:
    return Post(house, base_url, http)


@pytest.fixture
async def phone(new_phone: NewPhone) -> Phone:
    """The elder's phone, signed in."""
    return await new_phone()


@pytest.fixture
async def new_web(house: House, base_url: str) -> AsyncIterator[NewWeb]:
    """`await new_web()`: a person's browser inside the chat app; the official account signs in and takes payment."""
    house.chat.set_web_domain(house.service_app_id, urlsplit(PUBLIC_URL).netloc)
    await house.setup.payment_method(
        house.institution_id,
        merchant_account_id=house.merchant_account_id,
        code=H5_METHOD,
        app_id=house.service_app_id,
    )
    async with AsyncExitStack() as stack:

        async def new(name: str = "王秀兰", phone: str = "19900000001", *, agent: str = WECHAT) -> Web:
            jar = aiohttp.CookieJar(unsafe=True)
            http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            user = house.chat.add_user(name, phone=phone)
            return Web(house=house, base_url=base_url, http=http, user=user, agent=agent)

        yield new


@pytest.fixture
async def web(new_web: NewWeb) -> Web:
    """The elder's browser."""
    return await new_web()
