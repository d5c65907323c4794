"""Addresses of our pages, and which of them a browser may be sent to. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from core.institutions import Profile
from miniprogram_api.requests import ApiRequest

LENGTH_MAX = 1500
"""A cookie holds 4,096 bytes; instead of a longer address the institution's first page is opened."""

ACTIONS = frozenset({"back", "cancel", "code", "consent", "factor", "pay", "sms", "state", "withdraw"})
"""Last parts of paths that only act: their page is the path without it."""

_PAGE = re.compile(r"/[hp]/[A-Za-z0-9._~%!$&'()*+,;=:@?-][A-Za-z0-9._~%!$&'()*+,;=:@/?-]*")


def is_page(address: str) -> bool:
    """Whether this is an address of a page, and safe to send a browser to."""
    return _PAGE.fullmatch(address) is not None and len(address) <= LENGTH_MAX


def first_page(profile: Profile) -> str:
    return f"/h/{quote(profile.code, safe='')}/"


def page_of(request: ApiRequest, profile: Profile | None) -> str:
    """The page that a request shows or acts on."""
    parts = request.path.split("/")
    address = request.path
    if parts[-1] in ACTIONS:
        address = "/".join(parts[:-1]) or "/"
    elif request.query_string and request.method != "POST":
        address = f"{request.path}?{request.query_string}"
    if is_page(address):
        return address
    return first_page(profile) if profile is not None else "/"
