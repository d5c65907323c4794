"""What an institution's WeChat account must bring along, and what is checked before it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import unquote, urlsplit

from bot.templates import check_templates
from bot.wechat.client import BASE_URL
from bot.wechat.mapping import template_for
from bot.wechat.messenger import CUSTOMER_OFF, CUSTOMER_ON
from bot.wechat.official import OPEN_BASE_URL
from bot.wechat.pushes import PUSH_PARAMS, PushKeys
from core.chat_texts import MENU_NAMES
from core.errors import ConfigurationError
from core.ports import NOTICE_KINDS, ChatAccount
from wire.params import Param, read_params

Network = IPv4Network | IPv6Network
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
PLAIN_HTTP: Mapping[str, tuple[Network, ...]] = {"token_url": (*LOOPBACK, *PRIVATE)}
"""Where http without TLS is allowed beyond this machine: token services inside a hospital often have no certificate."""

CALLBACK_PATH = "/wx/"
CONNECTIONS = ("own", "forwarded", "none")
BUTTON_BYTES_MAX = 16  # of a name in the menu's first row
FILE_NAME = re.compile(r"(?:MP_verify_[A-Za-z0-9]{1,64}|[A-Za-z0-9]{8,32})\.txt", re.ASCII)
FILE_TEXT = re.compile(r"[A-Za-z0-9+/=_-]{1,128}", re.ASCII)

CALLBACK_PARAMS = (
    Param(
        name="connection",
        title="Who gets the platform's pushes: own (we), forwarded (another vendor passes them on to us), none",
        required=False,
        default="none",
    ),
    Param(
        name="forward_url",
        title="With own: the server URL of the vendor before, who gets what we have no words for",
        required=False,
    ),
    Param(name="verify_file_name", title="Name of the domain-verification file", required=False),
    Param(name="verify_file_text", title="What stands in that file", required=False),
)
SERVICE_PARAMS = (
    Param(name="customer_messages", title="on, or off where the account lacks the right", required=False, default="on"),
    Param(name="open_base_url", title="Address of the sign-in of pages", required=False, default=OPEN_BASE_URL),
    Param(name="menu_pay_name", title="Menu: to pay", required=False, default=MENU_NAMES["pay"]),
    Param(name="menu_paid_name", title="Menu: what was paid", required=False, default=MENU_NAMES["paid"]),
    Param(name="menu_more_name", title="Menu: the rest", required=False, default=MENU_NAMES["more"]),
)

SHARED = (
    Param(name="secret", title="AppSecret; not needed for messages when token_url is set", required=False, secret=True),
    Param(name="base_url", title="Address of the platform", required=False, default=BASE_URL),
    Param(name="token_url", title="The hospital's own token service", required=False),
    Param(name="token_key", title="The token service's key, sent as Bearer", required=False, secret=True),
    *PUSH_PARAMS,
    *CALLBACK_PARAMS,
)
PARAMS: Mapping[str, tuple[Param, ...]] = {
    "wechat_service": (
        *SHARED,
        *SERVICE_PARAMS,
        Param(name="miniprogram_app_id", title="Messages open this mini program", required=False),
    ),
    "wechat_miniprogram": (
        *SHARED,
        Param(name="miniprogram_state", title="developer, trial or formal", required=False, default="formal"),
    ),
}
"""By platform."""

STATES = ("developer", "trial", "formal")


def check_account(account: ChatAccount) -> None:
    """Raises ConfigurationError, which names the param or the template and never quotes a value."""
    owner = f"chat account {account.platform} {account.app_id}"
    if account.platform not in PARAMS:
        raise ConfigurationError(f"{owner}: the platform is one of {', '.join(PARAMS)}")
    values = read_params(PARAMS[account.platform], account.params, owner=owner)
    if not values["secret"] and not values["token_url"]:
        raise ConfigurationError(f"{owner}: secret or token_url missing")
    if not values["secret"] and account.platform == "wechat_miniprogram":
        raise ConfigurationError(f"{owner}: secret missing; patients cannot sign in without it")
    for name in ("base_url", "token_url", "open_base_url", "forward_url"):
        if values.get(name) and not _may_be_called(values[name], plain_in=PLAIN_HTTP.get(name, LOOPBACK)):
            raise ConfigurationError(f"{owner}: {name} must be https://host/…")
    if values.get("miniprogram_state", "formal") not in STATES:
        raise ConfigurationError(f"{owner}: miniprogram_state is one of {', '.join(STATES)}")
    _check_callback(account, values, owner)
    check_templates(account, NOTICE_KINDS, template_for, owner=owner, needs="an id and fields, both as text")


def check_forward_url(params: Mapping[str, str], public_url: str, *, owner: str) -> None:
    """Raises ConfigurationError when pushes would be passed on to ourselves, again and again."""
    url, own = urlsplit(params.get("forward_url", "").strip()), urlsplit(public_url)
    if url.hostname and url.hostname == own.hostname and unquote(url.path).startswith(CALLBACK_PATH):
        raise ConfigurationError(f"{owner}: forward_url is our own callback, not another vendor's")


def connection_of(account: ChatAccount) -> str:
    """One of CONNECTIONS; an account whose params say nothing, or something unknown, gets no pushes."""
    connection = account.params.get("connection", "").strip()
    return connection if connection in CONNECTIONS else "none"


def _may_be_called(address: str, *, plain_in: tuple[Network, ...]) -> bool:
    """https with a host; plain http only to an address in these networks."""
    try:
        url = urlsplit(address)
        host = url.hostname or ""
    except ValueError:
        return False
    if url.scheme == "https":
        return bool(host)
    if url.scheme != "http":
        return False
    if host == "localhost":
        return True
    try:
        number = ip_address(host)
    except ValueError:
        return False
    return any(number in network for network in plain_in)


def _check_callback(account: ChatAccount, values: Mapping[str, str], owner: str) -> None:
    if values["connection"] not in CONNECTIONS:
        raise ConfigurationError(f"{owner}: connection is one of {', '.join(CONNECTIONS)}")
    if values["connection"] != "none" or any(account.params.get(param.name, "").strip() for param in PUSH_PARAMS):
        PushKeys.read(account)
    if values["forward_url"] and values["connection"] != "own":
        raise ConfigurationError(f"{owner}: forward_url needs connection own")
    if bool(values["verify_file_name"]) != bool(values["verify_file_text"]):
        raise ConfigurationError(f"{owner}: verify_file_name and verify_file_text belong together")
    if values["verify_file_name"] and not FILE_NAME.fullmatch(values["verify_file_name"]):
        raise ConfigurationError(f"{owner}: verify_file_name must be MP_verify_….txt, or letters and digits and .txt")
    if values["verify_file_text"] and not FILE_TEXT.fullmatch(values["verify_file_text"]):
        raise ConfigurationError(f"{owner}: verify_file_text must be one short line of letters and digits")
    if values.get("customer_messages", CUSTOMER_ON) not in {CUSTOMER_ON, CUSTOMER_OFF}:
        raise ConfigurationError(f"{owner}: customer_messages is on or off")
    for name in ("menu_pay_name", "menu_paid_name", "menu_more_name"):
        if len(values.get(name, "").encode()) > BUTTON_BYTES_MAX:
            raise ConfigurationError(f"{owner}: {name} has more than {BUTTON_BYTES_MAX} bytes, 5 characters")
