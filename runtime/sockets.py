"""Sockets to listen on: a port reserved by one program, and shared by its children."""

from __future__ import annotations

import socket

from core.errors import ConfigurationError


def reserve(host: str, port: int, *, any_other: bool = False) -> socket.socket:
    """Keep a port for children that will listen there; nobody is served yet. Port 0 is any free one.

    Raises ConfigurationError when somebody listens there already, unless any other port will do.
    """
    try:
        _bound(host, port, shared=False).close()  # fails where a shared one would join another program
        return _bound(host, port, shared=True)
    except OSError as error:
        if any_other and port:
            return reserve(host, 0)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket of this process's own among all that share the port; the kernel spreads new connections."""
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
