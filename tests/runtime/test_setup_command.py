"""`zhenfu setup`: the documented sample goes in, again and again, and a file with a mistake changes nothing."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.errors import ConfigurationError
from core.ids import Ids
from core.institutions import Institutions, InstitutionSettings, PaperCode
from core.ports import HospitalCapabilities, Scene
from core.tenancy import across_institutions
from runtime.database import database as opened
from runtime.programs import clock_of, wire
from runtime.settings import Settings, read_settings
from runtime.setup_apply import apply
from runtime.setup_file import read_file
from simulators.wechatpay_keys import private_pem, public_pem, rsa_key
from tests.runtime.environment import environment, key, marked
from tests.runtime.test_cli import complaint
from tests.support.command import zhenfu
from tests.support.postgres import Database

SAMPLE = Path(__file__).parents[2] / "docs" / "setup-example.toml"
PUBLIC_URL = "https://pay.hospital.example"
TABLES = ("institution", "hospital_site", "merchant_account", "chat_account", "payment_method")
PAPER_KEY = "a-key-for-papers-of-at-least-32-characters"
SECRET = "a-secret-of-the-his-with-40-characters-x"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The sample, with the files beside it that it names."""
    for name, text in {
        "his.secret": SECRET + "\n",
        "apiclient_key.pem": private_pem(rsa_key("of the merchant")),
        "api_v3.key": "0123456789abcdef0123456789abcdef\n",
        "pub_key.pem": public_pem(rsa_key("of the test").public_key()),
        "miniprogram.secret": "mini-secret\n",
        "service.secret": "service-secret\n",
    }.items():
        (tmp_path / name).write_text(text)
    return Path(shutil.copy(SAMPLE, tmp_path / "renhe.toml"))


def change(file: Path, *changes: tuple[str, str]) -> None:
    """Replace each text, which must be there."""
    text = file.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


async def run(database: Database, file: Path) -> list[str]:
    settings = the_settings(database)
    async with opened(settings.database_url, pool_max=1):
        return await apply(
            read_file(file),
            name=file.name,
            ids=Ids(clock_of(settings)),
            keyring=settings.keyring(),
            public_url=settings.public_url,
        )


def the_settings(database: Database) -> Settings:
    return read_settings(environment(database, ZHENFU_PUBLIC_URL=PUBLIC_URL))


async def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of what a file can write, byte for byte."""
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        return {
            table: [tuple(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]
            for table in TABLES
        }
    finally:
        await connection.close()


async def test_the_sample_sets_up_an_institution_that_can_take_payments(database: Database, file: Path) -> None:
    lines = await run(database, file)
    assert sum(line.endswith(": created") for line in lines) == 6
    settings = the_settings(database)
    wired = wire(settings, "test")
    try:
        async with opened(settings.database_url, pool_max=1):
            institutions: Institutions = wired.services.institutions
            profile = await institutions.profile_by_code("renhe")
            assert (profile.name_zh, profile.settings) == ("仁和医院", InstitutionSettings())
            (site,) = await institutions.sites(profile.id)
            assert (site.params["secret"], site.maintenance) == (SECRET, (("23:30", "00:30"),))
            assert site.capabilities == HospitalCapabilities()
            (merchant,) = await institutions.all_merchants()
            assert merchant.params["merchant_private_key"].startswith("-----BEGIN PRIVATE KEY-----")
            assert f"  notify URL: {merchant.notify_url}" in lines
            (event_line,) = [line for line in lines if "event URL" in line]
            token = re.fullmatch(rf".*: {PUBLIC_URL}/his/v1/events/(\S+)", event_line)
            assert token is not None
            assert (await institutions.site_by_event_token(token[1])).id == site.id
            (method,) = await institutions.methods(profile.id, scene=Scene.MOBILE, app_id="wx1111111111111111")
            assert (method.code, method.merchant_account_id) == ("wechatpay/miniprogram/wechat", merchant.id)
            with across_institutions("the test"):
                assert len(await institutions.all_chat_accounts()) == 2
    finally:
        await wired.finish()


async def test_a_callback_address_is_printed_where_pushes_can_come(database: Database, file: Path) -> None:
    first = await run(database, file)
    assert sum("/wx/" in line for line in first) == 1  # the official account's
    change(
        file,
        (
            'secret = "file:miniprogram.secret"',
            f'secret = "file:miniprogram.secret"\nconnection = "own"\npush_token = "tokenOfTests"\n'
            f'push_aes_key = "{"a" * 43}"',
        ),
    )
    again = await run(database, file)
    found = [re.fullmatch(rf".*server URL.*: {PUBLIC_URL}/wx/(\w+)", line) for line in again if "/wx/" in line]
    assert len({match[1] for match in found if match}) == 2


async def test_pushes_are_not_passed_on_to_ourselves(database: Database, file: Path) -> None:
    change(
        file,
        (
            'secret = "file:service.secret"',
            f'secret = "file:service.secret"\nconnection = "own"\npush_token = "tokenOfTests"\n'
            f'push_aes_key = "{"a" * 43}"\nforward_url = "{PUBLIC_URL}/wx/abc"',
        ),
    )
    before = await content(database)
    with pytest.raises(ConfigurationError, match="forward_url is our own callback"):
        await run(database, file)
    assert await content(database) == before


async def test_a_hospital_whose_his_makes_or_asks_for_the_codes_on_its_papers(database: Database, file: Path) -> None:
    (file.parent / "paper.key").write_text(PAPER_KEY + "\n")
    change(
        file,
        ('paper_code = "off"', 'paper_code = "his_makes"'),
        ('# paper_key = "file:paper.key"', 'paper_key = "file:paper.key"'),
        ("sensitive_departments = []", 'sensitive_departments = ["精神", "感染"]'),
        ('privacy_version = "1"', 'privacy_version = "2026-05"'),
    )
    lines = await run(database, file)
    assert not any("bill-links" in line or PAPER_KEY in line for line in lines)
    settings = the_settings(database)
    wired = wire(settings, "test")
    try:
        async with opened(settings.database_url, pool_max=1):
            institutions: Institutions = wired.services.institutions
            profile = await institutions.profile_by_code("renhe")
            assert profile.settings.paper_code is PaperCode.HIS_MAKES
            assert profile.settings.sensitive_departments == ("精神", "感染")
            assert profile.settings.privacy_version == "2026-05"
            (site,) = await institutions.sites(profile.id)
            assert wired.services.outside.hospitals["rest"].paper_key(site) == PAPER_KEY.encode()
            assert PAPER_KEY not in repr(site)
    finally:
        await wired.finish()
    assert PAPER_KEY not in str(await content(database))
    change(file, ('paper_code = "his_makes"', 'paper_code = "his_asks"'))
    lines = await run(database, file)
    assert "institution renhe: changed: settings" in lines
    (event_line,) = [line for line in lines if "event URL" in line]
    (link_line,) = [line for line in lines if "bill link URL" in line]
    assert link_line.endswith(event_line.rpartition("/")[2])
    assert f"{PUBLIC_URL}/his/v1/bill-links/" in link_line


async def test_the_same_file_again_changes_nothing(database: Database, file: Path) -> None:
    first = await run(database, file)
    before = await content(database)
    again = await run(database, file)
    assert await content(database) == before
    assert [line for line in again if line.startswith("  ")] == [line for line in first if line.startswith("  ")]
    assert {line.rsplit(": ", 1)[1] for line in again if not line.startswith("  ")} == {"unchanged"}


async def test_what_may_change_changes(database: Database, file: Path) -> None:
    addresses = [line for line in await run(database, file) if line.startswith("  ")]
    change(
        file,
        ('phone = "010-12345678"', 'phone = "010-87654321"'),
        ("merge = false", "merge = true"),
        ('[["23:30", "00:30"]]', '[["02:00", "03:00"], ["12:00", "12:10"]]'),
        ("lock_query = true", "lock_query = false"),
        ('key_id = "renhe-1"', 'key_id = "renhe-2"\nother_key_id = "renhe-1"\nother_secret = "file:his.secret"'),
        ("template-id-1", "template-id-9"),
        ("on = true ", "on = false"),
    )
    lines = await run(database, file)
    assert [line for line in lines if not line.startswith("  ")] == [
        "institution renhe: changed: phone, settings",
        "hospital main: changed: capabilities, maintenance, params",
        "merchant wechatpay 1900000109: unchanged",
        "chat wechat_miniprogram wx1111111111111111: changed: templates",
        "chat wechat_service wx2222222222222222: unchanged",
        "method wechatpay/miniprogram/wechat wx1111111111111111: changed: operator_enabled",
    ]
    assert [line for line in lines if line.startswith("  ")] == addresses
    stored = await content(database)
    assert {table: len(rows) for table, rows in stored.items()} == dict(zip(TABLES, (1, 1, 1, 2, 1), strict=True))


async def test_a_method_left_out_is_switched_off(database: Database, file: Path) -> None:
    await run(database, file)
    text = file.read_text()
    file.write_text(text[: text.index("[[method]]")])
    assert (await run(database, file))[-1].endswith("not in the file: changed: operator_enabled")
    assert (await run(database, file))[-1].endswith("not in the file: unchanged")


async def test_a_new_key_of_ours_encrypts_what_the_file_says_again(database: Database, file: Path) -> None:
    await run(database, file)
    values = environment(database, ZHENFU_KEYS=f"k2:{key('n')} k1:{key('a')}")
    settings = read_settings(values)
    async with opened(settings.database_url, pool_max=1):
        lines = await apply(
            read_file(file),
            name="file",
            ids=Ids(clock_of(settings)),
            keyring=settings.keyring(),
            public_url=PUBLIC_URL,
        )
    assert sum(line.endswith("changed: encryption key") for line in lines) == 4


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"1900000109"', '"1900000110"', "merchant: wechatpay 1900000109 is in the database and not in the file"),
        ('branch = "main"', 'branch = "east"', "hospital: branch 'main' is in the database and not in the file"),
        (
            "wx2222222222222222",
            "wx3333333333333333",
            "chat: wechat_service wx2222222222222222 is in the database and not in the file",
        ),
    ],
)
async def test_what_has_history_is_never_renamed(
    database: Database, file: Path, old: str, new: str, problem: str
) -> None:
    await run(database, file)
    before = await content(database)
    change(file, (old, new))
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        await run(database, file)
    assert await content(database) == before


async def test_a_new_merchant_number_comes_beside_the_old_one(database: Database, file: Path) -> None:
    await run(database, file)
    text = file.read_text()
    block = text[text.index("[[merchant]]") : text.index("# --- mini program")]
    file.write_text(text.replace('merchant_no = "1900000109"\nscenes', 'merchant_no = "1900000110"\nscenes')
                    + "\n" + block.replace("1900000109", "1900000110"))  # fmt: skip
    lines = await run(database, file)
    assert "merchant wechatpay 1900000110: created" in lines
    assert lines[-1] == "method wechatpay/miniprogram/wechat wx1111111111111111: changed: merchant_account_id"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("merge_max = 20", "merge_maximum = 20", "institution.settings: unknown institution settings: merge_maximum"),
        ("merge = false", 'merge = "no"', "institution.settings: merge is true or false"),
        ("payment_seconds = 300", "payment_seconds = -1", "institution.settings: payment_seconds is a whole number"),
        ('"blocked"  ', '"perhaps" ', "institution.settings: insured_online is one of blocked, second_tap"),
        ('name_zh = "仁和医院"', "", "institution: name_zh is missing"),
        ('"https://his.renhe.example"', '"his.renhe.example"', "hospital 1: base_url must be https://host"),
        ("deadline_seconds = 10 ", "deadline_seconds = 61", "hospital 1: deadline_seconds is a number from 1 to 60"),
        ("calls_max = 8", "calls_max = 0", "hospital 1: calls_max is a number from 1 to 100"),
        ('["23:30", "00:30"]', '["23:30", "24:30"]', "hospital 1.maintenance: a maintenance window is written as"),
        ('["23:30", "00:30"]', '["23:30"]', "hospital 1: maintenance is a list of pairs"),
        ('key_id = "renhe-1"', 'keyid = "renhe-1"', "hospital 1.params: unknown keyid"),
        ('"file:his.secret" ', '"short"', "hospital 1.params: the hospital's secret for key renhe-1 needs at least 32"),
        ("lock_query = true", "lock_querry = true", "hospital 1.capabilities: unknown lock_querry"),
        ('confirm_unit = "bill"', 'confirm_unit = "day"', "confirm_unit is one of bill, visit, payment"),
        ('channel = "wechatpay"', 'channel = "cash"', "merchant 1: there is no channel 'cash', only wechatpay"),
        ('"file:apiclient_key.pem"', '"file:lost.pem"', "merchant 1.params.merchant_private_key: lost.pem cannot be"),
        ('"file:apiclient_key.pem"', '"file:api_v3.key"', "merchant 1: WeChat Pay merchant 1900000109: merchant_priv"),
        ('"file:api_v3.key"', '"too short"', "api_v3_key must have exactly 32 characters"),
        ('merchant_no = "1900000109" ', "merchant_no = 1900000109", "merchant 1: merchant_no must be text in quotes"),
        ('"wechat_service"', '"wechat"', "the platform is one of wechat_service, wechat_miniprogram"),
        ('secret = "file:miniprogram.secret"', "", "wx1111111111111111: secret or token_url missing"),
        ("[chat.templates.paid]", "[chat.templates.paied]", "there is no message 'paied'"),
        ('id = "template-id-3"', "", "template refused_returned needs an id and fields"),
        ("wechatpay/miniprogram/wechat", "wechatpay/fax/wechat", "method wechatpay/fax/wechat: the code is one of"),
        ('scenes = ["mobile"]', 'scenes = ["street"]', "method 1: scenes is a list of mobile"),
        ("on = true ", 'on = "yes" ', "method 1: on is true or false"),
        ('app_ids = "wx1111111111111111 ', 'app_ids = "', "wx1111111111111111 is not among the merchant's app_ids"),
        ('paper_code = "off"', 'paper_code = "printed"', "paper_code is one of off, his_makes, his_asks, barcode"),
        ('paper_factor = "last_four"', 'paper_factor = "four"', "paper_factor is one of last_four, none"),
        ("sensitive_departments = []", 'sensitive_departments = "精神"', "sensitive_departments is a list of texts"),
        ("sensitive_departments = []", 'sensitive_departments = ["精神", ""]', "sensitive_departments is a list of"),
        ('privacy_version = "1"', "privacy_version = 1", "privacy_version is a text of 1 to 32 characters"),
        ('privacy_version = "1"', 'privacy_version = ""', "privacy_version is a text of 1 to 32 characters"),
        ('paper_code = "off"', 'paper_code = "his_makes"', "hospital 1.params: paper_code is "),
        ('# paper_key = "file:paper.key"', 'paper_key = "short"', "paper_key needs at least 32 characters"),
        ('# paper_key = "file:paper.key"', 'paper_key = "file:his.secret"', "must not be one of the secrets"),
        ("[[hospital]]", "[hospital]", "hospital: write [[hospital]], in two brackets"),
        ("[institution]\n", '[institution]\nnickname = "x"\n', "institution: unknown nickname"),
    ],
)
def test_a_mistake_is_one_clear_line(file: Path, old: str, new: str, problem: str) -> None:
    change(file, (old, new))
    with pytest.raises(ConfigurationError) as caught:
        read_file(file)
    first, *problems = str(caught.value).splitlines()
    assert first == f"{file}: nothing was written"
    assert any(problem in line for line in problems), problems
    for secret in (SECRET, "0123456789abcdef", "mini-secret", "PRIVATE KEY", "short"):
        assert secret not in str(caught.value).replace("too short", "")


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    change(file, ("calls_max = 8", "calls_max = 0"), ("merge = false", "merge = 2"), ('"file:his.secret"', '"x"'))
    with pytest.raises(ConfigurationError) as caught:
        read_file(file)
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("text", [b"[institution", b"\xff\xfe", None])
def test_what_is_no_toml_is_said_to_be_none(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "x.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"is not|cannot be read"):
        read_file(path)


def test_the_sample_names_every_setting_with_its_standard_value() -> None:
    sample = tomllib.loads(SAMPLE.read_text())
    for given, defaults in (
        (sample["institution"]["settings"], InstitutionSettings()),
        (sample["hospital"][0]["capabilities"], HospitalCapabilities()),
    ):
        standard = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
        assert given == {name: list(value) if isinstance(value, tuple) else value for name, value in standard.items()}


async def test_the_command_prints_addresses_and_refuses_in_words(database: Database, file: Path) -> None:
    values = environment(database)
    await marked(database, values)
    done = zhenfu(values, "setup", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "/his/v1/events/" in done.stdout
    assert "/n/" in done.stdout
    assert SECRET not in done.stdout
    change(file, ("calls_max = 8", "calls_max = 0"))
    done = zhenfu(values, "setup", str(file))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines()[1:] == ["  hospital 1: calls_max is a number from 1 to 100"]
    assert "cannot be read" in complaint(zhenfu(values, "setup", str(file.with_name("nothing.toml"))))
