"""What the simulated Alipay tells merchants, when, how often, and the bills of a day."""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from itertools import pairwise
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from simulators.alipay import AT_ONCE, RESEND_AFTER, TOLD_PAID_ONLY
from simulators.alipay_keys import NOTICE_WITHOUT, signed_text, verify
from simulators.kit import Request, exchange
from tests.support.alipay_merchant import (
    APP_ID,
    OPEN_ID,
    PID,
    MerchantOfTests,
    a_merchant_of_tests,
    an_order,
)

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def us() -> MerchantOfTests:
    return a_merchant_of_tests()


class TestNotices:
    async def test_a_payment_is_told_once_in_the_documented_form(self, us):
        await us.paid("T1", passback_params="a%3D1", body="门诊")
        assert await us.deliver() == 1
        (fields,) = us.received
        assert fields["notify_type"] == "trade_status_sync"
        assert (fields["app_id"], fields["seller_id"], fields["buyer_open_id"]) == (APP_ID, PID, OPEN_ID)
        assert (fields["trade_status"], fields["total_amount"]) == ("TRADE_SUCCESS", "1.00")
        assert (fields["passback_params"], fields["body"]) == ("a%3D1", "门诊")
        assert fields["fund_bill_list"] == '[{"fundChannel":"ALIPAYACCOUNT","amount":"1.00"}]'
        assert not {"refund_fee", "gmt_refund", "gmt_close"} & set(fields)
        assert all(fields.values())

    @pytest.mark.parametrize(("product", "gaps"), [("create", RESEND_AFTER), ("precreate", AT_ONCE + RESEND_AFTER)])
    async def test_anything_but_success_has_it_sent_again_as_documented(self, us, product, gaps):
        us.answer = b"success\n"
        await us.paid("T1", product=product)
        paid_at = us.clock.now()
        await us.deliver(within=timedelta(days=2))
        log = us.simulator.deliveries.log
        assert [entry["attempt"] for entry in log] == list(range(1, len(gaps) + 2))
        assert len({fields["notify_id"] for fields in us.received}) == 1
        times = [fields["notify_time"] for fields in us.received]
        assert all(early < late for early, late in pairwise(times))
        assert sum(gaps, timedelta()) <= timedelta(hours=24, minutes=24, seconds=6)
        assert paid_at < us.clock.now()

    async def test_a_partial_refund_says_success_again_and_the_last_one_closed(self, us):
        await us.paid("T1")
        await us.refund("T1", "R1", "0.30")
        us.clock.advance(MINUTE)
        await us.refund("T1", "R2", "0.70")
        await us.deliver()
        assert us.statuses() == ["TRADE_SUCCESS", "TRADE_SUCCESS", "TRADE_CLOSED"]
        assert [fields.get("refund_fee") for fields in us.received] == [None, "0.30", "1.00"]
        assert [fields.get("out_biz_no") for fields in us.received] == [None, "R1", "R2"]
        assert us.received[1]["gmt_refund"] == "2026-05-06 12:00:00.000"
        assert us.received[2]["gmt_close"] == "2026-05-06 12:01:00"

    async def test_the_end_of_time_and_of_the_refund_period_are_told(self, us):
        await us.create("T1", timeout_express="1m")
        await us.deliver()
        assert us.statuses() == ["TRADE_CLOSED"]
        assert "refund_fee" not in us.received[0]
        await us.paid("T2")
        await us.deliver()
        await us.deliver(within=365 * DAY)
        assert us.statuses()[1:] == ["TRADE_SUCCESS", "TRADE_FINISHED"]
        assert us.received[-1]["refund_fee"] == "0.00"

    async def test_a_merchant_may_be_told_of_payments_only(self, us):
        us.merchant.told = TOLD_PAID_ONLY
        await us.paid("T1")
        await us.refund("T1", "R1", "1.00")
        await us.create("T2", timeout_express="1m")
        await us.deliver()
        assert us.statuses() == ["TRADE_SUCCESS"]

    async def test_a_product_without_refunds_is_finished_when_it_is_paid(self, us):
        us.merchant.refundable = False
        await us.paid("T1")
        await us.deliver()
        assert us.statuses() == ["TRADE_FINISHED"]

    async def test_without_an_address_nothing_is_told(self, us):
        await us.call("create", an_order("T1"), notify_url=None)
        us.simulator.pay("T1")
        assert await us.deliver() == 0

    async def test_a_payment_asked_for_in_gbk_is_told_in_gbk(self):
        us = a_merchant_of_tests(charset="gbk")
        await us.paid("T1")
        await us.deliver()
        assert (us.received[0]["charset"], us.received[0]["subject"]) == ("gbk", "门诊缴费")

    async def test_certificate_mode_signs_notices_with_the_certificates_key(self):
        us = a_merchant_of_tests(certificate_mode=True)
        await us.paid("T1")
        assert await us.deliver() == 1
        assert us.statuses() == ["TRADE_SUCCESS"]

    async def test_the_browser_comes_back_with_signed_parameters(self, us):
        cashier = (await us.open_page("T1")).headers["location"]
        left = await exchange(us.simulator, Request(method="POST", target=cashier, body=b"how=pay"))
        fields = dict(parse_qsl(urlsplit(left.headers["location"]).query))
        del fields["x"]  # ours
        message = signed_text(fields, without=NOTICE_WITHOUT).encode()
        assert verify(us.simulator.public_key.private_key.public_key(), message, fields["sign"])
        assert (fields["method"], fields["out_trade_no"]) == ("alipay.trade.wap.pay.return", "T1")


class TestBills:
    async def test_a_day_is_a_zip_with_gbk_names_and_files(self, us):
        await us.paid("T1", store_id="S1")
        us.clock.advance(MINUTE)
        await us.paid("T2")
        await us.refund("T2", "R1", "0.30")
        us.clock.advance(DAY)
        url = (await self.bill(us))["bill_download_url"]
        assert parse_qs(urlsplit(url).query)["userId"] == [f"{PID}0156"]
        files = self.files(await self.download(us, url))
        assert list(files) == [f"{PID}0156_20260506_业务明细.csv", f"{PID}0156_20260506_业务明细(汇总).csv"]
        detail, summary = files.values()
        assert detail[0] == "#支付宝业务明细查询"
        assert len(detail[4].split(",")) == 25
        rows = [[cell.strip() for cell in line.split(",")] for line in detail[5:-4]]
        assert [len(row) for row in rows] == [25, 25, 25]
        assert [(row[1], row[2], row[11], row[21]) for row in rows] == [
            ("T1", "交易", "1.00", ""),
            ("T2", "交易", "1.00", ""),
            ("T2", "退款", "-0.30", "R1"),
        ]
        assert detail[-3:-1] == [
            "#交易合计：2笔，商家实收共2.00元，商家优惠共0.00元",
            "#退款合计：1笔，商家实收退款共-0.30元，商家优惠退款共0.00元",
        ]
        assert summary[-3] == "合计,\t,2,1,1.70,1.70,0.00,0.00,0.00,0.00,0.00,1.70"
        assert len(summary[4].split(",")) == len(summary[5].split(","))

    async def test_the_address_is_good_for_thirty_seconds(self, us):
        await us.paid("T1")
        us.clock.advance(DAY)
        url = (await self.bill(us))["bill_download_url"]
        us.clock.advance(timedelta(seconds=30))
        assert (await self.download(us, url)).startswith(b"PK")
        us.clock.advance(timedelta(seconds=1))
        assert "已过期" in (await self.download(us, url)).decode("gbk")

    async def test_an_empty_day_is_no_bill_or_an_empty_one(self, us):
        us.clock.advance(DAY)
        assert (await self.bill(us))["sub_code"] == "isp.bill_not_exist"
        us.merchant.empty_bill = True
        answer = await self.bill(us)
        assert answer["bill_file_code"] == "EMPTY_DATA_WITH_BILL_FILE"
        detail, _ = self.files(await self.download(us, answer["bill_download_url"])).values()
        assert detail[6].startswith("#交易合计：0笔")

    @pytest.mark.parametrize(
        ("day", "kind", "sub_code"),
        [
            ("2026-05-07", "trade", "INVAILID_ARGUMENTS"),
            ("2026-5-6", "trade", "INVAILID_ARGUMENTS"),
            ("2020-05-06", "trade", "INVAILID_ARGUMENTS"),
            ("2026-05-06", "nothing", "INVAILID_ARGUMENTS"),
            ("2026-05-06", "signcustomer", "TYPE_NOT_SUPPORTED"),
        ],
    )
    async def test_odd_spellings_are_kept(self, us, day, kind, sub_code):
        await us.paid("T1")
        us.clock.advance(DAY)
        assert (await us.call("bill", {"bill_type": kind, "bill_date": day}))["sub_code"] == sub_code

    async def test_a_bill_is_made_at_nine(self, us):
        await us.paid("T1")
        us.clock.advance(timedelta(hours=20, minutes=59))
        assert (await self.bill(us))["sub_code"] == "isp.bill_not_exist"
        us.clock.advance(MINUTE)
        assert (await self.bill(us))["code"] == "10000"

    async def bill(self, us):
        return await us.call("bill", {"bill_type": "trade", "bill_date": "2026-05-06"})

    async def download(self, us, url):
        parts = urlsplit(url)
        return (await exchange(us.simulator, Request(method="GET", target=f"{parts.path}?{parts.query}"))).body

    def files(self, content):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert all(entry.flag_bits & 0x800 == 0 for entry in archive.infolist())
            return {
                entry.filename.encode("cp437").decode("gbk"): archive.read(entry).decode("gbk").splitlines()
                for entry in archive.infolist()
            }
