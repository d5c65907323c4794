"""Who is using the phone: mini program login, the phone button, and the silent login of pages inside WeChat.

A person's phone says who they are by the cookie `sandbox_person`, or by a query parameter of that name.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from simulators.kit import Request, Response
from simulators.wechat_books import SERVICE, App, Books, Refusal, User
from simulators.wechat_tokens import TOKEN_LIFE, proven

PERSON = "sandbox_person"
STATE_BYTES_MAX = 128


class Login:
    def __init__(self, books: Books) -> None:
        self._books = books

    # ------------------------------------------------------------ mini program

    def code2session(self, query: Mapping[str, str]) -> dict[str, Any]:
        app = proven(self._books, query, grant_type="authorization_code")
        user = self._books.spend("login", app, query.get("js_code"))
        digest = self._books.digest("session", app.app_id, user.user_id, user.codes_made)
        key = base64.b64encode(digest[:16]).decode()
        user.session_keys[app.app_id] = key
        return {
            "session_key": key,
            "openid": self._books.open_id(user.user_id, app.app_id),
            "unionid": self._books.union_id(user.user_id),
        }

    def phone_number(self, app: App, body: Mapping[str, Any]) -> dict[str, Any]:
        user = self._books.spend("phone", app, body.get("code"))
        return {"errcode": 0, "errmsg": "ok", "phone_info": self._phone_info(user, app.app_id)}

    def user_info(self, app: App, query: Mapping[str, str]) -> dict[str, Any]:
        """Of followers alone it says more than that they follow. Raises Refusal."""
        user = self._books.holder_of(app, query.get("openid"))
        follows = app.app_id in user.follows
        said = {"unionid": self._books.union_id(user.user_id), "language": "zh_CN"} if follows else {}
        return {"subscribe": int(follows), "openid": query["openid"], **said}

    def encrypted_phone(self, user: User, app_id: str) -> tuple[str, str]:
        padder = PKCS7(128).padder()
        text = json.dumps(self._phone_info(user, app_id), separators=(",", ":")).encode()
        padded = padder.update(text) + padder.finalize()
        iv = self._books.digest("iv", app_id, user.user_id, user.codes_made)[:16]
        encryptor = Cipher(AES(base64.b64decode(user.session_keys[app_id])), CBC(iv)).encryptor()
        sealed = encryptor.update(padded) + encryptor.finalize()
        return base64.b64encode(sealed).decode(), base64.b64encode(iv).decode()

    def _phone_info(self, user: User, app_id: str) -> dict[str, Any]:
        domestic = user.country_code == "86"
        return {
            "phoneNumber": user.phone if domestic else f"+{user.country_code}{user.phone}",
            "purePhoneNumber": user.phone,
            "countryCode": user.country_code,
            "watermark": {"timestamp": int(self._books.clock.now().timestamp()), "appid": app_id},
        }

    # ------------------------------------------------------------ pages

    def authorize(self, request: Request) -> Response:
        """What open.weixin.qq.com serves: back to the page at once with a code, or a page that says why not."""
        query = dict(parse_qsl(request.query))
        app = self._books.apps.get(query.get("appid", ""))
        if app is None or app.kind != SERVICE:
            return _problem("AppID 参数错误", "10012")
        target = query.get("redirect_uri", "")
        if not target:
            return _problem("redirect_uri 参数错误", "10011")
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"} or app.web_domain not in {parts.netloc, parts.hostname}:
            return _problem("redirect_uri 域名与后台配置不一致", "10003")
        if query.get("response_type") != "code" or not query.get("scope"):
            return _problem("Scope 参数不能为空", "10010")
        if query["scope"] != "snsapi_base":
            return _problem("Scope 参数错误或没有 Scope 权限", "10005")
        state = query.get("state", "")
        if len(state.encode()) > STATE_BYTES_MAX or (state and not (state.isascii() and state.isalnum())):
            return _problem("state 参数错误", "10013")
        person = query.get(PERSON) or _cookie(request, PERSON)
        if person not in self._books.users:
            return _problem("请在微信客户端打开链接", "")
        code = self._books.new_code("oauth", person, app.app_id)
        values = [*parse_qsl(parts.query, keep_blank_values=True), ("code", code), ("state", state)]
        location = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(values), ""))
        headers = {"location": location, "cache-control": "no-store"}
        if query.get(PERSON):
            headers["set-cookie"] = f"{PERSON}={person}; Path=/"
        return Response(status=302, headers=headers)

    def page_token(self, query: Mapping[str, str], struck: str) -> dict[str, Any]:
        """The code of a page becomes an openid. Raises Refusal."""
        app = proven(self._books, query, grant_type="authorization_code")
        if struck == "code_used_40163":
            raise Refusal(40163, "code been used")
        user = self._books.spend("oauth", app, query.get("code"))
        about = (app.app_id, user.user_id, user.codes_made)
        snapshot = struck == "snapshot_user"
        answer: dict[str, Any] = {
            "access_token": self._books.word("page token", *about, length=43),
            "expires_in": int(TOKEN_LIFE.total_seconds()),
            "refresh_token": self._books.word("refresh token", *about, length=43),
            "openid": self._books.open_id(user.user_id, app.app_id),
            "scope": "snsapi_base",
        }
        if snapshot:  # somebody whom nobody knows, made up for a page shown as a picture
            answer |= {"openid": "o" + self._books.word("snapshot", *about, length=27), "is_snapshotuser": 1}
        return answer


def _cookie(request: Request, name: str) -> str:
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _problem(text: str, code: str) -> Response:
    below = f"<p>错误码：{escape(code)}</p>" if code else ""
    page = f"""<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>微信</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body style="font-family: sans-serif; text-align: center; padding-top: 20vh">
<h3>{escape(text)}</h3>{below}</body></html>
"""
    return Response(status=200, headers={"content-type": "text/html; charset=utf-8"}, body=page.encode())
