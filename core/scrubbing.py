"""Hides names, numbers and keys in what people and logs see. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
SECRET_NAMES = frozenset({
    "access_token", "api_v3_key", "appsecret", "authorization", "ciphertext", "code", "js_code", "key", "open_id",
    "openid", "password", "paysign", "phone", "private_key", "secret", "session_key", "signature", "token", "touser",
    "unionid", "name", "id_number", "value", "mobile", "identifier",
})  # fmt: skip
TEXT_LENGTH_MAX = 500

_ID_CARD = re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)")
_PHONE = re.compile(r"(?<!\d)(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)")
_CARD = re.compile(r"(?<!\d)\d{16,19}(?!\d)")
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)  # a cut one too
_OPEN_ID = re.compile(r"(?<![A-Za-z0-9_-])o[A-Za-z0-9_-]{27}(?![A-Za-z0-9_-])")


def storable(value: Any, *, length_max: int | None = None) -> Any:
    """What a counterparty said, without U+0000, which PostgreSQL does not take; texts are cut to `length_max`."""
    if isinstance(value, str):
        text = value.replace("\x00", "")
        return text if length_max is None else text[:length_max]
    if isinstance(value, Mapping):
        return {storable(key): storable(item, length_max=length_max) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, length_max=length_max) for item in value]
    return value


def mask_name(name: str) -> str:
    """张小三 → 张*三, 李四 → 李*, "Anna Maria Schmidt" → "A*** S***"."""
    name = name.strip()
    if not name:
        return ""
    if name.isascii():
        return " ".join(f"{part[0]}***" for part in (name.split()[:1] + name.split()[1:][-1:]))
    if len(name) <= 2:
        return name[0] + "*"
    return name[0] + "*" * (len(name) - 2) + name[-1]


def mask_number(value: str, *, head: int = 3, tail: int = 4) -> str:
    """13812345678 → 138****5678; a value too short to hide anything in is hidden whole."""
    if len(value) < head + tail + 2:
        return HIDDEN
    return value[:head] + "*" * (len(value) - head - tail) + value[len(value) - tail :]


def scrub_text(text: str) -> str:
    """Cut to a bound, with identity numbers, phones, cards, keys and open ids hidden."""
    for pattern in (_PEM, _ID_CARD, _PHONE, _CARD, _OPEN_ID):
        text = pattern.sub(HIDDEN, text)
    return text if len(text) <= TEXT_LENGTH_MAX else text[:TEXT_LENGTH_MAX] + "…"


def scrub(value: Any) -> Any:
    """A copy of a mapping, list or text with everything secret or personal hidden."""
    if isinstance(value, Mapping):
        return {
            scrub(key): HIDDEN if str(key).lower().replace("-", "_") in SECRET_NAMES else scrub(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [scrub(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return scrub_text(value)
    return value
