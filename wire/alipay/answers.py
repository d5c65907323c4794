"""What a verified answer says, and which answers say nothing. Source: Alipay open platform, 公共错误码 (common/02km9f).

Codes are compared, texts never; their odd spellings are theirs and kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from core.errors import OutcomeUnknown
from wire.alipay.envelope import ERROR_NODE, Envelope, NotBelieved

SUCCESS = "10000"
REFUSALS = frozenset({"20001", "40001", "40002", "40003", "40004", "40005", "40006"})
"""With one of these a call was understood and not done, as far as its `sub_code` says nothing else."""
UNCLEAR_SUB_CODES = re.compile(r"SYSTEM_ERROR$|unknow-error$", re.IGNORECASE)
"""`ACQ.SYSTEM_ERROR`, `AQC.SYSTEM_ERROR`, `isp.unknow-error` …: it may have been done all the same."""
WITHOUT_CODE = frozenset({"alipay.system.oauth.token"})
"""Their success has neither code nor msg."""

INVALID_SIGNATURE = "isv.invalid-signature"
WORDS_MAX = 200
_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_STRING_OF_THEIRS = re.compile(r"[,，]?网关生成的验签字符串.*", re.DOTALL)
_MAY_HOLD_A_REQUEST = re.compile(r"biz_content|app_id=|&amp;|\{")


class UnclearAnswer(OutcomeUnknown):
    """The gateway said something that decides nothing; `code`, `sub_code` and `words` are for the operator.

    `signed` false: anybody may have said it. So come errors that are found before the application is known, as
    `isv.invalid-app-id`, which nothing but a setting of ours can end.
    """

    def __init__(self, method: str, *, code: str, sub_code: str, words: str, signed: bool) -> None:
        self.method = method
        self.code = code
        self.sub_code = sub_code
        self.words = words
        self.signed = signed
        super().__init__(f"{method}: {code} {sub_code}{'' if signed else ' (unsigned)'}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A verified answer: done, or not done and why.

    Which refusals are final, each method's own table says; a `sub_code` that stands in none decides nothing.
    """

    method: str
    code: str
    """Empty for the success of a method whose success has none."""
    sub_code: str
    message: str = field(repr=False)
    """Their `sub_msg`, else `msg`: for staff. Without the string of `isv.invalid-signature`, which is our request."""
    fields: Mapping[str, object] = field(repr=False)
    """Read only; also without that string."""
    raw: bytes = field(repr=False)
    """The whole answer as it came, for evidence; never for a log."""

    @property
    def succeeded(self) -> bool:
        """The call was accepted. What came of it stands in the fields."""
        return self.code in (SUCCESS, "") and not self.sub_code


def answer_of(method: str, envelope: Envelope, fields: Mapping[str, object], raw: bytes) -> Answer:
    """From a node that has been verified. Raises UnclearAnswer for codes that decide nothing, else NotBelieved."""
    code, sub_code = _text(fields, "code"), _text(fields, "sub_code")
    own_node = envelope.node != ERROR_NODE
    if not code and not (method in WITHOUT_CODE and own_node and not sub_code):
        raise NotBelieved("its answer has no code")
    succeeded = own_node and code in (SUCCESS, "") and not sub_code
    refused = code in REFUSALS and not UNCLEAR_SUB_CODES.search(sub_code)
    if not succeeded and not refused:
        raise unclear(method, fields, signed=True)
    words = _words(fields)
    said = {**fields, "sub_msg": words} if sub_code == INVALID_SIGNATURE else dict(fields)
    return Answer(method=method, code=code, sub_code=sub_code, message=words, fields=MappingProxyType(said), raw=raw)


def unclear(method: str, fields: Mapping[str, object], *, signed: bool) -> UnclearAnswer:
    """Of an answer that decides nothing. What does not look like a code is not repeated."""
    code, sub_code = (
        text if _CODE.fullmatch(text := str(fields.get(name, ""))) else "" for name in ("code", "sub_code")
    )
    return UnclearAnswer(method, code=code, sub_code=sub_code, words=_words(fields), signed=signed)


def _words(fields: Mapping[str, object]) -> str:
    words = fields.get("sub_msg") or fields.get("msg")
    if not isinstance(words, str):
        return ""
    words = _STRING_OF_THEIRS.sub("", words)
    return "" if _MAY_HOLD_A_REQUEST.search(words) else words[:WORDS_MAX]


def _text(fields: Mapping[str, object], name: str) -> str:
    """Codes are texts; whatever else stands there is no known code."""
    value = fields.get(name)
    return "" if value is None else value if isinstance(value, str) else "?"
