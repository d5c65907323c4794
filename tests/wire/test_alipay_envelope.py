"""What is signed of an answer is found as it was written, and only there; whatever is ambiguous is not believed."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.alipay_parties import ali_key, signature
from wire.alipay.envelope import ANSWER_BYTES_MAX, NotBelieved, check_content, read_content, read_envelope, read_members

METHOD = "alipay.trade.query"
NODE = "alipay_trade_query_response"
SN = "0123456789abcdef0123456789abcdef"
KEYS = (ali_key(),)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="gbk"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('\\"{}[]:,药 a', max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    value=st.dictionaries(st.text('\\"{}sign药', max_size=6), JSON, max_size=4),
    charset=st.sampled_from(["utf-8", "gbk"]),
    indent=st.sampled_from([None, 0, 2]),
    blanks=st.sampled_from(["", " ", "\r\n\t"]),
)
def test_any_object_is_found_exactly(value, charset, indent, blanks):
    content = json.dumps(value, ensure_ascii=False, indent=indent).encode(charset)
    gap = blanks.encode()
    body = gap.join([b"", b"{", b'"%s"' % NODE.encode(), b":", content, b",", b'"sign"', b":", b'"c2ln"', b"}", b""])
    envelope = read_envelope(body, METHOD, charset)
    assert (envelope.content, envelope.sign, envelope.is_encrypted) == (content, "c2ln", False)
    assert read_content(envelope.content, charset) == value


def test_second_bytes_of_gbk_are_no_braces_and_no_backslashes():
    tricky = [
        text
        for lead in range(0x81, 0xFF)
        for trail in (0x5C, 0x7B, 0x7D, 0x5B, 0x5D)
        if not (text := bytes((lead, trail)).decode("gbk", errors="ignore")).isascii()
    ]
    assert len(tricky) > 500
    for characters in ["".join(tricky), *tricky[::7]]:
        content = f'{{"code":"10000","subject":"{characters}"}}'.encode("gbk")
        body = b'{"' + NODE.encode() + b'":' + content + b',"sign":"x"}'
        assert read_envelope(body, METHOD, "GBK").content == content


def test_the_parts_of_an_answer():
    body = f'{{"{NODE}":"YWJj","alipay_cert_sn":"{SN}","sign":"a\\/b+=","trace":[1,{{}}],"x":null,"y":-1.5e3}}'
    envelope = read_envelope(body.encode(), METHOD)
    assert (envelope.node, envelope.content, envelope.sign, envelope.cert_sn) == (NODE, b'"YWJj"', "a/b+=", SN)
    assert envelope.is_encrypted
    assert "YWJj" not in repr(envelope)
    unsigned = read_envelope(b'{"error_response":{"code":"40002"}}', METHOD)
    assert (unsigned.node, unsigned.sign, unsigned.cert_sn) == ("error_response", "", "")
    assert read_envelope(b'{"error_response":{},"sign":null}', METHOD).sign == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "no JSON object"),
        ("<html>", "no JSON object"),
        ("[]", "no JSON object"),
        ("\ufeff{}", "no JSON object"),
        ("{}", "no JSON object as"),
        ('{"sign":"x"}', "no answer to what was asked"),
        ('{"alipay_trade_create_response":{},"sign":"x"}', "no answer to what was asked"),
        ('{"NODE":{},"NODE":{},"sign":"x"}', "comes twice"),
        ('{"NODE":{},"sign":"x","sign":"x"}', "comes twice"),
        ('{"NODE":{},"alipay_cert_sn":"SN","alipay_cert_sn":"SN","sign":"x"}', "comes twice"),
        ('{"NODE":{},"alipay_trade_query\\u005fresponse":{},"sign":"x"}', "as Alipay writes it"),
        ('{"NODE":{},"error_response":{},"sign":"x"}', "two answers"),
        ('{"NODE":[],"sign":"x"}', "neither an object nor encrypted"),
        ('{"NODE":1,"sign":"x"}', "neither an object nor encrypted"),
        ('{"NODE":null,"sign":"x"}', "neither an object nor encrypted"),
        ('{"NODE":{},"sign":1}', "no text"),
        ('{"NODE":{},"sign":{}}', "no text"),
        ('{"NODE":{},"alipay_cert_sn":"../x","sign":"x"}', "in an unknown way"),
        ('{"NODE":{},"sign":"x"}{"NODE":{}}', "something follows"),
        ('{"NODE":{},"sign":"x"', "as Alipay writes it"),
        ('{"NODE":{}"sign":"x"}', "as Alipay writes it"),
        ('{"NODE":{},,"sign":"x"}', "as Alipay writes it"),
        ('{"NODE":{},"sign":"x",}', "as Alipay writes it"),
        ('{"NODE":{"a":"}', "breaks off"),
        ('{"NODE":{"a":"b"', "breaks off"),
        ('{"NODE":{"a":"b\\"}', "breaks off"),
        ('{"NODE":,"sign":"x"}', "no value"),
        ('{"NODE":"abc', "no value"),
        ("{" + ",".join(f'"m{number}":1' for number in range(17)) + ',"NODE":{}}', "as Alipay writes it"),
    ],
)
def test_what_is_not_exactly_one_answer_is_not_believed(body, reason):
    with pytest.raises(NotBelieved, match=reason):
        read_envelope(body.replace("NODE", NODE).replace('"SN"', f'"{SN}"').encode(), METHOD)


def test_a_signature_counts_for_its_very_content_with_slashes_written_either_way():
    plain, escaped = b'{"url":"https://a/b","n":"\\\\x"}', b'{"url":"https:\\/\\/a\\/b","n":"\\\\x"}'
    for content in (plain, escaped):
        for signed in (plain, escaped):
            check_content(content, signature(signed), KEYS)
    mixed = b'{"url":"https:\\/\\/a/b","n":"\\\\x"}'
    check_content(mixed, signature(mixed), KEYS)
    for sign, keys, reason in (
        ("", KEYS, "not signed"),
        (signature(plain.replace(b"a", b"e")), KEYS, "is wrong"),
        (signature(plain, sha1=True), KEYS, "is wrong"),
        (signature(plain), [ali_key("demo_app")], "is wrong"),
        (signature(plain), [], "is wrong"),
        ("no base64", KEYS, "is wrong"),
    ):
        with pytest.raises(NotBelieved, match=reason):
            check_content(plain, sign, keys)


def test_a_verified_node_must_be_an_object():
    assert read_content('{"a":"药"}'.encode("gbk"), "gbk") == {"a": "药"}
    for content in (b"[]", b"{", b'{"a":"\xff"}'):
        with pytest.raises(NotBelieved, match="no JSON object"):
            read_content(content)


def test_hostile_bodies_take_no_longer_than_their_length():
    size = 1 << 18
    before = time.process_time()
    for body in (
        b"{" * size,
        b'{"a":"' + b"\\" * size,
        b'{"a":{' + b'"' * size,
        b'{"a":[' + b'"\\""' * (size // 4),
        b'{"a":' + b" " * size,
        b'{"' + b"a" * size,
        b" " * size,
        b'{"a":"' + b"\x81\x5c" * (size // 2),
    ):
        with pytest.raises(NotBelieved):
            read_members(body, "gbk")
    with pytest.raises(NotBelieved, match="larger"):
        read_members(b'{"a":"' + b"a" * ANSWER_BYTES_MAX + b'"}')
    assert time.process_time() - before < 3
