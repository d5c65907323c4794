"""Which fields the simulated Alipay accepts in `biz_content`; anything else in it is refused.

Lengths and forms are those of the SDK's models. That a field the model does not know is refused is the strict
reading of "must not be sent".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simulators.alipay_calls import business_error, invalid

AMOUNT_FEN_MAX = 100_000_000_00
GOODS_MAX = 150
_YUAN = re.compile(r"(0|[1-9]\d{0,9})\.\d{2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    kind: Literal["text", "yuan", "record", "list", "texts"]
    required: bool = False
    length_max: int = 0  # 0 = no limit
    pattern: str = ""
    fields: Mapping[str, Field] = field(default_factory=dict)


def _text(length_max: int, *, required: bool = False, pattern: str = "") -> Field:
    return Field(kind="text", length_max=length_max, required=required, pattern=pattern)


def _yuan(*, required: bool = False) -> Field:
    return Field(kind="yuan", required=required)


def _record(fields: Mapping[str, Field]) -> Field:
    return Field(kind="record", fields=fields)


_TEXTS = Field(kind="texts")
_NUMBER = r"[0-9A-Za-z_]{1,64}"
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_DURATION = r"[1-9]\d{0,5}[mhd]|1c"

_WHICH_TRADE: dict[str, Field] = {"out_trade_no": _text(64, pattern=_NUMBER), "trade_no": _text(64)}

_GOODS = Field(
    kind="list",
    fields={
        "goods_id": _text(64, required=True),
        "goods_name": _text(256, required=True),
        "quantity": _text(10, required=True, pattern=r"[1-9]\d*"),
        "price": _yuan(required=True),
        "goods_category": _text(24),
        "categories_tree": _text(128),
        "body": _text(400),
        "show_url": _text(400),
    },
)

_ORDER: dict[str, Field] = {
    "out_trade_no": _text(64, required=True, pattern=_NUMBER),
    "total_amount": _yuan(required=True),
    "subject": _text(256, required=True, pattern=r"[^/=&]+"),
    "product_code": _text(64),
    "body": _text(128),
    "seller_id": _text(28, pattern=r"2088\d{12}"),
    "goods_detail": _GOODS,
    "time_expire": _text(32, pattern=_TIME),
    "timeout_express": _text(6, pattern=_DURATION),
    "passback_params": _text(512),
    "enable_pay_channels": _text(128),
    "disable_pay_channels": _text(128),
    "store_id": _text(32, pattern=r"[\x21-\x7e]+"),
    "operator_id": _text(28),
    "terminal_id": _text(32),
    "business_params": _record({"mc_create_trade_ip": _text(128), "actual_order_time": _text(32, pattern=_TIME)}),
    "extend_params": _record({"sys_service_provider_id": _text(64), "industry_reflux_info": _text(512)}),
    "ext_user_info": _record(
        {
            "name": _text(16),
            "mobile": _text(20),
            "cert_type": _text(32),
            "cert_no": _text(64),
            "min_age": _text(3),
            "fix_buyer": _text(8),
            "need_check_info": _text(8),
            "identity_hash": _text(128),
        }
    ),
    "query_options": _TEXTS,
}

CREATE_FIELDS: Mapping[str, Field] = {
    **_ORDER,
    "op_app_id": _text(32),
    "op_buyer_open_id": _text(128),
    "buyer_id": _text(28, pattern=r"2088\d{12}"),
    "buyer_open_id": _text(128),
}
PRECREATE_FIELDS: Mapping[str, Field] = {
    **_ORDER,
    "qr_code_timeout_express": _text(6, pattern=_DURATION),
    "code_type": _text(32),
    "payment_type": _text(32),
}
WAP_FIELDS: Mapping[str, Field] = {
    **_ORDER,
    "quit_url": _text(400),
    "goods_type": _text(2),
    "merchant_order_no": _text(32),
    "auth_token": _text(40),
    "specified_channel": _text(128),
}
QUERY_FIELDS: Mapping[str, Field] = {**_WHICH_TRADE, "query_options": _TEXTS, "org_pid": _text(16)}
CLOSE_FIELDS: Mapping[str, Field] = {**_WHICH_TRADE, "operator_id": _text(28)}
CANCEL_FIELDS: Mapping[str, Field] = _WHICH_TRADE
REFUND_FIELDS: Mapping[str, Field] = {
    **_WHICH_TRADE,
    "refund_amount": _yuan(required=True),
    "out_request_no": _text(64, pattern=_NUMBER),
    "refund_reason": _text(256),
    "query_options": _TEXTS,
    "operator_id": _text(30),
    "store_id": _text(32),
    "terminal_id": _text(32),
}
QUERY_REFUND_FIELDS: Mapping[str, Field] = {
    **_WHICH_TRADE,
    "out_request_no": _text(64, required=True),
    "query_options": _TEXTS,
}
BILL_FIELDS: Mapping[str, Field] = {
    "bill_type": _text(20, required=True),
    "bill_date": _text(10, required=True),
    "smid": _text(32),
}
CERTIFICATE_FIELDS: Mapping[str, Field] = {"alipay_cert_sn": _text(64, required=True)}


def check_content(content: Mapping[str, Any], fields: Mapping[str, Field], where: str = "") -> None:
    """Refuse what the model does not have. Raises ApiError."""
    for name in content:
        if name not in fields:
            raise invalid(f"{where}{name}不是接口参数")
    for name, rule in fields.items():
        if name in content:
            _check(content[name], rule, where + name)
        elif rule.required:
            raise invalid(f"{where}{name}不能为空")


def fen(text: str) -> int:
    """Of an amount that has passed `check_content`."""
    return int(text.replace(".", ""))


def _check(value: object, rule: Field, name: str) -> None:
    match rule.kind:
        case "text":
            if not isinstance(value, str) or not value:
                raise invalid(f"{name}不能为空")
            if rule.length_max and len(value) > rule.length_max:
                raise invalid(f"{name}长度超过{rule.length_max}")
            if rule.pattern and not re.fullmatch(rule.pattern, value):
                raise invalid(f"{name}格式错误")
        case "yuan":
            if not isinstance(value, str) or not _YUAN.fullmatch(value) or fen(value) == 0:
                raise invalid(f"{name}格式错误")
            if fen(value) > AMOUNT_FEN_MAX:
                raise business_error("TOTAL_FEE_EXCEED", "订单总金额不在允许范围内")
        case "record":
            if not isinstance(value, dict):
                raise invalid(f"{name}格式错误")
            check_content(value, rule.fields, f"{name}.")
        case "list":
            if not isinstance(value, list):
                raise invalid(f"{name}格式错误")
            if len(value) > GOODS_MAX:
                raise business_error("SUB_GOODS_SIZE_MAX_COUNT", "子商品明细超长")
            for entry in value:
                if not isinstance(entry, dict):
                    raise invalid(f"{name}格式错误")
                check_content(entry, rule.fields, f"{name}.")
        case "texts":
            if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                raise invalid(f"{name}格式错误")
