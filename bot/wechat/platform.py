"""Sign-in and proof of phone for WeChat mini programs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from bot.wechat.client import Answer, WechatApi, param
from bot.wechat.mapping import Meaning
from bot.wechat.tokens import AccessTokens
from core.errors import OutcomeUnknown, Refused
from core.ports import ChatAccount, ChatIdentity

ENCRYPTED_BYTES_MAX = 1 << 16
WATERMARK_AGE_MAX = timedelta(minutes=5)
_CODE = re.compile(r"[\x21-\x7e]{1,256}")
_PERSON = {Meaning.CODE, Meaning.NEVER}  # refusals that asking again cannot change


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A sign-in. The session key opens the old encryptedData and never leaves the server."""

    identity: ChatIdentity
    session_key: str = field(repr=False)


class WechatMiniProgram:
    """A ChatPlatform."""

    name = "wechat_miniprogram"

    def __init__(self, *, api: WechatApi, tokens: AccessTokens) -> None:
        self._api = api
        self._tokens = tokens

    def shows(self, user_agent: str) -> bool:
        return False

    def sign_in_url(self, account: ChatAccount, *, back_to: str, state: str) -> str:
        return ""

    async def union_id(self, account: ChatAccount, open_id: str) -> str:
        return ""  # it comes with the sign-in

    async def page_config(self, account: ChatAccount, url: str) -> Mapping[str, str]:
        return {}

    async def sign_in(self, account: ChatAccount, code: str) -> ChatIdentity:
        return (await self.open_session(account, code)).identity

    async def open_session(self, account: ChatAccount, code: str) -> Session:
        """Like sign_in, with the session key. A code works once: after OutcomeUnknown a new one is needed."""
        query = {
            "appid": account.app_id,
            "secret": param(account, "secret"),
            "js_code": proper_code(code),
            "grant_type": "authorization_code",
        }
        values = granted(await self._api.get(account, "/sns/jscode2session", query))
        open_id, session_key = values.get("openid"), values.get("session_key")
        if not isinstance(open_id, str) or not open_id or not isinstance(session_key, str):
            raise OutcomeUnknown("the answer holds no openid")
        union_id = values.get("unionid")
        identity = ChatIdentity(open_id=open_id, union_id=union_id if isinstance(union_id, str) else "")
        return Session(identity=identity, session_key=session_key)

    async def phone_number(self, account: ChatAccount, code: str) -> str:
        body = {"code": proper_code(code)}
        values = granted(await self._tokens.post(account, "/wxa/business/getuserphonenumber", body))
        info = values.get("phone_info")
        if not isinstance(info, dict):
            raise OutcomeUnknown("the answer holds no phone")
        return phone_of(info, account.app_id)


def proper_code(code: str) -> str:
    """A code as an app could have received it; anything else is refused without a call."""
    if not _CODE.fullmatch(code):
        raise Refused("40029", "not a code", final=True)
    return code


def granted(answer: Answer) -> Mapping[str, Any]:
    """The values of a good answer. Raises OutcomeUnknown or Refused."""
    if answer.meaning is Meaning.DONE:
        return answer.values
    if answer.meaning is Meaning.BUSY:
        raise OutcomeUnknown(f"errcode {answer.errcode}")
    raise Refused(str(answer.errcode), f"rid {answer.rid}", final=answer.meaning in _PERSON)


def phone_of(info: Mapping[str, Any], app_id: str) -> str:
    """The phone in the platform's phone_info: digits only, the country code before it unless that is 86.

    Raises Refused when it was made for another app: then the code or the data was not meant for us.
    """
    _check_app(info, app_id)
    number = re.sub(r"\D", "", str(info.get("purePhoneNumber", "")), flags=re.ASCII)
    country = re.sub(r"\D", "", str(info.get("countryCode", "86")), flags=re.ASCII)
    if not number:
        raise OutcomeUnknown("the answer holds no phone")
    return number if country in {"86", ""} else country + number


def open_encrypted_data(
    *,
    session_key: str,
    iv: str,
    encrypted_data: str,
    app_id: str,
    now: datetime,
    age_max: timedelta = WATERMARK_AGE_MAX,
) -> dict[str, Any]:
    """The values inside encryptedData, the way before phone codes (document "服务端获取开放数据").

    The cipher proves nothing by itself, so the watermark must name our app and a time that is close enough.
    Raises Refused(final=True) for everything that cannot be opened or was not meant for us now.
    """
    try:
        if len(encrypted_data) > ENCRYPTED_BYTES_MAX:
            raise ValueError("too long")
        key, start, sealed = (base64.b64decode(text, validate=True) for text in (session_key, iv, encrypted_data))
        decryptor = Cipher(AES(key), CBC(start)).decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
        unpadder = PKCS7(128).unpadder()
        values = json.loads(unpadder.update(padded) + unpadder.finalize())
    except (ValueError, RecursionError):
        raise Refused("encrypted_data", "cannot be opened", final=True) from None
    if not isinstance(values, dict):
        raise Refused("encrypted_data", "cannot be opened", final=True)
    made_at = _check_app(values, app_id).get("timestamp")
    if not isinstance(made_at, int) or abs(now - datetime.fromtimestamp(made_at, UTC)) > age_max:
        raise Refused("watermark", "too old", final=True)
    return values


def _check_app(values: Mapping[str, Any], app_id: str) -> Mapping[str, Any]:
    watermark = values.get("watermark")
    if not isinstance(watermark, dict) or watermark.get("appid") != app_id:
        raise Refused("watermark", "made for another app", final=True)
    return watermark


def raw_data_signature(raw_data: str, session_key: str) -> str:
    """What the app's `signature` must be for rawData (document "数据签名校验")."""
    return hashlib.sha1((raw_data + session_key).encode(), usedforsecurity=False).hexdigest()


def page_signature(*, ticket: str, nonce: str, timestamp: str, url: str) -> str:
    """The JS-SDK's signature of a page; the part of the address after # does not count."""
    page = url.partition("#")[0]
    text = f"jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={page}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
