"""`zhenfu label`: a label for one bill, asked from a HIS on loopback, read by a scanner's code."""

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
from simulators.hospital import HospitalSimulator
from simulators.kit import create_app
from tests.miniprogram_api.test_papers_labels import found, read, texts_of
from tests.runtime.environment import environment, marked
from tests.runtime.test_cli import complaint
from tests.support.command import zhenfu
from tests.support.postgres import Database
from tests.support.redis import RedisServer
from tests.support.serving import serve

pytestmark = pytest.mark.timeout(180)

PAPER_KEY = "a-key-for-papers-of-at-least-32-characters"


@pytest.mark.parametrize("paper_code", ["his_makes", "his_asks", "barcode"])
async def test_a_label_is_written_and_read(
    database: Database, redis_server: RedisServer, tmp_path: Path, paper_code: str
) -> None:
    values = environment(database, REDIS_URL=redis_server.url)
    await marked(database, values)
    settings = read_settings(values)
    simulator = HospitalSimulator(clock=OffsetClock(tmp_path / "offset"), faults=Faults(seed=7), seed=7)
    bill = simulator.issue_bill("P10001", total_fen=8650)
    async with serve(create_app(simulator)) as base_url:
        async with opened(database.app_dsn, pool_max=1):
            setup = Setup(Ids(clock_of(settings)), settings.keyring())
            institution = await setup.institution(code="renhe", name_zh="仁和医院", settings={"paper_code": paper_code})
            params = {
                "key_id": simulator.key_id,
                "secret": simulator.keys[simulator.key_id],
                "paper_key": PAPER_KEY,
            }
            await setup.hospital_site(institution, base_url=base_url, params=params)

        async def run(bill: str, out: Path, code: str = "renhe") -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(
                zhenfu, values, "label", "--institution", code, "--bill", bill, "--out", str(out)
            )

        picture, page = tmp_path / "label.svg", tmp_path / "label.html"
        done = await run(bill, picture)
        assert (done.returncode, done.stderr) == (0, "")
        url = done.stdout.strip()
        assert url.startswith(f"https://pay.hospital.example/p/{'h1.' if paper_code == 'his_makes' else ''}")
        codes = read(picture.read_text())
        assert (found(codes, "qr"), found(codes, "code128")) == (url, bill)
        assert texts_of(picture.read_text())[2] == "王*兰"
        assert (await run(bill, page)).stdout.strip() == url
        assert picture.read_text() in page.read_text()
        if paper_code != "his_makes":  # what is refused does not depend on the code
            return
        assert "no bill 'CF0'" in complaint(await run("CF0", page))
        assert complaint(await run(bill, page, "nowhere")) == "there is no institution 'nowhere'"
        assert "cannot be written" in complaint(await run(bill, tmp_path / "nowhere" / "label.svg"))
