"""Every setting, typed, read once from the environment; secrets are never printed."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import ConfigurationError
from core.keyring import KEY_BYTES, Keyring


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a program needs to know before it starts. `docs` of each variable: README, section Settings."""

    database_url: str = field(repr=False)
    owner_database_url: str = field(default="", repr=False)  # migrations only
    deployment_id: str
    redis_url: str = field(default="", repr=False)
    public_url: str
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    current_key: str = ""
    lookup_key: bytes = field(default=b"", repr=False)
    session_key: bytes = field(default=b"", repr=False)
    clock_offset_file: Path | None = None  # the sandbox's movable time
    pool_max: int = 8
    programs: int = 2  # web processes and workers together: they share what a HIS bears at once
    proxies_count: int = 0
    staff_path: str = "/staff"  # where the staff's API lies; empty: nowhere

    @property
    def is_sandbox(self) -> bool:
        """Only the sandbox has a movable clock; nothing but its own start sets one."""
        return self.clock_offset_file is not None

    def keyring(self) -> Keyring:
        """Raises ConfigurationError for keys that cannot be used."""
        return Keyring(current=self.current_key, keys=self.keys, lookup_key=self.lookup_key)


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Raises ConfigurationError that names the variable and says what to put in."""
    source = os.environ if environment is None else environment

    def needed(name: str, meaning: str) -> str:
        value = source.get(name, "").strip()
        if not value:
            raise ConfigurationError(f"{name} is not set: {meaning}")
        return value

    keys = {}
    for part in needed(
        "ZHENFU_KEYS", "encryption keys as id:base64, separated by blanks, the current one first"
    ).split():
        key_id, _, text = part.partition(":")
        keys[key_id] = _key(text, f"ZHENFU_KEYS ({key_id})")
    offset_file = source.get("ZHENFU_CLOCK_OFFSET_FILE", "")
    return Settings(
        database_url=needed(
            "DATABASE_URL", "postgres://zhenfu_app:password@host:5432/zhenfu, in the role that programs use"
        ),
        owner_database_url=source.get("ZHENFU_OWNER_DATABASE_URL", ""),
        deployment_id=needed("ZHENFU_DEPLOYMENT_ID", "any name for this deployment; the database remembers it"),
        redis_url=source.get("REDIS_URL", ""),
        public_url=needed("ZHENFU_PUBLIC_URL", "where counterparties reach us, https://host").rstrip("/"),
        host=source.get("ZHENFU_HOST", "127.0.0.1"),
        port=_number(source.get("ZHENFU_PORT", "8000"), "ZHENFU_PORT"),
        keys=keys,
        current_key=next(iter(keys)),
        lookup_key=_key(
            needed("ZHENFU_LOOKUP_KEY", "32 bytes in base64, for look-ups of encrypted values"), "ZHENFU_LOOKUP_KEY"
        ),
        session_key=_key(needed("ZHENFU_SESSION_KEY", "32 bytes in base64, for access tokens"), "ZHENFU_SESSION_KEY"),
        clock_offset_file=Path(offset_file) if offset_file else None,
        pool_max=_number(source.get("ZHENFU_POOL_MAX", "8"), "ZHENFU_POOL_MAX"),
        proxies_count=_number(source.get("ZHENFU_PROXIES_COUNT", "0"), "ZHENFU_PROXIES_COUNT"),
        staff_path=_path(source.get("ZHENFU_STAFF_PATH", "/staff"), "ZHENFU_STAFF_PATH"),
        programs=_number(source.get("ZHENFU_PROGRAMS", str(default_programs())), "ZHENFU_PROGRAMS"),
    )


def default_programs() -> int:
    """One web process for each processor of this machine, and one worker."""
    return (os.cpu_count() or 1) + 1


def _key(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ConfigurationError(f"{name} is not base64") from error
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{name} has {len(key)} bytes, {KEY_BYTES} are needed: openssl rand -base64 32")
    return key


def _path(text: str, name: str) -> str:
    """One or more parts of an address; "off" is none."""
    if text == "off":
        return ""
    if not re.fullmatch(r"(/[a-z0-9-]{1,32}){1,4}", text):
        raise ConfigurationError(f"{name} is a path such as /staff, or off, not {text!r}")
    return text


def _number(text: str, name: str) -> int:
    if not text.isdigit():
        raise ConfigurationError(f"{name} must be a number, not {text!r}")
    return int(text)
