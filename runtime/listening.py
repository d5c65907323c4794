"""Several HTTP servers on one event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Sanic
from sanic.application.constants import ServerStage
from sanic.application.state import ApplicationServerInfo

_DRAIN_SECONDS = 2.0


@asynccontextmanager
async def serving(app: Sanic[Any, Any], on: socket.socket) -> AsyncIterator[None]:
    """The app answers on this socket while the block runs; its listeners run as in a program of its own."""
    app.config.AUTO_EXTEND = False
    app.config.TOUCHUP = False  # it rewrites Sanic's classes for one app, and there are several here
    server: Any = await app.create_server(
        sock=on, return_asyncio_server=True, asyncio_server_kwargs={"start_serving": False}
    )
    await server.startup()
    # Without this the app believes that it never started, and add_task refuses.
    app.state.server_info.append(ApplicationServerInfo(settings={}, stage=ServerStage.SERVING))
    try:
        await server.before_start()
        await server.after_start()
        await server.start_serving()
        yield
    finally:
        await server.before_stop()
        server.close()
        for connection in list(server.connections):
            connection.close_if_idle()
        deadline = asyncio.get_running_loop().time() + _DRAIN_SECONDS
        while server.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 (Sanic tells nobody)
            await asyncio.sleep(0.01)
        for connection in list(server.connections):
            connection.abort()
        await server.after_stop()
