"""SMS through the simulated platform: what leaves us, what every answer means, what a phone shows in the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bot.sms.client import BASE_URL, SmsApi
from bot.sms.mapping import CODES, Meaning, not_before, send_result
from bot.sms.messenger import SmsMessenger
from core.errors import NotReached, OutcomeUnknown, Refused
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult
from simulators.clock import ManualClock
from simulators.faults import Faults
from simulators.kit import create_app
from simulators.sms import SmsSimulator
from simulators.sms_faults import FAULTS
from tests.support.transports import InProcessTransport, WatchedTransport
from wire.http import HttpClient, HttpReply, HttpRequest, Transport

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
PHONE = "13900001234"
SIGN = "仁和医院"
FIELDS = {
    "hospital": "仁和医院",
    "title": "门诊缴费",
    "amount": "¥19.98",
    "time": "2026年5月6日 12:00",
    "name": "王*明",
    "number": "P0123456789",
    "status": "缴费成功",
    "note": "请到门诊一楼药房2号窗口取药",
}


@dataclass(kw_only=True)
class SmsOfTests:
    """A hospital with an SMS application, and our adapter over one Transport."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    faults: Faults = field(default_factory=Faults)
    base_url: str = "https://sms.test"
    simulator: SmsSimulator = field(init=False)
    paid: str = field(init=False)
    code: str = field(init=False)

    def __post_init__(self) -> None:
        self.simulator = SmsSimulator(
            clock=self.clock, faults=self.faults, slow_seconds=0.2, per_30_seconds=1, per_hour=5, per_day=10
        )
        self.simulator.approve_sign(SIGN)
        self.paid = self.simulator.approve_template("您已缴费{1}元，时间{2}，{3}。")
        self.code = self.simulator.approve_template("验证码{1}，{2}分钟内有效。", kind="code")

    def account(self, templates: Mapping[str, str] | None = None, **params: str) -> ChatAccount:
        account = self.simulator.account
        return ChatAccount(
            id=UUID(int=1),
            institution_id=UUID(int=2),
            platform="sms",
            app_id=account.sdk_app_id,
            params={
                "secret_id": account.secret_id,
                "secret_key": account.secret_key,
                "sign_name": SIGN,
                "base_url": self.base_url,
                **params,
            },
            templates={
                "paid": json.dumps({"id": self.paid, "params": ["amount", "time", "note"]}),
                "phone_code": json.dumps({"id": self.code, "params": ["code", "=5"]}),
            }
            if templates is None
            else templates,
        )

    def transport(self) -> WatchedTransport:
        return WatchedTransport(InProcessTransport({self.base_url: self.simulator}))

    def messenger(self, transport: Transport | None = None, *, call_seconds: float = 10) -> SmsMessenger:
        api = SmsApi(transport=transport or self.transport(), clock=self.clock, call_seconds=call_seconds)
        return SmsMessenger(api=api, clock=self.clock)

    def texts(self, phone: str = PHONE) -> list[str]:
        return [message.text for message in self.simulator.messages(phone)]


def a_message(number: int = 1, *, kind: MessageKind = MessageKind.PAID, address: str = PHONE) -> OutgoingMessage:
    fields = {**FIELDS, "code": "042137"} if kind is MessageKind.PHONE_CODE else FIELDS
    return OutgoingMessage(message_id=UUID(int=number), kind=kind, address=address, language="zh", fields=fields)


class Says:
    """A platform with one answer to every call."""

    def __init__(self, body: bytes | Mapping[str, Any], status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps({"Response": body}).encode()
        self._reply = HttpReply(status=status, body=data)
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        self.requests.append(request)
        return self._reply


def a_status(code: str, **changes: Any) -> dict[str, Any]:
    status = {
        "SerialNo": "5000:1045710669157053657849499619" if code == "Ok" else "",
        "PhoneNumber": f"+86{PHONE}",
        "Fee": 1,
        "SessionContext": UUID(int=1).hex,
        "Code": code,
        "Message": f"about +86{PHONE}",
        "IsoCode": "CN",
    }
    return {"SendStatusSet": [{**status, **changes}], "RequestId": "a0aabda6-cf91-4f3e-a81f-9198114a2279"}


def an_error(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": f"about +86{PHONE}"}, "RequestId": "ed93f3cb-f35e-473f"}


@pytest.fixture
def world() -> SmsOfTests:
    return SmsOfTests()


# ---------------------------------------------------------------- what arrives


async def test_a_message_arrives_over_loopback_signed_and_once(serve: Any) -> None:
    world = SmsOfTests()
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        result = await world.messenger(http).send(world.account(), a_message())
    (shown,) = world.simulator.messages(PHONE)
    assert result == SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id=shown.serial_no)
    assert shown.serial_no
    assert shown.text == "【仁和医院】您已缴费19.98元，时间5月6日 12:00，请到门诊一楼药房2号窗…。"
    assert shown.session_context == UUID(int=1).hex


async def test_a_code_arrives_alone_with_its_minutes(world: SmsOfTests) -> None:
    result = await world.messenger().send(world.account(), a_message(kind=MessageKind.PHONE_CODE))
    assert result.outcome is SendOutcome.ACCEPTED
    assert world.texts() == ["【仁和医院】验证码042137，5分钟内有效。"]


async def test_what_leaves_us_is_the_documented_call(world: SmsOfTests) -> None:
    transport = Says(a_status("Ok"))
    account = world.account(base_url="", region="")
    await world.messenger(transport).send(account, a_message())
    (request,) = transport.requests
    assert (request.method, request.url) == ("POST", f"{BASE_URL}/")
    assert {name: request.headers[name] for name in ("host", "x-tc-action", "x-tc-version", "x-tc-region")} == {
        "host": "sms.tencentcloudapi.com",
        "x-tc-action": "SendSms",
        "x-tc-version": "2021-01-11",
        "x-tc-region": "ap-guangzhou",
    }
    assert request.headers["x-tc-timestamp"] == str(int(NOON.timestamp()))
    assert json.loads(request.body) == {
        "PhoneNumberSet": [f"+86{PHONE}"],
        "SmsSdkAppId": account.app_id,
        "SignName": SIGN,
        "TemplateId": world.paid,
        "TemplateParamSet": ["19.98", "5月6日 12:00", "请到门诊一楼药房2号窗…"],
        "SessionContext": UUID(int=1).hex,
    }
    assert PHONE not in repr(request)
    assert PHONE not in repr(a_message())


async def test_the_application_may_have_another_name_than_the_account(world: SmsOfTests) -> None:
    transport = Says(a_status("Ok"))
    await world.messenger(transport).send(world.account(sdk_app_id="1400009999"), a_message())
    assert json.loads(transport.requests[0].body)["SmsSdkAppId"] == "1400009999"


@pytest.mark.parametrize("address", [f"+86{PHONE}", f"0086{PHONE}", "139 0000 1234", "+86 139-0000-1234"])
async def test_a_mainland_mobile_may_be_written_in_several_ways(world: SmsOfTests, address: str) -> None:
    result = await world.messenger().send(world.account(), a_message(address=address))
    assert result.outcome is SendOutcome.ACCEPTED
    assert len(world.texts()) == 1


@pytest.mark.parametrize(
    "address",
    ["", "+85291234567", "+8613900001234567", "12345678901", "1390000123", "1３900001234", "+1 139 0000 1234", "abc",
     f"+{PHONE}", "01012345678"],
)  # fmt: skip
async def test_nothing_is_sent_to_any_other_number(world: SmsOfTests, address: str) -> None:
    transport = world.transport()
    result = await world.messenger(transport).send(world.account(), a_message(address=address))
    assert (result.outcome, result.code) == (SendOutcome.NEVER, "not_mainland")
    assert transport.requests == []


def test_what_the_adapter_declares(world: SmsOfTests) -> None:
    messenger = world.messenger()
    assert (messenger.name, messenger.rank, messenger.writes_to_phones) == ("sms", 9, True)
    assert messenger.resend_window == timedelta(0)
    assert messenger.carries(world.account(), MessageKind.PAID)
    assert messenger.carries(world.account(), MessageKind.PHONE_CODE)
    assert not messenger.carries(world.account(), MessageKind.NEW_BILL)
    assert not messenger.carries(world.account(), MessageKind.CHAT_ANSWER)


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


# ---------------------------------------------------------------- the simulated platform's rules


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"secret_id": "AKIDsomebodyelse"}, "AuthFailure.SecretIdNotFound"),
        ({"secret_key": "0" * 32}, "AuthFailure.SignatureFailure"),
        ({"sdk_app_id": "1400000000"}, "UnauthorizedOperation.SmsSdkAppIdVerifyFail"),
        ({"sign_name": "别家医院"}, "FailedOperation.SignatureIncorrectOrUnapproved"),
    ],
)
async def test_a_wrong_set_up_is_for_an_operator(world: SmsOfTests, params: dict[str, str], code: str) -> None:
    result = await world.messenger().send(world.account(None, **params), a_message())
    assert result == SendResult(outcome=SendOutcome.MISCONFIGURED, code=code)
    assert world.texts() == []


async def test_a_clock_that_is_wrong_is_for_an_operator(world: SmsOfTests) -> None:
    api = SmsApi(transport=world.transport(), clock=ManualClock(NOON + timedelta(minutes=6)))
    result = await SmsMessenger(api=api, clock=world.clock).send(world.account(), a_message())
    assert result == SendResult(outcome=SendOutcome.MISCONFIGURED, code="AuthFailure.SignatureExpire")


@pytest.mark.parametrize(
    ("template", "outcome", "code"),
    [
        (("999", ["amount"]), SendOutcome.MISCONFIGURED, "FailedOperation.TemplateIncorrectOrUnapproved"),
        (("", ["amount"]), SendOutcome.MISCONFIGURED, "FailedOperation.TemplateParamSetNotMatchApprovedTemplate"),
    ],
)
async def test_a_template_that_is_not_the_approved_one_is_for_an_operator(
    world: SmsOfTests, template: tuple[str, list[str]], outcome: SendOutcome, code: str
) -> None:
    entry = json.dumps({"id": template[0] or world.paid, "params": template[1]})
    result = await world.messenger().send(world.account(templates={"paid": entry}), a_message())
    assert result == SendResult(outcome=outcome, code=code)


async def test_who_answered_r_gets_nothing(world: SmsOfTests) -> None:
    world.simulator.block(PHONE)
    result = await world.messenger().send(world.account(), a_message())
    assert (result.outcome, result.code) == (SendOutcome.NEVER, "FailedOperation.PhoneNumberInBlacklist")


async def test_a_used_up_package_is_for_an_operator(world: SmsOfTests) -> None:
    world.simulator.package_left = 0
    result = await world.messenger().send(world.account(), a_message())
    assert result.code == "FailedOperation.InsufficientBalanceInSmsPackage"
    assert result.outcome is SendOutcome.MISCONFIGURED


async def test_each_limit_is_over_when_we_come_back(world: SmsOfTests) -> None:
    """Eleven messages to one phone: 1 in 30 seconds, 5 in an hour, 10 a day; as the outbox does, later means later."""
    messenger, account, codes = world.messenger(), world.account(), []
    for number in range(11):
        while (result := await messenger.send(account, a_message(number))).not_before is not None:
            codes.append(result.code)
            world.clock.advance(result.not_before - world.clock.now())
        assert result.outcome is SendOutcome.ACCEPTED
    assert len(world.texts()) == 11
    assert set(codes) == {code for code in LATER if "PhoneNumber" in code and "SameContent" not in code}
    times = [message.at for message in world.simulator.messages(PHONE)]
    assert times[-1] == MIDNIGHT


async def as_the_outbox_does(world: SmsOfTests, messenger: SmsMessenger) -> str:
    """Send one message: again after NotReached, and when due after LATER; after silence never."""
    for _ in range(3):
        try:
            result = await messenger.send(world.account(), a_message())
        except NotReached:
            world.clock.advance(timedelta(minutes=1))
            continue
        except OutcomeUnknown:
            return "unknown"
        if result.not_before is None:
            return result.outcome.value
        world.clock.advance(result.not_before - world.clock.now())
    return "still trying"


ENDS = {
    "blacklist": ("never", 0),
    "arrears": ("misconfigured", 0),
    **dict.fromkeys(("request_lost", "error_500_before", "internal_error"), ("unknown", 0)),
    **dict.fromkeys(("answer_lost", "error_500_after", "garbled", "timeout_after"), ("unknown", 1)),
}


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS])
async def test_every_fault_ends_as_the_catalogue_says(world: SmsOfTests, fault: str) -> None:
    world.faults.script(fault)
    outcome = await as_the_outbox_does(world, world.messenger())
    assert (outcome, len(world.texts())) == ENDS.get(fault.removeprefix("sms."), ("accepted", 1))


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS])
async def test_every_fault_ends_so_over_loopback_too(serve: Any, fault: str) -> None:
    """An answer that comes too late is as good as lost; what hangs up has been reached."""
    world = SmsOfTests()
    world.faults.script(fault)
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:
        world.base_url = base_url
        seconds = 0.1 if fault == "sms.slow" else 5
        outcome = await as_the_outbox_does(world, world.messenger(http, call_seconds=seconds))
    ends = {**ENDS, "slow": ("unknown", 1), "not_reached": ("unknown", 0)}
    assert (outcome, len(world.texts())) == ends.get(fault.removeprefix("sms."), ("accepted", 1))


async def test_a_platform_that_nobody_can_connect_to_was_not_reached(world: SmsOfTests) -> None:
    world.faults.script("sms.not_reached")
    with pytest.raises(NotReached):
        await world.messenger().send(world.account(), a_message())
    result = await world.messenger().send(world.account(), a_message())
    assert result.outcome is SendOutcome.ACCEPTED
    assert len(world.texts()) == 1


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
    assert [record.message for record in caplog.records].count("sms_refused") == 3
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
