"""Two phones that people pick up, and what each person's WeChat remembers of pages: cookies, never a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookies import CookieError, SimpleCookie

PHONES = (1, 2)
COOKIES_MAX = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody ready to be played, who holds a phone with WeChat on it; most are patients of the HIS."""

    name: str
    phone: str
    identifier_type: str  # "id_card" | "passport" | … as the product's API names them
    identifier: str
    his_patient_ids: tuple[str, ...] = ()  # the first gets the bills; none: somebody else's relative
    open_id_user_key: str  # the user of the simulated WeChat platform (its `user_id`)
    patient_name: str = ""  # whom this person would bind first, when that is somebody else
    note_zh: str = ""
    language: str = "zh-CN"  # the phone's

    @property
    def key(self) -> str:
        """Names this person on the page; a phone may belong to two of them, a mother and her child."""
        return self.his_patient_ids[0] if self.his_patient_ids else self.open_id_user_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Cookie:
    value: str
    path: str
    ends_at: datetime | None  # None: as long as the app lives


@dataclass(kw_only=True)
class Jar:
    """The cookies that one site has left on one phone. It is one app's webview: no domains, no other sites."""

    _cookies: dict[str, Cookie] = field(default_factory=dict)

    def take(self, set_cookie: str, now: datetime) -> None:
        """Keep, replace or forget what a Set-Cookie header says; a header that cannot be read changes nothing."""
        try:
            parsed = SimpleCookie(set_cookie)
        except CookieError:
            return
        for name, morsel in parsed.items():
            ends_at = _end(morsel["max-age"], morsel["expires"], now)
            if ends_at is not None and ends_at <= now:
                self._cookies.pop(name, None)
            elif len(self._cookies) < COOKIES_MAX or name in self._cookies:
                path = morsel["path"] if morsel["path"].startswith("/") else "/"
                self._cookies[name] = Cookie(value=morsel.coded_value, path=path, ends_at=ends_at)

    def header(self, path: str, now: datetime) -> str:
        """The Cookie header for a request to this path; empty when there is none."""
        return "; ".join(
            f"{name}={cookie.value}"
            for name, cookie in self._cookies.items()
            if _covers(cookie.path, path) and (cookie.ends_at is None or cookie.ends_at > now)
        )

    def clear(self) -> None:
        self._cookies.clear()


class Phones:
    """Who holds which phone."""

    def __init__(self, people: Sequence[Person]) -> None:
        self.people = tuple(people)
        self._by_key = {person.key: person for person in people}
        first = self.people[0]
        second = next((each for each in people if each.open_id_user_key != first.open_id_user_key), first)
        self._holders = dict(zip(PHONES, (first, second), strict=True))
        self._jars: dict[str, Jar] = {}

    def person(self, key: str) -> Person | None:
        return self._by_key.get(key)

    def holder(self, number: int) -> Person:
        """Raises KeyError."""
        return self._holders[number]

    def hand(self, number: int, person: Person) -> None:
        """Somebody picks this phone up, with their own WeChat on it. Raises KeyError."""
        if number not in self._holders:
            raise KeyError(number)
        self._holders[number] = person

    def jar(self, number: int) -> Jar:
        """What the WeChat of whoever holds this phone remembers."""
        return self._jars.setdefault(self.holder(number).open_id_user_key, Jar())


def _end(max_age: str, expires: str, now: datetime) -> datetime | None:
    if max_age:
        try:
            return now + timedelta(seconds=int(max_age))
        except (ValueError, OverflowError):
            return None
    if expires:
        try:
            return parsedate_to_datetime(expires)
        except ValueError:
            return None
    return None


def _covers(cookie_path: str, path: str) -> bool:
    return path == cookie_path or path.startswith(cookie_path if cookie_path.endswith("/") else f"{cookie_path}/")
