"""A call that has passed the gate of the simulated Alipay, and how one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from simulators.alipay_books import Application, Merchant, Order
from simulators.alipay_ledger import Ledger
from simulators.kit import Request

MESSAGES = {
    "10000": "Success",
    "20000": "Service Currently Unavailable",
    "20001": "Insufficient Token Permissions",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40003": "Insufficient Conditions",
    "40004": "Business Failed",
    "40005": "Call Limited",
    "40006": "Insufficient Permissions",
}
CHARSETS = {"utf-8": "utf-8", "gbk": "gbk", "gb2312": "gbk"}
PARAMETERS_MAX = 200


class ApiError(Exception):
    """A refusal as the gateway words it. `signed=False` before the application is known."""

    def __init__(
        self,
        code: str,
        sub_code: str,
        sub_msg: str,
        *,
        signed: bool = True,
        known_method: bool = True,
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code} {sub_code}")
        self.code = code
        self.sub_code = sub_code
        self.sub_msg = sub_msg
        self.signed = signed
        self.known_method = known_method  # False: the node is `error_response`
        self.more = dict(more or {})

    def node(self) -> dict[str, Any]:
        value = {"code": self.code, "msg": MESSAGES[self.code], "sub_code": self.sub_code, "sub_msg": self.sub_msg}
        return value | self.more


def business_error(sub_code: str, sub_msg: str, **more: str) -> ApiError:
    return ApiError("40004", f"ACQ.{sub_code}", sub_msg, more=more)


def invalid(sub_msg: str) -> ApiError:
    return business_error("INVALID_PARAMETER", f"参数无效：{sub_msg}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """All parameters of a request, from query and body, as text in the request's charset."""

    values: Mapping[str, str]
    charset: str  # "utf-8" | "gbk"
    repeated: frozenset[str]  # names that stood there twice

    def get(self, name: str) -> str:
        return self.values.get(name, "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request that has passed the gate."""

    method: str
    parameters: Parameters
    caller: Application  # whose key has signed
    application: Application  # whose merchant it is about
    content: dict[str, Any]  # biz_content
    encrypted: bool
    fault: str  # the short name of the specific fault that strikes, or ""

    @property
    def merchant(self) -> Merchant:
        return self.application.merchant


def read_parameters(request: Request) -> Parameters:
    """Common parameters may stand in the query or in the body; `charset` decides how both are read.

    It is looked for in the query only, as documented. Without it the text is read as GBK, the gateway's own
    charset: Chinese text in UTF-8 is then garbled, or fails its signature. That a parameter must not be sent
    twice is the strict reading.
    """
    query = _pairs(request.query.encode("latin-1"))
    form = "application/x-www-form-urlencoded" in request.headers.get("content-type", "")
    pairs = query + (_pairs(request.body) if form else [])
    named = next((value for name, value in query if name == b"charset"), b"")
    charset = CHARSETS.get(named.decode("latin-1").lower(), "utf-8") if named else "gbk"
    values: dict[str, str] = {}
    repeated = set()
    for name, value in pairs[:PARAMETERS_MAX]:
        text = name.decode("latin-1")
        if text in values:
            repeated.add(text)
        values[text] = value.decode(charset, "replace")
    return Parameters(values=values, charset=charset, repeated=frozenset(repeated))


def find_trade(ledger: Ledger, call: Call) -> Order | None:
    """The trade a call names, once it exists; `trade_no` wins. Raises ApiError when none is named."""
    asked, pid = call.content, call.merchant.pid
    if "trade_no" in asked:
        order = ledger.trades.get(asked["trade_no"])
        return order if order and order.merchant is call.merchant else None
    if "out_trade_no" not in asked:
        raise invalid("交易号和商户订单号不能同时为空")
    order = ledger.order_of(pid, asked["out_trade_no"])
    return order if order and order.exists else None


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    result = []
    for part in data.split(b"&"):
        name, _, value = part.partition(b"=")
        if name:
            result.append((unquote_to_bytes(name), unquote_to_bytes(value.replace(b"+", b" "))))
    return result
