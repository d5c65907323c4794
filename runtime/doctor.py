"""`zhenfu doctor`: is everything that this deployment stands on as it must be, and what to do where it is not.

It changes nothing and moves no money. A line is `ok`, `warn` (works today, look at it) or `fail`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import asyncpg
from redis.exceptions import RedisError

from bot.wechat.client import WechatApi
from bot.wechat.tokens import AccessTokens
from core.clock import Clock
from core.errors import ConfigurationError, CounterpartyError, Refused
from core.models import PaymentMethod
from core.ports import NOTICE_KINDS, ChatAccount
from core.scrubbing import scrub_text
from core.tenancy import across_institutions
from runtime import doctor_chat, doctor_ledger
from runtime.bootstrap import check_whose
from runtime.database import MIGRATIONS, credentials_of, database
from runtime.programs import Wired, clock_of, wire
from runtime.redis import connect
from runtime.settings import Settings, read_settings
from wire.http import HttpReply, HttpRequest, Transport

POSTGRES_MIN = 15
SKEW_WARN_SECONDS = 5.0
SKEW_FAIL_SECONDS = 60.0
CONNECT_SECONDS = 5.0
CONNECTIONS_SPARE = 10
"""For migrations, backups and people, beside what programs use."""

WAITING_TOO_LONG = timedelta(minutes=5)
CHAT_REMEDY = (
    "40164: put this computer's address into the app's IP allow list; 40125: enter the AppSecret again; 40013: the"
    " app id is wrong; else look at the line to api.weixin.qq.com and at bot/wechat/README.md"
)
SMS_REMEDY = (
    "AuthFailure: enter secret_id and secret_key again, and let NTP set the clock; SmsSdkAppId: the application belongs"
    " to another account; template: correct it in the console or in the file; else look at bot/sms/README.md"
)
CHAT_REMEDIES = {"sms": SMS_REMEDY}
"""By platform; CHAT_REMEDY for the others."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

FORBIDDEN: Mapping[str, tuple[str, ...]] = {
    "payment_event": ("UPDATE", "DELETE", "TRUNCATE"),
    "transfer": ("UPDATE", "DELETE", "TRUNCATE"),
    "seal": ("UPDATE", "DELETE", "TRUNCATE"),
    "deployment": ("INSERT", "UPDATE", "DELETE", "TRUNCATE"),
    "tortoise_migrations": ("INSERT", "UPDATE", "DELETE", "TRUNCATE"),
    **dict.fromkeys(
        ("payment", "payment_line", "confirmation", "his_lock", "refund", "refund_line", "inbound", "staff_case"),
        ("DELETE", "TRUNCATE"),
    ),
}
"""What the role of the programs may never do, whatever a mistake or an intruder makes them try."""

DUE_TABLES = ("inbound", "payment", "confirmation", "his_lock", "payment_line", "refund", "message")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    name: str
    state: str  # "ok" | "warn" | "fail"
    detail: str
    what_to_do: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(slots=True)
class Report:
    lines: list[Line] = field(default_factory=list)

    def ok(self, name: str, detail: str) -> None:
        self.lines.append(Line(name=name, state="ok", detail=detail))

    def warn(self, name: str, detail: str, what_to_do: str) -> None:
        self.lines.append(Line(name=name, state="warn", detail=detail, what_to_do=what_to_do))

    def fail(self, name: str, detail: str, what_to_do: str) -> None:
        self.lines.append(Line(name=name, state="fail", detail=detail, what_to_do=what_to_do))

    def found(self, findings: Iterable[doctor_chat.Finding]) -> None:
        self.lines += [
            Line(name=each.name, state=each.state, detail=each.detail, what_to_do=each.what_to_do) for each in findings
        ]

    def skew(self, name: str, seconds: float, whose: str) -> None:
        """How far our clock is from another one."""
        detail = f"our clock is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} {whose}"
        if abs(seconds) <= SKEW_WARN_SECONDS:
            self.ok(name, detail)
        elif abs(seconds) <= SKEW_FAIL_SECONDS:
            self.warn(name, detail, "let NTP set the clocks of both machines")
        else:
            self.fail(name, detail, "set the clock by NTP: from 300 s on signatures are refused")


def as_table(lines: list[Line]) -> str:
    """For people: what is wrong stands out, with the remedy under it."""
    words = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
    width = max((len(line.name) for line in lines), default=0)
    text = [
        f"{words[line.state]}  {line.name:<{width}}  {line.detail}"
        + (f"\n      {'':<{width}}  → {line.what_to_do}" if line.what_to_do else "")
        for line in lines
    ]
    counts = {state: sum(line.state == state for line in lines) for state in words}
    return "\n".join([*text, "", f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures"])


async def examine(
    environment: Mapping[str, str] | None = None, *, offline: bool = False, processes: int = 1, workers: int = 1
) -> list[Line]:
    """All checks, as far as they can be made; whatever goes wrong is a line and never raised."""
    report = Report()
    try:
        settings = read_settings(environment)
        settings.keyring()
    except ConfigurationError as error:
        report.fail("settings", str(error), "set it as the table of settings in README.md says, then run doctor again")
        return report.lines
    _settings(report, settings)
    await _redis(report, settings)
    async with _connected(report, settings) as connection:
        if connection is None:
            return report.lines
        await _server(report, settings, connection, processes=processes, workers=workers)
        await _role(report, connection)
        if not await _schema(report, settings, connection):
            return report.lines
        await _waiting(report, clock_of(settings), connection)
        report.found([await doctor_ledger.sealing(connection, clock_of(settings).now())])
    await _set_up(report, settings, offline=offline)
    return report.lines


# ---------------------------------------------------------------- settings and keys


def _settings(report: Report, settings: Settings) -> None:
    report.ok("settings", f"all needed ones are there; deployment {settings.deployment_id}")
    url = urlsplit(settings.public_url)
    if url.scheme == "https" and url.netloc:
        report.ok("public_url", f"{settings.public_url}")
    elif url.hostname in LOOPBACK and settings.is_sandbox:
        report.ok("public_url", "loopback, as a sandbox's should be")
    else:
        report.fail("public_url", "ZHENFU_PUBLIC_URL is not https://…", "counterparties send notices to https alone")
    if settings.is_sandbox:
        report.fail(
            "movable_clock",
            "ZHENFU_CLOCK_OFFSET_FILE is set: somebody can move the time",
            "take it out of the environment; only the sandbox sets it, for itself",
        )
    secrets_used = [*settings.keys.values(), settings.lookup_key, settings.session_key]
    if len(set(secrets_used)) < len(secrets_used):
        report.fail("keys", "two of the keys are the same", "make each by itself: openssl rand -base64 32")
    elif weak := [key_id for key_id, key in settings.keys.items() if len(set(key)) < 8]:
        report.fail("keys", f"key {weak[0]} is not random", "make a new one: openssl rand -base64 32")
    else:
        report.ok("keys", f"{len(settings.keys)} in the ring, {settings.current_key} encrypts what is new")
    if settings.owner_database_url:
        report.warn(
            "owner_url",
            "ZHENFU_OWNER_DATABASE_URL is in this environment",
            "give it to `zhenfu migrate` alone: who breaks into a program must not become the owner",
        )


# ---------------------------------------------------------------- Redis


async def _redis(report: Report, settings: Settings) -> None:
    if not settings.redis_url:
        report.fail("redis", "REDIS_URL is not set", "redis://host:6379/0, the same for all programs")
        return
    client = connect(settings.redis_url)
    try:
        began = datetime.now(UTC)
        await client.ping()
        milliseconds = (datetime.now(UTC) - began).total_seconds() * 1000
        report.ok("redis", f"answers in {milliseconds:.0f} ms")
    except (RedisError, OSError, ValueError) as error:
        report.fail(
            "redis",
            f"does not answer ({type(error).__name__})",
            "start it or correct REDIS_URL; no money is at risk, but limits and tokens are per process meanwhile",
        )
    finally:
        await client.aclose()


# ---------------------------------------------------------------- PostgreSQL


@asynccontextmanager
async def _connected(report: Report, settings: Settings) -> AsyncIterator[asyncpg.Connection | None]:
    try:
        connection = await asyncpg.connect(**credentials_of(settings.database_url), timeout=CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        report.fail(
            "database",
            f"cannot be opened: {type(error).__name__}: {scrub_text(str(error))[:120]}",
            "look at DATABASE_URL, pg_hba.conf, the firewall and whether PostgreSQL runs",
        )
        yield None
        return
    try:
        yield connection
    finally:
        await connection.close()


async def _server(
    report: Report, settings: Settings, connection: asyncpg.Connection, *, processes: int, workers: int
) -> None:
    major = connection.get_server_version().major
    text = await connection.fetchval("SHOW server_version")
    if major >= POSTGRES_MIN:
        report.ok("database", f"PostgreSQL {text}")
    else:
        report.fail("database", f"PostgreSQL {text}", f"version {POSTGRES_MIN} or newer is needed")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        report.fail("encoding", f"the database is {encoding}", "create it with ENCODING 'UTF8'")
    off = [name for name in ("fsync", "full_page_writes") if await connection.fetchval(f"SHOW {name}") == "off"]
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        off.append("synchronous_commit")
    if off:
        report.fail("durability", f"{', '.join(off)} is off", "switch it on: a power cut may lose paid payments")
    else:
        report.ok("durability", "a commit is on disk when it is answered")
    before = datetime.now(UTC)
    theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    middle = before + (after - before) / 2
    report.skew("clock_database", (middle - theirs).total_seconds(), "PostgreSQL's")
    await _capacity(report, settings, connection, processes=processes, workers=workers)


async def _capacity(
    report: Report, settings: Settings, connection: asyncpg.Connection, *, processes: int, workers: int
) -> None:
    reserved = int(await connection.fetchval("SHOW superuser_reserved_connections"))
    most = int(await connection.fetchval("SHOW max_connections")) - reserved
    limit = await connection.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user")
    if limit is not None and limit >= 0:
        most = min(most, limit)
    wanted = (processes + workers) * settings.pool_max + CONNECTIONS_SPARE
    detail = (
        f"{processes} web processes and {workers} workers × {settings.pool_max} + {CONNECTIONS_SPARE} spare = {wanted}"
        f" of {most} connections"
    )
    if wanted <= most:
        report.ok("connections", detail)
    else:
        report.fail("connections", detail, "raise max_connections, or lower ZHENFU_POOL_MAX or --processes")


_ROLE = """
SELECT current_user AS name, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
    has_schema_privilege(current_user, 'public', 'CREATE') AS creates,
    has_database_privilege(current_user, current_database(), 'CREATE') AS creates_schemas,
    ARRAY(SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND pg_has_role(current_user, relowner, 'MEMBER')) AS owners
FROM pg_roles WHERE rolname = current_user
"""


async def _role(report: Report, connection: asyncpg.Connection) -> None:
    role = await connection.fetchrow(_ROLE)
    assert role is not None
    powers = [
        word
        for word, has in (
            ("superuser", role["rolsuper"]),
            ("may create roles", role["rolcreaterole"]),
            ("may create databases", role["rolcreatedb"]),
            ("may replicate", role["rolreplication"]),
            ("bypasses row security", role["rolbypassrls"]),
            ("may create tables", role["creates"]),
            ("may create schemas", role["creates_schemas"]),
            (f"is {', '.join(role['owners'])}, who owns the tables", bool(role["owners"])),
        )
        if has
    ]
    if powers:
        report.fail(
            "role",
            f"{role['name']}: {'; '.join(powers)}",
            "let DATABASE_URL name zhenfu_app as README.md makes it: no owner, no special power",
        )
        return
    report.ok("role", f"{role['name']} owns nothing and has no special power")
    too_much = [
        f"{privilege} {table}"
        for table, privileges in FORBIDDEN.items()
        if await connection.fetchval("SELECT to_regclass($1)", f"public.{table}") is not None
        for privilege in privileges
        if await connection.fetchval("SELECT has_table_privilege(current_user, $1, $2)", f"public.{table}", privilege)
    ]
    if too_much:
        report.fail(
            "privileges",
            f"{role['name']} may {', '.join(too_much[:4])}{' …' if len(too_much) > 4 else ''}",
            "REVOKE it as the owner; `zhenfu migrate` never grants it",
        )
    else:
        report.ok("privileges", "evidence and ledger can only be added to, payments never deleted")


async def _schema(report: Report, settings: Settings, connection: asyncpg.Connection) -> bool:
    """Whether the tables are there and ours, so that more can be asked of them."""
    if await connection.fetchval("SELECT to_regclass('public.deployment')") is None:
        report.fail("migrations", "the database has no tables of ours", "run `zhenfu migrate`")
        return False
    try:
        row = await connection.fetchrow("SELECT deployment_id, canary_enc FROM deployment WHERE name = 'this'")
        if row is None:
            raise ConfigurationError("the database has no deployment yet: run `zhenfu migrate`")
        check_whose(row["deployment_id"], row["canary_enc"], settings.deployment_id, settings.keyring())
        report.ok("deployment", f"the database is {settings.deployment_id}'s and opens with our keys")
    except ConfigurationError as error:
        report.fail("deployment", str(error), "do not start anything before this is cleared up")
        return False
    except asyncpg.PostgresError as error:
        report.fail("deployment", f"cannot be read: {type(error).__name__}", "run `zhenfu migrate` for the grants")
        return False
    package = import_module(MIGRATIONS)
    ours = {module.name for module in iter_modules(package.__path__) if module.name[0].isdigit()}
    there = {row["name"] for row in await connection.fetch("SELECT name FROM tortoise_migrations WHERE app = 'core'")}
    if missing := sorted(ours - there):
        report.fail("migrations", f"not applied: {', '.join(missing)}", "run `zhenfu migrate`")
        return False
    if newer := sorted(there - ours):
        report.warn(
            "migrations", f"the database is newer than this program: {', '.join(newer)}", "finish the update here too"
        )
    else:
        report.ok("migrations", f"all {len(ours)} applied")
    return True


async def _waiting(report: Report, clock: Clock, connection: asyncpg.Connection) -> None:
    """Rows long overdue mean that nobody works them."""
    before = clock.now() - WAITING_TOO_LONG
    late = {}
    for table in DUE_TABLES:
        count = await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE due_at < $1 AND (lease_until IS NULL OR lease_until < $1)",  # noqa: S608 (names are ours)
            before,
        )
        if count:
            late[table] = count
    if late:
        report.warn(
            "work",
            "overdue by more than 5 minutes: " + ", ".join(f"{count} {table}" for table, count in late.items()),
            "is a worker running? look at the log of `zhenfu worker`",
        )
    else:
        report.ok("work", "nothing is overdue")
    cases = await connection.fetchval("SELECT count(*) FROM staff_case WHERE status = 'open'")
    if cases:
        report.warn("cases", f"{cases} open", "work for staff: docs/runbook.md says what each kind means")
    else:
        report.ok("cases", "none open")


# ---------------------------------------------------------------- institutions and their counterparties


@runtime_checkable
class _Checkable(Protocol):
    """A messenger that can prove its account's secret."""

    async def check(self, account: ChatAccount) -> str: ...


class _Dates:
    """A Transport that notes how far each counterparty's Date header is from our clock."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.skew_seconds: dict[str, float] = {}

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        before = datetime.now(UTC)
        reply = await self._inner.send(request, deadline_seconds=deadline_seconds)
        after = datetime.now(UTC)
        try:
            theirs = parsedate_to_datetime(reply.headers["date"])
        except (KeyError, ValueError):
            return reply
        if theirs.tzinfo is not None:
            # The header has whole seconds, cut off: half a second is added for the middle.
            off = (before + (after - before) / 2 - theirs).total_seconds() - 0.5
            self.skew_seconds[urlsplit(request.url).netloc] = off
        return reply


async def _set_up(report: Report, settings: Settings, *, offline: bool) -> None:
    if not settings.redis_url and not settings.is_sandbox:
        return  # reported already, and without it nothing of ours starts
    dates: list[_Dates] = []

    def watched(transport: Transport) -> Transport:
        dates.append(_Dates(transport))
        return dates[0]

    wired = wire(settings, "doctor", watched=watched)
    try:
        async with database(settings.database_url, pool_max=2):
            await _accounts(report, wired, offline=offline)
    finally:
        await wired.finish()
    for host, off in sorted(dates[0].skew_seconds.items()):
        report.skew(f"clock_{host}", off, f"{host}'s")


async def _accounts(report: Report, wired: Wired, *, offline: bool) -> None:
    services = wired.services
    institutions = services.institutions
    with across_institutions("the operator's checks"):
        offered = await PaymentMethod.filter(operator_enabled=True, institution_enabled=True).count()
    try:
        sites = await institutions.all_sites()
        merchants = await institutions.all_merchants()
        chats = await institutions.all_chat_accounts()
    except ConfigurationError as error:
        report.fail("accounts", str(error), "put the key that encrypted it back into ZHENFU_KEYS")
        return
    if not (sites and merchants and chats and offered):
        report.warn(
            "institutions",
            f"{len(sites)} HIS, {len(merchants)} merchant and {len(chats)} chat accounts, {offered} ways of paying",
            "set up an institution with all four before patients come",
        )
    for chat in chats:
        missing = sorted(kind.value for kind in NOTICE_KINDS if kind.value not in chat.templates)
        if chat.platform not in services.outside.messengers:
            report.warn(f"chat {chat.app_id}", f"nobody sends for {chat.platform}", "correct the account's platform")
        elif missing:
            report.warn(f"chat {chat.app_id}", f"no template for {', '.join(missing)}", "those messages are skipped")
        else:
            report.ok(f"chat {chat.app_id}", f"{chat.platform}, a template for every kind of message")
    for chat in chats:
        report.found(doctor_chat.callback_settings(chat, public_url=services.outside.public_url))
    if offline:
        return
    tokens = AccessTokens(api=WechatApi(transport=wired.transport), store=wired.tokens, clock=services.outside.clock)
    for chat in chats:
        messenger = services.outside.messengers.get(chat.platform)
        if isinstance(messenger, _Checkable):
            remedy = CHAT_REMEDIES.get(chat.platform, CHAT_REMEDY)
            await _ask(report, f"chat {chat.app_id} token", messenger.check(chat), remedy)
        public_url = services.outside.public_url
        report.found(await doctor_chat.findings(chat, public_url=public_url, transport=wired.transport, tokens=tokens))
    for site in sites:
        hospital = services.outside.hospitals.get(site.adapter)
        name = f"hospital {site.branch or site.id.hex[:8]}"
        if hospital is None:
            report.fail(name, f"there is no adapter {site.adapter!r}", "correct the site's adapter")
        else:
            await _ask(report, name, hospital.check(site), "run `zhenfu hospital check` for the details")
    for account in merchants:
        channel = services.outside.channels.get(account.channel)
        name = f"{account.channel} {account.merchant_no}"
        if channel is None:
            report.fail(name, f"there is no channel {account.channel!r}", "correct the account's channel")
        else:
            await _ask(report, name, channel.check(account), f"docs: channels/{account.channel}/README.md")


async def _ask(report: Report, name: str, question: Any, what_to_do: str) -> None:
    try:
        answer = str(await question)
    except Refused as refused:
        report.fail(name, f"refuses us: {refused.code} {scrub_text(refused.message)}", what_to_do)
    except CounterpartyError as error:
        report.fail(name, f"{type(error).__name__}: {scrub_text(str(error))}", what_to_do)
    except ConfigurationError as error:
        report.fail(name, str(error), "correct the account's params")
    else:
        if "OUR CLOCK IS" in answer:
            report.warn(name, answer, "let NTP set the clock")
        else:
            report.ok(name, answer)
