"""How often a phone may ask for something."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from core.errors import TooManyRequests
from core.ports import Limiter


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    name: str
    most: int
    per: timedelta


SIGN_IN = Limit(name="sign_in", most=600, per=timedelta(minutes=1))
"""Per institution and address: a whole hospital's Wi-Fi may be behind one address."""

BIND = Limit(name="bind", most=10, per=timedelta(hours=1))
"""Each try tells whether a document and a name belong together: few are enough for a family."""

START = Limit(name="start", most=30, per=timedelta(minutes=1))
ASK = Limit(name="ask", most=120, per=timedelta(minutes=1))
"""Everything else, per payer."""


@dataclass(frozen=True, slots=True)
class Limits:
    limiter: Limiter

    async def check(self, limit: Limit, who: str) -> None:
        """Raises TooManyRequests."""
        if not await self.limiter.allow(f"api:{limit.name}:{who}", limit=limit.most, per=limit.per):
            raise TooManyRequests(retry_after_seconds=int(limit.per.total_seconds()))
