"""Which fields the simulated WeChat Pay accepts in a request body; anything else in it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


class FieldError(Exception):
    """A body that the gate of the real service would refuse with PARAM_ERROR."""

    def __init__(self, pointer: str, value: object, issue: str, *, unknown: bool = False) -> None:
        super().__init__(f"{pointer}: {issue}")
        self.pointer = pointer
        self.value = value
        self.issue = issue
        self.unknown = unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    kind: Literal["text", "whole", "truth", "record", "list"]
    required: bool = False
    length_max: int = 0  # 0 = no limit
    pattern: str = ""
    one_of: tuple[str, ...] = ()
    minimum: int | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)


def _text(length_max: int, *, required: bool = False, pattern: str = "", one_of: tuple[str, ...] = ()) -> Field:
    return Field(kind="text", length_max=length_max, required=required, pattern=pattern, one_of=one_of)


def _fen(*, required: bool = True, minimum: int = 1) -> Field:
    return Field(kind="whole", required=required, minimum=minimum)


def _record(fields: Mapping[str, Field], *, required: bool = False) -> Field:
    return Field(kind="record", required=required, fields=fields)


def _list(fields: Mapping[str, Field]) -> Field:
    return Field(kind="list", fields=fields)


_TRUTH = Field(kind="truth")
_WHOLE = Field(kind="whole")
_CURRENCY = ("CNY",)

_STORE = _record({"id": _text(32, required=True), "name": _text(256), "area_code": _text(32), "address": _text(512)})

_DIRECT: dict[str, Field] = {"appid": _text(32, required=True), "mchid": _text(32, required=True)}
_PARTNER: dict[str, Field] = {
    "sp_appid": _text(32, required=True),
    "sp_mchid": _text(32, required=True),
    "sub_appid": _text(32),
    "sub_mchid": _text(32, required=True),
}

_ORDER: dict[str, Field] = {
    "description": _text(127, required=True),
    "out_trade_no": _text(32, required=True, pattern=r"[0-9A-Za-z_\-*|]{6,32}"),
    "time_expire": _text(64),
    "attach": _text(128),
    # A query string is refused; https is demanded of the public but not here, everything runs on loopback.
    "notify_url": _text(255, required=True, pattern=r"https?://[^?#\s]+"),
    "goods_tag": _text(32),
    "support_fapiao": _TRUTH,
    "amount": _record({"total": _fen(), "currency": _text(16, one_of=_CURRENCY)}, required=True),
    "detail": _record(
        {
            "cost_price": _WHOLE,
            "invoice_id": _text(32),
            "goods_detail": _list(
                {
                    "merchant_goods_id": _text(32, required=True),
                    "wechatpay_goods_id": _text(32),
                    "goods_name": _text(256),
                    "quantity": Field(kind="whole", required=True, minimum=1),
                    "unit_price": Field(kind="whole", required=True, minimum=0),
                }
            ),
        }
    ),
    "scene_info": _record({"payer_client_ip": _text(45, required=True), "device_id": _text(32), "store_info": _STORE}),
    "settle_info": _record({"profit_sharing": _TRUTH}),
}

_H5_SCENE = _record(
    {
        "payer_client_ip": _text(45, required=True),
        "device_id": _text(32),
        "store_info": _STORE,
        "h5_info": _record(
            {
                "type": _text(32, required=True),
                "app_name": _text(64),
                "app_url": _text(128),
                "bundle_id": _text(128),
                "package_name": _text(128),
            },
            required=True,
        ),
    },
    required=True,
)

_DIRECT_PAYER = _record({"openid": _text(128, required=True)}, required=True)
_PARTNER_PAYER = _record({"sp_openid": _text(128), "sub_openid": _text(128)}, required=True)


def _products(parties: Mapping[str, Field], payer: Field) -> Mapping[str, Mapping[str, Field]]:
    order = {**parties, **_ORDER}
    return {
        "jsapi": {**order, "payer": payer},
        "native": order,
        "app": order,
        "h5": {**order, "scene_info": _H5_SCENE},
    }


ORDER_FIELDS = _products(_DIRECT, _DIRECT_PAYER)
PARTNER_ORDER_FIELDS = _products(_PARTNER, _PARTNER_PAYER)

CLOSE_FIELDS: Mapping[str, Field] = {"mchid": _text(32, required=True)}
PARTNER_CLOSE_FIELDS: Mapping[str, Field] = {
    "sp_mchid": _text(32, required=True),
    "sub_mchid": _text(32, required=True),
}

REFUND_FIELDS: Mapping[str, Field] = {
    "sub_mchid": _text(32),  # a service provider must, nobody else may
    "transaction_id": _text(32),
    "out_trade_no": _text(32),
    "out_refund_no": _text(64, required=True, pattern=r"[0-9A-Za-z_\-*|@]{1,64}"),
    "reason": _text(80),
    "notify_url": _text(256, pattern=r"https?://[^?#\s]+"),
    "funds_account": _text(32, one_of=("AVAILABLE", "UNSETTLED")),
    "amount": _record(
        {
            "refund": _fen(),
            "total": _fen(),
            "currency": _text(16, required=True, one_of=_CURRENCY),
            "from": _list({"account": _text(32, required=True), "amount": _fen()}),
        },
        required=True,
    ),
    "goods_detail": _list(
        {
            "merchant_goods_id": _text(32, required=True),
            "wechatpay_goods_id": _text(32),
            "goods_name": _text(256),
            "unit_price": Field(kind="whole", required=True, minimum=0),
            "refund_amount": Field(kind="whole", required=True, minimum=0),
            "refund_quantity": Field(kind="whole", required=True, minimum=1),
        }
    ),
}

ABNORMAL_REFUND_FIELDS: Mapping[str, Field] = {
    "sub_mchid": _text(32),
    "out_refund_no": _text(64, required=True),
    "type": _text(32, required=True, one_of=("USER_BANK_CARD", "MERCHANT_BANK_CARD")),
    "bank_type": _text(16),
    "bank_account": _text(1024),
    "real_name": _text(1024),
}

ECHO_FIELDS: Mapping[str, Field] = {
    "echo_message": _text(1024, required=True),
    "encrypted_echo_message": _text(1024),
    "notify_url": _text(255, pattern=r"https?://[^?#\s]+"),
}


def read_body(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The body as a dict, every field of it known and well-formed. Raises FieldError."""
    try:
        value = json.loads(body)
    except ValueError:
        raise FieldError("", None, "not JSON") from None
    _check_record("", value, fields)
    assert isinstance(value, dict)
    return value


def _check_record(pointer: str, value: object, fields: Mapping[str, Field]) -> None:
    if not isinstance(value, dict):
        raise FieldError(pointer, value, "must be an object")
    for name in value:
        if name not in fields:
            raise FieldError(f"{pointer}/{name}", value[name], "unknown parameter", unknown=True)
    for name, wanted in fields.items():
        if name in value:
            _check(f"{pointer}/{name}", value[name], wanted)
        elif wanted.required:
            raise FieldError(f"{pointer}/{name}", None, "missing")


def _check(pointer: str, value: object, wanted: Field) -> None:
    if wanted.kind == "record":
        _check_record(pointer, value, wanted.fields)
    elif wanted.kind == "list":
        if not isinstance(value, list) or not value:
            raise FieldError(pointer, value, "must be an array that is not empty")
        for index, item in enumerate(value):
            _check_record(f"{pointer}/{index}", item, wanted.fields)
    elif wanted.kind == "truth":
        if not isinstance(value, bool):
            raise FieldError(pointer, value, "must be true or false")
    elif wanted.kind == "whole":
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldError(pointer, value, "must be an integer")
        if wanted.minimum is not None and value < wanted.minimum:
            raise FieldError(pointer, value, f"值低于最小值 {wanted.minimum}")
    else:
        if not isinstance(value, str) or not value:
            raise FieldError(pointer, value, "must be text that is not empty")
        if wanted.length_max and len(value) > wanted.length_max:
            raise FieldError(pointer, value, f"longer than {wanted.length_max}")
        if wanted.pattern and not re.fullmatch(wanted.pattern, value):
            raise FieldError(pointer, value, "characters or length not allowed")
        if wanted.one_of and value not in wanted.one_of:
            raise FieldError(pointer, value, f"must be one of {', '.join(wanted.one_of)}")
