"""Just enough of HTTP/1.1 to know where a message ends and what it is about."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulators.kit import Request

HEAD_END = b"\r\n\r\n"


class HttpError(Exception):
    """These bytes are not what our programs and simulators send."""


@dataclass
class Messages:
    """Cuts a stream of requests or answers into whole ones."""

    _data: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[bytes]:
        self._data += data
        found = []
        while (length := self._length()) is not None:
            found.append(bytes(self._data[:length]))
            del self._data[:length]
        return found

    def _length(self) -> int | None:
        """Of the first message, once it is here whole."""
        end = self._data.find(HEAD_END)
        if end < 0:
            return None
        body = end + len(HEAD_END)
        headers = headers_of(bytes(self._data[:end]))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            last = self._data.find(b"0\r\n\r\n", body)
            while last > body and self._data[last - 2 : last] != b"\r\n":
                last = self._data.find(b"0\r\n\r\n", last + 1)
            return None if last < 0 else last + 5
        whole = body + int(headers.get("content-length", "0"))
        return whole if len(self._data) >= whole else None


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def request_of(message: bytes) -> Request:
    """A whole request as simulators know it. Raises HttpError."""
    head, _, body = message.partition(HEAD_END)
    first = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(first) != 3:
        raise HttpError(first[0][:20])
    return Request(method=first[0], target=first[1], headers=headers_of(head), body=body)


def status_of(message: bytes) -> int:
    return int(message[9:12])
