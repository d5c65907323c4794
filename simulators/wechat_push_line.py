"""Pushes on the wire: how they are written, and how they are sent with five seconds for an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from simulators.kit import Delivers, Post, Request, Response, deliver_one

ANSWER_SECONDS = 5.0
AT_ONCE = 20  # pushes under way at a time


def rendered(values: Mapping[str, Any], form: str) -> bytes:
    """The document of a push, as XML or JSON."""
    if form == "xml":
        return f"<xml>{_xml(values)}</xml>".encode()
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if (
            isinstance(value, dict) and "List" in value
        ):  # in JSON the wrapper is gone, one entry is no list, numbers in it are text
            entries = [{key: str(each) for key, each in entry.items()} for entry in value["List"]]
            flat["List"] = entries[0] if len(entries) == 1 else entries
        else:
            flat[name] = value
    return json.dumps(flat, ensure_ascii=False, separators=(",", ":")).encode()


def _xml(values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            parts.append(f"<{name}>{_xml_value(each)}</{name}>")
    return "".join(parts)


def _xml_value(value: Any) -> str:
    if isinstance(value, dict):
        return _xml(value)
    if isinstance(value, str):
        return f"<![CDATA[{value.replace(']]>', ']]]]><![CDATA[>')}]]>"
    return str(value)


async def push_one(simulator: Delivers, post: Post, *, deadline_seconds: float = ANSWER_SECONDS) -> bool:
    """Send the next push that is due and hang up after five seconds; False when nothing was due."""

    async def within(url: str, request: Request) -> Response:
        async with asyncio.timeout(deadline_seconds):
            return await post(url, request)

    return await deliver_one(simulator, within)


async def push_forever(
    simulator: Delivers, post: Post, *, idle_seconds: float = 0.05, deadline_seconds: float = ANSWER_SECONDS
) -> None:
    """Keep sending what falls due, several at once: a server that is slow for one person holds up nobody else."""
    room = asyncio.Semaphore(AT_ONCE)

    async def send() -> None:
        async with room:
            await push_one(simulator, post, deadline_seconds=deadline_seconds)

    async with asyncio.TaskGroup() as sending:
        while True:
            due_at = simulator.deliveries.next_due_at()
            if due_at is not None and due_at <= simulator.clock.now() and not room.locked():
                sending.create_task(send())
                await asyncio.sleep(0)  # it takes its push before the next look
            else:
                await asyncio.sleep(idle_seconds)
