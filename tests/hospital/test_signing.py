"""The signature against numbers computed by other means, and the rules around it."""

from __future__ import annotations

import hashlib
import subprocess
from base64 import b64decode
from datetime import timedelta

import pytest

from core.errors import ConfigurationError
from hospital.rest.signing import Keys, SeenNonces, answer_problem, read_keys, sign_answer, sign_request
from tests.support.hospital import MORNING

SECRET = "a-secret-of-at-least-thirty-two-characters"
KEYS = Keys(key_id="k1", secret=SECRET.encode())


def test_the_signature_is_hmac_sha256_over_the_lines() -> None:
    body = '{"名":1}'.encode()
    signature = sign_request(
        b"key", method="POST", target="/zhenfu/v1/ping", timestamp="1778032800", nonce="n" * 16, body=body
    )
    # RFC 2104 spelled out, without the hmac module.
    block = b"key".ljust(64, b"\0")
    message = b"POST\n/zhenfu/v1/ping\n1778032800\nnnnnnnnnnnnnnnnn\n" + body + b"\n"
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    assert b64decode(signature) == hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_openssl_computes_the_same() -> None:
    message = b"200\nrequest-nonce-01\n1778032800\nanswer-nonce-001\n{}\n"
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET, "-binary"],
        input=message,
        capture_output=True,
        check=True,
    )
    signature = sign_answer(
        SECRET.encode(), status=200, request_nonce="request-nonce-01", timestamp="1778032800",
        nonce="answer-nonce-001", body=b"{}",
    )  # fmt: skip
    assert b64decode(signature) == made.stdout


def _answer(*, status: int = 200, request_nonce: str = "r" * 32, seconds: int = 0) -> dict[str, str]:
    timestamp = str(int(MORNING.timestamp()) + seconds)
    signature = sign_answer(
        KEYS.secret,
        status=status,
        request_nonce=request_nonce,
        timestamp=timestamp,
        nonce="a" * 32,
        body=b"{}",
    )
    return {
        "zhenfu-key": "k1",
        "zhenfu-timestamp": timestamp,
        "zhenfu-nonce": "a" * 32,
        "zhenfu-signature": signature,
    }


def _problem(headers: dict[str, str], *, status: int = 200, body: bytes = b"{}") -> str:
    return answer_problem(KEYS, headers, status=status, request_nonce="r" * 32, body=body, now=MORNING)


def test_an_answer_fits_one_request_one_status_and_one_body() -> None:
    assert _problem(_answer()) == ""
    assert _problem(_answer(request_nonce="s" * 32)) == "the signature is wrong"
    assert _problem(_answer(), status=201) == "the signature is wrong"
    assert _problem(_answer(), body=b"{} ") == "the signature is wrong"


def test_three_hundred_seconds_and_no_more() -> None:
    assert [_problem(_answer(seconds=seconds)) != "" for seconds in (-301, -300, 300, 301)] == [
        True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zhenfu-key", "k2"),
        ("zhenfu-key", ""),
        ("zhenfu-timestamp", "１７７８０３２８００"),
        ("zhenfu-timestamp", "soon"),
        ("zhenfu-nonce", "short"),
        ("zhenfu-nonce", "with\nnewline-and-more"),
        ("zhenfu-signature", ""),
        ("zhenfu-signature", "签名"),
    ],
)
def test_odd_headers_prove_nothing(name: str, value: str) -> None:
    assert _problem({**_answer(), name: value})
    without = _answer()
    del without[name]
    assert _problem(without)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"key_id": "k1", "secret": "short"},
        {"key_id": "with space", "secret": SECRET},
        {"key_id": "k1", "secret": SECRET, "other_key_id": "k1", "other_secret": SECRET},
        {"key_id": "k1", "secret": SECRET, "other_key_id": "k2"},
    ],
)
def test_keys_that_cannot_work_are_a_setting_to_correct(params: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        read_keys(params)


def test_an_empty_secret_never_verifies() -> None:
    assert KEYS.find("") is None
    assert SECRET not in repr(read_keys({"key_id": "k1", "secret": SECRET}))


def test_nonces_are_remembered_within_a_bound() -> None:
    seen = SeenNonces(nonces_max=3)
    assert not seen.is_replay("k1", "n1", MORNING)
    assert not seen.is_replay("k1", "n1", MORNING)
    later = MORNING + timedelta(seconds=1)
    assert seen.is_replay("k1", "n1", later)
    assert not seen.is_replay("k2", "n1", later)
    for number in range(2, 6):
        assert not seen.is_replay("k1", f"n{number}", later)
    assert not seen.is_replay("k1", "n1", later)  # forgotten: there was no room
