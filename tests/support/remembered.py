"""Work whose result is the same in every test and which takes longer than most tests: done once per process.

Both are functions of what they are given and of nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any

from sanic.mixins.routes import RouteMixin

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
