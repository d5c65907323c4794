"""The ledger's seals, each minute. Any number of workers may run this: the database takes one seal of each number.

A task of the worker and no job of procrastinate, whose ticks are a table of their own: a seal's due time is
already in the rows, and a pause of any length ends in the next seal.
"""

from __future__ import annotations

import asyncio
import logging

from core.services import Services

log = logging.getLogger("zhenfu.ledger")

EVERY_SECONDS = 30.0
"""Twice a minute: what is written waits no longer than a minute and a half for its seal."""


async def seal_once(services: Services) -> int:
    """Seal what is written; each new head is a line in the log, which is to be kept on another machine."""
    made = await services.seals.seal_due()
    for head in made:
        fields = {"institution": head.institution, "number": head.number, "mac": head.mac}
        log.info("ledger_sealed", extra={"fields": fields})
    return len(made)


async def run(services: Services) -> None:
    """For ever; a database that is away is waited for."""
    while True:
        try:
            await seal_once(services)
        except Exception:
            log.exception("sealing_failed")
        await asyncio.sleep(EVERY_SECONDS)
