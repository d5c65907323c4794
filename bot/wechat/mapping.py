"""WeChat platform's codes, fields and value types ↔ ours. Pure.

Codes: developers.weixin.qq.com, "全局返回码" and the error lists of the calls we make. Value types: the table
"订阅消息参数值内容限制说明" of the subscribe message pages; template messages follow the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

from bot.templates import BadTemplate, template_entry, value_of
from core.clock import SHANGHAI, business_day, shanghai
from core.ports import ChatAccount, MessageKind, OutgoingMessage, SendOutcome, SendResult

# ---------------------------------------------------------------- codes


class Meaning(StrEnum):
    """What an errcode means to us."""

    DONE = "done"
    BUSY = "busy"  # the platform failed; what we asked for may have been done
    TOKEN = "token"  # noqa: S105 (a word, not a token): the access token is no longer good
    CODE = "code"  # the app's one-use code is wrong or spent
    NEVER = "never"  # this person cannot or will not be reached or signed in
    LATER_SOON = "later_soon"  # too frequent
    LATER_MINUTE = "later_minute"
    LATER_DAY = "later_day"  # the day's quota is used up
    MISCONFIGURED = "misconfigured"  # an operator must act
    UNKNOWN = "unknown"


ERRCODES: Mapping[int, Meaning] = {
    0: Meaning.DONE,
    -1: Meaning.BUSY,
    40001: Meaning.TOKEN,
    40014: Meaning.TOKEN,
    42001: Meaning.TOKEN,
    42007: Meaning.TOKEN,
    40029: Meaning.CODE,
    40163: Meaning.CODE,
    41008: Meaning.CODE,
    40003: Meaning.NEVER,  # openid of another account
    40226: Meaning.NEVER,  # high-risk user, sign-in blocked
    43004: Meaning.NEVER,  # does not follow
    43101: Meaning.NEVER,  # refused, or the grant is used up
    45015: Meaning.NEVER,  # the person has done nothing for 48 hours, or no longer follows
    48002: Meaning.NEVER,  # the person has switched messages off
    43116: Meaning.LATER_SOON,
    43117: Meaning.LATER_SOON,
    44990: Meaning.LATER_SOON,
    45047: Meaning.LATER_SOON,  # too many customer messages since the person last did something
    45011: Meaning.LATER_MINUTE,
    45009: Meaning.LATER_DAY,
    40002: Meaning.MISCONFIGURED,
    40013: Meaning.MISCONFIGURED,
    40037: Meaning.MISCONFIGURED,
    40097: Meaning.MISCONFIGURED,
    40125: Meaning.MISCONFIGURED,
    40164: Meaning.MISCONFIGURED,
    41001: Meaning.MISCONFIGURED,
    41002: Meaning.MISCONFIGURED,
    41004: Meaning.MISCONFIGURED,
    41030: Meaning.MISCONFIGURED,
    43001: Meaning.MISCONFIGURED,
    43002: Meaning.MISCONFIGURED,
    47001: Meaning.MISCONFIGURED,
    47003: Meaning.MISCONFIGURED,  # a value breaks its type's rule
    45002: Meaning.MISCONFIGURED,  # a text longer than we let it be
    48001: Meaning.MISCONFIGURED,
    48004: Meaning.MISCONFIGURED,
    61003: Meaning.MISCONFIGURED,
    61004: Meaning.MISCONFIGURED,
    61011: Meaning.MISCONFIGURED,
}
"""The only table of the platform's codes; a code that is not here is UNKNOWN."""

_SOON = timedelta(minutes=10)
_MINUTE = timedelta(minutes=1)
_AFTER_MIDNIGHT = time(0, 5)  # quotas are per calendar day in Shanghai; the counters take a moment


def meaning_of(errcode: int) -> Meaning:
    return ERRCODES.get(errcode, Meaning.UNKNOWN)


def not_before(meaning: Meaning, now: datetime) -> datetime | None:
    """When something refused for frequency or quota may be tried again; None for every other meaning."""
    if meaning is Meaning.LATER_SOON:
        return now + _SOON
    if meaning is Meaning.LATER_MINUTE:
        return now + _MINUTE
    if meaning is Meaning.LATER_DAY:
        tomorrow = business_day(now) + timedelta(days=1)
        return datetime.combine(tomorrow, _AFTER_MIDNIGHT, SHANGHAI).astimezone(UTC)
    return None


def send_result(errcode: int, now: datetime, platform_message_id: str = "") -> SendResult | None:
    """What an answer to a send means for the message; None when it leaves open whether it was sent."""
    meaning = meaning_of(errcode)
    if meaning in {Meaning.BUSY, Meaning.UNKNOWN}:
        return None
    if meaning is Meaning.DONE:
        return SendResult(outcome=SendOutcome.ACCEPTED, platform_message_id=platform_message_id)
    code = str(errcode)
    if meaning is Meaning.NEVER:
        return SendResult(outcome=SendOutcome.NEVER, code=code)
    if (later := not_before(meaning, now)) is not None:
        return SendResult(outcome=SendOutcome.LATER, code=code, not_before=later)
    # A token that is refused even when fetched anew, and a login code that nobody sent, are set-up too.
    return SendResult(outcome=SendOutcome.MISCONFIGURED, code=code)


# ---------------------------------------------------------------- value types


class Unfit(ValueError):
    """A text cannot be made into a value of this type; the message names the type, never the text."""


THING_CHARACTERS_MAX = 20
TEXT_CHARACTERS_MAX = 32
SYMBOLS_MAX = 5
AMOUNT_DIGITS_MAX = 10
PHONE_CHARACTERS_MAX = 17
CAR_CHARACTERS_MAX = 8
NAME_HAN_MAX = 10
NAME_LETTERS_MAX = 20
PHRASE_HAN_MAX = 5
NOTHING = "无"
_ELLIPSIS = "…"
_DOTS = "..."  # where only ASCII is taken
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
_DAY_AND_TIME = re.compile(
    r"(?:(?P<year>\d{4})[-/.年](?P<month>\d{1,2})[-/.月](?P<day>\d{1,2})日?)?[ T]*"
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::\d{2}(?:\.\d+)?)?(?P<zone>Z|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)
_AMOUNT = re.compile(r"(?P<sign>[¥￥$€£])? ?(?P<yuan>\d{1,3}(?:,\d{3})+|\d+)(?P<fen>\.\d{1,2})? ?元?", re.ASCII)


def fit(key_type: str, text: str) -> str:
    """Make a text of ours into a value that the platform accepts for this type. Raises Unfit.

    Free text is cut, and 无 when empty; times, dates, numbers, amounts and phones are rewritten at most.
    """
    clean = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    match key_type:
        case "thing":
            return _cut(clean, THING_CHARACTERS_MAX) or NOTHING
        case "name":
            has_han = re.search(f"[{_HAN}]", clean) is not None
            return _cut(clean, NAME_HAN_MAX if has_han else NAME_LETTERS_MAX) or NOTHING
        case "phrase":
            return "".join(re.findall(f"[{_HAN}]", clean))[:PHRASE_HAN_MAX] or NOTHING
        case "car_number":
            return clean[:CAR_CHARACTERS_MAX].strip() or NOTHING
        case "character_string":
            plain = " ".join(re.sub(r"[^\x20-\x7e]", "", clean).split())
            if len(plain) > TEXT_CHARACTERS_MAX:
                plain = plain[: TEXT_CHARACTERS_MAX - len(_DOTS)] + _DOTS
            return plain or "-"
        case "phone_number":
            phone = re.sub(r"[^\d+\-()*#]", "", clean, flags=re.ASCII)
            if len(phone) > PHONE_CHARACTERS_MAX:
                raise Unfit("phone_number")  # a shortened one would be somebody else's
            return phone or "-"
        case "letter":
            return re.sub(r"[^A-Za-z]", "", clean)[:TEXT_CHARACTERS_MAX] or "NA"
        case "symbol":
            return re.sub(r"[\w\s]", "", clean)[:SYMBOLS_MAX] or "-"
        case "number":
            return _number(clean)
        case "amount":
            return _amount(clean)
        case "time" | "date":
            return "~".join(_moment(key_type, part.strip()) for part in clean.split("~", 1))
        case _:
            if not clean:
                raise Unfit(f"{key_type} is empty")
            return clean


def _cut(text: str, characters_max: int) -> str:
    """At most so many characters, … at the end when something is missing; an emoji counts as two."""
    if _width(text) <= characters_max:
        return text
    while _width(text) > characters_max - 1:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def _width(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _number(text: str) -> str:
    match = re.fullmatch(r"-?\d+(\.\d+)?", text.replace(",", ""), re.ASCII)
    if match is None or sum(each.isdigit() for each in match[0]) > TEXT_CHARACTERS_MAX:
        raise Unfit("number")
    return match[0]


def _amount(text: str) -> str:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise Unfit("amount")
    yuan = match["yuan"].replace(",", "")
    if len(yuan) + len(match["fen"] or "") > AMOUNT_DIGITS_MAX:
        raise Unfit("amount")
    return (match["sign"] or "¥") + yuan + (match["fen"] or "")


def _moment(key_type: str, text: str) -> str:
    match = _DAY_AND_TIME.fullmatch(text)
    if match is None or not text or (match["year"] is None and (key_type == "date" or match["zone"])):
        raise Unfit(key_type)
    year, month, day = (int(match[part] or 1) for part in ("year", "month", "day"))
    try:
        moment = datetime(year, month, day, int(match["hour"] or 0), int(match["minute"] or 0), tzinfo=SHANGHAI)
        if match["zone"]:
            zone = datetime.fromisoformat(f"2000-01-01T00:00{match['zone']}").tzinfo
            moment = shanghai(moment.replace(tzinfo=zone))
    except ValueError as error:
        raise Unfit(key_type) from error
    # Months and days without a leading zero: a padded month has been refused with 47003.
    parts = [f"{moment.year}年{moment.month}月{moment.day}日"] if match["year"] else []
    if match["hour"]:
        parts.append(f"{moment:%H:%M}")
    return " ".join(parts)


# ---------------------------------------------------------------- templates


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The platform's template for one kind of message: its id, and which field of ours each key takes."""

    id: str
    fields: Mapping[str, str]


def template_for(account: ChatAccount, kind: MessageKind) -> Template:
    """Read `account.templates[kind]`: {"id": "…", "fields": {"thing1": "title", …}}. Raises BadTemplate."""
    value = template_entry(account, kind)
    fields = value.get("fields")
    if (
        not isinstance(fields, dict)
        or not fields
        or not isinstance(value.get("id"), str)
        or not value["id"]
        or not all(isinstance(field, str) for field in fields.values())
    ):
        raise BadTemplate("bad_template")
    return Template(id=value["id"], fields=fields)


def template_data(template: Template, message: OutgoingMessage) -> dict[str, dict[str, str]]:
    """The `data` of a send: every key of the template with a value that fits its type. Raises BadTemplate."""
    data = {}
    for key, name in template.fields.items():
        text = value_of(name, message)
        try:
            data[key] = {"value": fit(key.rstrip("0123456789"), text)}
        except Unfit as error:
            raise BadTemplate(f"unfit_{key}") from error
    return data
