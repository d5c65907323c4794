"""What the dialogue understands, without a platform, a database or a clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.dialogue import (
    GENERAL,
    MENU_KEYS,
    Answer,
    Effect,
    NoteDelivery,
    NoteGrant,
    Reach,
    Say,
    ShowPaper,
    Speak,
    Words,
    is_ours,
    normal,
    turn,
)
from bot.events import ChatEvent, ChatEventKind, Delivery, Grant
from core.chat_texts import CHAT, ChatQuestion

KIND = ChatEventKind
CHOICES = Say(words=Words.CHOICES)
OWED, PAID, PATIENTS = (Answer(question=question) for question in ChatQuestion)
STAFF, SCAN = Say(words=Words.STAFF), Say(words=Words.SCAN)


def an_event(kind: ChatEventKind = KIND.TEXT, text: str = "", **values: object) -> ChatEvent:
    fields: dict[str, object] = {
        "event_id": "e",
        "open_id": "o",
        "to": "gh",
        "happened_at": datetime(2026, 5, 6, tzinfo=UTC),
    }
    return ChatEvent(kind=kind, text=text, **(fields | values))  # type: ignore[arg-type]


def answer_to(text: str, kind: ChatEventKind = KIND.TEXT) -> Effect:
    *_, effect = turn(an_event(kind, text))
    return effect


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("缴费", OWED),
        ("交费", OWED),
        ("交钱", OWED),
        ("付款", OWED),
        ("账单", OWED),
        ("我要缴费", OWED),
        ("请问怎么给我妈交钱啊？", OWED),
        ("缴 费", OWED),
        ("缴　费。", OWED),
        ("缴-费", OWED),
        ("【缴费】", OWED),
        ("「繳費」", OWED),
        ("我要繳費！！", OWED),
        ("帳單", OWED),
        ("賬單", OWED),
        ("查询待缴费账单", OWED),
        ("💰缴💰费", OWED),
        ("我要教费", OWED),  # what a voice is taken for
        ("pay", OWED),
        ("Pay!", OWED),
        ("ＰＡＹ", OWED),
        ("How do I pay my bill?", OWED),
        ("help me pay", OWED),
        ("查询", PAID),
        ("查詢", PAID),
        ("缴费记录", PAID),
        ("繳費記錄", PAID),
        ("我要退款", PAID),
        ("已缴", PAID),
        ("已经交过钱了", PAID),
        ("paid", PAID),
        ("where is my REFUND", PAID),
        ("payment history", PAID),
        ("绑定", PATIENTS),
        ("解绑", PATIENTS),
        ("綁定就診人", PATIENTS),
        ("人工", STAFF),
        ("人工缴费", STAFF),
        ("客服", STAFF),
        ("电话", STAFF),
        ("電話號碼", STAFF),
        ("缴费电话", OWED),
        ("help", STAFF),
        ("扫一扫", SCAN),
        ("你好", CHOICES),
        ("", CHOICES),
        ("paypal", CHOICES),
        ("费", CHOICES),
        ("👨‍👩‍👧‍👦🏥", CHOICES),
        ("缴" * 10_000, CHOICES),
        ("x" * 10_000, CHOICES),
        ("缴费" * 5_000, OWED),
    ],
)
def test_what_a_text_means(text: str, effect: Effect) -> None:
    assert answer_to(text) == effect


def test_a_voice_means_what_a_text_means_and_a_silent_one_is_unclear() -> None:
    assert answer_to("我要缴费。", KIND.VOICE) == OWED
    assert answer_to("今天天气不错", KIND.VOICE) == CHOICES
    for nothing in ("", "。", "  …  "):
        assert answer_to(nothing, KIND.VOICE) == Say(words=Words.VOICE_UNCLEAR)


def test_the_language_follows_the_words_that_were_understood() -> None:
    assert Speak(language="zh") in turn(an_event(text="缴费"))
    assert Speak(language="en") in turn(an_event(text="pay"))
    for nothing in ("hello", "你好", ""):
        assert not any(isinstance(effect, Speak) for effect in turn(an_event(text=nothing)))


def test_pictures_and_other_messages() -> None:
    assert answer_to("", KIND.IMAGE) == Say(words=Words.PHOTO)
    assert answer_to("", KIND.MEDIA) == CHOICES


@pytest.mark.parametrize(("key", "effect"), [*MENU_KEYS.items(), ("V1001_PAY", CHOICES), ("缴费", CHOICES)])
def test_menu_keys_are_ours_or_nobodys(key: str, effect: Effect) -> None:
    assert answer_to(key, KIND.MENU) == effect


def test_who_follows_is_welcomed_and_led_to_the_paper() -> None:
    welcome = Say(words=Words.WELCOME)
    assert turn(an_event(KIND.FOLLOWED)) == (Reach(reachable=True), welcome, CHOICES)
    with_paper = turn(an_event(KIND.FOLLOWED, scene="t"), paper="t")
    assert with_paper == (Reach(reachable=True), welcome, ShowPaper(token="t"), CHOICES)
    assert turn(an_event(KIND.FOLLOWED, scene="somebody's")) == (Reach(reachable=True), welcome, CHOICES)


def test_who_scans_is_led_to_the_paper_or_given_the_choices() -> None:
    assert turn(an_event(KIND.SCANNED, scene="t"), paper="t") == (Reach(reachable=True), ShowPaper(token="t"))
    assert turn(an_event(KIND.SCANNED, scene="7")) == (Reach(reachable=True), CHOICES)


def test_what_the_platform_says_is_noted_and_answered_with_nothing() -> None:
    delivery, grant = Delivery(platform_message_id="7", ok=False), Grant(template_id="t", accepted=True)
    assert turn(an_event(KIND.UNFOLLOWED)) == (Reach(reachable=False),)
    assert turn(an_event(KIND.DELIVERED, deliveries=(delivery,))) == (NoteDelivery(delivery=delivery),)
    assert turn(an_event(KIND.GRANT, grants=(grant,))) == (NoteGrant(grant=grant),)
    assert turn(an_event(KIND.OTHER)) == ()


def test_whose_an_event_is() -> None:
    assert is_ours(turn(an_event(text="缴费")))
    assert is_ours(turn(an_event(text="人工")))
    assert is_ours(turn(an_event(KIND.SCANNED), paper="t"))
    for kind in (KIND.FOLLOWED, KIND.UNFOLLOWED, KIND.SCANNED, KIND.MENU, KIND.OTHER, KIND.MEDIA, KIND.DELIVERED):
        assert not is_ours(turn(an_event(kind)))
    assert not is_ours(turn(an_event(text="预约挂号")))


def test_all_words_have_sentences() -> None:
    assert {word.value for word in Words} <= set(CHAT)
    assert set(Words) > GENERAL


@given(st.text(max_size=3000) | st.text(alphabet="缴费繳費交ﾊﾟ👍🏽 \u200d\ufe0f\u202e0pay", max_size=60))
def test_any_text_gets_exactly_one_answer(text: str) -> None:
    for kind in (KIND.TEXT, KIND.VOICE, KIND.MENU):
        effects = turn(an_event(kind, text))
        assert sum(isinstance(effect, Answer | Say) for effect in effects) == 1
        assert effects[0] == Reach(reachable=True)
        assert turn(an_event(kind, text)) == effects


@given(st.lists(st.sampled_from([" ", "，", "!", "\u200b", "👍", "\n", "\u3000"]), max_size=4))
def test_blanks_and_signs_between_the_characters_change_nothing(between: list[str]) -> None:
    assert normal("".join(between).join("我要缴费")) == "我要缴费"
    assert answer_to("".join(between).join("缴费")) == OWED
