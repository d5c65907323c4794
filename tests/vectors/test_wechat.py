"""Our WeChat Pay code against numbers that others published, and a few of our own that are always here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from channels.wechatpay import WechatPay
from channels.wechatpay.client import downloaded_certificates
from channels.wechatpay.mapping import Call, error_of, refund_of, trade_of
from channels.wechatpay.params import Credentials
from channels.wechatpay.parties import Parties
from channels.wechatpay.records import record_of
from channels.wechatpay.signing import (
    authorization,
    decrypt_field,
    decrypt_resource,
    encrypt_field,
    pay_message,
    request_message,
    sign_text,
    why_not_signed,
)
from core.errors import ConfigurationError, OutcomeUnknown, Refused
from core.ports import MerchantAccount, Notice, RefundState, Unverified
from tests.support.transports import InProcessTransport
from tests.support.vectors import all_vector_folders, read_vectors, vectors_folder
from wire.keys import (
    KeyRing,
    SigningKey,
    VerificationKey,
    read_certificates,
    read_private_key,
    read_public_key,
)

OWN: dict[str, Any] = json.loads((Path(__file__).parent / "wechat_own.json").read_text())

PARTS = {
    "v3_request_signing.json": 7,
    "v3_response_verify.json": 6,
    "v3_aead_gcm.json": 6,
    "v3_callback_go_sdk.json": 1,
    "v3_callbacks_derived.json": 6,
    "v3_sensitive_fields.json": 1,
    "messages/v3_error_samples.json": 9,
    "messages/transaction_success_plaintext.json": 1,
    "messages/refund_success_plaintext.json": 1,
}
"""File → cases checked here. messages/certificates_response.json is part of a case of v3_aead_gcm.json."""

LATER = {
    "v3_sensitive_fields.json": "medins-id-digest: medical insurance",
    "messages/v3_error_samples.json": "the V2 order query: payment code",
    "messages/medins_success_plaintext.json": "medical insurance",
    "messages/v2_*": "payment code",
    "v2_sign_and_refund_notify.json": "payment code",
    "bills/*": "statements",
}

ELSEWHERE = {
    "oa_push_crypto.json, messages/oa_events.json": "test_wechat_pushes.py",
    "jssdk_signature.json, miniprogram_encrypted_data.json": "test_wechat_platform.py",
}


@dataclass
class FixedClock:
    moment: datetime

    def now(self) -> datetime:
        return self.moment


def at(seconds: int | str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def pem(name: str) -> str:
    return (vectors_folder("wechat") / name).read_text()


def ring_of(file: str, serial: str) -> KeyRing:
    text = pem(file)
    if "CERTIFICATE" in text:
        (key,) = read_certificates(text, name=file)
        return KeyRing([VerificationKey(serial, key.public_key)])
    return KeyRing([VerificationKey(serial, read_public_key(text, name=file))])


def an_account(merchant_no: str, **params: str) -> MerchantAccount:
    return MerchantAccount(
        id=UUID(int=1),
        institution_id=UUID(int=2),
        channel="wechatpay",
        merchant_no=merchant_no,
        notify_url="https://pay.hospital.example/n/1",
        params={"merchant_serial": "5F1C72E2A8931B72A2E13AF8DEE92471EB397115", **params},
    )


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


# ---------------------------------------------------------------- published


def test_requests_are_signed_as_published():
    vectors = read_vectors("wechat", "v3_request_signing.json")
    key = SigningKey(vectors["serial_no"], read_private_key(pem(vectors["private_key_file"]), name="key"))
    checked = 0
    for case in vectors["cases"]:
        if "method" in case:
            message = request_message(
                case["method"], case["url_line"], case["timestamp"], case["nonce_str"], case["body"].encode()
            )
            header = authorization(
                key,
                merchant_no=vectors["mchid"],
                method=case["method"],
                target=case["url_line"],
                timestamp=case["timestamp"],
                nonce=case["nonce_str"],
                body=case["body"].encode(),
            )
            assert f'signature="{case["signature"]}"' in header
            if "authorization" in case:
                assert header.partition(" ")[0] == case["authorization"].partition(" ")[0]
                assert _pairs(header) == _pairs(case["authorization"])
        else:
            package = case.get("package") or case["prepayId"]
            message = pay_message(case["appId"], case["timeStamp"], case["nonceStr"], package)
        assert message.decode() == case["string_to_sign"]
        assert sign_text(key, message) == (case.get("signature") or case.get("paySign") or case["sign"])
        checked += 1
    assert checked == PARTS["v3_request_signing.json"]


def test_answers_are_verified_as_published():
    checked = 0
    for case in read_vectors("wechat", "v3_response_verify.json")["cases"]:
        ring = ring_of(case.get("public_key_file") or case["certificate_file"], "S")
        expected = case["expect"].startswith("valid")
        if "message" in case:
            (key,) = ring
            assert key.verifies(case["message"].encode(), base64.b64decode(case["signature"])) is expected
        else:
            headers = {"wechatpay-serial": "S"} | {
                name.lower(): value for name, value in case.items() if name.startswith("Wechatpay-")
            }
            now = at(case["Wechatpay-Timestamp"])
            assert (why_not_signed(ring, headers, case["body"].encode(), now) is None) is expected, case["id"]
            assert why_not_signed(KeyRing(), headers, case["body"].encode(), now)
        checked += 1
    assert checked == PARTS["v3_response_verify.json"]


def test_sealed_texts_open_as_published():
    checked = 0
    for case in read_vectors("wechat", "v3_aead_gcm.json")["cases"]:
        key = case["key"].encode()
        if "response_body_file" in case:
            (found,) = downloaded_certificates(record_of(pem(case["response_body_file"]).encode()), key)
            (expected,) = read_certificates(case["plaintext_pem"], name="expected")
            assert found.serial == case["serial_no"] == expected.serial
            assert found.public_key.public_numbers() == expected.public_key.public_numbers()
        else:
            sealed = {name: case[name] for name in ("nonce", "associated_data", "ciphertext")}
            if case["expect"] == "ok":
                assert decrypt_resource(key, **sealed).decode() == case["plaintext"]
            else:  # altered, or a key of 16 bytes
                with pytest.raises(ValueError, match=r"cannot be decrypted|32 bytes"):
                    decrypt_resource(key, **sealed)
        checked += 1
    assert checked == PARTS["v3_aead_gcm.json"]


async def test_the_published_callback_is_authentic_but_its_short_key_is_refused():
    case = read_vectors("wechat", "v3_callback_go_sdk.json")
    (key,) = read_certificates(pem(case["certificate_file"]), name="certificate")
    headers, body = lower(case["headers"]), case["raw_body"].encode()
    assert key.serial == headers["wechatpay-serial"]
    assert why_not_signed(KeyRing([key]), headers, body, at(case["clock"])) is None
    assert why_not_signed(KeyRing([key]), headers, body + b" ", at(case["clock"]))
    account = an_account(
        "1234567890",
        app_ids="054aa7d7a2a54ab5898df65bd96f001c",
        merchant_private_key=pem("keys/java_sdk_merchant_private_key.pem"),
        api_v3_key=case["api_v3_key"],
        platform_certificates=pem(case["certificate_file"]),
    )
    with pytest.raises(ConfigurationError, match="api_v3_key"):
        Credentials.read(account)


async def test_whole_callbacks_are_read():
    vectors = read_vectors("wechat", "v3_callbacks_derived.json")
    public_key_id, certificate_id = vectors["verify_keys"]
    checked = 0
    for case in vectors["cases"]:
        plain = json.loads(case["expected_plaintext"])
        account = an_account(
            plain.get("mchid", "1230000109"),
            app_ids="wxd678efh567hg6787",
            merchant_private_key=pem("keys/java_sdk_merchant_private_key.pem"),
            api_v3_key=vectors["api_v3_key"],
            public_key_id=public_key_id,
            public_key=pem(vectors["verify_keys"][public_key_id]),
            platform_certificates=pem(vectors["verify_keys"][certificate_id]),
        )
        clock = FixedClock(at(case["clock"]))
        channel = WechatPay(InProcessTransport({}), clock, str)
        headers, body = lower(case["headers"]), case["raw_body"].encode()
        notice = await channel.read_notice(account, headers, body)
        assert isinstance(notice, Notice), notice
        assert notice.notice_id == json.loads(body)["id"]
        if "trade_state" in plain:
            assert notice.trade is not None
            assert json.loads(notice.trade.raw) == plain
            assert (notice.trade.ever_paid, notice.trade.paid_fen) == (True, 100)
            assert notice.trade.paid_at == datetime(2018, 6, 8, 2, 34, 56, tzinfo=UTC)
            assert notice.trade.channel_trade_no == "1217752501201407033233368018"
        elif "refund_status" in plain:
            assert notice.refund is not None
            assert json.loads(notice.refund.raw) == plain
            states = {
                "SUCCESS": RefundState.REFUNDED,
                "ABNORMAL": RefundState.STUCK,
                "CLOSED": RefundState.DEAD,
            }
            assert notice.refund.state is states[plain["refund_status"]]
            assert (notice.refund.refund_no, notice.refund.amount_fen) == ("7752501201407033233368018", 999)
        else:  # medical insurance: authentic, decrypted, and nothing that this part books
            assert (notice.kind, notice.trade, notice.refund) == ("other", None, None)
        altered = body.replace(b"EV-2018", b"EV-2019")
        assert isinstance(await channel.read_notice(account, headers, altered), Unverified)
        clock.moment = at(case["clock"] + 301)
        assert isinstance(await channel.read_notice(account, headers, body), Unverified)
        checked += 1
    assert checked == PARTS["v3_callbacks_derived.json"]


def test_sensitive_fields_open_as_published():
    case = read_vectors("wechat", "v3_sensitive_fields.json")["cases"][0]
    key = read_private_key(pem(case["private_key_file"]), name="key")
    assert decrypt_field(key, case["ciphertext"]) == case["plaintext"]
    assert decrypt_field(key, encrypt_field(key.public_key(), "王" * 71)) == "王" * 71
    with pytest.raises(ValueError, match="214"):
        encrypt_field(key.public_key(), "x" * 215)


def test_error_samples_are_understood():
    """Whatever the call: nothing that was observed proves more than that our own request was wrong."""
    checked = 0
    for case in read_vectors("wechat", "messages/v3_error_samples.json")["cases"]:
        if "body_text" in case:
            continue
        body = b"" if case["body"] is None else json.dumps(case["body"]).encode()
        for call in Call:
            error = error_of(call, case["status"], body)
            if case["body"] is None:
                assert isinstance(error, OutcomeUnknown)
                continue
            assert isinstance(error, Refused)
            assert (error.code, error.message) == (case["body"]["code"], case["body"]["message"])
            if call not in (Call.CREATE, Call.REFUND):
                assert not error.final
        checked += 1
    assert checked == PARTS["messages/v3_error_samples.json"]


def test_documented_plaintexts_are_mapped():
    body = pem("messages/transaction_success_plaintext.json").encode()
    parties = Parties.direct("1230000109", ["wxd678efh567hg6787"])
    trade = trade_of(record_of(body), parties=parties, order_no=None, raw=body)
    assert (trade.ever_paid, trade.paid_fen, trade.state_text) == (True, 100, "SUCCESS")
    body = pem("messages/refund_success_plaintext.json").encode()
    refund = refund_of(record_of(body), refund_no=None, state_name="refund_status", raw=body)
    assert (refund.state, refund.amount_fen) == (RefundState.REFUNDED, 999)


@pytest.mark.parametrize("folder", all_vector_folders("wechat"), ids=lambda folder: folder.parent.name)
def test_every_file_is_checked_or_said_to_come_later(folder: Path, capsys: pytest.CaptureFixture[str]):
    files = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".json", ".xml", ".csv", ".gz")
    }
    named = {*PARTS, "messages/certificates_response.json"}
    later = [pattern for patterns in {**LATER, **ELSEWHERE} for pattern in patterns.split(", ")]
    missed = {file for file in files - named if not any(Path(file).match(pattern) for pattern in later)}
    assert missed == set()
    assert named <= files
    for file in named:
        assert (folder / file).read_bytes() == (vectors_folder("wechat") / file).read_bytes()
    cases = sum(len(read_vectors("wechat", file).get("cases", [0])) for file in PARTS)
    with capsys.disabled():
        print(f"\nWeChat vectors: {sum(PARTS.values())} of {cases} in {len(PARTS)} files; later: {LATER}")
    assert cases - sum(PARTS.values()) == 2


# ---------------------------------------------------------------- our own


def own_channel() -> tuple[WechatPay, MerchantAccount]:
    account = an_account(
        OWN["notice"]["merchant_no"],
        app_ids=OWN["notice"]["app_id"],
        merchant_private_key=OWN["merchant_private_key"],
        api_v3_key=OWN["api_v3_key"],
        public_key_id=OWN["public_key_id"],
        public_key=OWN["wechatpay_public_key"],
    )
    return WechatPay(InProcessTransport({}), FixedClock(at(OWN["notice"]["clock"])), str), account


def test_our_signatures_are_those_of_another_program():
    key = SigningKey("AB", read_private_key(OWN["merchant_private_key"], name="key"))
    request, pay = OWN["request"], OWN["pay_sign"]
    header = authorization(
        key,
        merchant_no="1900000109",
        method=request["method"],
        target=request["target"],
        timestamp=request["timestamp"],
        nonce=request["nonce"],
        body=request["body"].encode(),
    )
    assert _pairs(header)["signature"] == request["signature"]
    message = pay_message(pay["app_id"], pay["timestamp"], pay["nonce"], pay["package"])
    assert sign_text(key, message) == pay["signature"]


@pytest.mark.parametrize("name", ["answer", "empty_answer"])
def test_another_programs_signatures_are_verified(name):
    case = OWN[name]
    key = VerificationKey("S", read_public_key(OWN["wechatpay_public_key"], name="key"))
    headers = {
        "wechatpay-serial": "S",
        "wechatpay-timestamp": case["timestamp"],
        "wechatpay-nonce": case["nonce"],
        "wechatpay-signature": case["signature"],
    }
    body, now = case["body"].encode(), at(case["timestamp"])
    ring = KeyRing([key])
    assert why_not_signed(ring, headers, body, now) is None
    assert "wrong" in str(why_not_signed(ring, headers, body + b"\n", now))
    assert "wrong" in str(why_not_signed(ring, headers | {"wechatpay-nonce": "x"}, body, now))
    assert "unknown serial" in str(why_not_signed(ring, headers | {"wechatpay-serial": "s"}, body, now))
    assert "seconds off" in str(why_not_signed(ring, headers, body, at(int(case["timestamp"]) + 301)))
    assert "seconds off" in str(why_not_signed(ring, headers, body, at(int(case["timestamp"]) - 301)))
    assert why_not_signed(ring, headers, body, at(int(case["timestamp"]) + 300)) is None
    probe = {"wechatpay-signature": "WECHATPAY/SIGNTEST/" + case["signature"]}
    assert why_not_signed(ring, headers | probe, body, now)


def test_another_programs_ciphers_are_opened():
    sealed = dict(OWN["sealed"])
    plain = sealed.pop("plaintext")
    assert decrypt_resource(OWN["api_v3_key"].encode(), **sealed).decode() == plain
    with pytest.raises(ValueError, match="cannot be decrypted"):
        decrypt_resource(OWN["api_v3_key"].encode(), **(sealed | {"associated_data": ""}))
    key = read_private_key(OWN["merchant_private_key"], name="key")
    assert decrypt_field(key, OWN["field"]["ciphertext"]) == OWN["field"]["plaintext"]


async def test_another_programs_notice_is_read():
    channel, account = own_channel()
    notice = await channel.read_notice(account, OWN["notice"]["headers"], OWN["notice"]["body"].encode())
    assert isinstance(notice, Notice)
    assert notice.trade is not None
    assert notice.trade.raw.decode() == OWN["notice"]["plaintext"]
    assert (notice.trade.order_no, notice.trade.paid_fen) == ("P0OWNVECTOR", 1234)


def _pairs(header: str) -> dict[str, str]:
    return dict(re.findall(r'([a-z_]+)="([^"]*)"', header))
