"""The menu at the bottom of an official account: to pay, what was paid, and the rest.

Document "自定义菜单": at most three buttons, names of the first row up to 16 bytes, below them up to 60, keys up to
128, addresses up to 1,024.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.dialogue import MENU_KEYS
from bot.wechat.client import Answer
from bot.wechat.mapping import Meaning
from bot.wechat.params import BUTTON_BYTES_MAX, connection_of
from bot.wechat.tokens import AccessTokens
from core.chat_texts import MENU_NAMES, ChatLinks
from core.errors import ConfigurationError, OutcomeUnknown, Refused
from core.ports import ChatAccount

SUB_BUTTON_BYTES_MAX = 60
URL_BYTES_MAX = 1_024
BILLS_PAGE = "pages/bills/index"
NO_MENU = 46003

Button = dict[str, Any]


def buttons(account: ChatAccount, links: ChatLinks, *, scans: bool) -> list[Button]:
    """The menu of this account. Raises ConfigurationError for what the platform would not take.

    Without a connection nobody answers a key, so every button opens a page. `scans`: papers are paid by phone here.
    """
    answers = connection_of(account) != "none"
    names = {name: account.params.get(f"menu_{name}_name", "").strip() or MENU_NAMES[name] for name in TOP}
    more = [
        _view(MENU_NAMES["bind"], links.patients()),
        *([_view(MENU_NAMES["scan"], links.scan())] if scans else []),
        *([_key(MENU_NAMES["staff"], "zhenfu.staff")] if answers else []),
    ]
    menu = [
        _pay(account, names["pay"], links),
        _key(names["paid"], "zhenfu.paid") if answers else _view(names["paid"], links.paid()),
        {"name": names["more"], "sub_button": more},
    ]
    for button in menu:
        _check(button, BUTTON_BYTES_MAX)
    for button in more:
        _check(button, SUB_BUTTON_BYTES_MAX)
    return menu


TOP = ("pay", "paid", "more")


def _pay(account: ChatAccount, name: str, links: ChatLinks) -> Button:
    """The mini program where there is one; `url` is for phones that cannot open it."""
    view = _view(name, links.bills())
    app_id = account.params.get("miniprogram_app_id", "").strip()
    return view | {"type": "miniprogram", "appid": app_id, "pagepath": BILLS_PAGE} if app_id else view


def _view(name: str, url: str) -> Button:
    return {"type": "view", "name": name, "url": url}


def _key(name: str, key: str) -> Button:
    assert key in MENU_KEYS
    return {"type": "click", "name": name, "key": key}


def _check(button: Button, name_bytes_max: int) -> None:
    size = len(button["name"].encode())
    if not 1 <= size <= name_bytes_max:
        raise ConfigurationError(
            f"the menu's name {button['name']!r} has {size} bytes, {name_bytes_max} are allowed (a Chinese character"
            " has 3)"
        )
    if len(str(button.get("url", "")).encode()) > URL_BYTES_MAX:
        raise ConfigurationError(f"the address of {button['name']!r} is too long")


@dataclass(frozen=True, slots=True)
class Menu:
    """The menu as the platform has it."""

    tokens: AccessTokens

    async def show(self, account: ChatAccount) -> list[Button]:
        """Empty when there is none."""
        answer = await self.tokens.ask(account, "/cgi-bin/menu/get")
        if answer.errcode == NO_MENU:
            return []
        menu = _good(answer).get("menu")
        found = menu.get("button") if isinstance(menu, dict) else None
        return [button for button in found if isinstance(button, dict)] if isinstance(found, list) else []

    async def publish(self, account: ChatAccount, menu: Sequence[Button], *, replace: bool) -> None:
        """Put this menu in the place of the one before, at once and whole.

        Raises ConfigurationError, unless `replace`, when somebody else's buttons would go.
        """
        if not replace:
            await self._check_ours(account, menu, "add ours by hand in the console (`zhenfu menu show` prints them)")
        _good(await self.tokens.post(account, "/cgi-bin/menu/create", {"button": list(menu)}))

    async def remove(self, account: ChatAccount, menu: Sequence[Button], *, replace: bool) -> None:
        """Take the whole menu away; `menu` is ours, as it would be published now.

        Raises ConfigurationError, unless `replace`, when somebody else's buttons would go.
        """
        if not replace:
            await self._check_ours(account, menu, "take ours away by hand in the console")
        _good(await self.tokens.ask(account, "/cgi-bin/menu/delete"))

    async def _check_ours(self, account: ChatAccount, menu: Sequence[Button], else_: str) -> None:
        """Raises ConfigurationError when the account's menu has buttons that do what none of ours does."""
        ours = {_target(button) for button in _leaves(menu)}
        foreign = [
            str(button.get("name", ""))
            for button in _leaves(await self.show(account))
            if _target(button) not in ours and button.get("key") not in MENU_KEYS
        ]
        if foreign:
            raise ConfigurationError(
                f"the menu holds buttons that are not ours: {', '.join(foreign)}; --replace takes them away, else"
                f" {else_}"
            )


def _leaves(menu: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for button in menu:
        below = button.get("sub_button")
        if isinstance(below, list) and below:
            yield from _leaves([each for each in below if isinstance(each, dict)])
        else:
            yield button


def _target(button: Mapping[str, Any]) -> str:
    """What a button does, whatever it is called."""
    names = ("type", "key", "url", "appid", "pagepath")
    return json.dumps([button.get(name, "") for name in names])


def _good(answer: Answer) -> Mapping[str, Any]:
    if answer.meaning is Meaning.DONE:
        return answer.values
    if answer.meaning in {Meaning.BUSY, Meaning.UNKNOWN}:
        raise OutcomeUnknown(f"errcode {answer.errcode}")
    raise Refused(str(answer.errcode), f"rid {answer.rid}")


def as_text(menu: Sequence[Mapping[str, Any]]) -> str:
    """For an operator: a line for each button, those below another one indented."""
    lines = []
    for button in menu:
        below = button.get("sub_button") or []
        lines.append(_line(button) if not below else str(button.get("name", "")))
        lines += [f"  {_line(each)}" for each in below]
    return "\n".join(lines) or "no menu"


def _line(button: Mapping[str, Any]) -> str:
    where = button.get("pagepath") or button.get("url") or button.get("key") or ""
    return f"{button.get('name', '')} → {button.get('type', '')} {where}".rstrip()
