"""What patients read: whole sentences in both languages, whether money was taken, and nothing private."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import string
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core import guarded, texts
from core.errors import (
    AlreadyPaid,
    AmountChanged,
    BillNotPayable,
    BindingRefused,
    InvalidRequest,
    PaymentOpenElsewhere,
    RequestError,
    TooManyRequests,
)
from core.message_texts import message_fields
from core.models import Payment, PaymentLine
from core.money import Fen
from core.ports import NOTICE_KINDS, MessageKind
from core.states import LineStatus, PaymentStatus
from core.texts import BILL_TITLE, ERRORS, LANGUAGES, STATUS_TEXTS, error_text, language_of, time_text
from core.viewing import payment_view

CORE = Path(inspect.getfile(texts)).parent

SAYS_WHETHER_CHARGED = {
    "zh": re.compile("没有扣款|没有再次扣款|没有重复扣款|如已扣款|多收的钱会自动原路退回|已经支付"),
    "en": re.compile(r"not (be )?charged|were charged|not charged twice|returned automatically|has been paid"),
}


def _calls(name: str) -> list[ast.Call]:
    found = []
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                found.append(node)
    return found


def _literals(name: str, keyword: str) -> set[str]:
    """The texts that calls of `name` in core pass as `keyword`."""
    return {
        str(argument.value.value)
        for call in _calls(name)
        for argument in call.keywords
        if argument.arg == keyword and isinstance(argument.value, ast.Constant)
    }


def _reasons() -> dict[type[RequestError], set[str]]:
    bills = (
        {"paid", "cancelled", "expired"}  # passed on from the bill's state
        | _literals("BillNotPayable", "reason")
        | (_literals("ShownBill", "reason") - {""})
        | set(guarded.REFUSAL_REASONS.values())
    )
    return {BillNotPayable: bills, BindingRefused: _literals("BindingRefused", "reason")}


VALUES: dict[type[RequestError], dict[str, Any]] = {
    AmountChanged: {"shown_fen": Fen(8650), "amount_fen": Fen(9000)},
    PaymentOpenElsewhere: {"until": "10:06"},
    AlreadyPaid: {"order_no": "P1"},
    InvalidRequest: {"field": "bills", "problem": "is missing"},
    TooManyRequests: {"retry_after_seconds": 30},
}


def _all_errors() -> list[RequestError]:
    reasons = _reasons()
    made: list[RequestError] = []
    for kind in RequestError.__subclasses__():
        if kind in reasons:
            made += [kind(reason=reason, his_text="请到二楼") for reason in sorted(reasons[kind])]
        else:
            made.append(kind(**VALUES.get(kind, {})))
    return made


def _name(error: RequestError) -> str:
    return ".".join(filter(None, [error.code, str(error.values.get("reason", ""))]))


@pytest.mark.parametrize("error", _all_errors(), ids=_name)
def test_every_error_and_reason_of_core_has_a_sentence_of_its_own_in_both_languages(error: RequestError) -> None:
    name = _name(error)
    assert name in ERRORS
    zh, en = (error_text(error, language) for language in LANGUAGES)
    assert zh != en
    assert en.isascii() or "¥" in en or "请到二楼" in en
    assert re.search(r"[一-鿿]", zh)
    for sentence in (zh, en):
        assert len(sentence) > 8
        assert "{" not in sentence
        assert "}" not in sentence
    assert zh != error_text(RequestError(), "zh")
    assert en != error_text(RequestError(), "en")


def test_the_reasons_of_core_are_found_at_all() -> None:
    reasons = _reasons()
    assert reasons[BillNotPayable] >= {"insured", "window_only", "too_large", "busy", "refused"}
    assert reasons[BindingRefused] == {"not_found", "phone_differs", "too_many", "already_bound"}


def test_no_two_errors_share_a_sentence() -> None:
    for language in LANGUAGES:
        sentences = [entry[language] for entry in ERRORS.values()]
        assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("key", sorted(ERRORS))
def test_an_error_says_whether_one_was_charged(key: str) -> None:
    for language, pattern in SAYS_WHETHER_CHARGED.items():
        assert pattern.search(ERRORS[key][language]), ERRORS[key][language]


@pytest.mark.parametrize("key", ERRORS)
def test_both_languages_ask_for_the_same_values(key: str) -> None:
    fields = [
        {name for _, name, _, _ in string.Formatter().parse(ERRORS[key][language]) if name} for language in LANGUAGES
    ]
    assert fields[0] == fields[1]
    assert set(ERRORS[key]) == set(LANGUAGES)


def test_a_value_that_nobody_gave_leaves_no_brace() -> None:
    for key in ERRORS:
        code, _, reason = key.partition(".")
        kinds = [kind for kind in RequestError.__subclasses__() if kind.code == code]
        for kind in kinds:
            if kind is not AmountChanged:
                assert "{" not in error_text(kind(reason=reason) if reason else kind(), "zh")


def test_the_his_words_are_shown_as_they_are() -> None:
    error = BillNotPayable(reason="window_only", his_text="请到{二楼}窗口 {amount}")
    assert error_text(error, "zh").endswith("请到{二楼}窗口 {amount}")


def test_an_unknown_reason_and_language_still_get_a_sentence() -> None:
    assert error_text(BillNotPayable(reason="SOMETHING_NEW"), "en") == error_text(
        BillNotPayable(reason="refused"), "en"
    )
    assert error_text(AlreadyPaid(), "fr") == ERRORS["already_paid"]["zh"]


def test_amounts_are_shown_in_yuan() -> None:
    error = AmountChanged(shown_fen=Fen(8650), amount_fen=Fen(5))
    assert "86.50" in error_text(error, "zh")
    assert "0.05" in error_text(error, "zh")


def test_every_problem_that_core_names_is_known_in_chinese() -> None:
    problems = _literals("InvalidRequest", "problem")
    assert len(problems) >= 4
    for problem in problems:
        assert re.search(r"[一-鿿]", error_text(InvalidRequest(field="x", problem=problem), "zh"))
        assert problem not in error_text(InvalidRequest(field="x", problem=problem), "zh")


@pytest.mark.parametrize(
    ("header", "language"),
    [("", "zh"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,en;q=0.9", "en"), (" EN ", "en"), ("fr, en", "zh")],
)
def test_the_language_is_chinese_unless_the_phone_prefers_english(header: str, language: str) -> None:
    assert language_of(header) == language


# ---------------------------------------------------------------- messages

PRIVATE = {
    "patient_name": "王秀兰",
    "name": "王秀兰",
    "drug": "阿莫西林胶囊",
    "title": "阿莫西林胶囊",
    "kind_text": "西药",
    "diagnosis": "抑郁状态",
    "department": "精神科",
    "doctor": "李医生",
    "phone": "13812345678",
    "items": ["阿莫西林胶囊"],
}
MOMENT = datetime(2026, 5, 6, 2, 5, tzinfo=UTC)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", NOTICE_KINDS)
def test_a_message_says_nothing_private(kind: MessageKind, language: str) -> None:
    values = PRIVATE | {
        "amount_fen": 8650,
        "at": MOMENT.isoformat(),
        "masked_name": "王*兰",
        "order_no": "P1",
        "reasons": ["BILL_PAID"],
    }
    fields = message_fields(kind, values, language=language, hospital="仁和医院")
    shown = " ".join(fields.values())
    for value in PRIVATE.values():
        assert str(value) not in shown
    assert fields["title"] == BILL_TITLE[language]
    assert fields["amount"] == "¥86.50"
    assert fields["name"] == "王*兰"
    assert fields["time"] == time_text(MOMENT, language)
    assert "{" not in shown
    assert fields["status"]
    assert fields["note"]


@pytest.mark.parametrize("kind", NOTICE_KINDS)
def test_the_languages_of_a_message_differ_and_have_the_same_fields(kind: MessageKind) -> None:
    zh, en = (message_fields(kind, {"amount_fen": 1}, language=language, hospital="H") for language in LANGUAGES)
    assert zh.keys() == en.keys()
    for name in ("title", "status", "note"):
        assert zh[name] != en[name]
    assert en["note"].isascii()


def test_no_two_kinds_of_message_look_alike() -> None:
    statuses = [message_fields(kind, {}, language="zh", hospital="H")["status"] for kind in NOTICE_KINDS]
    assert len(set(statuses)) == len(NOTICE_KINDS)


def test_why_a_bill_was_returned_is_told_in_both_languages() -> None:
    for reason, entry in texts.RETURN_REASONS.items():
        for language in LANGUAGES:
            fields = message_fields(
                MessageKind.REFUSED_RETURNED, {"reasons": [reason]}, language=language, hospital="H"
            )
            assert entry[language] in fields["note"]
    unknown = message_fields(MessageKind.REFUSED_RETURNED, {"reasons": ["NEW"]}, language="en", hospital="H")
    assert texts.RETURN_REASONS[""]["en"] in unknown["note"]


@pytest.mark.parametrize("reasons", [*([reason] for reason in texts.RETURN_REASONS), ["BILL_PAID", "BILL_CANCELLED"]])
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize(
    ("refused", "booked", "waiting", "of"),
    [(1, 0, 0, 2), (12, 0, 0, 20), (12, 0, 8, 20), (11, 9, 0, 20), (1, 1, 18, 20)],
)
def test_of_a_merged_payment_is_told_how_many_bills_go_back_and_what_became_of_the_others(
    reasons: list[str], moves: bool, refused: int, booked: int, waiting: int, of: int
) -> None:
    numbers = {"refused": refused, "booked": booked, "waiting": waiting, "of": of}
    values = {"reasons": reasons, "amount_fen": 3000 * moves, **numbers}
    zh, en = (message_fields(MessageKind.REFUSED_RETURNED, values, language=each, hospital="H") for each in LANGUAGES)
    assert len(zh["note"]) <= 20  # what WeChat's templates show of a field
    assert en["note"].isascii()
    assert (("没有扣款" in zh["note"]), ("Not charged" in en["note"])) == (not moves, not moves)
    assert zh["note"].startswith(f"{refused}张")
    assert f"{refused} of {of} bills" in en["note"] or f"{refused}, paid {booked}" in en["note"]
    assert (f"{booked}张已缴" in zh["note"]) == bool(booked)
    assert (zh["status"], en["status"]) == ("部分未入账", "Partly not booked")
    if booked and waiting:
        assert f"{waiting}张确认中" in zh["note"]
        assert f"booking {waiting}" in en["note"]


@pytest.mark.parametrize(
    ("values", "zh", "en"),
    [
        ({}, "请按医院指引就诊", "Please follow the hospital's signs"),
        ({"guides": ["3号窗口取药"]}, "3号窗口取药", "3号窗口取药"),
        ({"booked": 3, "of": 3, "guides": ["3号窗口取药"]}, "3号窗口取药", "3号窗口取药"),
        (
            {"booked": 3, "of": 3, "guides": ["一", "二"]},
            "3张都已缴费，点击看指引",
            "Paid all 3 bills: tap for where to go",
        ),
        ({"booked": 2, "of": 3, "waiting": 1}, "2张已缴费，1张医院确认中", "Paid 2 of 3 bills, booking 1"),
        ({"booked": 1, "of": 3, "guides": ["一"]}, "同一笔支付另1张已缴费", "Paid 1 more of 3 bills"),
    ],
)
def test_what_is_booked_is_told_with_the_way_to_go_or_how_many_bills_it_is(
    values: dict[str, Any], zh: str, en: str
) -> None:
    fields = [message_fields(MessageKind.PAID, values, language=each, hospital="H")["note"] for each in LANGUAGES]
    assert fields == [zh, en]


def test_a_moment_is_told_in_shanghai_time() -> None:
    assert time_text(MOMENT, "zh") == "2026年5月6日 10:05"
    assert time_text(MOMENT, "en") == "2026-05-06 10:05"


# ---------------------------------------------------------------- how things stand


def test_however_a_payment_stands_there_is_a_text_for_it() -> None:
    seen = set()
    for status in PaymentStatus:
        for one, two in itertools.combinations_with_replacement(LineStatus, 2):
            for refunded_fen in (0, 100):
                lines = [PaymentLine(status=each, refunded_fen=refunded_fen) for each in (one, two)]
                seen.add(payment_view(Payment(status=status), lines))
    assert seen == set(STATUS_TEXTS) - {"to_pay"}
    for entry in STATUS_TEXTS.values():
        assert set(entry) == set(LANGUAGES)
        assert entry["zh"] != entry["en"]


def test_what_was_booked_and_taken_back_is_a_refund() -> None:
    def view(*lines: tuple[str, int]) -> str:
        rows = [PaymentLine(status=LineStatus(status), refunded_fen=Fen(fen)) for status, fen in lines]
        return payment_view(Payment(status=PaymentStatus.PAID), rows)

    assert view(("returning", 100), ("returned", 100)) == "refunding"
    assert view(("returned", 100)) == "refunded"
    assert view(("returned", 100), ("returned", 0)) == "returned"
    assert view(("returned", 100), ("confirmed", 0)) == "part_returned"
    assert view(("confirmed", 50)) == "paid"


@pytest.mark.parametrize(
    ("lines", "view"),
    [
        (["waiting"], "confirming"),
        (["confirming", "confirmed"], "confirming"),
        (["confirmed"], "paid"),
        (["confirmed", "returned"], "part_returned"),
        (["confirmed", "rejected"], "part_returning"),
        (["confirmed", "returning"], "part_returning"),
        (["confirming", "rejected"], "confirming"),
        (["returned", "returning"], "returning"),
        (["surplus"], "returning"),
        (["returned", "returned"], "returned"),
        (["held", "held"], "checking"),
    ],
)
def test_a_paid_payment_shows_what_is_not_settled_first(lines: list[str], view: str) -> None:
    rows = [PaymentLine(status=LineStatus(status)) for status in lines]
    assert payment_view(Payment(status=PaymentStatus.PAID), rows) == view
