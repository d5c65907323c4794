"""The sandbox as a newcomer meets it: one command, one address, a bill paid, everything gone afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from core.errors import ConfigurationError
from runtime.sandbox_lan import for_real_phones, lan_address, with_door
from runtime.sandbox_places import Places

METHOD = "wechatpay/miniprogram/wechat"
START_SECONDS = 45.0
CONSENT = {"version": "1", "agreed": True}

pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    folder: Path
    url: str

    def children(self) -> dict[int, str]:
        """Everything that this sandbox has started, by its process id."""
        found: dict[int, str] = {}
        parents = {self.process.pid}
        for _ in range(3):
            for entry in Path("/proc").iterdir():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except (OSError, NotADirectoryError):
                    continue
                if int(fields[1]) in parents and fields[0] != "Z":
                    found[int(entry.name)] = line
            parents |= set(found)
        return found


def begin(folder: Path) -> Running:
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli", "sandbox", "--folder", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    timer = time.monotonic()
    line = process.stdout.readline().strip()  # the only one it prints
    if not line.startswith("http://127.0.0.1:"):
        _, errors = process.communicate(timeout=10)
        log = folder / "zhenfu.log"
        pytest.fail(f"no address: {line} {errors}\n{log.read_text() if log.exists() else ''}")
    assert time.monotonic() - timer < START_SECONDS
    return Running(process, folder, line.rstrip("/"))


def gone(pids: set[int]) -> bool:
    """Whether all of these have ended; whoever waits for nobody's children sees zombies as ended too."""

    def alive(pid: int) -> bool:
        try:
            return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Beside pytest's own folders: each run of root's closes those to PostgreSQL's unprivileged user.
    with tempfile.TemporaryDirectory(prefix="zhenfu-sandbox-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "hospital"


@pytest.fixture(scope="module")
def sandbox(home: Path) -> Iterator[Running]:
    running = begin(home)
    children = set(running.children())
    try:
        yield running
    finally:
        children |= set(running.children())
        running.process.send_signal(signal.SIGINT)  # Ctrl-C
        code = running.process.wait(timeout=30)
        assert running.process.stdout is not None
        rest = running.process.stdout.read()
        running.process.stdout.close()
        assert running.process.stderr is not None
        errors = running.process.stderr.read()
        running.process.stderr.close()
    assert (code, rest, errors) == (0, "", "")
    assert gone(children)


@dataclass
class Player:
    """One of the ready people at the page."""

    http: aiohttp.ClientSession
    url: str
    key: str = ""
    token: str = ""

    async def act(self, name: str, **asked: Any) -> dict[str, Any]:
        async with self.http.post(f"{self.url}/api/{name}", json={"person": self.key, **asked}) as answer:
            value: dict[str, Any] = await answer.json()
            assert answer.status == 200, value
            return value

    async def state(self) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/api/state", params={"person": self.key}) as answer:
            value: dict[str, Any] = await answer.json()
            assert answer.status == 200, value
            return value

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The mini program's request to the product, through the page's line."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        async with self.http.request(
            method, f"{self.url}/phone-api/api/v1/{path}", json=body, headers=headers
        ) as answer:
            value = await answer.json()
            assert answer.status in {200, 201}, (answer.status, value)
            return value

    async def sign_in(self, page: dict[str, Any]) -> None:
        code = (await self.act("phone/login-code"))["code"]
        body = {"institution": page["institution"], "app_id": page["miniprogram_app_id"], "code": code}
        self.token = (await self.ask("POST", "sessions", body))["token"]

    async def bind(self, person: dict[str, Any]) -> str:
        body = {
            "name": person["name"],
            "identifier": {"type": person["identifier_type"], "value": person["identifier"]},
            "phone_code": (await self.act("phone/phone-code"))["code"],
            "consent": CONSENT,
        }
        bound: str = (await self.ask("POST", "patients", body))["patient_id"]
        return bound

    async def until(self, reached: Any, *, seconds: float = 30) -> dict[str, Any]:
        """The page's state once `reached` is true of it."""
        deadline = time.monotonic() + seconds
        while not reached(state := await self.state()):
            assert time.monotonic() < deadline, state
            await asyncio.sleep(0.1)
        return state


async def page_of(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """What the page hands to its scripts."""
    async with http.get(url) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None, text
    value: dict[str, Any] = json.loads(found[1])
    return value


async def test_a_newcomer_pays_a_first_bill_and_all_books_agree(sandbox: Running) -> None:
    async with aiohttp.ClientSession() as http:
        page = await page_of(http, sandbox.url)
        person = page["people"][0]
        player = Player(http, sandbox.url, person["key"])
        await player.sign_in(page)
        patient_id = await player.bind(person)
        bill_id = (await player.act("desk/issue", kind="western", amount="86.50"))["bill_id"]
        await player.until(lambda state: any("待缴费" in message["title"] for message in state["messages"]))

        listed = await player.ask("GET", f"patients/{patient_id}/bills")
        assert bill_id in str(listed)
        started = await player.ask(
            "POST",
            "payments",
            {
                "patient_id": patient_id,
                "bills": [{"branch": "", "bill_id": bill_id}],
                "shown_fen": 8650,
                "method": METHOD,
            },
            idempotency_key="first",
        )
        params = started["pay"]["values"]
        sheet = await player.act("phone/pay-sheet", params=params)
        assert (sheet["order_no"], sheet["amount_fen"]) == (started["order_no"], 8650)
        assert (await player.act("phone/pay", params=params, how="confirm"))["result"] == "paid"

        state = await player.until(lambda state: any("缴费成功" in message["title"] for message in state["messages"]))
        assert state["ours_known"]
        assert not state["cases"]
        payment = await player.ask("GET", f"payments/{started['order_no']}")
        assert payment["status"] == "paid", payment
        assert state["totals"]["ours_fen"] == state["totals"]["his_fen"] == state["totals"]["wechatpay_fen"] == 8650

        await player.act("desk/window-reverse", bill_id=bill_id, money_by="hospital_cash")
        state = await player.until(lambda state: state["rows"][0]["ours"]["word"] == "已退费")
        (row,) = state["rows"]
        assert (row["verdict"], row["his"]["word"], row["off"]) == ("agree", "已红冲", [])
        assert set(state["totals"].values()) == {8650}  # the phone's money is where it was


async def test_killed_programs_are_back_and_the_next_bill_is_announced(sandbox: Running) -> None:
    before = sandbox.children()
    worker = next(int(line.rpartition(":")[2]) for line in _log(sandbox) if "program=worker@" in line)
    web = next(int(line.rpartition(":")[2]) for line in _log(sandbox) if "program=web@" in line)
    redis = next(pid for pid, line in before.items() if "runtime.embedded_redis" in line)
    postgres = next(pid for pid, line in before.items() if "/bin/postgres -D" in line)
    assert {worker, web} <= set(before)
    for pid in (worker, web, redis, postgres):
        os.kill(pid, signal.SIGKILL)
    assert gone({worker, web, redis, postgres})
    async with aiohttp.ClientSession() as http:
        page = await page_of(http, sandbox.url)
        person = next(person for person in page["people"][1:] if person["is_patient"])
        player = Player(http, sandbox.url, person["key"])
        for attempt in range(100):
            try:
                await player.sign_in(page)
                break
            except AssertionError:
                assert attempt < 99
                await asyncio.sleep(0.1)
        await player.bind(person)
        await player.act("desk/issue", kind="treatment", amount="20")
        await player.until(lambda state: any("待缴费" in message["title"] for message in state["messages"]))


def test_a_second_sandbox_in_the_same_folder_says_where_the_first_one_is(sandbox: Running) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "runtime.cli", "sandbox", "--folder", str(sandbox.folder), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 78
    assert second.stdout == ""
    assert second.stderr == f"zhenfu: a sandbox already runs in {sandbox.folder} at {sandbox.url}\n"


async def test_a_paper_of_the_his_opens_in_the_product_until_the_hospital_decides_otherwise(sandbox: Running) -> None:
    async with aiohttp.ClientSession() as http:
        page = await page_of(http, sandbox.url)
        player = Player(http, sandbox.url, page["people"][0]["key"])
        bill_id = (await player.act("desk/issue", kind="western"))["bill_id"]

        async def content() -> str:
            async with http.get(f"{sandbox.url}/api/papers") as answer:
                papers = {paper["bill_id"]: paper for paper in (await answer.json())["papers"]}
            return str(papers[bill_id]["content"])

        address = await content()
        assert address.startswith(f"{page['product_url']}/p/h1.")
        assert await status_of(http, address) == 302  # to the platform, to learn who scans
        assert await status_of(http, address[:-1] + ("B" if address[-1] == "A" else "A")) == 404
        await player.act("desk/paper", mode="barcode")
        assert await content() == bill_id
        assert await status_of(http, address) == 404
        await player.act("desk/paper", mode="his_asks")
        asked = await content()
        assert asked.startswith(f"{page['product_url']}/p/")
        assert "/h1." not in asked
        assert await status_of(http, asked) == 302
        await player.act("desk/paper", mode="his_makes", factor="none")
        assert (await player.state())["paper"] == {"mode": "his_makes", "factor": "none"}
        assert await status_of(http, address) == 302


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    headers = {"user-agent": "MicroMessenger/8.0"}
    async with http.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
        return answer.status


async def test_the_account_hears_what_people_write(sandbox: Running) -> None:
    async with aiohttp.ClientSession() as http:
        page = await page_of(http, sandbox.url)
        person = next(person for person in page["people"] if person["name"] == "林志成")
        player = Player(http, sandbox.url, person["key"])
        await player.act("phone/hand", number=2)
        await player.until(lambda state: state["phones"][1]["menu"])
        for _ in range(100):  # the platform has seen our address answer
            await player.act("chat/say", text="缴费")
            state = await player.state()
            if any(entry["via"] in {"reply", "custom"} for entry in state["phones"][1]["entries"]):
                break
            await asyncio.sleep(0.3)
        state = await player.until(lambda state: "绑定" in str(state["phones"][1]["entries"]))
        assert person["name"] not in str(state["phones"][1]["entries"])


def test_real_phones_reach_the_page_and_the_phones_and_nothing_else() -> None:
    places = Places.reserved(0, page_host="127.0.0.2")
    try:
        hosts = {each.name: getattr(places, each.name).getsockname()[0] for each in fields(places)}
    finally:
        places.close()
    assert {name for name, host in hosts.items() if host != "127.0.0.1"} == {"console", "phone_1", "phone_2"}


def test_real_phones_are_told_the_address_that_was_named() -> None:
    assert lan_address("192.168.1.20") == "192.168.1.20"
    said = for_real_phones("http://192.168.1.20:8800", "secret")
    assert "http://192.168.1.20:8800/phone/1?door=secret" in said
    assert "http://192.168.1.20:8800/phone/2?door=secret" in said
    assert "演示环境" in said
    assert "█" in said


def test_the_page_of_this_computer_alone_has_no_secret() -> None:
    assert with_door("http://127.0.0.1:8800", "/", "") == "http://127.0.0.1:8800/"


@pytest.mark.parametrize("asked", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
def test_it_never_listens_on_every_network_of_the_computer(asked: str) -> None:
    with pytest.raises(ConfigurationError, match="every network"):
        lan_address(asked)


def test_its_keys_are_readable_by_their_owner_alone(sandbox: Running) -> None:
    keys = sandbox.folder / "keys.json"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600


def test_it_dies_whole_when_it_is_killed(home: Path) -> None:
    folder = home.parent / "other"
    running = begin(folder)
    children = set(running.children())
    assert len(children) >= 5  # PostgreSQL with its own, Redis, world, web, worker
    running.process.kill()
    running.process.wait()
    for stream in (running.process.stdout, running.process.stderr):
        assert stream is not None
        stream.close()
    assert gone(children)


def _log(sandbox: Running) -> list[str]:
    return (sandbox.folder / "zhenfu.log").read_text().splitlines()
