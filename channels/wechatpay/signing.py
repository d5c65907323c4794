"""Signatures, ciphers and what is signed. Source: WeChat Pay merchant documents, APIv3, 签名与验签规则."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1

from wire.keys import KeyRing, SigningKey

SCHEME = "WECHATPAY2-SHA256-RSA2048"
AEAD_ALGORITHM = "AEAD_AES_256_GCM"
CLOCK_TOLERANCE_SECONDS = 300
AEAD_KEY_BYTES = 32
FIELD_BYTES_MAX = 214  # what OAEP with SHA-1 leaves of a 2048-bit key


def request_message(method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What we sign of a request; `target` is path and query exactly as they are sent."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"


def answer_message(timestamp: str, nonce: str, body: bytes) -> bytes:
    """What WeChat Pay signs of an answer or a notice."""
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def pay_message(app_id: str, timestamp: str, nonce: str, package: str) -> bytes:
    """What we sign for the payer's phone: `package` is `prepay_id=…`."""
    return f"{app_id}\n{timestamp}\n{nonce}\n{package}\n".encode()


def sign_text(key: SigningKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message)).decode()


def authorization(
    key: SigningKey, *, merchant_no: str, method: str, target: str, timestamp: str, nonce: str, body: bytes
) -> str:
    """The Authorization header of a request."""
    signature = sign_text(key, request_message(method, target, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{merchant_no}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{key.serial}"'
    )


def why_not_signed(keys: KeyRing, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
    """None when these very bytes were signed, now, by one of these keys; else what is wrong.

    The order is: a known serial, then the clock, then the signature, so that strangers cost little.
    """
    serial = headers.get("wechatpay-serial", "")
    timestamp = headers.get("wechatpay-timestamp", "")
    nonce = headers.get("wechatpay-nonce", "")
    signature = headers.get("wechatpay-signature", "")
    if not (serial and timestamp and nonce and signature):
        return "not signed"
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        return "signed in an unknown way"
    key = keys.find(serial, now)
    if key is None:
        return "signed with an unknown serial"
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return "its timestamp is no number"
    if abs(now.timestamp() - int(timestamp)) > CLOCK_TOLERANCE_SECONDS:
        return f"its timestamp is more than {CLOCK_TOLERANCE_SECONDS} seconds off"
    try:
        raw_signature = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return "its signature is no base64"
    if not key.verifies(answer_message(timestamp, nonce, body), raw_signature):
        return "its signature is wrong"
    return None


def decrypt_resource(api_v3_key: bytes, *, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """AES-256-GCM of notices and certificates. Raises ValueError for a wrong key and anything altered.

    The key must have 32 bytes: with 16 the cipher would silently be another one.
    """
    if len(api_v3_key) != AEAD_KEY_BYTES:
        raise ValueError(f"an APIv3 key has {AEAD_KEY_BYTES} bytes")
    try:
        return AESGCM(api_v3_key).decrypt(
            nonce.encode(), base64.b64decode(ciphertext, validate=True), associated_data.encode()
        )
    except (InvalidTag, binascii.Error) as error:
        raise ValueError("cannot be decrypted with this APIv3 key") from error


def encrypt_field(key: RSAPublicKey, text: str) -> str:
    """A sensitive field of a request (敏感信息加密, RSAES-OAEP, SHA-1). Raises ValueError if too long."""
    plain = text.encode()
    if len(plain) > FIELD_BYTES_MAX:
        raise ValueError(f"a sensitive field has at most {FIELD_BYTES_MAX} bytes")
    return base64.b64encode(key.encrypt(plain, _oaep())).decode()


def decrypt_field(key: RSAPrivateKey, text: str) -> str:
    """A sensitive field of an answer. Raises ValueError."""
    return key.decrypt(base64.b64decode(text, validate=True), _oaep()).decode()


def _oaep() -> OAEP:
    # SHA-1 is what the guides and the official libraries use; as OAEP's mask it is not a weakness.
    return OAEP(mgf=MGF1(algorithm=SHA1()), algorithm=SHA1(), label=None)  # noqa: S303
