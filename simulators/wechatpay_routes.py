"""Which path and method lead to which rule of the simulated WeChat Pay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from simulators.kit import Request
from simulators.wechatpay_bills import Bills
from simulators.wechatpay_calls import SERIAL_MISSING, ApiError, Call, decrypted
from simulators.wechatpay_fields import (
    ABNORMAL_REFUND_FIELDS,
    CLOSE_FIELDS,
    ECHO_FIELDS,
    ORDER_FIELDS,
    PARTNER_CLOSE_FIELDS,
    PARTNER_ORDER_FIELDS,
    REFUND_FIELDS,
    Field,
)
from simulators.wechatpay_keys import oaep_encrypt
from simulators.wechatpay_ledger import Ledger
from simulators.wechatpay_notices import Notices
from simulators.wechatpay_orders import Orders
from simulators.wechatpay_platform import Platform
from simulators.wechatpay_refunds import Refunds

NUMBERED = {"create": "out_trade_no", "refund": "out_refund_no", "abnormal_refund": "out_refund_no"}
"""Calls whose body names the business that faults are decided by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    call: str
    handler: Callable[[Call], dict[str, Any] | bytes | None]
    fields: Mapping[str, Field] | None = None
    product: str = ""
    partner: bool = False


class Routes:
    def __init__(
        self,
        ledger: Ledger,
        orders: Orders,
        refunds: Refunds,
        bills: Bills,
        platform: Platform,
        notices: Notices,
    ) -> None:
        self._ledger = ledger
        self._bills = bills
        self._orders = orders
        self._refunds = refunds
        self._platform = platform
        self._notices = notices

    def find(self, method: str, path: str) -> tuple[Route | int, str]:
        """The route and the path's variable part; 404 or 405 when there is none."""
        match path.split("/")[1:]:
            case ["v3", "pay", "partner", "transactions", *rest]:
                routes, argument = self._pay(rest, partner=True)
            case ["v3", "pay", "transactions", *rest]:
                routes, argument = self._pay(rest, partner=False)
            case ["v3", "refund", "domestic", "refunds", *rest]:
                routes, argument = self._refund(rest)
            case ["v3", "certificates"]:
                routes, argument = {"GET": Route(call="certificates", handler=self._platform.certificates)}, ""
            case ["v3", "bill", "tradebill"]:
                routes, argument = {"GET": Route(call="bill", handler=self._bills.apply)}, ""
            case ["v3", "billdownload", "file"]:
                routes, argument = {"GET": Route(call="bill_file", handler=self._bills.download)}, ""
            case ["v3", "security", "echo"]:
                routes, argument = {"POST": Route(call="echo", handler=self._echo, fields=ECHO_FIELDS)}, ""
            case _:
                routes, argument = {}, ""
        return (routes.get(method, 405) if routes else 404), unquote(argument)

    def key_of(self, route: Route, argument: str, request: Request) -> str:
        """The order or refund number that a call is about, or "" when it does not say."""
        if route.call in NUMBERED:
            try:
                return str(request.json()[NUMBERED[route.call]])
            except (ValueError, KeyError, TypeError):
                return ""
        if "/transactions/id/" in request.path and argument in self._ledger.transactions:
            return self._ledger.transactions[argument].out_trade_no
        return argument

    def _pay(self, rest: list[str], *, partner: bool) -> tuple[dict[str, Route], str]:
        order_fields = PARTNER_ORDER_FIELDS if partner else ORDER_FIELDS
        close_fields = PARTNER_CLOSE_FIELDS if partner else CLOSE_FIELDS
        match rest:
            case ["jsapi" | "native" | "app" | "h5" as product]:
                create = Route(
                    call="create",
                    handler=self._orders.create,
                    fields=order_fields[product],
                    product=product,
                    partner=partner,
                )
                return {"POST": create}, ""
            case ["out-trade-no", argument] if argument:
                query = Route(call="query", handler=self._orders.query_by_order_no, partner=partner)
                return {"GET": query}, argument
            case ["id", argument] if argument:
                return {"GET": Route(call="query", handler=self._orders.query_by_id, partner=partner)}, argument
            case ["out-trade-no", argument, "close"] if argument:
                close = Route(call="close", handler=self._orders.close, fields=close_fields, partner=partner)
                return {"POST": close}, argument
        return {}, ""

    def _refund(self, rest: list[str]) -> tuple[dict[str, Route], str]:
        """One path for both modes."""
        match rest:
            case []:
                return {"POST": Route(call="refund", handler=self._refunds.create, fields=REFUND_FIELDS)}, ""
            case [argument] if argument:
                return {"GET": Route(call="query_refund", handler=self._refunds.query)}, argument
            case [argument, "apply-abnormal-refund"] if argument:
                abnormal = Route(
                    call="abnormal_refund", handler=self._refunds.apply_abnormal, fields=ABNORMAL_REFUND_FIELDS
                )
                return {"POST": abnormal}, argument
        return {}, ""

    def _echo(self, call: Call) -> dict[str, Any]:
        """The self-test: signatures both ways, field encryption, and a notice."""
        asked = call.body
        if "wechatpay-serial" not in call.request.headers:
            raise ApiError(400, "PARAM_ERROR", SERIAL_MISSING, number=268435461)
        value = {"echo_message": asked["echo_message"]}
        notice: dict[str, Any] = {"echo_message": asked["echo_message"]}
        if "encrypted_echo_message" in asked:
            text = decrypted(call.key, "/encrypted_echo_message", asked["encrypted_echo_message"])
            value["encrypted_echo_message"] = oaep_encrypt(call.caller.public_key, text)
        if "notify_url" in asked:
            self._notices.send(
                call.caller,
                url=asked["notify_url"],
                key=asked["echo_message"],
                event_type="SECURITY_ECHO.SUCCESS",
                summary="回调通知成功",
                original_type="security",
                value=notice,
                at=self._ledger.clock.now() + self._ledger.notice_delay,
                signer=call.key,
            )
        return value
