"""A person who asks in the official account's chat; the platform repeats what is not answered in time."""

from __future__ import annotations

import asyncio
import random

from bot.conversation import Conversation, Heard, StillBeingMade
from bot.events import ChatEvent, ChatEventKind, event_id_of
from core.money import Fen, yuan_text
from simulators.faults import chance
from simulators.kit import ConnectionLost, NeverConnected
from tests.crash.scheduler import Life
from tests.crash.world import World

PLATFORM_SECONDS = 5.0
ATTEMPTS = 3
WORDS = ("缴费", "我要交费", "账单", "查询", "退款", "绑定", "人工", "你好", "🙂" * 50)
OWED = frozenset({"缴费", "我要交费", "账单"})
ASKING = "正在向医院查询"
SILENT = "医院系统暂时没有回应"


async def chat(world: World, person: str, draw: random.Random, key: str) -> None:
    """Ask once; the same push arrives up to three times, at any program."""
    text = draw.choice(WORDS)
    event = ChatEvent(
        event_id=event_id_of(str(world.day.seed), key),
        kind=ChatEventKind.TEXT,
        open_id=world.chat.open_id(world.users[person], world.official.app_id),
        to="account",
        happened_at=world.scheduler.clock.now(),
        text=text,
    )
    before = _owed(world, person)
    heard = None
    for attempt in range(ATTEMPTS):
        heard = await _pushed(world, event, f"{key}/{attempt}")
        if heard is not None:
            break
    if heard is None:
        world.scheduler.counts["chat: no answer"] += 1
        return
    late = ASKING in heard.text
    world.scheduler.counts["chat: later" if late else "chat: at once"] += 1
    if heard.dropped:
        world.scheduler.counts["chat: nothing said"] += 1  # too much at once
    elif text in OWED and not late and SILENT not in heard.text:
        _check_owed(world, heard.text, before & _owed(world, person))


async def _pushed(world: World, event: ChatEvent, key: str) -> Heard | None:
    """None when the platform had to hang up, or was told to come again."""
    there, back = world.network.seconds("push", key)

    async def hear(life: Life) -> Heard | None:
        services = life.things["services"]
        account = await services.institutions.chat_account_by_app(world.institution_id, world.official.app_id)
        conversation: Conversation = life.things["conversation"]
        try:
            return await conversation.hear(account, event)
        except StillBeingMade:
            world.scheduler.counts["push told to come again"] += 1
            return None

    try:
        async with asyncio.timeout(PLATFORM_SECONDS):
            await asyncio.sleep(there)
            heard = await world.request(hear, key=f"push/{key}")
            await asyncio.sleep(back)
    except (TimeoutError, NeverConnected, ConnectionLost) as problem:
        world.scheduler.counts[f"push met {type(problem).__name__}"] += 1
        await asyncio.sleep(chance(world.day.seed, "push waits", key))
        return None
    return heard


def _owed(world: World, person: str) -> set[str]:
    """What this person's patients owe now, in yuan as a chat would say it, of bills that nobody is paying."""
    now = world.scheduler.clock.now()
    patients = {his_id for phone in world.phones if phone.name == person for his_id in phone.patients}
    return {
        f"{bill.bill_id} ¥{yuan_text(Fen(bill.to_pay_fen))}"
        for bill in world.his.bills.values()
        if bill.patient_id in patients and bill.state(now) == "unpaid"
    }


def _check_owed(world: World, text: str, owed: set[str]) -> None:
    """Whatever was owed the whole time is in the answer, unless we hold its money already."""
    if "还有" in text:
        return  # more bills than a text can hold
    for each in owed:
        bill_id, _, amount = each.partition(" ")
        taken = world.postgres.query(
            "SELECT 1 FROM payment_line l JOIN payment p ON p.id = l.payment_id"
            " WHERE l.his_bill_id = %s AND (p.status = 'paid' OR l.status <> 'waiting')",
            bill_id,
        )
        if bill_id not in text and not taken:
            world.mistakes.append(f"the chat does not say that {bill_id} ({amount}) is owed")
