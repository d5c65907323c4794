"""Tencent Cloud's signature v3 (TC3-HMAC-SHA256) as its server checks it, written from the public description alone.

Facts relied on (cloud.tencent.com/document/api/382/52072 and its sisters; the published worked example is a test):

    canonical request = method, "/", query, signed headers each as "name:value\\n", "", their names joined by ";",
                        SHA-256 of the body in hex; names and values in lower case without blanks at their ends
    string to sign    = "TC3-HMAC-SHA256", X-TC-Timestamp, "<UTC date>/<service>/tc3_request", SHA-256 of the above
    key               = HMAC(HMAC(HMAC("TC3" + SecretKey, date), service), "tc3_request")

`content-type` and `host` must be among the signed headers, names ascending; the date is the timestamp's in UTC;
the timestamp may be off by five minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

ALGORITHM = "TC3-HMAC-SHA256"
CLOCK_SECONDS = 300
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<id>[^/,\s]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<service>[a-z]+)/tc3_request, ?"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class Unsigned(Exception):
    """The signature does not hold; `code` is the platform's word for why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(code, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """What is signed of a request; header names are lower-case."""

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def signature(signed: Signed, *, names: str, secret_key: str, date: str, service: str, timestamp: str) -> str:
    headers = "".join(f"{name}:{signed.headers.get(name, '').strip().lower()}\n" for name in names.split(";"))
    digest = hashlib.sha256(signed.body).hexdigest()
    canonical = "\n".join([signed.method, "/", signed.query, headers, names, digest])
    scope = f"{date}/{service}/tc3_request"
    text = "\n".join([ALGORITHM, timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def check(signed: Signed, *, keys: Mapping[str, str], service: str, now: datetime) -> str:
    """The SecretId whose key made this signature. Raises Unsigned."""
    found = _AUTHORIZATION.fullmatch(signed.headers.get("authorization", ""))
    if found is None:
        raise Unsigned("AuthFailure.InvalidAuthorization", "The authorization header is not valid.")
    timestamp = signed.headers.get("x-tc-timestamp", "")
    if not re.fullmatch(r"\d{1,12}", timestamp):
        raise Unsigned("MissingParameter", "The request is missing a required parameter `Timestamp`.")
    secret_key = keys.get(found["id"])
    if secret_key is None:
        raise Unsigned("AuthFailure.SecretIdNotFound", "The SecretId is not found, please ensure it is correct.")
    if abs(now.timestamp() - int(timestamp)) > CLOCK_SECONDS:
        raise Unsigned("AuthFailure.SignatureExpire", "The timestamp differs from the server's by over five minutes.")
    names = found["names"].split(";")
    right = signature(
        signed,
        names=found["names"],
        secret_key=secret_key,
        date=datetime.fromtimestamp(int(timestamp), UTC).date().isoformat(),
        service=service,
        timestamp=timestamp,
    )
    whole = {"content-type", "host"} <= set(names) and names == sorted(set(names)) and found["service"] == service
    if not whole or not hmac.compare_digest(right, found["signature"]):
        raise Unsigned(
            "AuthFailure.SignatureFailure",
            "The provided credentials could not be validated. Please check your signature is correct.",
        )
    return found["id"]
