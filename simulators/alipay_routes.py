"""Which method of the simulated Alipay gateway leads to which call, and what that call is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators.alipay_calls import Parameters
from simulators.alipay_fields import (
    BILL_FIELDS,
    CANCEL_FIELDS,
    CERTIFICATE_FIELDS,
    CLOSE_FIELDS,
    CREATE_FIELDS,
    PRECREATE_FIELDS,
    QUERY_FIELDS,
    QUERY_REFUND_FIELDS,
    REFUND_FIELDS,
    WAP_FIELDS,
    Field,
)
from simulators.alipay_keys import decrypt
from simulators.alipay_ledger import Ledger

GATEWAY = "/gateway.do"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    call: str
    fields: Mapping[str, Field]
    named_by: str = "out_trade_no"  # the field that names the business, for faults
    page: bool = False  # a browser calls it: errors are pages
    bare: bool = False  # success without code and msg, errors as `error_response` (alipay.system.oauth.token)


ROUTES: Mapping[str, Route] = {
    "alipay.trade.create": Route(call="create", fields=CREATE_FIELDS),
    "alipay.trade.precreate": Route(call="precreate", fields=PRECREATE_FIELDS),
    "alipay.trade.wap.pay": Route(call="wap", fields=WAP_FIELDS, page=True),
    "alipay.trade.query": Route(call="query", fields=QUERY_FIELDS),
    "alipay.trade.close": Route(call="close", fields=CLOSE_FIELDS),
    "alipay.trade.cancel": Route(call="cancel", fields=CANCEL_FIELDS),
    "alipay.trade.refund": Route(call="refund", fields=REFUND_FIELDS, named_by="out_request_no"),
    "alipay.trade.fastpay.refund.query": Route(
        call="query_refund", fields=QUERY_REFUND_FIELDS, named_by="out_request_no"
    ),
    "alipay.data.dataservice.bill.downloadurl.query": Route(call="bill", fields=BILL_FIELDS, named_by="bill_date"),
    "alipay.open.app.alipaycert.download": Route(
        call="certificate", fields=CERTIFICATE_FIELDS, named_by="alipay_cert_sn"
    ),
}


def key_of(ledger: Ledger, route: Route, parameters: Parameters) -> str:
    """The number that a call is about, or "" when it does not say."""
    content = _content(ledger, parameters)
    for name in (route.named_by, "out_trade_no"):
        if isinstance(found := content.get(name), str):
            return found
    order = ledger.trades.get(str(content.get("trade_no", "")))
    return order.out_trade_no if order else ""


def _content(ledger: Ledger, parameters: Parameters) -> dict[str, Any]:
    text = parameters.get("biz_content")
    application = ledger.applications.get(parameters.get("app_id"))
    try:
        if parameters.get("encrypt_type") and application and application.aes_key:
            text = decrypt(application.aes_key, text, parameters.charset)
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
