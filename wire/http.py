"""The one HTTP client for calls to counterparties: it answers "may anything have happened?" and nothing more.

No redirects, no retries, a deadline for the whole call, a bound on the answer's size. A call while a database
transaction is open is a mistake of ours and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import aiohttp
from yarl import URL

from core.errors import NotReached, OutcomeUnknown
from core.transactions import open_transaction

ANSWER_BYTES_MAX = 4 << 20
REFUSAL_BYTES_MAX = 64 << 10
PART_BYTES = 64 << 10
CONNECT_SECONDS = 5
CONNECTIONS_MAX = 200
CONNECTIONS_PER_HOST_MAX = 50
"""Counterparties that hang hold no more than this each; whoever finds no place in time has not been reached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """`url` is sent exactly as given (already percent-encoded): what is signed is what leaves.

    Its query stays out of the repr: some counterparties want a token or a secret there.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpReply:
    """Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


class Transport(Protocol):
    """Carries one request. Raises NotReached when nothing left us, OutcomeUnknown for any other silence."""

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply: ...


class Downloads(Protocol):
    """Fetches a file that is too large for memory. Raises as a Transport does."""

    async def download(
        self, request: HttpRequest, into: BinaryIO, *, bytes_max: int, deadline_seconds: float
    ) -> HttpReply:
        """Write the body of a 200 into the file, at most `bytes_max` of it; any other answer has its body itself."""
        ...


class NoDownloads:
    """For programs that fetch no files."""

    async def download(
        self, request: HttpRequest, into: BinaryIO, *, bytes_max: int, deadline_seconds: float
    ) -> HttpReply:
        raise NotReached("this program fetches no files")


class HttpClient:
    """A Transport, and Downloads, over real connections."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX, per_host_max: int = CONNECTIONS_PER_HOST_MAX) -> None:
        self._connections_max = connections_max
        self._per_host_max = per_host_max
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_max, limit_per_host=self._per_host_max),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        """One request, one answer. Raises NotReached or OutcomeUnknown, never an error of the library."""
        if open_transaction.get():
            raise RuntimeError("a counterparty was called while a database transaction was open")
        limits = aiohttp.ClientTimeout(total=deadline_seconds, connect=min(CONNECT_SECONDS, deadline_seconds))
        try:
            async with self._opened().request(
                request.method,
                URL(request.url, encoded=True),
                headers=dict(request.headers),
                data=request.body or None,
                allow_redirects=False,
                timeout=limits,
            ) as answer:
                body = await answer.content.read(ANSWER_BYTES_MAX + 1)
                while len(body) <= ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX)):
                    body += more
                if len(body) > ANSWER_BYTES_MAX:
                    raise OutcomeUnknown("the answer is larger than we accept")
                return HttpReply(
                    status=answer.status,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=body,
                )
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise _silence(error) from None

    async def download(
        self, request: HttpRequest, into: BinaryIO, *, bytes_max: int, deadline_seconds: float
    ) -> HttpReply:
        """One file. Raises NotReached or OutcomeUnknown."""
        if open_transaction.get():
            raise RuntimeError("a counterparty was called while a database transaction was open")
        limits = aiohttp.ClientTimeout(total=deadline_seconds, connect=CONNECT_SECONDS)
        try:
            async with self._opened().request(
                request.method,
                URL(request.url, encoded=True),
                headers=dict(request.headers),
                allow_redirects=False,
                timeout=limits,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                if answer.status != 200:
                    said = await answer.content.read(REFUSAL_BYTES_MAX)
                    return HttpReply(status=answer.status, headers=headers, body=said)
                size = 0
                async for part in answer.content.iter_chunked(PART_BYTES):
                    size += len(part)
                    if size > bytes_max:
                        raise OutcomeUnknown("the file is larger than we accept")
                    into.write(part)
                return HttpReply(status=answer.status, headers=headers)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise _silence(error) from None


def _silence(error: Exception) -> NotReached | OutcomeUnknown:
    """What a failure of the library says of the request. Not chained: its errors may quote the whole address."""
    if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotReached(type(error).__name__)
    return OutcomeUnknown(type(error).__name__)
