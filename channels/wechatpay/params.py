"""What an institution's merchant account must bring along, and its parsed form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from channels.wechatpay.parties import Parties
from core.errors import ConfigurationError
from core.ports import MerchantAccount
from wire.keys import (
    KeyRing,
    SigningKey,
    VerificationKey,
    read_certificates,
    read_private_key,
    read_public_key,
)
from wire.params import Param, read_params

API_V3_KEY_BYTES = 32
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})  # a simulator; errors are not signed, so elsewhere TLS only

PARAMS = (
    Param(
        name="app_ids",
        title="App ids in which patients pay to this merchant number, separated by blanks; the first is the default",
    ),
    Param(name="merchant_private_key", title="Merchant API private key (PEM, apiclient_key.pem)", secret=True),
    Param(name="merchant_serial", title="Serial number of the merchant API certificate (hexadecimal)"),
    Param(name="api_v3_key", title="APIv3 key, exactly 32 characters", secret=True),
    Param(
        name="public_key_id",
        title="Id of the WeChat Pay public key (PUB_KEY_ID_…); while a new one comes in, both, by blanks",
        required=False,
    ),
    Param(
        name="public_key",
        title="WeChat Pay public key (PEM), one for each id, in the same order; the first signs answers",
        required=False,
    ),
    Param(
        name="platform_certificates",
        title="WeChat Pay platform certificates (PEM, one after another), for merchants of the older way",
        required=False,
    ),
    Param(
        name="service_provider_no",
        title="Merchant number of the service provider (服务商) that signs for this sub-merchant; all keys are its",
        required=False,
    ),
    Param(
        name="service_provider_app_id",
        title="App id of that service provider (sp_appid); listed in app_ids as well where patients pay in that app",
        required=False,
    ),
    Param(
        name="base_url",
        title="Address of WeChat Pay",
        required=False,
        default="https://api.mch.weixin.qq.com",
    ),
)
"""The account's `merchant_no` is the hospital's own number, which is paid: its mchid, or behind a service provider
its sub_mchid. A public key or a certificate must be there; both may be, for as long as WeChat Pay moves the
merchant from one to the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """An account's params, parsed. Nothing secret is in its text."""

    merchant_no: str
    parties: Parties
    signing_key: SigningKey
    api_v3_key: bytes = field(repr=False)
    public_keys: tuple[VerificationKey, ...]
    certificates: tuple[VerificationKey, ...]
    base_url: str

    @property
    def keys(self) -> KeyRing:
        """The verification keys that were configured."""
        return KeyRing([*self.certificates, *self.public_keys])

    @classmethod
    def read(cls, account: MerchantAccount) -> Self:
        """Raises ConfigurationError, which names the param and never quotes its value."""
        owner = f"WeChat Pay merchant {account.merchant_no}"
        values = read_params(PARAMS, account.params, owner=owner)
        if not account.merchant_no.isdecimal():
            raise ConfigurationError(f"{owner}: a merchant number has digits only")
        api_v3_key = values["api_v3_key"].encode()
        if len(api_v3_key) != API_V3_KEY_BYTES:
            raise ConfigurationError(f"{owner}: api_v3_key must have exactly {API_V3_KEY_BYTES} characters")
        serial = values["merchant_serial"]
        if not serial or set(serial) - set("0123456789abcdefABCDEF"):
            raise ConfigurationError(f"{owner}: merchant_serial must be hexadecimal")
        public_keys = _public_keys(values, owner)
        certificates = (
            read_certificates(values["platform_certificates"], name=f"{owner}: platform_certificates")
            if values["platform_certificates"]
            else ()
        )
        if not public_keys and not certificates:
            raise ConfigurationError(f"{owner}: public_key with public_key_id, or platform_certificates, missing")
        return cls(
            merchant_no=account.merchant_no,
            parties=_parties(values, account.merchant_no, owner),
            signing_key=SigningKey(
                serial.upper(),
                read_private_key(values["merchant_private_key"], name=f"{owner}: merchant_private_key"),
            ),
            api_v3_key=api_v3_key,
            public_keys=public_keys,
            certificates=certificates,
            base_url=_base_url(values["base_url"], owner),
        )


def _parties(values: Mapping[str, str], merchant_no: str, owner: str) -> Parties:
    app_ids = values["app_ids"].split()
    provider_no, provider_app_id = values["service_provider_no"], values["service_provider_app_id"]
    if not provider_no and not provider_app_id:
        return Parties.direct(merchant_no, app_ids)
    if not provider_no or not provider_app_id:
        raise ConfigurationError(f"{owner}: service_provider_no and service_provider_app_id need each other")
    if not provider_no.isdecimal():
        raise ConfigurationError(f"{owner}: service_provider_no has digits only")
    if provider_no == merchant_no:
        raise ConfigurationError(f"{owner}: service_provider_no is somebody else's; merchant_no is the sub-merchant's")
    return Parties.partner(merchant_no, app_ids, provider_no=provider_no, provider_app_id=provider_app_id)


def _public_keys(values: Mapping[str, str], owner: str) -> tuple[VerificationKey, ...]:
    ids, pems = values["public_key_id"].split(), _PEM.findall(values["public_key"])
    if len(ids) != len(pems) or bool(pems) != bool(values["public_key"]):
        raise ConfigurationError(f"{owner}: each id in public_key_id needs its PEM in public_key")
    return tuple(
        VerificationKey(serial, read_public_key(pem, name=f"{owner}: public_key {serial}"))
        for serial, pem in zip(ids, pems, strict=True)
    )


def _base_url(text: str, owner: str) -> str:
    """Scheme and host only: the path that is signed is the path that WeChat Pay sees."""
    url = urlsplit(text)
    scheme_fits = url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK)
    if not (scheme_fits and url.netloc) or url.path.strip("/") or url.query or url.fragment:
        raise ConfigurationError(f"{owner}: base_url must be https://host without a path")
    return f"{url.scheme}://{url.netloc}"
