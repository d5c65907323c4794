"""Merged payments: whichever of their bills the HIS refuses, exactly those go back and can be paid again."""

from __future__ import annotations

import random

import pytest

from tests.support.merged import UNITS, MergedHouse, every_subset, random_subsets


@pytest.mark.timeout(120)
@pytest.mark.parametrize("unit", UNITS)
async def test_every_subset_of_refused_bills_goes_back_alone(tortoise: object, unit: str) -> None:
    """All subsets of one to four bills, and random ones of up to twenty; `python -m tests.merged` goes further."""
    merged = await MergedHouse.build(unit)
    await merged.run([*every_subset(range(1, 5)), *random_subsets(random.Random(unit), 4)])
    assert merged.numbers["payments"] == 30 + 4
    assert merged.numbers["refunds"] > 20
    assert merged.numbers["paid again"] > 10
