"""Messages through WeChat: template and customer messages of an official account, subscribe messages of a mini program.

A customer message is a text that may follow for 48 hours after the person did something in the chat; it needs no
template (document "客服消息").
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from bot.templates import BadTemplate, log_fields, logged
from bot.wechat.mapping import send_result, template_data, template_for
from bot.wechat.tokens import TOTAL_SECONDS_MAX, AccessTokens
from core.chat_texts import fit_lines
from core.clock import Clock
from core.errors import OutcomeUnknown, Refused
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

logger = logging.getLogger(__name__)

CUSTOMER_BYTES_MAX = 2_048
CUSTOMER_PATH = "/cgi-bin/message/custom/send"
CUSTOMER_ON, CUSTOMER_OFF = "on", "off"
_LANGUAGES = {"zh": "zh_CN", "en": "en_US"}


class TemplateMessenger:
    """A Messenger for official accounts.

    The platform drops a second message with the same openid and client_msg_id for 10 minutes; we count fewer,
    because the second one still has to arrive inside them.
    """

    name = "wechat_service"
    resend_window = timedelta(minutes=10) - timedelta(seconds=TOTAL_SECONDS_MAX)
    rank = 1  # before the mini program's: a template message uses up no grant
    writes_to_phones = False

    def __init__(self, *, tokens: AccessTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def carries(self, account: ChatAccount, kind: MessageKind) -> bool:
        if kind is MessageKind.CHAT_ANSWER:
            return account.params.get("customer_messages", CUSTOMER_ON) != CUSTOMER_OFF
        return kind in account.templates

    async def check(self, account: ChatAccount) -> str:
        """Prove that the account's secret gives an access token; one line for an operator."""
        return await self._tokens.check(account)

    async def send(self, account: ChatAccount, message: OutgoingMessage) -> SendResult:
        if message.kind is MessageKind.CHAT_ANSWER:
            content = fit_lines(message.text, CUSTOMER_BYTES_MAX)
            body = {"touser": message.address, "msgtype": "text", "text": {"content": content}}
            return await _post(self._tokens, self._clock, account, message, CUSTOMER_PATH, body)
        return await _send(
            self._tokens, self._clock, account, message, "/cgi-bin/message/template/send", _template_body
        )


class SubscribeMessenger:
    """A Messenger for mini programs. Nothing drops a copy here: what may have been sent is not sent again."""

    name = "wechat_miniprogram"
    resend_window = timedelta(0)
    rank = 2
    writes_to_phones = False

    def __init__(self, *, tokens: AccessTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def carries(self, account: ChatAccount, kind: MessageKind) -> bool:
        return kind in account.templates

    async def check(self, account: ChatAccount) -> str:
        """Prove that the account's secret gives an access token; one line for an operator."""
        return await self._tokens.check(account)

    async def send(self, account: ChatAccount, message: OutgoingMessage) -> SendResult:
        return await _send(
            self._tokens, self._clock, account, message, "/cgi-bin/message/subscribe/send", _subscribe_body
        )


def _template_body(account: ChatAccount, message: OutgoingMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"client_msg_id": message.message_id.hex}
    if app_id := account.params.get("miniprogram_app_id"):
        body["miniprogram"] = {"appid": app_id, "pagepath": message.page.lstrip("/")}
    elif message.url:
        body["url"] = message.url
    return body


def _subscribe_body(account: ChatAccount, message: OutgoingMessage) -> dict[str, Any]:
    return {
        "page": message.page.lstrip("/"),
        "miniprogram_state": account.params.get("miniprogram_state") or "formal",
        "lang": _LANGUAGES.get(message.language, "zh_CN"),
    }


async def _send(
    tokens: AccessTokens,
    clock: Clock,
    account: ChatAccount,
    message: OutgoingMessage,
    path: str,
    more: Callable[[ChatAccount, OutgoingMessage], Mapping[str, Any]],
) -> SendResult:
    try:
        template = template_for(account, message.kind)
        body = {
            "touser": message.address,
            "template_id": template.id,
            "data": template_data(template, message),
            **more(account, message),
        }
    except BadTemplate as error:
        return logged(logger, account, message, SendResult(outcome=SendOutcome.MISCONFIGURED, code=str(error)))
    return await _post(tokens, clock, account, message, path, body)


async def _post(
    tokens: AccessTokens,
    clock: Clock,
    account: ChatAccount,
    message: OutgoingMessage,
    path: str,
    body: Mapping[str, Any],
) -> SendResult:
    try:
        answer = await tokens.post(account, path, body)
    except Refused as error:
        # There is no token and a person must act, or a quota of the token's is used up.
        errcode = int(error.code) if re.fullmatch(r"\d{1,9}", error.code, re.ASCII) else None
        result = send_result(errcode, clock.now()) if errcode is not None else None
        if result is None or result.outcome is SendOutcome.NEVER:
            result = SendResult(outcome=SendOutcome.MISCONFIGURED, code=error.code)
        return logged(logger, account, message, result)
    if not answer.explicit:
        raise OutcomeUnknown("the answer says neither yes nor no")
    msgid = answer.values.get("msgid", "")
    result = send_result(answer.errcode, clock.now(), str(msgid))
    if result is None:
        logger.warning("message_unknown", extra=log_fields(account, message, str(answer.errcode), answer.rid))
        raise OutcomeUnknown(f"errcode {answer.errcode}")
    return logged(logger, account, message, result, answer.rid)
