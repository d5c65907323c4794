"""Certificate mode: serial numbers as Alipay computes them, and which new certificate of Alipay's is believed.

Source: Alipay open platform, 公钥证书 (common/02kdne), and what its own libraries compute.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding

from core.errors import ConfigurationError
from wire.alipay.envelope import NotBelieved
from wire.keys import CERTIFICATES_MAX, VerificationKey, read_certificates

RSA_SIGNATURES = "1.2.840.113549.1.1"
"""The family of signature algorithms whose roots are named to the gateway; it goes by this and not by the key."""
CHAIN_MAX = 4
DIGESTS = (SHA256, SHA384, SHA512)

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificates:
    """What an application in certificate mode holds. Nothing here is secret."""

    app_cert_sn: str
    root_cert_sn: str
    alipay: tuple[x509.Certificate, ...] = field(repr=False)
    """Alipay's certificate, its issuers after it where the file holds them."""
    roots: tuple[x509.Certificate, ...] = field(repr=False)
    key: VerificationKey
    """Alipay's, its serial being the SN that answers name."""

    @classmethod
    def read(cls, *, app: str, alipay: str, roots: str, names: tuple[str, str, str]) -> Self:
        """From the three files (PEM). `names` are those of the settings. Raises ConfigurationError."""
        app_name, alipay_name, roots_name = names
        theirs = split_bundle(alipay, name=alipay_name)
        return cls(
            app_cert_sn=certificate_sn(split_bundle(app, name=app_name)[0]),
            root_cert_sn=root_cert_sn(roots, name=roots_name),
            alipay=theirs,
            roots=tuple(root for root in split_bundle(roots, name=roots_name) if is_rsa_signed(root)),
            key=_key_of(theirs[0], name=alipay_name),
        )


def split_bundle(text: str, *, name: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a bundle in their order, without those that cannot be read: Alipay's roots hold one.

    Raises ConfigurationError if none can be read.
    """
    pems = _PEM.findall(text)
    if len(pems) > CERTIFICATES_MAX:
        raise ConfigurationError(f"{name} holds more than {CERTIFICATES_MAX} certificates")
    certificates = [certificate for pem in pems if (certificate := _read(pem)) is not None]
    if not certificates:
        raise ConfigurationError(f"{name} does not hold certificates in PEM form")
    return tuple(certificates)


def certificate_sn(certificate: x509.Certificate) -> str:
    """The MD5 of issuer (most specific first, no blanks after commas) and decimal serial number; not a protection."""
    text = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def root_cert_sn(bundle: str, *, name: str) -> str:
    """The SNs of the bundle's RSA-signed certificates, joined in their order. Raises ConfigurationError."""
    numbers = [certificate_sn(root) for root in split_bundle(bundle, name=name) if is_rsa_signed(root)]
    if not numbers:
        raise ConfigurationError(f"{name} holds no root that is signed with RSA")
    return "_".join(numbers)


def is_rsa_signed(certificate: x509.Certificate) -> bool:
    return certificate.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNATURES)


def check_new_certificate(pem: str, cert_sn: str, held: Certificates, now: datetime) -> VerificationKey:
    """The key of Alipay's renewed certificate. Raises NotBelieved.

    It must be the one that was asked for, lead to one of our roots, and bear the common name of the one that was
    configured: every merchant's application has a certificate under the same roots.
    """
    try:
        fresh = split_bundle(pem, name="a downloaded certificate")
        key = _key_of(fresh[0], name="a downloaded certificate")
    except ConfigurationError as error:
        raise NotBelieved(str(error)) from None
    if key.serial != cert_sn:
        raise NotBelieved("the downloaded certificate is not the one that was asked for")
    if _common_name(fresh[0]) != _common_name(held.alipay[0]):
        raise NotBelieved("the downloaded certificate is somebody else's")
    if not leads_to_root(fresh[0], [*fresh[1:], *held.alipay[1:]], held.roots, now):
        raise NotBelieved("the downloaded certificate does not lead to a root of ours")
    return key


def leads_to_root(
    leaf: x509.Certificate,
    issuers: Iterable[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> bool:
    """Whether each was signed by the next, with more than SHA-1, up to one of the roots, all of them valid now."""
    between = [issuer for issuer in issuers if _may_issue(issuer)]
    current = leaf
    for _ in range(CHAIN_MAX):
        if not _is_valid_at(current, now) or not _is_well_signed(current):
            return False
        if any(_is_issued_by(current, root) and _is_valid_at(root, now) for root in roots):
            return True
        following = next((issuer for issuer in between if _is_issued_by(current, issuer)), None)
        if following is None:
            return False
        current = following
    return False


def _read(pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None


def _key_of(certificate: x509.Certificate, *, name: str) -> VerificationKey:
    (key,) = read_certificates(certificate.public_bytes(Encoding.PEM).decode(), name=name)
    return VerificationKey(
        certificate_sn(certificate), key.public_key, valid_from=key.valid_from, valid_until=key.valid_until
    )


def _common_name(certificate: x509.Certificate) -> str:
    return ",".join(str(part.value) for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_well_signed(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, DIGESTS)
    except UnsupportedAlgorithm:
        return False


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _is_valid_at(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc
