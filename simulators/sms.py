"""Tencent Cloud SMS, API version 2021-01-11, action SendSms, with the phones that the messages arrive at.

An operator's two questions, SendStatusStatistics and DescribeSmsTemplateList, are answered by `sms_lookups.py`.

Facts relied on, and where they were read:

- Request (cloud.tencent.com/document/api/382/55981): POST to sms.tencentcloudapi.com with a JSON body and the
  headers X-TC-Action SendSms, X-TC-Version 2021-01-11, X-TC-Region, X-TC-Timestamp, Authorization. PhoneNumberSet
  holds up to 200 numbers, all domestic or all foreign, as +8613800000000; a domestic number may also come with
  0086, with 86 or without a prefix. SmsSdkAppId and TemplateId are text; SignName is the approved text itself,
  compulsory for domestic messages; TemplateParamSet has as many texts as the template has variables; SessionContext
  is under 512 bytes and comes back unchanged.
- Answer: {"Response": {"SendStatusSet": [{SerialNo, PhoneNumber, Fee, SessionContext, Code, Message, IsoCode}],
  "RequestId"}}; Code "Ok" is success, any other is that number's own refusal. An error of the whole call is
  {"Response": {"Error": {"Code", "Message"}, "RequestId"}}. Both are HTTP 200
  (document/api/382/59177, /38780; data type SendStatus in the platform's published Python package).
- Codes and their meanings: the same pages. A refused number has an empty SerialNo and Fee 0.
- Signature: `sms_signing.py`.
- Text (document/product/382/18058): 【sign】 before the template; up to 70 characters is one message, longer ones
  count 67 each. A variable is {1}, {2}, …; its length limit depends on the account (382/39023: six characters for
  new accounts; here 12 unless told); no addresses in variables; those of a verification code are 0 to 6 digits.
- Frequency: limits per phone in 30 seconds, an hour and a day are set in the console; its defaults, as generally
  known and not read for this file, are 1, 5 and 10.

Not established: which refusals of a single number the real platform sends as an error of the whole call. Here
signature, account, application and shape are errors of the call; sign, template, number and limits are the number's.

Control endpoints, never struck by a fault: GET /_messages?phone=13800000000 · GET /_books ·
POST /_block {"phone"} · POST /_unblock {"phone"}.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from simulators.clock import Clock
from simulators.faults import Faults
from simulators.kit import Deliveries, Delivery, Request, Response
from simulators.sms_faults import FAULTS, NAME, SEND, STATISTICS, TEMPLATES
from simulators.sms_lookups import SentHours, template_list
from simulators.sms_phones import Limits, Phone, PhoneText
from simulators.sms_rules import (
    APPROVED,
    CONTENT_CHARACTERS_MAX,
    CallError,
    NumberRefusal,
    SmsTemplate,
    fee_of,
    has_numbered_variables,
    number_of,
    rendered,
    whole,
)
from simulators.sms_signing import Signed, Unsigned, check

VERSION, SERVICE = "2021-01-11", "sms"
ACTIONS = {"SendSms": SEND, "SendStatusStatistics": STATISTICS, "DescribeSmsTemplateList": TEMPLATES}


@dataclass(frozen=True, kw_only=True)
class SmsAccount:
    """What an operator copies from the console."""

    secret_id: str
    secret_key: str
    sdk_app_id: str


class SmsSimulator:
    """The platform's server side; `account` holds the only customer's keys."""

    name = NAME

    def __init__(
        self,
        *,
        clock: Clock,
        faults: Faults,
        seed: int = 0,
        per_30_seconds: int = 1,
        per_hour: int = 5,
        per_day: int = 10,
        parameter_characters_max: int = 12,
        slow_seconds: float = 12.0,
    ) -> None:
        self.clock = clock
        self.faults = faults
        self.deliveries = Deliveries()
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()  # "Ok" and every other code
        self.package_left: int | None = None  # messages that are paid for; None: any number
        self._seed = seed
        self._limits = Limits(per_30_seconds=per_30_seconds, per_hour=per_hour, per_day=per_day)
        self._parameter_characters_max = parameter_characters_max
        self._slow_seconds = slow_seconds
        self.account = SmsAccount(
            secret_id="AKID" + self._hex("secret id", length=32),
            secret_key=self._hex("secret key", length=32),
            sdk_app_id="1400" + str(int(self._hex("app", length=8), 16) % 1_000_000).zfill(6),
        )
        self._signs: set[str] = set()
        self._templates: dict[str, SmsTemplate] = {}
        self._phones: dict[str, Phone] = {}
        self._hours = SentHours()
        self._made = 0
        faults.register(FAULTS)

    # ------------------------------------------------------------ set-up and people

    def approve_sign(self, sign: str) -> None:
        """A sign is approved: the text in 【】, 2 to 12 characters."""
        if not 2 <= len(sign) <= 12:
            raise ValueError("a sign has 2 to 12 characters")
        self._signs.add(sign)

    def approve_template(
        self, text: str, *, kind: str = "notice", template_id: str = "", status_code: int = APPROVED
    ) -> str:
        """A template is approved, e.g. "您有{1}元待缴费用。"; returns its id. `kind`: notice or code."""
        if kind not in {"notice", "code"}:
            raise ValueError(f"no such kind of template: {kind}")
        if not has_numbered_variables(text):
            raise ValueError("variables are numbered from 1 without a gap")
        number = int(self._hex("template", text, length=8), 16) % 9_000_000 + 1_000_000
        template_id = template_id or str(number)
        self._templates[template_id] = SmsTemplate(
            template_id=template_id, text=text, kind=kind, status_code=status_code
        )
        return template_id

    def block(self, phone: str) -> None:
        """The person has answered R: nothing more arrives."""
        self._phone(phone).blocked = True

    def unblock(self, phone: str) -> None:
        self._phone(phone).blocked = False

    def messages(self, phone: str) -> tuple[PhoneText, ...]:
        """What this phone shows, oldest first."""
        return tuple(self._phone(phone).messages)

    def books(self) -> dict[str, Any]:
        return {
            "phones": {
                number: {"blocked": phone.blocked, "messages": [message.shown() for message in phone.messages]}
                for number, phone in sorted(self._phones.items())
            },
            "signs": sorted(self._signs),
            "templates": {each.template_id: each.text for each in self._templates.values()},
            "calls": dict(sorted(self.calls.items())),
            "answers": dict(sorted(self.answers.items())),
        }

    # ------------------------------------------------------------ simulators.kit

    def classify(self, request: Request) -> tuple[str, str]:
        if request.path.startswith("/_"):
            return "console", ""
        try:
            body = request.json()
        except ValueError:
            body = None
        numbers = body.get("PhoneNumberSet") if isinstance(body, dict) else None
        first = numbers[0] if isinstance(numbers, list) and numbers else ""
        call = ACTIONS.get(request.headers.get("x-tc-action", ""), SEND)
        return call, first if isinstance(first, str) else ""

    async def handle(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return self._console(request)
        if request.path != "/":
            return Response(status=404)
        call, key = self.classify(request)
        self.calls[call] += 1
        request_id = self._request_id()
        fault = self.faults.pick(self.name, call, key, specific=True)
        struck = fault.name.removeprefix(f"{self.name}.") if fault else ""
        try:
            found = self._answer(call, self._proven(request, struck), struck)
        except CallError as error:
            self.answers[error.code] += 1
            found = {"Error": {"Code": error.code, "Message": error.message}}
        if struck == "slow":
            await asyncio.sleep(self._slow_seconds)
        return Response.of_json({"Response": {**found, "RequestId": request_id}})

    def delivered(self, delivery: Delivery, response: Response | None) -> None:
        """Receipts are not sent by this simulator."""

    # ------------------------------------------------------------ the call

    def _answer(self, call: str, body: Mapping[str, Any], struck: str) -> dict[str, Any]:
        """Raises CallError."""
        if call == STATISTICS:
            return self._hours.answer(body, self.account.sdk_app_id)
        if call == TEMPLATES:
            return template_list(body, self._templates)
        statuses = self._send(whole(body, self.account.sdk_app_id), struck)
        self._hours.note(self.clock.now(), statuses)
        for status in statuses:
            self.answers[status["Code"]] += 1
        return {"SendStatusSet": statuses}

    def _proven(self, request: Request, struck: str) -> dict[str, Any]:
        """The parameters of a call that is properly signed. Raises CallError."""
        if request.method != "POST":
            raise CallError("UnsupportedProtocol", "Only POST is offered here.")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise CallError("InvalidParameter", "Content-Type must be application/json.")
        signed = Signed(method=request.method, query=request.query, headers=request.headers, body=request.body)
        try:
            check(
                signed,
                keys={self.account.secret_id: self.account.secret_key},
                service=SERVICE,
                now=self.clock.now(),
            )
        except Unsigned as refused:
            raise CallError(refused.code, refused.message) from refused
        if request.headers.get("x-tc-action") not in ACTIONS:
            raise CallError("InvalidAction", "The request action is not found.")
        if request.headers.get("x-tc-version") != VERSION:
            raise CallError("NoSuchVersion", "The API version does not exist.")
        if not request.headers.get("x-tc-region"):
            raise CallError("MissingParameter", "The request is missing a required parameter `Region`.")
        if struck == "internal_error":
            raise CallError("InternalError.OtherError", "other error")
        if struck == "rate":
            raise CallError(
                "RequestLimitExceeded", "Your current request times exceed the limit of 3000 times a second."
            )
        if struck == "arrears":
            raise CallError("UnauthorizedOperation.ServiceSuspendDueToArrears", "service suspended due to arrears")
        try:
            body = request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise CallError("InvalidParameter", "The body is no JSON object.")
        return body

    def _send(self, body: Mapping[str, Any], struck: str) -> list[dict[str, Any]]:
        statuses = []
        for given in body["PhoneNumberSet"]:
            status = {
                "SerialNo": "",
                "PhoneNumber": number_of(given),
                "Fee": 0,
                "SessionContext": body.get("SessionContext", ""),
                "Code": "Ok",
                "Message": "send success",
                "IsoCode": "CN" if number_of(given).startswith("+86") else "DEF",
            }
            try:
                message = self._deliver(number_of(given), body, struck)
                status |= {"SerialNo": message.serial_no, "Fee": message.fee}
                if struck == "timeout_after":
                    raise NumberRefusal("InternalError.Timeout", "timeout")
            except NumberRefusal as refusal:
                status |= {"SerialNo": "", "Fee": 0, "Code": refusal.code, "Message": refusal.message}
            statuses.append(status)
        return statuses

    def _deliver(self, number: str, body: Mapping[str, Any], struck: str) -> PhoneText:
        """Raises NumberRefusal."""
        if not re.fullmatch(r"\+86(1[3-9]\d{9})|\+(?!86)\d{6,15}", number):
            raise NumberRefusal("InvalidParameterValue.IncorrectPhoneNumber", "incorrect phone number")
        if not number.startswith("+86"):
            raise NumberRefusal(
                "UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone", "mainland template to a foreign phone"
            )
        if body.get("SignName") not in self._signs:
            raise NumberRefusal(
                "FailedOperation.SignatureIncorrectOrUnapproved", "signature is incorrect or not approved"
            )
        template, values = self._templates.get(body["TemplateId"]), body.get("TemplateParamSet", [])
        content = rendered(template, values, self._parameter_characters_max)
        text = f"【{body['SignName']}】{content}"
        if len(text) > CONTENT_CHARACTERS_MAX:
            raise NumberRefusal("InvalidParameterValue.ContentLengthLimit", "content is too long")
        phone = self._phone(number)
        if phone.blocked or struck == "blacklist":
            raise NumberRefusal("FailedOperation.PhoneNumberInBlacklist", "the number is in the blacklist")
        phone.check(self._limits, self.clock.now(), struck)
        fee = fee_of(text)
        if self.package_left is not None:
            if self.package_left < fee:
                raise NumberRefusal(
                    "FailedOperation.InsufficientBalanceInSmsPackage", "insufficient balance in package"
                )
            self.package_left -= fee
        self._made += 1
        serial_no = (
            f"{int(self._hex('node', number, length=4), 16)}:{int(self._hex('serial', self._made, length=24), 16)}"
        )
        message = PhoneText(
            at=self.clock.now(),
            phone=number,
            serial_no=serial_no,
            template_id=body["TemplateId"],
            text=text,
            fee=fee,
            session_context=body.get("SessionContext", ""),
        )
        phone.messages.append(message)
        return message

    # ------------------------------------------------------------ the console, made-up words

    def _console(self, request: Request) -> Response:
        query = dict(parse_qsl(request.query))
        try:
            match (request.method, request.path):
                case ("GET", "/_messages"):
                    return Response.of_json([message.shown() for message in self.messages(query["phone"])])
                case ("GET", "/_books"):
                    return Response.of_json(self.books())
                case ("POST", "/_block"):
                    self.block(request.json()["phone"])
                case ("POST", "/_unblock"):
                    self.unblock(request.json()["phone"])
                case _:
                    raise KeyError(request.path)
        except (KeyError, TypeError, ValueError) as error:
            return Response.of_json({"error": f"{type(error).__name__}: {error}"}, status=404)
        return Response.of_json({})

    def _phone(self, number: str) -> Phone:
        return self._phones.setdefault(number_of(number), Phone())

    def _request_id(self) -> str:
        text = self._hex("request", self.calls.total(), length=32)
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _hex(self, *parts: object, length: int) -> str:
        text = "\x1f".join([str(self._seed), *map(str, parts)])
        return hashlib.sha256(text.encode()).hexdigest()[:length]


__all__ = ["PhoneText", "SmsAccount", "SmsSimulator", "SmsTemplate"]
