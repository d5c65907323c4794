"""The cipher of official-account and mini program pushes (document "消息加解密说明"). Pure but for the 16 random bytes.

AES-256-CBC whose start value is the key's first half, PKCS#7 to 32 bytes; inside lie 16 random bytes, the length of
the message, the message and the appid. CBC proves nothing by itself: whoever opens checks the signature first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from core.errors import ConfigurationError
from wire.keys import same_text

AES_KEY_LENGTH = 43  # of the EncodingAESKey, as it is shown in the platform's console
BLOCK_BYTES = 32
RANDOM_BYTES = 16
SIZE_BYTES = 4
SEALED_LENGTH_MAX = 1 << 19
SIGNATURE_LENGTH = 40
_AES_KEY = re.compile(rf"[A-Za-z0-9]{{{AES_KEY_LENGTH}}}", re.ASCII)


class NotOpened(ValueError):
    """Not sealed with this key for this appid, or altered; the message says why and quotes nothing."""


def read_aes_key(text: str, *, name: str) -> bytes:
    """The 32 bytes of an EncodingAESKey. Raises ConfigurationError, which names the setting and never quotes it."""
    if not _AES_KEY.fullmatch(text):
        raise ConfigurationError(f"{name} must be {AES_KEY_LENGTH} letters and digits")
    return base64.b64decode(text + "=")


def signature(*parts: str) -> str:
    """SHA-1 over the parts in the order of their bytes: token, timestamp, nonce, and of a sealed push its Encrypt."""
    text = "".join(sorted(parts))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def is_signed(given: str, *parts: str) -> bool:
    """Whether this is the signature of the parts; the time it takes does not say how much of it is right."""
    return len(given) == SIGNATURE_LENGTH and given.isascii() and same_text(signature(*parts), given)


def seal(message: bytes, *, key: bytes, app_id: str, random_bytes: bytes) -> str:
    """The message as the base64 text of an Encrypt element; `random_bytes` are 16, fresh each time."""
    assert len(random_bytes) == RANDOM_BYTES
    plain = random_bytes + len(message).to_bytes(SIZE_BYTES, "big") + message + app_id.encode()
    missing = BLOCK_BYTES - len(plain) % BLOCK_BYTES
    encryptor = _cipher(key).encryptor()
    sealed = encryptor.update(plain + bytes([missing]) * missing) + encryptor.finalize()
    return base64.b64encode(sealed).decode()


def open_sealed(sealed: str, *, key: bytes, app_id: str) -> bytes:
    """The message in an Encrypt element. Raises NotOpened unless every byte is where it belongs."""
    if len(sealed) > SEALED_LENGTH_MAX:
        raise NotOpened("too long")
    try:
        encrypted = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raise NotOpened("no base64") from None
    if not encrypted or len(encrypted) % BLOCK_BYTES:
        raise NotOpened("no whole number of blocks")
    decryptor = _cipher(key).decryptor()
    plain = _unpadded(decryptor.update(encrypted) + decryptor.finalize())
    start = RANDOM_BYTES + SIZE_BYTES
    end = start + int.from_bytes(plain[RANDOM_BYTES:start], "big")
    owner = app_id.encode()
    if end != len(plain) - len(owner):
        raise NotOpened("a wrong length, or another appid")
    if plain[end:] != owner:
        raise NotOpened("another appid")
    return plain[start:end]


def _unpadded(padded: bytes) -> bytes:
    missing = padded[-1]
    if not 1 <= missing <= BLOCK_BYTES or padded[-missing:] != bytes([missing]) * missing:
        raise NotOpened("a wrong key, or altered")
    return padded[:-missing]


def _cipher(key: bytes) -> Cipher[CBC]:
    return Cipher(AES256(key), CBC(key[:16]))
