"""Tencent Cloud's signature v3, TC3-HMAC-SHA256, of a POST to "/". Pure.

cloud.tencent.com/document/api/382/52072; the key is derived anew for each day in UTC and each service.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

ALGORITHM = "TC3-HMAC-SHA256"
CONTENT_TYPE = "application/json; charset=utf-8"
_TERMINATOR = "tc3_request"
_SIGNED_HEADERS = "content-type;host;x-tc-action"


def authorization(
    *, secret_id: str, secret_key: str, host: str, service: str, action: str, timestamp: int, body: bytes
) -> str:
    """The Authorization header for exactly this host, action and body; `timestamp` is what X-TC-Timestamp says."""
    canonical = "\n".join([
        "POST", "/", "",
        f"content-type:{CONTENT_TYPE}", f"host:{host.lower()}", f"x-tc-action:{action.lower()}", "",
        _SIGNED_HEADERS, hashlib.sha256(body).hexdigest(),
    ])  # fmt: skip
    date = datetime.fromtimestamp(timestamp, UTC).date().isoformat()
    scope = f"{date}/{service}/{_TERMINATOR}"
    text = "\n".join([ALGORITHM, str(timestamp), scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"TC3{secret_key}".encode()
    for part in (date, service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={_SIGNED_HEADERS}, Signature={signature}"
