"""What an institution's SMS account must bring along, and what is checked before it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from bot.sms.client import BASE_URL, REGION
from bot.sms.mapping import VARIABLE_CHARACTERS_MAX, template_for
from bot.templates import check_templates
from core.errors import ConfigurationError
from core.ports import NOTICE_KINDS, ChatAccount, MessageKind
from wire.params import Param, read_params

PLATFORM = "sms"
PARAMS: Mapping[str, tuple[Param, ...]] = {
    PLATFORM: (
        Param(name="secret_id", title="SecretId of Tencent Cloud"),
        Param(name="secret_key", title="SecretKey of Tencent Cloud", secret=True),
        Param(name="sdk_app_id", title="SdkAppId, where the account is not named after it", required=False),
        Param(name="sign_name", title="The approved sign, without 【】"),
        Param(name="region", title="Region of the SMS service", required=False, default=REGION),
        Param(name="base_url", title="Address of the platform", required=False, default=BASE_URL),
        Param(
            name="variable_characters_max",
            title="The most characters of a template's variable, as the console says",
            required=False,
            default=str(VARIABLE_CHARACTERS_MAX),
        ),
    )
}
"""By platform."""

KINDS = (*NOTICE_KINDS, MessageKind.PHONE_CODE)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
SIGN_CHARACTERS_MAX = 20
VARIABLE_CHARACTERS = range(4, 201)


def check_account(account: ChatAccount) -> None:
    """Raises ConfigurationError, which names the param or the template and never quotes a value."""
    owner = f"chat account {account.platform} {account.app_id}"
    values = read_params(PARAMS[PLATFORM], account.params, owner=owner)
    if not re.fullmatch(r"[0-9]{1,20}", values["sdk_app_id"] or account.app_id):
        raise ConfigurationError(f"{owner}: app_id (or sdk_app_id) is the SdkAppId, digits only")
    sign = values["sign_name"]
    if not sign.isprintable() or set(sign) & set("【】") or len(sign) > SIGN_CHARACTERS_MAX:
        raise ConfigurationError(f"{owner}: sign_name is the approved sign alone, without 【】")
    if not re.fullmatch(r"[a-z0-9-]{1,32}", values["region"]):
        raise ConfigurationError(f"{owner}: region is a name like {REGION}")
    url = urlsplit(values["base_url"])
    if not url.netloc or url.path.strip("/") or url.query or url.fragment or "@" in url.netloc:
        raise ConfigurationError(f"{owner}: base_url must be https://host")
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise ConfigurationError(f"{owner}: base_url must be https://host: answers are trusted for their TLS alone")
    limit = values["variable_characters_max"]
    if not re.fullmatch(r"[0-9]{1,4}", limit) or int(limit) not in VARIABLE_CHARACTERS:
        raise ConfigurationError(
            f"{owner}: variable_characters_max is a number from {VARIABLE_CHARACTERS[0]} to {VARIABLE_CHARACTERS[-1]}"
        )
    check_templates(account, KINDS, template_for, owner=owner, needs="an id (digits) and params, a list of our fields")
