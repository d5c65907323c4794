"""The text message platform's rules for a call and for a message, apart from its books; facts in `sms.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBERS_MAX = 200
SESSION_BYTES_MAX = 512
CHARACTERS_OF_ONE, CHARACTERS_OF_PART = 70, 67
CONTENT_CHARACTERS_MAX = 500
APPROVED = 0
_FIELDS: Mapping[str, type] = {
    "PhoneNumberSet": list,
    "SmsSdkAppId": str,
    "TemplateId": str,
    "SignName": str,
    "TemplateParamSet": list,
    "ExtendCode": str,
    "SessionContext": str,
    "SenderId": str,
}
_REQUIRED = ("PhoneNumberSet", "SmsSdkAppId", "TemplateId")


class CallError(Exception):
    """An error of the whole call."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(code, message)


class NumberRefusal(CallError):
    """This number gets nothing; the others may."""


@dataclass(frozen=True, kw_only=True)
class SmsTemplate:
    template_id: str
    text: str  # with {1}, {2}, …
    kind: str  # "notice" | "code"
    status_code: int = APPROVED  # 0 approved, 1 under review, -1 refused

    @property
    def variables(self) -> int:
        return len(set(re.findall(r"\{(\d+)\}", self.text)))


def whole(body: Mapping[str, Any], sdk_app_id: str) -> dict[str, Any]:
    """The parameters, when they have the right shape and are this application's. Raises CallError."""
    for name, value in body.items():
        if name not in _FIELDS:
            raise CallError("UnknownParameter", f"The parameter `{name}` is not recognized.")
        if not isinstance(value, _FIELDS[name]) or (
            isinstance(value, list) and not all(isinstance(each, str) for each in value)
        ):
            raise CallError("InvalidParameter", f"The value type of parameter `{name}` is not valid.")
    for name in _REQUIRED:
        if name not in body:
            raise CallError("MissingParameter", f"The request is missing a required parameter `{name}`.")
    numbers = body["PhoneNumberSet"]
    if not numbers:
        raise CallError("MissingParameter.EmptyPhoneNumberSet", "phone number set is empty")
    if len(numbers) > NUMBERS_MAX:
        raise CallError("LimitExceeded.PhoneNumberCountLimit", "more than 200 phone numbers")
    if len({number_of(each).startswith("+86") for each in numbers}) > 1:
        raise CallError(
            "UnsupportedOperation.ContainDomesticAndInternationalPhoneNumber", "domestic and foreign numbers"
        )
    if body["SmsSdkAppId"] != sdk_app_id:
        raise CallError("UnauthorizedOperation.SmsSdkAppIdVerifyFail", "SmsSdkAppId verification failed")
    if len(body.get("SessionContext", "").encode()) >= SESSION_BYTES_MAX:
        raise CallError("InvalidParameterValue", "SessionContext is too long")
    return dict(body)


def rendered(template: SmsTemplate | None, values: Sequence[str], characters_max: int) -> str:
    """The template with its variables filled in. Raises NumberRefusal."""
    if template is None or template.status_code != APPROVED:
        raise NumberRefusal(
            "FailedOperation.TemplateIncorrectOrUnapproved",
            "template is not approved or request content does not match the approved template content",
        )
    if len(values) != template.variables:
        raise NumberRefusal(
            "FailedOperation.TemplateParamSetNotMatchApprovedTemplate",
            "request content does not match the template content",
        )
    for value in values:
        if template.kind == "code" and not re.fullmatch(r"[0-9]{0,6}", value):
            raise NumberRefusal("InvalidParameterValue.TemplateParameterFormatError", "digits only, six at most")
        if len(value) > characters_max:
            raise NumberRefusal("InvalidParameterValue.TemplateParameterLengthLimit", "template parameter is too long")
        if re.search(r"https?://|www\.", value, re.IGNORECASE):
            raise NumberRefusal(
                "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter", "no addresses in template parameters"
            )
    return re.sub(r"\{(\d+)\}", lambda found: values[int(found[1]) - 1], template.text)


def has_numbered_variables(text: str) -> bool:
    numbers = {int(number) for number in re.findall(r"\{(\d+)\}", text)}
    return numbers == set(range(1, len(numbers) + 1))


def fee_of(text: str) -> int:
    """How many messages this text counts as."""
    return 1 if len(text) <= CHARACTERS_OF_ONE else -(-len(text) // CHARACTERS_OF_PART)


def number_of(given: str) -> str:
    """The number as +<country><number>; a domestic one may come with 0086, 86 or nothing before it."""
    if given.startswith("+"):
        return given
    for prefix in ("0086", "86"):
        if given.startswith(prefix) and len(given) == len(prefix) + 11:
            return "+86" + given.removeprefix(prefix)
    return "+86" + given
