"""The cipher of pushes: what is sealed opens, and nothing that was altered does."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as some

from bot.wechat.cipher import (
    BLOCK_BYTES,
    SEALED_LENGTH_MAX,
    NotOpened,
    is_signed,
    open_sealed,
    read_aes_key,
    seal,
    signature,
)
from core.errors import ConfigurationError

AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
KEY = read_aes_key(AES_KEY, name="key")
OTHER_KEY = read_aes_key(AES_KEY[::-1], name="key")
APP_ID = "wx00000000000000aa"
SALT = b"0123456789abcdef"


def sealed_blocks(plain: bytes, key: bytes = KEY) -> str:
    """These very bytes, padding and all, through the cipher."""
    encryptor = Cipher(AES256(key), CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode()


def padded(plain: bytes) -> bytes:
    missing = BLOCK_BYTES - len(plain) % BLOCK_BYTES
    return plain + bytes([missing]) * missing


def a_plain(message: bytes = b"hello", *, size: int | None = None, app_id: str = APP_ID) -> bytes:
    size = len(message) if size is None else size
    return SALT + size.to_bytes(4, "big") + message + app_id.encode()


@given(message=some.binary(max_size=200), salt=some.binary(min_size=16, max_size=16), app_id=some.text(min_size=1))
def test_what_is_sealed_opens_with_its_key_for_its_app_alone(message: bytes, salt: bytes, app_id: str) -> None:
    app_id = app_id.encode("utf-8", "replace").decode()
    sealed = seal(message, key=KEY, app_id=app_id, random_bytes=salt)
    assert len(base64.b64decode(sealed)) % BLOCK_BYTES == 0
    assert open_sealed(sealed, key=KEY, app_id=app_id) == message
    for wrong in ({"key": OTHER_KEY, "app_id": app_id}, {"key": KEY, "app_id": app_id + "x"}):
        with pytest.raises(NotOpened):
            open_sealed(sealed, **wrong)  # type: ignore[arg-type]


def test_the_helpers_of_these_tests_seal_as_we_do() -> None:
    assert sealed_blocks(padded(a_plain())) == seal(b"hello", key=KEY, app_id=APP_ID, random_bytes=SALT)


def test_every_length_of_padding_from_1_to_32() -> None:
    for length in range(2 * BLOCK_BYTES):
        message = b"x" * length
        assert open_sealed(sealed_blocks(padded(a_plain(message))), key=KEY, app_id=APP_ID) == message


WHOLE = 3 * BLOCK_BYTES  # the plain text below and its padding
FULL = a_plain(b"x" * (WHOLE - 8 - len(a_plain(b""))))  # 8 bytes of padding are missing

REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("", "whole number"),
    "no base64": ("not base64!", "no base64"),
    "base64 for addresses": (sealed_blocks(padded(a_plain())).replace("+", "-").replace("/", "_") + "_", "no base64"),
    "not ASCII": ("门诊", "no base64"),
    "base64 cut short": (sealed_blocks(padded(a_plain()))[:-1], "no base64"),
    "base64 cut by four": (sealed_blocks(padded(a_plain()))[:-4], "whole number"),
    "16 bytes, a block of AES but not of the padding": (sealed_blocks(b"x" * 16), "whole number"),
    "padding of 0": (sealed_blocks(FULL + b"\0" * 8), "wrong key, or altered"),
    "padding of 33": (sealed_blocks(FULL + bytes([33]) * 8), "wrong key, or altered"),
    "padding of 255": (sealed_blocks(FULL + bytes([255]) * 8), "wrong key, or altered"),
    "padding of 40, all of it": (sealed_blocks(a_plain(b"x" * 18) + bytes([40]) * 40), "wrong key, or altered"),
    "padding that differs": (sealed_blocks(FULL + b"\7" + bytes([8]) * 7), "wrong key, or altered"),
    "padding of one byte less": (sealed_blocks(FULL + b"\0" + bytes([7]) * 7), "another appid"),
    "nothing but padding": (sealed_blocks(bytes([32]) * 32), "wrong length"),
    "nothing but salt": (sealed_blocks(padded(SALT)), "wrong length"),
    "no appid": (sealed_blocks(padded(a_plain(app_id=""))), "wrong length"),
    "another appid": (sealed_blocks(padded(a_plain(app_id="wx00000000000000ab"))), "another appid"),
    "a longer appid": (sealed_blocks(padded(a_plain(app_id=APP_ID + "a"))), "wrong length"),
    "a length of one less": (sealed_blocks(padded(a_plain(size=4))), "wrong length"),
    "a length of one more": (sealed_blocks(padded(a_plain(size=6))), "wrong length"),
    "a length of 0": (sealed_blocks(padded(a_plain(size=0))), "wrong length"),
    "a length of 4 GiB": (sealed_blocks(padded(a_plain(size=0xFFFFFFFF))), "wrong length"),
    "another key": (sealed_blocks(padded(a_plain()), OTHER_KEY), "wrong key|wrong length|another appid"),
    "too long": ("A" * (SEALED_LENGTH_MAX + 4), "too long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    sealed, reason = REFUSED[name]
    with pytest.raises(NotOpened, match=reason) as refused:
        open_sealed(sealed, key=KEY, app_id=APP_ID)
    assert refused.value.__cause__ is None
    assert APP_ID not in str(refused.value)


def test_one_bit_of_the_last_blocks_changed_is_seen() -> None:
    """CBC hides changes only in the salt and the message; whoever opens has checked the signature before."""
    sealed = base64.b64decode(sealed_blocks(padded(a_plain(b"x" * 40))))
    for bit in range(8 * (len(sealed) - 48), 8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotOpened):
            open_sealed(base64.b64encode(altered).decode(), key=KEY, app_id=APP_ID)


@pytest.mark.parametrize(
    "text", ["", AES_KEY[:-1], AES_KEY + "H", AES_KEY[:-1] + "+", AES_KEY[:-1] + "门", AES_KEY + "\n"]
)
def test_an_aes_key_that_is_none_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="push_aes_key must be 43") as refused:
        read_aes_key(text, name="push_aes_key")
    assert not text or text not in str(refused.value)


def test_signatures() -> None:
    """`printf %s 1714112445415670741tokenzzz | sha1sum`: the parts in the order of their bytes."""
    expected = "d5fdb5c52508d3776de2755f73d4ff009877f19d"
    assert signature("zzz", "token", "415670741", "1714112445") == expected
    assert is_signed(expected, "token", "1714112445", "415670741", "zzz")
    for wrong in ("", expected[:-1], expected + "0", expected.upper(), "门" * 40, "\ud83d" * 40, "0" * 40):
        assert not is_signed(wrong, "token", "1714112445", "415670741", "zzz")
