"""What a page's form sends: bounded texts, and proof that the form was ours and its sender's own."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

from core.errors import InvalidRequest, ZhenfuError
from miniprogram_api.requests import ApiRequest

PURPOSE = b"zhenfu page form 1"
TOKEN_FIELD = "form"  # noqa: S105  # the name of a field
PROOF_FIELD = "proof"
PHONE_PROOF_LIFE = timedelta(minutes=5)
SECONDS_DIGITS_MAX = 12
FIELD_LENGTH_MAX = 128
OUR_FETCHES = frozenset({"same-origin", "none"})


class StaleForm(ZhenfuError):
    """The form is not one that this session was given, or was sent from somebody else's page."""


@dataclass(frozen=True, slots=True)
class Forms:
    """Makes and checks the token that every form carries."""

    public_url: str
    key: bytes = field(repr=False)

    @classmethod
    def of_secret(cls, public_url: str, secret: bytes) -> Self:
        return cls(public_url, hmac.digest(secret, PURPOSE, hashlib.sha256))

    def token(self, session_token: str) -> str:
        """Bound to the session: another session's forms are refused."""
        return hmac.new(self.key, session_token.encode(), hashlib.sha256).hexdigest()

    def phone_proof(self, form_token: str, phone: str, *, now: datetime) -> str:
        """Says for a while, in a field of the form, that this session has proven this phone."""
        return self._phone_proof(form_token, phone, int((now + PHONE_PROOF_LIFE).timestamp()))

    def proves_phone(self, proof: str, form_token: str, phone: str, *, now: datetime) -> bool:
        ends = proof.partition(".")[0]
        if not proof.isascii() or not ends.isdigit() or len(ends) > SECONDS_DIGITS_MAX:
            return False
        right = hmac.compare_digest(proof, self._phone_proof(form_token, phone, int(ends)))
        return right and now.timestamp() < int(ends)

    def _phone_proof(self, form_token: str, phone: str, ends: int) -> str:
        said = f"phone\n{form_token}\n{ends}\n{phone}"
        return f"{ends}.{hmac.new(self.key, said.encode(), hashlib.sha256).hexdigest()}"

    def check(self, request: ApiRequest, token: str) -> None:
        """Raises StaleForm."""
        given = raw_text(request, TOKEN_FIELD)
        if not given.isascii() or not hmac.compare_digest(given, token):
            raise StaleForm()
        self.check_origin(request)

    def check_origin(self, request: ApiRequest) -> None:
        """Raises StaleForm for a form on somebody else's page.

        Browsers say `null` for the origin of pages which, like ours, keep their address to themselves.
        """
        ours = {urlsplit(self.public_url).netloc, str(request.headers.get("host", ""))}
        for name in ("origin", "referer"):
            said = str(request.headers.get(name, ""))
            if said not in ("", "null") and urlsplit(said).netloc not in ours:
                raise StaleForm()
        if str(request.headers.get("sec-fetch-site", "none")) not in OUR_FETCHES:
            raise StaleForm()


def raw_text(request: ApiRequest, name: str) -> str:
    """A field as it was sent; empty when it is not there."""
    form = request.form
    return str(form.get(name) or "") if form else ""


def text_of(request: ApiRequest, name: str, *, length_max: int = FIELD_LENGTH_MAX) -> str:
    """A field as it was typed, without blanks around it; empty when it is not there. Raises InvalidRequest."""
    text = raw_text(request, name).strip()
    if len(text) > length_max or not text.isprintable():
        raise InvalidRequest(field=name, problem="has the wrong form")
    return text


def is_ticked(request: ApiRequest, name: str) -> bool:
    return text_of(request, name) == "yes"


def number_of(request: ApiRequest, name: str, *, most: int) -> int:
    """Raises InvalidRequest for anything but digits."""
    text = text_of(request, name)
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or int(text) > most:
        raise InvalidRequest(field=name, problem="has the wrong form")
    return int(text)


def uuid_of(request: ApiRequest, name: str) -> UUID:
    """Raises InvalidRequest."""
    try:
        return UUID(text_of(request, name))
    except ValueError:
        raise InvalidRequest(field=name, problem="has the wrong form") from None
