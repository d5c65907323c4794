"""What people do in a chat, in the same words for every platform, and what they are answered. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

TEXT_LENGTH_MAX = 2_000  # characters
ID_LENGTH_MAX = 128  # of an openid, a scene, a template's or a message's id
CODE_LENGTH_MAX = 64
LIST_LENGTH_MAX = 50  # deliveries or grants in one event
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


class ChatEventKind(StrEnum):
    """What has happened."""

    FOLLOWED = "followed"
    UNFOLLOWED = "unfollowed"
    SCANNED = "scanned"  # a code with a QR scene, by somebody who follows already
    MENU = "menu"  # an entry of the menu that wants an answer
    TEXT = "text"
    VOICE = "voice"
    IMAGE = "image"
    MEDIA = "media"  # any other message: a film, a place, a link, a sort that we do not know
    DELIVERED = "delivered"  # how sending a message has ended
    GRANT = "grant"  # messages of a template were allowed or refused
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """How one message of ours has ended. `ok` None: the platform used a word that we do not know."""

    platform_message_id: str
    ok: bool | None
    code: str = ""  # the platform's own word


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """A template grant: whether messages of a template may be sent. `accepted` None: a word that we do not know."""

    template_id: str
    accepted: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatEvent:
    """One thing that a person, or the platform about a person, has told us; authentic, and perhaps not for the first
    time: `event_id` is the same whenever the platform repeats it, and says nothing about the person.
    """

    event_id: str
    kind: ChatEventKind
    open_id: str = field(repr=False)
    to: str  # the platform's name for our account
    happened_at: datetime
    text: str = field(repr=False, default="")  # written, recognised from a voice, or the menu's key; may be empty
    scene: str = ""  # the QR scene: what the scanned code carries
    deliveries: tuple[Delivery, ...] = ()
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the person is answered at once."""

    text: str = field(repr=False)


def event_id_of(*parts: str) -> str:
    """64 hexadecimal digits for what makes two events the same; different parts never come to the same text."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def storable(text: str, length_max: int) -> str:
    """At most so many characters; what no database and no encoding holds (NUL, half a surrogate pair) is U+FFFD."""
    return _NOT_STORABLE.sub("\ufffd", text[:length_max])
