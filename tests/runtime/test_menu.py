"""`zhenfu menu`: published, shown and removed by an operator, at a platform on loopback."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from core.ids import Ids
from runtime.database import database as opened
from runtime.programs import clock_of
from runtime.settings import read_settings
from runtime.setup import Setup
from simulators.clock import OffsetClock
from simulators.faults import Faults
from simulators.kit import create_app
from simulators.wechat import WechatPlatformSimulator
from tests.runtime.environment import environment, marked
from tests.runtime.test_cli import complaint
from tests.support.command import zhenfu
from tests.support.postgres import Database
from tests.support.redis import RedisServer
from tests.support.serving import serve

pytestmark = pytest.mark.timeout(180)


async def test_a_menu_is_published_shown_and_removed_and_nobody_elses_is_touched(
    database: Database, redis_server: RedisServer, tmp_path: Path
) -> None:
    values = environment(database, REDIS_URL=redis_server.url)
    await marked(database, values)
    settings = read_settings(values)
    platform = WechatPlatformSimulator(clock=OffsetClock(tmp_path / "offset"), faults=Faults(seed=7), seed=7)
    official = platform.add_official_account("仁和医院")
    async with serve(create_app(platform)) as base_url:
        async with opened(database.app_dsn, pool_max=1):
            setup = Setup(Ids(clock_of(settings)), settings.keyring())
            institution = await setup.institution(code="renhe", name_zh="仁和医院")
            await setup.chat_account(
                institution,
                platform="wechat_service",
                app_id=official.app_id,
                params={"secret": official.secret, "base_url": base_url, "connection": "none"},
                templates={},
            )

        async def menu(*arguments: str, code: str = "renhe") -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(zhenfu, values, "menu", *arguments, "--institution", code)

        published = await menu("publish")
        assert (published.returncode, published.stderr) == (0, "")
        assert "缴费 → view https://pay.hospital.example/h/renhe/" in published.stdout
        assert (await menu("show")).stdout == published.stdout
        assert (await menu("remove")).stdout == "no menu\n"
        official.menu = [{"type": "view", "name": "挂号", "url": "https://other.test/", "sub_button": []}]
        for action in ("publish", "remove"):
            assert "not ours: 挂号; --replace" in complaint(await menu(action))
        assert "挂号" in (await menu("show")).stdout
        assert (await menu("remove", "--replace")).stdout == "no menu\n"
        assert official.menu == []
        assert complaint(await menu("show", code="nobody")) == "there is no institution 'nobody'"
