"""Who may come in when other computers reach the page: whoever has opened the printed address with its secret.

The address gives the browser a cookie. Cookies know no ports, so the phones' in-app browsers, which listen beside
the page, see the same one.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Any

from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse, html, redirect

COOKIE = "sandbox_door"
QUESTION = "door"  # of the printed address
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'",
    "referrer-policy": "no-referrer",
}
CLOSED = (
    '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>演示环境</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
    "<body><h3>请从打印的地址进来</h3>"
    "<p>这个演示环境只对知道口令的人开放。请打开运行它的终端里打印的完整地址，或扫那里的二维码。</p></body></html>"
)


def keep_door(app: Sanic[Any, Any], secret: str, *, opens: bool) -> None:
    """Answer only those who have the secret; `opens`: an address with it lets its browser in. Empty: no door."""
    if not secret:
        return

    def is_secret(said: str) -> bool:
        return compare_digest(said.encode(), secret.encode())

    @app.on_request
    async def only_with_the_secret(request: Request) -> HTTPResponse | None:
        if opens and request.method == "GET" and is_secret(str(request.args.get(QUESTION, ""))):
            answer = redirect("/" + request.path.lstrip("/"), status=303, headers=dict(HEADERS))
            answer.add_cookie(COOKIE, secret, path="/", httponly=True, secure=False, samesite="Lax")
            return answer
        if is_secret(str(request.cookies.get(COOKIE, ""))):
            return None
        return html(CLOSED, status=403, headers=HEADERS)
