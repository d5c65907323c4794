"""One signed call to Alipay's gateway, one answer that is believed only with its signature.

The gateway answers everything with HTTP 200; anything else, a page, or an answer that is not signed says nothing of
what has become of the call. Only here is a renewed certificate of Alipay's fetched.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.clock import Clock
from core.errors import CounterpartyError, OutcomeUnknown
from wire.alipay.answers import SUCCESS, Answer, answer_of, unclear
from wire.alipay.application import Application
from wire.alipay.certificates import Certificates, check_new_certificate
from wire.alipay.charsets import DEFAULT_CHARSET
from wire.alipay.encryption import open_content
from wire.alipay.envelope import (
    CERT_SN,
    Envelope,
    NotBelieved,
    check_content,
    read_content,
    read_envelope,
)
from wire.alipay.requests import Call, SignedRequest, signed_request
from wire.http import HttpReply, HttpRequest, Transport
from wire.keys import CERTIFICATES_MAX, KeyRing, VerificationKey

CALL_SECONDS = 10.0
APPLICATIONS_MAX = 1000
CERTIFICATES_AT_MOST_EVERY = timedelta(minutes=1)  # when an answer names a certificate that we do not hold
CERTIFICATE_METHOD = "alipay.open.app.alipaycert.download"
USER_AGENT = "zhenfu/1"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Renewed:
    """The certificates of Alipay's that were fetched for one application, in memory only."""

    keys: tuple[VerificationKey, ...] = ()
    asked_at: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Gateway:
    """Calls Alipay in the name of applications."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._renewed: dict[tuple[str, str, str, str], _Renewed] = {}

    async def call(self, application: Application, call: Call, *, deadline_seconds: float = CALL_SECONDS) -> Answer:
        """A verified answer, done or refused. Raises NotReached, OutcomeUnknown or, of these, UnclearAnswer."""
        reply = await self._send(application, call, deadline_seconds)
        try:
            envelope = self._envelope(call, reply)
            if not envelope.sign:
                raise self._unsigned(call, envelope)
            keys = await self._keys_for(application, envelope.cert_sn)
            check_content(envelope.content, envelope.sign, keys)
            fields = open_content(envelope.content, application.aes_key, call.charset)
            answer = answer_of(call.method, envelope, fields, reply.body)
        except NotBelieved as error:
            self._log_problem("alipay.answer_not_believed", application, call, reply, problem=str(error))
            raise OutcomeUnknown(f"{call.method}: an answer is not believed: {error}") from error
        except OutcomeUnknown as error:
            self._log_problem("alipay.answer_unclear", application, call, reply, problem=str(error))
            raise
        if not answer.succeeded:
            self._log_problem("alipay.refused", application, call, reply, errcode=f"{answer.code} {answer.sub_code}")
        return answer

    def sign(self, application: Application, call: Call) -> SignedRequest:
        """A request that the payer's browser carries; whatever comes back that way proves nothing."""
        return signed_request(application, call, self._clock.now())

    def keys(self, application: Application) -> tuple[VerificationKey, ...]:
        """Every key with which notices and pushes may be signed now, configured or downloaded. No network."""
        now = self._clock.now()
        return tuple(key for key in self._ring(application) if key.is_valid_at(now))

    async def renew_certificate(self, application: Application, cert_sn: str) -> None:
        """Hold the key of Alipay's certificate with this SN, too, if it is one; at most one download a minute.

        For notices that name a certificate as answers do. Raises nothing: what fails leaves the keys as they are.
        """
        certificates = application.certificates
        if certificates is None or not CERT_SN.fullmatch(cert_sn):
            return
        renewed = self._renewed_of(application.app_id, certificates)
        async with renewed.lock:
            now = self._clock.now()
            too_soon = renewed.asked_at is not None and now - renewed.asked_at < CERTIFICATES_AT_MOST_EVERY
            if too_soon or self._ring(application).find(cert_sn, now):
                return
            renewed.asked_at = now
            extra = {"app_id": application.app_id, "cert_sn": cert_sn}
            try:
                fresh = await self._download(application, certificates, cert_sn)
            except (CounterpartyError, NotBelieved) as error:
                _log.warning("alipay.certificate_not_renewed", extra={**extra, "problem": str(error)})
                return
            renewed.keys = (*renewed.keys, fresh)[-CERTIFICATES_MAX:]
            _log.warning("alipay.certificate_renewed", extra=extra)

    def _ring(self, application: Application) -> KeyRing:
        ring = KeyRing(application.keys)
        if application.certificates is None:
            return ring
        return ring.with_keys(self._renewed_of(application.app_id, application.certificates).keys)

    def _renewed_of(self, app_id: str, certificates: Certificates) -> _Renewed:
        name = (app_id, certificates.app_cert_sn, certificates.root_cert_sn, certificates.key.serial)
        renewed = self._renewed.get(name)
        if renewed is None:
            if len(self._renewed) >= APPLICATIONS_MAX:
                self._renewed.pop(next(iter(self._renewed)))
            renewed = self._renewed[name] = _Renewed()
        return renewed

    async def _keys_for(self, application: Application, cert_sn: str) -> tuple[VerificationKey, ...]:
        """The one key that an answer names; every key where it names none. Raises NotBelieved."""
        if application.certificates is None or not cert_sn:
            return self.keys(application)
        key = self._ring(application).find(cert_sn, self._clock.now())
        if key is None:
            await self.renew_certificate(application, cert_sn)
            key = self._ring(application).find(cert_sn, self._clock.now())
        if key is None:
            raise NotBelieved("signed with a certificate that we do not hold")
        return (key,)

    async def _send(self, application: Application, call: Call, deadline_seconds: float) -> HttpReply:
        signed = signed_request(application, call, self._clock.now())
        request = HttpRequest(
            method="POST",
            url=f"{application.gateway_url}?{signed.query}",
            headers={
                "Content-Type": f"application/x-www-form-urlencoded;charset={call.charset}",
                "Accept": "application/json",
                "User-Agent": USER_AGENT,
            },
            body=signed.body.encode("ascii"),
        )
        return await self._transport.send(request, deadline_seconds=deadline_seconds)

    def _envelope(self, call: Call, reply: HttpReply) -> Envelope:
        if reply.status != 200:
            raise NotBelieved(f"HTTP {reply.status}")
        if reply.body.lstrip()[:1] == b"<":
            raise NotBelieved("it is a page")
        return read_envelope(reply.body, call.method, call.charset)

    def _unsigned(self, call: Call, envelope: Envelope) -> CounterpartyError:
        """Never a success. A refusal's words are kept, because only the operator can do something about it."""
        if envelope.is_encrypted:
            raise NotBelieved("not signed")
        fields = read_content(envelope.content, call.charset)
        if fields.get("code") in (None, SUCCESS):
            raise NotBelieved("not signed")
        return unclear(call.method, fields, signed=False)

    async def _download(self, application: Application, certificates: Certificates, cert_sn: str) -> VerificationKey:
        """Its answer is signed by the very certificate that it brings; what is checked is where that one leads."""
        call = Call(method=CERTIFICATE_METHOD, content={"alipay_cert_sn": cert_sn})
        reply = await self._send(application, call, CALL_SECONDS)
        envelope = self._envelope(call, reply)
        fields = open_content(envelope.content, application.aes_key, DEFAULT_CHARSET)
        text = fields.get("alipay_cert_content")
        if fields.get("code") != SUCCESS or not isinstance(text, str):
            raise unclear(call.method, fields, signed=False)
        try:
            pem = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError):
            raise NotBelieved("the downloaded certificate cannot be read") from None
        return check_new_certificate(pem, cert_sn, certificates, self._clock.now())

    def _log_problem(
        self,
        event: str,
        application: Application,
        call: Call,
        reply: HttpReply,
        *,
        errcode: str = "",
        problem: str = "",
    ) -> None:
        _log.warning(
            event,
            extra={
                "app_id": application.app_id,
                "call": call.method,
                "status": reply.status,
                "errcode": errcode,
                "problem": problem,
                "request_id": reply.headers.get("trace_id", "")[:64],
            },
        )
