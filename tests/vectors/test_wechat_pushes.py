"""Published samples of the WeChat platform's pushes: signatures, cipher, events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.events import ChatEvent, ChatEventKind, Delivery, Grant
from bot.wechat.cipher import NotOpened, is_signed, open_sealed, read_aes_key, seal, signature
from bot.wechat.events import event_of
from bot.wechat.pushes import Echo, Push, PushFormat, PushKey, PushKeys, read_echo, read_push
from core.ports import Unverified
from tests.support.vectors import read_vectors
from wire.xml import read_xml

CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in read_vectors("wechat", "oa_push_crypto.json")["cases"]}
EVENTS: dict[str, dict[str, Any]] = {
    case["id"]: case for case in read_vectors("wechat", "messages/oa_events.json")["cases"]
}
PERSON = "oia2TjuEGTNoeX76QEjQNrcURxG8"
TEMPLATE_A = "VRR0UEO9VJOLs0MHlU0OilqX6MVFDwH3_3gz3Oc0NIc"
TEMPLATE_B = "9nLIlbOQZC5Y89AZteFEux3WCXRRRG5Wfzkpssu4bLI"
KIND = ChatEventKind


def keys_of(case: dict[str, Any], mode: str) -> PushKeys:
    return PushKeys(
        token=case["token"],
        aes_key=case.get("encoding_aes_key", ""),
        app_id=case.get("appid") or case.get("receive_id") or "wx0",
        mode=mode,
    )


def moment_of(case: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(case["query"]["timestamp"]), UTC)


def test_the_address_is_verified_as_published() -> None:
    case = CASES["url-verification"]
    assert read_echo(keys_of(case, "safe"), case["query"]) == Echo(text=case["expected_response_body"])
    for name in ("signature", "timestamp", "nonce"):
        wrong = read_echo(keys_of(case, "safe"), case["query"] | {name: "1" + case["query"][name][1:] + "1"})
        assert isinstance(wrong, Unverified)


def test_a_plain_push_is_verified_as_published() -> None:
    case = CASES["plaintext-post"]
    push = read_push(keys_of(case, "plain"), case["query"], case["body"].encode(), "application/json", moment_of(case))
    assert isinstance(push, Push)
    assert (push.sealed_with, push.format) == (None, PushFormat.JSON)
    assert (push.event.kind, push.event.to) == (KIND.OTHER, "gh_97417a04a28d")
    assert push.event.open_id == "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
    assert push.event.happened_at == moment_of(case)


def test_a_sealed_push_opens_as_published() -> None:
    case = CASES["safe-mode-post"]
    key, sealed = read_aes_key(case["encoding_aes_key"], name="key"), json.loads(case["body"])["Encrypt"]
    message = open_sealed(sealed, key=key, app_id=case["appid"])
    assert (message.decode(), len(message)) == (case["expected_msg"], case["expected_msg_len"])
    salt = case["expected_random16"].encode()
    assert seal(message, key=key, app_id=case["expected_appid"], random_bytes=salt) == sealed
    for mode in ("safe", "compatible"):
        push = read_push(keys_of(case, mode), case["query"], case["body"].encode(), "application/json", moment_of(case))
        assert isinstance(push, Push)
        assert (push.sealed_with, push.format) == (PushKey.CURRENT, PushFormat.JSON)
        assert push.event == event_of(json.loads(case["expected_msg"]))
    # Its `signature` is right too, and proves nothing about the body.
    assert is_signed(case["query"]["signature"], case["token"], case["query"]["timestamp"], case["query"]["nonce"])
    swapped = case["query"] | {"msg_signature": case["query"]["signature"]}
    assert isinstance(read_push(keys_of(case, "safe"), swapped, case["body"].encode(), "", moment_of(case)), Unverified)


def test_an_answer_is_sealed_and_signed_as_published() -> None:
    case = CASES["safe-mode-reply"]
    sealed = seal(
        case["msg"].encode(),
        key=read_aes_key(case["encoding_aes_key"], name="key"),
        app_id=case["appid"],
        random_bytes=case["random16"].encode(),
    )
    assert sealed == case["expected_Encrypt"]
    assert signature(case["token"], case["TimeStamp"], case["Nonce"], sealed) == case["expected_MsgSignature"]


@pytest.mark.parametrize("case_id", ["wxjava-encrypt-1", "wxjava-encrypt-2"])
def test_others_seal_as_we_do(case_id: str) -> None:
    case = CASES[case_id]
    key, message = read_aes_key(case["encoding_aes_key"], name="key"), case["msg"].encode()
    sealed = seal(message, key=key, app_id=case["appid"], random_bytes=case["random16"].encode())
    assert sealed == case["expected_Encrypt"]
    assert open_sealed(sealed, key=key, app_id=case["appid"]) == message
    with pytest.raises(NotOpened, match="another appid"):
        open_sealed(sealed, key=key, app_id=case["appid"][:-1] + "x")


def test_a_push_in_xml_opens_as_published() -> None:
    """It is of an enterprise account, whose id stands where the appid would."""
    case = CASES["wechatpy-decrypt-xml"]
    push = read_push(keys_of(case, "safe"), case["query"], case["body"].encode(), "text/xml", moment_of(case))
    assert isinstance(push, Push)
    assert (push.sealed_with, push.format) == (PushKey.CURRENT, PushFormat.XML)
    assert push.event == event_of(read_xml(case["expected_msg"].encode()))
    assert (push.event.kind, push.event.text) == (KIND.TEXT, "test")


EXPECTED: dict[str, dict[str, Any]] = {
    "subscribe-plain": {"kind": KIND.FOLLOWED},
    "subscribe-from-qr": {"kind": KIND.FOLLOWED, "scene": "123123"},
    "scan-already-follower": {"kind": KIND.SCANNED, "scene": "123123"},
    "unsubscribe": {"kind": KIND.UNFOLLOWED},
    "click": {"kind": KIND.MENU, "text": "EVENTKEY"},
    "view": {"kind": KIND.OTHER},
    "template-finish-success": {
        "kind": KIND.DELIVERED,
        "deliveries": (Delivery(platform_message_id="200163836", ok=True, code="success"),),
    },
    "template-finish-user-block": {
        "kind": KIND.DELIVERED,
        "deliveries": (Delivery(platform_message_id="200163840", ok=False, code="failed:user block"),),
    },
    "template-finish-system-failed": {
        "kind": KIND.DELIVERED,
        "deliveries": (Delivery(platform_message_id="200163841", ok=False, code="failed: system failed"),),
    },
    "template-finish-freq-limit": {
        "kind": KIND.DELIVERED,
        "deliveries": (Delivery(platform_message_id="3557254367693750277", ok=False, code="failed:freq limit"),),
    },
    "subscribe-popup-two-items": {
        "kind": KIND.GRANT,
        "grants": (Grant(template_id=TEMPLATE_A, accepted=True), Grant(template_id=TEMPLATE_B, accepted=False)),
    },
    "subscribe-change-reject": {"kind": KIND.GRANT, "grants": (Grant(template_id=TEMPLATE_A, accepted=False),)},
    "subscribe-sent": {
        "kind": KIND.DELIVERED,
        "deliveries": (Delivery(platform_message_id="1700827132819554304", ok=True, code="0"),),
    },
    "text-message": {"kind": KIND.TEXT, "text": "this is a test"},
    "mini-json-popup-one-item": {
        "kind": KIND.GRANT,
        "grants": (Grant(template_id="hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68", accepted=True),),
    },
    "mini-json-popup-two-items": {
        "kind": KIND.GRANT,
        "grants": (Grant(template_id="A", accepted=True), Grant(template_id="B", accepted=False)),
    },
}


@pytest.mark.parametrize("case_id", EVENTS)
def test_events_are_understood_as_documented(case_id: str) -> None:
    case = EVENTS[case_id]
    document: dict[str, Any] = read_xml(case["xml"].encode()) if "xml" in case else case["json"]
    event = event_of(document)
    assert event == ChatEvent(
        event_id=event.event_id,
        open_id=PERSON if "xml" in case else "o7esq5OI1Uej6Xixw1lA2H7XDVbc",
        to="gh_7f083739789a" if "xml" in case else "gh_123456789abc",
        happened_at=datetime.fromtimestamp(int(document["CreateTime"]), UTC),
        **EXPECTED[case_id],
    )


def test_all_of_them_are_different_events() -> None:
    documents = [read_xml(case["xml"].encode()) if "xml" in case else case["json"] for case in EVENTS.values()]
    assert len({event_of(document).event_id for document in documents}) == len(EVENTS) == 16
    assert len(CASES) == 7
