"""A flood of chat pushes on one web process: is every one answered within the platform's five seconds?

`python -m bench.flood`. The pushes are signed and sealed as the platform does it and arrive when they arrive,
whether or not earlier ones have been answered (an open model); a tenth of them come twice. Counterparties,
PostgreSQL and Redis run on the same machine, as in the sandbox, and share its processors with the sender.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from core.ids import Ids
from core.models import Message, Payment
from core.ports import ChatIdentity, Identifier, IdentifierType
from core.services import Services
from core.tenancy import across_institutions
from runtime import logs
from runtime.child_processes import LOOPBACK
from runtime.database import database, migrate
from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, EmbeddedPostgres
from runtime.embedded_redis import EmbeddedRedis
from runtime.listening import serving
from runtime.programs import run_server, wire
from runtime.settings import Settings
from runtime.setup import Setup, mark_deployment
from runtime.sockets import reserve
from runtime.supervisor import Program, Ready, Supervisor
from simulators.clock import OffsetClock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.hospital_stock import READY_PEOPLE
from simulators.kit import create_app
from simulators.wechat import WechatPlatformSimulator
from simulators.wechat_cipher import seal, signature

PLATFORM_SECONDS = 5.0
PUSH_TOKEN, AES_KEY = "tokenOfTheFlood", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
PEOPLE, PATIENTS_BOUND = 600, 200
MIX = (
    ("text", "缴费", 40),
    ("text", "查询", 15),
    ("click", "zhenfu.owed", 5),
    ("click", "zhenfu.paid", 5),
    ("text", "人工", 5),
    ("text", "你好，请问几点上班", 10),
    ("voice", "我要交费。", 5),
    ("image", "", 5),
    ("subscribe", "", 10),
)
"""What people do, and how often in a hundred."""


@dataclass(kw_only=True)
class Town:
    """The hospital, the platform and our programs, on sockets that are known before any process begins."""

    folder: Path
    hospital: HospitalSimulator
    wechat: WechatPlatformSimulator
    sockets: dict[str, Any]
    settings: Settings

    def url(self, name: str) -> str:
        host, port = self.sockets[name].getsockname()[:2]
        return f"http://{host}:{port}"

    def world(self, ready: Ready) -> None:
        async def live() -> None:
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            async with AsyncExitStack() as stack:
                for name, simulator in (("hospital", self.hospital), ("wechat", self.wechat)):
                    await stack.enter_async_context(serving(create_app(simulator), self.sockets[name]))
                ready()
                await stop.wait()

        asyncio.run(live())


@dataclass(frozen=True, kw_only=True)
class Sent:
    kind: str
    seconds: float
    result: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zhenfu-flood-")))
        folder.chmod(0o755)
        postgres, redis = EmbeddedPostgres(folder / "postgres"), EmbeddedRedis()
        stack.callback(postgres.stop)
        stack.callback(redis.stop)
        redis.begin()
        postgres.start(die_with_us=True)
        town = a_town(folder, postgres, redis)
        logs.to("flood", file=folder / "log", human=True)
        asyncio.run(prepare(town))
        supervisor = Supervisor(
            [
                Program(name="world", run=town.world),
                Program(
                    name="web", run=lambda ready: run_server(town.settings, ready, programs=2, on=town.sockets["web"])
                ),
            ]
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        supervisor.wait_until_ready(60)
        pid = supervisor.pids()["web"]
        return asyncio.run(flood(town, pid, arguments.pushes, arguments.seconds, random.Random(arguments.seed)))


def a_town(folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Town:
    postgres.create_database("flood")
    address = redis.start()
    sockets = {name: reserve(LOOPBACK, 0) for name in ("web", "hospital", "wechat")}
    for each in sockets.values():
        each.set_inheritable(True)
    clock = OffsetClock(folder / "offset")
    host, port = sockets["web"].getsockname()[:2]
    settings = Settings(
        database_url=postgres.dsn("flood", APP_ROLE),
        owner_database_url=postgres.dsn("flood", OWNER_ROLE),
        deployment_id="flood",
        redis_url=f"redis://{address.host}:{address.port}/0",
        public_url=f"http://{host}:{port}",
        host=host,
        port=port,
        keys={"k": os.urandom(32)},
        current_key="k",
        lookup_key=os.urandom(32),
        session_key=os.urandom(32),
    )
    faults = Faults()
    return Town(
        folder=folder,
        hospital=HospitalSimulator(clock=clock, faults=faults, seed=1),
        wechat=WechatPlatformSimulator(clock=clock, faults=faults, seed=1),
        sockets=sockets,
        settings=settings,
    )


async def prepare(town: Town) -> None:
    """One institution with its HIS and its official account, and two bills for each patient."""
    settings, keyring = town.settings, town.settings.keyring()
    await migrate(settings.owner_database_url)
    await mark_deployment(settings.owner_database_url, settings.deployment_id, keyring)
    wired = wire(settings, "bench")
    async with database(settings.database_url, pool_max=1):
        setup = Setup(Ids(wired.services.outside.clock), keyring)
        institution_id = await setup.institution(code="renhe", name_zh="仁和医院", phone="010-00000000")
        his = town.hospital
        await setup.hospital_site(
            institution_id,
            base_url=town.url("hospital"),
            params={"key_id": his.key_id, "secret": his.keys[his.key_id]},
        )
        account = town.wechat.add_official_account("仁和医院")
        await setup.chat_account(
            institution_id,
            platform="wechat_service",
            app_id=account.app_id,
            params={
                "secret": account.secret,
                "base_url": town.url("wechat"),
                "connection": "own",
                "push_token": PUSH_TOKEN,
                "push_aes_key": AES_KEY,
            },
        )
    for person in READY_PEOPLE:
        for _ in range(2):
            town.hospital.issue_bill(person.patient_id, total_fen=8650)
    await wired.finish()


async def flood(town: Town, pid: int, pushes: int, seconds: float, rng: random.Random) -> int:
    app = next(iter(town.wechat.record.apps.values()))
    wired = wire(town.settings, "bench")
    people = [f"o{number:027d}" for number in range(PEOPLE)]
    async with database(town.settings.database_url, pool_max=2):
        await bind(wired.services, app.app_id, people[:PATIENTS_BOUND])
        with across_institutions("a measurement"):
            from core.models import ChatAccountRow

            row = await ChatAccountRow.get(app_id=app.app_id)
        url = f"{town.url('web')}/wx/{row.callback_token}"
        planned = sorted((rng.random() * seconds, number) for number in range(pushes))
        bodies = [a_push(rng, app, rng.choice(people), number) for number in range(pushes)]
        for number in rng.sample(range(1, pushes), pushes // 10):
            bodies[number] = bodies[number - 1]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            for number in range(20):  # connections, plans and tokens are there before it begins
                await send(http, url, a_push(rng, app, people[number], pushes + number), app, time.perf_counter())
            cpu = processor_seconds(pid)
            began = time.perf_counter() + 0.1
            tasks = []
            for at, number in planned:
                await asyncio.sleep(max(began + at - time.perf_counter(), 0))
                tasks.append(asyncio.create_task(send(http, url, bodies[number], app, began + at)))
            sent = await asyncio.gather(*tasks)
            took = time.perf_counter() - began
            cpu = processor_seconds(pid) - cpu
        with across_institutions("a measurement"):
            payments, later = await Payment.all().count(), await Message.filter(kind="chat_answer").count()
    await wired.finish()
    print(f"the web process used {cpu:.1f} s of a processor, {cpu / len(sent) * 1000:.1f} ms for each push")
    return report(sent, took, payments=payments, later=later)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bind(services: Services, app_id: str, open_ids: list[str]) -> None:
    """These people have bound a patient of the hospital."""
    institutions = services.institutions
    profile = await institutions.profile_by_code("renhe")
    account = await institutions.chat_account_by_app(profile.id, app_id)
    ready = [person for person in READY_PEOPLE if person.phones and person.identifiers[0][0] == "id_card"]
    for number, open_id in enumerate(open_ids):
        person = ready[number % len(ready)]
        type_, value = person.identifiers[0]
        payer = await services.patients.payer_for(account, ChatIdentity(open_id=open_id, union_id=f"u{number}"))
        await services.patients.bind(
            payer,
            name=person.name,
            identifier=Identifier(type=IdentifierType(type_), value=value),
            phone=person.phones[0],
        )


def a_push(rng: random.Random, app: Any, open_id: str, number: int) -> dict[str, str]:
    """A push as the platform sends it in safe mode: query, body and what kind it is."""
    (kind, said, _), *_ = rng.choices(MIX, weights=[weight for *_, weight in MIX])
    now = int(time.time())
    about = {
        "text": f"<MsgType>text</MsgType><Content><![CDATA[{said}]]></Content><MsgId>{10**17 + number}</MsgId>",
        "voice": f"<MsgType>voice</MsgType><MediaId>m</MediaId><Recognition><![CDATA[{said}]]></Recognition>"
        f"<MsgId>{10**17 + number}</MsgId>",
        "image": f"<MsgType>image</MsgType><PicUrl>p</PicUrl><MediaId>m</MediaId><MsgId>{10**17 + number}</MsgId>",
        "click": f"<MsgType>event</MsgType><Event>CLICK</Event><EventKey>{said}</EventKey>",
        "subscribe": "<MsgType>event</MsgType><Event>subscribe</Event><EventKey></EventKey>",
    }[kind]
    document = (
        f"<xml><ToUserName>{app.original_id}</ToUserName><FromUserName>{open_id}</FromUserName>"
        f"<CreateTime>{now - number % 60}</CreateTime>{about}</xml>"
    )
    sealed = seal(AES_KEY, app.app_id, document.encode(), rng.randbytes(16))
    nonce = str(rng.randrange(10**9))
    return {
        "kind": f"{kind} {said}".strip(),
        "open_id": open_id,
        "query": f"signature={signature(PUSH_TOKEN, str(now), nonce)}&timestamp={now}&nonce={nonce}&openid={open_id}"
        f"&encrypt_type=aes&msg_signature={signature(PUSH_TOKEN, str(now), nonce, sealed)}",
        "body": f"<xml><ToUserName>{app.original_id}</ToUserName><Encrypt>{sealed}</Encrypt></xml>",
    }


async def send(http: aiohttp.ClientSession, url: str, push: dict[str, str], app: Any, due: float) -> Sent:
    """Measured from the moment when it was due, so that a sender that is late hides nothing."""
    try:
        async with http.post(f"{url}?{push['query']}", data=push["body"].encode()) as answer:
            status, body = answer.status, await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Sent(kind=push["kind"], seconds=time.perf_counter() - due, result=type(error).__name__)
    took = time.perf_counter() - due
    if status != 200:
        return Sent(kind=push["kind"], seconds=took, result=f"HTTP {status}")
    if body in {b"success", b""}:
        return Sent(kind=push["kind"], seconds=took, result="success")
    return Sent(kind=push["kind"], seconds=took, result="reply")


def report(sent: list[Sent], took: float, *, payments: int, later: int) -> int:
    times = sorted(each.seconds for each in sent)
    late = sum(each.seconds > PLATFORM_SECONDS for each in sent)
    results = collections.Counter(each.result for each in sent)
    errors = len(sent) - results["reply"] - results["success"]
    cuts = statistics.quantiles(times, n=100)
    print(f"{len(sent)} pushes, all answered {took:.1f} s after the first was due; load {os.getloadavg()[0]:.1f}")
    print(f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms, max {times[-1] * 1000:.0f} ms")
    print(f"answers: {dict(results)}; promised for later: {later}; errors: {errors}; later than 5 s: {late}")
    for kind in sorted({each.kind for each in sent}):
        of_kind = sorted(each.seconds for each in sent if each.kind == kind)
        half, most = of_kind[len(of_kind) // 2], of_kind[-1]
        print(f"  {kind:<20} {len(of_kind):5}  p50 {half * 1000:6.0f} ms  max {most * 1000:6.0f} ms")
    print(f"payments begun by the chat: {payments}")
    return 1 if late or errors or payments else 0


if __name__ == "__main__":
    sys.exit(main())
