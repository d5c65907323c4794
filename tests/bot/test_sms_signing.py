"""TC3-HMAC-SHA256 against the worked example of the public description, step by step, and against what it binds."""

from __future__ import annotations

from typing import Any

import pytest

from bot.sms.signing import CONTENT_TYPE, authorization

# Source: cloud.tencent.com/document/api/213/30654, 签名方法 v3, as of December 2024 (the same example stands in the
# pages of every product, SMS's is /document/api/382/52072). Its SecretKey is printed as 32 asterisks, and is that.
PUBLISHED: dict[str, Any] = {
    "secret_id": "AKID********************************",
    "secret_key": "********************************",
    "host": "cvm.tencentcloudapi.com",
    "service": "cvm",
    "action": "DescribeInstances",
    "timestamp": 1551113065,
    "body": rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}',
}
PUBLISHED_AUTHORIZATION = (
    "TC3-HMAC-SHA256 Credential=AKID********************************/2019-02-25/cvm/tc3_request,"
    " SignedHeaders=content-type;host;x-tc-action,"
    " Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
)


def test_the_published_example_comes_out_to_the_last_digit() -> None:
    assert authorization(**PUBLISHED) == PUBLISHED_AUTHORIZATION
    assert CONTENT_TYPE == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret_key", "*" * 31),
        ("host", "cvm.tencentcloudapi.net"),
        ("service", "sms"),
        ("action", "RunInstances"),
        ("timestamp", 1551113066),
        ("timestamp", 1551113065 + 86400),
        ("body", b"{}"),
    ],
)
def test_everything_that_is_signed_changes_the_signature(name: str, value: object) -> None:
    made = authorization(**{**PUBLISHED, name: value})
    assert made.rpartition("=")[2] != PUBLISHED_AUTHORIZATION.rpartition("=")[2]


def test_the_day_is_that_of_utc() -> None:
    """22:30 UTC on 25 February is the 26th in Shanghai, and the tests' own zone is New York."""
    assert "/2019-02-25/" in authorization(**{**PUBLISHED, "timestamp": 1551133800})
    assert "/2019-02-26/" in authorization(**{**PUBLISHED, "timestamp": 1551139200})
