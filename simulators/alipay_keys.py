"""Keys, signatures, certificate numbers and the cipher of the simulated Alipay, written from its documents."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

RSA_SIGNATURE_OIDS = "1.2.840.113549.1.1"
AES_BLOCK_BITS = 128
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """A fresh RSA-2048 key; the same name is the same key for as long as the program runs."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def read_private_key(pem: str) -> RSAPrivateKey:
    """PKCS#8 or PKCS#1, as the key tools hand them out."""
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("not an RSA private key")
    return key


def read_public_key(text: str) -> RSAPublicKey:
    """A certificate, a public key in PEM, or the bare base64 that the console shows."""
    key: object
    if "BEGIN CERTIFICATE" in text:
        key = x509.load_pem_x509_certificate(text.encode()).public_key()
    elif "BEGIN" in text:
        key = load_pem_public_key(text.encode())
    else:
        key = load_der_public_key(base64.b64decode(text))
    if not isinstance(key, RSAPublicKey):
        raise TypeError("not an RSA public key")
    return key


def private_pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key: RSAPrivateKey, message: bytes, *, digest: HashAlgorithm | None = None) -> str:
    """RSA2; another `digest` is for faults."""
    return base64.b64encode(key.sign(message, PKCS1v15(), digest or SHA256())).decode()


def verify(key: RSAPublicKey, message: bytes, signature: str, *, digest: HashAlgorithm | None = None) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), digest or SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def signed_text(params: Mapping[str, str], *, without: tuple[str, ...] = ("sign",)) -> str:
    """What is signed of a request: everything with a value but `sign`, in the order of the names' bytes.

    A payment notice also leaves `sign_type` out.
    """
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if params[name] and name not in without)


NOTICE_WITHOUT = ("sign", "sign_type")


def node_text(body: str, node: str) -> str:
    """The text of the node's value as it was received, which is what the signature of an answer is about."""
    found = re.search(rf'"{re.escape(node)}"\s*:\s*', body)
    if found is None:
        raise ValueError(f"there is no {node}")
    start = found.end()
    depth, place, in_text = 0, start, False
    while place < len(body):
        letter = body[place]
        if in_text:
            if letter == "\\":
                place += 1
            elif letter == '"':
                in_text = False
        elif letter == '"':
            in_text = True
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
        place += 1
        if depth == 0 and not in_text:
            return body[start:place]
    raise ValueError(f"{node} does not end")


def certificate_sn(certificate: x509.Certificate) -> str:
    """MD5 over issuer (most specific first) and decimal serial number."""
    name = certificate.issuer.rfc4514_string()
    return hashlib.md5(f"{name}{certificate.serial_number}".encode(), usedforsecurity=False).hexdigest()


def root_certificate_sn(bundle: str) -> str:
    """The numbers of those certificates that are signed with RSA, in the order of the file."""
    numbers = []
    for pem in _PEM.findall(bundle):
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
        except ValueError:
            continue
        if certificate.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNATURE_OIDS):
            numbers.append(certificate_sn(certificate))
    return "_".join(numbers)


def make_certificate(
    public_key: RSAPublicKey | ec.EllipticCurvePublicKey,
    common_name: str,
    *,
    issuer: str,
    issuer_key: RSAPrivateKey | ec.EllipticCurvePrivateKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
) -> str:
    """A certificate in PEM, signed by `issuer`."""
    is_authority = "Authority" in common_name
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


@cache
def curve_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def encrypt(key: str, text: str, charset: str = "utf-8") -> str:
    """Content encryption: AES-128-CBC, a zero IV, PKCS#7; `key` is base64, the text in the request's charset."""
    padder = PKCS7(AES_BLOCK_BITS).padder()
    padded = padder.update(text.encode(charset)) + padder.finalize()
    encryptor = _cipher(key).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def decrypt(key: str, text: str, charset: str = "utf-8") -> str:
    """Raises ValueError when it was not encrypted with this key."""
    decryptor = _cipher(key).decryptor()
    padded = decryptor.update(base64.b64decode(text, validate=True)) + decryptor.finalize()
    unpadder = PKCS7(AES_BLOCK_BITS).unpadder()
    return (unpadder.update(padded) + unpadder.finalize()).decode(charset)


def _cipher(key: str) -> Cipher[CBC]:
    return Cipher(AES(base64.b64decode(key)), CBC(bytes(AES_BLOCK_BITS // 8)))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Simulated Ant Financial"),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )
