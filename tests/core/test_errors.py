"""The tree of errors is what its docstring draws."""

from __future__ import annotations

import re

import pytest

from core import errors
from core.errors import AmountChanged, CounterpartyError, Refused, RequestError, ZhenfuError
from core.money import Fen


def _drawn(text: str) -> dict[str, str]:
    """Class → parent, read from the tree in the docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        match = re.match(r"^([│├└─ ]*)([A-Z]\w+)", line)
        if match is None or (not match[1] and match[2] != "ZhenfuError"):
            continue
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        if depth:
            parents[match[2]] = path[depth - 1]
    return parents


def _subclasses(base: type[ZhenfuError]) -> set[type[ZhenfuError]]:
    return set().union(*({child} | _subclasses(child) for child in base.__subclasses__()))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    ours = {child for child in _subclasses(ZhenfuError) if child.__module__ == "core.errors"}
    assert _drawn(errors.__doc__ or "") == {child.__name__: child.__bases__[0].__name__ for child in ours}
    assert len(ours) > 15


def test_codes_are_stable_words_each_used_once() -> None:
    codes = [child.code for child in RequestError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    for child in RequestError.__subclasses__():
        assert child.code == re.sub(r"(?<!^)(?=[A-Z])", "_", child.__name__).lower()


def test_every_error_says_what_it_means() -> None:
    for child in _subclasses(ZhenfuError):
        assert child.__doc__, child.__name__


def test_an_error_carries_its_values() -> None:
    error = AmountChanged(shown_fen=Fen(1), amount_fen=Fen(2))
    assert error.values == {"shown_fen": 1, "amount_fen": 2}
    assert error.args == ("amount_changed", {"shown_fen": 1, "amount_fen": 2})


def test_a_refusal_is_not_final_unless_it_is_said() -> None:
    refused = Refused("ORDER_CLOSED", "closed", raw=b"{}")
    assert (refused.code, refused.message, refused.final, refused.raw) == ("ORDER_CLOSED", "closed", False, b"{}")
    assert Refused("X", final=True).final


@pytest.mark.parametrize("kind", CounterpartyError.__subclasses__())
def test_what_a_counterparty_did_is_no_fault_of_our_caller(kind: type[CounterpartyError]) -> None:
    assert not issubclass(kind, RequestError)
