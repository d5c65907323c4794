"""Our end and the simulated Alipay, written from the documents by themselves, understand each other."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from core.errors import NotReached, OutcomeUnknown
from core.ports import Unverified
from simulators.alipay_faults import FAULTS
from simulators.kit import Request, Response
from tests.support.alipay_merchant import MerchantOfTests, a_merchant_of_tests, an_order
from tests.support.alipay_parties import AES_KEY
from tests.support.transports import InProcessTransport
from wire.alipay.answers import Answer, UnclearAnswer
from wire.alipay.application import APPLICATION_PARAMS, Application
from wire.alipay.gateway import Gateway
from wire.alipay.requests import Call
from wire.alipay.signing import FormRule, read_signed_form
from wire.params import read_params

CREATE, QUERY = "alipay.trade.create", "alipay.trade.query"


def ours(us: MerchantOfTests) -> tuple[Gateway, Application]:
    bare = us.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    given = {
        "app_private_key": base64.b64encode(bare).decode(),
        "aes_key": us.application.aes_key,
        "gateway_url": "http://127.0.0.1/gateway.do",
    }
    if us.application.certificate_mode:
        given |= {
            "app_certificate": us.application.certificate_pem,
            "alipay_certificate": us.simulator.certificate.certificate_pem,
            "alipay_roots": us.simulator.root_certificates,
        }
    else:
        given["alipay_public_key"] = us.simulator.public_key.public_pem
    values = read_params(APPLICATION_PARAMS, given, owner="it")
    application = Application.read(us.application.app_id, values, owner="it")
    return Gateway(InProcessTransport({"http://127.0.0.1": us.simulator}), us.clock), application


def create(us: MerchantOfTests, number: str = "T1", **how) -> Call:
    return Call(method=CREATE, content=an_order(number), notify_url="https://h.example/n", charset=us.charset, **how)


@pytest.mark.parametrize("charset", ["utf-8", "gbk"])
@pytest.mark.parametrize("application", [{}, {"certificate_mode": True}, {"aes_key": AES_KEY}], ids=str)
async def test_a_trade_is_made_paid_told_and_asked_for(application, charset):
    us = a_merchant_of_tests(charset=charset, **application)
    gateway, app = ours(us)
    encrypted = app.aes_key is not None
    created = await gateway.call(app, create(us, is_encrypted=encrypted))
    assert (created.succeeded, created.fields["out_trade_no"]) == (True, "T1")
    forms = []

    async def take(url: str, request: Request) -> Response:
        forms.append(read_signed_form(request.body, FormRule.NOTICE, gateway.keys(app)))
        return Response(status=200, body=b"success")

    us.take = take  # type: ignore[method-assign]
    assert us.simulator.pay("T1") == "paid"
    await us.deliver()
    assert forms
    for form in forms:
        assert not isinstance(form, Unverified)
        assert (form["out_trade_no"], form["trade_status"], form["subject"]) == ("T1", "TRADE_SUCCESS", "门诊缴费")
    asked = Call(method=QUERY, content={"out_trade_no": "T1"}, charset=charset, is_encrypted=encrypted)
    assert (await gateway.call(app, asked)).fields["trade_status"] == "TRADE_SUCCESS"
    absent = Call(method=QUERY, content={"out_trade_no": "T2"}, charset=charset)
    answer = await gateway.call(app, absent)
    assert (answer.succeeded, answer.code, answer.sub_code) == (False, "40004", "ACQ.TRADE_NOT_EXIST")


@pytest.mark.parametrize("new_key", [False, True])
async def test_a_renewed_certificate_is_taken_up(new_key):
    us = a_merchant_of_tests(certificate_mode=True)
    gateway, app = ours(us)
    assert (await gateway.call(app, create(us))).succeeded
    fresh = us.simulator.rotate_certificate(new_key=new_key)
    assert (await gateway.call(app, create(us))).succeeded
    assert fresh.cert_sn in {key.serial for key in gateway.keys(app)}


async def test_a_stranger_is_told_who_he_is_not_and_a_wrong_signature_what_was_wrong():
    us = a_merchant_of_tests()
    gateway, app = ours(us)
    del us.simulator.applications[app.app_id]
    with pytest.raises(UnclearAnswer) as raised:
        await gateway.call(app, create(us))
    assert (raised.value.signed, raised.value.sub_code) == (False, "isv.invalid-app-id")
    other = a_merchant_of_tests()
    other.application.public_key = us.simulator.public_key.private_key.public_key()
    gateway, app = ours(other)
    answer = await gateway.call(app, create(other))
    assert (answer.succeeded, answer.sub_code) == (False, "isv.invalid-signature")
    assert "门诊缴费" in answer.raw.decode()
    assert "门诊缴费" not in f"{answer.message}{dict(answer.fields)}"


LEFT_TO_THE_METHODS_TABLE = {"ACQ.SOMETHING_NEW"}
"""Signed, and no code that we know: only who knows what the method may answer can say that it decides nothing."""


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS if "create" in fault.calls])
async def test_no_fault_makes_an_untrue_answer_count(name):
    us = a_merchant_of_tests()
    gateway, app = ours(us)
    us.simulator.faults.script(name)
    try:
        answer: Answer | None = await gateway.call(app, create(us))
    except (NotReached, OutcomeUnknown) as error:
        answer = None
        if isinstance(error, NotReached):
            assert not us.simulator.orders
    if answer is not None and answer.succeeded:
        assert (answer.fields["out_trade_no"], len(us.simulator.orders)) == ("T1", 1)
    elif answer is not None:
        assert not us.simulator.orders or answer.sub_code in LEFT_TO_THE_METHODS_TABLE
    assert (await gateway.call(app, create(us, "T2"))).succeeded
