"""Merged payments: whichever of their bills the HIS refuses, exactly those go back and can be paid again."""

from __future__ import annotations

import random

import pytest

from tests.support.merged import UNITS, MergedHouse, every_subset, random_subsets

ALL_UP_TO = {"bill": 4, "visit": 4, "payment": 3}
RANDOM = 3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("unit", UNITS)
async def test_every_subset_of_refused_bills_goes_back_alone(tortoise: object, unit: str) -> None:
    """All subsets of a few bills, and random ones of up to twenty; `python -m tests.merged` tries six and more."""
    merged = await MergedHouse.build(unit)
    subsets = list(every_subset(range(1, ALL_UP_TO[unit] + 1)))
    await merged.run([*subsets, *random_subsets(random.Random(unit), RANDOM)])
    assert merged.numbers["payments"] == len(subsets) + RANDOM
    assert merged.numbers["refunds"] >= len(subsets) // 2
    assert merged.numbers["paid again"] > 3
