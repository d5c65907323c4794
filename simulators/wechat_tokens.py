"""The platform's access tokens: both endpoints, their overlaps and limits, and a hospital's own token service."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from simulators.wechat_books import SHANGHAI, App, Books, Refusal

TOKEN_LIFE = timedelta(seconds=7200)
TOKEN_OVERLAP = timedelta(minutes=5)
FORCED_REFRESH_SPACING = timedelta(seconds=30)
FORCED_REFRESHES_PER_DAY = 20
TOKENS_REMEMBERED_MAX = 1000  # to tell an expired token from one that never was


def proven(books: Books, values: Mapping[str, Any], *, grant_type: str = "client_credential") -> App:
    """The app that these credentials belong to. Raises Refusal."""
    if values.get("grant_type") != grant_type:
        raise Refusal(40002, "invalid grant_type")
    if not values.get("appid"):
        raise Refusal(41002, "appid missing")
    if not values.get("secret"):
        raise Refusal(41004, "appsecret missing")
    app = books.apps.get(str(values["appid"]))
    if app is None:
        raise Refusal(40013, "invalid appid")
    if values["secret"] != app.secret:
        raise Refusal(40125, "invalid appsecret")
    return app


class Tokens:
    def __init__(self, books: Books) -> None:
        self._books = books

    def plain(self, query: Mapping[str, str]) -> dict[str, Any]:
        app = proven(self._books, query)
        now = self._books.clock.now()
        if app.plain in app.tokens:
            app.tokens[app.plain] = min(app.tokens[app.plain], now + TOKEN_OVERLAP)
        app.plain = self._new(app)
        return {"access_token": app.plain, "expires_in": int(TOKEN_LIFE.total_seconds())}

    def stable(self, body: Mapping[str, Any]) -> dict[str, Any]:
        app = proven(self._books, body)
        now = self._books.clock.now()
        if body.get("force_refresh") is True:
            day = now.astimezone(SHANGHAI).date().isoformat()
            if app.forced[day] >= FORCED_REFRESHES_PER_DAY:
                raise Refusal(45009, "reach max api daily quota limit")
            if app.forced_at is None or now - app.forced_at >= FORCED_REFRESH_SPACING:  # sooner: no refresh
                app.forced[day] += 1
                app.forced_at = now
                app.tokens.pop(app.stable, None)
        return self.renewed(app)

    def renewed(self, app: App) -> dict[str, Any]:
        """A new token when there is none or it is in its last five minutes; the old one lives on for five."""
        now = self._books.clock.now()
        ends_at = app.tokens.get(app.stable, now)
        if ends_at - now <= TOKEN_OVERLAP:
            if ends_at > now:
                app.tokens[app.stable] = now + TOKEN_OVERLAP
            app.stable = self._new(app)
        return {"access_token": app.stable, "expires_in": int((app.tokens[app.stable] - now).total_seconds())}

    def holder(self, token: str) -> App | None:
        return next((app for app in self._books.apps.values() if token in app.tokens), None)

    def app_of(self, token: str, kinds: frozenset[str]) -> App:
        """The app that may make this call with this token. Raises Refusal."""
        if not token:
            raise Refusal(41001, "access_token missing")
        app = self.holder(token)
        if app is None:
            raise Refusal(40001, "invalid credential, access_token is invalid or not latest")
        if app.tokens[token] <= self._books.clock.now():
            raise Refusal(42001, "access_token expired")
        if app.kind not in kinds:
            raise Refusal(48001, "api unauthorized")
        return app

    def kill(self, app: App) -> None:
        app.tokens.clear()
        app.stable = app.plain = ""

    def rotate(self, app: App) -> None:
        self.kill(app)
        app.stable = self._new(app)

    def _new(self, app: App) -> str:
        app.tokens_made += 1
        token = f"{app.tokens_made}_" + "".join(
            self._books.word("token", app.app_id, app.tokens_made, part, length=43) for part in range(3)
        )
        app.tokens[token] = self._books.clock.now() + TOKEN_LIFE
        while len(app.tokens) > TOKENS_REMEMBERED_MAX:
            del app.tokens[next(iter(app.tokens))]
        return token
