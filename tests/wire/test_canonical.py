"""One spelling per value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.errors import ConfigurationError
from wire.canonical import canonical_json, read_object
from wire.params import Param, read_params

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**63), 2**63 - 1) | some.text(),
    lambda inside: some.lists(inside, max_size=4) | some.dictionaries(some.text(), inside, max_size=4),
    max_leaves=12,
)


@given(some.dictionaries(some.text(), VALUES, max_size=5))
def test_the_order_of_keys_never_shows_and_nothing_is_lost(value):
    turned = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(turned)
    assert read_object(canonical_json(value)) == value


def test_the_spelling():
    assert canonical_json({"b": [1, None], "a": "门"}) == '{"a":"门","b":[1,null]}'.encode()


@pytest.mark.parametrize("value", [{"a": 1.5}, {"a": [{"b": 0.1}]}, {"a": (1.0,)}])
def test_fractions_are_refused(value):
    with pytest.raises(TypeError, match="fraction"):
        canonical_json(value)


@pytest.mark.parametrize("body", [b"", b"[]", b'"a"', b"{", b"\xff", b'{"a":NaN}', b"{} {}"])
def test_anything_but_an_object_is_refused(body):
    with pytest.raises(ValueError, match=r"object|column"):
        read_object(body)


def test_params_are_complete_known_and_trimmed():
    table = (
        Param(name="key", title="a key", secret=True),
        Param(name="url", title="where", required=False, default="x"),
    )
    assert read_params(table, {"key": " k\n"}, owner="it") == {"key": "k", "url": "x"}
    with pytest.raises(ConfigurationError, match=r"it: key missing"):
        read_params(table, {"key": " "}, owner="it")
    with pytest.raises(ConfigurationError, match=r"it: unknown kye"):
        read_params(table, {"kye": "k", "key": "k"}, owner="it")
