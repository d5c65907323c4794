"""Everything a domain service may use that is not the database, in one frozen value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.ids import Ids
from core.keyring import Keyring
from core.ports import Channel, ChatPlatform, Hospital, Limiter, Messenger


class Background(Protocol):
    """Work that goes on after the answer. Bounded; what does not fit is done by the worker, from its row."""

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """Clock, numbers, keys and the adapters by name; `program` names this program among those that hold leases."""

    clock: Clock
    ids: Ids
    keyring: Keyring
    channels: Mapping[str, Channel]
    hospitals: Mapping[str, Hospital]
    platforms: Mapping[str, ChatPlatform]
    messengers: Mapping[str, Messenger]
    limiter: Limiter
    background: Background
    public_url: str
    program: str

    def lease_name(self) -> str:
        """A name for one taking of rows: a later taking by the same program is somebody else."""
        return f"{self.program}/{self.ids.token()[:12]}"
