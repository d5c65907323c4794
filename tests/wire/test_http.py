"""The one HTTP client, against real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from core.errors import NotReached, OutcomeUnknown
from wire.http import CONNECTIONS_MAX, CONNECTIONS_PER_HOST_MAX, HttpClient, HttpRequest

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ANSWER_SECONDS = 3.0
"""Far more than a loopback answer takes, less than a place is waited for."""

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(talk: Talk) -> AsyncIterator[str]:
    """At the end every conversation has ended, because the client has hung up."""
    talks: list[asyncio.Task[None]] = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(30):
            await talk(reader, writer)
            await reader.read()
        writer.close()
        await writer.wait_closed()

    def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.create_task(begin(reader, writer)))

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/"
    finally:
        server.close()
        await asyncio.gather(*talks)


async def test_one_counterparty_that_hangs_leaves_a_place_for_the_others() -> None:
    """As many calls to one host as there are places in all, and one to another: it is answered before any of them."""
    inside = 0

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside
        inside += 1

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)

    async with served(hangs) as silent, served(answers) as healthy, HttpClient() as client:

        async def ask(url: str, seconds: float) -> int:
            request = HttpRequest(method="GET", url=url)
            return (await client.send(request, deadline_seconds=seconds)).status

        waiting = [asyncio.create_task(ask(silent, 1.0)) for _ in range(CONNECTIONS_MAX)]
        while inside < CONNECTIONS_PER_HOST_MAX:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(ANSWER_SECONDS):
            assert await ask(healthy, ANSWER_SECONDS) == 200
        assert not any(task.done() for task in waiting)
        assert inside == CONNECTIONS_PER_HOST_MAX <= CONNECTIONS_MAX // 4
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, NotReached | OutcomeUnknown) for end in ends)
