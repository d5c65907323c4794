"""What every answer of the SMS platform means, what reaches the log, and what the operator's check makes of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bot.sms.mapping import CODES, Meaning, not_before, send_result
from core.errors import NotReached, OutcomeUnknown, Refused
from core.ports import ChatAccount, SendOutcome, SendResult
from tests.support.sms import NOON, PHONE, Says, SmsOfTests, a_message, a_status, an_error
from wire.http import HttpReply, HttpRequest


@pytest.fixture
def world() -> SmsOfTests:
    return SmsOfTests()


# ---------------------------------------------------------------- answers

NEVER = {
    "FailedOperation.PhoneNumberInBlacklist",
    "FailedOperation.PhoneNumberParseFail",
    "InvalidParameterValue.IncorrectPhoneNumber",
    "LimitExceeded.AppCountryOrRegionInBlacklist",
    "UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone",
    "UnsupportedOperation.UnsuportedRegion",
    "UnsupportedOperation.UnsupportedRegion",
}
MIDNIGHT = datetime(2026, 5, 6, 16, 5, tzinfo=UTC)  # five past, in Shanghai
LATER = {
    "LimitExceeded.PhoneNumberThirtySecondLimit": NOON + timedelta(seconds=35),
    "LimitExceeded.PhoneNumberOneHourLimit": NOON + timedelta(hours=1, seconds=5),
    "LimitExceeded.PhoneNumberDailyLimit": MIDNIGHT,
    "LimitExceeded.PhoneNumberSameContentDailyLimit": MIDNIGHT,
    "LimitExceeded.AppDailyLimit": MIDNIGHT,
    "LimitExceeded.AppMainlandChinaDailyLimit": MIDNIGHT,
    "LimitExceeded.AppGlobalDailyLimit": MIDNIGHT,
    "LimitExceeded.AppCountryOrRegionDailyLimit": MIDNIGHT,
    "LimitExceeded.DailyLimit": MIDNIGHT,
    "LimitExceeded.DeliveryFrequencyLimit": NOON + timedelta(minutes=10),
    "LimitExceeded": NOON + timedelta(minutes=10),
    "RequestLimitExceeded": NOON + timedelta(minutes=1),
    "RequestLimitExceeded.GlobalRegionUinLimitExceeded": NOON + timedelta(minutes=1),
    "RequestLimitExceeded.IPLimitExceeded": NOON + timedelta(minutes=1),
    "RequestLimitExceeded.UinLimitExceeded": NOON + timedelta(minutes=1),
}
OPEN = [
    "InternalError", "InternalError.Timeout", "InternalError.OtherError", "InternalError.UnknownError",
    "InternalError.SendAndRecvFail", "InternalError.ParseBackendResponseFail", "FailedOperation",
    "FailedOperation.OtherError", "FailedOperation.ParametersOtherError", "ServiceUnavailable",
    "ResourceUnavailable", "DryRunOperation", "OK", "ok", "Success", "Ok.", "LimitExceeded.SomethingNew",
]  # fmt: skip


@pytest.mark.parametrize("code", [*sorted(CODES), *OPEN])
@pytest.mark.parametrize("of_the_call", [False, True], ids=["number", "call"])
async def test_every_code_of_the_table(world: SmsOfTests, code: str, of_the_call: bool) -> None:
    """The same word means the same whether it is said of the number or of the call; only a number can be Ok."""
    if of_the_call and code == "Ok":
        return
    send = world.messenger(Says(an_error(code) if of_the_call else a_status(code))).send(world.account(), a_message())
    if code in OPEN:
        with pytest.raises(OutcomeUnknown):
            await send
        return
    result = await send
    if code == "Ok":
        number = "5000:1045710669157053657849499619"
        assert result == SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id=number)
    elif code in NEVER:
        assert result == SendResult(outcome=SendOutcome.NEVER, code=code)
    elif code in LATER:
        assert result == SendResult(outcome=SendOutcome.LATER, code=code, not_before=LATER[code])
    else:
        assert result == SendResult(outcome=SendOutcome.MISCONFIGURED, code=code)


def test_the_table_knows_nobody_twice_and_every_later_has_its_time() -> None:
    assert {code for code, meaning in CODES.items() if meaning is Meaning.NEVER} == NEVER
    for code, meaning in CODES.items():
        result = send_result(code, NOON)
        assert result is not None
        assert (result.outcome is SendOutcome.LATER) == (not_before(meaning, NOON) is not None) == (code in LATER)
        assert len(code) <= 64  # a message's result_code


def test_a_days_limit_ends_after_midnight_in_shanghai() -> None:
    just_before = datetime(2026, 12, 31, 15, 59, 59, tzinfo=UTC)
    assert not_before(Meaning.LATER_DAY, just_before) == datetime(2026, 12, 31, 16, 5, tzinfo=UTC)
    just_after = datetime(2026, 12, 31, 16, 0, tzinfo=UTC)
    assert not_before(Meaning.LATER_DAY, just_after) == datetime(2027, 1, 1, 16, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, json.dumps({"Response": a_status("Ok")}).encode()),
        (404, json.dumps({"Response": an_error("FailedOperation.PhoneNumberInBlacklist")}).encode()),
        (302, b""),
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b"<html>"),
        (200, b"[" * 100_000),
        (200, json.dumps({"Response": a_status("Ok")}).encode()[:-9]),
        (200, json.dumps(a_status("Ok")).encode()),  # without its Response
        (200, b'{"Response":[]}'),
        (200, b'{"Response":{"RequestId":"1"}}'),
        (200, b'{"Response":{"Error":{},"RequestId":"1"}}'),
        (200, b'{"Response":{"Error":null,"RequestId":"1"}}'),
        (200, b'{"Response":{"Error":{"Code":1},"RequestId":"1"}}'),
        (200, b'{"Response":{"SendStatusSet":[],"RequestId":"1"}}'),
        (200, b'{"Response":{"SendStatusSet":{},"RequestId":"1"}}'),
        (200, b'{"Response":{"SendStatusSet":["Ok"],"RequestId":"1"}}'),
        (200, b'{"Response":{"SendStatusSet":[{"Code":"Ok"}],"RequestId":"1"}}'),
    ],
)
async def test_anything_but_the_platforms_own_word_is_unknown(world: SmsOfTests, status: int, body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        await world.messenger(Says(body, status)).send(world.account(), a_message())


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("Ok", {"PhoneNumber": "+8613900009999"}),
        ("Ok", {"PhoneNumber": ""}),
        ("Ok", {"SessionContext": UUID(int=9).hex}),
        ("FailedOperation.PhoneNumberInBlacklist", {"PhoneNumber": "+8613900009999"}),
        ("FailedOperation.PhoneNumberInBlacklist", {"SessionContext": UUID(int=9).hex}),
    ],
)
async def test_an_answer_about_another_message_decides_nothing(
    world: SmsOfTests, code: str, changes: dict[str, str]
) -> None:
    with pytest.raises(OutcomeUnknown):
        await world.messenger(Says(a_status(code, **changes))).send(world.account(), a_message())


async def test_an_answer_about_two_numbers_decides_nothing(world: SmsOfTests) -> None:
    twice = a_status("Ok")
    twice["SendStatusSet"] *= 2
    with pytest.raises(OutcomeUnknown):
        await world.messenger(Says(twice)).send(world.account(), a_message())


async def test_an_error_counts_even_beside_statuses(world: SmsOfTests) -> None:
    both = {**a_status("Ok"), **an_error("InternalError.Timeout")}
    with pytest.raises(OutcomeUnknown):
        await world.messenger(Says(both)).send(world.account(), a_message())


# ---------------------------------------------------------------- logs


async def test_neither_phone_nor_key_nor_text_reaches_the_log(
    world: SmsOfTests, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account = world.account()
    for code in ("FailedOperation.PhoneNumberInBlacklist", "InternalError.Timeout"):
        for body in (a_status(code), an_error(code)):
            try:
                await world.messenger(Says(body)).send(account, a_message())
            except OutcomeUnknown as error:
                logging.getLogger().warning("unknown", exc_info=error)
    await world.messenger(Says(b"")).send(account, a_message(address="+85291234567"))
    assert [record.message for record in caplog.records].count("message_refused") == 3
    said = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    for private in (PHONE, "91234567", account.params["secret_key"], account.params["secret_id"], "19.98"):
        assert private not in said
    assert "ed93f3cb-f35e-473f" in said


# ---------------------------------------------------------------- the operator's check


class Tells:
    """The platform's side of the check, as its public description shows it; keeps what it was asked."""

    def __init__(self, *templates: Mapping[str, Any], statistics: Mapping[str, Any] | None = None) -> None:
        self.templates = templates
        self.statistics = statistics or {"SendStatusStatistics": {"FeeCount": 0}, "RequestId": "1"}
        self.asked: list[tuple[str, Any]] = []

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        action = request.headers["x-tc-action"]
        self.asked.append((action, json.loads(request.body)))
        answers = {
            "SendStatusStatistics": self.statistics,
            "DescribeSmsTemplateList": {"DescribeTemplateStatusSet": list(self.templates), "RequestId": "2"},
        }
        return HttpReply(status=200, body=json.dumps({"Response": answers[action]}).encode())


def a_listed(template_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "TemplateName": "缴费",
        "TemplateId": template_id,
        "International": 0,
        "ReviewReply": "",
        "CreateTime": 1617379200,
        "TemplateContent": "您已缴费{1}元，时间{2}。",
        "StatusCode": 0,
        **changes,
    }


def two_templates(world: SmsOfTests) -> ChatAccount:
    entries = {"paid": {"id": "1110", "params": ["amount", "time"]}, "new_bill": {"id": "1111", "params": ["amount"]}}
    return world.account(templates={kind: json.dumps(entry) for kind, entry in entries.items()})


async def test_the_check_asks_about_application_and_templates_and_sends_nothing(world: SmsOfTests) -> None:
    tells = Tells(a_listed(1111, TemplateContent="您有{1}元待缴"), a_listed(1110))
    answer = await world.messenger(tells).check(two_templates(world))
    assert answer == "the application is ours; 2 templates approved"
    assert tells.asked == [
        (
            "SendStatusStatistics",
            {"BeginTime": "2026050612", "EndTime": "2026050612", "SmsSdkAppId": world.account().app_id, "Limit": 0,
             "Offset": 0},
        ),
        ("DescribeSmsTemplateList", {"International": 0, "TemplateIdSet": [1110, 1111]}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (None, "is not among the account's templates"),
        (a_listed(1110, StatusCode=1), "is not approved"),
        (a_listed(1110, StatusCode=2), "is not approved"),
        (a_listed(1110, StatusCode=-1), "is not approved"),
        (a_listed(1110, International=1), "is not for mainland phones"),
        (a_listed(1110, TemplateContent="您已缴费{1}元"), "has 1 variables, and 2 params are entered"),
    ],
)
async def test_the_check_names_the_template_that_will_not_do(
    world: SmsOfTests, listed: dict[str, Any] | None, problem: str
) -> None:
    tells = Tells(*([listed] if listed else []), a_listed(1111, TemplateContent="{1}"))
    with pytest.raises(Refused) as caught:
        await world.messenger(tells).check(two_templates(world))
    assert (caught.value.code, caught.value.message) == ("template_1110", problem)


async def test_the_check_tells_a_refusal_from_a_silence(world: SmsOfTests) -> None:
    refusal = Tells(statistics=an_error("UnauthorizedOperation.SmsSdkAppIdVerifyFail"))
    with pytest.raises(Refused) as caught:
        await world.messenger(refusal).check(world.account())
    assert caught.value.code == "UnauthorizedOperation.SmsSdkAppIdVerifyFail"
    with pytest.raises(OutcomeUnknown):
        await world.messenger(Tells(statistics=an_error("InternalError"))).check(world.account())
    with pytest.raises(NotReached):
        await world.messenger().check(world.account(base_url="https://nobody.test"))
