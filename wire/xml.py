"""XML as counterparties use it, a flat record or a nested one, read without trust and written without surprises.

Nothing that XML can do beyond elements and text is accepted: no DTD, so no entities and nothing external, no
processing instructions, no encoding but UTF-8 unless the caller names it. Everything that can grow has a bound.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never, TypeAlias
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType

BYTES_MAX = 1 << 19
DEPTH_MAX = 16
ELEMENTS_MAX = 2_000
NAME_LENGTH_MAX = 128
TEXT_LENGTH_MAX = 1 << 18  # characters between two tags
ATTRIBUTES_MAX = 16  # of one element; they are not read

XmlValue: TypeAlias = "str | dict[str, XmlValue] | list[XmlValue]"
"""An element's content: its text, or its elements by name; one that is repeated is a list in the order given."""

Writable: TypeAlias = "str | int | Mapping[str, Writable] | Sequence[Writable]"

UTF_8 = frozenset({"utf-8"})
REPLACEMENT = "\ufffd"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2 Characters
_DECLARED = re.compile(rb"""<\?xml[^>]{0,100}?\sencoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BadXml(ValueError):
    """Not XML as we accept it; the message says why and never quotes the content."""


def read_xml(
    body: bytes, *, bytes_max: int = BYTES_MAX, encodings: Collection[str] = UTF_8, mend: bool = False
) -> dict[str, XmlValue]:
    """The elements inside the root element, by name; attributes and comments are passed over. Raises BadXml.

    `encodings` in lower case. With `mend` what XML cannot hold, such as a control character that a person has
    typed, becomes U+FFFD; without it the body is refused.
    """
    if len(body) > bytes_max:
        raise BadXml(f"more than {bytes_max} bytes")
    encoding, document = _decoded(body, encodings, mend=mend)
    reader = _Reader(encoding)
    parser = ParserCreate("utf-8")
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.XmlDeclHandler = reader.declared
    parser.StartDoctypeDeclHandler = _refuse_dtd
    parser.EntityDeclHandler = _refuse_entity
    parser.ExternalEntityRefHandler = _refuse_entity
    parser.ProcessingInstructionHandler = _refuse_instruction
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    _parse(parser, document)
    if not isinstance(reader.root, dict):
        raise BadXml("the root holds no elements")
    return reader.root


def write_xml(values: Mapping[str, Writable], *, root: str = "xml") -> bytes:
    """UTF-8 without a declaration: text as CDATA, whole numbers as digits, a sequence as a repeated element.

    What XML cannot hold becomes U+FFFD; a reader sees every line end as a line feed.
    """
    return _element(root, values).encode()


def printable_in_xml(text: str) -> str:
    """The text with U+FFFD in place of what XML cannot hold: most control characters, lone surrogates."""
    return _FORBIDDEN.sub(REPLACEMENT, text)


# ---------------------------------------------------------------- reading


@dataclass(slots=True)
class _Open:
    """An element whose end has not come."""

    name: str
    text: list[str] = field(default_factory=list)
    length: int = 0
    elements: dict[str, XmlValue] = field(default_factory=dict)

    def value(self) -> XmlValue:
        text = "".join(self.text)
        if not self.elements:
            return text
        if text.strip():
            raise BadXml("text beside elements")
        return self.elements


class _Reader:
    def __init__(self, encoding: str) -> None:
        self.root: XmlValue | None = None
        self._encoding = encoding
        self._open: list[_Open] = []
        self._elements = 0

    def declared(self, version: str, encoding: str | None, standalone: int) -> None:
        if version != "1.0":
            raise BadXml("not XML 1.0")
        if (encoding or "utf-8").lower() != self._encoding:  # a declaration that _DECLARED does not understand
            raise BadXml("an encoding that is not accepted here")

    def start(self, name: str, attributes: list[str]) -> None:
        self._elements += 1
        if self._elements > ELEMENTS_MAX:
            raise BadXml(f"more than {ELEMENTS_MAX} elements")
        if len(self._open) == DEPTH_MAX:
            raise BadXml(f"nested more than {DEPTH_MAX} deep")
        if len(name) > NAME_LENGTH_MAX:
            raise BadXml(f"a name of more than {NAME_LENGTH_MAX} characters")
        if len(attributes) > 2 * ATTRIBUTES_MAX:
            raise BadXml(f"more than {ATTRIBUTES_MAX} attributes")
        self._open.append(_Open(name))

    def text(self, data: str) -> None:
        element = self._open[-1]
        element.length += len(data)
        if element.length > TEXT_LENGTH_MAX:
            raise BadXml(f"a text of more than {TEXT_LENGTH_MAX} characters")
        element.text.append(data)

    def end(self, name: str) -> None:
        value = self._open.pop().value()
        if not self._open:
            self.root = value
            return
        siblings = self._open[-1].elements
        before = siblings.get(name)
        if before is None:
            siblings[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            siblings[name] = [before, value]


def _decoded(body: bytes, encodings: Collection[str], *, mend: bool) -> tuple[str, bytes]:
    """The encoding that it says, and the same document in UTF-8 without a byte order mark."""
    if b"\0" in body:
        raise BadXml("NUL bytes: binary, or UTF-16")
    body = body.removeprefix(_BYTE_ORDER_MARK)
    declared = _DECLARED.match(body)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if encoding not in encodings:
        raise BadXml("an encoding that is not accepted here")
    try:
        text = body.decode(encoding, "replace" if mend else "strict")
    except (UnicodeDecodeError, LookupError):
        raise BadXml("not in the encoding that it says") from None
    if mend:
        text = printable_in_xml(text)
    return encoding, text.encode()


def _parse(parser: XMLParserType, body: bytes) -> None:
    try:
        parser.Parse(body, True)
    except ExpatError as error:
        raise BadXml(f"not well-formed (expat {error.code}, line {error.lineno})") from None


def _refuse_dtd(*_: object) -> Never:
    raise BadXml("a DTD")


def _refuse_entity(*_: object) -> Never:
    raise BadXml("an entity")


def _refuse_instruction(*_: object) -> Never:
    raise BadXml("a processing instruction")


# ---------------------------------------------------------------- writing


def _element(name: str, value: Writable) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("not a name of an element")
    if isinstance(value, str):
        return f"<{name}>{_cdata(value)}</{name}>"
    if isinstance(value, int):
        return f"<{name}>{value}</{name}>"
    if isinstance(value, Mapping):
        return f"<{name}>{''.join(_element(inner, each) for inner, each in value.items())}</{name}>"
    return "".join(_element(name, each) for each in value)


def _cdata(text: str) -> str:
    return f"<![CDATA[{printable_in_xml(text).replace(']]>', ']]]]><![CDATA[>')}]]>"
