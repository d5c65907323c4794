"""Work whose result is the same in every test and which takes longer than most tests: done once per process.

All are functions of what they are given and of nothing else.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any

import sanic_routing.router
from sanic.mixins.routes import RouteMixin
from tortoise.models import MetaInfo

from channels.wechatpay import params


@cache
def remember_private_keys() -> None:
    """Reading a merchant's private key checks its primes, which takes longer than a whole payment."""
    names = vars(params)
    names["read_private_key"] = cache(names["read_private_key"])


@cache
def remember_error_formats() -> None:
    """Sanic parses the source of each handler of each application to find out how its errors should look."""
    read = RouteMixin._determine_error_format
    formats: dict[CodeType | None, str] = {}

    def error_format(mixin: RouteMixin, handler: Callable[..., Any]) -> str:
        code = getattr(inspect.unwrap(handler), "__code__", None)
        if code is None or code not in formats:
            formats[code] = read(mixin, handler)
        return formats[code]

    RouteMixin._determine_error_format = error_format  # type: ignore[method-assign, assignment]


@cache
def remember_routes() -> None:
    """Every application writes the source of its router, parses it, writes it once more and compiles it."""
    names = vars(sanic_routing.router)
    names["ast"] = SimpleNamespace(
        parse=cache(ast.parse), fix_missing_locations=cache(ast.fix_missing_locations), unparse=lambda tree: ""
    )
    names["compile"] = cache(compile)


@cache
def remember_filters() -> None:
    """The models are the same for every database: which filters they know, too."""
    make = MetaInfo._generate_filters
    made: dict[MetaInfo, type] = {}

    def generate(meta: MetaInfo) -> None:
        executor = meta.db.executor_class
        if made.get(meta) is not executor:
            make(meta)
            made[meta] = executor

    MetaInfo._generate_filters = generate  # type: ignore[method-assign, assignment]
