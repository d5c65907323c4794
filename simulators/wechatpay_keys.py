"""Keys, signatures and ciphers of the simulated WeChat Pay, written from the documents for this side only."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

SCHEME = "WECHATPAY2-SHA256-RSA2048"
SIGNTEST_PREFIX = "WECHATPAY/SIGNTEST/"
PUBLIC_KEY_ID_PREFIX = "PUB_KEY_ID_"


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """A fresh RSA-2048 key; the same name is the same key for as long as the program runs."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def read_private_key(pem: str | bytes) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("not an RSA private key")
    return key


def read_public_key(pem: str | bytes) -> RSAPublicKey:
    """The public key in a PEM file, be it a bare public key or a certificate."""
    data = pem.encode() if isinstance(pem, str) else pem
    key = (
        x509.load_pem_x509_certificate(data).public_key() if b"BEGIN CERTIFICATE" in data else load_pem_public_key(data)
    )
    if not isinstance(key, RSAPublicKey):
        raise TypeError("not an RSA public key")
    return key


def private_pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def self_signed_certificate(
    key: RSAPrivateKey, *, serial: str, common_name: str, not_before: datetime, not_after: datetime
) -> str:
    """A certificate in PEM whose serial number is `serial` in hexadecimal."""
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Simulated Tenpay"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int(serial, 16))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def sign(key: RSAPrivateKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()


def verify(key: RSAPublicKey, message: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def request_message(method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What a merchant signs of a request."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"


def answer_message(timestamp: str, nonce: str, body: bytes) -> bytes:
    """What WeChat Pay signs of an answer or a notice."""
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def pay_sign_message(appid: str, timestamp: str, nonce: str, package: str) -> bytes:
    """What a merchant signs for the phone: `prepay_id=…` in JSAPI and mini program, the bare id in APP."""
    return f"{appid}\n{timestamp}\n{nonce}\n{package}\n".encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorization:
    mchid: str
    nonce_str: str
    signature: str
    timestamp: str
    serial_no: str


_PAIR = re.compile(r'([a-z_]+)="([^"]*)"')


def parse_authorization(header: str) -> Authorization | None:
    """The five values of an Authorization header, or None if it does not have the documented form."""
    scheme, blank, rest = header.partition(" ")
    if scheme != SCHEME or not blank:
        return None
    pairs = [_PAIR.fullmatch(part) for part in rest.split(",")]
    values = {pair.group(1): pair.group(2) for pair in pairs if pair is not None}
    if None in pairs or len(pairs) != 5 or not all(values.values()):
        return None
    try:
        return Authorization(**values)
    except TypeError:
        return None


def build_authorization(
    key: RSAPrivateKey,
    *,
    mchid: str,
    serial_no: str,
    method: str,
    target: str,
    timestamp: str,
    nonce: str,
    body: bytes = b"",
) -> str:
    """The Authorization header a merchant would send; the sandbox's own tools and tests call with it."""
    signature = sign(key, request_message(method, target, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{serial_no}"'
    )


def aead_encrypt(key: str, *, nonce: str, associated_data: str, plaintext: bytes) -> str:
    return base64.b64encode(AESGCM(key.encode()).encrypt(nonce.encode(), plaintext, associated_data.encode())).decode()


def aead_decrypt(key: str, *, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """Raises cryptography's InvalidTag when anything was changed."""
    return AESGCM(key.encode()).decrypt(nonce.encode(), base64.b64decode(ciphertext), associated_data.encode())


def _oaep() -> OAEP:
    return OAEP(mgf=MGF1(algorithm=SHA1()), algorithm=SHA1(), label=None)  # noqa: S303 - the documented padding


def oaep_encrypt(key: RSAPublicKey, text: str) -> str:
    return base64.b64encode(key.encrypt(text.encode(), _oaep())).decode()


def oaep_decrypt(key: RSAPrivateKey, text: str) -> str:
    """Raises ValueError when the text was not encrypted for this key."""
    return key.decrypt(base64.b64decode(text, validate=True), _oaep()).decode()
