"""The API's own description: an OpenAPI document and a page made of it, both without anybody else's server."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader
from sanic import Blueprint
from sanic.response import HTTPResponse, html

from miniprogram_api.openapi import document
from miniprogram_api.requests import ApiRequest, reply

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def blueprint() -> Blueprint:
    docs = Blueprint("docs", url_prefix="/api")

    @docs.get("/openapi.json")
    async def openapi(request: ApiRequest) -> HTTPResponse:
        return reply(document())

    @docs.get("/docs")
    async def page(request: ApiRequest) -> HTTPResponse:
        return html(rendered(), headers={"content-security-policy": PAGE_POLICY})

    return docs


@cache
def rendered() -> str:
    """The whole document as one page without a script."""
    environment = Environment(loader=PackageLoader("miniprogram_api"), autoescape=True, trim_blocks=True)
    environment.filters["pretty"] = _pretty
    return environment.get_template("docs.html").render(document=document())


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
