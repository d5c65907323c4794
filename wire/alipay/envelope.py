"""An answer of the gateway: the exact bytes that are signed, found before anything is parsed.

Source: Alipay open platform, 同步返回验签 (common/02mse7). The node is signed as it was written, with its blanks,
its order and its `\\/`; re-serialising it would be another text. A word like "sign" may stand inside a value, and
braces inside strings count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from wire.alipay.charsets import DEFAULT_CHARSET, GBK, decode, family
from wire.alipay.signing import is_signed
from wire.canonical import read_object
from wire.keys import VerificationKey

ERROR_NODE = "error_response"
ANSWER_BYTES_MAX = 1 << 20
MEMBERS_MAX = 16
CERT_SN = re.compile(r"[0-9a-f]{32}")

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
_NAME = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_SIMPLE_VALUE = re.compile(rb"(?:" + _STRING + rb"|[^\s\"{}\[\],]+)", re.DOTALL)
_STRING_OR_BRACKET = re.compile(_STRING + rb"|[\"{}\[\]]", re.DOTALL)
_NEXT = re.compile(rb"\s*([,}])")
_GBK_PAIR = re.compile(rb"[\x81-\xfe][\x30-\xfe]")


class NotBelieved(Exception):
    """Whose words these are cannot be shown. The text says why and quotes nothing of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """An answer taken apart. Nothing in it has been verified."""

    node: str
    """The method's own node, or `error_response`."""
    content: bytes = field(repr=False)
    """What is signed: the node's value as received, an encrypted one with its two quotes."""
    sign: str = field(repr=False)
    """Empty where the answer is not signed: then it may be a refusal, and never a success."""
    cert_sn: str
    """In certificate mode, the certificate whose key has signed."""
    charset: str

    @property
    def is_encrypted(self) -> bool:
        return self.content.startswith(b'"')


def node_name(method: str) -> str:
    return method.replace(".", "_") + "_response"


def read_envelope(body: bytes, method: str, charset: str = DEFAULT_CHARSET) -> Envelope:
    """Raises NotBelieved for anything that is not exactly one answer to this method."""
    members = read_members(body, charset)
    nodes = [name for name in (node_name(method), ERROR_NODE) if name in members]
    if len(nodes) != 1:
        raise NotBelieved("it holds two answers" if nodes else "it holds no answer to what was asked")
    content = members[nodes[0]]
    if content[:1] not in (b"{", b'"'):
        raise NotBelieved("its answer is neither an object nor encrypted")
    cert_sn = _text(members, "alipay_cert_sn")
    if cert_sn and not CERT_SN.fullmatch(cert_sn):
        raise NotBelieved("it names a certificate in an unknown way")
    return Envelope(node=nodes[0], content=content, sign=_text(members, "sign"), cert_sn=cert_sn, charset=charset)


def read_members(body: bytes, charset: str = DEFAULT_CHARSET) -> Mapping[str, bytes]:
    """The members of a JSON object, each value as it was written. Raises NotBelieved, also for a name that comes twice.

    The second byte of a GBK character may look like a brace or a backslash; such pairs are looked away from.
    """
    if len(body) > ANSWER_BYTES_MAX:
        raise NotBelieved("it is larger than we accept")
    seen = _GBK_PAIR.sub(b"\xff\xff", body) if family(charset) == GBK else body
    members: dict[str, bytes] = {}
    for name, start, end in _spans(seen):
        if name in members:
            raise NotBelieved("a name in it comes twice")
        members[name] = body[start:end]
    return members


def check_content(content: bytes, sign: str, keys: Iterable[VerificationKey]) -> None:
    """Raises NotBelieved unless one of these keys has signed it.

    Alipay's own advice for a check that fails is to try again with slashes written the other way; to JSON both are
    the same text.
    """
    if not sign:
        raise NotBelieved("not signed")
    held, plain = tuple(keys), content.replace(b"\\/", b"/")
    for spelling in dict.fromkeys((content, plain.replace(b"/", b"\\/"), plain)):
        if is_signed(held, spelling, sign):
            return
    raise NotBelieved("its signature is wrong")


def read_content(content: bytes, charset: str = DEFAULT_CHARSET) -> Mapping[str, object]:
    """The object in a node that has been verified, or decrypted. Raises NotBelieved."""
    try:
        return read_object(decode(content, charset))
    except ValueError:
        raise NotBelieved("its answer is no JSON object") from None


def read_text(value: bytes) -> str:
    """The text in a member's value. Raises NotBelieved."""
    try:
        text = orjson.loads(value)
    except ValueError:
        text = None
    if not isinstance(text, str):
        raise NotBelieved("a member of it is no text")
    return text


def _text(members: Mapping[str, bytes], name: str) -> str:
    value = members.get(name, b'""')
    return "" if value == b"null" else read_text(value)


def _spans(body: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each value of the outermost object."""
    at = len(body) - len(body.lstrip())
    if body[at : at + 1] != b"{":
        raise NotBelieved("it is no JSON object")
    at += 1
    for _ in range(MEMBERS_MAX):
        name = _NAME.match(body, at)
        if name is None or b"\\" in name.group(1):
            raise NotBelieved("it is no JSON object as Alipay writes it")
        start, end = name.end(), _end_of_value(body, name.end())
        yield name.group(1)[1:-1].decode("ascii", errors="replace"), start, end
        following = _NEXT.match(body, end)
        if following is None:
            break
        at = following.end()
        if following.group(1) == b"}":
            if body[at:].strip():
                raise NotBelieved("something follows it")
            return
    raise NotBelieved("it is no JSON object as Alipay writes it")


def _end_of_value(body: bytes, start: int) -> int:
    if body[start : start + 1] not in (b"{", b"["):
        simple = _SIMPLE_VALUE.match(body, start)
        if simple is None:
            raise NotBelieved("a member of it has no value")
        return simple.end()
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(body, start):
        if token.group() == b'"':
            break
        if token.group() in (b"{", b"["):
            depth += 1
        elif token.group() in (b"}", b"]"):
            depth -= 1
        if depth == 0:
            return token.end()
    raise NotBelieved("it breaks off")
