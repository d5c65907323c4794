"""Messages to phones through Tencent Cloud SMS, for who is not reached in a chat app."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bot.sms.client import Answer, SmsApi, code_of, sdk_app_id
from bot.sms.mapping import (
    VARIABLE_CHARACTERS_MAX,
    Meaning,
    mainland_phone,
    meaning_of,
    send_result,
    template_for,
    template_values,
)
from bot.templates import BadTemplate, log_fields, logged
from core.clock import Clock, shanghai
from core.errors import OutcomeUnknown, Refused
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

logger = logging.getLogger(__name__)

APPROVED = 0
INTERNATIONAL = 1
_SERIAL_NO = re.compile(r"[0-9A-Za-z:._-]{1,64}")


class SmsMessenger:
    """A Messenger for mainland mobiles. Nothing drops a copy here: what may have been sent is not sent again."""

    name = "sms"
    resend_window = timedelta(0)
    rank = 9  # it costs money and says least: after every chat app
    writes_to_phones = True

    def __init__(self, *, api: SmsApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock

    def carries(self, account: ChatAccount, kind: MessageKind) -> bool:
        return kind in account.templates

    async def send(self, account: ChatAccount, message: OutgoingMessage) -> SendResult:
        phone = mainland_phone(message.address)
        if not phone:
            return logged(logger, account, message, SendResult(outcome=SendOutcome.NEVER, code="not_mainland"))
        try:
            template = template_for(account, message.kind)
            values = template_values(template, message, characters_max=_characters_max(account))
        except BadTemplate as error:
            return logged(logger, account, message, SendResult(outcome=SendOutcome.MISCONFIGURED, code=str(error)))
        answer = await self._api.call(
            account,
            "SendSms",
            {
                "PhoneNumberSet": [phone],
                "SmsSdkAppId": sdk_app_id(account),
                "SignName": account.params.get("sign_name", ""),
                "TemplateId": template.id,
                "TemplateParamSet": values,
                "SessionContext": message.message_id.hex,
            },
        )
        if answer.error:
            code, serial_no = answer.error, ""
        else:
            code, serial_no = _own_status(answer, phone, message.message_id.hex)
        result = send_result(code, self._clock.now(), serial_no)
        if result is None:
            logger.warning("message_unknown", extra=log_fields(account, message, code, answer.request_id))
            raise OutcomeUnknown(code)
        return logged(logger, account, message, result, answer.request_id)

    async def check(self, account: ChatAccount) -> str:
        """Prove keys, clock, application and templates; nothing is sent. One line for an operator.

        The sign shows with the first message: the platform finds signs by a number that nobody has to enter here.
        """
        hour = f"{shanghai(self._clock.now()):%Y%m%d%H}"
        _accepted(
            await self._api.call(
                account,
                "SendStatusStatistics",
                {"BeginTime": hour, "EndTime": hour, "SmsSdkAppId": sdk_app_id(account), "Limit": 0, "Offset": 0},
            )
        )
        try:
            templates = [template_for(account, MessageKind(name)) for name in account.templates]
        except (BadTemplate, ValueError) as error:
            raise Refused(str(error), "correct the account's templates") from error
        if not templates:
            return "the application is ours; no templates"
        ids = sorted({int(template.id) for template in templates})
        answer = _accepted(
            await self._api.call(account, "DescribeSmsTemplateList", {"International": 0, "TemplateIdSet": ids})
        )
        found = _templates_found(answer)
        for template in templates:
            _check_template(found.get(int(template.id)), template.id, len(template.params))
        return f"the application is ours; {len(ids)} templates approved"


def _characters_max(account: ChatAccount) -> int:
    return int(account.params.get("variable_characters_max") or VARIABLE_CHARACTERS_MAX)


def _own_status(answer: Answer, phone: str, context: str) -> tuple[str, str]:
    """Code and serial number of the one number that we asked for. Raises OutcomeUnknown for anything else."""
    statuses = answer.values.get("SendStatusSet")
    if not isinstance(statuses, list) or len(statuses) != 1:
        raise OutcomeUnknown("the answer is not about one number")
    (status,) = statuses
    code = code_of(status)
    if meaning_of(code) is Meaning.DONE and status.get("PhoneNumber") != phone:
        raise OutcomeUnknown("the answer is about another number")
    if status.get("PhoneNumber", phone) not in {phone, ""} or status.get("SessionContext", "") not in {context, ""}:
        raise OutcomeUnknown("the answer is about another message")
    serial_no = status.get("SerialNo", "")
    return code, serial_no if isinstance(serial_no, str) and _SERIAL_NO.fullmatch(serial_no) else ""


def _accepted(answer: Answer) -> Answer:
    """Raises Refused, or OutcomeUnknown for codes that say nothing about our set-up."""
    if not answer.error:
        return answer
    if meaning_of(answer.error) is Meaning.UNKNOWN:
        raise OutcomeUnknown(answer.error)
    raise Refused(answer.error, f"request {answer.request_id}")


def _templates_found(answer: Answer) -> Mapping[int, Mapping[str, Any]]:
    found = answer.values.get("DescribeTemplateStatusSet")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise OutcomeUnknown("the answer lists no templates")
    return {each["TemplateId"]: each for each in found if isinstance(each.get("TemplateId"), int)}


def _check_template(found: Mapping[str, Any] | None, template_id: str, variables: int) -> None:
    """Raises Refused."""
    if found is None:
        raise Refused(f"template_{template_id}", "is not among the account's templates")
    if found.get("StatusCode") != APPROVED:
        raise Refused(f"template_{template_id}", "is not approved")
    if found.get("International") == INTERNATIONAL:
        raise Refused(f"template_{template_id}", "is not for mainland phones")
    wanted = len(set(re.findall(r"\{([0-9]+)\}", str(found.get("TemplateContent", "")))))
    if wanted != variables:
        raise Refused(f"template_{template_id}", f"has {wanted} variables, and {variables} params are entered")
