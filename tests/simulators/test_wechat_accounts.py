"""What an official account may do at the simulated platform beside template messages, by hand-made requests."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from wechatpy import WeChatClient, WeChatOAuth
from wechatpy.session.memorystorage import MemoryStorage

from simulators.kit import create_app
from tests.support.wechat import WechatOfTests

SEND = "/cgi-bin/message/custom/send"
TYPING = "/cgi-bin/message/custom/typing"
QRCODE = "/cgi-bin/qrcode/create"


@pytest.fixture
def world() -> WechatOfTests:
    """The follower has been following for long: nothing may be written to him at first."""
    world = WechatOfTests()
    world.clock.advance(timedelta(hours=1))
    return world


async def call(world: WechatOfTests, path: str, body: object = None, *, app: Any = None, method: str = "POST") -> Any:
    token = world.simulator.tokens.renewed(app or world.official)["access_token"]
    joint = "&" if "?" in path else "?"
    return await world.ask(method, f"{path}{joint}access_token={token}", body)


async def custom(world: WechatOfTests, msgtype: str = "text", content: object = None, **changes: Any) -> int:
    body = {
        "touser": world.open_id(world.official),
        "msgtype": msgtype,
        msgtype: content if content is not None else {"content": "查到 1 张单"},
        **changes,
    }
    errcode: int = (await call(world, SEND, body))["errcode"]
    return errcode


def shown(world: WechatOfTests) -> list[dict[str, Any]]:
    entries = world.simulator.thread(world.user, world.official.app_id)
    return [entry for entry in entries if entry["via"] == "custom"]


# ---------------------------------------------------------------- customer messages


async def test_five_messages_in_48_hours_after_the_person_wrote(world: WechatOfTests) -> None:
    assert await custom(world) == 45015
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    assert [await custom(world) for _ in range(6)] == [0] * 5 + [45047]
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    world.clock.advance(timedelta(hours=47, minutes=59))
    assert await custom(world) == 0
    world.clock.advance(timedelta(minutes=1))
    assert await custom(world) == 45015
    assert len(shown(world)) == 6


async def test_three_messages_in_a_minute_after_a_follow_a_scan_or_a_click(world: WechatOfTests) -> None:
    app_id = world.official.app_id
    made = await call(world, QRCODE, {"action_name": "QR_LIMIT_SCENE", "action_info": {"scene": {"scene_id": 7}}})
    await call(world, "/cgi-bin/menu/create", {"button": [{"type": "click", "name": "缴费", "key": "PAY"}]})
    world.simulator.unfollow(world.user, app_id)
    for act in (
        lambda: world.simulator.follow(world.user, app_id),
        lambda: world.simulator.chat.scan(world.user, made["ticket"]),
        lambda: world.simulator.chat.click(world.user, app_id, "PAY"),
        lambda: world.simulator.chat.say(world.user, app_id, "满意", menu_item="101"),
    ):
        act()
        assert [await custom(world) for _ in range(4)] == [0, 0, 0, 45047]
        world.clock.advance(timedelta(minutes=1))
        assert await custom(world) == 45015


async def test_who_does_not_follow_gets_nothing(world: WechatOfTests) -> None:
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    assert await custom(world, touser="o0") == 40003
    assert await custom(world, touser=world.open_id(world.mini)) == 40003
    world.simulator.unfollow(world.user, world.official.app_id)
    assert await custom(world) == 43004
    world.simulator.follow(world.user, world.official.app_id)
    world.clock.advance(timedelta(minutes=1))
    assert await custom(world) == 45015  # what was written before does not count any more


async def test_every_type_is_shown_with_what_it_opens(world: WechatOfTests) -> None:
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    picture = world.simulator.add_picture(world.official.app_id, "card")
    menu = {"head_content": "哪一张？", "list": [{"id": "1", "content": "第一张"}], "tail_content": "请选择"}
    card = {
        "title": "缴费",
        "appid": world.mini.app_id,
        "pagepath": "pages/bill/index?b=1",
        "thumb_media_id": picture,
    }
    news = {"articles": [{"title": "缴费", "description": "1 张", "url": "http://h.test/", "picurl": ""}]}
    assert await custom(world, "msgmenu", menu) == 0
    assert await custom(world, "miniprogrampage", card) == 0
    assert await custom(world, "news", news) == 0
    one, two, three = shown(world)
    assert (one["text"], one["items"]) == ("哪一张？\n请选择", [{"id": "1", "text": "第一张"}])
    assert two["opens"] == {"appid": world.mini.app_id, "pagepath": "pages/bill/index?b=1"}
    assert three["opens"] == {"url": "http://h.test/"}
    two_articles = {"articles": [{"title": "a", "url": "http://h.test/"}] * 2}
    for msgtype, content, errcode in (
        ("text", {"content": ""}, 44004),
        ("text", {"content": "字" * 700}, 45002),
        ("poem", {"content": "x"}, 40008),
        ("news", {"articles": []}, 44003),
        ("news", two_articles, 45008),
        ("msgmenu", {"head_content": "x", "list": []}, 47003),
        ("miniprogrampage", card | {"appid": "wx0"}, 40013),
        ("miniprogrampage", card | {"pagepath": "pages/none"}, 40165),
        ("miniprogrampage", card | {"thumb_media_id": "x"}, 40007),
    ):
        assert await custom(world, msgtype, content) == errcode
    assert len(shown(world)) == 3


async def test_typing_is_shown_for_a_while(world: WechatOfTests) -> None:
    def typing(command: str = "Typing") -> Any:
        return call(world, TYPING, {"touser": world.open_id(world.official), "command": command})

    assert (await typing())["errcode"] == 45080
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    assert [(await typing())["errcode"] for _ in range(2)] == [0, 45081]
    assert (await typing("CancelTyping"))["errcode"] == 0
    assert (await typing("Sleeping"))["errcode"] == 45072
    assert (await typing())["errcode"] == 0
    await custom(world)
    assert world.simulator.threads.of(world.official.app_id, world.user).typing_until is None


@pytest.mark.parametrize("errcode", [45015, 45047])
async def test_named_faults_of_customer_messages(world: WechatOfTests, errcode: int) -> None:
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    world.faults.script(f"wechat.custom_{errcode}")
    assert await custom(world) == errcode
    assert shown(world) == []


# ---------------------------------------------------------------- codes, links, menu, lists


async def test_a_code_is_scanned_until_it_expires(world: WechatOfTests) -> None:
    scene = {"scene": {"scene_str": "t0k3n"}}
    made = await call(world, QRCODE, {"action_name": "QR_STR_SCENE", "action_info": scene, "expire_seconds": 600})
    assert made["expire_seconds"] == 600
    assert made["url"].startswith("http://weixin.qq.com/q/")
    picture = await world.response("GET", f"/cgi-bin/showqrcode?ticket={quote(made['ticket'], safe='')}")
    assert picture.response.body.startswith(b"\x89PNG")
    assert (await world.response("GET", "/cgi-bin/showqrcode?ticket=x")).status == 404
    world.simulator.chat.scan(world.user, made["ticket"])
    world.clock.advance(timedelta(minutes=10))
    with pytest.raises(ValueError, match="expired"):
        world.simulator.chat.scan(world.user, made["ticket"])
    with pytest.raises(KeyError):
        world.simulator.chat.scan(world.user, "nothing")
    for wrong in (
        {"action_name": "QR_SCENE", "action_info": {"scene": {"scene_id": 0}}},
        {"action_name": "QR_LIMIT_SCENE", "action_info": {"scene": {"scene_id": 100_001}}},
        {"action_name": "QR_STR_SCENE", "action_info": {"scene": {"scene_str": "x" * 65}}},
        {"action_name": "QR_STR_SCENE", "action_info": scene, "expire_seconds": 2_592_001},
        {"action_name": "QR_STR_SCENE"},
    ):
        assert (await call(world, QRCODE, wrong))["errcode"] == 40053
    assert (await call(world, QRCODE, {"action_name": "QR", "action_info": scene}))["errcode"] == 40052


async def test_a_link_opens_a_page_of_the_mini_program(world: WechatOfTests) -> None:
    body = {"path": "pages/bill/index", "query": "b=1", "expire_type": 1, "expire_interval": 1}
    made = await call(world, "/wxa/generate_urllink", body, app=world.mini)
    opened = world.simulator.qrcodes.opened(made["url_link"] + "?cq=x")
    assert opened == {"appid": world.mini.app_id, "pagepath": "pages/bill/index?b=1"}
    world.clock.advance(timedelta(days=1))
    with pytest.raises(ValueError, match="expired"):
        world.simulator.qrcodes.opened(made["url_link"])
    assert (await call(world, "/wxa/generate_urllink", {"path": "x"}, app=world.mini))["errcode"] == 40165
    assert (await call(world, "/wxa/generate_urllink", body))["errcode"] == 48001


def click(name: str = "缴费", **changes: Any) -> dict[str, Any]:
    return {"type": "click", "name": name, "key": "PAY", **changes}


@pytest.mark.parametrize(
    ("buttons", "errcode"),
    [
        ([], 40016),
        ([click()] * 4, 40016),
        ([click(type="dance")], 40017),
        ([click(name="")], 40018),
        ([click(name="六个汉字的名")], 40018),
        ([click(key="")], 40019),
        ([click(key="k" * 129)], 40019),
        ([{"type": "view", "name": "缴费", "url": "ftp://x"}], 40020),
        ([{"type": "view", "name": "缴费", "url": "http://x/" + "y" * 1024}], 40020),
        ([{"name": "更多", "sub_button": [click()] * 6}], 40023),
        ([{"name": "更多", "sub_button": [click(type="dance")]}], 40024),
        ([{"name": "更多", "sub_button": [click(name="字" * 21)]}], 40025),
        ([{"name": "更多", "sub_button": [click(key="")]}], 40026),
        ([{"name": "更多", "sub_button": [{"type": "view", "name": "x"}]}], 40027),
        ([{"name": "更多", "sub_button": [{"name": "x", "sub_button": [click()]}]}], 40022),
        ([{"type": "miniprogram", "name": "x", "url": "http://x/", "appid": "wx0", "pagepath": "p"}], 40166),
    ],
)
async def test_a_menu_that_breaks_the_rules_is_refused(
    world: WechatOfTests, buttons: list[dict[str, Any]], errcode: int
) -> None:
    assert (await call(world, "/cgi-bin/menu/create", {"button": buttons}))["errcode"] == errcode
    assert (await call(world, "/cgi-bin/menu/get", method="GET"))["errcode"] == 46003


async def test_a_menu_is_made_read_and_deleted(world: WechatOfTests) -> None:
    sub = {"name": "更多", "sub_button": [click(name="字" * 20)] * 5}
    page = {"type": "miniprogram", "name": "小程序", "url": "http://x/", "appid": world.mini.app_id}
    buttons = [click(), page | {"pagepath": "pages/bill/index"}, sub]
    assert (await call(world, "/cgi-bin/menu/create", {"button": buttons}))["errcode"] == 0
    got = (await call(world, "/cgi-bin/menu/get", method="GET"))["menu"]["button"]
    assert [button["name"] for button in got] == ["缴费", "小程序", "更多"]
    assert got[0] == click() | {"sub_button": []}
    assert (await call(world, "/cgi-bin/menu/create", {"button": [click()] * 4}))["errcode"] == 40016
    assert len((await call(world, "/cgi-bin/menu/get", method="GET"))["menu"]["button"]) == 3
    assert (await call(world, "/cgi-bin/menu/delete", method="GET"))["errcode"] == 0
    assert (await call(world, "/cgi-bin/menu/get", method="GET"))["errcode"] == 46003


async def test_templates_are_listed(world: WechatOfTests) -> None:
    listed = await call(world, "/cgi-bin/template/get_all_private_template", method="GET")
    (template,) = listed["template_list"]
    assert (template["template_id"], template["title"]) == (world.template, "待缴费通知")
    assert "金额:{{amount2.DATA}}" in template["content"]
    listed = await call(world, "/wxaapi/newtmpl/gettemplate", method="GET", app=world.mini)
    assert {(each["priTmplId"], each["type"]) for each in listed["data"]} == {
        (world.one_time, 2),
        (world.long_term, 3),
    }
    assert (await call(world, "/cgi-bin/ticket/getticket?type=jsapi", method="GET"))["expires_in"] == 7200
    assert (await call(world, "/cgi-bin/ticket/getticket?type=wx_card", method="GET"))["errcode"] == 40097


# ---------------------------------------------------------------- pages inside WeChat

PAGE = "http://127.0.0.1:8000/h5/start?b=1#top"


async def authorize(world: WechatOfTests, *, cookie: str = "", **changes: str) -> Any:
    values = {
        "appid": world.official.app_id,
        "redirect_uri": PAGE,
        "response_type": "code",
        "scope": "snsapi_base",
        "state": "s1",
        "sandbox_person": world.user,
        **changes,
    }
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items() if value)
    headers = {"cookie": cookie} if cookie else {}
    return (await world.response("GET", f"/connect/oauth2/authorize?{query}", **headers)).response


async def page_token(world: WechatOfTests, code: str, **changes: str) -> Any:
    values = {
        "appid": world.official.app_id,
        "secret": world.official.secret,
        "code": code,
        "grant_type": "authorization_code",
        **changes,
    }
    query = "&".join(f"{name}={value}" for name, value in values.items())
    return await world.ask("GET", f"/sns/oauth2/access_token?{query}")


def code_of(response: Any) -> str:
    code: str = parse_qs(urlsplit(response.headers["location"]).query)["code"][0]
    return code


async def test_a_page_learns_silently_who_looks_at_it(world: WechatOfTests) -> None:
    world.simulator.set_web_domain(world.official.app_id, "127.0.0.1")
    back = await authorize(world)
    assert back.status == 302
    assert back.headers["location"] == f"http://127.0.0.1:8000/h5/start?b=1&code={code_of(back)}&state=s1"
    cookie = back.headers["set-cookie"].partition(";")[0]
    answer = await page_token(world, code_of(back))
    assert answer["openid"] == world.open_id(world.official)
    assert answer["scope"] == "snsapi_base"
    assert "unionid" not in answer
    assert "is_snapshotuser" not in answer
    assert (await page_token(world, code_of(back)))["errcode"] == 40163
    again = await authorize(world, sandbox_person="", cookie=f"a=b; {cookie}")
    assert (await page_token(world, code_of(again)))["openid"] == world.open_id(world.official)
    late = await authorize(world)
    world.clock.advance(timedelta(minutes=5))
    assert (await page_token(world, code_of(late)))["errcode"] == 40029
    login = world.simulator.new_login_code(world.user, world.mini.app_id)
    assert (await page_token(world, login))["errcode"] == 40029
    for changes, errcode in (
        ({"secret": "x"}, 40125),
        ({"appid": "wx0"}, 40013),
        ({"grant_type": "x"}, 40002),
        ({"code": ""}, 41008),
    ):
        assert (await page_token(world, **{"code": "0x", **changes}))["errcode"] == errcode


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"redirect_uri": "http://evil.test/"}, "10003"),
        ({"redirect_uri": "http://127.0.0.1.evil.test:8000/"}, "10003"),
        ({"redirect_uri": "http://127.0.0.1:8001/"}, "10003"),
        ({"redirect_uri": "javascript:alert(1)"}, "10003"),
        ({"redirect_uri": ""}, "10011"),
        ({"appid": "wx0"}, "10012"),
        ({"scope": ""}, "10010"),
        ({"scope": "snsapi_userinfo"}, "10005"),
        ({"state": "a b"}, "10013"),
        ({"state": "a" * 129}, "10013"),
        ({"sandbox_person": "user_0"}, "请在微信客户端打开链接"),
    ],
)
async def test_a_login_that_cannot_be_is_explained(world: WechatOfTests, changes: dict[str, str], words: str) -> None:
    world.simulator.set_web_domain(world.official.app_id, "127.0.0.1:8000")
    assert (await authorize(world)).status == 302
    page = await authorize(world, **changes)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert words in page.body.decode()
    assert "location" not in page.headers


async def test_no_page_signs_in_before_its_domain_is_entered(world: WechatOfTests) -> None:
    assert "10003" in (await authorize(world)).body.decode()


async def test_named_faults_of_page_logins(world: WechatOfTests) -> None:
    world.simulator.set_web_domain(world.official.app_id, "127.0.0.1")
    world.faults.script("wechat.login_page_500")
    assert (await authorize(world)).status == 500
    code = code_of(await authorize(world))
    world.faults.script("wechat.code_used_40163")
    assert (await page_token(world, code))["errcode"] == 40163
    world.faults.script("wechat.snapshot_user")
    answer = await page_token(world, code)
    assert answer["is_snapshotuser"] == 1
    assert answer["openid"] != world.open_id(world.official)


# ---------------------------------------------------------------- a client written by others


async def test_wechatpy_does_business_over_real_http(world: WechatOfTests, serve: Any) -> None:
    world.simulator.chat.say(world.user, world.official.app_id, "缴费")
    world.simulator.set_web_domain(world.official.app_id, "127.0.0.1")
    code = code_of(await authorize(world))
    async with serve(create_app(world.simulator)) as base_url:
        token = world.simulator.tokens.renewed(world.official)["access_token"]
        client = WeChatClient(world.official.app_id, world.official.secret, access_token=token, session=MemoryStorage())
        client.API_BASE_URL = f"{base_url}/cgi-bin/"
        oauth = WeChatOAuth(world.official.app_id, world.official.secret, "http://127.0.0.1/")
        oauth.API_BASE_URL = f"{base_url}/"

        def business() -> Any:
            client.message.send_text(world.open_id(world.official), "查到 1 张单")
            client.menu.create({"button": [click()]})
            made = client.qrcode.create({"action_name": "QR_STR_SCENE", "action_info": {"scene": {"scene_str": "t"}}})
            oauth.fetch_access_token(code)
            return made, client.menu.get(), client.jsapi.get_ticket()["ticket"]

        made, menu, ticket = await asyncio.to_thread(business)
    assert shown(world)[0]["text"] == "查到 1 张单"
    assert menu["menu"]["button"][0]["key"] == "PAY"
    assert ticket
    world.simulator.chat.scan(world.user, made["ticket"])
    assert oauth.open_id == world.open_id(world.official)
