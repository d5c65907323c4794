"""A signed request to the gateway: what stands in its address and what in its body.

Source: Alipay open platform, 公共请求参数. What every request has stands in the address, `charset` above all, because
it says how the body is to be read; what is the request's own, and may be somebody's code or token, stands in the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

from core.clock import shanghai
from core.errors import ConfigurationError
from wire.alipay.application import Application
from wire.alipay.charsets import DEFAULT_CHARSET, encode, family
from wire.alipay.encryption import ENCRYPT_TYPE, encrypt
from wire.alipay.signing import SIGN_TYPE, request_message, sign_text
from wire.canonical import canonical_json

COMMON = frozenset(
    {
        "app_id",
        "method",
        "format",
        "charset",
        "sign_type",
        "sign",
        "timestamp",
        "version",
        "notify_url",
        "return_url",
        "app_auth_token",
        "encrypt_type",
        "app_cert_sn",
        "alipay_root_cert_sn",
    }
)
TIMESTAMP = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What is to be asked. `content` becomes `biz_content`; a few methods take `params` instead.

    The same content is the same text: its keys are sorted, and fractions are refused, amounts being texts.
    """

    method: str
    content: Mapping[str, object] | None = field(default=None, repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    notify_url: str = field(default="", repr=False)
    return_url: str = field(default="", repr=False)
    app_auth_token: str = field(default="", repr=False)
    """Where a service provider acts for a merchant."""
    is_encrypted: bool = False
    charset: str = DEFAULT_CHARSET


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedRequest:
    """Both are form-encoded. Page methods take `gateway_url?query&body` as one address, or `body` posted by a form."""

    query: str = field(repr=False)
    body: str = field(repr=False)
    charset: str


def signed_request(application: Application, call: Call, now: datetime) -> SignedRequest:
    """Raises ConfigurationError when the call is to be encrypted and no AES key is configured."""
    params = request_params(application, call, now)
    return encode_request(params, sign_text(application.signing_key, request_message(params, call.charset)))


def request_params(application: Application, call: Call, now: datetime) -> Mapping[str, str]:
    """Everything that is signed, as text; the timestamp is Shanghai's."""
    assert not COMMON & call.params.keys(), "a common parameter has a field of its own"
    params = {
        "app_id": application.app_id,
        "method": call.method,
        "format": "JSON",
        "charset": call.charset,
        "sign_type": SIGN_TYPE,
        "timestamp": shanghai(now).strftime(TIMESTAMP),
        "version": "1.0",
        "notify_url": call.notify_url,
        "return_url": call.return_url,
        "app_auth_token": call.app_auth_token,
        **call.params,
    }
    if application.certificates:
        params["app_cert_sn"] = application.certificates.app_cert_sn
        params["alipay_root_cert_sn"] = application.certificates.root_cert_sn
    if call.content is not None:
        text = canonical_json(call.content).decode()
        if call.is_encrypted:
            if application.aes_key is None:
                raise ConfigurationError(f"Alipay application {application.app_id}: aes_key missing")
            text = encrypt(application.aes_key, encode(text, call.charset))
            params["encrypt_type"] = ENCRYPT_TYPE
        params["biz_content"] = text
    return params


def encode_request(params: Mapping[str, str], sign: str) -> SignedRequest:
    """Params and their signature, split and form-encoded in their charset; empty values stay out."""
    charset = params.get("charset", DEFAULT_CHARSET)
    given = {name: value for name, value in {**params, "sign": sign}.items() if value}
    query = {name: value for name, value in given.items() if name in COMMON}
    body = {name: value for name, value in given.items() if name not in COMMON}
    codec = family(charset)
    return SignedRequest(query=urlencode(query, encoding=codec), body=urlencode(body, encoding=codec), charset=charset)
