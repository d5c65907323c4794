"""Fen and yuan: nothing is rounded, nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import Fen, fen_from_yuan_text, share, yuan_text

amounts = st.integers(min_value=0, max_value=10**11 - 1).map(Fen)


@given(amounts)
def test_an_amount_survives_the_way_to_text_and_back(amount: Fen) -> None:
    assert fen_from_yuan_text(yuan_text(amount)) == amount


@pytest.mark.parametrize(
    ("text", "fen"),
    [("19.98", 1998), ("19.99", 1999), ("0.07", 7), ("0.7", 70), ("7", 700), (" 86.50 ", 8650), ("007.5", 750)],
)
def test_yuan_are_read_without_floating_point(text: str, fen: int) -> None:
    assert fen_from_yuan_text(text) == fen


@pytest.mark.parametrize(
    ("fen", "text"), [(0, "0.00"), (7, "0.07"), (70, "0.70"), (1998, "19.98"), (-5, "-0.05"), (-1998, "-19.98")]
)
def test_fen_are_written_with_two_decimals_and_their_sign(fen: int, text: str) -> None:
    assert yuan_text(Fen(fen)) == text


NO_AMOUNTS = ["1.234", "-1", "+1", "1e3", "1,000.00", ".5", "5.", "１２", "1.5元", "1_0", "nan", "1.2.3", "9999999999"]


@pytest.mark.parametrize("text", ["", " ", "1 0", *NO_AMOUNTS])
def test_anything_else_is_not_an_amount(text: str) -> None:
    with pytest.raises(ValueError, match="yuan"):
        fen_from_yuan_text(text)


@given(amounts, st.lists(st.integers(0, 10**9), min_size=1, max_size=30).filter(lambda weights: sum(weights) > 0))
def test_a_share_loses_no_fen_and_is_fair_to_one_fen(total: Fen, weights: list[int]) -> None:
    parts = share(total, [Fen(weight) for weight in weights])
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        exact = total * weight // sum(weights)
        assert exact <= part <= exact + 1
        assert weight or not part


def test_the_earliest_parts_take_the_remainder() -> None:
    assert share(Fen(100), [Fen(1), Fen(1), Fen(1)]) == [34, 33, 33]
    assert share(Fen(2), [Fen(0), Fen(1), Fen(1), Fen(1)]) == [0, 1, 1, 0]


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, []), (1, [0, 0]), (1, [2, -1])])
def test_a_share_without_sense_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="share"):
        share(Fen(total), [Fen(weight) for weight in weights])
