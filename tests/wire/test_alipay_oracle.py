"""Alipay's own library and we agree on what is signed, both ways, in requests, answers and notices."""

from __future__ import annotations

import json
import random
from importlib import import_module
from typing import Any
from urllib.parse import quote_plus

import pytest

from tests.support.alipay_parties import ali_key, demo_key, public_base64, signature
from tests.support.vectors import read_vectors
from wire.alipay.charsets import encode
from wire.alipay.envelope import check_content, read_content, read_envelope
from wire.alipay.signing import FormRule, is_signed, read_signed_form, request_message, sign_text
from wire.keys import SigningKey

sdk: Any = import_module("alipay.aop.api.util.SignatureUtils")

MESSAGES = 200
THEIRS_SIGNS_EVERY = 13
"""One of its signatures takes 20 ms of pure Python; these are all the same text as ours, so a few of each kind do."""
PRIVATE = read_vectors("alipay", "keys/keys.json")["demo_ali"]["private_pkcs1_b64"]
KEYS, SIGNER = (ali_key(),), SigningKey("", demo_key("demo_ali"))
LETTERS = "abcxyzABC019_-.&=+%/\\\"'{}[]<> \t门诊缴费收据药品〇￥，乗淺"
METHOD = "alipay.trade.query"


def signed(message: bytes, theirs: str, charset: str, number: int) -> str:
    sign = sign_text(SIGNER, message)
    if number % THEIRS_SIGNS_EVERY == 0:
        assert sdk.sign_with_rsa2(PRIVATE, theirs, charset) == sign
    assert sdk.verify_with_rsa(public_base64("demo_ali"), message, sign)
    return sign


def some_text(chance: random.Random) -> str:
    return "".join(chance.choice(LETTERS) for _ in range(chance.randrange(1, 30)))


def some_params(chance: random.Random) -> dict[str, str]:
    names = chance.sample(["app_id", "biz_content", "body", "method", "Z", "a", "a_b", "ab", "subject", "utc"], 6)
    return {name: some_text(chance) for name in names}


@pytest.mark.parametrize("charset", ["utf-8", "gbk"])
def test_the_official_library_signs_and_verifies_as_we_do(charset: str) -> None:
    chance = random.Random(charset)
    for number in range(MESSAGES // 2):
        params = {**some_params(chance), "charset": charset, "sign_type": "RSA2"}
        match number % 3:
            case 0:
                theirs, ours = sdk.get_sign_content(params), request_message(params, charset)
                assert is_signed(KEYS, ours, signed(ours, theirs, charset, number))
            case 1:
                left = {name: value for name, value in params.items() if name != "sign_type"}
                theirs, ours = sdk.get_sign_content(left), request_message(left, charset)
                form = {**params, "sign": signed(ours, theirs, charset, number)}
                body = "&".join(f"{name}={quote_plus(value, encoding=charset)}" for name, value in form.items())
                assert read_signed_form(body.encode(), FormRule.NOTICE, KEYS) == form
            case _:
                theirs = json.dumps(params, ensure_ascii=False).replace("/", "\\/")
                ours = encode(theirs, charset)
                sign = signed(ours, theirs, charset, number)
                written = f'{{"alipay_trade_query_response":{theirs},"sign":"{sign}"}}'
                envelope = read_envelope(encode(written, charset), METHOD, charset)
                check_content(envelope.content, envelope.sign, KEYS)
                assert read_content(envelope.content, charset) == params
        assert encode(theirs, charset) == ours


def test_the_official_library_takes_sha1_and_we_do_not() -> None:
    sign = signature(b"message", sha1=True)
    assert sdk.verify_with_rsa(public_base64("demo_ali"), b"message", sign)
    assert not is_signed(KEYS, b"message", sign)
