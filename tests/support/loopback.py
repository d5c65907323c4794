"""Tests talk to this computer only: anything else fails elsewhere, or worse, reaches someone."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

_armed = False


class NotLoopback(RuntimeError):
    """A test tried to reach another computer."""


def refuse_other_computers() -> None:
    """From now on, for the whole process: an audit hook cannot be taken back."""
    global _armed
    if not _armed:
        _armed = True
        sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and address and not _is_here(str(address[0])):
            raise NotLoopback(f"connection to {address[0]}:{address[1]}")
    elif event == "socket.getaddrinfo":
        host = arguments[0]
        name = host.decode() if isinstance(host, bytes) else host
        if name and not _is_here(name) and not _is_address(name):
            raise NotLoopback(f"name {name} looked up")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_here(host: str) -> bool:
    """Also `0.0.0.0` and the empty host, which reach this computer."""
    if host in ("", "localhost"):
        return True
    if not _is_address(host):
        return False
    address = ipaddress.ip_address(host)
    return address.is_loopback or address.is_unspecified
