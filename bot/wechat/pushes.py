"""The envelope of WeChat's pushes: whose they are, what is in them, how they are answered. Pure but for one salt.

Documents: 消息推送 (开启消息推送, 消息加解密说明), 被动回复用户消息. Valid for official accounts and mini programs,
for XML and JSON. In plain mode the signature covers a moment and no byte of the body: use safe mode where possible.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Never, Self

from bot.events import ChatEvent, Reply, storable
from bot.wechat.cipher import RANDOM_BYTES, NotOpened, is_signed, open_sealed, read_aes_key, seal, signature
from bot.wechat.events import BadPush, event_of
from core.errors import ConfigurationError
from core.ports import Acknowledgement, ChatAccount, Unverified
from wire.params import Param, read_params
from wire.xml import BadXml, read_xml, write_xml

MODES = ("plain", "compatible", "safe")
PUSH_AGE_MAX = timedelta(minutes=10)  # the platform repeats within 15 seconds; a hospital that passes it on, later
PUSH_BYTES_MAX = 1 << 19
REPLY_BYTES_MAX = 2_048
TIMESTAMP_DIGITS_MAX = 11
_TOKEN = re.compile(r"[A-Za-z0-9]{3,32}", re.ASCII)
_NONCE = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_ECHO = re.compile(r"[A-Za-z0-9_.+/=-]{1,256}", re.ASCII)  # nothing that a browser could take for a page
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._-]+)""", re.ASCII | re.IGNORECASE)

PUSH_PARAMS = (
    Param(
        name="push_token",
        title="Token of the push settings (令牌), 3 to 32 letters and digits",
        required=False,
        secret=True,
    ),
    Param(name="push_aes_key", title="EncodingAESKey (消息加解密密钥)", required=False, secret=True),
    Param(
        name="push_previous_aes_key",
        title="The EncodingAESKey before, while the platform may still use it",
        required=False,
        secret=True,
    ),
    Param(name="push_mode", title="plain, compatible or safe", required=False, default="safe"),
)
"""Needed where the platform pushes to us."""


class PushKey(StrEnum):
    """Which EncodingAESKey opened a push; its answer is sealed with the same."""

    CURRENT = "current"
    PREVIOUS = "previous"


class PushFormat(StrEnum):
    """How a push is written; its answer is written alike."""

    XML = "xml"
    JSON = "json"


@dataclass(frozen=True, kw_only=True, slots=True)
class PushKeys:
    """What proves and opens the pushes of one account."""

    token: str = field(repr=False)
    aes_key: str = field(repr=False, default="")  # an EncodingAESKey; needed but in plain mode
    previous_aes_key: str = field(repr=False, default="")
    app_id: str
    mode: str  # one of MODES

    @classmethod
    def read(cls, account: ChatAccount) -> Self:
        """Raises ConfigurationError, which names the param and never quotes its value."""
        owner = f"chat account {account.platform} {account.app_id}"
        names = {param.name for param in PUSH_PARAMS}
        given = {name: value for name, value in account.params.items() if name in names}
        values = read_params(PUSH_PARAMS, given, owner=owner)
        if values["push_mode"] not in MODES:
            raise ConfigurationError(f"{owner}: push_mode is one of {', '.join(MODES)}")
        if not _TOKEN.fullmatch(values["push_token"]):
            raise ConfigurationError(f"{owner}: push_token must be 3 to 32 letters and digits")
        for name in ("push_aes_key", "push_previous_aes_key"):
            if values[name] or (name == "push_aes_key" and values["push_mode"] != "plain"):
                read_aes_key(values[name], name=f"{owner}: {name}")
        return cls(
            token=values["push_token"],
            aes_key=values["push_aes_key"],
            previous_aes_key=values["push_previous_aes_key"],
            app_id=account.app_id,
            mode=values["push_mode"],
        )

    def aes_keys(self) -> Mapping[PushKey, bytes]:
        """The keys that there are, the current one first."""
        texts = {PushKey.CURRENT: self.aes_key, PushKey.PREVIOUS: self.previous_aes_key}
        return {which: read_aes_key(text, name=f"{which} EncodingAESKey") for which, text in texts.items() if text}


@dataclass(frozen=True, kw_only=True, slots=True)
class Echo:
    """The platform asks whether the address is ours; the answer is this text and nothing else."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """An authentic push, perhaps not for the first time (`event.event_id`)."""

    event: ChatEvent
    sealed_with: PushKey | None = None
    format: PushFormat = PushFormat.XML


def read_echo(keys: PushKeys, query: Mapping[str, str]) -> Echo | Unverified:
    """The platform's check of our address (GET); in every mode it is signed and not sealed."""
    if not _is_envelope(keys, query):
        return Unverified(reason="its signature is wrong")
    if not _ECHO.fullmatch(query.get("echostr", "")):
        return Unverified(reason="no echostr")
    return Echo(text=query["echostr"])


def read_push(
    keys: PushKeys, query: Mapping[str, str], body: bytes, content_type: str, now: datetime
) -> Push | Unverified:
    """Verify, open and read a push (POST). Raises nothing for what has arrived.

    Compatible mode is read as safe mode is: only what is sealed counts, the plain elements beside it are not read.
    """
    if reason := _why_not_now(query, now):
        return Unverified(reason=reason)
    if len(body) > PUSH_BYTES_MAX:
        return Unverified(reason=f"more than {PUSH_BYTES_MAX} bytes")
    try:
        if keys.mode == "plain":
            if not _is_envelope(keys, query):
                return Unverified(reason="its signature is wrong")
            written, document = _read(body, content_type)
            return Push(event=event_of(document), format=written)
        written, envelope = _read(body, content_type)
        sealed = envelope.get("Encrypt")
        if not isinstance(sealed, str) or not sealed.isascii():
            return Unverified(reason="nothing in it is sealed")
        if not is_signed(query.get("msg_signature", ""), keys.token, query["timestamp"], query["nonce"], sealed):
            return Unverified(reason="its msg_signature is wrong")
        which, opened = _open(keys, sealed)
        return Push(event=event_of(_read(opened, "")[1]), sealed_with=which, format=written)
    except (BadXml, _BadJson, NotOpened, BadPush) as error:
        return Unverified(reason=str(error))


def write_reply(keys: PushKeys, push: Push, reply: Reply | None, *, now: datetime, nonce: str) -> Acknowledgement:
    """The answer to a push, written and sealed as the push was; without a reply the platform is content with success.

    `nonce` is any text of letters and digits. What the platform would not take is cut at a character's end.
    """
    text = _cut(reply.text) if reply else ""
    if not text.strip():
        return Acknowledgement(status=200, body=b"success", content_type="text/plain")
    assert _NONCE.fullmatch(nonce)
    timestamp = int(now.timestamp())
    message = _write(
        push.format,
        {
            "ToUserName": push.event.open_id,
            "FromUserName": push.event.to,
            "CreateTime": timestamp,
            "MsgType": "text",
            "Content": text,
        },
    )
    if push.sealed_with is not None:
        sealed = seal(
            message,
            key=keys.aes_keys()[push.sealed_with],
            app_id=keys.app_id,
            random_bytes=secrets.token_bytes(RANDOM_BYTES),
        )
        message = _write(
            push.format,
            {
                "Encrypt": sealed,
                "MsgSignature": signature(keys.token, str(timestamp), nonce, sealed),
                "TimeStamp": timestamp,
                "Nonce": nonce,
            },
        )
    return Acknowledgement(status=200, body=message, content_type=f"application/{push.format}")


# ---------------------------------------------------------------- proof


def _is_envelope(keys: PushKeys, query: Mapping[str, str]) -> bool:
    timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    return (
        _NONCE.fullmatch(nonce) is not None
        and timestamp.isascii()
        and is_signed(query.get("signature", ""), keys.token, timestamp, nonce)
    )


def _why_not_now(query: Mapping[str, str], now: datetime) -> str:
    """Empty for a push that can have been sent just now; nothing is parsed or computed for any other."""
    timestamp = query.get("timestamp", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= TIMESTAMP_DIGITS_MAX):
        return "its timestamp is no number"
    if abs(now.timestamp() - int(timestamp)) > PUSH_AGE_MAX.total_seconds():
        return f"its timestamp is more than {PUSH_AGE_MAX.total_seconds():.0f} seconds off"
    return "" if _NONCE.fullmatch(query.get("nonce", "")) else "no nonce"


def _open(keys: PushKeys, sealed: str) -> tuple[PushKey, bytes]:
    """With the current key, else with the one before. Raises NotOpened."""
    reasons = []
    for which, key in keys.aes_keys().items():
        try:
            return which, open_sealed(sealed, key=key, app_id=keys.app_id)
        except NotOpened as error:
            reasons.append(f"{which} key: {error}")
    raise NotOpened("; ".join(reasons) or "no key")


# ---------------------------------------------------------------- XML and JSON


class _BadJson(ValueError):
    """Not a JSON object as we accept it."""


def _read(body: bytes, content_type: str) -> tuple[PushFormat, Mapping[str, object]]:
    """The document; its first character says which format it has. Raises BadXml or _BadJson."""
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8"}:
        raise BadXml("a charset that is not accepted here")
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return PushFormat.JSON, _read_json(body)
    # People type characters that XML cannot hold; their texts must arrive all the same.
    return PushFormat.XML, read_xml(body, bytes_max=PUSH_BYTES_MAX, mend=True)


def _read_json(body: bytes) -> Mapping[str, object]:
    """An object without a name twice; half a surrogate pair is kept, which stricter readers refuse."""
    if b"\0" in body:
        raise _BadJson("NUL bytes: binary, or UTF-16")
    try:
        value = json.loads(
            body.decode("utf-8-sig", "replace"),
            strict=False,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise _BadJson("nested too deep") from None
    except ValueError:
        raise _BadJson("not JSON, or a name twice") from None
    assert isinstance(value, dict)  # it begins with a brace
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name twice")
    return values


def _refuse_constant(_: str) -> Never:
    raise ValueError("no JSON")


def _write(written: PushFormat, values: Mapping[str, str | int]) -> bytes:
    if written is PushFormat.XML:
        return write_xml(values)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _cut(text: str) -> str:
    return storable(text, REPLY_BYTES_MAX).encode()[:REPLY_BYTES_MAX].decode("utf-8", "ignore")
