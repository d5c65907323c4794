"""Both ends of Alipay's gateway for tests: published demonstration keys, certificates made from them, signatures."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from tests.support.vectors import read_vectors
from wire.keys import VerificationKey

APP_ID = "2021000000000001"
AES_KEY = "aa4BtZ4tspm2wnXLb1ThQA=="
NOW = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)


@cache
def demo_key(name: str) -> RSAPrivateKey:
    """`demo_app` or `demo_ali`, published; any other name is a fresh key of this run."""
    known = read_vectors("alipay", "keys/keys.json").get(name)
    if known is None:
        return generate_private_key(public_exponent=65537, key_size=2048)
    key = load_der_private_key(base64.b64decode(known["private_pkcs8_b64"]), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


def ali_key(name: str = "demo_ali") -> VerificationKey:
    return VerificationKey("", demo_key(name).public_key())


def signature(message: bytes, name: str = "demo_ali", *, sha1: bool = False) -> str:
    digest = SHA1() if sha1 else SHA256()  # noqa: S303 - what must not pass
    return base64.b64encode(demo_key(name).sign(message, PKCS1v15(), digest)).decode()


def private_base64(name: str) -> str:
    return base64.b64encode(demo_key(name).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def public_base64(name: str) -> str:
    return base64.b64encode(
        demo_key(name).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode()


@dataclass(frozen=True)
class Maker:
    """A certificate and the name of its key, which may sign others."""

    certificate: x509.Certificate
    key_name: str

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def certificate(
    common_name: str,
    key_name: str,
    issuer: Maker | None = None,
    *,
    is_issuer: bool = False,
    serial: int = 1,
    until: datetime = NOW + timedelta(days=365),
) -> Maker:
    """Signed by the issuer, or by itself."""
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Ant Financial"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(demo_key(key_name).public_key())
        .serial_number(serial)
        .not_valid_before(NOW - timedelta(days=365))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_issuer, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_issuer,
                crl_sign=is_issuer,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    return Maker(builder.sign(demo_key(issuer.key_name if issuer else key_name), SHA256()), key_name)
