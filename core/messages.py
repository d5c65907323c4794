"""The outbox: what a payer is told, written with the business it is about and rendered when it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.cases import Cases
from core.due import DueRow, backoff, begin_send, give_back, send_had_no_effect
from core.errors import NotReached, OutcomeUnknown, Refused
from core.institutions import Institutions
from core.models import Message, Payer, Payment
from core.outside import Outside
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome
from core.states import MessageStatus
from core.tenancy import scoped
from core.texts import message_fields
from core.transactions import rows

TRIES_MAX = 30
"""After so many fruitless tries a message is given up: the paid list is the truth."""

MISCONFIGURED_PAUSE = timedelta(hours=1)
PAGE = "pages/payment/index?order={order_no}"
BILLS_PAGE = "pages/bills/index"


@dataclass(frozen=True, slots=True)
class Messages:
    outside: Outside
    institutions: Institutions
    cases: Cases

    async def enqueue(self, payment: Payment, kind: MessageKind, *, dedup_key: str, values: Mapping[str, Any]) -> None:
        """Write a message to a payment's payer, in the caller's transaction; once per `dedup_key`."""
        await self.enqueue_for(
            payment.institution_id,
            payment.payer_id,
            kind,
            dedup_key=dedup_key,
            values=values,
            payment_id=payment.id,
        )

    async def enqueue_for(
        self,
        institution_id: UUID,
        payer_id: UUID,
        kind: MessageKind,
        *,
        dedup_key: str,
        values: Mapping[str, Any],
        payment_id: UUID | None = None,
    ) -> bool:
        """True when the message is new."""
        now = self.outside.clock.now()
        inserted = await rows(
            "INSERT INTO message (id, institution_id, payer_id, payment_id, kind, dedup_key, values_enc, status,"
            " due_at, attempts, holder, sends_started, sends_unreached, result_code, platform_message_id,"
            " created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, 0, '', 0, 0, '', '', $8)"
            " ON CONFLICT ON CONSTRAINT message_once DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            institution_id,
            payer_id,
            payment_id,
            kind.value,
            dedup_key,
            self.outside.keyring.encrypt(json.dumps(dict(values), ensure_ascii=False), place="message.values"),
            now,
        )
        return bool(inserted)

    async def work(self, due: DueRow) -> None:
        """Send one message that we hold. An unknown answer is repeated only while the platform would drop a copy."""
        scope = scoped(due.institution_id)
        message = await scope.of(Message).get(id=due.id)
        if message.status is not MessageStatus.QUEUED:
            return
        now = self.outside.clock.now()
        route = await self._route(message)
        if route is None:
            await self._end(message, MessageStatus.SKIPPED, "no_route")
            return
        account, payer = route
        messenger = self.outside.messengers[account.platform]
        uncertain = message.sends_started > message.sends_unreached
        if uncertain and (message.first_sent_at is None or now >= message.first_sent_at + messenger.resend_window):
            await self._end(message, MessageStatus.UNKNOWN, "answer_lost")
            return
        if due.attempts > TRIES_MAX:
            await self._end(message, MessageStatus.REFUSED, "tries_exhausted")
            return
        outgoing = await self._render(message, payer)
        if not await self._begin(due, message):
            return
        try:
            result = await messenger.send(account, outgoing)
        except NotReached:
            await send_had_no_effect("message", message.id, message.institution_id)
            await self._later(due, now + backoff(due.attempts))
            return
        except OutcomeUnknown:
            if messenger.resend_window:
                await self._later(due, now + backoff(due.attempts))
            else:
                await self._end(message, MessageStatus.UNKNOWN, "answer_lost")
            return
        except Refused as refused:
            await send_had_no_effect("message", message.id, message.institution_id)
            await self._next_route(due, message, account, refused.code)
            return
        if result.outcome is SendOutcome.ACCEPTED:
            await self.cases.settle(message.institution_id, ("messages_misconfigured",), account.app_id)
            await self._end(
                message,
                MessageStatus.SENT,
                result.code,
                platform_message_id=result.platform_message_id,
                chat_account_id=account.id,
            )
            return
        await send_had_no_effect("message", message.id, message.institution_id)
        if result.outcome is SendOutcome.NEVER:
            await self._next_route(due, message, account, result.code)
        elif result.outcome is SendOutcome.LATER:
            await self._later(due, result.not_before or now + backoff(due.attempts))
        else:
            await self.cases.open(
                message.institution_id,
                "messages_misconfigured",
                account.app_id,
                details={"code": result.code},
            )
            await self._later(due, now + MISCONFIGURED_PAUSE)

    async def _route(self, message: Message) -> tuple[ChatAccount, Payer] | None:
        """The account and identity to write to: the payer's own first, then the same person's on other accounts.

        A message that was refused for good carries the id of the last account that refused, and goes to the next.
        """
        scope = scoped(message.institution_id)
        payer = await scope.of(Payer).get(id=message.payer_id)
        people = [payer]
        if payer.union_lookup:
            people += await scope.of(Payer).filter(union_lookup=payer.union_lookup).exclude(id=payer.id).order_by("id")
        routes = []
        for person in people:
            account = await self.institutions.chat_account(message.institution_id, person.chat_account_id)
            if message.kind in account.templates and account.platform in self.outside.messengers:
                routes.append((account, person))
        # A service account's template message needs no grant, so it goes before the mini program's.
        routes.sort(key=lambda route: (route[0].platform != "wechat_service", str(route[0].id)))
        if message.chat_account_id is not None:
            seen = [index for index, route in enumerate(routes) if route[0].id == message.chat_account_id]
            routes = routes[seen[0] + 1 :] if seen else routes
        return routes[0] if routes else None

    async def _render(self, message: Message, payer: Payer) -> OutgoingMessage:
        values = self.outside.keyring.decrypt_json(message.values_enc, place="message.values")
        profile = await self.institutions.profile(message.institution_id)
        hospital = profile.name_en if payer.language == "en" and profile.name_en else profile.name_zh
        kind = MessageKind(message.kind)
        order_no = str(values.get("order_no", ""))
        return OutgoingMessage(
            message_id=message.id,
            kind=kind,
            open_id=self.outside.keyring.decrypt(payer.open_id_enc, place="payer.open_id"),
            language=payer.language,
            fields=message_fields(kind, values, language=payer.language, hospital=hospital),
            page=PAGE.format(order_no=order_no) if order_no else BILLS_PAGE,
        )

    async def _begin(self, due: DueRow, message: Message) -> bool:
        now = self.outside.clock.now()
        first = message.first_sent_at if message.sends_started > message.sends_unreached else None
        await self._set(message, first_sent_at=first or now)
        return await begin_send(
            "message",
            message.id,
            message.institution_id,
            holder=due.holder,
            now=now,
            statuses=[MessageStatus.QUEUED],
        )

    async def _next_route(self, due: DueRow, message: Message, account: ChatAccount, code: str) -> None:
        await self._set(message, chat_account_id=account.id, result_code=code[:64] or "refused")
        message.chat_account_id, message.result_code = account.id, code[:64] or "refused"
        if await self._route(message) is None:
            await self._end(message, MessageStatus.REFUSED, code)
        else:
            await self._later(due, self.outside.clock.now())

    async def _later(self, due: DueRow, when: datetime) -> None:
        await give_back("message", due.id, due.institution_id, holder=due.holder, due_at=when)

    async def _end(self, message: Message, status: MessageStatus, code: str, **values: Any) -> None:
        await (
            scoped(message.institution_id)
            .of(Message)
            .filter(id=message.id, status=MessageStatus.QUEUED)
            .update(status=status, result_code=code[:64], due_at=None, lease_until=None, holder="", **values)
        )

    async def _set(self, message: Message, **values: Any) -> None:
        await scoped(message.institution_id).of(Message).filter(id=message.id).update(**values)
