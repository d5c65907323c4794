"""The platform's message cipher: AES-256-CBC under the EncodingAESKey, padded to 32 bytes, sealed for one app.

Facts relied on: the key is the base64 of 43 characters and `=`; the IV is its first 16 bytes; the text is 16
arbitrary bytes, the length in 4 big-endian bytes, the message, the app id; signatures are SHA-1 over the
sorted parts (developers.weixin.qq.com, doc/oplatform/developers/dev/push/encryption.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK = 32
FILLER = 16
KEY_CHARACTERS = 43


def signature(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()


def key_bytes(aes_key: str) -> bytes:
    """The 32 bytes behind an EncodingAESKey. Raises ValueError."""
    if not re.fullmatch(rf"[A-Za-z0-9]{{{KEY_CHARACTERS}}}", aes_key):
        raise ValueError(f"an EncodingAESKey is {KEY_CHARACTERS} letters and digits")
    return base64.b64decode(aes_key + "=")


def seal(aes_key: str, app_id: str, message: bytes, filler: bytes) -> str:
    key = key_bytes(aes_key)
    text = filler[:FILLER].ljust(FILLER, b"0") + len(message).to_bytes(4, "big") + message + app_id.encode()
    count = BLOCK - len(text) % BLOCK
    encryptor = Cipher(AES(key), CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(text + bytes([count]) * count) + encryptor.finalize()).decode()


def unseal(aes_key: str, app_id: str, sealed: str) -> bytes:
    """The message that was sealed for this app. Raises ValueError for anything else."""
    key = key_bytes(aes_key)
    try:
        data = base64.b64decode(sealed, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if not data or len(data) % BLOCK:
        raise ValueError("not a whole number of blocks")
    decryptor = Cipher(AES(key), CBC(key[:16])).decryptor()
    text = decryptor.update(data) + decryptor.finalize()
    count = text[-1]
    if not 1 <= count <= BLOCK or text[-count:] != bytes([count]) * count:
        raise ValueError("wrong padding")
    text = text[FILLER:-count]
    length = int.from_bytes(text[:4], "big")
    if length != len(text) - 4 - len(app_id.encode()) or text[4 + length :] != app_id.encode():
        raise ValueError("sealed for another app")
    return text[4 : 4 + length]
