"""What is encrypted opens only with the right key, at the right place, and unchanged."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigurationError
from core.keyring import Keyring

OLD, NEW, LOOKUP = b"1" * 32, b"2" * 32, b"3" * 32
PLACE = "patient.name"


def a_keyring(**changes: Any) -> Keyring:
    values: dict[str, Any] = {"current": "k1", "keys": {"k1": OLD}, "lookup_key": LOOKUP, **changes}
    return Keyring(**values)


@given(st.text())
def test_what_goes_in_comes_out(text: str) -> None:
    ring = a_keyring()
    assert ring.decrypt(ring.encrypt(text, place=PLACE), place=PLACE) == text


def test_json_goes_in_and_comes_out() -> None:
    ring = a_keyring()
    value = {"姓名": "王秀兰", "n": [1, None, True]}
    assert ring.decrypt_json(ring.encrypt_json(value, place=PLACE), place=PLACE) == value


def test_a_ciphertext_names_version_and_key_and_shows_nothing_else() -> None:
    sealed = a_keyring(random_bytes=lambda length: b"\x07" * length).encrypt("王秀兰", place=PLACE)
    version, key_id, nonce, ciphertext = sealed.split(".")
    assert (version, key_id) == ("v1", "k1")
    assert base64.urlsafe_b64decode(nonce + "==") == b"\x07" * 12
    assert len(base64.urlsafe_b64decode(ciphertext + "==")) == len("王秀兰".encode()) + 16
    assert "=" not in sealed
    assert "王" not in sealed


def test_the_same_text_never_looks_the_same_twice() -> None:
    ring = a_keyring()
    assert len({ring.encrypt("王秀兰", place=PLACE) for _ in range(200)}) == 200


def test_a_value_copied_to_another_place_does_not_open() -> None:
    ring = a_keyring()
    with pytest.raises(ConfigurationError, match=r"payer\.open_id"):
        ring.decrypt(ring.encrypt("王秀兰", place=PLACE), place="payer.open_id")


def test_another_key_of_the_same_name_does_not_open_it() -> None:
    with pytest.raises(ConfigurationError, match="does not open with key k1"):
        a_keyring(keys={"k1": NEW}).decrypt(a_keyring().encrypt("王秀兰", place=PLACE), place=PLACE)


def test_a_key_that_is_gone_is_named() -> None:
    with pytest.raises(ConfigurationError, match="k1 is missing"):
        a_keyring(current="k2", keys={"k2": NEW}).decrypt(a_keyring().encrypt("x", place=PLACE), place=PLACE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda parts: [*parts[:3], parts[3][:-1] + ("A" if parts[3][-1] != "A" else "B")],
        lambda parts: [*parts[:3], parts[3][4:]],
        lambda parts: [*parts[:3], "AAAA"],
        lambda parts: [*parts[:2], "AAAAAAAAAAAAAAAA", parts[3]],
        lambda parts: [*parts[:2], "", parts[3]],
        lambda parts: [*parts[:2], "AA", parts[3]],
        lambda parts: [*parts[:2], parts[2], "é"],
        lambda parts: ["v2", *parts[1:]],
        lambda parts: parts[:3],
        lambda parts: ["王秀兰"],
        lambda parts: [""],
    ],
)
def test_a_spoilt_value_is_an_operators_problem_and_never_text(spoil: Any) -> None:
    ring = a_keyring()
    sealed = ring.encrypt("a text that is long enough", place=PLACE)
    with pytest.raises(ConfigurationError):
        ring.decrypt(".".join(spoil(sealed.split("."))), place=PLACE)


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key() -> None:
    before = a_keyring()
    old = before.encrypt("王秀兰", place=PLACE)
    after = a_keyring(current="k2", keys={"k1": OLD, "k2": NEW})
    assert after.decrypt(old, place=PLACE) == "王秀兰"
    assert after.is_stale(old)
    new = after.encrypt("王秀兰", place=PLACE)
    assert new.startswith("v1.k2.")
    assert not after.is_stale(new)
    assert a_keyring(current="k2", keys={"k2": NEW}).decrypt(new, place=PLACE) == "王秀兰"
    with pytest.raises(ConfigurationError, match="k2 is missing"):
        before.decrypt(new, place=PLACE)


def test_look_ups_survive_a_rotation_and_lead_nowhere() -> None:
    before, after = a_keyring(), a_keyring(current="k2", keys={"k2": NEW})
    found = before.lookup("110101199003078888", place="identifier.id_card")
    assert after.lookup("110101199003078888", place="identifier.id_card") == found
    assert len(found) == 64
    assert set(found) <= set("0123456789abcdef")
    assert before.lookup("110101199003078888", place="identifier.passport") != found
    assert before.lookup("110101199003078889", place="identifier.id_card") != found
    assert a_keyring(lookup_key=b"4" * 32).lookup("110101199003078888", place="identifier.id_card") != found


def test_place_and_value_of_a_look_up_do_not_run_together() -> None:
    ring = a_keyring()
    assert ring.lookup("bc", place="a") != ring.lookup("c", place="ab")


def test_the_canary_shows_a_wrong_ring() -> None:
    ring = a_keyring()
    stored = ring.canary()
    ring.check_canary(stored)
    a_keyring(current="k2", keys={"k1": OLD, "k2": NEW}).check_canary(stored)
    with pytest.raises(ConfigurationError):
        a_keyring(keys={"k1": NEW}).check_canary(stored)
    with pytest.raises(ConfigurationError):
        a_keyring(current="k2", keys={"k2": NEW}).check_canary(stored)
    with pytest.raises(ConfigurationError, match="another text"):
        ring.check_canary(ring.encrypt("canary of somebody else", place="deployment.canary"))
    with pytest.raises(ConfigurationError):
        ring.check_canary("")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"keys": {"k1": b"1" * 31}}, "k1 must be 32 bytes"),
        ({"keys": {"k1": b""}}, "k1 must be 32 bytes"),
        ({"lookup_key": b"3" * 16}, "look-up must be 32 bytes"),
        ({"current": "k9"}, "k9 is not in the ring"),
        ({"keys": {}}, "k1 is not in the ring"),
        ({"current": "a.b", "keys": {"a.b": OLD}}, "without a dot"),
        ({"current": "", "keys": {"": OLD}}, "without a dot"),
        ({"lookup_key": OLD}, "look-up key must not be one"),
    ],
)
def test_keys_that_cannot_be_keys_are_refused_at_once(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        a_keyring(**changes)


def test_a_ring_does_not_show_its_keys() -> None:
    assert "111" not in repr(a_keyring())
    assert "333" not in repr(a_keyring())
