"""Carries out what the dialogue decides: asks, writes down, and says it in the person's language.

A platform repeats what it was not answered in time, also while the first time is under way and also to another
process. All of them get the same answer: within a process they share one piece of work, between processes a
short-lived mark in the TokenStore says who is at it and what was answered. The store may forget; then somebody
reads the same sentence twice. Nothing here starts a payment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

from bot.dialogue import (
    Answer,
    Effect,
    NoteDelivery,
    NoteGrant,
    Reach,
    Say,
    ShowPaper,
    Speak,
    Words,
    is_ours,
    turn,
)
from bot.events import ChatEvent, ChatEventKind
from bot.turnstile import BOOKKEEPING_PLACES, UNLIMITED, Places, Turnstile
from core.chat_texts import ChatLinks, ChatQuestion, chat_text, fit_lines, hospital_silent_text, link
from core.due import DueRow, give_back
from core.errors import NotFound
from core.institutions import PaperCode, Profile
from core.models import Payer
from core.ports import ChatAccount, ChatIdentity, TokenStore
from core.services import Services

log = logging.getLogger("zhenfu.chat")

ANSWER_SECONDS = 3.5
"""Platforms wait 5 seconds; what is not back by then is told later."""

REPLY_BYTES_MAX = 2_048
ASK_SECONDS = 60.0
"""A HIS that is silent for so long has no answer."""

PROMISE_LEASE = timedelta(seconds=ASK_SECONDS) + timedelta(seconds=60)
CLAIM_LIFE = timedelta(seconds=6)
"""Longer than any answer takes and not much longer: when its holder dies, the platform's next attempt is answered."""

HEARD_LIFE = timedelta(seconds=30)  # a platform's last attempt comes sooner
HEARD_MAX = 5_000
ASKING_MAX = 500
LOOK_AGAIN_SECONDS = 0.2

PAPER_LENGTH_MAX = 64  # of a scene
KINDS_WITH_SCENE = frozenset({ChatEventKind.FOLLOWED, ChatEventKind.SCANNED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What came of an event: what the person is told, if anything, and whether it was meant for us."""

    text: str = field(repr=False, default="")
    ours: bool = True
    dropped: bool = False  # more than one person may do at once: nothing was done or said, nor will it be


class StillBeingMade(Exception):
    """Another process is at this event and has no answer yet; whoever repeats the event gets it."""


@dataclass(eq=False, kw_only=True, slots=True)
class _Question:
    """A question of one payer that is being asked."""

    task: asyncio.Task[str]


class Conversation:
    """The chat of all accounts, in one process."""

    def __init__(
        self,
        services: Services,
        store: TokenStore,
        *,
        turnstile: Turnstile | None = None,
        places: Places | None = None,
        bookkeeping: Places | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._services = services
        self._store = store
        self._turnstile = turnstile or Turnstile(clock=services.outside.clock)
        self._places = places or Places()
        self._bookkeeping = bookkeeping or Places(BOOKKEEPING_PLACES)
        self._answer_seconds = answer_seconds
        self._hearing: dict[str, asyncio.Task[Heard]] = {}
        self._heard: OrderedDict[str, Heard] = OrderedDict()
        self._asking: dict[tuple[UUID, ChatQuestion], _Question] = {}

    def places(self, kind: ChatEventKind) -> Places:
        """Where an event of this kind is worked: what the platform says has places that no crowd of people takes."""
        return self._bookkeeping if kind in UNLIMITED else self._places

    async def hear(self, account: ChatAccount, event: ChatEvent, *, arrived_at: float | None = None) -> Heard:
        """Answer an event, for the first time or again. Goes on to its end when the caller goes away.

        The caller has one of the kind's places. `arrived_at` is on the event loop's clock; without it, now. Raises
        StillBeingMade.
        """
        key = f"chat:{account.id}:{event.event_id}"
        if (heard := self._heard.get(key)) is not None:
            return heard
        if (task := self._hearing.get(key)) is not None:
            async with self.places(event.kind).left():
                return await asyncio.shield(task)
        who = f"{account.id}:{event.open_id}"
        if not self._turnstile.enter(who, event.kind):
            log.info("chat_event_dropped", extra={"fields": {"app_id": account.app_id, "kind": event.kind.value}})
            return Heard(ours=False, dropped=True)
        since = asyncio.get_running_loop().time() if arrived_at is None else arrived_at
        task = self._hearing[key] = asyncio.create_task(self._once(key, account, event, since + self._answer_seconds))
        task.add_done_callback(lambda done: self._ended(key, who, done))
        return await asyncio.shield(task)

    async def crowded(self, account: ChatAccount, event: ChatEvent) -> Heard | None:
        """What somebody is told at once for whom there is no place: where the pages are. None for other events."""
        effects = turn(event)
        if event.kind in UNLIMITED or not is_ours(effects):
            return None
        language = next((effect.language for effect in effects if isinstance(effect, Speak)), "zh")
        links = self._services.answers.links(await self._services.institutions.profile(account.institution_id))
        return Heard(text=f"{chat_text('crowded', language)}\n{link(links.bills(), 'all', language)}")

    def _ended(self, key: str, who: str, task: asyncio.Task[Heard]) -> None:
        del self._hearing[key]
        self._turnstile.leave(who)
        if not task.cancelled() and task.exception() is None:
            self._heard[key] = task.result()
            while len(self._heard) > HEARD_MAX:
                self._heard.popitem(last=False)

    # ------------------------------------------------------------ once, between processes

    async def _once(self, key: str, account: ChatAccount, event: ChatEvent, ends_at: float) -> Heard:
        owner = secrets.token_hex(8)
        while not await self._store.acquire(key, owner, life=CLAIM_LIFE):
            if (heard := self._read(await self._store.get(key))) is not None:
                return heard
            if asyncio.get_running_loop().time() >= ends_at:
                raise StillBeingMade
            async with self.places(event.kind).left():
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        try:
            heard = await self._answered(account, event, ends_at)
        except Exception:
            await self._store.release(key, owner)  # the repeat begins anew
            raise

        async def keep() -> None:
            await self._store.set(key, self._written(heard), life=HEARD_LIFE)

        if not self._services.outside.background.start("chat_heard", keep):
            await keep()
        return heard

    def _written(self, heard: Heard) -> str:
        return self._services.outside.keyring.encrypt(json.dumps([heard.text, heard.ours]), place="chat.heard")

    def _read(self, text: str | None) -> Heard | None:
        """None for a mark that says nothing yet, and for what we cannot open."""
        try:
            said, ours = json.loads(self._services.outside.keyring.decrypt(text or "", place="chat.heard"))
        except Exception:
            return None
        return Heard(text=str(said), ours=bool(ours))

    # ------------------------------------------------------------ effects

    async def _answered(self, account: ChatAccount, event: ChatEvent, ends_at: float) -> Heard:
        profile = await self._services.institutions.profile(account.institution_id)
        effects = turn(event, paper=await self._paper(account, event))
        payer = await self._payer(account, event, effects)
        texts = []
        for effect in effects:
            match effect:
                case Say(words=words):
                    texts.append(self._said(words, profile, payer))
                case ShowPaper(token=token):
                    language = payer.language if payer else "zh"
                    texts.append(link(self._services.papers.url(token), "paper", language))
                case Answer(question=question) if payer is not None:
                    texts.append(await self._told(account, payer, question, event, profile, ends_at))
                case NoteDelivery(delivery=delivery) if delivery.ok is not None:
                    await self._services.messages.delivered(
                        account,
                        delivery.platform_message_id,
                        ok=delivery.ok,
                        code=delivery.code,
                        at=event.happened_at,
                    )
                case NoteGrant(grant=grant):
                    fields = {"app_id": account.app_id, "template": grant.template_id, "accepted": grant.accepted}
                    log.info("chat_grant", extra={"fields": fields})
        return Heard(text=fit_lines("\n".join(texts), REPLY_BYTES_MAX), ours=is_ours(effects))

    async def _paper(self, account: ChatAccount, event: ChatEvent) -> str:
        """The scene as the token of a paper of this account's institution; empty for any other scene."""
        if event.kind not in KINDS_WITH_SCENE or not 1 <= len(event.scene) <= PAPER_LENGTH_MAX:
            return ""
        try:
            paper = await self._services.papers.read(event.scene)
        except NotFound:
            return ""
        return paper.token if paper.profile.id == account.institution_id else ""

    async def _payer(self, account: ChatAccount, event: ChatEvent, effects: Sequence[Effect]) -> Payer | None:
        """Whom this is about, when it is about a person."""
        reach = next((effect for effect in effects if isinstance(effect, Reach)), None)
        if reach is None:
            return None
        language = next((effect.language for effect in effects if isinstance(effect, Speak)), "")
        patients = self._services.patients
        payer = await patients.payer_for(account, ChatIdentity(open_id=event.open_id), language=language)
        await patients.set_reachable(payer, reach.reachable, at=event.happened_at)
        return payer

    def _said(self, words: Words, profile: Profile, payer: Payer | None) -> str:
        language = payer.language if payer is not None else "zh"
        hospital = profile.name_en if language == "en" and profile.name_en else profile.name_zh
        links = self._services.answers.links(profile)
        scans = profile.settings.paper_code is not PaperCode.OFF
        match words:
            case Words.STAFF if profile.phone:
                return chat_text("staff", language, hospital=hospital, phone=profile.phone)
            case Words.STAFF:
                return chat_text("staff_no_phone", language, hospital=hospital)
            case Words.PHOTO | Words.SCAN if not scans:
                return chat_text("choices", language)
            case Words.PHOTO:
                return f"{chat_text('photo', language)}\n{link(links.scan(), 'scan', language)}"
            case Words.SCAN:
                return link(links.scan(), "scan", language)
            case Words.WELCOME:
                return chat_text("welcome", language, hospital=hospital)
            case Words.CHOICES | Words.VOICE_UNCLEAR:
                return chat_text(words.value, language)

    # ------------------------------------------------------------ questions

    async def _told(
        self,
        account: ChatAccount,
        payer: Payer,
        question: ChatQuestion,
        event: ChatEvent,
        profile: Profile,
        ends_at: float,
    ) -> str:
        """The answer, if it is there in time; else that it comes later, and the row from which it comes."""
        asking = self._ask(payer, question)
        if asking is not None:
            left = max(ends_at - asyncio.get_running_loop().time(), 0)
            async with self.places(event.kind).left():
                await asyncio.wait({asking.task}, timeout=left)
            if asking.task.done():
                return asking.task.result()
        page = _page(question, self._services.answers.links(profile), payer.language)
        messages = self._services.messages
        if not await messages.can_answer_later(account):
            return f"{chat_text('asking_link', payer.language)}\n{page}"
        due = await messages.answer_later(payer, question, event_id=event.event_id, lease=PROMISE_LEASE)
        if due is not None and (asking is None or not self._tells_later(asking, due)):
            now = self._services.outside.clock.now()
            await give_back("message", due.id, due.institution_id, holder=due.holder, due_at=now, counted=False)
        return f"{chat_text('asking', payer.language)}\n{page}"  # should the later message not arrive

    def _tells_later(self, asking: _Question, due: DueRow) -> bool:
        """Send the answer from the row that promises it, once it is there; a row that we lose is the worker's."""

        async def deliver() -> None:
            await asyncio.wait({asking.task})
            failed = asking.task.cancelled() or asking.task.exception() is not None
            await self._services.messages.work(due, text="" if failed else asking.task.result())

        return self._services.outside.background.start("chat_answer", deliver)

    def _ask(self, payer: Payer, question: ChatQuestion) -> _Question | None:
        """The question as it is being asked, by whichever event began it; None when too many are."""
        key = (payer.id, question)
        if (asking := self._asking.get(key)) is not None:
            return asking
        if len(self._asking) >= ASKING_MAX:
            return None
        asking = self._asking[key] = _Question(task=asyncio.create_task(self._asked(payer, question)))
        asking.task.add_done_callback(partial(self._told_all, key))
        return asking

    async def _asked(self, payer: Payer, question: ChatQuestion) -> str:
        answers = self._services.answers
        payer = await self._services.patients.joined(payer)
        if question is not ChatQuestion.OWED:
            return await answers.text(payer, question)
        key, owner = f"chat:asking:{payer.id}", secrets.token_hex(8)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                while True:
                    if await self._store.acquire(key, owner, life=timedelta(seconds=ASK_SECONDS)):
                        return await answers.text(payer, question)
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)  # another process asks for the same payer
        except TimeoutError:
            profile = await self._services.institutions.profile(payer.institution_id)
            return hospital_silent_text(answers.links(profile), payer.language)
        finally:
            await self._store.release(key, owner)

    def _told_all(self, key: tuple[UUID, ChatQuestion], task: asyncio.Task[str]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # seen here too, should everybody who waited have gone away


def _page(question: ChatQuestion, links: ChatLinks, language: str) -> str:
    """Where a page says what was asked."""
    match question:
        case ChatQuestion.OWED:
            return link(links.bills(), "all", language)
        case ChatQuestion.PAID:
            return link(links.paid(), "all_paid", language)
        case ChatQuestion.PATIENTS:
            return link(links.patients(), "unbind", language)
