"""The HIS side of the profile's signatures, written from docs/connect-a-hospital.md and from nothing else."""

from __future__ import annotations

import hashlib
import hmac
from base64 import standard_b64encode
from collections.abc import Mapping
from datetime import datetime

MINUTES_5 = 300


def mac(secret: str, text: str, body: bytes) -> str:
    return standard_b64encode(
        hmac.digest(secret.encode("utf-8"), text.encode("utf-8") + b"\n" + body + b"\n", hashlib.sha256)
    ).decode("ascii")


def why_refused(
    keys: Mapping[str, str], method: str, target: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> str:
    """The refusal code for a request that is not properly signed, or an empty text."""
    key, given = headers.get("zhenfu-key", ""), headers.get("zhenfu-signature", "")
    timestamp, nonce = headers.get("zhenfu-timestamp", ""), headers.get("zhenfu-nonce", "")
    if key not in keys:
        return "KEY_UNKNOWN"
    if not hmac.compare_digest(
        mac(keys[key], f"{method}\n{target}\n{timestamp}\n{nonce}", body).encode(), given.encode()
    ):
        return "SIGNATURE_WRONG"
    if not timestamp.isdigit() or abs(now.timestamp() - int(timestamp)) > MINUTES_5:
        return "CLOCK_SKEW"
    if len(nonce) < 16:
        return "SIGNATURE_WRONG"
    return ""


def answer_headers(
    key: str, secret: str, *, status: int, request_nonce: str, now: datetime, nonce: str, body: bytes
) -> dict[str, str]:
    timestamp = str(int(now.timestamp()))
    return {
        "zhenfu-key": key,
        "zhenfu-timestamp": timestamp,
        "zhenfu-nonce": nonce,
        "zhenfu-signature": mac(secret, f"{status}\n{request_nonce}\n{timestamp}\n{nonce}", body),
    }


def event_headers(key: str, secret: str, *, target: str, now: datetime, nonce: str, body: bytes) -> dict[str, str]:
    timestamp = str(int(now.timestamp()))
    return {
        "content-type": "application/json",
        "zhenfu-key": key,
        "zhenfu-timestamp": timestamp,
        "zhenfu-nonce": nonce,
        "zhenfu-signature": mac(secret, f"POST\n{target}\n{timestamp}\n{nonce}", body),
    }
