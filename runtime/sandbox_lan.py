"""Real phones in the sandbox: which of this computer's addresses they reach, and what the terminal says to them."""

from __future__ import annotations

import io
import ipaddress
import socket

from core.errors import ConfigurationError
from runtime.child_processes import LOOPBACK

MAPPED_EVERY_ADDRESS = ipaddress.ip_address("::ffff:0.0.0.0")
ANYWHERE = "192.0.2.1"  # documentation's own network: an address outside, which nobody has


def lan_address(asked: str) -> str:
    """This computer's address in the local network; asked for by name, it is taken as it is.

    Raises ConfigurationError when there is none, or when every address of this computer would be opened.
    """
    if asked not in {"1", "yes", "true"}:
        if _is_every_address(asked):
            raise ConfigurationError(
                f"{asked} would open the sandbox on every network of this computer; name one address"
                " (make run LAN=192.168.1.20), or LAN=1"
            )
        return asked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ANYWHERE, 9))  # sends nothing: it only makes the system choose an address
            found = str(probe.getsockname()[0])
        except OSError:
            found = LOOPBACK
    if ipaddress.ip_address(found).is_loopback:
        raise ConfigurationError("this computer is in no local network; name its address: make run LAN=192.168.1.20")
    return found


def _is_every_address(host: str) -> bool:
    try:
        found = {ipaddress.ip_address(str(each[4][0])) for each in socket.getaddrinfo(host, None)}
    except (OSError, ValueError):
        return False  # not an address of this computer: listening will say so
    return any(each.is_unspecified or each == MAPPED_EVERY_ADDRESS for each in found)


def for_real_phones(page: str, door: str) -> str:
    """What the terminal says to somebody with a real phone in the same network."""
    import segno

    picture = io.StringIO()
    segno.make_qr(with_door(page, "/phone/1", door), error="l").terminal(out=picture, border=2, compact=True)
    return (
        f"{picture.getvalue()}\n演示环境：同一无线网里的手机扫上面的码，"
        f"或打开 {with_door(page, '/phone/1', door)}（第二部：{with_door(page, '/phone/2', door)}）\n"
        "有这个地址和其中口令的人，在演示环境里什么都能做；不要在公共网络里这样运行，用完按 Ctrl-C。"
    )


def with_door(page: str, path: str, door: str) -> str:
    """The address to print: the page's with its secret, when it has one. The page's own guard reads it."""
    return f"{page}{path}?door={door}" if door else f"{page}{path}"
