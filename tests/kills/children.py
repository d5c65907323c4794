"""What a forked child becomes: one of the product's own programs, started as its command starts it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sanic import Sanic
from sanic.config import DEFAULT_CONFIG
from sanic.mixins.routes import RouteMixin

import scheduler.worker
from channels.wechatpay import params as wechatpay_params
from runtime import logs, postgres_engine, programs
from runtime.settings import read_settings
from tests.kills.mutations import MUTATIONS

WEB, WORKER = "web", "worker"
ALSO_LOADED = (postgres_engine,)  # by name, when a program opens its database
BELL = signal.SIGUSR1
"""Tells a worker that something is due."""


def prepare(environment: Mapping[str, str], private_key: str) -> None:
    """What every child has from the start, none of it of any consequence: checking a key takes longer than a whole
    payment, and a web server reads its own source for every route."""
    names = vars(wechatpay_params)
    checked = names["read_private_key"](private_key, name="")
    good = names["read_private_key"]
    names["read_private_key"] = lambda text, **named: checked if text == private_key else good(text, **named)
    routes: Any = RouteMixin
    routes._determine_error_format = _by_code(routes._determine_error_format)
    logging.getLogger().addHandler(logging.NullHandler())
    DEFAULT_CONFIG["TOUCHUP"] = False  # else it reads and rewrites its own source at every start
    Sanic.unregister_app(programs.server(read_settings(environment)))


def _by_code(function: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    known: dict[Any, str] = {}

    def remembered(self: Any, handler: Any) -> str:
        code = getattr(handler, "__code__", handler)
        if code not in known:
            known[code] = function(self, handler)
        return known[code]

    return remembered


def run(order: dict[str, Any], ready: Callable[[], None]) -> None:
    """Until the process is killed."""
    logs.to(order["name"], file=Path(order["log"]), level=order["log_level"])
    if order["mutation"]:
        MUTATIONS[order["mutation"]]()
    settings = read_settings(order["environment"])
    if order["kind"] == WEB:
        programs.run_server(settings, ready, programs=order["programs"])
    else:
        vars(scheduler.worker)["asyncio"] = Woken(Path(order["due"]))
        programs.run_worker(settings, ready, programs=order["programs"])


class Woken:
    """asyncio as a worker's loops see it: their naps end when the bell rings, because time runs in jumps here.

    Looking twenty times a second for what the harness knows anyhow would cost more than all payments. The file says
    for which tables the bell rings.
    """

    def __init__(self, due: Path) -> None:
        self._due = due
        self._bells: dict[str, asyncio.Event] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._bell().wait(), seconds)

    async def wait(self, tasks: Iterable[asyncio.Future[Any]], *, timeout: float, return_when: str) -> Any:
        ring = asyncio.ensure_future(self._bell().wait())
        try:
            done, pending = await asyncio.wait({*tasks, ring}, timeout=timeout, return_when=return_when)
        finally:
            ring.cancel()
        return done - {ring}, pending - {ring}

    def _bell(self) -> asyncio.Event:
        """Of the loop that asks."""
        task = asyncio.current_task()
        assert task is not None
        if not self._bells:
            asyncio.get_running_loop().add_signal_handler(BELL, self._ring)
        return self._bells.setdefault(task.get_name(), asyncio.Event())

    def _ring(self) -> None:
        for table in self._due.read_text().split():
            bell = self._bells.pop(f"loop:{table}", None)
            if bell is not None:
                bell.set()
                self._bells[f"loop:{table}"] = asyncio.Event()
