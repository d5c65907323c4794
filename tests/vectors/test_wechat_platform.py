"""Published samples of the WeChat platform: encryptedData, rawData, JS-SDK; and a few of our own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.wechat.platform import open_encrypted_data, page_signature, raw_data_signature
from core.errors import Refused
from tests.support.vectors import read_vectors

# Made with openssl: AES-128-CBC, key 000102…0f, iv 101112…1f.
OWN: dict[str, Any] = {
    "session_key": "AAECAwQFBgcICQoLDA0ODw==",
    "iv": "EBESExQVFhcYGRobHB0eHw==",
    "app_id": "wx00000000000000aa",
    "now": datetime(2026, 5, 6, 4, 0, tzinfo=UTC),
}
OWN_VALUES = {
    "phoneNumber": "13900001234",
    "watermark": {"timestamp": 1778040000, "appid": "wx00000000000000aa"},
}
OWN_SEALED = (
    "aLhedzo+Z6es5zW+YHo9svA5Tf4kXpRN9Y0Mpw8itiYaNWfv7kIvitVArEOe04Ch"
    "IdYYxBfeeWZ1JhlsWCiR5b/fY9k4AufHKkrQ8A3Uk0ELyw+wX1eo88UU6zHdyWpA"
)


def case(name: str, case_id: str) -> dict[str, Any]:
    cases: list[dict[str, Any]] = read_vectors("wechat", name)["cases"]
    return next(each for each in cases if each["id"] == case_id)


def test_encrypted_data_of_our_own_making() -> None:
    assert open_encrypted_data(**OWN, encrypted_data=OWN_SEALED) == OWN_VALUES


def test_the_platforms_sample_of_encrypted_data() -> None:
    sample = case("miniprogram_encrypted_data.json", "official-sample")
    values = {
        "session_key": sample["session_key"],
        "iv": sample["iv"],
        "encrypted_data": sample["encryptedData"],
        "app_id": sample["appid"],
    }
    made_at = datetime.fromtimestamp(1477314187, UTC)
    assert open_encrypted_data(**values, now=made_at) == json.loads(sample["expected_plaintext"])
    for wrong in ({"app_id": "wx0"}, {"now": made_at + timedelta(days=1)}):
        with pytest.raises(Refused):
            open_encrypted_data(**{**values, "now": made_at, **wrong})


def test_the_platforms_sample_of_raw_data() -> None:
    sample = case("miniprogram_encrypted_data.json", "rawData-signature")
    assert raw_data_signature(sample["rawData"], sample["session_key"]) == sample["signature"]


@pytest.mark.parametrize("case_id", ["with-query", "without-query"])
def test_the_platforms_samples_of_a_page_signature(case_id: str) -> None:
    sample = case("jssdk_signature.json", case_id)
    for url in (sample["url"], sample["url"] + "#part"):
        signature = page_signature(
            ticket=sample["jsapi_ticket"], nonce=sample["noncestr"], timestamp=sample["timestamp"], url=url
        )
        assert signature == sample["signature"]


def test_signatures_of_our_own_making() -> None:
    """`printf %s … | sha1sum`."""
    assert raw_data_signature('{"a":1}', "AAECAwQFBgcICQoLDA0ODw==") == "02711d4c1b9c0ab44a23f22b81080a98241cc072"
    signature = page_signature(ticket="T", nonce="N", timestamp="1", url="https://pay.hospital.example/h5?a=1#b")
    assert signature == "ca717792fc4b6344f7b7884d149187a4b4b6edb1"
