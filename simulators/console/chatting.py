"""The phones' chats: what WeChat and the SMS inbox show, and what a person does in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from simulators.console.phones import PHONES, Person
from simulators.console.world import ConsoleWorld, Mistake, person_of

ENTRIES_MAX = 60
NOTICES_MAX = 50
TEXTS_MAX = 30
TEXT_CHARACTERS_MAX = 600
ONE_TIME_GRANTS = 20  # of each template, as if the phone had been asked that often
PHOTO_URL = "https://photo.example.invalid/prescription.jpg"  # nobody looks at it; a photo is a photo

Fields = Mapping[str, Any]


class Chatting:
    """One method for each thing a person can do with the official account."""

    def __init__(self, world: ConsoleWorld) -> None:
        self._world = world
        self.posts: Mapping[str, Callable[[Fields], Awaitable[dict[str, Any]]]] = {
            "phone/hand": self.hand,
            "phone/login-code": self.login_code,
            "phone/phone-code": self.phone_code,
            "phone/allow-messages": self.allow_messages,
            "chat/follow": self.follow,
            "chat/unfollow": self.unfollow,
            "chat/say": self.say,
            "chat/speak": self.speak,
            "chat/photo": self.photo,
            "chat/click": self.click,
            "chat/scan": self.scan,
        }

    # ------------------------------------------------------------ what phones show

    def phones(self) -> list[dict[str, Any]]:
        """Both phones as they are now."""
        return [self._phone(number) for number in PHONES]

    def _phone(self, number: int) -> dict[str, Any]:
        world, person = self._world, self._world.phones.holder(number)
        user, app_id = person.open_id_user_key, world.service_app_id
        app = world.wechat.record.apps[app_id]
        typing_until = world.wechat.threads.of(app_id, user).typing_until
        return {
            "number": number,
            "person": person.key,
            "follows": app_id in world.wechat.record.users[user].follows,
            "menu": app.menu,
            "typing": typing_until is not None and world.clock.now() < typing_until,
            "entries": world.wechat.thread(user, app_id)[-ENTRIES_MAX:],
            "notices": [each for each in self.notices(person) if each["app_kind"] == "miniprogram"],
            "texts": [
                {"at": text.at.isoformat(), "text": text.text, "id": text.serial_no}
                for text in world.sms.messages(person.phone)[-TEXTS_MAX:]
            ],
        }

    def notices(self, person: Person) -> list[dict[str, Any]]:
        """Everything that arrived as a template or subscribed message, from the account and the mini program."""
        wechat = self._world.wechat
        shown = [
            {**message.shown(), "app_kind": kind}
            for kind, app_id in (
                ("service", self._world.service_app_id),
                ("miniprogram", self._world.miniprogram_app_id),
            )
            for message in wechat.inbox(wechat.open_id(person.open_id_user_key, app_id))
        ]
        return sorted(shown, key=lambda message: str(message["at"]))[-NOTICES_MAX:]

    # ------------------------------------------------------------ the phone itself

    async def hand(self, asked: Fields) -> dict[str, Any]:
        """Another person picks up this phone's place, with their own phone."""
        number = asked.get("number")
        if number not in PHONES:
            raise Mistake("没有这部手机")
        person = person_of(self._world, asked)
        self._world.phones.hand(int(str(number)), person)
        return {"person": person.key}

    async def login_code(self, asked: Fields) -> dict[str, Any]:
        """wx.login."""
        user = person_of(self._world, asked).open_id_user_key
        return {"code": self._world.wechat.new_login_code(user, self._world.miniprogram_app_id)}

    async def phone_code(self, asked: Fields) -> dict[str, Any]:
        """The phone button (getPhoneNumber)."""
        user = person_of(self._world, asked).open_id_user_key
        return {"code": self._world.wechat.new_phone_code(user, self._world.miniprogram_app_id)}

    async def allow_messages(self, asked: Fields) -> dict[str, Any]:
        """wx.requestSubscribeMessage, answered with "always": every template of the mini program may be sent."""
        person, app_id = person_of(self._world, asked), self._world.miniprogram_app_id
        templates = list(self._world.wechat.record.apps[app_id].templates)
        for template_id in templates:
            self._world.wechat.grant(person.open_id_user_key, app_id, template_id, times=ONE_TIME_GRANTS)
        return {"allowed": len(templates)}

    # ------------------------------------------------------------ the official account

    async def follow(self, asked: Fields) -> dict[str, Any]:
        self._world.wechat.follow(person_of(self._world, asked).open_id_user_key, self._world.service_app_id)
        return {}

    async def unfollow(self, asked: Fields) -> dict[str, Any]:
        self._world.wechat.unfollow(person_of(self._world, asked).open_id_user_key, self._world.service_app_id)
        return {}

    async def say(self, asked: Fields) -> dict[str, Any]:
        """Write a text, or tap an item of a menu message."""
        user, text = person_of(self._world, asked).open_id_user_key, _text(asked)
        item = str(asked.get("item", ""))
        self._chat(lambda: self._world.wechat.chat.say(user, self._world.service_app_id, text, menu_item=item))
        return {}

    async def speak(self, asked: Fields) -> dict[str, Any]:
        """A voice message, with what the platform's own recognition makes of it."""
        user, text = person_of(self._world, asked).open_id_user_key, _text(asked)
        self._chat(lambda: self._world.wechat.chat.speak(user, self._world.service_app_id, text))
        return {}

    async def photo(self, asked: Fields) -> dict[str, Any]:
        user = person_of(self._world, asked).open_id_user_key
        self._chat(lambda: self._world.wechat.chat.show_picture(user, self._world.service_app_id, PHOTO_URL))
        return {}

    async def click(self, asked: Fields) -> dict[str, Any]:
        """A menu button, by its key, address or name; returns what it opens."""
        user, key = person_of(self._world, asked).open_id_user_key, str(asked.get("key", ""))
        scanned = str(asked.get("scanned", ""))
        try:
            opens = self._world.wechat.chat.click(user, self._world.service_app_id, key, scanned=scanned)
        except KeyError:
            raise Mistake("菜单已经换了") from None
        except ValueError:
            raise Mistake("请先关注公众号") from None
        return {"opens": opens}

    async def scan(self, asked: Fields) -> dict[str, Any]:
        """A code of the account's own with a scene."""
        user, read = person_of(self._world, asked).open_id_user_key, str(asked.get("content", ""))
        try:
            return {"appid": self._world.wechat.chat.scan(user, read)}
        except (KeyError, ValueError):
            raise Mistake("这个二维码不是公众号的，或者已经过期") from None

    @staticmethod
    def _chat(act: Callable[[], None]) -> None:
        try:
            act()
        except ValueError:
            raise Mistake("请先关注公众号") from None


def _text(asked: Fields) -> str:
    text = str(asked.get("text", "")).strip()
    if not 0 < len(text) <= TEXT_CHARACTERS_MAX:
        raise Mistake("请写 1 到 600 个字")
    return text
