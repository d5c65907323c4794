"""What `zhenfu doctor` looks at in a chat account: its templates, its callback, and the domain's proof.

The platform's console cannot be read by a program, so some lines say what must be entered there, and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.templates import BadTemplate
from bot.wechat.mapping import Meaning, template_for
from bot.wechat.params import check_account, check_forward_url, connection_of
from bot.wechat.tokens import AccessTokens
from core.errors import ConfigurationError, CounterpartyError
from core.ports import NOTICE_KINDS, ChatAccount
from wire.http import HttpRequest, Transport

OFFICIAL = "wechat_service"
TEMPLATE_LISTS: Mapping[str, tuple[str, str, str]] = {
    "wechat_service": ("/cgi-bin/template/get_all_private_template", "template_list", "template_id"),
    "wechat_miniprogram": ("/wxaapi/newtmpl/gettemplate", "data", "priTmplId"),
}
"""By platform: the call, the name of its list, the name of an entry's id."""

FILE_SECONDS = 5
DIRECTORIES = ("/p/", "/h/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A line of the report: its state is ok, warn or fail."""

    name: str
    state: str
    detail: str
    what_to_do: str = ""


def callback_settings(account: ChatAccount, *, public_url: str) -> Iterator[Finding]:
    """Whether the account's params are well-formed, and who gets its pushes."""
    if account.platform not in TEMPLATE_LISTS:
        return
    name = f"chat {account.app_id} callback"
    try:
        check_account(account)
        check_forward_url(account.params, public_url, owner=f"chat account {account.platform} {account.app_id}")
    except ConfigurationError as error:
        yield Finding(name=name, state="fail", detail=str(error), what_to_do="correct it in the setup file")
        return
    connection = connection_of(account)
    if connection == "none" and account.params.get("push_token", "").strip():
        yield Finding(
            name=name,
            state="warn",
            detail="push settings are there, but with connection none the platform's pushes are answered 404",
            what_to_do="set connection own or forwarded, or take the push settings out",
        )
        return
    if connection == "none":
        pages = ": the chat answers nothing, the menu opens pages (zhenfu menu publish)"
        detail = f"nobody pushes to us{pages if account.platform == OFFICIAL else ''}"
        yield Finding(name=name, state="ok", detail=detail)
        return
    mode = account.params.get("push_mode", "").strip() or "safe"
    detail = f"connection {connection}, {mode} mode"
    if mode != "safe":
        yield Finding(
            name=name,
            state="warn",
            detail=detail,
            what_to_do="choose 安全模式 in the console and push_mode safe: in other modes no signature covers the text",
        )
        return
    yield Finding(name=name, state="ok", detail=f"{detail}; zhenfu setup prints the server URL for the console")


async def templates(account: ChatAccount, tokens: AccessTokens) -> list[Finding]:
    """Whether the platform has the templates that the account's entries name."""
    if account.platform not in TEMPLATE_LISTS or not account.templates:
        return []
    name = f"chat {account.app_id} templates"
    wanted: dict[str, str] = {}
    for kind in NOTICE_KINDS:
        if kind.value in account.templates:
            try:
                wanted[kind.value] = template_for(account, kind).id
            except BadTemplate:
                continue  # the line about its params says so
    if not wanted:
        return []
    path, entries, key = TEMPLATE_LISTS[account.platform]
    try:
        answer = await tokens.ask(account, path)
    except CounterpartyError as error:
        return [
            Finding(
                name=name,
                state="warn",
                detail=f"cannot be read: {type(error).__name__}",
                what_to_do="see the account's token line",
            )
        ]
    found = answer.values.get(entries)
    if answer.meaning is not Meaning.DONE or not isinstance(found, list):
        detail = f"cannot be read: errcode {answer.errcode}"
        return [
            Finding(name=name, state="warn", detail=detail, what_to_do="let the account have the right to read them")
        ]
    there = {str(entry.get(key, "")) for entry in found if isinstance(entry, dict)}
    if missing := sorted(kind for kind, template in wanted.items() if template not in there):
        return [
            Finding(
                name=name,
                state="fail",
                detail=f"the platform has no such template for {', '.join(missing)}",
                what_to_do="copy the ids again from the console (模板消息); a change of category deletes them",
            )
        ]
    return [Finding(name=name, state="ok", detail=f"the platform has all {len(wanted)}")]


async def domain(account: ChatAccount, public_url: str, transport: Transport) -> list[Finding]:
    """The file that proves our domain, fetched as the platform would, and what the console must say."""
    if account.platform not in TEMPLATE_LISTS:
        return []
    name, host = f"chat {account.app_id} domain", urlsplit(public_url).netloc
    pages = " and ".join(f"{public_url}{directory}" for directory in DIRECTORIES)
    enter = (
        f"in the account's console (设置与开发, 功能设置) enter {host} as 网页授权域名 and as JS接口安全域名; in the"
        f" merchant's console (产品中心, 开发配置) enter {pages} as JSAPI支付授权目录"
        if account.platform == OFFICIAL
        else f"in the mini program's console enter {public_url} as request合法域名"
    )
    file, text = account.params.get("verify_file_name", "").strip(), account.params.get("verify_file_text", "").strip()
    if not file:
        if account.platform != OFFICIAL:
            return []
        return [
            Finding(
                name=name,
                state="warn",
                detail="no verification file: verify_file_name and verify_file_text are not set",
                what_to_do=f"download MP_verify_….txt from the console, put its name and text there, then {enter}",
            )
        ]
    url = f"{public_url}/{file}"
    try:
        reply = await transport.send(HttpRequest(method="GET", url=url), deadline_seconds=FILE_SECONDS)
        served = reply.status == 200 and reply.body.decode("utf-8", "replace").strip() == text
        problem = f"HTTP {reply.status}" if reply.status != 200 else "another text"
    except CounterpartyError as error:
        served, problem = False, type(error).__name__
    if served:
        return [Finding(name=name, state="ok", detail=f"{url} is served; what must be entered once: {enter}")]
    return [
        Finding(
            name=name,
            state="fail",
            detail=f"{url} is not served: {problem}",
            what_to_do=f"let the proxy pass /{file} on to us; after that {enter}",
        )
    ]


async def findings(
    account: ChatAccount, *, public_url: str, transport: Transport, tokens: AccessTokens
) -> list[Finding]:
    """Everything that must be asked of somebody."""
    return [*await templates(account, tokens), *await domain(account, public_url, transport)]
