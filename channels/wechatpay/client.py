"""One signed request, one answer that is believed only with its signature; only here are keys renewed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import BinaryIO
from uuid import UUID

from channels.wechatpay.mapping import Call, error_body, error_of
from channels.wechatpay.params import Credentials
from channels.wechatpay.records import Record, Unreadable, record_of, text
from channels.wechatpay.signing import (
    AEAD_ALGORITHM,
    authorization,
    decrypt_resource,
    why_not_signed,
)
from core.clock import Clock
from core.errors import ConfigurationError, CounterpartyError, OutcomeUnknown
from core.ports import MerchantAccount
from wire.http import Downloads, HttpReply, HttpRequest, Transport
from wire.keys import KeyRing, VerificationKey, read_certificates

CALL_SECONDS = 10.0
ACCOUNTS_MAX = 1000
CERTIFICATES_EVERY = timedelta(hours=11)  # WeChat Pay asks for less than 12 hours
CERTIFICATES_AT_MOST_EVERY = timedelta(minutes=1)  # when an answer names a serial that we do not hold
CERTIFICATES_PATH = "/v3/certificates"
USER_AGENT = "zhenfu/1"

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """What we hold for one account, in memory only."""

    merchant_no: str
    params: Mapping[str, str] = field(repr=False)
    credentials: Credentials
    downloaded: tuple[VerificationKey, ...] = ()
    asked_at: datetime | None = None

    @property
    def keys(self) -> KeyRing:
        return self.credentials.keys.with_keys(self.downloaded)


class Client:
    """Calls WeChat Pay in the name of merchant accounts."""

    def __init__(self, transport: Transport, clock: Clock, nonce: Callable[[], str]) -> None:
        self._transport = transport
        self._clock = clock
        self._nonce = nonce
        self._accounts: dict[UUID, _Held] = {}

    def credentials(self, account: MerchantAccount) -> Credentials:
        """Parsed once for as long as the account stays the same. Raises ConfigurationError."""
        return self._hold(account).credentials

    def keys(self, account: MerchantAccount) -> KeyRing:
        """Every verification key that we hold now, configured or downloaded. No network."""
        return self._hold(account).keys

    def answer_key(self, account: MerchantAccount) -> VerificationKey:
        """The key that answers are to be signed with: its first public key, else the newest certificate."""
        return self._answer_key(self._hold(account))

    async def call(self, account: MerchantAccount, call: Call, method: str, target: str, body: bytes = b"") -> bytes:
        """The signed body of a 2xx answer. Raises NotReached, Refused or OutcomeUnknown."""
        held = self._hold(account)
        if held.credentials.certificates and self._is_due(held, CERTIFICATES_EVERY):
            await self._try_to_renew(held)
        reply = await self._send(held, method, target, body, self._answer_key(held).serial)
        return await self._judge(held, call, reply)

    async def download(
        self,
        account: MerchantAccount,
        target: str,
        into: BinaryIO,
        downloads: Downloads,
        bytes_max: int,
        seconds: float,
    ) -> None:
        """A file, which is never signed. Raises NotReached, Refused or OutcomeUnknown."""
        held = self._hold(account)
        request = self._request(held, "GET", target, b"", self._answer_key(held).serial)
        reply = await downloads.download(request, into, bytes_max=bytes_max, deadline_seconds=seconds)
        if reply.status != 200:
            raise error_of(Call.STATEMENT, reply.status, reply.body)

    async def exchange(
        self, account: MerchantAccount, method: str, target: str, body: bytes, key: VerificationKey
    ) -> HttpReply:
        """For the self-test: the answer as it came, asked to be signed with `key`."""
        return await self._send(self._hold(account), method, target, body, key.serial)

    async def judge(self, account: MerchantAccount, call: Call, reply: HttpReply) -> bytes:
        """The body of an answer that deserves belief. Raises Refused or OutcomeUnknown."""
        return await self._judge(self._hold(account), call, reply)

    async def renew_certificates(self, account: MerchantAccount) -> tuple[str, ...]:
        """Download the platform certificates now; the serials of all keys held afterwards."""
        held = self._hold(account)
        await self._renew(held)
        return tuple(sorted(key.serial for key in held.keys))

    def _hold(self, account: MerchantAccount) -> _Held:
        held = self._accounts.get(account.id)
        if held is not None and held.merchant_no == account.merchant_no and held.params == account.params:
            return held
        held = _Held(account.merchant_no, dict(account.params), Credentials.read(account))
        self._accounts.pop(account.id, None)
        if len(self._accounts) >= ACCOUNTS_MAX:
            self._accounts.pop(next(iter(self._accounts)))
        self._accounts[account.id] = held
        return held

    def _answer_key(self, held: _Held) -> VerificationKey:
        if held.credentials.public_keys:
            return held.credentials.public_keys[0]
        now = self._clock.now()
        valid = [key for key in held.keys if key.is_valid_at(now)]
        if not valid:
            raise ConfigurationError(
                f"WeChat Pay merchant {held.merchant_no}: every platform certificate has expired; "
                "enter the WeChat Pay public key or a new certificate"
            )
        return max(valid, key=lambda key: (key.valid_from or _LONG_AGO, key.serial))

    async def _send(self, held: _Held, method: str, target: str, body: bytes, serial: str) -> HttpReply:
        request = self._request(held, method, target, body, serial)
        return await self._transport.send(request, deadline_seconds=CALL_SECONDS)

    def _request(self, held: _Held, method: str, target: str, body: bytes, serial: str) -> HttpRequest:
        credentials = held.credentials
        headers = {
            "Authorization": authorization(
                credentials.signing_key,
                merchant_no=credentials.parties.signer_no,
                method=method,
                target=target,
                timestamp=str(int(self._clock.now().timestamp())),
                nonce=self._nonce(),
                body=body,
            ),
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        if body:
            headers["Content-Type"] = "application/json"
        if serial:
            headers["Wechatpay-Serial"] = serial
        return HttpRequest(method=method, url=credentials.base_url + target, headers=headers, body=body)

    async def _judge(self, held: _Held, call: Call, reply: HttpReply) -> bytes:
        if not 200 <= reply.status < 300:
            self._log_problem("wechatpay.refused", held, call, reply)
            raise error_of(call, reply.status, reply.body)
        problem = why_not_signed(held.keys, reply.headers, reply.body, self._clock.now())
        if problem and self._may_be_a_new_certificate(held, reply):
            await self._try_to_renew(held)
            problem = why_not_signed(held.keys, reply.headers, reply.body, self._clock.now())
        if problem:
            self._log_problem("wechatpay.answer_not_believed", held, call, reply, problem)
            raise OutcomeUnknown(f"{call}: an answer with HTTP {reply.status} is not believed: {problem}")
        if reply.status not in (200, 204):
            raise OutcomeUnknown(f"{call}: HTTP {reply.status}")
        return reply.body

    def _may_be_a_new_certificate(self, held: _Held, reply: HttpReply) -> bool:
        serial = reply.headers.get("wechatpay-serial", "")
        return (
            bool(held.credentials.certificates)
            and held.keys.find(serial, self._clock.now()) is None
            and self._is_due(held, CERTIFICATES_AT_MOST_EVERY)
        )

    def _is_due(self, held: _Held, interval: timedelta) -> bool:
        return held.asked_at is None or self._clock.now() - held.asked_at >= interval

    async def _try_to_renew(self, held: _Held) -> None:
        """A download that fails leaves the keys as they are; the next one is due after the same interval."""
        try:
            await self._renew(held)
        except CounterpartyError as error:
            _log.warning(
                "wechatpay.certificates_not_renewed",
                extra={"merchant_no": held.merchant_no, "problem": str(error)},
            )

    async def _renew(self, held: _Held) -> None:
        """Nobody else has the APIv3 key, so what it decrypts is theirs; the signature is checked as well."""
        now = held.asked_at = self._clock.now()
        reply = await self._send(held, "GET", CERTIFICATES_PATH, b"", "")
        if reply.status != 200:
            raise error_of(Call.CERTIFICATES, reply.status, reply.body)
        try:
            fresh = downloaded_certificates(record_of(reply.body), held.credentials.api_v3_key)
        except Unreadable as error:
            raise OutcomeUnknown(f"{Call.CERTIFICATES}: {error}") from error
        if problem := why_not_signed(held.keys.with_keys(fresh), reply.headers, reply.body, now):
            raise OutcomeUnknown(f"{Call.CERTIFICATES}: {problem}")
        held.downloaded = fresh

    def _log_problem(self, event: str, held: _Held, call: Call, reply: HttpReply, problem: str = "") -> None:
        error = error_body(reply.body) if reply.status >= 300 else None
        _log.warning(
            event,
            extra={
                "merchant_no": held.merchant_no,
                "call": call.value,
                "status": reply.status,
                "errcode": error.code if error else "",
                "problem": problem,
                "request_id": reply.headers.get("request-id", ""),
            },
        )


def downloaded_certificates(record: Record, api_v3_key: bytes) -> tuple[VerificationKey, ...]:
    """The keys in an answer of GET /v3/certificates. Raises Unreadable."""
    entries = record.get("data")
    if not isinstance(entries, list):
        raise Unreadable("data is missing or no list")
    keys: list[VerificationKey] = []
    for entry in entries:
        sealed = entry.get("encrypt_certificate") if isinstance(entry, dict) else None
        if not isinstance(sealed, dict) or text(sealed, "algorithm") != AEAD_ALGORITHM:
            raise Unreadable("encrypt_certificate is missing or encrypted in an unknown way")
        try:
            pem = decrypt_resource(
                api_v3_key,
                nonce=text(sealed, "nonce"),
                associated_data=text(sealed, "associated_data", required=False),
                ciphertext=text(sealed, "ciphertext"),
            )
            (key,) = read_certificates(pem.decode(), name="a downloaded certificate")
        except (ValueError, ConfigurationError) as error:
            raise Unreadable(f"a certificate cannot be read: {error}") from error
        serial = text(entry, "serial_no")
        if serial.upper().lstrip("0") != key.serial.lstrip("0"):
            raise Unreadable("a certificate bears another serial than the list says")
        keys.append(VerificationKey(serial, key.public_key, valid_from=key.valid_from, valid_until=key.valid_until))
    return tuple(keys)
