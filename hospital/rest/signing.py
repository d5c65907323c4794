"""Signatures of the REST profile: what is signed, how it is checked, two keys while one is replaced. Pure.

A request is signed over method, path, time, nonce and body; an answer over its status, the nonce of the
request that it answers, its own time and nonce, and its body. So an answer fits one request only, and
neither can be passed off as the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from core.errors import ConfigurationError

API_PREFIX = "/zhenfu/v1/"
EVENTS_PATH = "/his/v1/events"
LINKS_PATH = "/his/v1/bill-links"
CLOCK_SKEW_SECONDS_MAX = 300
SECRET_CHARACTERS_MIN = 32
NONCES_MAX = 100_000

_NONCE = re.compile(r"[0-9A-Za-z_-]{16,64}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_KEY_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What a site and we share: we sign with the first key and accept either."""

    key_id: str
    secret: bytes = field(repr=False)
    other_key_id: str = ""
    other_secret: bytes = field(repr=False, default=b"")

    def find(self, key_id: str) -> bytes | None:
        """The secret of a key that is valid now, or None."""
        if key_id == self.key_id:
            return self.secret
        if self.other_key_id and key_id == self.other_key_id:
            return self.other_secret
        return None


def read_keys(params: Mapping[str, str]) -> Keys:
    """The keys among a site's parameters. Raises ConfigurationError that says what to enter."""
    other_key_id = params.get("other_key_id", "")
    ids = [params.get("key_id", ""), *([other_key_id] if other_key_id else [])]
    secrets = [params.get("secret", ""), *([params.get("other_secret", "")] if other_key_id else [])]
    for key_id, secret in zip(ids, secrets, strict=True):
        if not _KEY_ID.fullmatch(key_id):
            raise ConfigurationError("the hospital's key_id must be 1 to 64 letters, digits, dots, dashes")
        if len(secret) < SECRET_CHARACTERS_MIN:
            raise ConfigurationError(
                f"the hospital's secret for key {key_id} needs at least {SECRET_CHARACTERS_MIN} characters"
            )
    if len(set(ids)) != len(ids):
        raise ConfigurationError("the hospital's two keys need two different key ids")
    return Keys(
        key_id=ids[0],
        secret=secrets[0].encode(),
        other_key_id=other_key_id,
        other_secret=secrets[1].encode() if other_key_id else b"",
    )


def check_paper_key(params: Mapping[str, str], *, is_needed: bool) -> None:
    """The key under which a HIS makes its papers' addresses. Raises ConfigurationError that says what to enter."""
    paper_key = params.get("paper_key", "")
    if not paper_key and is_needed:
        raise ConfigurationError('paper_code is "his_makes", so paper_key is needed: the same text as in the HIS')
    if paper_key and len(paper_key) < SECRET_CHARACTERS_MIN:
        raise ConfigurationError(f"paper_key needs at least {SECRET_CHARACTERS_MIN} characters")
    if paper_key and paper_key in (params.get("secret"), params.get("other_secret")):
        raise ConfigurationError("paper_key must not be one of the secrets: whoever prints papers signs nothing else")


def sign_request(secret: bytes, *, method: str, target: str, timestamp: str, nonce: str, body: bytes) -> str:
    """The signature of a request; `target` starts at /zhenfu/v1/ or /his/v1/, without a gateway's prefix."""
    return _signature(secret, [method, target, timestamp, nonce], body)


def sign_answer(secret: bytes, *, status: int, request_nonce: str, timestamp: str, nonce: str, body: bytes) -> str:
    """The signature of an answer: bound to its status and to the one request that it answers."""
    return _signature(secret, [str(status), request_nonce, timestamp, nonce], body)


def request_headers(keys: Keys, *, target: str, nonce: str, now: datetime, body: bytes) -> dict[str, str]:
    """The four headers of a request of ours."""
    timestamp = str(int(now.timestamp()))
    return {
        "Zhenfu-Key": keys.key_id,
        "Zhenfu-Timestamp": timestamp,
        "Zhenfu-Nonce": nonce,
        "Zhenfu-Signature": sign_request(
            keys.secret, method="POST", target=target, timestamp=timestamp, nonce=nonce, body=body
        ),
    }


def answer_headers(
    keys: Keys, request: Mapping[str, str], *, status: int, nonce: str, now: datetime, body: bytes
) -> dict[str, str]:
    """The four headers of our answer, made with the key of the request that it answers."""
    timestamp = str(int(now.timestamp()))
    secret = keys.find(request["zhenfu-key"])
    assert secret is not None  # the request was verified with it
    return {
        "Zhenfu-Key": request["zhenfu-key"],
        "Zhenfu-Timestamp": timestamp,
        "Zhenfu-Nonce": nonce,
        "Zhenfu-Signature": sign_answer(
            secret, status=status, request_nonce=request["zhenfu-nonce"], timestamp=timestamp, nonce=nonce, body=body
        ),
    }


def answer_problem(
    keys: Keys, headers: Mapping[str, str], *, status: int, request_nonce: str, body: bytes, now: datetime
) -> str:
    """Why this answer proves nothing, or an empty text when it is genuine. Header names in lower case."""
    secret, problem = _secret_of(keys, headers)
    if problem:
        return problem
    expected = sign_answer(
        secret,
        status=status,
        request_nonce=request_nonce,
        timestamp=headers["zhenfu-timestamp"],
        nonce=headers["zhenfu-nonce"],
        body=body,
    )
    return _compare(expected, headers) or _clock_problem(headers, now)


def event_problem(
    keys: Keys, headers: Mapping[str, str], *, body: bytes, now: datetime, target: str = EVENTS_PATH
) -> str:
    """Why the sender of this event (or, with LINKS_PATH, request) is not proven, or an empty text.

    Header names in lower case. What is signed for one path proves nothing at the other.
    """
    secret, problem = _secret_of(keys, headers)
    if problem:
        return problem
    expected = sign_request(
        secret,
        method="POST",
        target=target,
        timestamp=headers["zhenfu-timestamp"],
        nonce=headers["zhenfu-nonce"],
        body=body,
    )
    return _compare(expected, headers) or _clock_problem(headers, now)


class SeenNonces:
    """Which nonces came in lately, bounded; one per process. What makes twice once is the event_id.

    The same nonce with the same moment of arrival is the same arrival read again, not a replay.
    """

    def __init__(self, *, nonces_max: int = NONCES_MAX) -> None:
        self._arrivals: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._nonces_max = nonces_max

    def is_replay(self, key_id: str, nonce: str, now: datetime) -> bool:
        """Remember this arrival; True when the nonce has arrived before at another moment."""
        first = self._arrivals.setdefault((key_id, nonce), now)
        while self._arrivals:
            oldest = next(iter(self._arrivals.values()))
            aged = (now - oldest).total_seconds() > 2 * CLOCK_SKEW_SECONDS_MAX
            if not aged and len(self._arrivals) <= self._nonces_max:
                break
            self._arrivals.popitem(last=False)
        return first != now


def _signature(secret: bytes, lines: list[str], body: bytes) -> str:
    signed = "".join(f"{line}\n" for line in lines).encode() + body + b"\n"
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _secret_of(keys: Keys, headers: Mapping[str, str]) -> tuple[bytes, str]:
    secret = keys.find(headers.get("zhenfu-key", ""))
    if "zhenfu-signature" not in headers:
        return b"", "not signed"
    if secret is None:
        return b"", "signed with a key that is not ours"
    if not _TIMESTAMP.fullmatch(headers.get("zhenfu-timestamp", "")):
        return b"", "no readable Zhenfu-Timestamp"
    if not _NONCE.fullmatch(headers.get("zhenfu-nonce", "")):
        return b"", "no readable Zhenfu-Nonce"
    return secret, ""


def _compare(expected: str, headers: Mapping[str, str]) -> str:
    given = headers["zhenfu-signature"].encode("utf-8", "replace")
    return "" if hmac.compare_digest(expected.encode(), given) else "the signature is wrong"


def _clock_problem(headers: Mapping[str, str], now: datetime) -> str:
    skew_seconds = abs(now.timestamp() - int(headers["zhenfu-timestamp"]))
    return "" if skew_seconds <= CLOCK_SKEW_SECONDS_MAX else f"signed {skew_seconds:.0f} s from our clock"
