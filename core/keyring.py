"""Encryption at rest and look-ups of encrypted values.

A ciphertext is `v1.key_id.nonce.ciphertext` (base64url without padding), AES-256-GCM, bound to the place it is
stored in, so that a value copied into another column does not open. Old keys stay in the ring until every row
has been written anew; new values always use the current key. Look-ups use a key of their own; keys that must never
change while rows exist, such as the ledger's, are derived from it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import ConfigurationError

KEY_BYTES = 32
NONCE_BYTES = 12
CANARY_PLACE = "deployment.canary"
CANARY_TEXT = "诊付 canary"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys that this deployment may use. Raises ConfigurationError for keys that cannot be keys."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)
    lookup_key: bytes = field(repr=False)
    random_bytes: Callable[[int], bytes] = field(default=secrets.token_bytes, repr=False)

    def __post_init__(self) -> None:
        for key_id, key in [*self.keys.items(), ("look-up", self.lookup_key)]:
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"the encryption key {key_id} must be {KEY_BYTES} bytes long")
        if self.current not in self.keys:
            raise ConfigurationError(f"the current encryption key {self.current} is not in the ring")
        if any("." in key_id or not key_id for key_id in self.keys):
            raise ConfigurationError("a key id is letters and digits, without a dot")
        if self.lookup_key in self.keys.values():
            raise ConfigurationError("the look-up key must not be one of the encryption keys")

    def encrypt(self, text: str, *, place: str) -> str:
        """`place` names table and column, e.g. "patient.name"."""
        nonce = self.random_bytes(NONCE_BYTES)
        sealed = AESGCM(self.keys[self.current]).encrypt(nonce, text.encode(), place.encode())
        return f"v1.{self.current}.{_encode(nonce)}.{_encode(sealed)}"

    def decrypt(self, text: str, *, place: str) -> str:
        """Raises ConfigurationError when the key is not in the ring or the value was not sealed for this place."""
        version, _, rest = text.partition(".")
        key_id, _, rest = rest.partition(".")
        nonce, _, sealed = rest.partition(".")
        if version != "v1" or not sealed:
            raise ConfigurationError("a stored value is not in the form v1.key.nonce.ciphertext")
        key = self.keys.get(key_id)
        if key is None:
            raise ConfigurationError(f"the encryption key {key_id} is missing from the ring")
        try:
            return AESGCM(key).decrypt(_decode(nonce), _decode(sealed), place.encode()).decode()
        except (InvalidTag, ValueError) as error:  # ValueError: not base64, or no nonce
            raise ConfigurationError(f"a stored value of {place} does not open with key {key_id}") from error

    def encrypt_json(self, value: Any, *, place: str) -> str:
        return self.encrypt(json.dumps(value, ensure_ascii=False, separators=(",", ":")), place=place)

    def decrypt_json(self, text: str, *, place: str) -> Any:
        return json.loads(self.decrypt(text, place=place))

    def is_stale(self, text: str) -> bool:
        """Whether this ciphertext was made with another key than the current one."""
        return text.split(".", 2)[1] != self.current

    def lookup(self, value: str, *, place: str) -> str:
        """The same value at the same place always gives the same 64 hex digits; nothing leads back."""
        return hmac.new(self.lookup_key, f"{place}\x1f{value}".encode(), hashlib.sha256).hexdigest()

    def derived(self, purpose: str) -> bytes:
        """A key for one purpose: who is given it can neither look anything up nor open anything."""
        return hmac.digest(self.lookup_key, f"key\x1f{purpose}".encode(), "sha256")

    def canary(self) -> str:
        """Stored once; `check_canary` at every start shows a wrong or lost key before anything is written."""
        return self.encrypt(CANARY_TEXT, place=CANARY_PLACE)

    def check_canary(self, stored: str) -> None:
        """Raises ConfigurationError when this ring cannot read what the database holds."""
        if self.decrypt(stored, place=CANARY_PLACE) != CANARY_TEXT:
            raise ConfigurationError("the encryption canary opens to another text")
