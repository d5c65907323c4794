"""The outbox: what a payer is told, written with the business it is about and rendered when it is sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.answers import Answers
from core.cases import Cases
from core.chat_texts import ChatQuestion
from core.consents import Consents
from core.due import DueRow, backoff, begin_send, give_back, send_had_no_effect, take
from core.errors import NotReached, OutcomeUnknown, Refused
from core.institutions import Institutions
from core.message_texts import message_fields
from core.models import Message, Payer, Payment
from core.outside import Outside
from core.ports import NOTICE_KINDS, ChatAccount, MessageKind, Messenger, OutgoingMessage, SendOutcome
from core.states import MessageStatus
from core.tenancy import scoped
from core.transactions import atomically, rows

log = logging.getLogger("zhenfu.messages")

TRIES_MAX = 30
"""After so many fruitless tries a message is given up: the paid list is the truth."""

MISCONFIGURED_PAUSE = timedelta(hours=1)
CHAT_ANSWER_LIFE = timedelta(hours=1)
"""Who has asked in the chat is not told later than this: he has looked elsewhere by then."""

CODE_LIFE = timedelta(minutes=5)
"""How long a phone's code is good."""

LIVES = {MessageKind.CHAT_ANSWER: CHAT_ANSWER_LIFE, MessageKind.PHONE_CODE: CODE_LIFE}
"""What would come later than this is not sent at all."""

LOOK_AGAIN_SECONDS = (0.5, 2.0, 8.0)
"""After which waits a message is looked for again that the platform has ended before we knew its id there."""

FRESH = timedelta(minutes=1)
"""What the platform said longer ago is of no message whose id is still on its way to us."""

PAGE = "pages/payment/index?order={order_no}"
BILLS_PAGE = "pages/bills/index"
DELIVERED, FAILED = "delivered", "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    """One way to a person."""

    account: ChatAccount
    messenger: Messenger
    payer: Payer
    phone: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Messages:
    outside: Outside
    institutions: Institutions
    cases: Cases
    consents: Consents
    answers: Answers

    async def enqueue(
        self,
        payment: Payment,
        kind: MessageKind,
        *,
        dedup_key: str,
        values: Mapping[str, Any],
        due_at: datetime | None = None,
    ) -> None:
        """Write a message to a payment's payer, in the caller's transaction; once per `dedup_key`.

        It leaves at once, or not before `due_at`.
        """
        await self.enqueue_for(
            payment.institution_id,
            payment.payer_id,
            kind,
            dedup_key=dedup_key,
            values=values,
            payment_id=payment.id,
            due_at=due_at,
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
        after_account_id: UUID | None = None,
        due_at: datetime | None = None,
    ) -> bool:
        """True when the message is new. `after_account_id`: that account could not deliver it, try the next way."""
        now = self.outside.clock.now()
        inserted = await rows(
            "INSERT INTO message (id, institution_id, payer_id, payment_id, kind, dedup_key, values_enc, status,"
            " due_at, attempts, holder, sends_started, sends_unreached, result_code, platform_message_id, delivery,"
            " created_at, chat_account_id) VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, 0, '', 0, 0, '', '', '',"
            " $9, $10)"
            " ON CONFLICT ON CONSTRAINT message_once DO NOTHING RETURNING id",
            self.outside.ids.uuid(),
            institution_id,
            payer_id,
            payment_id,
            kind.value,
            dedup_key,
            self.outside.keyring.encrypt(json.dumps(dict(values), ensure_ascii=False), place="message.values"),
            due_at or now,
            now,
            after_account_id,
        )
        return bool(inserted)

    async def can_answer_later(self, account: ChatAccount) -> bool:
        """Whether what somebody asked in this account's chat can be told after the reply."""
        messenger = self.outside.messengers.get(account.platform)
        return messenger is not None and messenger.carries(account, MessageKind.CHAT_ANSWER)

    async def answer_later(
        self, payer: Payer, question: ChatQuestion, *, event_id: str, lease: timedelta
    ) -> DueRow | None:
        """Promise an answer that is still being asked for; the row is ours for `lease`, afterwards any worker's.

        None when the same answer is promised already.
        """
        promised = f"chat:{payer.id}:{question}:"

        async def write() -> DueRow | None:
            await rows(
                "SELECT id FROM payer WHERE institution_id = $1 AND id = $2 FOR NO KEY UPDATE",
                payer.institution_id,
                payer.id,
            )
            waiting = scoped(payer.institution_id).of(Message).filter(payer_id=payer.id, status=MessageStatus.QUEUED)
            if await waiting.filter(kind=MessageKind.CHAT_ANSWER, dedup_key__startswith=promised).exists():
                return None
            key = f"{promised}{event_id}"
            values = {"question": question.value}
            if not await self.enqueue_for(
                payer.institution_id, payer.id, MessageKind.CHAT_ANSWER, dedup_key=key, values=values
            ):
                return None
            message = await scoped(payer.institution_id).get(Message, dedup_key=key)
            return await take(
                "message",
                message.id,
                payer.institution_id,
                now=self.outside.clock.now(),
                holder=self.outside.lease_name(),
                lease=lease,
            )

        return await atomically(write)

    async def delivered(
        self, account: ChatAccount, platform_message_id: str, *, ok: bool, code: str = "", at: datetime
    ) -> None:
        """The platform says what has become of a message; one that was not delivered goes the next way.

        `at` is when it said so. That may be before we have its answer to our sending, in which the message got its id
        there: an id that no message has yet is looked for again, a few times.
        """
        if not platform_message_id or await self._noted(account, platform_message_id, ok=ok, code=code):
            return
        if self.outside.clock.now() - at > FRESH:
            return

        async def look_again() -> None:
            for seconds in LOOK_AGAIN_SECONDS:
                await asyncio.sleep(seconds)
                if await self._noted(account, platform_message_id, ok=ok, code=code):
                    return
            log.info("delivery_of_nobody", extra={"fields": {"app_id": account.app_id}})

        self.outside.background.start("delivery", look_again)

    async def _noted(self, account: ChatAccount, platform_message_id: str, *, ok: bool, code: str) -> bool:
        """Write down how a message has ended; False when none has this id."""
        scope = scoped(account.institution_id)
        message = (
            await scope.of(Message)
            .filter(chat_account_id=account.id, platform_message_id=platform_message_id)
            .order_by("delivery")  # the one of which nothing was said yet
            .first()
        )
        if message is None or message.delivery:
            return message is not None

        async def write() -> None:
            said = {"delivery": DELIVERED if ok else FAILED, "result_code": code[:64] or message.result_code}
            if not await scope.of(Message).filter(id=message.id, delivery="").update(**said) or ok:
                return
            await self.enqueue_for(
                message.institution_id,
                message.payer_id,
                MessageKind(message.kind),
                dedup_key=f"{message.dedup_key}:{message.id}"[:160],
                values=self.outside.keyring.decrypt_json(message.values_enc, place="message.values"),
                payment_id=message.payment_id,
                after_account_id=account.id,
            )

        await atomically(write)
        return True

    async def work(self, due: DueRow, *, text: str = "") -> None:
        """Send one message that we hold. An unknown answer is repeated only while the platform would drop a copy.

        `text` is of a chat answer that has been asked for a moment ago; else it is asked for here.
        """
        scope = scoped(due.institution_id)
        message = await scope.get(Message, id=due.id)
        if message.status is not MessageStatus.QUEUED:
            return
        now = self.outside.clock.now()
        life = LIVES.get(MessageKind(message.kind))
        if life is not None and now >= message.created_at + life:
            await self._end(message, MessageStatus.SKIPPED, "too_late")
            return
        route = await self._route(message)
        if route is None:
            await self._end(message, MessageStatus.SKIPPED, "no_route")
            return
        account, messenger = route.account, route.messenger
        uncertain = message.sends_started > message.sends_unreached
        # Nothing drops a copy of a chat answer.
        window = timedelta(0) if message.kind == MessageKind.CHAT_ANSWER else messenger.resend_window
        if uncertain and (message.first_sent_at is None or now >= message.first_sent_at + window):
            await self._end(message, MessageStatus.UNKNOWN, "answer_lost")
            return
        if due.attempts > TRIES_MAX:
            await self._end(message, MessageStatus.REFUSED, "tries_exhausted")
            return
        outgoing = await self._render(message, route, text)
        if not await self._begin(due, message):
            return
        try:
            result = await messenger.send(account, outgoing)
        except NotReached:
            await send_had_no_effect("message", message.id, message.institution_id)
            await self._later(due, now + backoff(due.attempts))
            return
        except OutcomeUnknown:
            if window:
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

    async def _route(self, message: Message) -> _Route | None:
        """Where to write to: the payer's own account first, then the same person's on other accounts, then a phone.

        A message that was refused for good carries the id of the last account that refused, and goes to the next.
        """
        scope = scoped(message.institution_id)
        payer = await scope.get(Payer, id=message.payer_id)
        kind = MessageKind(message.kind)
        people = [payer]
        if payer.union_lookup and kind in NOTICE_KINDS:
            others = await scope.find(Payer, ("id",), union_lookup=payer.union_lookup)
            people += [other for other in others if other.id != payer.id]
        accounts = {account.id: account for account in await self.institutions.chat_accounts(message.institution_id)}
        routes = []
        for person in people if kind is not MessageKind.PHONE_CODE else []:
            account = accounts[person.chat_account_id]
            messenger = self.outside.messengers.get(account.platform)
            if messenger is not None and person.reachable and messenger.carries(account, kind):
                routes.append(_Route(account=account, messenger=messenger, payer=person))
        for account in self._phone_accounts(accounts.values(), kind):
            if phone := await self._phone(message, payer, kind):
                routes.append(
                    _Route(
                        account=account, messenger=self.outside.messengers[account.platform], payer=payer, phone=phone
                    )
                )
        routes.sort(key=lambda route: (route.messenger.rank, str(route.account.id)))
        if message.chat_account_id is not None:
            seen = [index for index, route in enumerate(routes) if route.account.id == message.chat_account_id]
            routes = routes[seen[0] + 1 :] if seen else routes
        return routes[0] if routes else None

    def _phone_accounts(self, accounts: Iterable[ChatAccount], kind: MessageKind) -> list[ChatAccount]:
        """Those that write to phones, one of each platform."""
        messengers = self.outside.messengers
        found: dict[str, ChatAccount] = {}
        for account in accounts:
            if account.platform in messengers and messengers[account.platform].writes_to_phones:
                found.setdefault(account.platform, account)
        return [account for account in found.values() if messengers[account.platform].carries(account, kind)]

    async def can_write_to_phones(self, institution_id: UUID) -> bool:
        return bool(self._phone_accounts(await self.institutions.chat_accounts(institution_id), MessageKind.PHONE_CODE))

    async def _phone(self, message: Message, payer: Payer, kind: MessageKind) -> str:
        """A code goes to the phone that it is to prove, a notice only to one whose owner has agreed."""
        if kind is MessageKind.PHONE_CODE:
            values = self.outside.keyring.decrypt_json(message.values_enc, place="message.values")
            return str(values["phone"])
        return await self.consents.phone(payer) if kind in NOTICE_KINDS else ""

    async def _render(self, message: Message, route: _Route, text: str) -> OutgoingMessage:
        values = self.outside.keyring.decrypt_json(message.values_enc, place="message.values")
        payer, kind = route.payer, MessageKind(message.kind)
        profile = await self.institutions.profile(message.institution_id)
        hospital = profile.name_en if payer.language == "en" and profile.name_en else profile.name_zh
        order_no = str(values.get("order_no", ""))
        if kind is MessageKind.CHAT_ANSWER and not text:
            text = await self.answers.text(payer, ChatQuestion(values["question"]))
        return OutgoingMessage(
            message_id=message.id,
            kind=kind,
            address=route.phone or self.outside.keyring.decrypt(payer.open_id_enc, place="payer.open_id"),
            language=payer.language,
            fields=message_fields(kind, values, language=payer.language, hospital=hospital),
            page=PAGE.format(order_no=order_no) if order_no else BILLS_PAGE,
            url=f"{self.outside.public_url}/h/{profile.code}/{'paid' if order_no else ''}",
            text=text,
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
        await scoped(message.institution_id).change(
            Message,
            {"id": message.id, "status": MessageStatus.QUEUED},
            status=status,
            result_code=code[:64],
            due_at=None,
            lease_until=None,
            holder="",
            **values,
        )

    async def _set(self, message: Message, **values: Any) -> None:
        await scoped(message.institution_id).change(Message, {"id": message.id}, **values)
