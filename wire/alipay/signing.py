"""What is signed, and whether it was. Source: Alipay open platform, 签名与验签 (common/02mse7, common/02mriz).

Always RSA2, that is SHA-256: the algorithm is ours to say and never taken from a message, so SHA-1 proves nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from core.ports import Unverified
from wire.alipay.charsets import DEFAULT_CHARSET, decode, encode
from wire.keys import SigningKey, VerificationKey

SIGN_TYPE = "RSA2"
FORM_BYTES_MAX = 64 << 10
FORM_PARAMETERS_MAX = 200


class FormRule(StrEnum):
    """Which parameters of a form its signature leaves out. The wrong rule fails for every form."""

    NOTICE = "notice"
    """V1: notices of payments and what the browser brings back to `return_url`; neither `sign` nor `sign_type`."""
    PUSH = "push"
    """V2: pushes of a life account and messages of the open platform; only `sign` is left out."""


_LEFT_OUT = {FormRule.NOTICE: frozenset({"sign", "sign_type"}), FormRule.PUSH: frozenset({"sign"})}


def request_message(params: Mapping[str, str], charset: str = DEFAULT_CHARSET) -> bytes:
    """What we sign of a request: all that is sent but `sign`, without empty values; `sign_type` stays in."""
    return _joined({name: encode(value, charset) for name, value in params.items() if name != "sign"})


def sign_text(key: SigningKey, message: bytes) -> str:
    """The signature in base64, without line breaks."""
    return base64.b64encode(key.sign(message)).decode()


def is_signed(keys: Iterable[VerificationKey], message: bytes, signature: str) -> bool:
    """Whether one of these keys has signed exactly these bytes."""
    try:
        raw_signature = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(raw_signature) and any(key.verifies(message, raw_signature) for key in keys)


def read_signed_form(
    body: bytes, rule: FormRule, keys: Iterable[VerificationKey], *, charset: str = DEFAULT_CHARSET
) -> Mapping[str, str] | Unverified:
    """The parameters of a form that Alipay has signed, or why it proves nothing.

    The bytes are verified first and read as text afterwards, in the charset that the form itself names
    (`charset` is for forms that name none). `keys` are those that are valid now.
    """
    form = read_form(body)
    if isinstance(form, Unverified):
        return form
    if not form.get("sign"):
        return Unverified(reason="not signed")
    if form.get("sign_type", SIGN_TYPE.encode()) != SIGN_TYPE.encode():
        return Unverified(reason="signed in an unknown way")
    held, signature = tuple(keys), form["sign"].decode("ascii", errors="replace")
    if not any(is_signed(held, message, signature) for message in _form_messages(form, rule)):
        return Unverified(reason="its signature is wrong")
    try:
        said = form.get("charset", b"").decode("ascii") or charset
        return {name: decode(value, said) for name, value in form.items()}
    except ValueError:
        return Unverified(reason="signed, but no text in its charset")


def read_form(body: bytes) -> Mapping[str, bytes] | Unverified:
    """The parameters of a form, percent-decoded once, still bytes; each may come once."""
    if len(body) > FORM_BYTES_MAX:
        return Unverified(reason="the form is larger than we accept")
    parts = [part for part in body.split(b"&") if part]
    if len(parts) > FORM_PARAMETERS_MAX:
        return Unverified(reason="the form has more parameters than we accept")
    form: dict[str, bytes] = {}
    for part in parts:
        raw_name, _, raw_value = part.partition(b"=")
        try:
            name = _unescaped(raw_name).decode("ascii")
        except UnicodeDecodeError:
            return Unverified(reason="a parameter has a name that is not Alipay's")
        if name in form:
            return Unverified(reason="a parameter comes twice")
        form[name] = _unescaped(raw_value)
    return form


def _form_messages(form: Mapping[str, bytes], rule: FormRule) -> list[bytes]:
    """What may have been signed.

    In certificate mode a notice may name the certificate; that this parameter is left out as well is what libraries
    do and no document says. Both are tried: it only says which key, so either reading is safe.
    """
    signed = {name: value for name, value in form.items() if name not in _LEFT_OUT[rule]}
    messages = [_joined(signed)]
    if rule is FormRule.NOTICE and "alipay_cert_sn" in signed:
        messages.append(_joined({name: value for name, value in signed.items() if name != "alipay_cert_sn"}))
    return messages


def _joined(values: Mapping[str, bytes]) -> bytes:
    """`name=value` with `&`, sorted by the bytes of the names, empty values out."""
    pairs = sorted((name.encode(), value) for name, value in values.items() if value)
    return b"&".join(name + b"=" + value for name, value in pairs)


def _unescaped(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" "))
