"""Content encryption, and what a mini program's page is handed encrypted.

Source: Alipay open platform, 接口内容加密方式 (common/02mse3): AES-128, CBC, PKCS#7, and an IV of zeros, as they
prescribe it. It keeps content from whoever reads along; only the signature says who wrote it and that nothing was
altered, so it is verified over the cipher text before anything is decrypted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from core.errors import ConfigurationError
from wire.alipay.charsets import DEFAULT_CHARSET, encode
from wire.alipay.envelope import NotBelieved, check_content, read_content, read_members, read_text
from wire.keys import VerificationKey

AES_KEY_BYTES = 16
ENCRYPT_TYPE = "AES"

_ZERO_IV = bytes(16)
_BLOCK_BITS = 128


def read_aes_key(text: str, *, name: str) -> bytes:
    """Raises ConfigurationError, which names the setting and never quotes it."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{name} is no base64") from None
    if len(key) != AES_KEY_BYTES:
        raise ConfigurationError(f"{name} must have {AES_KEY_BYTES} bytes in base64")
    return key


def encrypt(key: bytes, plain: bytes) -> str:
    """The cipher text in base64."""
    padder, encryptor = PKCS7(_BLOCK_BITS).padder(), _cipher(key).encryptor()
    padded = padder.update(plain) + padder.finalize()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def decrypt(key: bytes, text: str) -> bytes:
    """Raises ValueError for another key and for what was never encrypted."""
    unpadder, decryptor = PKCS7(_BLOCK_BITS).unpadder(), _cipher(key).decryptor()
    try:
        sealed = base64.b64decode(text, validate=True)
        padded = decryptor.update(sealed) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except (binascii.Error, ValueError):
        raise ValueError("cannot be decrypted with this AES key") from None


def open_content(content: bytes, key: bytes | None, charset: str = DEFAULT_CHARSET) -> Mapping[str, object]:
    """The object in a node whose signature has been verified, encrypted or not. Raises NotBelieved."""
    if not content.startswith(b'"'):
        return read_content(content, charset)
    if key is None:
        raise NotBelieved("it is encrypted, and no AES key is configured")
    try:
        plain = decrypt(key, read_text(content))
    except ValueError as error:
        raise NotBelieved(str(error)) from None
    return read_content(plain, charset)


def open_page_answer(text: str, keys: Iterable[VerificationKey], key: bytes | None) -> Mapping[str, object]:
    """What `my.getPhoneNumber` hands to a mini program's page: a phone number, or why there is none.

    The page could have written it itself, so nothing is believed that Alipay has not signed. With an AES key the
    signature covers the base64 and the two quotes around it; errors come unencrypted, `response` being their JSON.
    Raises NotBelieved.
    """
    members = read_members(encode(text, DEFAULT_CHARSET))
    if "response" not in members:
        raise NotBelieved("it holds no response")
    content = members["response"]
    if content.startswith(b'"') and read_text(content).lstrip().startswith("{"):
        content = read_text(content).encode()
    check_content(content, read_text(members.get("sign", b'""')), keys)
    return open_content(content, key)


def _cipher(key: bytes) -> Cipher[CBC]:
    return Cipher(AES(key), CBC(_ZERO_IV))
