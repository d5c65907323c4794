"""Cases of failing work whose row has ended by another way: a notice came, or a program died before it could say so."""

from __future__ import annotations

import asyncio
import logging

from core.services import Services

log = logging.getLogger("zhenfu.worker")

EVERY_SECONDS = 60.0


async def run(services: Services) -> None:
    """For ever; a database that is away is waited for."""
    while True:
        try:
            if closed := await services.failing.sweep():
                log.info("cases_settled", extra={"fields": {"cases": closed}})
        except Exception:
            log.exception("settling_cases_failed")
        await asyncio.sleep(EVERY_SECONDS)
