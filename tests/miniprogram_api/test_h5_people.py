"""Lists, binding by SMS, who has bound, privacy: the pages of an institution."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core.models import Binding, Consent, PaperGrant
from tests.miniprogram_api.conftest import NewPhone, NewWeb
from tests.miniprogram_api.web import Page, Web, paper_of
from tests.support.fakes import held
from tests.support.house import ELDER, LABOURER, House

HOME = "/h/renhe/"


@pytest.fixture
def his() -> dict[str, Any]:
    return {"settings": {"paper_code": "his_asks"}, "sms": True}


def typed(house: House, his_patient_id: str = ELDER, **changes: str) -> dict[str, str]:
    person = house.his.patients[his_patient_id]
    kind, number = person.identifiers[0]
    return {"name": person.name, "document": kind, "number": number, "phone": person.phones[0], **changes}


async def code_on(house: House, phone: str) -> str:
    """What the text message says."""
    await house.settle(within=timedelta(seconds=30))
    found = re.search(r"验证码(\d{6})", house.sms.messages(phone)[-1].text)
    assert found
    return found[1]


async def binds(house: House, web: Web, his_patient_id: str = ELDER) -> Page:
    """Through both pages; the list that follows."""
    fields = typed(house, his_patient_id)
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", fields)
    assert page.status == 200, page.text
    page = await web.submit(page, "/bind/code", code=await code_on(house, fields["phone"]))
    assert page.status == 200, page.text
    return page


# ---------------------------------------------------------------- binding


async def test_bound_by_a_text_message(house: House, web: Web) -> None:
    house.bill(total_fen=8650)
    page = await web.get(f"{HOME}bind")
    form = page.form("/bind")
    assert {"name", "number", "phone", "document", "version", "form"} <= form.labelled
    assert form.ticks == {"agreed": False}
    page = await web.submit(page, "/bind", typed(house))
    assert "验证码已发到 199****0001" in page.text
    page = await web.submit(page, "/bind/code", code=await code_on(house, "19900000001"))
    assert page.path.startswith("/h/renhe/?patient=")
    assert "待缴费（1）" in page.text
    assert "王*兰" in page.text
    (binding,), (consent,) = await Binding.all(), await Consent.all()
    assert binding.consent_id == consent.id
    assert (consent.kind, consent.way) == ("personal", "h5")


async def test_what_is_wrong_is_said_and_what_was_typed_stays(house: House, web: Web) -> None:
    page = await web.get(f"{HOME}bind")
    page = await web.submit(page, "/bind", typed(house, number="110101199003070000"))
    assert page.status == 400
    assert "身份证号码不正确" in page.text
    assert page.form("/bind").fields["name"] == "王秀兰"
    page = await web.submit(page, "/bind", typed(house, phone="12345"))
    assert "需要大陆手机号" in page.text
    page = await web.submit(page, "/bind", typed(house), tick=False)
    assert page.status == 422
    assert "同意隐私说明" in page.text
    assert house.sms.messages("19900000001") == ()


async def test_a_wrong_code_may_be_typed_again_and_a_stranger_is_not_bound(house: House, web: Web) -> None:
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house, name="张三"))
    code = await code_on(house, "19900000001")
    page = await web.submit(page, "/bind/code", code="000000" if code != "000000" else "000001")
    assert page.status == 422
    assert "验证码不正确" in page.text
    page = await web.submit(page, "/bind/code", code=code)
    assert page.status == 422
    assert "没有查到与您填写的姓名和证件一致的就诊人" in page.text
    assert page.form("/bind").fields["name"] == "张三"
    assert await Binding.all().count() == 0


async def test_a_name_is_corrected_without_another_code(house: House, web: Web) -> None:
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house, name="张三"))
    page = await web.submit(page, "/bind/code", code=await code_on(house, "19900000001"))
    assert "没有查到与您填写的姓名和证件一致的就诊人" in page.text
    assert "这个手机号已验证" in page.text
    page = await web.submit(page, "/bind", name="李四")
    assert (page.status, page.form("/bind").fields["name"]) == (422, "李四")
    page = await web.submit(page, "/bind", name="王秀兰")
    assert page.path.startswith("/h/renhe/?patient=")
    assert len(house.sms.messages("19900000001")) == 1
    assert await Binding.all().count() == 1


async def test_a_silent_hospital_costs_no_code(house: House, web: Web) -> None:
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house))
    code = await code_on(house, "19900000001")
    house.faults.script("hospital.request_lost", times=9)
    page = await web.submit(page, "/bind/code", code=code)
    assert page.status == 503
    assert "医院系统暂时没有回应" in page.text
    house.faults.clear()
    page = await web.submit(page, "/bind")
    assert page.path.startswith("/h/renhe/?patient=")
    assert len(house.sms.messages("19900000001")) == 1


async def test_a_proof_is_of_one_phone_one_session_and_five_minutes(house: House, web: Web, new_web: NewWeb) -> None:
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house, name="张三"))
    page = await web.submit(page, "/bind/code", code=await code_on(house, "19900000001"))
    proof = page.form("/bind").fields["proof"]
    other = await new_web("other", "19900000077")
    theirs = await other.get(f"{HOME}bind")
    ends, _, mac = proof.partition(".")
    right = typed(house)
    for forged in ("", f"{int(ends) + 600}.{mac}", f"{ends}.{mac[::-1]}", "中.1", "²." + mac, f"{'9' * 40}.{mac}"):
        await web.submit(page, "/bind", right, proof=forged)
    await web.submit(page, "/bind", typed(house, LABOURER))
    await other.submit(theirs, "/bind", right, proof=proof)
    assert await Binding.all().count() == 0
    house.clock.advance(timedelta(minutes=5))
    assert (await web.submit(page, "/bind", right)).has_form("/bind/code")
    assert await Binding.all().count() == 0


async def test_a_second_code_comes_after_a_minute(house: House, web: Web) -> None:
    page = await web.submit(await web.get(f"{HOME}bind"), "/bind", typed(house))
    early = await web.submit(page, "/bind")
    assert "请一分钟后再获取" in early.text
    house.clock.advance(timedelta(seconds=61))
    page = await web.submit(page, "/bind")
    assert page.status == 200
    assert len(house.sms.messages("19900000001")) <= 2


@pytest.mark.parametrize("his", [{"settings": {"paper_code": "his_asks"}}])
async def test_without_text_messages_the_other_ways_are_named(web: Web) -> None:
    page = await web.get(f"{HOME}bind")
    assert "请用医院的微信小程序绑定，或带证件到窗口办理" in page.text
    assert not page.has_form("/bind")


async def test_bound_in_the_mini_program_and_known_here(house: House, new_web: NewWeb, new_phone: NewPhone) -> None:
    """The platform joins the two accounts of one person who follows the official one."""
    phone, web = await new_phone(), await new_web("somebody", "19900000077")
    patient = await phone.bind()
    house.bill(total_fen=8650)
    web.user = phone.user
    house.chat.follow(web.user, house.service_app_id)
    page = await web.get(HOME)
    assert "待缴费（1）" in page.text
    assert str(patient) in page.html


# ---------------------------------------------------------------- lists


async def test_both_lists_side_by_side_with_their_counts(house: House, web: Web) -> None:
    first, second = house.bill(total_fen=8650), house.bill(total_fen=1200)
    page = await binds(house, web)
    assert "待缴费（2）" in page.text
    assert "已缴费（0）" in page.text
    bill = await web.get(next(url for url, _ in page.read.links if url.endswith(first)))
    assert web.confirms(await web.begins(bill)) == "paid"
    house.clock.advance(timedelta(seconds=4))
    house.his.window_pay(second)
    await house.settle()
    page = await web.get(HOME)
    assert "待缴费（0）" in page.text
    assert "医院回复：目前没有待缴费账单" in page.text
    page = await web.get(page.link("已缴费"))
    assert "已缴费（2）" in page.text
    assert "收费窗口" in page.text
    assert "请到门诊楼1楼西药房3号窗口取药" in page.text


async def test_one_of_several_patients_is_chosen(house: House, web: Web) -> None:
    house.bill(total_fen=8650)
    house.bill(LABOURER, total_fen=1234)
    await binds(house, web)
    house.clock.advance(timedelta(minutes=2))
    page = await binds(house, web, LABOURER)
    assert "¥12.34" in page.text
    page = await web.get(page.link("王*兰"))
    assert "¥86.50" in page.text
    assert "¥12.34" not in page.text
    missing = await web.get(f"{HOME}?patient={UUID(int=7)}")
    assert missing.status == 404


async def test_a_list_that_the_hospital_owes_us_comes_by_itself(house: House, web: Web) -> None:
    house.bill(total_fen=8650)
    await binds(house, web)
    web.is_patient = False
    his = held(house.services.outside.hospitals, "rest")
    his.hold("list_bills")
    page = await web.get(HOME)
    assert page.status == 200
    assert "正在向医院查询" in page.text
    assert "待缴费（" not in page.text
    assert "没有待缴费" not in page.text
    his.let_go("list_bills")
    page = await web.get(page.read.refresh)
    assert "待缴费（1）" in page.text
    assert page.read.refresh == ""


async def test_a_silent_hospital_is_never_an_empty_list(house: House, web: Web) -> None:
    house.bill(total_fen=8650)
    await binds(house, web)
    house.faults.script("hospital.request_lost", times=9)
    page = await web.get(HOME)
    assert "医院系统暂时没有回应，不是没有账单" in page.text
    assert "待缴费（" not in page.text


async def test_who_has_bound_nobody_is_told_both_ways(web: Web) -> None:
    page = await web.get(HOME)
    assert "可以扫处方上的码直接缴费，也可以先绑定就诊人" in page.text
    assert page.link("扫处方上的码") == "/h/renhe/scan"
    assert page.link("绑定就诊人") == "/h/renhe/bind"
    assert "还没有缴费记录" in (await web.get(f"{HOME}paid")).text


# ---------------------------------------------------------------- scanning


async def test_a_number_typed_leads_to_its_paper(house: House, web: Web) -> None:
    bill_id = house.bill(total_fen=8650)
    page = await web.get(f"{HOME}scan")
    page = await web.submit(page, "/scan", number=f" {bill_id} ")
    assert page.path.startswith("/p/")
    page = await web.submit(page, "/consent")
    assert page.has_form("/factor")
    scanned = await web.submit(await web.get(f"{HOME}scan"), "/scan", number=f"CODE_128,{bill_id}")
    assert scanned.has_form("/factor")


async def test_our_own_code_scanned_leads_to_its_paper(house: House, web: Web) -> None:
    token = await paper_of(house, house.bill(total_fen=8650))
    page = await web.submit(await web.get(f"{HOME}scan"), "/scan", number=house.services.papers.url(token))
    assert page.path == f"/p/{token}"


@pytest.mark.parametrize("number", ["NOSUCHBILL", "<script>", "https://evil.test/p/abc", "http://house.test/h/renhe/"])
async def test_what_is_no_prescription_is_said_at_the_field(web: Web, number: str) -> None:
    page = await web.submit(await web.get(f"{HOME}scan"), "/scan", number=number)
    assert page.status in (400, 404)
    assert page.path == "/h/renhe/scan"
    assert "没有扣款" in page.text
    assert page.has_form("/scan")


async def test_the_scanner_is_offered_where_the_app_lets_us(house: House, web: Web) -> None:
    page = await web.get(f"{HOME}scan")
    assert "scan-button" in page.read.data
    assert "https://res.wx.qq.com" in page.headers["content-security-policy"]
    held(house.services.outside.platforms, "wechat_service").hold("page_config")
    page = await web.get(f"{HOME}scan")
    assert "scan-button" not in page.read.data
    assert page.has_form("/scan")


async def test_a_slow_hospital_is_asked_for_a_number_once(house: House, web: Web) -> None:
    bill_id = house.bill(total_fen=8650)
    page = await web.get(f"{HOME}scan")
    web.is_patient = False
    his = held(house.services.outside.hospitals, "rest")
    his.hold("get_bill")
    page = await web.submit(page, "/scan", number=bill_id)
    assert page.status == 202
    assert "正在向医院查询" in page.text
    his.let_go("get_bill")
    page = await web.submit(page, "/scan")
    assert page.path.startswith("/p/")


# ---------------------------------------------------------------- people and privacy


async def test_who_has_bound_is_seen_and_taken_away(house: House, web: Web, new_web: NewWeb) -> None:
    await binds(house, web)
    house.clock.advance(timedelta(minutes=2))
    daughter = await new_web("王女士", "19900000011")
    fields = typed(house, phone="19900000011")
    page = await daughter.submit(await daughter.get(f"{HOME}bind"), "/bind", fields)
    await daughter.submit(page, "/bind/code", code=await code_on(house, "19900000011"))
    page = await web.get(f"{HOME}patients")
    assert page.text.count("微信公众号，2026-05-06绑定") == 2
    assert "王女士" not in page.html
    removal = [form for form in page.read.forms if form.action.endswith("/patients")]
    assert len(removal) == 2
    assert page.text.index("您看不到王*兰的账单") < page.text.index("对方看不到王*兰的账单")
    page = await web.post("/h/renhe/patients", removal[1].fields)
    assert page.path == "/h/renhe/patients"
    assert "您还没有绑定就诊人" in (await daughter.get(HOME)).text
    page = await web.post("/h/renhe/patients", removal[0].fields)
    assert "还没有绑定就诊人" in page.text


async def test_a_withdrawn_consent_closes_everything(house: House, web: Web) -> None:
    bill_id = house.bill(total_fen=8650)
    token = await paper_of(house, bill_id)
    other = await paper_of(house, house.bill(LABOURER, total_fen=100))
    await binds(house, web)
    assert (await web.get(f"/p/{token}")).has_form("/pay")
    await web.submit(await web.get(f"/p/{other}"), "/factor", factor="0005")
    assert await PaperGrant.all().count() == 1
    page = await web.get(f"{HOME}privacy")
    assert "查看账单和缴费（医疗健康信息）" in page.text
    assert "在公众号页面同意，说明版本 1" in page.text
    page = await web.submit(page, "/withdraw")
    assert page.path == "/h/renhe/privacy?done=withdrawn"
    assert "已撤回" in page.text
    assert "目前没有生效的同意" in page.text
    assert "您还没有绑定就诊人" in (await web.get(HOME)).text
    for closed in (token, other):
        page = await web.get(f"/p/{closed}")
        assert page.has_form("/consent")
        assert not page.has_form("/pay")


async def test_text_messages_are_agreed_to_and_withdrawn_by_themselves(house: House, web: Web) -> None:
    page = await web.get(f"{HOME}privacy")
    refused = await web.submit(page, "/privacy/sms", tick=False, phone="19900000001")
    assert refused.status == 422
    page = await web.submit(page, "/privacy/sms", phone="19900000001")
    wrong = await web.submit(page, "/privacy/code", code="abc")
    assert "验证码不正确" in wrong.text
    page = await web.submit(page, "/privacy/code", code=await code_on(house, "19900000001"))
    assert "短信通知已开通" in page.text
    assert await house.services.consents.phone(await web.payer()) == "19900000001"
    page = await web.submit(page, "/withdraw")
    assert "已撤回" in page.text
    assert await house.services.consents.phone(await web.payer()) == ""
