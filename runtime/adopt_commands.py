"""What `zhenfu adopt` does once its arguments are read."""

from __future__ import annotations

import asyncio
from datetime import date

from core.adopting import Adopted
from core.money import Fen, yuan_text
from runtime.commands import check_database
from runtime.database import database
from runtime.programs import wire
from runtime.settings import Settings


def adopt(settings: Settings, since: date) -> tuple[str, bool]:
    """What was found; false when a person must look: something is lost, or a statement could not be read."""

    async def work() -> Adopted:
        await check_database(settings)
        wired = wire(settings, "adopt")
        try:
            async with database(settings.database_url, pool_max=4):
                return await wired.services.adopting.walk(since)
        finally:
            await wired.finish()

    found = asyncio.run(work())
    return "\n".join(lines(found)), not (found.lost or found.bookings_lost or found.unread)


def lines(found: Adopted) -> list[str]:
    return [
        f"{found.doubted} rows stood as never sent: they are asked about before anything is sent",
        f"{found.asked} payments asked about: {found.found_paid} were paid and stood as unpaid,"
        f" {found.silent} without an answer (the worker goes on asking)",
        f"{found.listed} rows in the channels' statements, {found.foreign} of them not ours",
        f"{found.lost} of ours have no row here, {yuan_text(Fen(found.lost_fen))} yuan: a case for each",
        f"{found.booked} bookings of the HIS carry a number of ours, {found.bookings_lost} of them have no row here:"
        " a case for each",
        *(f"statement not read: {said}; run this again" for said in found.unread),
    ]
