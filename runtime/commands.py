"""What the commands do once their arguments are read; each returns an exit code or the text to print."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from core.errors import ConfigurationError
from runtime.settings import Settings
from runtime.supervisor import Program, Supervisor

DATABASE_WAIT_SECONDS = 60.0
"""After a reboot of everything the database may be slower than we are."""


def serve(settings: Settings, *, processes: int) -> int:
    """Web processes until SIGTERM, started again when one dies."""
    from runtime.programs import run_server, wire
    from runtime.sockets import reserve

    programs = max(settings.programs, processes + 1)
    wire(settings, "web")  # settings that cannot work end here, not in every child
    asyncio.run(check_database(settings))
    with reserve(settings.host, settings.port):
        supervisor = Supervisor(
            [
                Program(name=f"web-{number}", run=lambda ready: run_server(settings, ready, programs=programs))
                for number in range(1, processes + 1)
            ]
        )
        try:
            supervisor.start()
            return supervisor.run()
        finally:
            supervisor.stop()


def worker(settings: Settings) -> int:
    """One worker until SIGTERM, started again when it dies."""
    from runtime.programs import run_worker, wire

    wire(settings, "worker")
    asyncio.run(check_database(settings))
    supervisor = Supervisor(
        [Program(name="worker", run=lambda ready: run_worker(settings, ready, programs=max(settings.programs, 2)))]
    )
    try:
        supervisor.start()
        return supervisor.run()
    finally:
        supervisor.stop()


def migrate(settings: Settings) -> str:
    """The schema of this release, and the one row that says whose database it is."""
    from runtime.database import credentials_of, wait_for_database
    from runtime.database import migrate as migrate_database
    from runtime.setup import check_before_migration, mark_deployment

    if not settings.owner_database_url:
        raise ConfigurationError(
            "ZHENFU_OWNER_DATABASE_URL is not set: postgres://zhenfu_owner:password@host:5432/zhenfu"
        )
    owner, programs = credentials_of(settings.owner_database_url), credentials_of(settings.database_url)
    if (owner["host"], owner["port"], owner["database"]) != (programs["host"], programs["port"], programs["database"]):
        raise ConfigurationError("ZHENFU_OWNER_DATABASE_URL and DATABASE_URL name different databases")
    keyring = settings.keyring()

    async def work() -> None:
        await wait_for_database(settings.owner_database_url, seconds=DATABASE_WAIT_SECONDS)
        await check_before_migration(settings.owner_database_url, settings.deployment_id, keyring)
        await migrate_database(settings.owner_database_url)
        await mark_deployment(settings.owner_database_url, settings.deployment_id, keyring)
        await check_database(settings)

    asyncio.run(work())
    return f"the database of {settings.deployment_id} is up to date"


async def check_database(settings: Settings) -> None:
    """Raises ConfigurationError unless the database is there, ours, and readable with our keys."""
    from tortoise.exceptions import BaseORMException

    from runtime.bootstrap import check_deployment
    from runtime.database import database, wait_for_database

    try:
        await wait_for_database(settings.database_url, seconds=DATABASE_WAIT_SECONDS)
        async with database(settings.database_url, pool_max=1):
            await check_deployment(settings.deployment_id, settings.keyring())
    except BaseORMException as error:
        raise ConfigurationError("the database has no tables of ours yet: run `zhenfu migrate`") from error
    except Exception as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"the database does not answer ({type(error).__name__}): look at DATABASE_URL"
        ) from error


def setup(settings: Settings, path: Path) -> str:
    """One institution as the file describes it; returns what was done and the addresses to hand out."""
    from core.ids import Ids
    from runtime.database import database
    from runtime.programs import clock_of
    from runtime.setup_apply import apply
    from runtime.setup_file import read_file

    wanted = read_file(path)

    async def work() -> list[str]:
        await check_database(settings)
        async with database(settings.database_url, pool_max=1):
            return await apply(
                wanted,
                name=str(path),
                ids=Ids(clock_of(settings)),
                keyring=settings.keyring(),
                public_url=settings.public_url,
            )

    return "\n".join(asyncio.run(work()))


def doctor(*, as_json: bool, offline: bool, processes: int, workers: int) -> tuple[str, bool]:
    """The report as text, and whether everything that must be right is."""
    from runtime.doctor import as_table, examine

    report = asyncio.run(examine(offline=offline, processes=processes, workers=workers))
    text = (
        json.dumps([line.as_json() for line in report], ensure_ascii=False, indent=2) if as_json else as_table(report)
    )
    return text, all(line.state != "fail" for line in report)


def hospital_check(
    settings: Settings, *, institution: str, branch: str | None, patient: str | None, as_json: bool
) -> tuple[str, bool]:
    """What the read-only check of each HIS found, as text, and whether all is well."""
    from core.errors import NotFound
    from core.ids import Ids
    from hospital.check import Finding, check_site
    from hospital.rest.hospital import RestHospital
    from runtime.database import database
    from runtime.programs import clock_of, wire
    from wire.http import HttpClient

    async def work() -> list[tuple[str, Finding]]:
        clock = clock_of(settings)
        wired = wire(settings, "check")
        found: list[tuple[str, Finding]] = []
        try:
            async with database(settings.database_url, pool_max=1), HttpClient() as transport:
                institutions = wired.services.institutions
                try:
                    profile = await institutions.profile_by_code(institution)
                except NotFound:
                    raise ConfigurationError(f"there is no institution {institution!r}") from None
                sites = [site for site in await institutions.sites(profile.id) if branch in (None, site.branch)]
                if not sites:
                    raise ConfigurationError(f"institution {institution!r} has no HIS there to check")
                rest = RestHospital(transport, clock, Ids(clock).token)
                for site in sites:
                    found += [
                        (site.branch, finding) for finding in await check_site(rest, site, clock, patient_id=patient)
                    ]
        finally:
            await wired.finish()
        return found

    async def checked() -> list[tuple[str, Finding]]:
        await check_database(settings)
        return await work()

    found = asyncio.run(checked())
    if as_json:
        text = json.dumps(
            [
                {
                    "branch": branch,
                    "name": each.name,
                    "ok": each.ok,
                    "detail": each.detail,
                    "what_to_do": each.what_to_do,
                }
                for branch, each in found
            ],
            ensure_ascii=False,
            indent=2,
        )
    else:
        text = "\n".join(
            f"{'ok  ' if each.ok else 'FAIL'}  {branch + '  ' if branch else ''}{each.name:<28} {each.detail}"
            + (f"\n      → {each.what_to_do}" if each.what_to_do else "")
            for branch, each in found
        )
    return text, all(each.ok for _, each in found)


def menu(settings: Settings, action: str, *, institution: str, app_id: str | None, replace: bool) -> str:
    """Publish, show or remove the menu of an institution's official account; what the account's menu is now."""
    from bot.wechat.client import WechatApi
    from bot.wechat.menu import Menu, as_text, buttons
    from bot.wechat.tokens import AccessTokens
    from core.errors import CounterpartyError, NotFound
    from core.institutions import PaperCode
    from runtime.database import database
    from runtime.programs import wire

    async def work() -> str:
        await check_database(settings)
        wired = wire(settings, "menu")
        services = wired.services
        tokens = AccessTokens(
            api=WechatApi(transport=wired.transport), store=wired.tokens, clock=services.outside.clock
        )
        the_menu = Menu(tokens)
        try:
            async with database(settings.database_url, pool_max=1):
                try:
                    profile = await services.institutions.profile_by_code(institution)
                except NotFound:
                    raise ConfigurationError(f"there is no institution {institution!r}") from None
                accounts = [
                    account
                    for account in await services.institutions.all_chat_accounts()
                    if account.institution_id == profile.id
                    and account.platform == "wechat_service"
                    and app_id in (None, account.app_id)
                ]
                if len(accounts) != 1:
                    found = ", ".join(account.app_id for account in accounts) or "none"
                    raise ConfigurationError(f"one official account is needed, name it by --app-id; there is {found}")
                (account,) = accounts
            if action != "show":
                scans = profile.settings.paper_code is not PaperCode.OFF
                ours = buttons(account, services.answers.links(profile), scans=scans)
                change = the_menu.publish if action == "publish" else the_menu.remove
                await change(account, ours, replace=replace)
            return as_text(await the_menu.show(account))
        except CounterpartyError as error:
            raise ConfigurationError(f"the platform does not do it: {type(error).__name__} {error}") from error
        finally:
            await wired.finish()

    return asyncio.run(work())


def label(settings: Settings, *, institution: str, branch: str, bill: str, out: Path) -> str:
    """A label for one bill's paper, as a page or (a name that ends in .svg) as a picture; returns its address."""
    from core.errors import HospitalUnavailable, NotFound
    from core.paper import PrintedPaper
    from miniprogram_api.labels import label_page, label_svg
    from runtime.database import database
    from runtime.programs import wire

    async def work() -> PrintedPaper:
        await check_database(settings)
        wired = wire(settings, "label")
        try:
            async with database(settings.database_url, pool_max=1):
                institutions = wired.services.institutions
                try:
                    profile = await institutions.profile_by_code(institution)
                except NotFound:
                    raise ConfigurationError(f"there is no institution {institution!r}") from None
                sites = [site for site in await institutions.sites(profile.id) if site.branch == branch]
                if not sites:
                    raise ConfigurationError(f"institution {institution!r} has no branch {branch!r}")
                try:
                    return await wired.services.papers.printed(sites[0], bill)
                except NotFound:
                    raise ConfigurationError(
                        f'the HIS has no bill {bill!r}, or paper_code of {institution!r} is "off"'
                    ) from None
                except HospitalUnavailable:
                    raise ConfigurationError("the HIS does not answer: try `zhenfu hospital check`") from None
        finally:
            await wired.finish()

    paper = asyncio.run(work())
    try:
        out.write_text(label_svg(paper) if out.suffix == ".svg" else label_page(paper), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from error
    return paper.url
