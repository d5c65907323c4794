"""Where the sandbox's programs listen: ports reserved before any process begins, so that all know them."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields
from typing import Self

from runtime.child_processes import LOOPBACK
from runtime.sockets import reserve

CONSOLE_PORT = 8800  # the others take the next ones, or any that is free

OPEN = frozenset({"console", "phone_1", "phone_2"})
"""What a real phone may reach when the sandbox lets it in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    console: socket.socket
    product: socket.socket
    wechatpay: socket.socket
    wechat: socket.socket
    hospital: socket.socket
    sms: socket.socket
    phone_1: socket.socket  # the in-app browser of the first phone
    phone_2: socket.socket

    @classmethod
    def reserved(cls, port: int, *, page_host: str = LOOPBACK) -> Self:
        """`page_host` is where people's browsers reach the page and the phones; everything else is on loopback.

        Raises ConfigurationError when the page's port was chosen by a person and is taken.
        """
        console = reserve(page_host, port, any_other=port == CONSOLE_PORT)
        first = console.getsockname()[1]
        others = [field.name for field in fields(cls) if field.name != "console"]
        return cls(
            console=console,
            **{
                name: reserve(
                    page_host if name in OPEN else LOOPBACK,
                    first + nth if first + nth < 65536 else 0,
                    any_other=True,
                )
                for nth, name in enumerate(others, start=1)
            },
        )

    @property
    def browsers(self) -> tuple[socket.socket, ...]:
        return self.phone_1, self.phone_2

    @staticmethod
    def url(of: socket.socket) -> str:
        host, port = of.getsockname()[:2]
        return f"http://{host}:{port}"

    def close(self) -> None:
        for field in fields(self):
            getattr(self, field.name).close()
