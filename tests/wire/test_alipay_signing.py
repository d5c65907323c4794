"""What Alipay signs: requests and forms, verified as bytes, with SHA-256 and nothing else."""

from __future__ import annotations

from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ports import Unverified
from tests.support.alipay_parties import ali_key, demo_key, signature
from wire.alipay.signing import (
    FORM_BYTES_MAX,
    FORM_PARAMETERS_MAX,
    FormRule,
    is_signed,
    read_form,
    read_signed_form,
    request_message,
    sign_text,
)
from wire.keys import SigningKey

KEYS = (ali_key(),)
NOTICE = {"out_trade_no": "P0", "subject": "门诊缴费", "total_amount": "88.88", "trade_status": "TRADE_SUCCESS"}
LEFT_OUT = {FormRule.NOTICE: ("sign", "sign_type"), FormRule.PUSH: ("sign",)}


def signed_form(values: dict[str, str], rule: FormRule = FormRule.NOTICE, *, charset: str = "utf-8", **how) -> bytes:
    """As Alipay posts it, its message put together here and not by what is tested."""
    values = {**values, "sign_type": "RSA2"}
    message = "&".join(f"{name}={values[name]}" for name in sorted(values) if name not in LEFT_OUT[rule])
    sign = signature(message.encode(charset), **how)
    return urlencode({**values, "sign": sign}, encoding=charset).encode()


def test_a_request_is_joined_in_byte_order_with_its_sign_type_and_without_empty_values():
    params = {"sign_type": "RSA2", "sign": "old", "b": "2 &=/", "a": "", "Z": "药", "a_b": "1", "ab": "3"}
    assert request_message(params) == "Z=药&a_b=1&ab=3&b=2 &=/&sign_type=RSA2".encode()
    assert request_message(params, "GBK") == "Z=药&a_b=1&ab=3&b=2 &=/&sign_type=RSA2".encode("gbk")
    with pytest.raises(ValueError, match="neither"):
        request_message(params, "big5")


def test_what_we_sign_is_verified_and_nothing_else():
    sign = sign_text(SigningKey("", demo_key("demo_ali")), b"message")
    assert sign == signature(b"message")
    assert len(sign) == 344
    assert is_signed(KEYS, b"message", sign)
    assert is_signed([ali_key("demo_app"), *KEYS], b"message", sign)
    for keys, message, said in (
        (KEYS, b"massage", sign),
        ([ali_key("demo_app")], b"message", sign),
        ([], b"message", sign),
        (KEYS, b"message", ""),
        (KEYS, b"message", "药"),
        (KEYS, b"message", sign[:-1]),
        (KEYS, b"message", f"{sign[:76]}\n{sign[76:]}"),
    ):
        assert not is_signed(keys, message, said)


def test_sha1_never_verifies():
    """It is the right signature of the right message, as the older RSA would make it."""
    assert not is_signed(KEYS, b"message", signature(b"message", sha1=True))
    for rule in FormRule:
        assert isinstance(read_signed_form(signed_form(NOTICE, rule, sha1=True), rule, KEYS), Unverified)


@pytest.mark.parametrize("charset", ["utf-8", "gbk"])
@pytest.mark.parametrize("rule", FormRule)
def test_each_rule_reads_its_own_forms_only(rule, charset):
    values = {**NOTICE, "charset": charset.upper()}
    form = read_signed_form(signed_form(values, rule, charset=charset), rule, KEYS)
    assert not isinstance(form, Unverified)
    assert {name: value for name, value in form.items() if name != "sign"} == {**values, "sign_type": "RSA2"}
    (other,) = set(FormRule) - {rule}
    assert isinstance(read_signed_form(signed_form(values, other, charset=charset), rule, KEYS), Unverified)


def test_a_form_that_names_no_charset_is_read_in_the_one_of_its_header():
    body = signed_form(NOTICE, charset="gbk")
    form = read_signed_form(body, FormRule.NOTICE, KEYS, charset="GBK")
    assert not isinstance(form, Unverified)
    assert form["subject"] == "门诊缴费"
    assert read_signed_form(body, FormRule.NOTICE, KEYS) == Unverified(reason="signed, but no text in its charset")
    odd = signed_form({**NOTICE, "charset": "utf-7"})
    assert read_signed_form(odd, FormRule.NOTICE, KEYS) == Unverified(reason="signed, but no text in its charset")


def test_rare_characters_beyond_gbk_are_read():
    """A person's name may hold one; what was sent as GB 18030 is signed all the same."""
    body = signed_form({**NOTICE, "subject": "㐂𠮷", "charset": "gbk"}, charset="gb18030")
    form = read_signed_form(body, FormRule.NOTICE, KEYS)
    assert not isinstance(form, Unverified)
    assert form["subject"] == "㐂𠮷"


def test_a_notice_may_name_its_certificate_signed_or_not():
    named = {**NOTICE, "alipay_cert_sn": "0" * 32}
    added = signed_form(NOTICE) + b"&alipay_cert_sn=" + b"0" * 32
    for body in (signed_form(named), added):
        form = read_signed_form(body, FormRule.NOTICE, KEYS)
        assert not isinstance(form, Unverified)
        assert form["alipay_cert_sn"] == "0" * 32
    added_to_push = signed_form(NOTICE, FormRule.PUSH) + b"&alipay_cert_sn=" + b"0" * 32
    assert isinstance(read_signed_form(added_to_push, FormRule.PUSH, KEYS), Unverified)


def test_what_has_been_altered_proves_nothing():
    body = signed_form(NOTICE)
    assert not isinstance(read_signed_form(body, FormRule.NOTICE, KEYS), Unverified)
    again = b"&total_amount=88.88"
    for altered, reason in (
        (body.replace(b"88.88", b"88.89"), "its signature is wrong"),
        (body + b"&passback_params=1", "its signature is wrong"),
        (body.replace(b"out_trade_no=P0&", b""), "its signature is wrong"),
        (body + again, "a parameter comes twice"),
        (body + b"&total%5Famount=88.88", "a parameter comes twice"),
        (body + b"&sign=" + quote_plus(signature(b"x")).encode(), "a parameter comes twice"),
        (body + "&药=1".encode(), "a parameter has a name that is not Alipay's"),
        (body.partition(b"&sign=")[0], "not signed"),
        (body.replace(b"RSA2", b"RSA"), "signed in an unknown way"),
        (body.replace(b"RSA2", b"RSA2 "), "signed in an unknown way"),
        (b"", "not signed"),
    ):
        assert altered != body
        assert read_signed_form(altered, FormRule.NOTICE, KEYS) == Unverified(reason=reason)
    assert isinstance(read_signed_form(body, FormRule.NOTICE, [ali_key("demo_app")]), Unverified)
    assert isinstance(read_signed_form(body, FormRule.NOTICE, []), Unverified)


def test_a_form_is_decoded_once_and_has_bounds():
    assert read_form(b"a=1+2%2B3&&b=%2526&c&d=") == {"a": b"1 2+3", "b": b"%26", "c": b"", "d": b""}
    assert read_form(b"a=" + b"x" * (FORM_BYTES_MAX - 2)) == {"a": b"x" * (FORM_BYTES_MAX - 2)}
    assert isinstance(read_form(b"a=" + b"x" * (FORM_BYTES_MAX - 1)), Unverified)
    most = [f"p{number}=1".encode() for number in range(FORM_PARAMETERS_MAX)]
    assert len(read_form(b"&".join(most))) == FORM_PARAMETERS_MAX  # type: ignore[arg-type]
    assert isinstance(read_form(b"&".join([*most, b"one=more"])), Unverified)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@settings(max_examples=30, deadline=None)
@given(values=st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), TEXTS, max_size=6))
def test_every_form_that_was_signed_is_read_as_it_was_meant(values):
    values = {name: value for name, value in values.items() if name not in ("sign", "sign_type", "charset")}
    message = request_message(values)
    body = urlencode({**values, "sign": signature(message), "sign_type": "RSA2"}).encode()
    form = read_signed_form(body, FormRule.NOTICE, KEYS)
    assert not isinstance(form, Unverified)
    assert {name: form[name] for name in values} == values
