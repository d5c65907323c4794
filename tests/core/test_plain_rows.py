"""Plain statements find and change the same rows as the query builder does."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest
from tortoise.exceptions import DoesNotExist

from core.models import HospitalSiteRow, Payment, PaymentLine
from core.states import LineStatus, PaymentStatus
from core.tenancy import scoped
from core.transactions import transaction
from tests.support.house import House
from tests.support.postgres import Database


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def started(house: House, bills: int = 2) -> list[Payment]:
    payer = await house.payer()
    patient = await house.bound(payer)
    orders = [(await house.start(payer, patient, house.bill())).order_no for _ in range(bills)]
    return [await house.payment(order_no) for order_no in orders]


def plain(row: Payment | PaymentLine | HospitalSiteRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row._meta.fields_map}


async def test_a_found_row_is_what_the_builder_gives(house: House) -> None:
    payment, _ = await started(house)
    scope = scoped(house.institution_id)
    assert plain(await scope.get(Payment, id=payment.id)) == plain(payment)
    site = await HospitalSiteRow.get(id=house.site_id)
    assert plain(await scope.get(HospitalSiteRow, id=house.site_id)) == plain(site)
    assert isinstance(site.capabilities, dict)


async def test_rows_are_wanted_by_value_member_absence_and_order(house: House) -> None:
    first, second = await started(house)
    scope = scoped(house.institution_id)
    by_number = sorted((first, second), key=lambda payment: payment.order_no)
    found = await scope.find(Payment, ("order_no",), id=[first.id, second.id], status={PaymentStatus.PENDING})
    assert [payment.id for payment in found] == [payment.id for payment in by_number]
    assert found[0].status is PaymentStatus.PENDING
    assert len(await scope.find(Payment, paid_at=None)) == 2
    assert await scope.find(Payment, asked_fen__gt=8650) == []
    assert len(await scope.find(Payment, asked_fen__gt=8649)) == 2
    assert await scope.get_or_none(Payment, id=uuid4()) is None
    with pytest.raises(DoesNotExist):
        await scope.get(Payment, id=uuid4())


async def test_a_change_meets_the_wanted_rows_of_one_institution_alone(house: House) -> None:
    first, second = await started(house)
    wanted = {"payment_id": first.id, "status": [LineStatus.WAITING, LineStatus.HELD]}
    assert await scoped(uuid4()).change(PaymentLine, wanted, title="nobody's") == 0
    changed = await scoped(house.institution_id).change(
        PaymentLine, wanted, status=LineStatus.VOID, claims_bill=False, due_at=None
    )
    (line,), (other,) = [await PaymentLine.filter(payment_id=payment.id) for payment in (first, second)]
    assert (changed, line.status, line.claims_bill) == (1, LineStatus.VOID, False)
    assert other.status is LineStatus.WAITING


async def test_a_locked_row_is_held_until_the_transaction_ends(house: House, database: Database) -> None:
    payment, _ = await started(house)
    other = await asyncpg.connect(**database.app_credentials)
    skipping = "SELECT id FROM payment WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
    try:
        async with transaction():
            assert await scoped(house.institution_id).find(Payment, locked=True, id=payment.id)
            assert await other.fetch(skipping, payment.id) == []
        assert len(await other.fetch(skipping, payment.id)) == 1
    finally:
        await other.close()
