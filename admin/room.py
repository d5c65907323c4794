"""What the handlers of this room share: who calls, how often, and how long an answer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from admin.requests import StaffRequest, key_of
from core.actors import Actor
from core.errors import TooManyRequests
from core.services import Services

CALLS_PER_MINUTE = 240
"""Per member of staff: a page that refreshes itself, and a person who clicks."""

ADDRESS_CALLS_PER_MINUTE = 1200
"""Per address, before it is known who calls: a whole hospital may be behind one."""

MINUTE = timedelta(minutes=1)
ASK_SECONDS = 8.0
"""How long a channel or HIS that was asked is waited for; then the question goes on by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    services: Services
    ask_seconds: float = ASK_SECONDS

    async def actor(self, request: StaffRequest) -> Actor:
        """Who calls; counted. Raises NotSignedIn, TooManyRequests."""
        await self._count(f"staff:address:{request.remote_addr or request.ip}", ADDRESS_CALLS_PER_MINUTE)
        actor = await self.services.staff.authenticate(key_of(request))
        await self._count(f"staff:{actor.staff_id}", CALLS_PER_MINUTE)
        return actor

    async def _count(self, what: str, most: int) -> None:
        if not await self.services.outside.limiter.allow(what, limit=most, per=MINUTE):
            raise TooManyRequests(retry_after_seconds=int(MINUTE.total_seconds()))

    async def at_most(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for it a while; after that, or when whoever asked goes away, it goes on in the background."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                if ended.done():  # nobody waits any more
                    raise
                ended.set_exception(error)
            else:
                if not ended.done():
                    ended.set_result(None)

        if not self.services.outside.background.start("staff", run):
            await work()
            return
        await asyncio.wait({ended}, timeout=self.ask_seconds)
        if not ended.done():
            ended.cancel()
            return
        ended.result()
