"""Examples for the API's description; a test holds them against its schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.texts import ERRORS

Json = dict[str, Any]

_PATIENT = "0199a3f0-5c00-7aaa-8bbb-123456789abc"
_ORDER = "P7K2M9QX4TVB8N3H5RZC6WDYGE"
_BILL_EXAMPLE: Json = {
    "branch": "",
    "bill_id": "CF2026050600012345",
    "visit_no": "MZ20260506000123",
    "kind": "western",
    "kind_text": "西药费",
    "title": "西药处方",
    "department": "内科门诊",
    "doctor": "张医生",
    "issued_at": "2026-05-06T10:00:00+08:00",
    "amount_fen": 8650,
    "amount": "86.50",
    "total_fen": 8650,
    "total": "86.50",
    "insured": False,
    "treat_first": False,
    "merge_group": "MZ20260506000123-ZF",
    "payable": True,
    "payable_online": True,
    "reason": None,
    "reason_text": None,
    "needs_second_tap": False,
    "second_tap_text": None,
    "valid_until": "2026-05-07T00:00:00+08:00",
    "valid_until_text": "医院在2026年5月7日 00:00前接受缴费",
    "items_count": 1,
    "status": "to_pay",
    "status_text": "待缴费",
    "order_no": None,
}
_LINE_EXAMPLE: Json = {
    "branch": "",
    "bill_id": "CF2026050600012345",
    "kind": "western",
    "kind_text": "西药费",
    "title": "西药处方",
    "amount_fen": 8650,
    "amount": "86.50",
    "status": "paid",
    "status_text": "已缴费",
    "receipt_no": "S0012345678",
    "guide_text": "请到门诊楼1楼西药房3号窗口取药",
    "receipt_url": None,
    "ebill_url": None,
    "return_reason": None,
}
_RETURNED_LINE_EXAMPLE: Json = {
    **_LINE_EXAMPLE,
    "bill_id": "JC2026050600023456",
    "kind": "treatment",
    "kind_text": "检查费",
    "title": "检查检验",
    "amount_fen": 3000,
    "amount": "30.00",
    "status": "returned",
    "status_text": "医院未入账·已退款",
    "receipt_no": None,
    "guide_text": None,
    "return_reason": {"code": "BILL_CANCELLED", "text": "账单已被取消", "his_text": "处方已作废"},
}
EXAMPLES: Mapping[str, Json] = {
    "Asking": {
        "status": "asking",
        "message": "正在向医院查询…",
        "retry_after_seconds": 2,
        "ticket": "6f1c0a9e2b7d4c58",
    },
    "Session": {"token": "z1.AZmj8FwA….b0Jx…", "expires_at": "2026-05-06T22:00:00+08:00"},
    "Patient": {"patient_id": _PATIENT, "masked_name": "王*兰"},
    "Patients": {"patients": [{"patient_id": _PATIENT, "masked_name": "王*兰"}]},
    "BoundPayers": {
        "payers": [
            {
                "binding_id": "0199a3f0-5c00-7ccc-8ddd-123456789abc",
                "is_you": True,
                "platform": "wechat_miniprogram",
                "platform_text": "微信小程序",
                "bound_on": "2026-05-06",
            }
        ]
    },
    "Bills": {"bills": [_BILL_EXAMPLE], "count": 1, "merge": {"allowed": True, "max": 20}},
    "BillDetail": {
        **_BILL_EXAMPLE,
        "items": [
            {
                "name": "阿莫西林胶囊",
                "specification": "0.25g×24粒",
                "quantity": "1",
                "unit": "盒",
                "amount_fen": 8650,
                "amount": "86.50",
            }
        ],
    },
    "Methods": {
        "methods": [
            {
                "code": "wechatpay/miniprogram/wechat",
                "channel": "wechatpay",
                "instrument": "miniprogram",
                "wallet": "wechat",
                "title": "微信支付",
                "favourite": True,
            }
        ]
    },
    "Started": {
        "order_no": _ORDER,
        "amount_fen": 8650,
        "amount": "86.50",
        "expires_at": "2026-05-06T10:05:00+08:00",
        "pay": {
            "kind": "miniprogram",
            "values": {
                "timeStamp": "1778032800",
                "nonceStr": "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
                "package": "prepay_id=wx06100000000000",
                "signType": "RSA",
                "paySign": "oR9d8…",
            },
        },
    },
    "Payment": {
        "order_no": _ORDER,
        "patient_id": _PATIENT,
        "method": "wechatpay/miniprogram/wechat",
        "status": "part_returned",
        "status_text": "部分已缴费·部分已退款",
        "amount_fen": 11650,
        "amount": "116.50",
        "paid_fen": 11650,
        "paid": "116.50",
        "returning_fen": 0,
        "returning": "0.00",
        "refunded_fen": 3000,
        "refunded": "30.00",
        "paid_out_fen": 0,
        "paid_out": "0.00",
        "created_at": "2026-05-06T10:00:00+08:00",
        "expires_at": "2026-05-06T10:05:00+08:00",
        "paid_at": "2026-05-06T10:01:00+08:00",
        "lines": [_LINE_EXAMPLE, _RETURNED_LINE_EXAMPLE],
    },
    "PaidList": {
        "paid": [
            {
                "source": "zhenfu",
                "order_no": _ORDER,
                "branch": "",
                "bill_id": "CF2026050600012345",
                "title": "西药处方",
                "kind_text": "西药费",
                "amount_fen": 8650,
                "amount": "86.50",
                "paid_at": "2026-05-06T10:01:00+08:00",
                "paid_at_text": "2026年5月6日 10:01",
                "status": "confirming",
                "status_text": "医院确认中（请勿重复支付）",
                "receipt_no": None,
                "guide_text": None,
                "receipt_url": None,
                "ebill_url": None,
                "paid_by": "mobile",
                "return_reason": None,
            }
        ],
        "count": 1,
        "hospital_part": "complete",
        "hospital_text": None,
        "ticket": None,
    },
    "Counts": {"to_pay": 2, "paid": 5, "hospital_part": "complete", "hospital_text": None, "ticket": None},
    "Paper": {
        "token": "Zk3xQ0v9sJ2mT7bW1cY5dA",
        "stage": "factor",
        "hospital": "仁和医院",
        "masked_name": "王*兰",
        "issued_on": "2026-05-06",
        "consent_version": "1",
        "asks_phone": True,
        "asks_document": True,
        "order_no": None,
        "patient_id": None,
        "bill": None,
        "others": [],
    },
    "Consents": {
        "version": "1",
        "consents": [
            {"kind": "personal", "version": "1", "way": "miniprogram", "given_at": "2026-05-06T10:00:00+08:00"}
        ],
    },
    "OpenPaper": {"url": "https://pay.hospital.example/p/Zk3xQ0v9sJ2mT7bW1cY5dA"},
    "FactorBody": {"factor": "0001"},
    "GiveConsent": {"kind": "personal", "version": "1"},
    "Health": {"status": "ok"},
    "SignIn": {"institution": "renhe", "app_id": "wx0123456789abcdef", "code": "0e3Xyz"},
    "BindPatient": {
        "name": "王秀兰",
        "identifier": {"type": "id_card", "value": "999901194803120170"},
        "phone_code": "9f2b",
        "consent": {"version": "2026-05", "agreed": True},
    },
    "StartPaymentBody": {
        "patient_id": _PATIENT,
        "bills": [{"branch": "", "bill_id": "CF2026050600012345"}],
        "shown_fen": 8650,
        "method": "wechatpay/miniprogram/wechat",
    },
}
"""One for each schema that is sent or answered."""

ERROR_VALUES: Mapping[str, Mapping[str, str | int]] = {
    "invalid_request": {"field": "shown_fen", "problem": "is missing"},
    "binding_refused": {"reason": "phone_differs"},
    "factor_wrong": {"left": 4},
    "factor_locked": {"minutes": 15},
    "phone_code_refused": {"reason": "wrong"},
    "bill_not_payable": {"reason": "expired"},
    "amount_changed": {"shown_fen": 8650, "amount_fen": 9650},
    "payment_open_elsewhere": {"until": "10:06"},
    "already_paid": {"order_no": _ORDER},
    "still_working": {"retry_after_seconds": 2},
    "too_many_requests": {"retry_after_seconds": 60},
    "hospital_unavailable": {"retry_after_seconds": 30},
    "channel_unavailable": {"retry_after_seconds": 30},
    "platform_unavailable": {"retry_after_seconds": 5},
}
"""What stands beside code and message, by code."""


def error_example(code: str) -> Json:
    values = dict(ERROR_VALUES.get(code, {}))
    sentence = ERRORS.get(f"{code}.{values.get('reason', '')}") or ERRORS[code]
    shown = {**values, "shown": "86.50", "amount": "96.50"}
    message = sentence["zh"].format_map({name: str(value) for name, value in shown.items()})
    return {"error": {**values, "code": code, "message": message, "request_id": "3f9c0a1b2d4e5f60"}}
