"""Proxies between the programs and everybody they speak to: bytes pass, or are held while somebody dies.

Real sockets on both sides. A proxy knows where a message begins and ends and whose connection it is, nothing more; the
`Street` says which message is struck.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from runtime.child_processes import LOOPBACK
from simulators.kit import Request
from tests.kills import http_wire, postgres_wire
from tests.kills.plan import POSTGRES, Side, Strike, Victim
from tests.kills.postgres_wire import CLAIM, Statement
from tests.kills.programs import Program

ANSWER_SECONDS = 5.0
"""Forwarded bytes of the dead are answered within this, or never."""


class Street(Protocol):
    """Who decides."""

    def moved(self) -> None:
        """Somebody has done something."""
        ...

    def whose(self, port: int, to_port: int) -> Program | None: ...

    def strike(self, program: Program, peer: str, call: str, side: Side, *, also: str = "") -> Strike | None: ...

    async def carry_out(self, strike: Strike, session: Session, what: str) -> None: ...

    async def sleep(self, seconds: float) -> None: ...

    def unanswered(self, peer: str, call: str, key: str) -> None: ...


class _End(asyncio.Protocol):
    """One of a session's two sockets."""

    def __init__(self, session: Session, *, of_client: bool) -> None:
        self._session = session
        self._of_client = of_client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._of_client:
            self._session.opened(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        (self._session.asked if self._of_client else self._session.answered)(data)

    def connection_lost(self, error: Exception | None) -> None:
        (self._session.client_lost if self._of_client else self._session.server_lost)()


class Session(ABC):
    """One connection and the one behind it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.street = proxy.street
        self.program: Program | None = None
        self.held = False
        self.answer_seen = asyncio.Event()
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._withheld: list[bytes] = []
        self._ended = False

    # --- the two ends ---

    def opened(self, client: asyncio.Transport) -> None:
        self._client = client
        self.proxy.sessions.add(self)
        place = self.proxy.place(self, client.get_extra_info("peername")[1])
        if place is None:
            self.end()
        else:
            self.proxy.keep(asyncio.ensure_future(self._connect(*place)))

    async def _connect(self, host: str, port: int) -> None:
        try:
            server, _ = await asyncio.get_running_loop().create_connection(
                lambda: _End(self, of_client=False), host, port
            )
        except OSError:
            self.end()
            return
        self._server = server
        if self._ended:
            server.abort()
            return
        early, self._early = self._early, []
        for data in early:
            server.write(data)

    def to_server(self, data: bytes) -> None:
        if self._server is None:
            self._early.append(data)
        else:
            self._server.write(data)

    def to_client(self, data: bytes) -> None:
        if self._client is not None:
            self._client.write(data)

    def client_lost(self) -> None:
        self._client = None
        if not self.held:
            self.end()

    def server_lost(self) -> None:
        self._server = None
        self.answer_seen.set()
        if not self.held:
            self.end()

    def hang_up(self) -> None:
        """Cut the program's end; the other one stays."""
        if self._client is not None:
            self._client.abort()

    def end(self) -> None:
        self._ended = True
        self.proxy.sessions.discard(self)
        if self._client is not None:
            self._client.abort() if self.busy() else self._client.close()
        if self._server is not None:
            self._server.close()
        self.answer_seen.set()

    # --- what passes ---

    @abstractmethod
    def asked(self, data: bytes) -> None: ...

    @abstractmethod
    def answered(self, data: bytes) -> None: ...

    @abstractmethod
    def busy(self) -> bool:
        """The program has asked and waits."""

    def settled(self) -> None:  # noqa: B027  # not every protocol has something to do then
        """The program has its answer after all."""

    def one_answered(self) -> None:  # noqa: B027
        """The program has the answer that was held, and the connection goes on."""

    # --- holding ---

    def hold(self, strike: Strike, what: str, data: bytes) -> None:
        self.held = True
        self._withheld = [data]
        self.answer_seen.clear()
        self.proxy.keep(asyncio.ensure_future(self._carry_out(strike, what)))

    async def _carry_out(self, strike: Strike, what: str) -> None:
        try:
            await self.street.carry_out(strike, self, what)
            if strike.victim is Victim.TIME:
                self._go_on(strike.side)
                return
            if strike.forward and strike.side is Side.REQUEST:
                await self._forward(strike)
            elif strike.forward:
                self.settled()
                self.to_client(b"".join(self._withheld))
        finally:
            if self.held:
                self.held = False
                self.end()

    def _go_on(self, side: Side) -> None:
        """As if nothing had been."""
        self.held = False
        if side is Side.ANSWER:
            self.one_answered()
        for data in self._withheld:
            self.to_client(data) if side is Side.ANSWER else self.to_server(data)
        if self._server is None or self._client is None:
            self.end()

    async def _forward(self, strike: Strike) -> None:
        if strike.later_seconds:
            self.proxy.under_way.discard(self)
            await self.street.sleep(strike.later_seconds)
        self.proxy.under_way.add(self)
        self.to_server(b"".join(self._withheld))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.answer_seen.wait(), ANSWER_SECONDS)
        self.proxy.under_way.discard(self)


class Proxy:
    """In front of one peer."""

    def __init__(
        self,
        street: Street,
        peer: str,
        session: type[Session],
        *,
        classify: Callable[[Request], tuple[str, str]] | None = None,
    ) -> None:
        self.street = street
        self.peer = peer
        self.port = 0
        self.behind: tuple[str, int] | None = None
        self.sessions: set[Session] = set()
        self.under_way: set[Session] = set()  # bytes that outlive their sender and have not arrived yet
        self.classify = classify
        self._session = session
        self._tasks: set[asyncio.Future[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _End(self._session(self), of_client=True), LOOPBACK, 0, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def place(self, session: Session, port: int) -> tuple[str, int] | None:
        """Where this connection leads; None: it is refused."""
        session.program = self.street.whose(port, self.port)
        return self.behind if session.program is not None else None

    def busy(self) -> bool:
        return bool(self.under_way) or any(
            session.held or session.busy()
            for session in self.sessions
            if session.program is None or not session.program.paused
        )

    def keep(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut_all(self) -> None:
        for session in list(self.sessions):
            session.held = False
            session.end()
        for task in list(self._tasks):
            task.cancel()
        self.under_way.clear()

    async def close(self) -> None:
        self.cut_all()
        if self._server is not None:
            self._server.close()


class PostgresSession(Session):
    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        self._asking, self._answering = postgres_wire.Asking(), postgres_wire.Answering()
        self._pending: deque[Statement] = deque()
        self._waits = False

    def busy(self) -> bool:
        return self._waits or self._answering.in_transaction

    def asked(self, data: bytes) -> None:
        if self.held:
            self._withheld.append(data)
            return
        assert self.program is not None
        out = bytearray()
        messages = list(self._asking.feed(data))
        for number, (whole, statement) in enumerate(messages):
            self._waits = True
            if statement is not None:
                self._pending.append(statement)
                if statement.kind != CLAIM:
                    self.street.moved()
                strike = self._struck(statement, Side.REQUEST)
                if strike is not None:
                    self.to_server(bytes(out))
                    rest = b"".join(message for message, _ in messages[number:])
                    self.hold(strike, statement.name or statement.kind, rest)
                    return
            out += whole
        self.to_server(bytes(out))

    def answered(self, data: bytes) -> None:
        strike, name = None, ""
        for kind, rows in self._answering.feed(data):
            if kind == "Z":
                self._waits = False
                self._pending.clear()
                self.answer_seen.set()
            elif self._pending:
                statement = self._pending.popleft()
                if statement.kind != CLAIM or rows:
                    self.street.moved()
                    if strike is None and not self.held:
                        strike, name = self._struck(statement, Side.ANSWER), statement.name or statement.kind
        if strike is not None:
            self.hold(strike, name, data)
        elif not self.held:
            self.to_client(data)
        elif self._withheld and not self.answer_seen.is_set():
            self._withheld.append(data)

    def _struck(self, statement: Statement, side: Side) -> Strike | None:
        if self.program is None or not statement.name:
            return None
        return self.street.strike(self.program, POSTGRES, statement.kind or statement.name, side, also=statement.name)

    def in_transaction(self) -> bool:
        return self._answering.in_transaction


class HttpSession(Session):
    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        self._requests, self._answers = http_wire.Messages(), http_wire.Messages()
        self._pending: deque[tuple[str, str]] = deque()

    def busy(self) -> bool:
        return bool(self._pending)

    def settled(self) -> None:  # not every protocol has something to do then
        self._pending.clear()

    def one_answered(self) -> None:
        if self._pending:
            self._pending.popleft()

    def asked(self, data: bytes) -> None:
        if self.held:
            return
        for message in self._requests.feed(data):
            assert self.proxy.classify is not None
            call, key = self.proxy.classify(http_wire.request_of(message))
            self._pending.append((call, key))
            self.street.moved()
            strike = self._struck(call, Side.REQUEST)
            if strike is not None:
                self.hold(strike, f"{call} {key}", message)
                return
            self.to_server(message)

    def answered(self, data: bytes) -> None:
        for message in self._answers.feed(data):
            self.street.moved()
            if self.held:
                self.answer_seen.set()
                continue
            call, key = self._pending[0] if self._pending else ("", "")
            strike = self._struck(call, Side.ANSWER)
            if strike is not None:
                self.hold(strike, f"{call} {key} {http_wire.status_of(message)}", message)
                return
            if self._pending:
                self._pending.popleft()
            self.to_client(message)

    def end(self) -> None:
        for call, key in self._pending:
            self.street.unanswered(self.proxy.peer, call, key)
            self.street.moved()
        super().end()
        self._pending.clear()

    def _struck(self, call: str, side: Side) -> Strike | None:
        if self.program is None:
            return None
        return self.street.strike(self.program, self.proxy.peer, call, side)
