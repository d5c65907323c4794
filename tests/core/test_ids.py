"""Numbers that nobody guesses and no restored database issues again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from core.ids import NUMBER_CHARACTERS, Ids
from simulators.clock import ManualClock

NOON = datetime(2026, 5, 6, 4, 0, 0, 123_000, tzinfo=UTC)
MAKERS: dict[str, Callable[[Ids], str]] = {"P": Ids.order_no, "R": Ids.refund_no, "C": Ids.confirm_no}


def test_a_key_is_a_uuid_of_version_seven_with_the_time_in_front() -> None:
    key = Ids(ManualClock(NOON), lambda length: b"\xff" * length).uuid()
    assert (key.version, key.variant) == (7, "specified in RFC 4122")
    assert key.int >> 80 == int(NOON.timestamp() * 1000)
    assert str(key).partition("-")[2].partition("-")[2] == "7fff-bfff-ffffffffffff"


def test_the_random_bits_of_a_key_are_all_random() -> None:
    """Of 80 random bits 6 say version and variant; the other 74 reach the key."""
    zeros = Ids(ManualClock(NOON), lambda length: b"\x00" * length).uuid().int
    ones = Ids(ManualClock(NOON), lambda length: b"\xff" * length).uuid().int
    assert (zeros ^ ones).bit_count() == 74


def test_later_keys_sort_later() -> None:
    clock = ManualClock(NOON)
    ids = Ids(clock)
    keys = []
    for _ in range(200):
        keys.append(ids.uuid())
        clock.advance(timedelta(milliseconds=1))
    assert keys == sorted(keys)
    assert [key.int >> 80 for key in keys] == list(range(keys[0].int >> 80, (keys[0].int >> 80) + 200))


@pytest.mark.parametrize("first", MAKERS)
def test_a_number_has_a_letter_of_its_kind_and_125_random_bits(first: str) -> None:
    asked: list[int] = []

    def random_bytes(length: int) -> bytes:
        asked.append(length)
        return bytes(range(length))

    number = MAKERS[first](Ids(ManualClock(NOON), random_bytes))
    assert number == first + NUMBER_CHARACTERS[:25]
    assert asked == [25]
    assert 20 <= len(number) <= 32
    assert number.isascii()
    assert number.isalnum()
    assert number == number.upper()


def test_every_character_of_a_number_is_as_likely_as_any_other() -> None:
    every_byte = iter(range(256))
    ids = Ids(ManualClock(NOON), lambda length: bytes([next(every_byte)]) * length)
    last = [ids.order_no()[-1] for _ in range(256)]
    assert {last.count(character) for character in NUMBER_CHARACTERS} == {8}
    assert len(set(NUMBER_CHARACTERS)) == 32
    assert not set("ILOU") & set(NUMBER_CHARACTERS)


def test_nothing_of_a_number_comes_from_the_clock() -> None:
    fixed = b"\x05" * 64
    early, late = (Ids(ManualClock(NOON + timedelta(days=day)), lambda length: fixed[:length]) for day in (0, 400))
    for make in MAKERS.values():
        assert make(early) == make(late)


def test_no_number_comes_twice() -> None:
    ids = Ids(ManualClock(NOON))  # the clock stands still
    made = [make(ids) for make in MAKERS.values() for _ in range(3000)]
    made += [str(ids.uuid()) for _ in range(3000)] + [ids.token() for _ in range(3000)]
    assert len(set(made)) == len(made) == 15_000


def test_a_token_is_192_bits_of_hex() -> None:
    assert Ids(ManualClock(NOON), lambda length: bytes(range(length))).token() == bytes(range(24)).hex()
