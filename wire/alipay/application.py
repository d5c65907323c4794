"""An application (应用) at Alipay's open platform: whom we speak as, and whose answers we believe.

An application has one mode: it holds either Alipay's bare public key or three certificates. Alipay takes the other
mode for seven more days after a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from core.errors import ConfigurationError
from wire.alipay.certificates import Certificates, split_bundle
from wire.alipay.encryption import read_aes_key
from wire.keys import SigningKey, VerificationKey, read_private_key, read_public_key
from wire.params import Param

GATEWAY = "https://openapi.alipay.com/gateway.do"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})  # a simulator; content is not always encrypted, so else TLS

APPLICATION_PARAMS = (
    Param(
        name="app_private_key",
        title="Application's private key (PKCS#8 or PKCS#1, with or without the PEM lines)",
        secret=True,
    ),
    Param(
        name="alipay_public_key",
        title="Alipay's public key, not the application's (public-key mode)",
        required=False,
    ),
    Param(
        name="app_certificate",
        title="Application's certificate (certificate mode, appCertPublicKey_….crt)",
        required=False,
    ),
    Param(
        name="alipay_certificate",
        title="Alipay's certificate (certificate mode, alipayCertPublicKey_RSA2.crt)",
        required=False,
    ),
    Param(
        name="alipay_roots",
        title="Alipay's root certificates (certificate mode, alipayRootCert.crt)",
        required=False,
    ),
    Param(
        name="aes_key",
        title="Key of content encryption (接口内容加密方式, base64); phone numbers come only with it",
        required=False,
        secret=True,
    ),
    Param(name="gateway_url", title="Address of Alipay's gateway", required=False, default=GATEWAY),
)
"""For whoever speaks to the gateway, beside params of his own. One of the two modes must be complete."""

_FILES = ("app_certificate", "alipay_certificate", "alipay_roots")


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """An application's params, parsed. Nothing secret is in its text."""

    app_id: str
    signing_key: SigningKey
    """Its serial is the `app_cert_sn`, or empty in public-key mode."""
    public_key: VerificationKey | None
    certificates: Certificates | None
    aes_key: bytes | None = field(repr=False)
    gateway_url: str

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The verification keys that were configured."""
        certified = (self.certificates.key,) if self.certificates else ()
        return (self.public_key, *certified) if self.public_key else certified

    @classmethod
    def read(cls, app_id: str, values: Mapping[str, str], *, owner: str) -> Self:
        """From the values of APPLICATION_PARAMS. Raises ConfigurationError, which never quotes a value."""
        if not (app_id.isascii() and app_id.isdecimal()):
            raise ConfigurationError(f"{owner}: an app id has digits only")
        private_key = read_private_key(values["app_private_key"], name=f"{owner}: app_private_key")
        certificates = _certificates(values, private_key, owner)
        public_key = None
        if values["alipay_public_key"]:
            if certificates:
                raise ConfigurationError(f"{owner}: alipay_public_key or the three certificates, not both")
            theirs = read_public_key(values["alipay_public_key"], name=f"{owner}: alipay_public_key")
            if theirs.public_numbers() == private_key.public_key().public_numbers():
                raise ConfigurationError(f"{owner}: alipay_public_key is the application's own; Alipay's is needed")
            public_key = VerificationKey("", theirs)
        elif not certificates:
            raise ConfigurationError(f"{owner}: alipay_public_key, or {', '.join(_FILES)}, missing")
        return cls(
            app_id=app_id,
            signing_key=SigningKey(certificates.app_cert_sn if certificates else "", private_key),
            public_key=public_key,
            certificates=certificates,
            aes_key=read_aes_key(values["aes_key"], name=f"{owner}: aes_key") if values["aes_key"] else None,
            gateway_url=_gateway_url(values["gateway_url"], owner),
        )


def _certificates(values: Mapping[str, str], private_key: RSAPrivateKey, owner: str) -> Certificates | None:
    given = [name for name in _FILES if values[name]]
    if not given:
        return None
    if len(given) != len(_FILES):
        raise ConfigurationError(f"{owner}: certificate mode needs all of {', '.join(_FILES)}")
    names = (f"{owner}: app_certificate", f"{owner}: alipay_certificate", f"{owner}: alipay_roots")
    app, alipay, roots = (values[name] for name in _FILES)
    if split_bundle(app, name=names[0])[0].public_key() != private_key.public_key():
        raise ConfigurationError(f"{owner}: app_certificate does not belong to app_private_key")
    return Certificates.read(app=app, alipay=alipay, roots=roots, names=names)


def _gateway_url(text: str, owner: str) -> str:
    """Without a query: the gateway's parameters come there."""
    url = urlsplit(text)
    scheme_fits = url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK)
    if not (scheme_fits and url.netloc) or "@" in url.netloc or url.query or url.fragment:
        raise ConfigurationError(f"{owner}: gateway_url must be https://host/path")
    return f"{url.scheme}://{url.netloc}{url.path}"
