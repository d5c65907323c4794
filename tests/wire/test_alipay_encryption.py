"""Content encryption, and the phone number that a mini program's page is handed."""

from __future__ import annotations

import json

import pytest

from core.errors import ConfigurationError
from tests.support.alipay_parties import AES_KEY, ali_key, signature
from wire.alipay.encryption import decrypt, encrypt, open_content, open_page_answer, read_aes_key
from wire.alipay.envelope import NotBelieved

KEY = read_aes_key(AES_KEY, name="key")
OTHER = read_aes_key("TDftre9FpItr46e9BVNJcw==", name="key")
KEYS = (ali_key(),)
PHONE = {"code": "10000", "msg": "Success", "mobile": "13800000000"}
NO_CONSENT = {"code": "40003", "msg": "无效的授权关系", "subCode": "isv.invalid-auth-relations"}


def handed(response: str, sign: str | None) -> str:
    return json.dumps({"response": response, "sign": sign} if sign is not None else {"response": response})


def test_what_is_encrypted_opens_with_its_key_only():
    for plain in (b"", "门诊缴费".encode(), b"x" * 16, b"x" * 1000):
        assert decrypt(KEY, encrypt(KEY, plain)) == plain
    sealed = encrypt(KEY, b'{"code":"10000"}')
    for key, text in ((OTHER, sealed), (KEY, sealed[:-8]), (KEY, sealed[4:]), (KEY, "药"), (KEY, ""), (KEY, "AA==")):
        with pytest.raises(ValueError, match="cannot be decrypted"):
            decrypt(key, text)


def test_a_key_is_named_and_not_quoted():
    for text in ("SECRET!", "YWJj", "", AES_KEY + AES_KEY):
        with pytest.raises(ConfigurationError, match=r"^the key ") as raised:
            read_aes_key(text, name="the key")
        assert "SECRET" not in str(raised.value)


def test_a_node_is_opened_encrypted_or_not():
    sealed = f'"{encrypt(KEY, json.dumps(PHONE).encode())}"'.encode()
    assert open_content(sealed, KEY) == PHONE
    assert open_content(sealed.replace(b"/", b"\\/"), KEY) == PHONE
    assert open_content(json.dumps(NO_CONSENT).encode(), None) == NO_CONSENT
    gbk = encrypt(KEY, json.dumps(NO_CONSENT, ensure_ascii=False).encode("gbk"))
    assert open_content(f'"{gbk}"'.encode(), KEY, "gbk") == NO_CONSENT
    for content, key, reason in (
        (sealed, None, "no AES key"),
        (sealed, OTHER, "cannot be decrypted|no JSON object"),
        (b'"' + encrypt(KEY, b"[]").encode() + b'"', KEY, "no JSON object"),
    ):
        with pytest.raises(NotBelieved, match=reason):
            open_content(content, key)


def test_a_phone_number_is_verified_with_its_quotes_before_it_is_opened():
    sealed = encrypt(KEY, json.dumps(PHONE).encode())
    sign = signature(f'"{sealed}"'.encode())
    assert open_page_answer(handed(sealed, sign), KEYS, KEY) == PHONE
    forged = encrypt(KEY, json.dumps({**PHONE, "mobile": "13900000000"}).encode())
    for text, reason in (
        (handed(forged, sign), "is wrong"),
        (handed(sealed, signature(sealed.encode())), "is wrong"),
        (handed(sealed, signature(f'"{sealed}"'.encode(), sha1=True)), "is wrong"),
        (handed("not even encrypted", sign), "is wrong"),
        (handed(sealed, None), "not signed"),
        (handed(sealed, ""), "not signed"),
        ("{}", "Alipay writes it"),
        ('{"sign":"x"}', "no response"),
        ("13800000000", "no JSON object"),
        (handed(sealed, sign)[:-1] + f', "response": "{forged}"}}', "comes twice"),
    ):
        with pytest.raises(NotBelieved, match=reason):
            open_page_answer(text, KEYS, KEY)


def test_why_there_is_no_phone_number_is_believed_when_it_is_signed():
    text = json.dumps(NO_CONSENT, ensure_ascii=False)
    for response in (
        handed(text, signature(text.encode())),
        f'{{"response":{text},"sign":"{signature(text.encode())}"}}',
    ):
        assert open_page_answer(response, KEYS, KEY) == NO_CONSENT
    for made_up in (handed(json.dumps(PHONE), None), handed(json.dumps(PHONE), signature(b"other"))):
        with pytest.raises(NotBelieved):
            open_page_answer(made_up, KEYS, KEY)
