"""What all messengers have in common: how an institution's templates are entered, and what a log line may say."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from core.errors import ConfigurationError
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

LITERAL = "="
"""A value that begins with this is a fixed text, not the name of one of our fields: {"phrase3": "=待缴费"}."""


class BadTemplate(ValueError):
    """An institution's template entry cannot be used; the message says why and carries nothing personal."""


def template_entry(account: ChatAccount, kind: MessageKind) -> Mapping[str, Any]:
    """The JSON object in `account.templates[kind]`. Raises BadTemplate."""
    text = account.templates.get(kind)
    if not text:
        raise BadTemplate("no_template")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadTemplate("bad_template") from error
    if not isinstance(value, dict):
        raise BadTemplate("bad_template")
    return value


def value_of(name: str, message: OutgoingMessage) -> str:
    """The text that a template's value stands for."""
    return name[len(LITERAL) :] if name.startswith(LITERAL) else message.fields.get(name, "")


def check_templates(
    account: ChatAccount,
    kinds: Collection[MessageKind],
    read: Callable[[ChatAccount, MessageKind], object],
    *,
    owner: str,
    needs: str,
) -> None:
    """Raises ConfigurationError for a message that this account cannot carry, and for an entry that `read` refuses."""
    known = {kind.value for kind in kinds}
    for name in account.templates:
        if name not in known:
            raise ConfigurationError(f"{owner}: there is no message {name!r}, only {', '.join(sorted(known))}")
        try:
            read(account, MessageKind(name))
        except BadTemplate as error:
            raise ConfigurationError(f"{owner}: template {name} needs {needs} ({error})") from error


def logged(
    logger: logging.Logger, account: ChatAccount, message: OutgoingMessage, result: SendResult, support_id: str = ""
) -> SendResult:
    """The result, with a line in the log when the message was not taken."""
    if result.outcome is not SendOutcome.ACCEPTED:
        logger.warning("message_refused", extra=log_fields(account, message, result.code, support_id))
    return result


def log_fields(account: ChatAccount, message: OutgoingMessage, code: str, support_id: str) -> dict[str, object]:
    """What a log line may carry; `support_id` is what the platform's support asks for."""
    return {
        "platform": account.platform,
        "app_id": account.app_id,
        "message_id": str(message.message_id),
        "kind": str(message.kind),
        "errcode": code,
        "support_id": support_id,
    }
