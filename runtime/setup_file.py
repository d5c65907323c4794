"""Reads and checks the file that describes one institution; docs/setup-example.toml explains each line of it.

Everything is checked before anything is written, by the code that will use it later. A problem is one sentence
that names the place in the file and never quotes a secret.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from bot.sms.params import PARAMS as SMS_PARAMS
from bot.sms.params import check_account as check_sms_account
from bot.wechat.params import PARAMS as WECHAT_PARAMS
from bot.wechat.params import check_account as check_wechat_account
from channels.wechatpay.channel import WechatPay
from channels.wechatpay.params import Credentials
from core.consents import VERSION_LENGTH_MAX
from core.errors import ConfigurationError
from core.institutions import InstitutionSettings, PaperCode, capabilities_from, settings_from
from core.ports import ChatAccount, HospitalCapabilities, MerchantAccount, Scene
from hospital.guard import check_maintenance
from hospital.rest.hospital import PARAMS as REST_PARAMS
from hospital.rest.signing import check_paper_key, read_keys

FILE = "file:"
NOBODY = UUID(int=0)
DEADLINE_SECONDS_MAX = 60
CALLS_MAX = 100
INSTRUMENTS = {"wechatpay": WechatPay.capabilities.instruments}
ACCOUNT_CHECKS: Mapping[str, Callable[[ChatAccount], None]] = {
    **dict.fromkeys(WECHAT_PARAMS, check_wechat_account),
    **dict.fromkeys(SMS_PARAMS, check_sms_account),
}
"""By platform."""

TEXT_LENGTHS_MAX = {"code": 32, "branch": 32, "name_zh": 128, "name_en": 128, "phone": 32, "base_url": 255,
                    "merchant_no": 64, "app_id": 64}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteWanted:
    branch: str
    adapter: str
    base_url: str
    params: Mapping[str, str] = field(repr=False)
    capabilities: Mapping[str, Any]
    deadline_seconds: int
    calls_max: int
    maintenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MerchantWanted:
    channel: str
    merchant_no: str
    params: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatWanted:
    platform: str
    app_id: str
    params: Mapping[str, str] = field(repr=False)
    templates: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodWanted:
    code: str
    app_id: str
    merchant_no: str
    scenes: tuple[Scene, ...]
    position: int
    on: bool

    @property
    def channel(self) -> str:
        return self.code.split("/")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class InstitutionWanted:
    code: str
    name_zh: str
    name_en: str
    phone: str
    settings: Mapping[str, Any]
    sites: tuple[SiteWanted, ...]
    merchants: tuple[MerchantWanted, ...]
    chats: tuple[ChatWanted, ...]
    methods: tuple[MethodWanted, ...]


def refuse(problems: list[str], name: str) -> None:
    """Raises ConfigurationError with a line for each problem, if there is one."""
    if problems:
        raise ConfigurationError(f"{name}: nothing was written\n" + "\n".join(f"  {each}" for each in problems))


def read_file(path: Path) -> InstitutionWanted:
    """Raises ConfigurationError with a line for each problem."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    reader = _Reader(path.absolute().parent)
    wanted = reader.institution(content)
    refuse(reader.problems, str(path))
    return wanted


class _Reader:
    """Collects every problem; what it returns is complete only when there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[str] = []

    def institution(self, content: Mapping[str, Any]) -> InstitutionWanted:
        self._known(content, "the file", "institution", "hospital", "merchant", "chat", "method")
        table = self._table(content, "institution", "the file")
        self._known(table, "institution", "code", "name_zh", "name_en", "phone", "settings")
        settings = self._table(table, "settings", "institution")
        self._typed(settings, InstitutionSettings(), "institution.settings")
        with self._noting("institution.settings"):
            settings_from(settings)
        wanted = InstitutionWanted(
            code=self._text(table, "code", "institution", needed=True),
            name_zh=self._text(table, "name_zh", "institution", needed=True),
            name_en=self._text(table, "name_en", "institution"),
            phone=self._text(table, "phone", "institution"),
            settings=settings,
            sites=tuple(self._each(content, "hospital", self._site)),
            merchants=tuple(self._each(content, "merchant", self._merchant)),
            chats=tuple(self._each(content, "chat", self._chat)),
            methods=tuple(self._each(content, "method", self._method)),
        )
        for number, site in enumerate(wanted.sites, 1):
            with self._noting(f"hospital {number}.params"):
                check_paper_key(site.params, is_needed=settings.get("paper_code") == PaperCode.HIS_MAKES)
        self._once("hospital", [f"branch {site.branch!r}" for site in wanted.sites])
        self._once("merchant", [f"{each.channel} {each.merchant_no}" for each in wanted.merchants])
        self._once("chat", [f"{chat.platform} {chat.app_id}" for chat in wanted.chats])
        self._once("method", [f"{method.code} for {method.app_id}" for method in wanted.methods])
        for method in wanted.methods:
            self._fits(method, wanted)
        return wanted

    # --- the parts ---

    def _site(self, table: Mapping[str, Any], place: str) -> SiteWanted:
        self._known(
            table, place, "branch", "adapter", "base_url", "params", "capabilities", "deadline_seconds", "calls_max",
            "maintenance",
        )  # fmt: skip
        site = SiteWanted(
            branch=self._text(table, "branch", place),
            adapter=self._text(table, "adapter", place) or "rest",
            base_url=self._text(table, "base_url", place, needed=True),
            params=self._params(table, place),
            capabilities=self._table(table, "capabilities", place),
            deadline_seconds=self._number(table, "deadline_seconds", place, 10, DEADLINE_SECONDS_MAX),
            calls_max=self._number(table, "calls_max", place, 8, CALLS_MAX),
            maintenance=self._maintenance(table, place),
        )
        url = urlsplit(site.base_url)
        if site.base_url and (url.scheme not in {"http", "https"} or not url.netloc or url.query or url.fragment):
            self.problems.append(f"{place}: base_url must be https://host/…, without a query")
        if site.adapter != "rest":
            self.problems.append(f"{place}: there is no adapter {site.adapter!r}, only rest")
        if unknown := sorted(set(site.params) - set(REST_PARAMS)):
            self.problems.append(f"{place}.params: unknown {', '.join(unknown)}")
        with self._noting(f"{place}.params"):
            read_keys(site.params)
        self._typed(site.capabilities, HospitalCapabilities(), f"{place}.capabilities")
        if not set(site.capabilities) - {each.name for each in fields(HospitalCapabilities)}:
            with self._noting(f"{place}.capabilities"):
                capabilities_from(site.capabilities)
        return site

    def _maintenance(self, table: Mapping[str, Any], place: str) -> tuple[tuple[str, str], ...]:
        windows = table.get("maintenance", [])
        if not isinstance(windows, list) or not all(
            isinstance(window, list) and len(window) == 2 and all(isinstance(each, str) for each in window)
            for window in windows
        ):
            self.problems.append(f'{place}: maintenance is a list of pairs, [["23:30", "00:30"]]')
            return ()
        read = tuple((start, end) for start, end in windows)
        with self._noting(f"{place}.maintenance"):
            check_maintenance(read)
        return read

    def _merchant(self, table: Mapping[str, Any], place: str) -> MerchantWanted:
        self._known(table, place, "channel", "merchant_no", "params")
        merchant = MerchantWanted(
            channel=self._text(table, "channel", place, needed=True),
            merchant_no=self._text(table, "merchant_no", place, needed=True),
            params=self._params(table, place),
        )
        if merchant.channel not in INSTRUMENTS:
            self.problems.append(f"{place}: there is no channel {merchant.channel!r}, only {', '.join(INSTRUMENTS)}")
        elif merchant.merchant_no:
            with self._noting(place):
                Credentials.read(
                    MerchantAccount(
                        id=NOBODY,
                        institution_id=NOBODY,
                        channel=merchant.channel,
                        merchant_no=merchant.merchant_no,
                        params=merchant.params,
                        notify_url="",
                    )
                )
        return merchant

    def _chat(self, table: Mapping[str, Any], place: str) -> ChatWanted:
        self._known(table, place, "platform", "app_id", "params", "templates")
        templates = self._table(table, "templates", place)
        chat = ChatWanted(
            platform=self._text(table, "platform", place, needed=True),
            app_id=self._text(table, "app_id", place, needed=True),
            params=self._params(table, place),
            templates={kind: json.dumps(value, ensure_ascii=False) for kind, value in templates.items()},
        )
        check = ACCOUNT_CHECKS.get(chat.platform)
        if check is None:
            self.problems.append(f"{place}: the platform is one of {', '.join(ACCOUNT_CHECKS)}")
            return chat
        with self._noting(place):
            check(
                ChatAccount(
                    id=NOBODY,
                    institution_id=NOBODY,
                    platform=chat.platform,
                    app_id=chat.app_id,
                    params=chat.params,
                    templates=chat.templates,
                )
            )
        return chat

    def _method(self, table: Mapping[str, Any], place: str) -> MethodWanted:
        self._known(table, place, "code", "app_id", "merchant_no", "scenes", "position", "on")
        scenes = table.get("scenes", ["mobile"])
        words = [scene.value for scene in Scene]
        if not isinstance(scenes, list) or not scenes or not all(scene in words for scene in scenes):
            self.problems.append(f"{place}: scenes is a list of {', '.join(words)}")
            scenes = []
        on = table.get("on", True)
        if not isinstance(on, bool):
            self.problems.append(f"{place}: on is true or false")
        return MethodWanted(
            code=self._text(table, "code", place, needed=True),
            app_id=self._text(table, "app_id", place, needed=True),
            merchant_no=self._text(table, "merchant_no", place, needed=True),
            scenes=tuple(Scene(scene) for scene in scenes),
            position=self._number(table, "position", place, 0, 1000, least=0),
            on=bool(on),
        )

    def _fits(self, method: MethodWanted, wanted: InstitutionWanted) -> None:
        """A way of paying stands on a merchant account and an app of this file."""
        place = f"method {method.code}"
        parts = method.code.split("/")
        if len(parts) != 3 or parts[1] not in INSTRUMENTS.get(parts[0], ()):
            known = sorted(f"{name}/{each}/…" for name, instruments in INSTRUMENTS.items() for each in instruments)
            self.problems.append(f"{place}: the code is one of {', '.join(known)}")
        merchant = next(
            (each for each in wanted.merchants if (each.channel, each.merchant_no) == (parts[0], method.merchant_no)),
            None,
        )
        if merchant is None:
            self.problems.append(f"{place}: there is no merchant {parts[0]} {method.merchant_no} in the file")
        elif method.app_id not in merchant.params.get("app_ids", "").split():
            self.problems.append(f"{place}: {method.app_id} is not among the merchant's app_ids")
        if method.app_id not in {chat.app_id for chat in wanted.chats}:
            self.problems.append(f"{place}: there is no chat account {method.app_id} in the file")

    # --- values ---

    def _each(
        self, content: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any], str], Any]
    ) -> Iterator[Any]:
        tables = content.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.problems.append(f"{name}: write [[{name}]], in two brackets, for each")
            return
        for number, table in enumerate(tables, 1):
            yield read(table, f"{name} {number}")

    def _params(self, table: Mapping[str, Any], place: str) -> dict[str, str]:
        """The params, those that begin with file: read from the file's own folder."""
        read = {}
        for name, value in self._table(table, "params", place).items():
            if not isinstance(value, str):
                self.problems.append(f"{place}.params.{name} must be text in quotes")
            elif value.startswith(FILE):
                try:
                    text = (self._folder / value.removeprefix(FILE)).read_text(encoding="utf-8")
                    read[name] = text.strip()
                except (OSError, UnicodeDecodeError) as error:
                    why = error.strerror if isinstance(error, OSError) else "not text"
                    self.problems.append(f"{place}.params.{name}: {value.removeprefix(FILE)} cannot be read: {why}")
            else:
                read[name] = value
        return read

    def _table(self, table: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
        value = table.get(name, {})
        if isinstance(value, dict):
            return value
        self.problems.append(f"{place}: {name} is a table")
        return {}

    def _text(self, table: Mapping[str, Any], name: str, place: str, *, needed: bool = False) -> str:
        value = table.get(name, "")
        if not isinstance(value, str):
            self.problems.append(f"{place}: {name} must be text in quotes")
            return ""
        text: str = value.strip()
        if needed and not text:
            self.problems.append(f"{place}: {name} is missing")
        if len(text) > TEXT_LENGTHS_MAX.get(name, 64):
            self.problems.append(f"{place}: {name} has more than {TEXT_LENGTHS_MAX.get(name, 64)} characters")
        return text

    def _number(
        self, table: Mapping[str, Any], name: str, place: str, default: int, most: int, *, least: int = 1
    ) -> int:
        value = table.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.problems.append(f"{place}: {name} is a number from {least} to {most}")
            return default
        return value

    def _typed(self, given: Mapping[str, Any], defaults: Any, place: str) -> None:
        """Each value has the type of its default; numbers are not negative."""
        known = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
        for name, value in given.items():
            default = known.get(name)
            if default is None:
                if not isinstance(defaults, InstitutionSettings):  # whose own reader says so
                    self.problems.append(f"{place}: unknown {name}")
            elif isinstance(default, Enum):
                words = [each.value for each in type(default)]
                if value not in words:
                    self.problems.append(f"{place}: {name} is one of {', '.join(words)}")
            elif isinstance(default, bool):
                if not isinstance(value, bool):
                    self.problems.append(f"{place}: {name} is true or false")
            elif isinstance(default, tuple):
                if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
                    self.problems.append(f"{place}: {name} is a list of texts")
            elif isinstance(default, str):
                if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= VERSION_LENGTH_MAX:
                    self.problems.append(f"{place}: {name} is a text of 1 to {VERSION_LENGTH_MAX} characters")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.problems.append(f"{place}: {name} is a whole number")

    def _known(self, table: Mapping[str, Any], place: str, *names: str) -> None:
        if unknown := sorted(set(table) - set(names)):
            self.problems.append(f"{place}: unknown {', '.join(unknown)}")

    def _once(self, name: str, keys: list[str]) -> None:
        self.problems += [
            f"{name}: {key} is there twice" for key in sorted({key for key in keys if keys.count(key) > 1})
        ]

    @contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            self.problems.append(f"{place}: {error}")
        except ValueError:  # a word that is not in the list, told by _typed already
            pass
