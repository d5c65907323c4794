"""What an institution's WeChat account must bring along, and what is checked before it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from bot.wechat.client import BASE_URL
from bot.wechat.mapping import BadTemplate, template_for
from bot.wechat.pushes import PUSH_PARAMS, PushKeys
from core.errors import ConfigurationError
from core.ports import NOTICE_KINDS, ChatAccount, MessageKind
from wire.params import Param, read_params

SHARED = (
    Param(name="secret", title="AppSecret; not needed for messages when token_url is set", required=False, secret=True),
    Param(name="base_url", title="Address of the platform", required=False, default=BASE_URL),
    Param(name="token_url", title="The hospital's own token service", required=False),
    Param(name="token_key", title="The token service's key, sent as Bearer", required=False, secret=True),
    *PUSH_PARAMS,
)
PARAMS: Mapping[str, tuple[Param, ...]] = {
    "wechat_service": (
        *SHARED,
        Param(name="miniprogram_app_id", title="Messages open this mini program", required=False),
        Param(name="h5_base_url", title="Messages open this address when no mini program is set", required=False),
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
    for name in ("base_url", "token_url", "h5_base_url"):
        url = urlsplit(values.get(name, ""))
        if values.get(name) and not (url.scheme in {"http", "https"} and url.netloc):
            raise ConfigurationError(f"{owner}: {name} must be https://host/…")
    if values.get("miniprogram_state", "formal") not in STATES:
        raise ConfigurationError(f"{owner}: miniprogram_state is one of {', '.join(STATES)}")
    if any(account.params.get(param.name, "").strip() for param in PUSH_PARAMS):
        PushKeys.read(account)
    kinds = {kind.value for kind in NOTICE_KINDS}
    for name in account.templates:
        if name not in kinds:
            raise ConfigurationError(f"{owner}: there is no message {name!r}, only {', '.join(sorted(kinds))}")
        try:
            template_for(account, MessageKind(name))
        except BadTemplate as error:
            raise ConfigurationError(f"{owner}: template {name} needs an id and fields, both as text") from error
