"""XML is read without trust, and what is written is read back by others as it was meant."""

from __future__ import annotations

import re
import tracemalloc
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from wire.xml import (
    ATTRIBUTES_MAX,
    BYTES_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    NAME_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    BadXml,
    printable_in_xml,
    read_xml,
    write_xml,
)

FINE = b"<xml><A>1</A></xml>"
BILLION_LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">]>
<xml><A>&lol3;</A></xml>"""


def test_elements_by_name_texts_as_they_stand_and_repeated_ones_in_order() -> None:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- a comment --><xml>\n'
        "  <ToUserName><![CDATA[gh_1]]></ToUserName>\n  <Empty/><Blank>  </Blank>"
        "<Content>1 &lt; 2 &amp;&#38; <![CDATA[<b>]]></Content>"
        "<Event><List><Id>a</Id></List><List><Id>b</Id></List><List><Id>c</Id></List></Event></xml>\n"
    )
    assert read_xml(body.encode()) == {
        "ToUserName": "gh_1",
        "Empty": "",
        "Blank": "  ",
        "Content": "1 < 2 && <b>",
        "Event": {"List": [{"Id": "a"}, {"Id": "b"}, {"Id": "c"}]},
    }


def test_attributes_and_a_byte_order_mark_are_passed_over() -> None:
    assert read_xml(b'\xef\xbb\xbf<xml a="1"><A b="2">x</A></xml>') == {"A": "x"}


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not well-formed"),
    "not XML": (b"success", "not well-formed"),
    "an end too few": (b"<xml><A>1</A>", "not well-formed"),
    "ends that cross": (b"<xml><A><B></A></B></xml>", "not well-formed"),
    "two roots": (FINE + FINE, "not well-formed"),
    "something after the root": (FINE + b"x", "not well-formed"),
    "a declaration that is not at the start": (b' <?xml version="1.0"?>' + FINE, "not well-formed"),
    "a root with text only": (b"<xml>text</xml>", "no elements"),
    "an empty root": (b"<xml/>", "no elements"),
    "text beside elements": (b"<xml>text<A>1</A></xml>", "text beside"),
    "a DTD": (b"<!DOCTYPE xml>" + FINE, "a DTD"),
    "a DTD from elsewhere": (b'<!DOCTYPE xml SYSTEM "http://127.0.0.1/x.dtd">' + FINE, "a DTD"),
    "billion laughs": (BILLION_LAUGHS, "a DTD"),
    "a file as entity": (
        b'<!DOCTYPE xml [<!ENTITY f SYSTEM "file:///etc/passwd">]><xml><A>&f;</A></xml>',
        "a DTD",
    ),
    "a parameter entity": (b'<!DOCTYPE xml [<!ENTITY % p SYSTEM "http://127.0.0.1/p">%p;]>' + FINE, "a DTD"),
    "an entity that nobody declared": (b"<xml><A>&nbsp;</A></xml>", "not well-formed"),
    "a processing instruction": (b"<?php echo 1 ?>" + FINE, "processing instruction"),
    "a style sheet": (b'<?xml-stylesheet href="x"?>' + FINE, "processing instruction"),
    "XML 1.1": (b'<?xml version="1.1"?>' + FINE, "not XML 1.0|not well-formed"),
    "another encoding": ('<?xml version="1.0" encoding="GBK"?><xml><A>门</A></xml>'.encode("gbk"), "encoding"),
    "another encoding, hidden": (
        b'<?xml version="1.0" ' + b" " * 200 + b'encoding="ISO-8859-1"?><xml><A>1</A></xml>',
        "encoding",
    ),
    "an encoding that nobody knows": (b'<?xml version="1.0" encoding="x-1"?>' + FINE, "encoding"),
    "bytes that are not UTF-8": (b"<xml><A>\xc4\xe3</A></xml>", "encoding"),
    "half a surrogate pair": (b"<xml><A>\xed\xa0\x80</A></xml>", "encoding"),
    "a reference to half a surrogate pair": (b"<xml><A>&#xD83D;</A></xml>", "not well-formed"),
    "UTF-16 with its mark": (FINE.decode().encode("utf-16"), "NUL"),
    "UTF-16 without": (FINE.decode().encode("utf-16-le"), "NUL"),
    "UTF-16 of Chinese alone": ("\ufeff门诊缴费".encode("utf-16-le"), "encoding|not well-formed"),
    "UTF-32": (FINE.decode().encode("utf-32"), "NUL"),
    "NUL in a text": (b"<xml><A>1\x00</A></xml>", "NUL"),
    "NUL by reference": (b"<xml><A>&#0;</A></xml>", "not well-formed"),
    "a control character": (b"<xml><A>1\x08</A></xml>", "not well-formed"),
    "the same attribute twice": (b'<xml a="1" a="2"><A>1</A></xml>', "not well-formed"),
    "too many bytes": (b"<xml><A>" + b"1" * BYTES_MAX + b"</A></xml>", "bytes"),
    "too deep": (b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1), "deep"),
    "much too deep": (b"<a>" * 100_000, "deep"),
    "too many elements": (b"<xml>" + b"<a/>" * ELEMENTS_MAX + b"</xml>", "elements"),
    "a long text": (b"<xml><A>" + b"1" * (TEXT_LENGTH_MAX + 1) + b"</A></xml>", "text of more"),
    "a long name": (b"<xml><" + b"A" * (NAME_LENGTH_MAX + 1) + b"/></xml>", "name of more"),
    "many attributes": (
        b"<xml " + b" ".join(b'a%d=""' % number for number in range(ATTRIBUTES_MAX + 1)) + b"><A/></xml>",
        "attributes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, reason = REFUSED[name]
    with pytest.raises(BadXml, match=reason):
        read_xml(body)


@pytest.mark.parametrize("name", REFUSED)
def test_mending_lets_nothing_in_but_characters(name: str) -> None:
    body, _ = REFUSED[name]
    if name in {"bytes that are not UTF-8", "half a surrogate pair", "a control character"}:
        (text,) = read_xml(body, mend=True).values()
        assert "\ufffd" in str(text)
    else:
        with pytest.raises(BadXml):
            read_xml(body, mend=True)


def test_up_to_each_bound_everything_is_read() -> None:
    deepest = b"<a>" * (DEPTH_MAX - 1) + b"<b>1</b>" + b"</a>" * (DEPTH_MAX - 1)
    assert str(read_xml(deepest)).count("{") == DEPTH_MAX - 1
    most = b"<xml>" + b"<a/>" * (ELEMENTS_MAX - 1) + b"</xml>"
    assert read_xml(most) == {"a": [""] * (ELEMENTS_MAX - 1)}
    longest = "门" * (TEXT_LENGTH_MAX // 2)
    assert read_xml(f"<xml><A>{longest}</A></xml>".encode(), bytes_max=1 << 20) == {"A": longest}


def test_an_encoding_that_the_caller_names_is_read() -> None:
    body = '<?xml version="1.0" encoding="GBK"?><root><name>门诊</name></root>'.encode("gbk")
    assert read_xml(body, encodings={"utf-8", "gbk"}) == {"name": "门诊"}
    with pytest.raises(BadXml, match="encoding"):
        read_xml(body.replace(b"GBK", b"UTF-7"), encodings={"utf-8", "gbk"})


def test_the_reason_quotes_nothing_of_the_body() -> None:
    for body, _ in REFUSED.values():
        with pytest.raises(BadXml) as refused:
            read_xml(body.replace(b"A>", b"Geheimnis>"))
        assert "Geheimnis" not in str(refused.value)
        assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "body",
    [
        b"<xml " + b" ".join(b'a%d=""' % number for number in range(50_000)) + b"/>",
        b"<xml>" + b"<a>" * 170_000,
        b"<xml>" + b"<a/>" * 130_000,
        b"<xml>" + b"<![CDATA[x]]>" * 40_000,
        b"<xml><A>" + b"&lt;" * 130_000 + b"</A></xml>",
        b"<xml><!--" + b"-" * 520_000,
    ],
    ids=["attributes", "depth", "elements", "sections", "references", "comment"],
)
def test_a_body_full_of_one_thing_costs_little(body: bytes) -> None:
    assert len(body) <= BYTES_MAX
    tracemalloc.start()
    try:
        with suppress(BadXml):
            read_xml(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


# ---------------------------------------------------------------- writing

NAMES = some.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
TEXTS = some.text(some.characters(), max_size=20)
RECORDS: Any = some.recursive(
    some.dictionaries(NAMES, TEXTS | some.integers(), min_size=1, max_size=4),
    lambda inside: some.dictionaries(NAMES, inside, min_size=1, max_size=3),
    max_leaves=6,
)


def told(value: Any) -> Any:
    """What a reader is to find."""
    if isinstance(value, dict):
        return {name: told(each) for name, each in value.items()}
    return re.sub("\r\n?", "\n", printable_in_xml(str(value)))


@given(RECORDS)
@example({"A": "]]>"})
@example({"A": "]]]]>>]]>"})
@example({"A": "]]" + "\0" + ">"})
@example({"A": "\ud83d", "B": "😀", "C": "\uffff"})
@example({"A": "<![CDATA[x]]>", "B": "</xml>", "C": "&amp;"})
def test_what_is_written_is_read_back(record: dict[str, Any]) -> None:
    assert read_xml(write_xml(record)) == told(record)


@given(RECORDS)
def test_another_reader_finds_the_same(record: dict[str, Any]) -> None:
    def found(element: ElementTree.Element) -> Any:
        return {each.tag: found(each) for each in element} if len(element) else element.text or ""

    assert found(ElementTree.fromstring(write_xml(record))) == told(record)  # noqa: S314 (our own text)


def test_how_it_is_written() -> None:
    record: dict[str, Any] = {"CreateTime": 12, "Articles": {"item": [{"Title": "a]]>b"}, {"Title": "c"}]}}
    assert write_xml(record) == (
        b"<xml><CreateTime>12</CreateTime><Articles><item><Title><![CDATA[a]]]]><![CDATA[>b]]></Title></item>"
        b"<item><Title><![CDATA[c]]></Title></item></Articles></xml>"
    )
    assert write_xml({"a": "1"}, root="root") == b"<root><a><![CDATA[1]]></a></root>"


@pytest.mark.parametrize("name", ["", "a b", "a>", "1a", "门", "a\n"])
def test_a_name_that_is_none_is_a_mistake_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        write_xml({name: "x"})


@given(some.binary(max_size=300) | some.text().map(lambda text: f"<xml><A>{text}</A></xml>".encode("utf-8", "replace")))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    for mend in (False, True):
        try:
            assert isinstance(read_xml(body, mend=mend), dict)
        except BadXml:
            continue
