"""The application with the staff's API on a simulated hospital, and members of staff who call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
from sanic import Sanic

from admin.app import blueprint
from admin.errors import answer
from core.actors import Role
from miniprogram_api.app import build_app
from tests.admin.desk import Desk
from tests.support.house import House

Serve = Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]
NewDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build(settings={"refund_approve_above_fen": 5000})


@pytest.fixture
async def base_url(house: House, serve: Serve) -> AsyncIterator[str]:
    app = build_app(house.services, session_key=b"k" * 32, more=[blueprint(house.services)], answers={"/staff": answer})
    async with serve(app) as url:
        yield url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def new_desk(house: House, base_url: str, http: aiohttp.ClientSession) -> NewDesk:
    """`await new_desk("1001")`: somebody with every role, or those that are named."""

    async def new(code: str = "1001", *roles: Role, institution: Any = None) -> Desk:
        key = await house.services.staff.add(
            institution or house.institution_id, code, f"员工{code}", roles or tuple(Role)
        )
        return Desk(base_url=base_url, http=http, key=key)

    return new
