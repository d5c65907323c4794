"""The simulated text message platform, spoken to by requests that are signed by hand."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Refused
from simulators.clock import ManualClock
from simulators.faults import Effect, Faults
from simulators.kit import ConnectionLost, NeverConnected, Request, create_app, exchange
from simulators.sms import SmsSimulator
from simulators.sms_faults import FAULTS, SEND
from simulators.sms_signing import Signed, Unsigned, check, signature
from tests.support.sms import SmsOfTests
from wire.http import HttpClient, HttpRequest

NOON = datetime(2026, 5, 6, 4, 0, tzinfo=UTC)
PHONE = "+8613800000000"
SIGN = "仁和医院"


class World:
    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock(NOON)
        self.faults = Faults()
        self.simulator = SmsSimulator(clock=self.clock, faults=self.faults, seed=7, slow_seconds=0.2, **limits)
        self.simulator.approve_sign(SIGN)
        self.bill = self.simulator.approve_template("您有{1}项费用共{2}元待缴，请打开公众号查看。")
        self.code = self.simulator.approve_template("验证码{1}，5分钟内有效。", kind="code")

    def body(self, **changes: Any) -> dict[str, Any]:
        values = {
            "PhoneNumberSet": [PHONE],
            "SmsSdkAppId": self.simulator.account.sdk_app_id,
            "SignName": SIGN,
            "TemplateId": self.bill,
            "TemplateParamSet": ["2", "19.98"],
            "SessionContext": "m1",
            **changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    def request(self, body: Any = None, **changes: Any) -> Request:
        """A signed request; changes: skew (seconds), key, secret_id, names, action, tamper, headers (after signing)."""
        data = json.dumps(self.body() if body is None else body).encode()
        at = self.clock.now() + timedelta(seconds=changes.get("skew", 0))
        account = self.simulator.account
        headers = {
            "content-type": "application/json; charset=utf-8",
            "host": "sms.test:8080",
            "x-tc-action": changes.get("action", "SendSms"),
            "x-tc-version": "2021-01-11",
            "x-tc-region": "ap-guangzhou",
            "x-tc-timestamp": str(int(at.timestamp())),
        }
        names = changes.get("names", "content-type;host;x-tc-action")
        date = changes.get("date", at.date().isoformat())
        service = changes.get("service", "sms")
        canonical = "\n".join(
            [
                "POST",
                "/",
                "",
                "".join(f"{name}:{headers[name].lower()}\n" for name in names.split(";")),
                names,
                hashlib.sha256(data).hexdigest(),
            ]
        )
        scope = f"{date}/{service}/tc3_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"TC3-HMAC-SHA256\n{headers['x-tc-timestamp']}\n{scope}\n{digest}"
        key = ("TC3" + changes.get("key", account.secret_key)).encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"TC3-HMAC-SHA256 Credential={changes.get('secret_id', account.secret_id)}/{scope}, "
            f"SignedHeaders={names}, Signature={key.hex()}"
        )
        headers |= changes.get("headers", {})
        headers = {name: value for name, value in headers.items() if value}
        return Request(
            method="POST", target=changes.get("target", "/"), headers=headers, body=data + changes.get("tamper", b"")
        )

    async def ask(self, body: Any = None, **changes: Any) -> dict[str, Any]:
        response = await exchange(self.simulator, self.request(body, **changes))
        assert response.status == 200
        answer: dict[str, Any] = json.loads(response.body)["Response"]
        assert len(answer["RequestId"]) == 36
        return answer

    async def error(self, body: Any = None, **changes: Any) -> str:
        code: str = (await self.ask(body, **changes))["Error"]["Code"]
        return code

    async def code_of(self, **changes: Any) -> str:
        (status,) = (await self.ask(self.body(**changes)))["SendStatusSet"]
        assert (status["SerialNo"] == "", status["Fee"] == 0) == (status["Code"] != "Ok",) * 2
        code: str = status["Code"]
        return code


@pytest.fixture
def world() -> World:
    return World()


# ---------------------------------------------------------------- signature


def test_the_published_example_has_the_published_signature() -> None:
    body = b'{"Limit": 1, "Filters": [{"Values": ["\\u672a\\u547d\\u540d"], "Name": "instance-name"}]}'
    headers = {
        "content-type": "application/json; charset=utf-8",
        "host": "cvm.tencentcloudapi.com",
        "x-tc-action": "DescribeInstances",
    }
    signed = Signed(method="POST", query="", headers=headers, body=body)
    for secret_key, names, expected in (
        (
            "Gu5t9xGARNpq86cd98joQYCN3*******",
            "content-type;host",
            "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
        ),
        (
            "*" * 32,
            "content-type;host;x-tc-action",
            "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
        ),
    ):
        given = signature(
            signed, names=names, secret_key=secret_key, date="2019-02-25", service="cvm", timestamp="1551113065"
        )
        assert given == expected
        authorization = (
            f"TC3-HMAC-SHA256 Credential=AKID/2019-02-25/cvm/tc3_request, SignedHeaders={names}, Signature={expected}"
        )
        whole = Signed(
            method="POST",
            query="",
            headers={**headers, "x-tc-timestamp": "1551113065", "authorization": authorization},
            body=body,
        )
        at = datetime.fromtimestamp(1551113065, UTC)
        assert check(whole, keys={"AKID": secret_key}, service="cvm", now=at) == "AKID"
        with pytest.raises(Unsigned, match="SignatureFailure"):
            check(whole, keys={"AKID": secret_key}, service="sms", now=at)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": "x"}, "AuthFailure.SignatureFailure"),
        ({"tamper": b" "}, "AuthFailure.SignatureFailure"),
        ({"target": "/?a=b"}, "AuthFailure.SignatureFailure"),
        ({"date": "2026-05-07"}, "AuthFailure.SignatureFailure"),
        ({"service": "cvm"}, "AuthFailure.SignatureFailure"),
        ({"names": "host"}, "AuthFailure.SignatureFailure"),
        ({"names": "host;content-type"}, "AuthFailure.SignatureFailure"),
        ({"headers": {"host": "other.test"}}, "AuthFailure.SignatureFailure"),
        ({"headers": {"x-tc-action": "AddSmsSign"}}, "AuthFailure.SignatureFailure"),
        ({"names": "content-type;host", "headers": {"x-tc-action": "AddSmsSign"}}, "InvalidAction"),
        ({"secret_id": "AKIDx"}, "AuthFailure.SecretIdNotFound"),
        ({"skew": 301}, "AuthFailure.SignatureExpire"),
        ({"skew": -301}, "AuthFailure.SignatureExpire"),
        ({"headers": {"authorization": "Bearer x"}}, "AuthFailure.InvalidAuthorization"),
        ({"headers": {"authorization": ""}}, "AuthFailure.InvalidAuthorization"),
        ({"headers": {"x-tc-timestamp": ""}}, "MissingParameter"),
        ({"headers": {"x-tc-version": "2019-07-11"}}, "NoSuchVersion"),
        ({"headers": {"x-tc-region": ""}}, "MissingParameter"),
        ({"headers": {"content-type": "text/plain"}}, "InvalidParameter"),
    ],
)
async def test_what_is_not_properly_signed_sends_nothing(world: World, changes: dict[str, Any], code: str) -> None:
    assert await world.error(**changes) == code
    assert world.simulator.messages(PHONE) == ()


@pytest.mark.parametrize("skew", [300, 0, -300])
@pytest.mark.parametrize("names", ["content-type;host", "content-type;host;x-tc-action"])
async def test_what_is_properly_signed_is_sent(world: World, skew: int, names: str) -> None:
    (status,) = (await world.ask(skew=skew, names=names))["SendStatusSet"]
    assert set(status) == {"SerialNo", "PhoneNumber", "Fee", "SessionContext", "Code", "Message", "IsoCode"}
    assert (status["Code"], status["PhoneNumber"], status["Fee"]) == ("Ok", PHONE, 1)
    assert (status["SessionContext"], status["IsoCode"]) == ("m1", "CN")
    (message,) = world.simulator.messages("13800000000")
    assert message.text == "【仁和医院】您有2项费用共19.98元待缴，请打开公众号查看。"
    assert (message.serial_no, message.at) == (status["SerialNo"], NOON)


# ---------------------------------------------------------------- shape and rules


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PhoneNumberSet": None}, "MissingParameter"),
        ({"SmsSdkAppId": None}, "MissingParameter"),
        ({"TemplateId": None}, "MissingParameter"),
        ({"PhoneNumberSet": []}, "MissingParameter.EmptyPhoneNumberSet"),
        ({"PhoneNumberSet": PHONE}, "InvalidParameter"),
        ({"PhoneNumberSet": [13800000000]}, "InvalidParameter"),
        ({"TemplateId": 1}, "InvalidParameter"),
        ({"Sign": SIGN}, "UnknownParameter"),
        ({"PhoneNumberSet": [PHONE] * 201}, "LimitExceeded.PhoneNumberCountLimit"),
        (
            {"PhoneNumberSet": [PHONE, "+85212345678"]},
            "UnsupportedOperation.ContainDomesticAndInternationalPhoneNumber",
        ),
        ({"SmsSdkAppId": "1400000001"}, "UnauthorizedOperation.SmsSdkAppIdVerifyFail"),
        ({"SessionContext": "x" * 512}, "InvalidParameterValue"),
    ],
)
async def test_a_call_of_the_wrong_shape_is_an_error(world: World, changes: dict[str, Any], code: str) -> None:
    assert await world.error(world.body(**changes)) == code


async def test_a_body_that_is_no_object_is_an_error(world: World) -> None:
    assert await world.error(["x"]) == "InvalidParameter"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PhoneNumberSet": ["13800000000"]}, "Ok"),
        ({"PhoneNumberSet": ["8613800000000"]}, "Ok"),
        ({"PhoneNumberSet": ["008613800000000"]}, "Ok"),
        ({"PhoneNumberSet": ["+861380000000"]}, "InvalidParameterValue.IncorrectPhoneNumber"),
        ({"PhoneNumberSet": ["+85212345678"]}, "UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone"),
        ({"SignName": "别的医院"}, "FailedOperation.SignatureIncorrectOrUnapproved"),
        ({"SignName": None}, "FailedOperation.SignatureIncorrectOrUnapproved"),
        ({"TemplateId": "1"}, "FailedOperation.TemplateIncorrectOrUnapproved"),
        ({"TemplateParamSet": ["2"]}, "FailedOperation.TemplateParamSetNotMatchApprovedTemplate"),
        ({"TemplateParamSet": None}, "FailedOperation.TemplateParamSetNotMatchApprovedTemplate"),
        ({"TemplateParamSet": ["2", "x" * 13]}, "InvalidParameterValue.TemplateParameterLengthLimit"),
        ({"TemplateParamSet": ["2", "http://a"]}, "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter"),
    ],
)
async def test_a_number_is_refused_by_its_own_code(world: World, changes: dict[str, Any], code: str) -> None:
    assert await world.code_of(**changes) == code


async def test_a_verification_code_is_up_to_six_digits(world: World) -> None:
    wrong = "InvalidParameterValue.TemplateParameterFormatError"
    for value, code in (("12a4", wrong), ("1234567", wrong), ("123456", "Ok")):
        assert await world.code_of(TemplateId=world.code, TemplateParamSet=[value]) == code


async def test_limits_in_30_seconds_an_hour_and_a_day_of_shanghai(world: World) -> None:
    assert [await world.code_of() for _ in range(2)] == ["Ok", "LimitExceeded.PhoneNumberThirtySecondLimit"]
    for _ in range(4):
        world.clock.advance(timedelta(seconds=30))
        assert await world.code_of() == "Ok"
    world.clock.advance(timedelta(seconds=30))
    assert await world.code_of() == "LimitExceeded.PhoneNumberOneHourLimit"
    for _ in range(5):
        world.clock.advance(timedelta(hours=1))
        assert await world.code_of() == "Ok"
    world.clock.advance(timedelta(hours=1))
    assert await world.code_of() == "LimitExceeded.PhoneNumberDailyLimit"
    assert await world.code_of(PhoneNumberSet=["+8613900000000"]) == "Ok"
    world.clock.advance(datetime(2026, 5, 6, 16, 0, tzinfo=UTC) - world.clock.now())  # midnight in Shanghai
    assert await world.code_of() == "Ok"


async def test_a_day_begins_at_midnight_in_shanghai() -> None:
    world = World(per_day=1)
    world.clock.advance(datetime(2026, 5, 6, 15, 59, tzinfo=UTC) - world.clock.now())
    codes = []
    for _ in range(3):
        codes.append(await world.code_of())
        world.clock.advance(timedelta(minutes=1))
    assert codes == ["Ok", "Ok", "LimitExceeded.PhoneNumberDailyLimit"]


async def test_long_texts_count_as_several_and_use_up_the_package() -> None:
    world = World(per_30_seconds=9)
    long = world.simulator.approve_template("缴" * 64)  # 70 with the sign
    longer = world.simulator.approve_template("缴" * 65)
    world.simulator.package_left = 4
    fees = []
    for template in (long, longer, longer):
        (status,) = (await world.ask(world.body(TemplateId=template, TemplateParamSet=[])))["SendStatusSet"]
        fees.append((status["Code"], status["Fee"]))
    assert fees == [("Ok", 1), ("Ok", 2), ("FailedOperation.InsufficientBalanceInSmsPackage", 0)]
    with pytest.raises(ValueError, match="numbered"):
        world.simulator.approve_template("{2}元")


async def test_numbers_of_one_call_are_decided_one_by_one(world: World) -> None:
    other = "+8613900000000"
    world.simulator.block(other)
    statuses = (await world.ask(world.body(PhoneNumberSet=[PHONE, other])))["SendStatusSet"]
    assert [(each["PhoneNumber"], each["Code"]) for each in statuses] == [
        (PHONE, "Ok"),
        (other, "FailedOperation.PhoneNumberInBlacklist"),
    ]
    world.simulator.unblock(other)
    assert await world.code_of(PhoneNumberSet=[other]) == "Ok"


async def test_the_same_seed_gives_the_same_world(world: World) -> None:
    other = World()
    assert world.simulator.account == other.simulator.account
    assert (await world.ask()) == (await other.ask())
    different = SmsSimulator(clock=world.clock, faults=Faults(), seed=8)
    assert different.account != world.simulator.account


# ---------------------------------------------------------------- what an operator asks


async def test_statistics_count_whole_hours_of_shanghai(world: World) -> None:
    long = world.simulator.approve_template("缴" * 65)
    await world.code_of()
    assert await world.code_of() == "LimitExceeded.PhoneNumberThirtySecondLimit"
    world.clock.advance(timedelta(hours=1))
    assert await world.code_of(TemplateId=long, TemplateParamSet=[]) == "Ok"

    async def counts(begin: str, end: str) -> Any:
        body = statistics(world, BeginTime=begin, EndTime=end)
        answer = await world.ask(body, action="SendStatusStatistics")
        assert set(answer) == {"SendStatusStatistics", "RequestId"}
        return answer["SendStatusStatistics"]

    first = {"FeeCount": 1, "RequestCount": 2, "RequestSuccessCount": 1}
    second = {"FeeCount": 2, "RequestCount": 1, "RequestSuccessCount": 1}
    assert await counts("2026050612", "2026050612") == first
    assert await counts("2026050613", "2026050613") == second
    assert await counts("2026050612", "2026050613") == {name: first[name] + second[name] for name in first}
    assert await counts("2026050614", "2026050614") == dict.fromkeys(first, 0)
    assert world.simulator.calls["send_status_statistics"] == 4


def statistics(world: World, **changes: Any) -> dict[str, Any]:
    values = {
        "BeginTime": "2026050612",
        "EndTime": "2026050612",
        "SmsSdkAppId": world.simulator.account.sdk_app_id,
        "Limit": 0,
        "Offset": 0,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Limit": None}, "MissingParameter"),
        ({"BeginTime": 2026050612}, "InvalidParameter"),
        ({"Limit": False}, "InvalidParameter"),
        ({"International": 0}, "UnknownParameter"),
        ({"BeginTime": "20260506"}, "InvalidParameterValue.BeginTimeVerifyFail"),
        ({"EndTime": "2026050611"}, "InvalidParameterValue.EndTimeVerifyFail"),
        ({"SmsSdkAppId": "1400000001"}, "UnauthorizedOperation.SmsSdkAppIdVerifyFail"),
    ],
)
async def test_a_question_for_statistics_has_its_shape(world: World, changes: dict[str, Any], code: str) -> None:
    assert await world.error(statistics(world, **changes), action="SendStatusStatistics") == code
    assert await world.error(statistics(world), action="SendStatusStatistics", key="x") == (
        "AuthFailure.SignatureFailure"
    )


async def test_templates_are_told_by_id_or_page_by_page(world: World) -> None:
    refused = world.simulator.approve_template("您的{1}已到账。", status_code=-1)

    async def told(**body: Any) -> list[dict[str, Any]]:
        answer = await world.ask({"International": 0, **body}, action="DescribeSmsTemplateList")
        found: list[dict[str, Any]] = answer["DescribeTemplateStatusSet"]
        return found

    (bill, other) = await told(TemplateIdSet=[int(world.bill), int(refused), 1])
    assert bill == {
        "TemplateName": f"template {world.bill}",
        "TemplateId": int(world.bill),
        "International": 0,
        "ReviewReply": "",
        "CreateTime": 1617379200,
        "TemplateContent": "您有{1}项费用共{2}元待缴，请打开公众号查看。",
        "StatusCode": 0,
    }
    assert (other["TemplateId"], other["StatusCode"]) == (int(refused), -1)
    assert [each["TemplateId"] for each in await told(Limit=2, Offset=1)] == [int(world.code), int(refused)]
    assert await told() == []
    assert await told(International=1, TemplateIdSet=[int(world.bill)]) == []
    for body, code in (
        ({"TemplateIdSet": [int(world.bill)]}, "MissingParameter"),
        ({"International": 0, "TemplateIdSet": [world.bill]}, "InvalidParameter"),
        ({"International": 0, "TemplateIdSet": [1] * 101}, "InvalidParameterValue"),
        ({"International": 0, "TemplateIds": []}, "UnknownParameter"),
    ):
        assert await world.error(body, action="DescribeSmsTemplateList") == code
    assert await world.code_of(TemplateId=refused, TemplateParamSet=["x"]) == (
        "FailedOperation.TemplateIncorrectOrUnapproved"
    )


async def test_our_adapters_check_is_content_with_an_account_that_is_whole() -> None:
    sms = SmsOfTests()
    assert await sms.messenger().check(sms.account()) == "the application is ours; 2 templates approved"
    assert sms.texts() == []
    refused = sms.simulator.approve_template("您的{1}已到账。", status_code=1)
    for params, templates, code in (
        ({"secret_key": "x"}, None, "AuthFailure.SignatureFailure"),
        ({"sdk_app_id": "1400000001"}, None, "UnauthorizedOperation.SmsSdkAppIdVerifyFail"),
        ({}, {"paid": json.dumps({"id": refused, "params": ["title"]})}, f"template_{refused}"),
        ({}, {"paid": json.dumps({"id": sms.paid, "params": ["title"]})}, f"template_{sms.paid}"),
        ({}, {"paid": json.dumps({"id": "99", "params": ["title"]})}, "template_99"),
    ):
        with pytest.raises(Refused) as caught:
            await sms.messenger().check(sms.account(templates, **params))
        assert caught.value.code == code


# ---------------------------------------------------------------- faults, console, real HTTP


async def test_named_faults(world: World) -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    expected = {
        "internal_error": ("InternalError.OtherError", 0),
        "rate": ("RequestLimitExceeded", 0),
        "arrears": ("UnauthorizedOperation.ServiceSuspendDueToArrears", 0),
        "timeout_after": ("InternalError.Timeout", 1),
        "slow": ("Ok", 1),
        "daily_limit": ("LimitExceeded.PhoneNumberDailyLimit", 0),
        "thirty_second_limit": ("LimitExceeded.PhoneNumberThirtySecondLimit", 0),
        "blacklist": ("FailedOperation.PhoneNumberInBlacklist", 0),
        "not_reached": ("", 0),
        "request_lost": ("", 0),
        "answer_lost": ("", 1),
        "error_500_before": ("", 0),
        "error_500_after": ("", 1),
        "garbled": ("", 1),
    }
    assert {fault.name for fault in FAULTS} == {f"sms.{name}" for name in expected}
    for number, fault in enumerate(FAULTS):
        assert (fault.counterparty, set(fault.calls)) == ("sms", {SEND})
        phone = f"+86138000001{number:02}"
        world.faults.script(fault.name, key=phone)
        started = time.monotonic()
        code, arrived = expected[fault.name.removeprefix("sms.")]
        if fault.effect is Effect.SPECIFIC:
            answer = await world.ask(world.body(PhoneNumberSet=[phone]))
            given = answer["Error"]["Code"] if "Error" in answer else answer["SendStatusSet"][0]["Code"]
            assert given == code
        elif fault.effect in {Effect.NOT_REACHED, Effect.LOSE_REQUEST, Effect.LOSE_ANSWER}:
            with pytest.raises((NeverConnected, ConnectionLost)):
                await world.ask(world.body(PhoneNumberSet=[phone]))
        else:
            response = await exchange(world.simulator, world.request(world.body(PhoneNumberSet=[phone])))
            with pytest.raises(ValueError, match=r"."):
                json.loads(response.body)
        assert len(world.simulator.messages(phone)) == arrived, fault.name
        assert (time.monotonic() - started >= 0.2) == (fault.name == "sms.slow")


async def test_over_real_http_with_the_control_endpoints(world: World, serve: Any) -> None:
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:

        async def control(method: str, path: str, body: object = None) -> Any:
            data = b"" if body is None else json.dumps(body).encode()
            request = HttpRequest(method=method, url=base_url + path, body=data)
            return json.loads((await http.send(request, deadline_seconds=5)).body)

        request = world.request()
        headers = dict(request.headers)
        reply = await http.send(
            HttpRequest(method="POST", url=f"{base_url}/", headers=headers, body=request.body), deadline_seconds=5
        )
        (status,) = json.loads(reply.body)["Response"]["SendStatusSet"]
        assert status["Code"] == "Ok"
        (shown,) = await control("GET", "/_messages?phone=13800000000")
        assert (shown["text"], shown["session_context"]) == (world.simulator.messages(PHONE)[0].text, "m1")
        assert await control("POST", "/_block", {"phone": "13800000000"}) == {}
        assert await control("POST", "/_unblock", {"phone": "13800000000"}) == {}
        assert "error" in await control("POST", "/_nothing", {})
        books = await control("GET", "/_books")
    assert books["answers"] == {"Ok": 1}
    assert list(books["phones"]) == [PHONE]
    assert world.simulator.account.secret_key not in json.dumps(books)
