"""Who is calling: sign-in through the chat platform, and our own access tokens.

A token is `z1.<payload>.<MAC>`, both base64url: payer, institution, issued, expires; HMAC-SHA256 over the payload.
Nothing is stored, so any program that has the key can check it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

from core.clock import Clock
from core.errors import (
    BindingRefused,
    ConfigurationError,
    NotFound,
    NotReached,
    NotSignedIn,
    OutcomeUnknown,
    PlatformUnavailable,
    Refused,
    RequestError,
)
from core.models import Payer
from core.ports import ChatAccount
from core.services import Services
from core.tenancy import scoped
from miniprogram_api.requests import ApiRequest

SESSION_LIFE = timedelta(hours=12)
KEY_BYTES_MIN = 32
TOKEN_LENGTH_MAX = 256
VERSION = "z1"
_PURPOSE = b"zhenfu access token 1"
_PAYLOAD = struct.Struct(">16s16sQQ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A payer who has signed in at one institution."""

    payer_id: UUID
    institution_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Tokens:
    """Makes and reads access tokens."""

    clock: Clock
    key: bytes = field(repr=False)

    @classmethod
    def of_secret(cls, clock: Clock, secret: bytes) -> Self:
        """With a key of their own, derived from a setting. Raises ConfigurationError for one that is too short."""
        if len(secret) < KEY_BYTES_MIN:
            raise ConfigurationError(f"the session key must have at least {KEY_BYTES_MIN} bytes")
        return cls(clock, hmac.digest(secret, _PURPOSE, hashlib.sha256))

    def issue(self, *, payer_id: UUID, institution_id: UUID) -> tuple[str, datetime]:
        """A token and when it ends."""
        issued = int(self.clock.now().timestamp())
        expires = issued + int(SESSION_LIFE.total_seconds())
        payload = _PAYLOAD.pack(payer_id.bytes, institution_id.bytes, issued, expires)
        token = f"{VERSION}.{_encode(payload)}.{_encode(self._mac(payload))}"
        return token, datetime.fromtimestamp(expires, UTC)

    def read(self, token: str) -> Session:
        """Raises NotSignedIn for anything but a living token of ours."""
        version, _, rest = token.partition(".")
        payload_text, _, mac_text = rest.partition(".")
        if version != VERSION or len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise NotSignedIn()
        try:
            payload, mac = _decode(payload_text), _decode(mac_text)
        except binascii.Error as error:
            raise NotSignedIn() from error
        if not hmac.compare_digest(self._mac(payload), mac) or len(payload) != _PAYLOAD.size:
            raise NotSignedIn()
        payer, institution, _, expires = _PAYLOAD.unpack(payload)
        if self.clock.now().timestamp() >= expires:
            raise NotSignedIn()
        return Session(
            payer_id=UUID(bytes=payer),
            institution_id=UUID(bytes=institution),
            expires_at=datetime.fromtimestamp(expires, UTC),
        )

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self.key, payload, hashlib.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Auth:
    services: Services
    tokens: Tokens

    async def sign_in(self, *, institution: str, app_id: str, code: str, language: str) -> tuple[str, datetime]:
        """An access token for whoever the platform says holds this code.

        Raises NotFound for an institution or app that is not ours, NotSignedIn for a spent code, PlatformUnavailable.
        """
        profile = await self.services.institutions.profile_by_code(institution)
        account = await self.services.institutions.chat_account_by_app(profile.id, app_id)
        platform = self.services.outside.platforms.get(account.platform)
        if platform is None:
            raise NotFound()
        async with _asking_platform(NotSignedIn()):
            identity = await platform.sign_in(account, code)
        payer = await self.services.patients.payer_for(account, identity, language=language)
        return self.tokens.issue(payer_id=payer.id, institution_id=payer.institution_id)

    def session(self, request: ApiRequest) -> Session:
        """Raises NotSignedIn."""
        scheme, _, token = str(request.headers.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer":
            raise NotSignedIn()
        return self.tokens.read(token.strip())

    async def payer(self, session: Session) -> Payer:
        """Raises NotSignedIn for a payer who is no longer there."""
        payer = await scoped(session.institution_id).of(Payer).get_or_none(id=session.payer_id)
        if payer is None:
            raise NotSignedIn()
        return payer

    async def chat_account(self, payer: Payer) -> ChatAccount:
        """The app that this payer uses."""
        return await self.services.institutions.chat_account(payer.institution_id, payer.chat_account_id)

    async def phone(self, payer: Payer, code: str) -> str:
        """The phone that the platform has verified. Raises BindingRefused for a spent code, PlatformUnavailable."""
        account = await self.chat_account(payer)
        platform = self.services.outside.platforms[account.platform]
        async with _asking_platform(BindingRefused(reason="phone_code")):
            return await platform.phone_number(account, code)


@asynccontextmanager
async def _asking_platform(spent: RequestError) -> AsyncIterator[None]:
    """Raises `spent` when the platform refuses the code itself, PlatformUnavailable for any other trouble."""
    try:
        yield
    except Refused as refused:
        raise (spent if refused.final else PlatformUnavailable()) from refused
    except (NotReached, OutcomeUnknown) as silent:
        raise PlatformUnavailable() from silent


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
