"""Each thing that a hospital's IT can get wrong is a line that says so and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from sanic import Sanic

from bench.ledger_data import fill
from core.ids import Ids
from core.ledger import ledger_key
from core.ports import NOTICE_KINDS
from core.scrubbing import HIDDEN
from runtime.database import database as opened
from runtime.doctor import FORBIDDEN, Line, Report, as_table, examine
from runtime.doctor_ledger import SEALED_WITHIN
from runtime.embedded_postgres import APP_ROLE
from runtime.settings import read_settings
from runtime.setup import Setup
from simulators.clock import Clock
from simulators.faults import Faults
from simulators.hospital import HospitalSimulator
from simulators.kit import create_app
from simulators.wechat import WechatPlatformSimulator
from simulators.wechatpay import WechatPaySimulator
from tests.runtime.environment import environment, key, marked
from tests.support.postgres import Database
from tests.support.redis import RedisServer

Serve = Callable[[Sanic[Any, Any]], AbstractAsyncContextManager[str]]


class Now:
    """The machine's clock, as simulators take it."""

    def __init__(self, off: timedelta = timedelta(0)) -> None:
        self.off = off

    def now(self) -> datetime:
        return datetime.now(UTC) + self.off


@dataclass
class Deployment:
    database: Database
    values: dict[str, str]

    async def lines(self, **options: Any) -> dict[str, Line]:
        """The report by name, asked offline unless the test says otherwise."""
        return {line.name: line for line in await examine(self.values, **{"offline": True, **options})}

    async def as_owner(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.database.owner_dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture
async def deployment(database: Database, redis_server: RedisServer) -> Deployment:
    values = environment(database, REDIS_URL=redis_server.url)
    await marked(database, values)
    return Deployment(database, values)


def states(lines: dict[str, Line], state: str) -> set[str]:
    return {name for name, line in lines.items() if line.state == state}


async def test_a_sound_deployment_has_no_failure_but_the_tests_own_lack_of_durability(deployment: Deployment) -> None:
    lines = await deployment.lines()
    assert states(lines, "fail") == {"durability"}  # the tests' PostgreSQL does without fsync
    assert states(lines, "warn") == {"institutions"}
    assert all(line.what_to_do for line in lines.values() if line.state != "ok")


async def test_without_settings_there_is_one_line_that_names_the_variable(database: Database) -> None:
    (line,) = await examine(environment(database, DATABASE_URL=None))
    assert (line.name, line.state) == ("settings", "fail")
    assert line.detail.startswith("DATABASE_URL is not set")


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"ZHENFU_PUBLIC_URL": "http://pay.hospital.example"}, "public_url", "fail"),
        ({"ZHENFU_CLOCK_OFFSET_FILE": "/var/offset"}, "movable_clock", "fail"),
        ({"ZHENFU_SESSION_KEY": key("b")}, "keys", "fail"),
        ({"ZHENFU_OWNER_DATABASE_URL": "postgres://o:p@h/d"}, "owner_url", "warn"),
        ({"REDIS_URL": None}, "redis", "fail"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "redis", "fail"),
        ({"ZHENFU_DEPLOYMENT_ID": "somebody-else"}, "deployment", "fail"),
        ({"ZHENFU_KEYS": f"k1:{key('z')}"}, "deployment", "fail"),
        ({"ZHENFU_KEYS": f"k2:{key('a')}"}, "deployment", "fail"),
        ({"ZHENFU_POOL_MAX": "500"}, "connections", "fail"),
        ({"DATABASE_URL": "postgres://zhenfu_app@127.0.0.1:1/zhenfu"}, "database", "fail"),
    ],
)
async def test_a_wrong_setting_is_found(
    deployment: Deployment, changes: dict[str, str | None], name: str, state: str
) -> None:
    for variable, value in changes.items():
        if value is None:
            del deployment.values[variable]
        else:
            deployment.values[variable] = value
    assert (await deployment.lines())[name].state == state


async def test_the_owner_is_no_role_for_programs(deployment: Deployment) -> None:
    deployment.values["DATABASE_URL"] = deployment.database.owner_dsn
    line = (await deployment.lines())["role"]
    assert line.state == "fail"
    assert "who owns the tables" in line.detail


@pytest.mark.parametrize(
    ("table", "privilege"),
    [(table, privilege) for table in ("payment_event", "transfer", "payment") for privilege in FORBIDDEN[table]],
)
async def test_a_privilege_too_much_is_found(deployment: Deployment, table: str, privilege: str) -> None:
    await deployment.as_owner(f"GRANT {privilege} ON {table} TO {APP_ROLE}")
    line = (await deployment.lines())["privileges"]
    assert line.state == "fail"
    assert f"{privilege} {table}" in line.detail


async def test_a_missing_migration_is_found(deployment: Deployment) -> None:
    await deployment.as_owner("DELETE FROM tortoise_migrations WHERE name = '0002_constraints'")
    line = (await deployment.lines())["migrations"]
    assert (line.state, line.what_to_do) == ("fail", "run `zhenfu migrate`")


async def test_a_database_of_a_newer_release_is_found(deployment: Deployment) -> None:
    await deployment.as_owner(
        "INSERT INTO tortoise_migrations (app, name, applied_at) VALUES ('core', '9999_future', now())"
    )
    assert (await deployment.lines())["migrations"].state == "warn"


async def test_an_empty_database_is_told_to_be_migrated(empty_database: Database, redis_server: RedisServer) -> None:
    lines = await examine(environment(empty_database, REDIS_URL=redis_server.url))
    assert lines[-1].name == "migrations"
    assert lines[-1].what_to_do == "run `zhenfu migrate`"


@pytest.mark.parametrize(("seconds", "state"), [(0.5, "ok"), (-20.0, "warn"), (200.0, "fail")])
def test_a_clock_that_is_off_is_told_by_how_much(seconds: float, state: str) -> None:
    report = Report()
    report.skew("clock", seconds, "PostgreSQL's")
    assert report.lines[0].state == state
    assert f"{abs(seconds):.1f} s" in report.lines[0].detail


# ---------------------------------------------------------------- counterparties


async def furnish(
    deployment: Deployment,
    *,
    his: HospitalSimulator,
    his_url: str,
    pay: WechatPaySimulator,
    pay_url: str,
    chat_url: str = "http://127.0.0.1:1",
    secret: str = "s",
    template: str = "t",
) -> None:
    """One institution with a HIS, a merchant account, a chat account and a way of paying."""
    settings = read_settings(deployment.values)
    setup = Setup(Ids(Now()), settings.keyring())
    async with opened(settings.database_url, pool_max=1):
        institution_id = await setup.institution(code="renhe", name_zh="仁和医院")
        await setup.hospital_site(
            institution_id,
            base_url=his_url,
            params={"key_id": his.key_id, "secret": his.keys[his.key_id]},
            branch="east",
        )
        merchant = pay.add_merchant("1900000109", appids={"wx1"})
        account = await setup.merchant_account(
            institution_id,
            channel="wechatpay",
            merchant_no="1900000109",
            params={
                "app_ids": "wx1",
                "merchant_private_key": merchant.private_key_pem,
                "merchant_serial": merchant.serial_no,
                "api_v3_key": str(merchant.api_v3_key),
                "public_key_id": pay.public_key.serial,
                "public_key": pay.public_key.public_pem,
                "base_url": pay_url,
            },
        )
        await setup.payment_method(
            institution_id, merchant_account_id=account.id, code="wechatpay/miniprogram/wechat", app_id="wx1"
        )
        await setup.chat_account(
            institution_id,
            platform="wechat_miniprogram",
            app_id="wx1",
            params={"secret": secret, "base_url": chat_url},
            templates={
                kind.value: json.dumps({"id": template, "fields": {"thing1": "title"}}) for kind in NOTICE_KINDS
            },
        )


def simulators(clock: Clock) -> tuple[HospitalSimulator, WechatPaySimulator]:
    faults = Faults()
    return HospitalSimulator(clock=clock, faults=faults, seed=7), WechatPaySimulator(clock=clock, faults=faults, seed=7)


async def test_counterparties_that_answer_are_ok(deployment: Deployment, serve: Serve) -> None:
    his, pay = simulators(Now())
    chat = WechatPlatformSimulator(clock=Now(), faults=Faults(), seed=7)
    app = chat.add_mini_program("仁和医院缴费", app_id="wx1")
    template = chat.add_template("wx1", "缴费通知", {"thing1": "项目"})
    async with (
        serve(create_app(his)) as his_url,
        serve(create_app(pay)) as pay_url,
        serve(create_app(chat)) as chat_url,
    ):
        urls = {"his_url": his_url, "pay_url": pay_url, "chat_url": chat_url}
        await furnish(deployment, his=his, pay=pay, secret=app.secret, template=template, **urls)
        lines = await deployment.lines(offline=False)
        chat.reset_secret("wx1")
        later = await deployment.lines(offline=False)
    assert states(lines, "fail") == {"durability"}
    assert not states(lines, "warn")
    assert "its signature is right" in lines["hospital east"].detail
    assert "signatures and field encryption work" in lines["wechatpay 1900000109"].detail
    assert lines["chat wx1"].state == "ok"
    assert lines["chat wx1 callback"].state == "ok"
    assert (lines["chat wx1 token"].state, lines["chat wx1 token"].detail) == ("ok", "gives an access token")
    assert states(later, "fail") == {"durability", "chat wx1 token"}  # a token that is kept proves nothing
    assert later["chat wx1 token"].detail.startswith("refuses us: 40125")
    assert "enter the AppSecret again" in later["chat wx1 token"].what_to_do


async def test_counterparties_that_are_silent_or_refuse_are_failures(deployment: Deployment, serve: Serve) -> None:
    his, pay = simulators(Now())
    async with serve(create_app(pay)) as pay_url:
        await furnish(deployment, his=his, his_url="http://127.0.0.1:1", pay=pay, pay_url=pay_url)
        pay.merchants.clear()
        lines = await deployment.lines(offline=False)
    assert lines["hospital east"].state == "fail"
    assert lines["hospital east"].detail.startswith("NotReached")
    assert lines["wechatpay 1900000109"].state == "fail"
    assert lines["chat wx1 token"].detail.startswith("NotReached")
    assert not {"hospital east", "chat wx1 token"} & set(await deployment.lines())  # offline


async def test_overdue_work_and_open_cases_are_warnings(deployment: Deployment) -> None:
    his, pay = simulators(Now())
    await furnish(deployment, his=his, his_url="http://127.0.0.1:1", pay=pay, pay_url="http://127.0.0.1:1")
    await deployment.as_owner(
        "INSERT INTO staff_case (id, institution_id, kind, subject, details, status, opened_at, closed_reason, note)"
        " SELECT gen_random_uuid(), id, 'unknown_order', 'x', '{}', 'open', now(), '', '' FROM institution",
        "INSERT INTO inbound (id, institution_id, source, account_id, digest, kind, content_enc, status, received_at,"
        " due_at, attempts, holder) SELECT gen_random_uuid(), id, 'wechatpay', gen_random_uuid(), 'd', 'trade', '',"
        " 'received', now(), now() - interval '1 hour', 0, '' FROM institution",
    )
    lines = await deployment.lines()
    assert (lines["work"].state, lines["cases"].state) == ("warn", "warn")
    assert "1 inbound" in lines["work"].detail


async def test_a_ledger_that_nobody_seals_is_a_warning(deployment: Deployment) -> None:
    fill(deployment.database.superuser_dsn, 40, key=ledger_key(read_settings(deployment.values).keyring()))
    assert (await deployment.lines())["seals"].state == "ok"
    with psycopg.connect(deployment.database.superuser_dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM seal WHERE number = (SELECT max(number) FROM seal)")
        line = (await deployment.lines())["seals"]
        assert line.state == "warn"
        assert line.detail.startswith("not sealed for more than 10 minutes: bench-")
        connection.execute("UPDATE transfer SET at = now() - %s", [SEALED_WITHIN - timedelta(minutes=1)])
    assert (await deployment.lines())["seals"].state == "ok"  # the next seal takes them


# ---------------------------------------------------------------- how it reads


async def test_nothing_secret_is_in_the_report(deployment: Deployment) -> None:
    deployment.values["DATABASE_URL"] = "postgres://zhenfu_app:hunter2@127.0.0.1:1/zhenfu"
    deployment.values["REDIS_URL"] = "redis://:hunter3@127.0.0.1:1/0"
    text = as_table(await examine(deployment.values))
    for secret in ("hunter2", "hunter3", *(value for name, value in deployment.values.items() if "KEY" in name)):
        assert secret not in text
    assert HIDDEN not in text


def test_the_table_puts_the_remedy_under_what_is_wrong() -> None:
    report = Report()
    report.ok("redis", "answers in 1 ms")
    report.fail("database", "cannot be opened", "start it")
    assert as_table(report.lines) == (
        "ok    redis     answers in 1 ms\n"
        "FAIL  database  cannot be opened\n"
        "                → start it\n"
        "\n"
        "1 ok, 0 warnings, 1 failures"
    )
