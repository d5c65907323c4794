"""`zhenfu staff`: somebody is entered, gets a key once, another one, other roles, and an end."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from core.errors import ConfigurationError, NotSignedIn
from core.ids import Ids
from runtime.database import database as opened
from runtime.programs import clock_of, wire
from runtime.settings import read_settings
from runtime.setup import Setup
from tests.runtime.environment import environment, marked
from tests.runtime.test_cli import complaint
from tests.support.command import zhenfu
from tests.support.postgres import Database
from tests.support.redis import RedisServer

pytestmark = pytest.mark.timeout(180)


def test_where_the_staff_api_lies_is_a_setting(database: Database) -> None:
    values = environment(database)
    assert read_settings(values).staff_path == "/staff"
    assert read_settings(values | {"ZHENFU_STAFF_PATH": "off"}).staff_path == ""
    assert read_settings(values | {"ZHENFU_STAFF_PATH": "/hospital/staff"}).staff_path == "/hospital/staff"
    for wrong in ("staff", "/", "/Staff", "/a/../b", "/a?b"):
        with pytest.raises(ConfigurationError, match="ZHENFU_STAFF_PATH"):
            read_settings(values | {"ZHENFU_STAFF_PATH": wrong})


async def test_a_member_of_staff_is_entered_and_ended(database: Database, redis_server: RedisServer) -> None:
    values = environment(database, REDIS_URL=redis_server.url)
    await marked(database, values)
    settings = read_settings(values)

    async def run(action: str, *more: str, institution: str = "renhe") -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(zhenfu, values, "staff", action, "--institution", institution, *more)

    wired = wire(settings, "test")
    try:
        async with opened(database.app_dsn, pool_max=1):
            await Setup(Ids(clock_of(settings)), settings.keyring()).institution(code="renhe", name_zh="仁和医院")
            added = await run("add", "1001", "--name", "钱出纳", "--role", "look", "--role", "attest")
            assert (added.returncode, added.stderr) == (0, "")
            first = added.stdout.strip().splitlines()[-1]
            assert (await wired.services.staff.authenticate(first)).roles == {"look", "attest"}

            shown = (await run("list")).stdout
            assert "1001" in shown
            assert "attest look" in shown
            assert first not in shown

            second = (await run("key", "1001")).stdout.strip().splitlines()[-1]
            with pytest.raises(NotSignedIn):
                await wired.services.staff.authenticate(first)
            assert "approve_refund" in (await run("roles", "1001", "--role", "approve_refund")).stdout
            assert (await wired.services.staff.authenticate(second)).roles == {"approve_refund"}
            assert (await run("off", "1001")).returncode == 0
            with pytest.raises(NotSignedIn):
                await wired.services.staff.authenticate(second)

            assert "somebody's already" in complaint(await run("add", "1001", "--name", "x", "--role", "look"))
            assert "--role is one of" in complaint(await run("add", "1002", "--name", "x", "--role", "king"))
            assert "nobody has that code" in complaint(await run("off", "1002"))
            assert "no institution" in complaint(await run("list", institution="nowhere"))
    finally:
        await wired.finish()
