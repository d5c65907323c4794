"""A hospital's books, somebody who reads them and somebody who may do everything with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from core.ledger import ledger_key
from core.ledger_report import Report
from core.models import Payer, Payment, Transfer
from core.seals import Head
from core.verifying import verify_ledger
from runtime.database import credentials_of
from tests.support.house import House
from tests.support.postgres import Database

GUARDS = {
    "transfer": ("transfer_begins", "transfer_moves_money"),
    "seal": ("seal_window",),
    "payment": (
        "payment_refunds_within_paid",
        "payment_amounts",
        "payment_paid_or_nothing",
        "payment_refunded_within_reserved",
    ),
}
"""Checks that would refuse what a forger writes; keys and triggers are passed by."""


@dataclass(kw_only=True)
class Books:
    """What tests do with them."""

    house: House
    reader: asyncpg.Connection
    forger: asyncpg.Connection
    payer: Payer
    patient_id: UUID

    async def verify(self, *heads: Head) -> Report:
        return await verify_ledger(self.reader, ledger_key(self.house.services.outside.keyring), heads=heads)

    async def problems(self, *heads: Head) -> list[str]:
        return [str(finding) for finding in (await self.verify(*heads)).findings]

    async def paid(self, **bill: Any) -> str:
        """A payment of one bill that the HIS has booked; its order number."""
        started = await self.house.start(self.payer, self.patient_id, self.house.bill(**bill))
        if started.pay is not None:
            self.house.pay_sheet(started)
        await self.house.settle(within=timedelta(minutes=1))
        return started.order_no

    async def returned(self) -> str:
        """A payment of one bill that the HIS has refused, given back."""
        started = await self.house.start(self.payer, self.patient_id, self.house.bill())
        self.house.pay_sheet(started)
        self.house.faults.script("hospital.refuses_confirm")
        await self.house.settle(within=timedelta(hours=1))
        return started.order_no

    async def seal(self, later: timedelta = timedelta(minutes=5)) -> list[Head]:
        self.house.clock.advance(later)
        return await self.house.services.seals.seal_due()

    async def transfers(self, order_no: str) -> list[Transfer]:
        payment = await Payment.get(order_no=order_no)
        return await Transfer.filter(payment_id=payment.id).order_by("seq")

    @asynccontextmanager
    async def without(self, table: str, condition: str, *values: Any) -> AsyncIterator[None]:
        """These rows are gone inside."""
        await self.forger.execute(f"CREATE TEMP TABLE gone AS SELECT * FROM {table} WHERE {condition}", *values)
        await self.forger.execute(f"DELETE FROM {table} WHERE {condition}", *values)
        try:
            yield
        finally:
            columns = ", ".join(await self._columns(table))
            await self.forger.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM gone")
            await self.forger.execute("DROP TABLE gone")

    @asynccontextmanager
    async def with_change(self, table: str, row_id: Any, column: str, expression: str) -> AsyncIterator[None]:
        """One value of one row is another one inside."""
        (before,) = await self.forger.fetchrow(f"SELECT {column} FROM {table} WHERE id = $1", row_id)
        (changed_id,) = await self.forger.fetchrow(
            f"UPDATE {table} SET {column} = {expression} WHERE id = $1 RETURNING id", row_id
        )
        try:
            yield
        finally:
            await self.forger.execute(f"UPDATE {table} SET {column} = $2 WHERE id = $1", changed_id, before)

    async def _columns(self, table: str) -> list[str]:
        rows = await self.forger.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = ''",
            table,
        )
        return [row["attname"] for row in rows]


@asynccontextmanager
async def opened_books(database: Database) -> AsyncIterator[Books]:
    """A house in `database`, on which the models are open already (fixture `tortoise`)."""
    house = await House.build(settings={"merge": True})
    reader = await asyncpg.connect(**credentials_of(database.app_dsn))
    forger = await asyncpg.connect(**database.superuser_credentials)
    try:
        await forger.execute("SET session_replication_role = replica")
        for table, guards in GUARDS.items():
            for guard in guards:
                await forger.execute(f"ALTER TABLE {table} DROP CONSTRAINT {guard}")
        payer = await house.payer()
        patient_id = await house.bound(payer)
        yield Books(house=house, reader=reader, forger=forger, payer=payer, patient_id=patient_id)
    finally:
        await reader.close()
        await forger.close()
