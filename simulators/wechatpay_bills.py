"""The daily bill service of the simulated WeChat Pay: what was paid and refunded on a day, as a file of its own form.

Source: merchant documents, APIv3, 申请交易账单, 下载账单. The columns are those of bill_type ALL.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from simulators.wechatpay_books import BEIJING, Merchant, Order, Refund
from simulators.wechatpay_calls import ApiError, Call, param_error, payee
from simulators.wechatpay_ledger import Ledger

HOST = "https://api.mch.weixin.qq.com"
LINK_LIFE = timedelta(minutes=5)
READY_AT = time(9)
KEPT_FOR = timedelta(days=92)
COLUMNS = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,"
    "应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,"
    "手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMMARY = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"


class Bills:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._files: dict[str, tuple[Merchant, datetime, bytes]] = {}
        self.base_url = HOST  # where the addresses of files begin: the simulator's own address

    def apply(self, call: Call) -> dict[str, Any]:
        """Asks for the bill of a day; the answer names the file and its hash."""
        merchant = payee(call.caller, call.query, self._ledger.merchants)
        now = self._ledger.clock.now()
        try:
            day = date.fromisoformat(call.query.get("bill_date", ""))
        except ValueError:
            raise param_error("/bill_date", call.query.get("bill_date"), "格式错误", location="query") from None
        today = now.astimezone(BEIJING).date()
        if day >= today or day < today - KEPT_FOR:
            raise ApiError(400, "INVALID_REQUEST", "账单日期不合法")
        if now < datetime.combine(day + timedelta(days=1), READY_AT, BEIJING):
            raise ApiError(400, "STATEMENT_CREATING", "账单生成中，请稍后再试")
        rows = list(self._rows(merchant, day))
        if not rows:
            raise ApiError(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        content = self._file(rows)
        token = self._ledger.hash("bill", merchant.mchid, day, now)[:40]
        body = gzip.compress(content, mtime=0) if call.query.get("tar_type") == "GZIP" else content
        self._files[token] = (call.caller, now, body)
        return {
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "download_url": f"{self.base_url}/v3/billdownload/file?token={token}",
        }

    def download(self, call: Call) -> bytes:
        found = self._files.get(call.query.get("token", ""))
        if found is None or self._ledger.clock.now() > found[1] + LINK_LIFE:
            raise ApiError(400, "INVALID_REQUEST", "下载地址已失效，请重新申请")
        if found[0] is not call.caller:
            raise ApiError(403, "NO_AUTH", "商户号不一致")
        return found[2]

    def _rows(self, merchant: Merchant, day: date) -> Iterator[tuple[datetime, list[str]]]:
        for order in self._ledger.orders.values():
            if order.merchant is not merchant:
                continue
            if order.paid_at and order.paid_at.astimezone(BEIJING).date() == day:
                yield order.paid_at, _payment(order)
            for refund in order.refunds:
                if refund.created_at.astimezone(BEIJING).date() == day:
                    yield refund.created_at, _refund(refund)

    def _file(self, rows: list[tuple[datetime, list[str]]]) -> bytes:
        """Values begin with a back-tick, heads do not; lines end with CRLF; the summary stands at the end."""
        rows.sort(key=lambda row: row[0], reverse=True)
        table = [cells for _, cells in rows]
        sums = [f"{sum(_fen(cells[place]) for cells in table) / 100:.2f}" for place in (12, 16, 17, 22, 24, 25)]
        lines = [COLUMNS, *map(_line, table), SUMMARY, _line([f"{len(table)}.0", *sums])]
        return ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()


def _payment(order: Order) -> list[str]:
    paid = [_yuan(order.payer_fen), _yuan(order.coupon_fen), "0", "0", "0.00", "0.00", "", ""]
    state = _common(order, order.paid_at, "SUCCESS")
    return [*state, *paid, _words(order), "", "0.00000", "0.60%", _yuan(order.total_fen), "0.00", ""]


def _refund(refund: Refund) -> list[str]:
    """As it was when it was accepted: never written again."""
    order = refund.order
    back = ["0.00", "0.00", refund.refund_id, refund.out_refund_no, _yuan(refund.payer_fen), "0.00"]
    state = _common(order, refund.created_at, "REFUND")
    kind = ["ORIGINAL", "PROCESSING"]
    return [*state, *back, *kind, _words(order), "", "0.00000", "0.60%", "0.00", _yuan(refund.refund_fen), ""]


def _common(order: Order, at: datetime | None, state: str) -> list[str]:
    merchant = order.merchant
    numbers = [merchant.provider.mchid, merchant.mchid] if merchant.provider else [merchant.mchid, "0"]
    moment = f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}" if at else ""
    app = order.appids[0] if order.appids else ""
    who = [order.transaction_id, order.out_trade_no, order.payer_openid, order.product.upper(), state, "OTHERS", "CNY"]
    return [moment, app, *numbers, "", *who]


def _words(order: Order) -> str:
    return str(order.asked.get("description", "")).replace(",", "\\ ").replace("\n", "\\n")


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02}"


def _fen(yuan: str) -> int:
    return round(float(yuan) * 100)


def _line(cells: list[str]) -> str:
    return ",".join(f"`{cell}" for cell in cells)
