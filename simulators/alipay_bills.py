"""The bill service of the simulated Alipay: what was paid and refunded on a day, as a zip of files in GBK.

Only bill_type `trade` by day; others are TYPE_NOT_SUPPORTED. Lines end with CRLF, nothing is quoted (a comma in a
subject shifts the columns, as it would there). A day without rows has no bill, unless `Merchant.empty_bill`.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

from simulators.alipay_books import BEIJING, Merchant, Order, Refund, beijing_time, yuan
from simulators.alipay_calls import ApiError, Call
from simulators.alipay_gate import error_page
from simulators.alipay_ledger import Ledger
from simulators.alipay_views import buyer
from simulators.kit import Request, Response

HOST = "http://dwbillcenter.alipay.com"
PATH = "/downloadBillFile.resource"
LINK_LIFE = timedelta(seconds=30)
READY_AT = time(9)
KEPT_FOR = timedelta(days=365 * 6)
TYPES = frozenset({"trade", "signcustomer", "merchant_act", "trade_zft_merchant", "zft_acc", "settlementMerge"})
COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)
SUMMARY_COLUMNS = (
    "门店编号,门店名称,交易订单总笔数,退款订单总笔数,订单金额（元）,商家实收（元）,支付宝优惠（元）,商家优惠（元）,"
    "卡消费金额（元）,服务费（元）,分润（元）,实收净额（元）"
)

Row = tuple[datetime, str, int, Order, Refund | None]  # finished at, kind, fen (negative for a refund)


class Bills:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._files: dict[str, tuple[datetime, bytes]] = {}
        self.base_url = HOST  # where the addresses of files begin: the simulator's own address

    def apply(self, call: Call) -> dict[str, Any]:
        """The address of a day's file, good for thirty seconds."""
        merchant, now, asked = call.merchant, self._ledger.clock.now(), call.content
        if asked["bill_type"] not in TYPES:
            raise ApiError("40004", "INVAILID_ARGUMENTS", "入参不合法")  # spelt so by Alipay
        if asked["bill_type"] != "trade":
            raise ApiError("40004", "TYPE_NOT_SUPPORTED", "账单类型不支持")
        try:
            day = date.fromisoformat(asked["bill_date"])
        except ValueError:
            raise ApiError("40004", "INVAILID_ARGUMENTS", "入参不合法") from None
        today = now.astimezone(BEIJING).date()
        if day >= today or day < today - KEPT_FOR:
            raise ApiError("40004", "INVAILID_ARGUMENTS", "账单日期不合法")
        if now < datetime.combine(day + timedelta(days=1), READY_AT, BEIJING):
            raise ApiError("40004", "isp.bill_not_exist", "账单不存在")  # as production writes it
        rows = self._rows(merchant, day)
        if not rows and not merchant.empty_bill:
            raise ApiError("40004", "isp.bill_not_exist", "账单不存在")
        account, stamp = f"{merchant.pid}0156", day.strftime("%Y%m%d")
        valid_until = now + (-LINK_LIFE if call.fault == "bill_link_expired" else LINK_LIFE)
        token = hashlib.md5(self._ledger.hash("bill", account, day, now).encode(), usedforsecurity=False).hexdigest()
        self._files[token] = (valid_until, self._archive(account, day, rows, now))
        query = {
            "bizType": "trade",
            "userId": account,
            "fileType": "csv.zip",
            "bizDates": stamp,
            "downloadFileName": f"{account}_{stamp}.csv.zip",
            "fileId": f"/trade/{account}/{stamp}.csv.zip",
            "timestamp": str(int(now.timestamp())),
            "token": token,
        }
        value = {"bill_download_url": f"{self.base_url}{PATH}?{urlencode(query)}"}
        return value | ({} if rows else {"bill_file_code": "EMPTY_DATA_WITH_BILL_FILE"})

    def download(self, request: Request) -> Response:
        """No signature: whoever has the address has the file, for half a minute; then a page."""
        token = parse_qs(request.query).get("token", [""])[0]
        valid_until, body = self._files.get(token, (None, b""))
        if valid_until is None or self._ledger.clock.now() > valid_until:
            return error_page("下载链接已过期")
        return Response(status=200, headers={"content-type": "application/octet-stream"}, body=body)

    def _rows(self, merchant: Merchant, day: date) -> list[Row]:
        rows: list[Row] = []
        for order in self._ledger.orders.values():
            if order.merchant is not merchant:
                continue
            if order.paid_at and order.paid_at.astimezone(BEIJING).date() == day:
                rows.append((order.paid_at, "交易", order.total_fen, order, None))
            for refund in order.refunds:
                if refund.created_at.astimezone(BEIJING).date() == day:
                    rows.append((refund.created_at, "退款", -refund.refund_fen, order, refund))
        return sorted(rows, key=lambda row: row[0])

    def _archive(self, account: str, day: date, rows: list[Row], now: datetime) -> bytes:
        """Names of entries are GBK bytes without the flag for UTF-8."""
        files = {
            "业务明细.csv": self._detail(account, day, rows, now),
            "业务明细(汇总).csv": _summary(account, day, rows, now),
        }
        stream = io.BytesIO()
        names: dict[bytes, bytes] = {}
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, (name, lines) in enumerate(files.items()):
                wanted = f"{account}_{day:%Y%m%d}_{name}".encode("gbk")
                given = f"entry {place} ".ljust(len(wanted), "=")
                names[given.encode()] = wanted
                entry = zipfile.ZipInfo(given, date_time=(day.year, day.month, day.day, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, ("\r\n".join(lines) + "\r\n").encode("gb18030"))
        body = stream.getvalue()
        for given_bytes, wanted in names.items():  # zipfile itself would set the flag
            body = body.replace(given_bytes, wanted)
        return body

    def _detail(self, account: str, day: date, rows: list[Row], now: datetime) -> list[str]:
        paid = [fen for _, kind, fen, *_ in rows if kind == "交易"]
        back = [fen for _, kind, fen, *_ in rows if kind == "退款"]
        return [
            "#支付宝业务明细查询",
            *_head(account, day),
            "#-----------------------------------------业务明细列表----------------------------------------",
            COLUMNS,
            *(self._line(row) for row in rows),
            "#-----------------------------------------业务明细列表结束------------------------------------",
            f"#交易合计：{len(paid)}笔，商家实收共{yuan(sum(paid))}元，商家优惠共0.00元",
            f"#退款合计：{len(back)}笔，商家实收退款共{yuan(sum(back))}元，商家优惠退款共0.00元",
            f"#导出时间：[{_chinese(now)}]",
        ]

    def _line(self, row: Row) -> str:
        """Cells that look like numbers end in a TAB."""
        at, kind, fen, order, refund = row
        own = refund.payer_fen - refund.refund_fen if refund else order.coupon_fen
        store = f"{order.asked.get('store_id', '')}\t"
        cells = [
            f"{order.trade_no}\t",
            f"{order.out_trade_no}\t",
            kind,
            order.asked["subject"],
            beijing_time(order.created_at) if order.created_at else "",
            beijing_time(at),
            store,
            store,
            f"{order.asked.get('operator_id', '')}\t",
            f"{order.asked.get('terminal_id', '')}\t",
            f"*某({buyer(self._ledger, order).get('buyer_logon_id', '')})\t",
            yuan(fen),
            yuan(fen),
            yuan(own),
            *["0.00"] * 4,
            "",
            "0.00\t",
            "0.00",
            refund.out_request_no if refund else "\t",
            "0.00",
            "0.00",
            order.asked.get("body", ""),
        ]
        return ",".join(cells)


def _summary(account: str, day: date, rows: list[Row], now: datetime) -> list[str]:
    stores: dict[str, list[Row]] = {}
    for row in rows:
        stores.setdefault(row[3].asked.get("store_id", ""), []).append(row)
    return [
        "#支付宝业务汇总查询",
        *_head(account, day),
        "#-----------------------------------------业务汇总列表----------------------------------------",
        SUMMARY_COLUMNS,
        *(_sums(store, group) for store, group in sorted(stores.items())),
        _sums("合计", rows),
        "#-----------------------------------------业务汇总列表结束------------------------------------",
        f"#导出时间：[{_chinese(now)}]",
    ]


def _sums(store: str, rows: list[Row]) -> str:
    kinds = [kind for _, kind, *_ in rows]
    total = yuan(sum(row[2] for row in rows))
    name = "" if store == "合计" else store
    first = store if store == "合计" else f"{store}\t"
    return ",".join(
        [first, f"{name}\t", str(kinds.count("交易")), str(kinds.count("退款")), total, total, *["0.00"] * 5, total]
    )


def _head(account: str, day: date) -> list[str]:
    first = datetime.combine(day, time(0), BEIJING)
    return [
        f"#账号：[{account}]",
        f"#起始日期：[{_chinese(first)}]   终止日期：[{_chinese(first + timedelta(days=1))}]",
    ]


def _chinese(at: datetime) -> str:
    local = at.astimezone(BEIJING)
    return f"{local.year:04}年{local.month:02}月{local.day:02}日 {local:%H:%M:%S}"
