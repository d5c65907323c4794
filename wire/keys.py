"""Signing keys and verification keys: found by their exact serial text, several valid at the same time."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from core.errors import ConfigurationError

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096  # a larger key would hold up the event loop
CERTIFICATES_MAX = 16  # in one bundle


def same_text(one: str, other: str) -> bool:
    """Whether two secrets are equal; the time it takes says nothing about where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of ours and the serial under which its counterpart is known."""

    serial: str
    private_key: RSAPrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256."""
        return self.private_key.sign(message, PKCS1v15(), SHA256())


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key of theirs. A bare key has no end; a certificate's key counts between its two dates."""

    serial: str
    public_key: RSAPublicKey = field(repr=False)
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    def is_valid_at(self, moment: datetime) -> bool:
        return (self.valid_from is None or self.valid_from <= moment) and (
            self.valid_until is None or moment <= self.valid_until
        )

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """RSASSA-PKCS1-v1_5 with SHA-256."""
        try:
            self.public_key.verify(signature, message, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


class KeyRing:
    """Verification keys by exact serial. Never changed in place: a rotation makes a new ring."""

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self._keys = {key.serial: key for key in keys}

    def __iter__(self) -> Iterator[VerificationKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(sorted(self._keys))})"

    def find(self, serial: str, now: datetime) -> VerificationKey | None:
        """The key with exactly this serial, if it is valid now."""
        key = self._keys.get(serial)
        return key if key is not None and key.is_valid_at(now) else None

    def with_keys(self, keys: Iterable[VerificationKey]) -> Self:
        """This ring and the given keys; a serial already here keeps its key."""
        return type(self)([*keys, *self._keys.values()])


def read_private_key(text: str, *, name: str) -> RSAPrivateKey:
    """PKCS#8 or PKCS#1, in PEM form or as the bare base64 inside it, which is what Alipay's key tools give.

    Raises ConfigurationError, which names the setting and never quotes it.
    """
    try:
        if _is_pem(text):
            key = load_pem_private_key(text.strip().encode(), password=None)
        else:
            key = load_der_private_key(_bare(text), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name} is not an unencrypted private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(f"{name} is not an RSA key")
    _check_size(key.key_size, name)
    return key


def read_public_key(text: str, *, name: str) -> RSAPublicKey:
    """In PEM form or as the bare base64 inside it. Raises ConfigurationError."""
    try:
        key = load_pem_public_key(text.strip().encode()) if _is_pem(text) else load_der_public_key(_bare(text))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name} is not a public key in PEM form") from None
    if not isinstance(key, RSAPublicKey):
        raise ConfigurationError(f"{name} is not an RSA key")
    _check_size(key.key_size, name)
    return key


def read_certificates(pem: str, *, name: str) -> tuple[VerificationKey, ...]:
    """The keys of one or more certificates written one after another, serials in upper-case hexadecimal.

    Raises ConfigurationError.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem.strip().encode())
    except ValueError:
        raise ConfigurationError(f"{name} does not hold certificates in PEM form") from None
    if len(certificates) > CERTIFICATES_MAX:
        raise ConfigurationError(f"{name} holds more than {CERTIFICATES_MAX} certificates")
    return tuple(_key_of(certificate, name) for certificate in certificates)


def certificate_serial(certificate: x509.Certificate) -> str:
    """Upper-case hexadecimal, whole bytes, as certificate tools print it."""
    digits = f"{certificate.serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _is_pem(text: str) -> bool:
    return "-----BEGIN" in text


def _bare(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _key_of(certificate: x509.Certificate, name: str) -> VerificationKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name} holds a certificate whose key cannot be read") from None
    if not isinstance(key, RSAPublicKey):
        raise ConfigurationError(f"{name} holds a certificate without an RSA key")
    _check_size(key.key_size, name)
    return VerificationKey(
        serial=certificate_serial(certificate),
        public_key=key,
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
    )


def _check_size(bits: int, name: str) -> None:
    if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
        raise ConfigurationError(f"{name} has {bits} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")
