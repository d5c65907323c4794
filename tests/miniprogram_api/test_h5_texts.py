"""Every sentence of the pages is there in both languages, is used, and is said the same way in both."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from core.errors import FactorLocked
from core.page_texts import IDENTIFIER_TEXTS, NOTICE_PARTS, PAGE, WAY_TEXTS, page_text
from core.ports import IdentifierType
from miniprogram_api.h5.pages import locked_text
from miniprogram_api.h5.rendering import clock_text, environment

PAGES = Path(__file__).resolve().parents[2] / "miniprogram_api" / "h5"
BUILT = {"asking_title", "asking_text", "working_title", "working_text", "withdrawn", "sms_done"} | {
    *NOTICE_PARTS,
    "withdraw_personal_text",
    "withdraw_sms_text",
    "privacy_personal",
    "privacy_sms",
}
"""Keys that are put together from parts where they are used."""


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("minutes", "zh", "en"),
    [
        (60, "60分钟后", "60 minutes"),
        (61, "2小时后", "2 hours"),
        (1380, "23小时后", "23 hours"),
        (1381, "明天这个时候", "tomorrow"),
        (1440, "明天这个时候", "tomorrow"),
    ],
)
def test_a_long_pause_is_told_in_hours_or_as_tomorrow(minutes: int, zh: str, en: str) -> None:
    locked = FactorLocked(minutes=minutes)
    assert zh in locked_text(locked, "zh")
    assert en in locked_text(locked, "en")


def test_a_time_of_day_is_shanghais_in_any_language() -> None:
    assert clock_text("2026-05-06T16:05:00+00:00") == "00:05"


@pytest.mark.parametrize("texts", [PAGE, IDENTIFIER_TEXTS, WAY_TEXTS])
def test_both_languages_say_the_same(texts: dict[str, dict[str, str]]) -> None:
    for key, said in texts.items():
        assert set(said) == {"zh", "en"}, key
        assert all(said.values()), key
        assert blanks(said["zh"]) == blanks(said["en"]), key
        if key not in ("language_other", "colon", "tab_count"):
            assert re.search(r"[\u4e00-\u9fff]", said["zh"]), key
            assert not re.search(r"[\u4e00-\u9fff]", said["en"]), key


def test_every_key_is_used_and_every_key_used_is_there() -> None:
    code = "\n".join(path.read_text() for path in [*PAGES.glob("*.py"), *PAGES.glob("templates/*.html")])
    named = set(re.findall(r"'([a-z_0-9]+)'", code)) | set(re.findall(r'"([a-z_0-9]+)"', code))
    assert set(PAGE) - named - BUILT == set()
    called = set(re.findall(r"\bt\('([a-z_0-9]+)'\s*[,)]", code))
    assert called - set(PAGE) == set()


def test_every_document_has_a_name() -> None:
    assert set(IDENTIFIER_TEXTS) == {kind.value for kind in IdentifierType}


def test_templates_are_sound_and_hold_no_script_and_no_sentence() -> None:
    for name in environment().list_templates():
        environment().get_template(name)
        source = (PAGES / "templates" / name).read_text()
        assert not re.search(r"[\u4e00-\u9fff]", source), name
        assert not re.search(r"\bon[a-z]+=|style=|<script>|javascript:", source), name
        assert "|safe" not in source.replace(" ", ""), name


def test_what_a_person_typed_is_never_markup() -> None:
    parts = environment().from_string('{% import "parts.html" as parts %}{{ parts.alert(said) }}')
    assert "<b>" not in parts.render(said="<b>x</b>")
    assert "&lt;b&gt;" in parts.render(said="<b>x</b>")


def test_an_unknown_language_is_chinese() -> None:
    assert page_text("paper_title", "fr") == "处方缴费"
