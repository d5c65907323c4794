"""Calls to Alipay's gateway: what is sent, which answers count, and what becomes of all the others."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from urllib.parse import parse_qsl, unquote_plus

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from core.errors import ConfigurationError, NotReached, OutcomeUnknown
from tests.support.alipay_parties import (
    AES_KEY,
    APP_ID,
    NOW,
    Maker,
    certificate,
    demo_key,
    private_base64,
    public_base64,
    signature,
)
from wire.alipay.answers import UnclearAnswer
from wire.alipay.application import APPLICATION_PARAMS, Application
from wire.alipay.certificates import certificate_sn
from wire.alipay.encryption import decrypt, encrypt, read_aes_key
from wire.alipay.gateway import CERTIFICATE_METHOD, Gateway
from wire.alipay.requests import Call
from wire.http import HttpClient, HttpReply, HttpRequest
from wire.params import read_params

QUERY = "alipay.trade.query"
TOKEN = "alipay.system.oauth.token"
SECRET = "王小明门诊缴费"
KEY = read_aes_key(AES_KEY, name="key")
SUCCESS = {"code": "10000", "msg": "Success", "trade_no": "2026"}

Says = Callable[[Mapping[str, str]], bytes | HttpReply | Exception]


@dataclass
class MovableClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment


@dataclass
class Counterparty:
    """The gateway's end: checks every request by itself, then says what the test wants."""

    says: Says
    requests: list[HttpRequest] = field(default_factory=list)
    calls: list[Mapping[str, str]] = field(default_factory=list)

    async def send(self, request: HttpRequest, *, deadline_seconds: float) -> HttpReply:
        await asyncio.sleep(0)
        self.requests.append(request)
        params = received(request)
        self.calls.append(params)
        said = self.says(params)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, HttpReply) else HttpReply(status=200, headers={"trace_id": "t1"}, body=said)


def received(request: HttpRequest) -> Mapping[str, str]:
    """The params of a request that was sent and signed as the gateway wants it."""
    address, _, query = request.url.partition("?")
    assert (request.method, address) == ("POST", "https://openapi.alipay.com/gateway.do")
    charset = dict(parse_qsl(query))["charset"]
    assert request.headers["Content-Type"] == f"application/x-www-form-urlencoded;charset={charset}"
    pairs = [part.split("=") for part in f"{query}&{request.body.decode()}".split("&") if part]
    params = {name: unquote_plus(value, encoding=charset) for name, value in pairs}
    assert len(params) == len(pairs)
    signed = "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "sign").encode(charset)
    demo_key("demo_app").public_key().verify(base64.b64decode(params["sign"]), signed, PKCS1v15(), SHA256())
    return params


def written(
    content: Mapping[str, object] | str,
    method: str = QUERY,
    *,
    node: str = "",
    key: str = "demo_ali",
    cert_sn: str = "",
    signed: bool = True,
    charset: str = "utf-8",
    sha1: bool = False,
) -> bytes:
    """An answer as the gateway writes it."""
    text = json.dumps(content, ensure_ascii=False).replace("/", "\\/")
    named = f',"alipay_cert_sn":"{cert_sn}"' if cert_sn else ""
    sign = f',"sign":"{signature(text.encode(charset), key, sha1=sha1)}"' if signed else ""
    return f'{{"{node or method.replace(".", "_") + "_response"}":{text}{named}{sign}}}'.encode(charset)


def application(**given: str) -> Application:
    given = {"app_private_key": private_base64("demo_app"), **given}
    if "app_certificate" not in given:
        given["alipay_public_key"] = public_base64("demo_ali")
    return Application.read(APP_ID, read_params(APPLICATION_PARAMS, given, owner="it"), owner="it")


APP = application(aes_key=AES_KEY)
CALL = Call(method=QUERY, content={"out_trade_no": "P0", "subject": SECRET})


def gateway(says: Says | bytes) -> tuple[Gateway, Counterparty]:
    counterparty = Counterparty(says if callable(says) else lambda _: says)
    return Gateway(counterparty, MovableClock()), counterparty


async def fails(says: Says | bytes, call: Call = CALL, app: Application = APP) -> OutcomeUnknown:
    """The end of a call of which nothing is known; nothing of its content is in the text."""
    with pytest.raises(OutcomeUnknown) as raised:
        await gateway(says)[0].call(app, call)
    assert SECRET not in str(raised.value)
    return raised.value


# ---------------------------------------------------------------- what is sent


async def test_a_call_is_sent_as_the_gateway_wants_it_and_its_answer_is_read():
    calls, counterparty = gateway(written({**SUCCESS, "url": "https://qr.alipay.com/bax"}))
    answer = await calls.call(APP, CALL)
    assert (answer.succeeded, answer.code, answer.sub_code, answer.fields["trade_no"]) == (True, "10000", "", "2026")
    assert answer.fields["url"] == "https://qr.alipay.com/bax"
    assert b"\\/\\/qr.alipay.com" in answer.raw
    with pytest.raises(TypeError):
        answer.fields["trade_no"] = "2027"  # type: ignore[index]
    (params,) = counterparty.calls
    assert params == {
        "app_id": APP_ID,
        "method": QUERY,
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-05-06 12:00:00",
        "version": "1.0",
        "biz_content": f'{{"out_trade_no":"P0","subject":"{SECRET}"}}',
        "sign": params["sign"],
    }
    assert "biz_content" not in counterparty.requests[0].url


async def test_what_is_the_calls_own_stands_in_its_body():
    calls, counterparty = gateway(written({"access_token": "t", "open_id": "o"}, TOKEN))
    params = {"grant_type": "authorization_code", "code": "4b203f"}
    answer = await calls.call(APP, Call(method=TOKEN, params=params))
    assert (answer.succeeded, answer.code, answer.fields["open_id"]) == (True, "", "o")
    assert counterparty.requests[0].body == b"grant_type=authorization_code&code=4b203f"
    assert counterparty.calls[0].items() >= params.items()


async def test_gbk_and_the_rest_of_the_common_parameters():
    calls, counterparty = gateway(written({**SUCCESS, "msg": "交易成功"}, charset="gbk"))
    call = Call(
        method=QUERY,
        content={"subject": SECRET},
        notify_url="https://hospital.example/n/x?a=1",
        return_url="https://hospital.example/done",
        app_auth_token="202601BB",
        charset="gbk",
    )
    assert (await calls.call(APP, call)).message == "交易成功"
    (params,) = counterparty.calls
    assert params["notify_url"] == call.notify_url
    assert (params["return_url"], params["app_auth_token"]) == (call.return_url, "202601BB")
    assert "%C3%C5" in counterparty.requests[0].body.decode()  # 门


async def test_content_is_encrypted_on_both_ways():
    def says(params: Mapping[str, str]) -> bytes:
        assert params["encrypt_type"] == "AES"
        assert json.loads(decrypt(KEY, params["biz_content"])) == CALL.content
        return written(encrypt(KEY, json.dumps(SUCCESS).encode()))

    calls, _ = gateway(says)
    call = Call(method=QUERY, content=CALL.content, is_encrypted=True)
    assert (await calls.call(APP, call)).fields == SUCCESS
    refusal = {"code": "40003", "sub_code": "isv.decryption-error-unknown"}  # comes as a plain object
    answer = await gateway(written(refusal))[0].call(APP, call)
    assert (answer.succeeded, answer.sub_code) == (False, "isv.decryption-error-unknown")
    with pytest.raises(ConfigurationError, match="aes_key missing"):
        await calls.call(application(), call)
    assert "no AES key" in str(await fails(written(encrypt(KEY, json.dumps(SUCCESS).encode())), app=application()))


def test_a_page_is_signed_for_the_payers_browser():
    calls, counterparty = gateway(b"")
    signed = calls.sign(
        APP, Call(method="alipay.trade.wap.pay", content={"out_trade_no": "P0"}, return_url="https://h")
    )
    address = f"{APP.gateway_url}?{signed.query}"
    params = received(
        HttpRequest(
            method="POST",
            url=address,
            headers={"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
            body=signed.body.encode(),
        )
    )
    assert (params["method"], params["return_url"]) == ("alipay.trade.wap.pay", "https://h")
    assert not counterparty.requests


# ---------------------------------------------------------------- which answers count


async def test_a_signed_refusal_is_left_to_the_caller():
    for code, sub_code in (
        ("40004", "ACQ.TRADE_NOT_EXIST"),
        ("40002", "isv.invalid-parameter"),
        ("40005", "isv.app-call-limited"),
        ("20001", "aop.invalid-auth-token"),
    ):
        says = written({"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "交易不存在"})
        answer = await gateway(says)[0].call(APP, CALL)
        assert (answer.succeeded, answer.code, answer.sub_code, answer.message) == (False, code, sub_code, "交易不存在")
    refused = {"code": "40002", "sub_code": "isv.code-invalid", "sub_msg": "授权码code无效"}
    answer = await gateway(written(refused, TOKEN, node="error_response"))[0].call(APP, Call(method=TOKEN))
    assert (answer.succeeded, answer.sub_code) == (False, "isv.code-invalid")


UNCLEAR = (
    {"code": "20000", "msg": "Service Currently Unavailable", "sub_code": "isp.unknow-error"},
    {"code": "20000"},
    {"code": "10003", "msg": "order success pay inprocess"},
    {"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"},
    {"code": "40004", "sub_code": "AQC.SYSTEM_ERROR"},
    {"code": "40004", "sub_code": "aop.unknow-error"},
    {"code": "50000", "sub_code": "x"},
    {"code": "10000", "sub_code": "ACQ.TRADE_NOT_EXIST"},
    {"code": 10000},
    {"code": "1000"},
)


@pytest.mark.parametrize("said", UNCLEAR, ids=str)
async def test_codes_that_decide_nothing_are_unknown(said):
    error = await fails(written(said))
    assert isinstance(error, UnclearAnswer)
    assert error.signed
    assert error.sub_code == said.get("sub_code", "")


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (written(SUCCESS, signed=False), "not signed"),
        (written(SUCCESS, sha1=True), "is wrong"),
        (written(SUCCESS, key="demo_app"), "is wrong"),
        (written(SUCCESS).replace(b"2026", b"2027"), "is wrong"),
        (written(SUCCESS, "alipay.trade.create"), "no answer to what was asked"),
        (written(SUCCESS)[:-1] + b',"alipay_trade_query_response":{}}', "comes twice"),
        (written({"trade_no": "2026"}), "no code"),
        (written({}, node="error_response"), "no code"),
        (written("AAAA"), "cannot be decrypted"),
        (written({"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}, key="demo_app"), "is wrong"),
        ("<html>系统繁忙</html>".encode("gbk"), "it is a page"),
        (b"\r\n<!DOCTYPE html>", "it is a page"),
        (b"", "no JSON object"),
        (b"upstream timed out", "no JSON object"),
    ],
)
async def test_what_is_not_signed_is_not_believed(says, problem):
    error = await fails(says)
    assert not isinstance(error, UnclearAnswer)
    assert problem in str(error)


@pytest.mark.parametrize("status", [201, 302, 400, 404, 429, 500, 502, 504])
async def test_any_other_http_status_is_unknown(status):
    """Even with an answer that would count: so the gateway does not answer."""
    error = await fails(lambda _: HttpReply(status=status, body=written(SUCCESS)))
    assert f"HTTP {status}" in str(error)


async def test_success_of_a_method_without_code_needs_its_own_node():
    token = {"access_token": "t", "user_id": "2088"}
    call = Call(method=TOKEN)
    assert (await gateway(written(token, TOKEN))[0].call(APP, call)).succeeded
    for says in (
        written(token, TOKEN, node="error_response"),
        written({**token, "sub_code": "isv.code-invalid"}, TOKEN),
        written(token, TOKEN, signed=False),
        written({**token, "code": "20000"}, TOKEN),
        written({"code": "10000"}, TOKEN, node="error_response"),
    ):
        await fails(says, call)


async def test_an_error_before_the_application_is_known_keeps_its_words_and_decides_nothing():
    said = {"code": "40002", "msg": "Invalid Arguments", "sub_code": "isv.invalid-app-id", "sub_msg": "无效的AppID参数"}
    for node in ("", "error_response"):
        error = await fails(written(said, node=node, signed=False))
        assert isinstance(error, UnclearAnswer)
        assert (error.signed, error.code, error.sub_code) == (False, "40002", "isv.invalid-app-id")
        assert error.words == "无效的AppID参数"
        assert str(error) == f"{QUERY}: 40002 isv.invalid-app-id (unsigned)"
    odd = await fails(written({"code": "4\n2", "sub_code": SECRET, "sub_msg": "x" * 999}, signed=False))
    assert isinstance(odd, UnclearAnswer)
    assert (odd.code, odd.sub_code, odd.words) == ("", "", "x" * 200)


async def test_the_request_that_a_wrong_signature_is_answered_with_is_repeated_nowhere(caplog):
    """Its `&` are written `&amp;`; the string holds biz_content."""
    words = "验签出错，建议检查签名字符串或签名私钥与应用公钥是否匹配"
    string = f'，网关生成的验签字符串为：app_id=1&amp;biz_content={{"subject":"{SECRET}"}}&amp;charset=utf-8'
    said = {"code": "40002", "msg": "Invalid Arguments", "sub_code": "isv.invalid-signature", "sub_msg": words + string}
    with caplog.at_level(logging.DEBUG):
        answer = await gateway(written(said))[0].call(APP, CALL)
        error = await fails(written(said, signed=False))
    assert (answer.succeeded, answer.sub_code, answer.message) == (False, "isv.invalid-signature", words)
    assert isinstance(error, UnclearAnswer)
    assert error.words == words
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    assert "alipay.refused" in logged
    for text in (repr(answer), str(answer.fields), logged, repr(error)):
        assert SECRET not in text
        assert "biz_content" not in text
        assert signature(b"x")[:20] not in text


# ---------------------------------------------------------------- certificate mode

OWNER = "支付宝(中国)网络技术有限公司-2088000000000100"
ROOT = certificate("Root", "root", is_issuer=True)
ISSUER = certificate("Class 2", "issuer", ROOT, is_issuer=True)
OURS = certificate(OWNER, "demo_ali", ISSUER, serial=2)
RENEWED = certificate(OWNER, "renewed", ISSUER, serial=20)
APP_CERTIFICATE = certificate(f"2088000000000100-{APP_ID}", "demo_app", ISSUER, serial=3)
OUR_SN, NEW_SN = certificate_sn(OURS.certificate), certificate_sn(RENEWED.certificate)


@cache
def certified() -> Application:
    return application(
        app_certificate=APP_CERTIFICATE.pem, alipay_certificate=OURS.pem + ISSUER.pem, alipay_roots=ROOT.pem
    )


def rotating(*downloaded: Maker, sn: str = NEW_SN, key: str = "renewed", **changes: object) -> Says:
    """A gateway that signs with a certificate which we do not hold yet, and gives it on being asked."""

    def says(params: Mapping[str, str]) -> bytes:
        if params["method"] != CERTIFICATE_METHOD:
            return written(SUCCESS, cert_sn=sn, key=key)
        assert json.loads(params["biz_content"]) == {"alipay_cert_sn": sn}
        pem = "".join(maker.pem for maker in downloaded)
        given = {**SUCCESS, "alipay_cert_content": base64.b64encode(pem.encode()).decode(), **changes}
        return written(given, CERTIFICATE_METHOD, cert_sn=sn, key=key)

    return says


async def test_certificates_are_named_in_requests_and_answers():
    calls, counterparty = gateway(written(SUCCESS, cert_sn=OUR_SN))
    assert (await calls.call(certified(), CALL)).succeeded
    (params,) = counterparty.calls
    assert params["app_cert_sn"] == certificate_sn(APP_CERTIFICATE.certificate)
    assert params["alipay_root_cert_sn"] == certificate_sn(ROOT.certificate)
    assert (await gateway(written(SUCCESS))[0].call(certified(), CALL)).succeeded  # names none: ours
    await fails(written(SUCCESS, cert_sn=OUR_SN, key="demo_app"), app=certified())


async def test_a_renewed_certificate_is_fetched_once_and_checked():
    calls, counterparty = gateway(rotating(RENEWED, ISSUER))
    app = certified()
    answers = await asyncio.gather(*[calls.call(app, CALL) for _ in range(3)])
    assert all(answer.succeeded for answer in answers)
    assert (await calls.call(certified.__wrapped__(), CALL)).succeeded  # the same settings, read anew
    assert [params["method"] for params in counterparty.calls].count(CERTIFICATE_METHOD) == 1
    assert {key.serial for key in calls.keys(app)} == {OUR_SN, NEW_SN}


FOREIGN = certificate("Class 2", "foreign", is_issuer=True)


@pytest.mark.parametrize(
    "says",
    [
        rotating(certificate(OWNER, "renewed", FOREIGN, serial=20), FOREIGN),
        rotating(APP_CERTIFICATE, sn=certificate_sn(APP_CERTIFICATE.certificate), key="demo_app"),
        rotating(OURS, ISSUER),
        rotating(),
        rotating(RENEWED, alipay_cert_content="!"),
        rotating(RENEWED, code="40004"),
        rotating(RENEWED, sn="../../x"),
    ],
    ids=["another root", "a merchant's own", "another one", "none", "no base64", "refused", "no number"],
)
async def test_a_certificate_that_does_not_fit_leaves_the_keys_as_they_are(says):
    calls, counterparty = gateway(says)
    app = certified()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await calls.call(app, CALL)
    assert [key.serial for key in calls.keys(app)] == [OUR_SN]
    assert [params["method"] for params in counterparty.calls].count(CERTIFICATE_METHOD) <= 1


async def test_downloads_have_a_pause_and_failures_do_not_spread():
    down = True

    def says(params: Mapping[str, str]) -> bytes | Exception:
        if params["method"] == CERTIFICATE_METHOD and down:
            return NotReached("down")
        return rotating(RENEWED)(params)  # type: ignore[return-value]

    clock, counterparty = MovableClock(), Counterparty(says)
    calls, app = Gateway(counterparty, clock), certified()
    with pytest.raises(OutcomeUnknown):
        await calls.call(app, CALL)
    down = False
    clock.moment += timedelta(seconds=59)
    with pytest.raises(OutcomeUnknown):
        await calls.call(app, CALL)
    clock.moment += timedelta(seconds=1)
    assert (await calls.call(app, CALL)).succeeded
    assert [params["method"] for params in counterparty.calls].count(CERTIFICATE_METHOD) == 2


async def test_a_notice_may_name_a_renewed_certificate_too():
    calls, counterparty = gateway(rotating(RENEWED))
    app = certified()
    await calls.renew_certificate(app, NEW_SN)
    assert {key.serial for key in calls.keys(app)} == {OUR_SN, NEW_SN}
    await calls.renew_certificate(app, OUR_SN)
    await calls.renew_certificate(APP, NEW_SN)  # public-key mode has none
    assert len(counterparty.calls) == 1


async def test_a_certificates_key_counts_between_its_dates():
    clock = MovableClock()
    calls = Gateway(Counterparty(lambda _: written(SUCCESS, cert_sn=OUR_SN)), clock)
    assert (await calls.call(certified(), CALL)).succeeded
    clock.moment += timedelta(days=366)
    assert calls.keys(certified()) == ()
    with pytest.raises(OutcomeUnknown):
        await calls.call(certified(), CALL)


# ---------------------------------------------------------------- over real connections


async def test_over_a_real_connection_nobody_there_is_not_reached_and_silence_is_unknown():
    body = written(SUCCESS)
    replies = [b"HTTP/1.1 200 OK\r\ncontent-type: text/html;charset=utf-8\r\ncontent-length: %d\r\n\r\n" % len(body)]
    replies[0] += body

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /gateway.do?app_id=2021000000000001&method=alipay.trade.query&")
        if replies:
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            writer.write(replies.pop())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    app = application(gateway_url=f"http://127.0.0.1:{port}/gateway.do")
    async with HttpClient() as client:
        calls = Gateway(client, MovableClock())
        assert (await calls.call(app, CALL)).fields == SUCCESS
        with pytest.raises(OutcomeUnknown):
            await calls.call(app, CALL)
        server.close()
        await server.wait_closed()
        with pytest.raises(NotReached):
            await calls.call(app, CALL)
