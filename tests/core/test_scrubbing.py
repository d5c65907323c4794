"""Nothing that names a person or opens a door reaches a log or another person's eyes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.scrubbing import HIDDEN, SECRET_NAMES, TEXT_LENGTH_MAX, mask_name, mask_number, scrub, scrub_text

ID_CARD, ID_CARD_X, PHONE, BANK_CARD = "110101199003078888", "11010119900307888X", "13812345678", "6222020200112233445"
OPEN_ID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize("secret", [ID_CARD, ID_CARD_X, ID_CARD_X.lower(), PHONE, BANK_CARD, OPEN_ID, PEM])
@pytest.mark.parametrize("frame", ["{}", "证件{}。", 'x "{}" y', "a={};b=1", "[{}]", "\t{}\n"])
def test_a_secret_in_a_text_is_hidden(secret: str, frame: str) -> None:
    assert scrub_text(frame.format(secret)) == frame.format(HIDDEN)


@pytest.mark.parametrize(
    "phone", ["+8613812345678", "8613812345678", "138 1234 5678", "138-1234-5678", "+86 138 1234 5678"]
)
def test_a_phone_is_hidden_however_it_is_written(phone: str) -> None:
    assert "1234" not in scrub_text(f"tel {phone}.")


def test_a_key_that_was_cut_off_is_hidden_too() -> None:
    assert "MIIE" not in scrub_text(PEM[: len(PEM) // 2])


@pytest.mark.parametrize(
    "text",
    ["仁和医院", "P0123456789ABCDEFGHJKMNPQRS", "2026-05-06T02:00:00+00:00", "86.50", "amount 865000", "12012345678"],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert scrub_text(text) == text


def test_a_long_text_is_cut_after_the_secrets_are_hidden() -> None:
    text = "x" * (TEXT_LENGTH_MAX - 5) + " " + PHONE
    assert scrub_text(text) == "x" * (TEXT_LENGTH_MAX - 5) + " " + HIDDEN + ""
    assert scrub_text("字" * (TEXT_LENGTH_MAX + 1)) == "字" * TEXT_LENGTH_MAX + "…"


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
@pytest.mark.parametrize("spell", [str, str.upper, str.title, lambda name: name.replace("_", "-")])
def test_the_value_under_a_secret_name_is_hidden(name: str, spell: Any) -> None:
    assert scrub({spell(name): "anything"}) == {spell(name): HIDDEN}
    assert scrub({spell(name): {"a": "anything"}}) == {spell(name): HIDDEN}


def test_secrets_are_found_however_deep_they_lie() -> None:
    said = {
        "order_no": "P1",
        "amount": {"total": 8650},
        "payer": {"openid": "short"},
        "list": [{"Phone": "x"}, (PHONE, 7), "plain"],
        "raw": b"12345",
        "none": None,
        "paid": True,
        1: PHONE,
    }
    assert scrub(said) == {
        "order_no": "P1",
        "amount": {"total": 8650},
        "payer": {"openid": HIDDEN},
        "list": [{"Phone": HIDDEN}, [HIDDEN, 7], "plain"],
        "raw": "<5 bytes>",
        "none": None,
        "paid": True,
        1: HIDDEN,
    }
    assert said["payer"] == {"openid": "short"}


def test_a_secret_in_a_key_or_a_set_is_hidden_too() -> None:
    assert PHONE not in str(scrub({PHONE: 1}))
    assert PHONE not in str(scrub({"phones": {PHONE}}))


SECRETS = [ID_CARD, ID_CARD_X, PHONE, BANK_CARD, OPEN_ID]


@given(
    st.recursive(
        st.sampled_from([*SECRETS, "plain", 7, None]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        max_leaves=12,
    )
)
def test_whatever_is_nested_no_secret_comes_out(value: Any) -> None:
    shown = repr(scrub(value))
    assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("", ""),
        ("  ", ""),
        ("王", "王*"),
        ("李四", "李*"),
        ("张小三", "张*三"),
        ("欧阳小三", "欧**三"),
        (" 张小三 ", "张*三"),
        ("Anna", "A***"),
        ("Anna Schmidt", "A*** S***"),
        ("Anna Maria Schmidt", "A*** S***"),
    ],
)
def test_a_masked_name_shows_its_ends_only(name: str, masked: str) -> None:
    assert mask_name(name) == masked


@given(st.text(alphabet="王秀兰张小三", min_size=3, max_size=8))
def test_a_masked_name_never_holds_the_middle(name: str) -> None:
    masked = mask_name(name)
    assert masked[1:-1] == "*" * (len(name) - 2)


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (PHONE, "138****5678"),
        (ID_CARD, "110***********8888"),
        ("123456789", "123**6789"),
        ("12345678", HIDDEN),
        ("E1234567", HIDDEN),
        ("", HIDDEN),
    ],
)
def test_a_masked_number_shows_its_ends_or_nothing(value: str, masked: str) -> None:
    assert mask_number(value) == masked
