"""What is answered to what in a chat, the same on every platform. Pure: an event comes in, effects come out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bot.events import TEXT_LENGTH_MAX, ChatEvent, ChatEventKind, Delivery, Grant
from core.chat_texts import ChatQuestion

# ---------------------------------------------------------------- effects


class Words(StrEnum):
    """What is said without asking anybody; the sentences are in core/chat_texts.py."""

    WELCOME = "welcome"
    CHOICES = "choices"
    STAFF = "staff"
    SCAN = "scan"
    PHOTO = "photo"
    VOICE_UNCLEAR = "voice_unclear"


GENERAL = frozenset({Words.WELCOME, Words.CHOICES, Words.VOICE_UNCLEAR})
"""Said where nothing of ours was meant; another vendor who serves the same account may know better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """This person can be written to, or no longer."""

    reachable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Speak:
    """This person uses this language, "zh" or "en"; answers and messages are written in it from now on."""

    language: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Ask HIS and our own rows, and tell what they say."""

    question: ChatQuestion


@dataclass(frozen=True, kw_only=True, slots=True)
class Say:
    words: Words


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowPaper:
    """Give the link to the paper prescription with this token."""

    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteDelivery:
    """A message of ours has ended so."""

    delivery: Delivery


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteGrant:
    """Messages of a template were allowed or refused."""

    grant: Grant


Effect = Reach | Speak | Answer | Say | ShowPaper | NoteDelivery | NoteGrant


# ---------------------------------------------------------------- words

_OWED, _PAID, _PATIENTS = (
    Answer(question=ChatQuestion.OWED),
    Answer(question=ChatQuestion.PAID),
    Answer(question=ChatQuestion.PATIENTS),
)

MENU_KEYS: Mapping[str, Answer | Say] = {
    "zhenfu.owed": _OWED,
    "zhenfu.paid": _PAID,
    "zhenfu.patients": _PATIENTS,
    "zhenfu.scan": Say(words=Words.SCAN),
    "zhenfu.staff": Say(words=Words.STAFF),
}
"""Of our own menu. A key that is not here is somebody else's: it is never looked at for words."""

CHINESE: Sequence[tuple[tuple[str, ...], Answer | Say]] = (
    (("人工", "客服"), Say(words=Words.STAFF)),
    (("记录", "纪录", "退款", "退费", "退钱", "已缴", "已交", "已付", "缴过", "交过", "付过"), _PAID),
    (("绑定", "解绑", "就诊人"), _PATIENTS),
    (("缴费", "交费", "缴款", "交钱", "缴钱", "付款", "付钱", "付费", "账单", "欠费", "待缴", "教费", "叫费"), _OWED),
    (("查询",), _PAID),
    (("扫码", "扫一扫", "扫处方", "扫描"), Say(words=Words.SCAN)),
    (("电话",), Say(words=Words.STAFF)),
)
"""The first row with a word in the text counts: a question for records may well name paying too.

The last words for paying are what a voice is often taken for.
"""

ENGLISH: Sequence[tuple[tuple[str, ...], Answer | Say]] = (
    (("human", "staff", "operator"), Say(words=Words.STAFF)),
    (("paid", "refund", "refunds", "refunded", "history", "record", "records", "receipt", "receipts"), _PAID),
    (("bind", "unbind", "patient", "patients"), _PATIENTS),
    (("pay", "paying", "payment", "payments", "bill", "bills", "fee", "fees", "owe"), _OWED),
    (("scan",), Say(words=Words.SCAN)),
    (("help", "phone", "telephone", "call"), Say(words=Words.STAFF)),
)
"""Whole words; "paypal" is none of them."""

_SIMPLIFIED = str.maketrans("繳費錢賬帳單詢記錄紀過綁電話掃碼處診", "缴费钱账账单询记录纪过绑电话扫码处诊")
_ENGLISH_WORD = re.compile(r"[a-z]+", re.ASCII)


def turn(event: ChatEvent, *, paper: str = "") -> tuple[Effect, ...]:
    """What follows from an event.

    `paper` is the token of the paper whose code was scanned: the event's scene, when it is one that belongs to the
    institution of this account; empty for any other scene.
    """
    match event.kind:
        case ChatEventKind.UNFOLLOWED:
            return (Reach(reachable=False),)
        case ChatEventKind.DELIVERED:
            return tuple(NoteDelivery(delivery=delivery) for delivery in event.deliveries)
        case ChatEventKind.GRANT:
            # Also people who do not follow may allow messages, so this says nothing of reaching them.
            return tuple(NoteGrant(grant=grant) for grant in event.grants)
        case ChatEventKind.OTHER:
            return ()
    return (Reach(reachable=True), *_answered(event, paper))


def _answered(event: ChatEvent, paper: str) -> tuple[Effect, ...]:
    choices = Say(words=Words.CHOICES)
    link = (ShowPaper(token=paper),) if paper else ()
    match event.kind:
        case ChatEventKind.FOLLOWED:
            return (Say(words=Words.WELCOME), *link, choices)
        case ChatEventKind.SCANNED:
            return link or (choices,)
        case ChatEventKind.MENU:
            return (MENU_KEYS.get(event.text, choices),)
        case ChatEventKind.IMAGE:
            return (Say(words=Words.PHOTO),)
        case ChatEventKind.VOICE if not normal(event.text):
            return (Say(words=Words.VOICE_UNCLEAR),)
        case ChatEventKind.TEXT | ChatEventKind.VOICE:
            return understood(event.text) or (choices,)
        case _:
            return (choices,)


def understood(text: str) -> tuple[Effect, ...]:
    """What somebody means who writes or says this; empty when there is no word for it."""
    plain = normal(text[:TEXT_LENGTH_MAX])
    for words, effect in CHINESE:
        if any(word in plain for word in words):
            return (Speak(language="zh"), effect)
    said = set(_ENGLISH_WORD.findall(_folded(text[:TEXT_LENGTH_MAX])))
    for words, effect in ENGLISH:
        if not said.isdisjoint(words):
            return (Speak(language="en"), effect)
    return ()


def normal(text: str) -> str:
    """Letters and digits alone: half-width, lower case, the characters of our words in their simplified form."""
    return "".join(each for each in _folded(text) if each.isalnum())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().translate(_SIMPLIFIED)


def is_ours(effects: Sequence[Effect]) -> bool:
    """Whether the person meant something that we serve; else another vendor of the account may answer."""
    return any(
        isinstance(effect, Answer | ShowPaper) or (isinstance(effect, Say) and effect.words not in GENERAL)
        for effect in effects
    )
