"""Members of staff are known by a key that nobody can read back, and may do what their roles say."""

from __future__ import annotations

import pytest

from core import errors, staff_texts
from core.actors import Role
from core.errors import (
    ActionNotPossible,
    AlreadyDecided,
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotSignedIn,
    RefundNotPossible,
    StaffError,
)
from core.models import Staff
from core.staff_texts import ERRORS, staff_error_text
from tests.support.house import House


@pytest.fixture
async def house(tortoise: object) -> House:
    return await House.build()


async def test_a_key_says_who_calls_and_stands_nowhere(house: House) -> None:
    service = house.services.staff
    key = await service.add(house.institution_id, "1001", "钱出纳", [Role.LOOK, Role.REQUEST_REFUND])
    actor = await service.authenticate(key)
    assert (actor.institution_id, actor.code) == (house.institution_id, "1001")
    assert actor.roles == {Role.LOOK, Role.REQUEST_REFUND}
    actor.require(Role.LOOK)
    with pytest.raises(NotAllowed) as refused:
        actor.require(Role.ATTEST)
    assert refused.value.values == {"role": "attest"}
    stored = await Staff.get(institution_id=house.institution_id, code="1001")
    assert key not in repr(vars(stored))
    assert "钱出纳" not in repr(vars(stored))
    (view,) = await service.members(house.institution_id)
    assert (view.code, view.name, view.is_active, view.has_key) == ("1001", "钱出纳", True, True)


@pytest.mark.parametrize("key", ["", "zs1_", "zs1_" + "0" * 48, "zs1_" + "0" * 500, "zs1_钱", "Bearer x"])
async def test_what_is_no_key_opens_nothing(house: House, key: str) -> None:
    await house.services.staff.add(house.institution_id, "1001", "钱出纳", [Role.LOOK])
    with pytest.raises(NotSignedIn):
        await house.services.staff.authenticate(key)


async def test_a_new_key_ends_the_old_one_and_a_deactivated_person_has_none(house: House) -> None:
    service = house.services.staff
    first = await service.add(house.institution_id, "1001", "钱出纳", [Role.LOOK])
    second = await service.new_key(house.institution_id, "1001")
    with pytest.raises(NotSignedIn):
        await service.authenticate(first)
    await service.set_roles(house.institution_id, "1001", [Role.ATTEST])
    assert (await service.authenticate(second)).roles == {Role.ATTEST}
    await service.deactivate(house.institution_id, "1001")
    with pytest.raises(NotSignedIn):
        await service.authenticate(second)
    third = await service.new_key(house.institution_id, "1001")
    assert (await service.authenticate(third)).code == "1001"


async def test_who_is_inactive_is_refused_even_with_a_key(house: House) -> None:
    service = house.services.staff
    key = await service.add(house.institution_id, "1001", "钱出纳", [Role.LOOK])
    await Staff.filter(institution_id=house.institution_id, code="1001").update(is_active=False)
    with pytest.raises(NotSignedIn):
        await service.authenticate(key)


async def test_a_role_that_is_unknown_opens_nothing(house: House) -> None:
    key = await house.services.staff.add(house.institution_id, "1001", "钱出纳", [Role.LOOK])
    await Staff.filter(institution_id=house.institution_id, code="1001").update(roles=["look", "everything"])
    assert (await house.services.staff.authenticate(key)).roles == {Role.LOOK}


async def test_a_code_is_one_person_s_in_an_institution(house: House) -> None:
    service = house.services.staff
    other = await house.setup.institution(code="anhe", name_zh="安和医院")
    await service.add(house.institution_id, "1001", "钱出纳", [Role.LOOK])
    await service.add(other, "1001", "别人", [Role.LOOK])
    with pytest.raises(InvalidRequest):
        await service.add(house.institution_id, "1001", "孙出纳", [Role.LOOK])
    with pytest.raises(InvalidRequest):
        await service.add(house.institution_id, "", "孙出纳", [])
    for nobody in (
        service.new_key(other, "1002"),
        service.set_roles(other, "1002", []),
        service.deactivate(other, "1002"),
    ):
        with pytest.raises(NotFound):
            await nobody


def test_every_refusal_of_staff_has_its_sentence_in_both_languages() -> None:
    codes = {kind.code for kind in StaffError.__subclasses__()} | {StaffError.code}
    assert codes <= set(ERRORS)
    assert {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StaffError)} <= (
        set(ERRORS)
    )
    for sentences in ERRORS.values():
        assert set(sentences) == {"zh", "en"}
    assert "look" in staff_error_text(NotAllowed(role="look"), "zh")
    assert "approved" in staff_error_text(AlreadyDecided(status="approved"), "en")
    assert staff_error_text(RefundNotPossible(reason="his_refuses", his_text="已发药"), "zh").endswith("已发药")
    assert staff_error_text(RefundNotPossible(reason="a_new_one"), "en") == "This cannot be refunded."
    assert staff_error_text(ActionNotPossible(reason="too_early"), "zh")
    assert staff_texts.__doc__
