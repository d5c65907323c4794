"""`serve(app)`: a Sanic app, once, on a free loopback port, inside the running test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Sanic
from sanic.application.constants import ServerStage
from sanic.application.state import ApplicationServerInfo
from sanic.server.async_server import AsyncioServer

from runtime.child_processes import LOOPBACK
from tests.support.remembered import remember_error_formats, remember_routes

Sanic.test_mode = True  # several apps in one process, any of them built again under the same name
remember_error_formats()
remember_routes()

_DRAIN_SECONDS = 2.0


@asynccontextmanager
async def serve(app: Sanic[Any, Any]) -> AsyncIterator[str]:
    """Yields the base URL, `http://127.0.0.1:<port>`; the server's listeners run as in production."""
    app.config.AUTO_EXTEND = False
    app.config.TOUCHUP = False  # it rewrites Sanic's classes for one app, and there are several here
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((LOOPBACK, 0))
    server = await app.create_server(
        sock=listening, return_asyncio_server=True, asyncio_server_kwargs={"start_serving": False}
    )
    assert server is not None
    try:
        await server.startup()
        # Without this, app.add_task believes the server never started.
        app.state.server_info.append(ApplicationServerInfo(settings={}, stage=ServerStage.SERVING))
        await server.before_start()
        await server.after_start()
        await server.start_serving()
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        await _stop(app, server)


async def _stop(app: Sanic[Any, Any], server: AsyncioServer) -> None:
    """In the order of Sanic's own runner, which cannot be called while a loop runs."""
    await server.before_stop()
    server.close()
    for connection in list(server.connections):
        connection.close_if_idle()
    deadline = asyncio.get_running_loop().time() + _DRAIN_SECONDS
    while server.connections and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
    tasks = [task for task in app.tasks if not task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in list(server.connections):
        websocket = getattr(connection, "websocket", None)
        if websocket:
            websocket.fail_connection(code=1001)
        else:
            connection.abort()
    app.purge_tasks()
    await server.after_stop()
