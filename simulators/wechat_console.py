"""The control endpoints `/_…`: what a person does with a phone, as JSON, for the sandbox and for tests.

Never struck by a fault. GET looks, POST acts with the named values of its JSON object:

    POST /_add_user     {"name", "phone"} → {"user"}
    POST /_follow       {"user", "appid"}                 POST /_unfollow  {"user", "appid"}
    POST /_scan         {"user", "ticket"} → {"appid"}    the ticket, or what a scanner read
    POST /_say          {"user", "appid", "text"}         POST /_speak     {"user", "appid", "recognition"}
    POST /_picture      {"user", "appid", "url"}          POST /_place     {"user", "appid", "latitude", "longitude",
                                                                            "label"}
    POST /_choose       {"user", "appid", "id", "text"}   an item of a menu message
    POST /_click        {"user", "appid", "key", "scanned"?} → what opens: {"url"} or {"appid", "pagepath"} or {}
    POST /_open_link    {"url"} → {"appid", "pagepath"}
    POST /_grant        {"user", "appid", "template", "times"?}    POST /_refuse {"user", "appid", "template"}
    POST /_login_code, /_phone_code  {"user", "appid"} → {"code"}
    POST /_callback     {"appid", "url", "token", "aes_key"?, "mode"?, "format"?, "check"?}
    POST /_mode         {"appid", "mode"?, "format"?}     POST /_web_domain {"appid", "domain"}
    POST /_rotate_token {"appid"}
    GET  /_thread?user=&appid=&after=   entries after that number    GET /_inbox?user= or ?openid=
    GET  /_accounts   GET /_people   GET /_pushes   GET /_books
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from simulators.kit import Request, Response
from simulators.wechat_books import App, User

if TYPE_CHECKING:
    from simulators.wechat import WechatPlatformSimulator

PUSHES_SHOWN = 200


class Console:
    def __init__(self, platform: WechatPlatformSimulator) -> None:
        self._platform = platform

    def handle(self, request: Request) -> Response:
        query = dict(parse_qsl(request.query))
        try:
            if request.method == "GET":
                return Response.of_json(self._look(request.path, query))
            body = request.json()
            if not isinstance(body, dict):
                return Response.of_json({"error": "a JSON object is expected"}, status=400)
            return Response.of_json(self._act(request.path, {str(key): value for key, value in body.items()}))
        except (KeyError, ValueError, TypeError) as error:
            return Response.of_json({"error": f"{type(error).__name__}: {error}"}, status=404)

    def books(self) -> dict[str, Any]:
        platform = self._platform
        return {
            "apps": [self._app(app) for app in platform.record.apps.values()],
            "users": [
                self._user(user)
                | {
                    "grants": [[*grant, left] for grant, left in sorted(user.grants.items()) if left],
                    "long_grants": [list(grant) for grant in sorted(user.long_grants)],
                    "received": user.received,
                    "messages": [message.shown() for message in user.messages],
                }
                for user in platform.record.users.values()
            ],
        }

    def _look(self, path: str, query: Mapping[str, str]) -> Any:
        platform = self._platform
        match path:
            case "/_inbox":
                if "openid" in query:
                    return [message.shown() for message in platform.inbox(query["openid"])]
                return [message.shown() for message in platform.record.users[query["user"]].messages]
            case "/_thread":
                return self._thread(query["user"], query["appid"], int(query.get("after", "0")))
            case "/_accounts":
                return [self._app(app) for app in platform.record.apps.values()]
            case "/_people":
                return [self._user(user) for user in platform.record.users.values()]
            case "/_pushes":
                return platform.deliveries.log[-PUSHES_SHOWN:]
            case "/_books":
                return platform.books()
        raise KeyError(path)

    def _act(self, path: str, body: Mapping[str, Any]) -> Any:
        platform, chat = self._platform, self._platform.chat
        acts: dict[str, Callable[..., Any]] = {
            "/_add_user": lambda name, phone: {"user": platform.add_user(name, phone=phone)},
            "/_login_code": lambda user, appid: {"code": platform.new_login_code(user, appid)},
            "/_phone_code": lambda user, appid: {"code": platform.new_phone_code(user, appid)},
            "/_follow": lambda user, appid: platform.follow(user, appid),
            "/_unfollow": lambda user, appid: platform.unfollow(user, appid),
            "/_grant": lambda user, appid, template, times=1: platform.grant(user, appid, template, times=times),
            "/_refuse": lambda user, appid, template: platform.refuse(user, appid, template),
            "/_rotate_token": lambda appid: platform.rotate_token(appid),
            "/_scan": lambda user, ticket: {"appid": chat.scan(user, ticket)},
            "/_say": lambda user, appid, text: chat.say(user, appid, text),
            "/_choose": lambda user, appid, id, text: chat.say(user, appid, text, menu_item=id),
            "/_speak": lambda user, appid, recognition: chat.speak(user, appid, recognition),
            "/_picture": lambda user, appid, url: chat.show_picture(user, appid, url),
            "/_place": lambda user, appid, latitude, longitude, label: chat.send_place(
                user, appid, latitude, longitude, label
            ),
            "/_click": lambda user, appid, key, scanned="": chat.click(user, appid, key, scanned=scanned),
            "/_open_link": lambda url: platform.qrcodes.opened(url),
            "/_callback": lambda appid, **values: platform.set_callback(appid, **values),
            "/_mode": self._mode,
            "/_web_domain": lambda appid, domain: platform.set_web_domain(appid, domain),
        }
        return acts[path](**body) or {}

    def _mode(self, appid: str, mode: str = "", format: str = "") -> None:
        """Another mode or format of pushes from now on; the address is not asked again."""
        callback = self._platform.record.apps[appid].callback
        if callback is None:
            raise ValueError("this account has no callback")
        callback = replace(callback, mode=mode or callback.mode, format=format or callback.format)
        self._platform.set_callback(
            appid,
            url=callback.url,
            token=callback.token,
            aes_key=callback.aes_key,
            mode=callback.mode,
            format=callback.format,
            check=False,
        )

    def _thread(self, user_id: str, app_id: str, after: int) -> dict[str, Any]:
        platform = self._platform
        user, app = platform.record.users[user_id], platform.record.apps[app_id]
        typing = platform.threads.of(app.app_id, user.user_id).typing_until
        return {
            "account": app.name,
            "follows": app.app_id in user.follows,
            "menu": app.menu,
            "typing": typing is not None and platform.clock.now() < typing,
            "entries": platform.thread(user.user_id, app.app_id, after=after),
        }

    def _app(self, app: App) -> dict[str, Any]:
        callback = app.callback
        return {
            "appid": app.app_id,
            "original_id": app.original_id,
            "kind": app.kind,
            "name": app.name,
            "templates": {each.template_id: each.title for each in app.templates.values()},
            "tokens_made": app.tokens_made,
            "menu": app.menu,
            "web_domain": app.web_domain,
            "callback": {
                "state": app.callback_state,
                "url": callback.url if callback else "",
                "mode": callback.mode if callback else "",
                "format": callback.format if callback else "",
            },
        }

    def _user(self, user: User) -> dict[str, Any]:
        platform = self._platform
        return {
            "user": user.user_id,
            "name": user.name,
            "open_ids": {app_id: platform.open_id(user.user_id, app_id) for app_id in platform.record.apps},
            "follows": sorted(user.follows),
        }
