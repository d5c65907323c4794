"""Template messages of an official account and subscription messages of both kinds of app."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from simulators.wechat_books import SHANGHAI, App, Books, PhoneMessage, Refusal, Template, User
from simulators.wechat_pushes import Pushes
from simulators.wechat_threads import Threads
from simulators.wechat_values import problem_of

CLIENT_MSG_ID_LIFE = timedelta(minutes=10)
UNDELIVERED = {
    "template_user_block": "failed:user block",
    "template_system_failed": "failed: system failed",  # with a blank, as published
}
"""Faults after which a template message is accepted, never shown, and its event says why."""


class Messages:
    def __init__(self, books: Books, threads: Threads, pushes: Pushes) -> None:
        self._books = books
        self._threads = threads
        self._pushes = pushes
        self._client_msg_ids: dict[tuple[str, str], tuple[datetime, int]] = {}
        self._sent: Counter[tuple[str, str, str]] = Counter()  # (app, call, day)

    def send(self, call: str, app: App, body: Mapping[str, Any], struck: str) -> dict[str, Any]:
        """One of the three sends. Raises Refusal."""
        day = self._books.clock.now().astimezone(SHANGHAI).date().isoformat()
        if struck == "quota_45009" or self._sent[(app.app_id, call, day)] >= app.sends_per_day:
            raise Refusal(45009, "reach max api daily quota limit")
        self._sent[(app.app_id, call, day)] += 1
        user = self._books.holder_of(app, body.get("touser"))
        template = app.templates.get(str(body.get("template_id")))
        if template is None:
            raise Refusal(40037, "invalid template_id")
        if struck == "unfollowed_43004":
            user.follows.discard(app.app_id)
        if struck == "refused_43101":
            self.refuse(user, app, template)
        grant = (app.app_id, template.template_id)
        if call == "template_send":
            if app.app_id not in user.follows:
                raise Refusal(43004, "require subscribe")
        elif not (grant in user.long_grants if template.long_term else user.grants[grant] > 0):
            raise Refusal(43101, "user refuse to accept the msg")
        opens = self._target(call, app, body)
        lines = self._lines(template, body.get("data"))
        client_msg_id = body.get("client_msg_id") if call == "template_send" else None
        client_msg_id = client_msg_id if isinstance(client_msg_id, str) else ""
        msgid = self._deliver(call, app, user, template, lines, opens, client_msg_id, UNDELIVERED.get(struck, ""))
        if call != "template_send" and not template.long_term:
            user.grants[grant] -= 1
        if struck == "system_busy_-1_after":
            raise Refusal(-1, "system error")
        answer: dict[str, Any] = {"errcode": 0, "errmsg": "ok"}
        return answer | {"msgid": msgid} if call == "template_send" else answer

    def accept(self, user: User, app: App, template: Template, times: int, popup_scene: int) -> None:
        """The person says yes in the popup."""
        grant = (app.app_id, template.template_id)
        if template.long_term:
            user.long_grants.add(grant)
        else:
            user.grants[grant] += times
        choice = {"TemplateId": template.template_id, "SubscribeStatusString": "accept", "PopupScene": popup_scene}
        self._pushes.event(app, user, "subscribe_msg_popup_event", {"SubscribeMsgPopupEvent": {"List": [choice]}})

    def refuse(self, user: User, app: App, template: Template) -> None:
        """The person switches this template off in the settings."""
        grant = (app.app_id, template.template_id)
        user.long_grants.discard(grant)
        user.grants.pop(grant, None)
        choice = {"TemplateId": template.template_id, "SubscribeStatusString": "reject"}
        self._pushes.event(app, user, "subscribe_msg_change_event", {"SubscribeMsgChangeEvent": {"List": [choice]}})

    @staticmethod
    def list_private(app: App) -> dict[str, Any]:
        return {
            "template_list": [
                {
                    "template_id": template.template_id,
                    "title": template.title,
                    "primary_industry": "医疗护理",
                    "deputy_industry": "医院",
                    "content": "\n".join(f"{label}:{{{{{key}.DATA}}}}" for key, label in template.fields.items()),
                    "example": "\n".join(f"{label}:…" for label in template.fields.values()),
                }
                for template in app.templates.values()
            ]
        }

    @staticmethod
    def list_subscribe(app: App) -> dict[str, Any]:
        data: list[dict[str, Any]] = []
        for template in app.templates.values():
            entry: dict[str, Any] = {
                "priTmplId": template.template_id,
                "title": template.title,
                "content": "".join(f"{label}:{{{{{key}.DATA}}}}\n" for key, label in template.fields.items()),
                "example": "".join(f"{label}:…\n" for label in template.fields.values()),
                "type": 3 if template.long_term else 2,
            }
            if template.values:
                entry["keywordEnumValueList"] = [
                    {"keywordCode": f"{key}.DATA", "enumValueList": list(values)}
                    for key, values in template.values.items()
                ]
            data.append(entry)
        return {"errcode": 0, "errmsg": "ok", "data": data}

    def _deliver(
        self,
        call: str,
        app: App,
        user: User,
        template: Template,
        lines: tuple[tuple[str, str], ...],
        opens: Mapping[str, str],
        client_msg_id: str,
        undelivered: str,
    ) -> int:
        now = self._books.clock.now()
        guard = (self._books.open_id(user.user_id, app.app_id), client_msg_id)
        if client_msg_id:
            self._client_msg_ids = {
                key: entry for key, entry in self._client_msg_ids.items() if now - entry[0] < CLIENT_MSG_ID_LIFE
            }
            if guard in self._client_msg_ids:
                return self._client_msg_ids[guard][1]
        user.received += 1
        msgid = self._books.number("msgid", *guard, user.received)
        message = PhoneMessage(
            at=now,
            msgid=msgid,
            app_id=app.app_id,
            sender=app.name,
            title=template.title,
            lines=lines,
            opens=opens,
            client_msg_id=client_msg_id,
        )
        via = "template" if call == "template_send" else "subscribe"
        if not undelivered:
            user.messages.append(message)
            self._threads.add(
                app.app_id, user.user_id, author="account", via=via, kind=via, text=message.text, opens=opens
            )
        if client_msg_id:
            self._client_msg_ids[guard] = (now, msgid)
        if via == "template":
            told: dict[str, Any] = {"MsgID": msgid, "Status": undelivered or "success"}
            self._pushes.event(app, user, "TEMPLATESENDJOBFINISH", told)
        else:
            told = {"TemplateId": template.template_id, "MsgID": msgid, "ErrorCode": 0, "ErrorStatus": "success"}
            self._pushes.event(app, user, "subscribe_msg_sent_event", {"SubscribeMsgSentEvent": {"List": [told]}})
        return msgid

    def _target(self, call: str, app: App, body: Mapping[str, Any]) -> dict[str, str]:
        """What a tap on the message opens."""
        mini_program = body.get("miniprogram")
        if call == "subscribe_send":
            state = body.get("miniprogram_state", "formal")
            if state not in {"developer", "trial", "formal"}:
                raise Refusal(40097, "invalid args miniprogram_state")
            if body.get("lang", "zh_CN") not in {"zh_CN", "en_US", "zh_HK", "zh_TW"}:
                raise Refusal(40097, "invalid args lang")
            mini_program = {"appid": app.app_id, "pagepath": body["page"]} if body.get("page") else None
        elif mini_program is not None and (
            not isinstance(mini_program, dict) or mini_program.get("appid") not in app.linked
        ):
            raise Refusal(40013, "invalid appid of miniprogram, not linked")
        if isinstance(mini_program, dict):
            page = str(mini_program.get("pagepath", ""))
            pages = self._books.apps[str(mini_program["appid"])].pages
            if page.startswith("/") or (pages is not None and page.partition("?")[0] not in pages):
                raise Refusal(41030, "invalid page")
            return {"appid": str(mini_program["appid"]), "pagepath": page}
        url = body.get("url" if call == "template_send" else "page")
        return {"url": str(url)} if url else {}

    @staticmethod
    def _lines(template: Template, data: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(data, dict):
            raise Refusal(47003, "argument invalid! data is not an object")
        lines = []
        for key, label in template.fields.items():
            entry = data.get(key, {"value": ""})
            value = entry.get("value") if isinstance(entry, dict) else None
            if problem := problem_of(key, value, template.values.get(key)):
                raise Refusal(47003, f"argument invalid! {problem}")
            lines.append((label, str(value).strip()))
        return tuple(lines)
