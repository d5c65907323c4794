"""The simulated WeChat platform itself, spoken to by hand-made requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from simulators.faults import Effect
from simulators.kit import create_app
from simulators.wechat import FORCED_REFRESHES_PER_DAY, WechatPlatformSimulator
from simulators.wechat_faults import API_CALLS, FAULTS
from simulators.wechat_values import problem_of
from tests.support.wechat import NOON, PHONE, WechatOfTests
from wire.http import HttpClient, HttpRequest

TEMPLATE_SEND = "/cgi-bin/message/template/send"
SUBSCRIBE_SEND = "/cgi-bin/message/subscribe/send"
BIZSEND = "/cgi-bin/message/subscribe/bizsend"
DATA = {
    "thing1": "西药费",
    "amount2": "¥19.98",
    "time3": "2026年5月6日 12:00",
    "name4": "王*明",
    "character_string5": "P01",
    "phrase6": "待缴费",
}


@pytest.fixture
def world() -> WechatOfTests:
    return WechatOfTests()


async def stable(world: WechatOfTests, app: Any = None, *, force: bool = False, **changes: Any) -> Any:
    app = app or world.official
    body = {"grant_type": "client_credential", "appid": app.app_id, "secret": app.secret, **changes}
    return await world.ask("POST", "/cgi-bin/stable_token", body | {"force_refresh": force})


async def plain(world: WechatOfTests) -> Any:
    app = world.official
    query = f"grant_type=client_credential&appid={app.app_id}&secret={app.secret}"
    return await world.ask("GET", f"/cgi-bin/token?{query}")


def data(**changes: str) -> dict[str, Any]:
    return {key: {"value": value} for key, value in {**DATA, **changes}.items()}


async def send(world: WechatOfTests, path: str = TEMPLATE_SEND, *, token: str | None = None, **changes: Any) -> Any:
    app = world.mini if path == SUBSCRIBE_SEND else world.official
    token = token if token is not None else (await stable(world, app))["access_token"]
    body = {
        "touser": world.open_id(app),
        "template_id": world.one_time if app is world.mini else world.template,
        "data": data(),
        **changes,
    }
    return await world.ask("POST", f"{path}?access_token={token}", body)


def code(answer: Mapping[str, Any]) -> int:
    """The errcode; a refusal's errmsg must end with a rid."""
    errcode: int = answer["errcode"]
    assert errcode == 0 or " rid: " in answer["errmsg"]
    return errcode


# ---------------------------------------------------------------- tokens


async def test_stable_token_gives_the_same_token_and_what_is_left_of_it(world: WechatOfTests) -> None:
    first = await stable(world)
    assert first["expires_in"] == 7200
    world.clock.advance(timedelta(minutes=114, seconds=59))
    assert await stable(world) == {"access_token": first["access_token"], "expires_in": 301}


async def test_stable_token_is_renewed_in_its_last_five_minutes_and_both_live_for_five(
    world: WechatOfTests,
) -> None:
    old = (await stable(world))["access_token"]
    world.clock.advance(timedelta(minutes=115))
    new = await stable(world)
    assert (new["access_token"] != old, new["expires_in"]) == (True, 7200)
    world.clock.advance(timedelta(minutes=4, seconds=59))
    assert code(await send(world, token=old)) == 0
    assert code(await send(world, token=new["access_token"])) == 0
    world.clock.advance(timedelta(seconds=1))
    assert code(await send(world, token=old)) == 42001
    assert code(await send(world, token=new["access_token"])) == 0


async def test_a_forced_refresh_kills_the_old_token_with_thirty_seconds_between(world: WechatOfTests) -> None:
    old = (await stable(world))["access_token"]
    first = (await stable(world, force=True))["access_token"]
    assert first != old
    assert code(await send(world, token=old)) == 40001
    assert (await stable(world, force=True))["access_token"] == first
    world.clock.advance(timedelta(seconds=30))
    assert (await stable(world, force=True))["access_token"] != first


async def test_forced_refreshes_are_twenty_a_day_in_shanghai(world: WechatOfTests) -> None:
    for _ in range(FORCED_REFRESHES_PER_DAY):
        assert "access_token" in await stable(world, force=True)
        world.clock.advance(timedelta(seconds=30))
    assert code(await stable(world, force=True)) == 45009
    assert "access_token" in await stable(world)
    world.clock.advance(timedelta(hours=12))
    assert "access_token" in await stable(world, force=True)


async def test_token_and_stable_token_do_not_touch_each_other(world: WechatOfTests) -> None:
    kept = (await stable(world))["access_token"]
    first, second = (await plain(world))["access_token"], (await plain(world))["access_token"]
    assert len({kept, first, second}) == 3
    for token in (kept, first, second):
        assert code(await send(world, token=token)) == 0
    world.clock.advance(timedelta(minutes=5))
    assert [code(await send(world, token=token)) for token in (kept, first, second)] == [0, 42001, 0]
    await stable(world, force=True)
    assert [code(await send(world, token=token)) for token in (kept, second)] == [40001, 0]


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"appid": "wx0"}, 40013),
        ({"secret": "0"}, 40125),
        ({"grant_type": "x"}, 40002),
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
    ],
)
async def test_wrong_credentials(world: WechatOfTests, changes: dict[str, Any], errcode: int) -> None:
    assert code(await stable(world, **changes)) == errcode


async def test_a_new_secret_kills_the_old_one_and_every_token(world: WechatOfTests) -> None:
    old_secret, token = world.official.secret, (await stable(world))["access_token"]
    world.simulator.reset_secret(world.official.app_id)
    assert code(await stable(world, secret=old_secret)) == 40125
    assert code(await send(world, token=token)) == 40001
    assert code(await send(world)) == 0


async def test_wrong_methods_bodies_tokens_and_paths(world: WechatOfTests) -> None:
    assert code(await world.ask("GET", "/cgi-bin/stable_token")) == 43002
    assert code(await world.ask("POST", "/cgi-bin/token", {})) == 43001
    assert code(await world.ask("POST", "/cgi-bin/stable_token", b"{")) == 47001
    assert code(await world.ask("POST", "/cgi-bin/stable_token", [])) == 47001
    assert code(await send(world, token="")) == 41001
    assert code(await send(world, token="never was")) == 40001
    assert code(await send(world, token=(await stable(world, world.mini))["access_token"])) == 48001
    assert (await world.response("GET", "/cgi-bin/nothing")).status == 404


async def test_a_hospitals_token_service_hands_out_the_same_token(world: WechatOfTests) -> None:
    path, key = world.simulator.open_token_service(world.official.app_id)
    answer = await world.ask("GET", path, authorization=f"Bearer {key}")
    assert answer == await stable(world)
    assert (await world.response("GET", path, authorization="Bearer x")).status == 401
    assert (await world.response("GET", f"/token-service/{world.mini.app_id}")).status == 404


# ---------------------------------------------------------------- sign-in


async def session(world: WechatOfTests, login: str) -> Any:
    query = f"appid={world.mini.app_id}&secret={world.mini.secret}&js_code={login}"
    return await world.ask("GET", f"/sns/jscode2session?{query}&grant_type=authorization_code")


async def test_a_login_code_is_spent_once_within_five_minutes_by_its_own_app(world: WechatOfTests) -> None:
    login = world.simulator.new_login_code(world.user, world.mini.app_id)
    answer = await session(world, login)
    assert answer["openid"] == world.open_id(world.mini)
    assert answer["unionid"] == world.simulator.union_id(world.user)
    assert code(await session(world, login)) == 40163
    late = world.simulator.new_login_code(world.user, world.mini.app_id)
    foreign = world.simulator.new_login_code(world.user, world.official.app_id)
    assert code(await session(world, foreign)) == 40029
    world.clock.advance(timedelta(minutes=5))
    assert code(await session(world, late)) == 40029
    assert code(await session(world, "")) == 41008


async def test_a_phone_code_gives_the_phone(world: WechatOfTests) -> None:
    token = (await stable(world, world.mini))["access_token"]
    phone_code = world.simulator.new_phone_code(world.user, world.mini.app_id)
    path = f"/wxa/business/getuserphonenumber?access_token={token}"
    answer = await world.ask("POST", path, {"code": phone_code})
    assert answer["phone_info"]["purePhoneNumber"] == PHONE
    assert answer["phone_info"]["watermark"] == {
        "timestamp": int(NOON.timestamp()),
        "appid": world.mini.app_id,
    }
    assert code(await world.ask("POST", path, {"code": phone_code})) == 40163
    login = world.simulator.new_login_code(world.user, world.mini.app_id)
    assert code(await world.ask("POST", path, {"code": login})) == 40029


# ---------------------------------------------------------------- messages


async def test_a_template_message_needs_a_follower(world: WechatOfTests) -> None:
    answer = await send(world, url="https://pay.hospital.example/b")
    (shown,) = world.simulator.inbox(world.open_id(world.official))
    assert answer == {"errcode": 0, "errmsg": "ok", "msgid": shown.msgid}
    assert shown.opens == {"url": "https://pay.hospital.example/b"}
    assert shown.text.startswith("待缴费通知\n项目：西药费\n金额：¥19.98\n")
    world.simulator.unfollow(world.user, world.official.app_id)
    assert code(await send(world)) == 43004
    world.simulator.follow(world.user, world.official.app_id)
    assert code(await send(world)) == 0


async def test_client_msg_id_guards_for_ten_minutes(world: WechatOfTests) -> None:
    first = await send(world, client_msg_id="m1")
    assert await send(world, client_msg_id="m1") == first
    assert (await send(world, client_msg_id="m2"))["msgid"] != first["msgid"]
    assert len(world.simulator.inbox(world.open_id(world.official))) == 2
    world.clock.advance(timedelta(minutes=10))
    assert (await send(world, client_msg_id="m1"))["msgid"] != first["msgid"]
    assert len(world.simulator.inbox(world.open_id(world.official))) == 3


async def test_one_time_grants_add_up_and_are_used_up(world: WechatOfTests) -> None:
    assert code(await send(world, SUBSCRIBE_SEND)) == 43101
    world.simulator.grant(world.user, world.mini.app_id, world.one_time, times=2)
    assert code(await send(world, SUBSCRIBE_SEND, page="pages/elsewhere/index")) == 41030
    answers = [code(await send(world, SUBSCRIBE_SEND, page="pages/bill/index?b=1")) for _ in range(3)]
    assert answers == [0, 0, 43101]


async def test_a_long_term_grant_is_not_used_up(world: WechatOfTests) -> None:
    world.simulator.grant(world.user, world.mini.app_id, world.long_term)
    for _ in range(3):
        assert code(await send(world, SUBSCRIBE_SEND, template_id=world.long_term)) == 0
    world.simulator.refuse(world.user, world.mini.app_id, world.long_term)
    assert code(await send(world, SUBSCRIBE_SEND, template_id=world.long_term)) == 43101


async def test_an_accounts_subscription_notice_needs_a_grant_and_names_no_msgid(world: WechatOfTests) -> None:
    assert code(await send(world, BIZSEND)) == 43101
    world.simulator.grant(world.user, world.official.app_id, world.template)
    page = {"appid": world.mini.app_id, "pagepath": "pages/bill/index"}
    assert await send(world, BIZSEND, miniprogram=page, page="https://x.example") == {
        "errcode": 0,
        "errmsg": "ok",
    }
    assert world.simulator.inbox(world.open_id(world.official))[0].opens == page


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"touser": "oNobody"}, 40003),
        ({"touser": None}, 40003),
        ({"template_id": "x"}, 40037),
        ({"miniprogram": {"appid": "wx0", "pagepath": "p"}}, 40013),
        ({"miniprogram": "x"}, 40013),
        ({"data": None}, 47003),
        ({"data": json.dumps(data())}, 47003),
        ({"data": {}}, 47003),
        ({"data": {**data(), "thing1": "西药费"}}, 47003),
        ({"data": {**data(), "thing1": {"value": 5}}}, 47003),
        ({"data": data(thing1=" ")}, 47003),
        ({"data": data(time3="2026年05月06日 12:00")}, 47003),
    ],
)
async def test_refusals_leave_the_phone_as_it_was(world: WechatOfTests, changes: dict[str, Any], errcode: int) -> None:
    assert code(await send(world, **changes)) == errcode
    assert world.simulator.inbox(world.open_id(world.official)) == ()


async def test_openids_belong_to_one_app(world: WechatOfTests) -> None:
    assert code(await send(world, touser=world.open_id(world.mini))) == 40003


async def test_the_days_quota(world: WechatOfTests) -> None:
    world.official.sends_per_day = 2
    assert [code(await send(world)) for _ in range(3)] == [0, 0, 45009]
    world.clock.advance(timedelta(hours=12))  # midnight in Shanghai
    assert code(await send(world)) == 0


VALUES = [
    ("thing1", "一" * 20, True),
    ("thing1", "一" * 21, False),
    ("thing1", "a\nb", False),
    ("number1", "-12.50", True),
    ("number1", "1,000", False),
    ("number1", "1" * 33, False),
    ("letter1", "abC", True),
    ("letter1", "a1", False),
    ("symbol1", "!?", True),
    ("symbol1", "!!!!!!", False),
    ("character_string1", "P-01 a", True),
    ("character_string1", "单号", False),
    ("character_string1", "a" * 33, False),
    ("time1", "15:01", True),
    ("time1", "2019年10月1日 15:01", True),
    ("time1", "2019年10月1日 15:01~16:00", True),
    ("time1", "2019-10-01 15:01", False),
    ("time1", "25:00", False),
    ("date1", "2019年10月1日", True),
    ("date1", "2019年10月1日 15:01", True),
    ("date1", "2020年03月19日", False),
    ("date1", "15:01", False),
    ("amount1", "¥1234567890.12", True),
    ("amount1", "￥100元", True),
    ("amount1", "100元", False),
    ("amount1", "¥12345678901", False),
    ("phone_number1", "+86-0755-12345678", True),
    ("phone_number1", "1" * 18, False),
    ("car_number1", "粤B12345", True),
    ("car_number1", "粤B12345678", False),
    ("name1", "一" * 10, True),
    ("name1", "一" * 11, False),
    ("name1", "a" * 20, True),
    ("name1", "a" * 21, False),
    ("phrase1", "待缴费", True),
    ("phrase1", "待缴费!", False),
    ("phrase1", "一二三四五六", False),
]


@pytest.mark.parametrize(("key", "value", "fine"), VALUES)
def test_value_rules(key: str, value: str, fine: bool) -> None:
    assert (problem_of(key, value) == "") == fine


def test_const_values_are_the_templates_own() -> None:
    assert problem_of("const1", "门诊", ["门诊", "住院"]) == ""
    assert problem_of("const1", "急诊", ["门诊", "住院"]) != ""


# ---------------------------------------------------------------- faults, books, console


def test_the_catalogue_is_complete_and_names_known_calls() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 5
    for fault in FAULTS:
        assert fault.calls
        assert fault.calls <= API_CALLS
        assert fault.ends
        assert fault.title_zh


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.effect is Effect.SPECIFIC])
async def test_every_fault_of_the_platform_strikes_and_goes(world: WechatOfTests, fault: Any) -> None:
    world.simulator.grant(world.user, world.mini.app_id, world.long_term)
    world.faults.script(fault.name)
    if fault.calls & {"template_send"}:
        path, changes = TEMPLATE_SEND, {}
    elif fault.calls & {"subscribe_send"}:
        path, changes = SUBSCRIBE_SEND, {"template_id": world.long_term}
    else:
        login = world.simulator.new_login_code(world.user, world.mini.app_id)
        assert code(await session(world, login)) == 40029
        assert "openid" in await session(world, login)
        return
    app = world.official if path == TEMPLATE_SEND else world.mini
    world.simulator.tokens.renewed(app)
    expected = int(fault.name.rpartition("_")[2]) if fault.name[-1].isdigit() else None
    struck = await send(world, path, token=app.stable, **changes)
    assert code(struck) == (expected if expected is not None else -1 if "busy" in fault.name else 40001)
    assert world.faults.struck[fault.name] == 1


async def test_the_same_seed_gives_the_same_world_whatever_comes_in_between() -> None:
    one, other = WechatOfTests(), WechatOfTests()
    other.simulator.add_user("李四", phone="13700000000")
    for world in (one, other):
        if world is other:
            await stable(world, world.mini)
            other.simulator.new_login_code(other.simulator.add_user("赵六", phone="13600000000"), world.mini.app_id)
        await send(world, client_msg_id="m1")
    assert one.official.tokens == other.official.tokens
    assert one.simulator.new_login_code(one.user, one.mini.app_id) == other.simulator.new_login_code(
        other.user, other.mini.app_id
    )
    assert one.simulator.inbox(one.open_id(one.official)) == other.simulator.inbox(other.open_id(other.official))
    different = WechatPlatformSimulator(clock=one.clock, faults=one.faults, seed=8)
    assert different.open_id(one.user, one.official.app_id) != one.open_id(one.official)


async def test_books_tell_everything_as_json(world: WechatOfTests) -> None:
    await send(world, client_msg_id="m1")
    await send(world, template_id="x")
    books = json.loads(json.dumps(world.simulator.books()))
    assert books["calls"] == {"stable_token": 2, "template_send": 2}
    assert books["answers"] == {"0": 3, "40037": 1}
    (user,) = books["users"]
    assert (user["received"], user["messages"][0]["client_msg_id"]) == (1, "m1")
    assert world.official.secret not in json.dumps(books)


async def test_the_console_acts_for_a_person_over_http(serve: Any) -> None:
    world = WechatOfTests()
    app_id = world.mini.app_id
    world.faults.rate("wechat.not_reached", 1.0)  # never strikes the console
    async with serve(create_app(world.simulator)) as base_url, HttpClient() as http:

        async def console(method: str, path: str, body: Any = None) -> Any:
            reply = await http.send(
                HttpRequest(method=method, url=base_url + path, body=json.dumps(body).encode() if body else b""),
                deadline_seconds=5,
            )
            return json.loads(reply.body)

        added = await console("POST", "/_add_user", {"name": "张三", "phone": "13800000000"})
        user = added["user"]
        login = await console("POST", "/_login_code", {"user": user, "appid": app_id})
        assert await console("POST", "/_phone_code", {"user": user, "appid": app_id}) != login
        await console("POST", "/_follow", {"user": user, "appid": world.official.app_id})
        grant = {"user": user, "appid": app_id, "template": world.one_time}
        assert await console("POST", "/_grant", grant | {"times": 2}) == {}
        assert await console("POST", "/_refuse", grant) == {}
        assert await console("POST", "/_grant", grant) == {}
        assert await console("GET", f"/_inbox?user={user}") == []
        assert (await console("GET", f"/_inbox?openid={world.simulator.open_id(user, app_id)}")) == []
        assert "error" in await console("POST", "/_login_code", {"user": "nobody", "appid": app_id})
        assert "error" in await console("POST", "/_nothing", {"a": 1})
        assert "error" in await console("POST", "/_follow", {"wrong": 1})
        books = await console("GET", "/_books")
    mine = next(each for each in books["users"] if each["user"] == user)
    assert mine["grants"] == [[app_id, world.one_time, 1]]
    assert mine["follows"] == [world.official.app_id]
    world.faults.clear()
    assert (await session(world, login["code"]))["openid"] == world.simulator.open_id(user, app_id)
