"""SMS through the simulated platform: what leaves us, and what a phone shows in the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from bot.sms.client import BASE_URL, SmsApi
from bot.sms.messenger import SmsMessenger
from core.errors import NotReached, OutcomeUnknown
from core.ports import MessageKind, SendOutcome, SendResult
from simulators.clock import ManualClock
from simulators.kit import create_app
from simulators.sms_faults import FAULTS
from tests.support.sms import NOON, PHONE, SIGN, Says, SmsOfTests, a_message, a_status
from wire.http import HttpClient


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
    assert set(codes) == {
        "LimitExceeded.PhoneNumberThirtySecondLimit",
        "LimitExceeded.PhoneNumberOneHourLimit",
        "LimitExceeded.PhoneNumberDailyLimit",
    }
    times = [message.at for message in world.simulator.messages(PHONE)]
    assert times[-1] == datetime(2026, 5, 6, 16, 5, tzinfo=UTC)  # five past midnight in Shanghai


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
