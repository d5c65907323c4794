"""Tencent Cloud SMS's codes, template variables and phone numbers ↔ ours. Pure.

Codes: cloud.tencent.com/document/api/382/59177 (of one number) and /38780 (of the whole call), and the list in the
platform's published SDKs. Variables: cloud.tencent.com/document/product/382/39023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

from bot.templates import LITERAL, BadTemplate, template_entry, value_of
from core.clock import SHANGHAI, business_day
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

# ---------------------------------------------------------------- codes


class Meaning(StrEnum):
    """What a code means to us."""

    DONE = "done"
    NEVER = "never"  # this phone cannot or will not be reached
    LATER_SOON = "later_soon"  # this phone, 30 seconds
    LATER_MINUTE = "later_minute"  # our calls are too frequent
    LATER_MINUTES = "later_minutes"  # a limit whose span is not said
    LATER_HOUR = "later_hour"
    LATER_DAY = "later_day"  # a limit per calendar day
    MISCONFIGURED = "misconfigured"  # an operator must act
    UNKNOWN = "unknown"  # the message may have left


_NEVER = (
    "FailedOperation.PhoneNumberInBlacklist",
    "FailedOperation.PhoneNumberParseFail",
    "InvalidParameterValue.IncorrectPhoneNumber",
    "LimitExceeded.AppCountryOrRegionInBlacklist",
    "UnsupportedOperation.ChineseMainlandTemplateToGlobalPhone",
    "UnsupportedOperation.UnsuportedRegion",  # their spelling, until 2022
    "UnsupportedOperation.UnsupportedRegion",
)
_LATER = {
    "LimitExceeded.PhoneNumberThirtySecondLimit": Meaning.LATER_SOON,
    "RequestLimitExceeded": Meaning.LATER_MINUTE,
    "RequestLimitExceeded.GlobalRegionUinLimitExceeded": Meaning.LATER_MINUTE,
    "RequestLimitExceeded.IPLimitExceeded": Meaning.LATER_MINUTE,
    "RequestLimitExceeded.UinLimitExceeded": Meaning.LATER_MINUTE,
    "LimitExceeded": Meaning.LATER_MINUTES,
    "LimitExceeded.DeliveryFrequencyLimit": Meaning.LATER_MINUTES,
    "LimitExceeded.PhoneNumberOneHourLimit": Meaning.LATER_HOUR,
    "LimitExceeded.AppCountryOrRegionDailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.AppDailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.AppGlobalDailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.AppMainlandChinaDailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.DailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.PhoneNumberDailyLimit": Meaning.LATER_DAY,
    "LimitExceeded.PhoneNumberSameContentDailyLimit": Meaning.LATER_DAY,
}
_MISCONFIGURED = (
    # Who we are, and our clock.
    "AuthFailure.InvalidAuthorization", "AuthFailure.InvalidSecretId", "AuthFailure.MFAFailure",
    "AuthFailure.SecretIdNotFound", "AuthFailure.SignatureExpire", "AuthFailure.SignatureFailure",
    "AuthFailure.TokenFailure", "AuthFailure.UnauthorizedOperation",
    "InternalError.RequestTimeException", "InternalError.SigFieldMissing", "InternalError.SigVerificationFail",
    "IpInBlacklist", "IpNotInWhitelist", "UnauthorizedOperation", "UnauthorizedOperation.RequestIpNotInWhitelist",
    "UnauthorizedOperation.RequestPermissionDeny", "FailedOperation.ProhibitSubAccountUse",
    "FailedOperation.NotEnterpriseCertification",
    # The application and what is paid for.
    "InvalidParameter.AppidAndBizId", "InvalidParameterValue.SdkAppIdNotExist",
    "InvalidParameterValue.SdkAppidNotExist", "UnauthorizedOperation.SdkAppIdIsDisabled",
    "UnauthorizedOperation.SdkAppidIsDisabled", "UnauthorizedOperation.SmsSdkAppIdVerifyFail",
    "UnauthorizedOperation.SmsSdkAppidVerifyFail", "UnauthorizedOperation.ServiceSuspendDueToArrears",
    "UnauthorizedOperation.SerivceSuspendDueToArrears",  # their spelling, until 2024
    "FailedOperation.InsufficientBalanceInSmsPackage",
    "UnauthorizedOperation.IndividualUserMarketingSmsPermissionDeny",
    # The sign, the template, and what we put into it.
    "FailedOperation.SignatureIncorrectOrUnapproved", "FailedOperation.TemplateIncorrectOrUnapproved",
    "FailedOperation.TemplateUnapprovedOrNotExist", "FailedOperation.TemplateIdNotExist",
    "FailedOperation.TemplateParamSetNotMatchApprovedTemplate", "FailedOperation.ContainSensitiveWord",
    "FailedOperation.MarketingSendTimeConstraint", "InvalidParameterValue.ContentLengthLimit",
    "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter", "InvalidParameterValue.SignNameLengthTooLong",
    "InvalidParameterValue.TemplateParameterFormatError", "InvalidParameterValue.TemplateParameterLengthLimit",
    "InvalidParameterValue.UnsupportedTemplateVariable",
    "UnsupportedOperation.GlobalTemplateToChineseMainlandPhone",
    # The shape of the call, which is fixed for all messages.
    "ActionOffline", "FailedOperation.FailResolvePacket", "FailedOperation.JsonParseFail",
    "InternalError.JsonParseFail", "InternalError.RestApiInterfaceNotExist", "InvalidAction", "InvalidParameter",
    "InvalidParameter.InvalidParameters", "InvalidParameterValue", "InvalidRequest",
    "LimitExceeded.PhoneNumberCountLimit", "MissingParameter", "MissingParameter.EmptyPhoneNumberSet",
    "NoSuchProduct", "NoSuchVersion", "RequestSizeLimitExceeded", "UnknownParameter", "UnsupportedOperation",
    "UnsupportedOperation.", "UnsupportedOperation.ContainDomesticAndInternationalPhoneNumber",
    "UnsupportedProtocol", "UnsupportedRegion",
)  # fmt: skip
CODES: Mapping[str, Meaning] = {
    "Ok": Meaning.DONE,
    **dict.fromkeys(_NEVER, Meaning.NEVER),
    **_LATER,
    **dict.fromkeys(_MISCONFIGURED, Meaning.MISCONFIGURED),
}
"""The only table of the platform's codes, of a call and of a number; a code that is not here is UNKNOWN."""

_SPANS = {
    Meaning.LATER_SOON: timedelta(seconds=35),
    Meaning.LATER_MINUTE: timedelta(minutes=1),
    Meaning.LATER_MINUTES: timedelta(minutes=10),
    Meaning.LATER_HOUR: timedelta(hours=1, seconds=5),
}
"""The span of a limit and a little more: the platform's clock and counters are not ours."""

_AFTER_MIDNIGHT = time(0, 5)  # a limit per day is per calendar day in Shanghai


def meaning_of(code: str) -> Meaning:
    return CODES.get(code, Meaning.UNKNOWN)


def not_before(meaning: Meaning, now: datetime) -> datetime | None:
    """When something refused for frequency may be tried again; None for every other meaning."""
    if meaning is Meaning.LATER_DAY:
        tomorrow = business_day(now) + timedelta(days=1)
        return datetime.combine(tomorrow, _AFTER_MIDNIGHT, SHANGHAI).astimezone(UTC)
    return now + _SPANS[meaning] if meaning in _SPANS else None


def send_result(code: str, now: datetime, platform_message_id: str = "") -> SendResult | None:
    """What an answer to a send means for the message; None when it leaves open whether it was sent."""
    meaning = meaning_of(code)
    if meaning is Meaning.UNKNOWN:
        return None
    if meaning is Meaning.DONE:
        return SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id=platform_message_id)
    if meaning is Meaning.NEVER:
        return SendResult(outcome=SendOutcome.NEVER, code=code)
    if (later := not_before(meaning, now)) is not None:
        return SendResult(outcome=SendOutcome.LATER, code=code, not_before=later)
    return SendResult(outcome=SendOutcome.MISCONFIGURED, code=code)


# ---------------------------------------------------------------- phones

_MAINLAND_MOBILE = re.compile(r"(?:\+86|0086)?(?P<digits>1[3-9][0-9]{9})")


def mainland_phone(address: str) -> str:
    """The number as +8613800000000; empty when it is no mainland mobile."""
    match = _MAINLAND_MOBILE.fullmatch(re.sub(r"[ -]", "", address))
    return f"+86{match['digits']}" if match else ""


# ---------------------------------------------------------------- variables


VARIABLE_CHARACTERS_MAX = 12
"""Of an account whose limit nobody has entered; the console's page for a new template names the true one."""

CODE_DIGITS_MAX = 6
NOTICE_FIELDS = ("hospital", "title", "amount", "time", "name", "number", "status", "note")
CODE_FIELD = "code"
NOTHING = "无"
_ELLIPSIS = "…"
_WHOLE = frozenset({"amount", "time", "number"})  # half of one would say something else
_REPLACED = str.maketrans("【】", "（）", "¥￥★☞✓※^")
"""Signs are framed in 【】; the others are not offered, or arrive garbled."""

_ADDRESS = re.compile(r"(?:https?://|www\.)\S*", re.ASCII | re.IGNORECASE)
_YEAR = re.compile(r"[0-9]{4}[年-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The platform's template for one kind of message: its id, and our fields for {1}, {2}, … in this order."""

    id: str
    params: tuple[str, ...]


def template_for(account: ChatAccount, kind: MessageKind) -> Template:
    """Read `account.templates[kind]`: {"id": "1110", "params": ["amount", "time"]}. Raises BadTemplate."""
    value = template_entry(account, kind)
    template_id, params = value.get("id"), value.get("params")
    if not isinstance(template_id, str) or not re.fullmatch(r"[0-9]{1,18}", template_id):
        raise BadTemplate("bad_template")
    if not isinstance(params, list) or not all(isinstance(each, str) and each.strip(LITERAL) for each in params):
        raise BadTemplate("bad_template")
    known = (CODE_FIELD,) if kind is MessageKind.PHONE_CODE else NOTICE_FIELDS
    if unknown := [each for each in params if not each.startswith(LITERAL) and each not in known]:
        raise BadTemplate(f"unknown_field_{unknown[0]}")
    if kind is MessageKind.PHONE_CODE and CODE_FIELD not in params:
        raise BadTemplate("no_code")
    return Template(id=template_id, params=tuple(params))


def template_values(template: Template, message: OutgoingMessage, *, characters_max: int) -> list[str]:
    """The TemplateParamSet of a send, each value as the platform accepts it. Raises BadTemplate."""
    values = []
    for place, name in enumerate(template.params, 1):
        text = value_of(name, message)
        fitted = _code(text) if message.kind is MessageKind.PHONE_CODE else fit(name, text, characters_max)
        if not fitted:
            raise BadTemplate(f"unfit_{place}")
        values.append(fitted)
    return values


def fit(name: str, text: str, characters_max: int) -> str:
    """A field of ours as a value of a notice's variable; empty when it cannot be one.

    Every character counts as one, an emoji as two. Free text is cut, and 无 when empty; an amount, a time and a
    number stay whole, a time without its year where it must. Web addresses are taken out: with one of them the
    platform sends nothing.
    """
    text = "".join(each if each.isprintable() else " " for each in text.translate(_REPLACED))
    text = " ".join(_ADDRESS.sub("", text).split())
    if name == "time" and _width(text) > characters_max:
        text = _YEAR.sub("", text, count=1)
    if not text:
        return "" if name in {"amount", "time"} else NOTHING
    if _width(text) <= characters_max:
        return text
    if name in _WHOLE:
        return ""
    while _width(text) > characters_max - 1:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def _width(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _code(text: str) -> str:
    return text if re.fullmatch(rf"[0-9]{{1,{CODE_DIGITS_MAX}}}", text) else ""
