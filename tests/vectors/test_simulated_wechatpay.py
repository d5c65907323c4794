"""The simulator's own signature code against the published numbers, so that it cannot be wrong with us."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag

from simulators.wechatpay_keys import (
    aead_decrypt,
    aead_encrypt,
    answer_message,
    build_authorization,
    oaep_decrypt,
    parse_authorization,
    pay_sign_message,
    read_private_key,
    read_public_key,
    request_message,
    sign,
    verify,
)
from tests.support.vectors import read_vectors, vectors_folder


def pem(name: str) -> str:
    return (vectors_folder("wechat") / name).read_text()


def test_requests_and_pay_parameters_are_signed_as_published():
    vectors = read_vectors("wechat", "v3_request_signing.json")
    key = read_private_key(pem(vectors["private_key_file"]))
    checked = 0
    for case in vectors["cases"]:
        if "method" in case:
            target, body = case["url_line"], case["body"].encode()
            timestamp, nonce = case["timestamp"], case["nonce_str"]
            message = request_message(case["method"], target, timestamp, nonce, body)
        else:
            package = case.get("package") or case["prepayId"]
            message = pay_sign_message(case["appId"], case["timeStamp"], case["nonceStr"], package)
        expected = case.get("signature") or case.get("paySign") or case["sign"]
        assert message.decode() == case["string_to_sign"]
        assert sign(key, message) == expected
        assert verify(key.public_key(), message, expected)
        if "authorization" in case:
            parsed = parse_authorization(case["authorization"])
            assert parsed is not None
            assert (parsed.mchid, parsed.serial_no) == (vectors["mchid"], vectors["serial_no"])
            built = build_authorization(
                key,
                mchid=parsed.mchid,
                serial_no=parsed.serial_no,
                method=case["method"],
                target=case["url_line"],
                timestamp=parsed.timestamp,
                nonce=parsed.nonce_str,
                body=case["body"].encode(),
            )
            assert built == case["authorization"]
        checked += 1
    assert checked == 7


def test_answers_verify_as_published():
    cases = read_vectors("wechat", "v3_response_verify.json")["cases"]
    for case in cases:
        key = read_public_key(pem(case.get("public_key_file") or case["certificate_file"]))
        if "message" in case:
            message, signature = case["message"].encode(), case["signature"]
        else:
            body = case["body"].encode()
            message = answer_message(case["Wechatpay-Timestamp"], case["Wechatpay-Nonce"], body)
            signature = case["Wechatpay-Signature"]
        assert verify(key, message, signature) == case["expect"].startswith("valid"), case["id"]
    assert len(cases) == 6


def test_resources_are_sealed_as_published():
    cases = read_vectors("wechat", "v3_aead_gcm.json")["cases"]
    for case in cases:
        if "response_body_file" in case:
            (entry,) = json.loads(pem(case["response_body_file"]))["data"]
            sealed = dict(entry["encrypt_certificate"])
            del sealed["algorithm"]
            assert aead_decrypt(case["key"], **sealed).decode().strip() == case["plaintext_pem"].strip()
            certificate = x509.load_pem_x509_certificate(case["plaintext_pem"].encode())
            assert f"{certificate.serial_number:X}" == case["serial_no"]
            continue
        values: dict[str, Any] = {name: case[name] for name in ("nonce", "associated_data", "ciphertext")}
        if "plaintext" not in case:
            with pytest.raises(InvalidTag):
                aead_decrypt(case["key"], **values)
            continue
        plaintext = case["plaintext"].encode()
        assert aead_decrypt(case["key"], **values) == plaintext
        del values["ciphertext"]
        assert aead_encrypt(case["key"], **values, plaintext=plaintext) == case["ciphertext"]


def test_complete_notices_verify_and_open():
    derived = read_vectors("wechat", "v3_callbacks_derived.json")
    published = read_vectors("wechat", "v3_callback_go_sdk.json")
    keys = {serial: read_public_key(pem(name)) for serial, name in derived["verify_keys"].items()}
    keys[published["headers"]["Wechatpay-Serial"]] = read_public_key(pem(published["certificate_file"]))
    for case in [published, *derived["cases"]]:
        headers, body = case["headers"], case["raw_body"].encode()
        message = answer_message(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], body)
        assert verify(keys[headers["Wechatpay-Serial"]], message, headers["Wechatpay-Signature"])
        resource = json.loads(body)["resource"]
        plaintext = aead_decrypt(
            case.get("api_v3_key") or derived["api_v3_key"],
            nonce=resource["nonce"],
            associated_data=resource["associated_data"],
            ciphertext=resource["ciphertext"],
        )
        assert plaintext.decode() == case["expected_plaintext"]


def test_a_sensitive_field_opens():
    (case, *_) = read_vectors("wechat", "v3_sensitive_fields.json")["cases"]
    assert oaep_decrypt(read_private_key(pem(case["private_key_file"])), case["ciphertext"]) == case["plaintext"]
