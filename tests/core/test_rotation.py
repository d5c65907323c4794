"""An old encryption key can be taken out once nothing needs it any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import models
from core.errors import ConfigurationError
from core.keyring import Keyring
from core.models import Payer
from core.rotation import SEALED, Rotation
from tests.support.house import House


def test_every_column_that_is_encrypted_is_written_anew() -> None:
    found = {(getattr(models, name)._meta.db_table, field) for name in models.__all__ for field in _sealed(name)}
    assert {(table, column) for table, column, _ in SEALED} == found - {("deployment", "canary_enc")}


def _sealed(name: str) -> list[str]:
    return [field for field in getattr(models, name)._meta.fields_map if field.endswith("_enc")]


async def test_everything_is_written_anew_and_the_old_key_is_no_longer_needed(tortoise: object) -> None:
    house = await House.build()
    payer = await house.payer()
    patient = await house.bound(payer)
    bill = house.bill()
    started = await house.start(payer, patient, bill)
    house.pay_sheet(started)
    await house.settle()
    old = house.services.outside.keyring
    both = Keyring(current="k2", keys={"k1": old.keys["k1"], "k2": b"3" * 32}, lookup_key=old.lookup_key)
    rotation = Rotation(replace(house.services.outside, keyring=both))
    stale = await rotation.stale()
    assert stale > 8
    changed = 0
    while step := await rotation.step():
        changed += step
    assert (changed, await rotation.stale()) == (stale, 0)
    alone = Keyring(current="k2", keys={"k2": b"3" * 32}, lookup_key=old.lookup_key)
    stored = await Payer.get(id=payer.id, institution_id=house.institution_id)
    assert alone.decrypt(stored.open_id_enc, place="payer.open_id").startswith("o")
    with pytest.raises(ConfigurationError):
        old.decrypt(stored.open_id_enc, place="payer.open_id")
