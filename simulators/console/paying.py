"""The phone's pay sheet: what WeChat checks before it shows one, and the ways in which a person answers it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from simulators.console.world import ConsoleWorld, Mistake, person_of

SLOW_SHEET_SECONDS = 8.0
LATE_ANSWER_SECONDS = 4.0
PASSWORD_DIGITS = 6
HOWS = frozenset({"confirm", "cancel", "slow", "answer_late", "notice_late", "fail"})
NOTICE_DELAYED = "wechatpay.notice_delayed"
TICKET_HOURS = 2  # this hour's and the one before

Fields = Mapping[str, Any]


class Paying:
    """`app` says where the sheet opens: in the mini program, or in a page of the official account."""

    def __init__(self, world: ConsoleWorld) -> None:
        self._world = world
        self.posts: Mapping[str, Callable[[Fields], Awaitable[dict[str, Any]]]] = {
            "phone/pay-sheet": self.pay_sheet,
            "phone/pay": self.pay,
            "phone/js-config": self.js_config,
        }

    async def pay_sheet(self, asked: Fields) -> dict[str, Any]:
        """Up to the sheet: WeChat checks the signed parameters and shows its own amount."""
        params = _params(asked)
        refused = self._world.wechatpay.check_pay_params(params, appid=self._app_id(asked))
        if refused is not None:
            raise Mistake(f"微信拒绝打开支付：{refused}")
        prepay_id = str(params["package"]).removeprefix("prepay_id=")
        order = next(
            (order for order in self._world.wechatpay.orders.values() if order.current_reference == prepay_id), None
        )
        if order is None:
            raise Mistake("微信支付没有这笔订单")
        return {
            "order_no": order.out_trade_no,
            "amount_fen": order.total_fen,
            "description": str(order.asked["description"]),
            "payee": self._world.institution_name,
            "expires_at": order.expires_at.isoformat(),
        }

    async def pay(self, asked: Fields) -> dict[str, Any]:
        """The person answers the sheet.

        `how`: confirm; cancel; fail, without money moving; slow, so that the money moves seconds later;
        answer_late, when WeChat Pay's notice overtakes the phone; notice_late, when the notice comes after it.
        """
        person, how, params = person_of(self._world, asked), str(asked.get("how", "")), _params(asked)
        if how not in HOWS:
            raise Mistake("不认识的操作")
        password = str(asked.get("password", "0" * PASSWORD_DIGITS))
        if how != "cancel" and not (len(password) == PASSWORD_DIGITS and password.isascii() and password.isdigit()):
            raise Mistake("请输入六位数字")
        if how == "fail":
            return {"result": "failed"}
        if how == "slow":
            await asyncio.sleep(SLOW_SHEET_SECONDS)
        if how == "notice_late":
            self._world.faults.script(NOTICE_DELAYED, key=self._order_no(params))
        open_id = self._world.wechat.open_id(person.open_id_user_key, self._app_id(asked))
        result = self._world.wechatpay.pay_with(params, open_id, confirm=how != "cancel")
        if how == "answer_late":
            await asyncio.sleep(LATE_ANSWER_SECONDS)
        return {"result": result}

    async def js_config(self, asked: Fields) -> dict[str, Any]:
        """wx.config: the signature over the page's own address; `refused` is what the SDK would report."""
        config, path = asked.get("config"), str(asked.get("path", ""))
        if not isinstance(config, dict):
            return {"refused": "invalid config"}
        if config.get("appId") != self._world.service_app_id:
            return {"refused": "invalid appid"}
        url = self._world.product_url + path.partition("#")[0]
        nonce, timestamp = str(config.get("nonceStr", "")), str(config.get("timestamp", ""))
        now = self._world.clock.now()
        for hours in range(TICKET_HOURS):
            hour = (now - timedelta(hours=hours)).strftime("%Y%m%d%H")
            ticket = self._world.wechat.record.word("ticket", self._world.service_app_id, hour, length=86)
            text = f"jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}"
            if hashlib.sha1(text.encode()).hexdigest() == config.get("signature"):
                return {"refused": ""}
        return {"refused": "invalid signature"}

    def _app_id(self, asked: Fields) -> str:
        return self._world.service_app_id if asked.get("app") == "service" else self._world.miniprogram_app_id

    def _order_no(self, params: Mapping[str, Any]) -> str:
        prepay_id = str(params.get("package", "")).removeprefix("prepay_id=")
        orders = self._world.wechatpay.orders.values()
        return next((order.out_trade_no for order in orders if order.current_reference == prepay_id), "")


def _params(asked: Fields) -> dict[str, Any]:
    params = asked.get("params")
    if not isinstance(params, dict):
        raise Mistake("缺少支付参数")
    return params
