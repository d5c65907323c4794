"""Every sentence a patient can read, in Chinese and English. Pure.

An error sentence answers: was I charged, what happens by itself, by when, and where to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from core.clock import shanghai
from core.errors import RequestError
from core.money import Fen, yuan_text

LANGUAGES = ("zh", "en")


def language_of(accept_language: str) -> str:
    """The language to answer in: Chinese unless the phone prefers English."""
    first = accept_language.split(",")[0].strip().lower()
    return "en" if first.startswith("en") else "zh"


ERRORS: Mapping[str, Mapping[str, str]] = {
    "request_error": {
        "zh": "请求没有完成，没有扣款。请稍后再试，或到收费窗口办理。",
        "en": "The request was not completed and you were not charged. Please try again or go to the cashier window.",
    },
    "invalid_request": {
        "zh": "提交的内容有误（{field}：{problem}），没有扣款。请改正后再试。",
        "en": "Something in the request is not right ({field}: {problem}). You were not charged. Please correct it.",
    },
    "not_signed_in": {
        "zh": "登录已失效，没有扣款。请重新打开。",
        "en": "You are signed out; you were not charged. Please open it again.",
    },
    "not_found": {
        "zh": "没有找到这条记录，本次没有扣款。请返回列表刷新，或到收费窗口查询。",
        "en": "We could not find this; you were not charged by this request. Please go back and refresh the list,"
        " or ask at the cashier window.",
    },
    "not_found.paper": {
        "zh": "没有找到这张处方，没有扣款。请核对号码或重新扫码；仍不行请到收费窗口办理。",
        "en": "We could not find this prescription; you were not charged. Please check the number or scan it again,"
        " or go to the cashier window.",
    },
    "factor_wrong": {
        "zh": "与医院登记的不一致，没有扣款。还可以再试{left}次；不清楚请到收费窗口办理。",
        "en": "This is not what the hospital holds; you were not charged. Tries left: {left}."
        " If you are not sure, please go to the cashier window.",
    },
    "factor_locked": {
        "zh": "输错次数太多，没有扣款。请到窗口缴费，或{minutes}分钟后再试。",
        "en": "Too many wrong tries; you were not charged. Please pay at the window, or try again in {minutes}"
        " minutes.",
    },
    "phone_code_refused": {
        "zh": "手机号没有验证成功，没有扣款。请重新获取验证码，或到窗口办理。",
        "en": "The phone could not be verified; you were not charged. Please ask for a new code, or go to the window.",
    },
    "phone_code_refused.wrong": {
        "zh": "验证码不正确，没有扣款。请核对短信后再填。",
        "en": "The code is not right; you were not charged. Please check the text message.",
    },
    "phone_code_refused.lapsed": {
        "zh": "验证码已失效，没有扣款。请重新获取验证码。",
        "en": "The code has lapsed; you were not charged. Please ask for a new one.",
    },
    "phone_code_refused.too_soon": {
        "zh": "验证码刚刚发出，没有扣款。请一分钟后再获取。",
        "en": "A code was sent just now; you were not charged. Please wait a minute before asking again.",
    },
    "phone_code_refused.too_many": {
        "zh": "今天获取验证码的次数太多，没有扣款。请明天再试，或到窗口办理。",
        "en": "Too many codes today; you were not charged. Please try tomorrow, or go to the window.",
    },
    "phone_code_refused.no_sms": {
        "zh": "医院没有开通短信，没有扣款。请在小程序里绑定，或到窗口办理。",
        "en": "The hospital sends no text messages; you were not charged. Please use the mini program or the window.",
    },
    "patient_not_bound": {
        "zh": "您还没有绑定这位就诊人，不能查看或支付。没有扣款。请先绑定就诊人。",
        "en": "This patient is not linked to you, so you cannot pay. You were not charged. Link the patient first.",
    },
    "consent_needed": {
        "zh": "需要您先阅读并同意隐私说明，才能绑定就诊人。没有扣款。",
        "en": "Please read and agree to the privacy notice before linking a patient. You were not charged.",
    },
    "binding_refused.phone_code": {
        "zh": "手机号授权已失效，没有扣款。请重新点击“授权手机号”再试。",
        "en": "The permission to read your phone number has lapsed; you were not charged."
        " Please tap the phone button again.",
    },
    "binding_refused.not_found": {
        "zh": "医院没有查到与您填写的姓名和证件一致的就诊人，没有扣款。请核对后再试，或到窗口建档。",
        "en": "The hospital has no patient with this name and document; you were not charged."
        " Please check them, or register at the window.",
    },
    "binding_refused.phone_differs": {
        "zh": "您的手机号与医院登记的不一致，为保护隐私不能绑定，没有扣款。请到窗口更新手机号后再试。",
        "en": "Your phone number is not the one the hospital holds, so we cannot link this patient."
        " You were not charged. Please have it updated at the window, then try again.",
    },
    "binding_refused.too_many": {
        "zh": "一个微信号最多绑定5位就诊人，没有扣款。请先解绑一位再试。",
        "en": "At most 5 patients can be linked to one account; you were not charged. Please remove one first.",
    },
    "binding_refused.already_bound": {
        "zh": "这位就诊人已经绑定，无需重复操作，没有扣款。",
        "en": "This patient is already linked; you were not charged.",
    },
    "bill_not_payable.paid": {
        "zh": "这张账单已经缴过费，没有再次扣款。请在“已缴费”里查看。",
        "en": "This bill has already been paid; you were not charged again. See the Paid list.",
    },
    "bill_not_payable.expired": {
        "zh": "这张账单已过缴费期限，没有扣款。请联系医生重新开单，或到收费窗口咨询。",
        "en": "This bill has lapsed; you were not charged. Ask your doctor for a new one or go to the window.",
    },
    "bill_not_payable.cancelled": {
        "zh": "这张账单已被医院取消，没有扣款。如有疑问请询问医生。",
        "en": "The hospital has cancelled this bill; you were not charged. Please ask your doctor.",
    },
    "bill_not_payable.insured": {
        "zh": "手机支付按自费结算，医保请到窗口。没有扣款。",
        "en": "Paying by phone is self-paid; to use your insurance please go to the window. You were not charged.",
    },
    "bill_not_payable.window_only": {
        "zh": "这张账单只能在收费窗口缴费，没有扣款。{his_text}",
        "en": "This bill can only be paid at the cashier window; you were not charged. {his_text}",
    },
    "bill_not_payable.too_large": {
        "zh": "金额超过手机支付限额，没有扣款。请到收费窗口办理。",
        "en": "The amount is above the limit for phone payment; you were not charged. Please go to the cashier window.",
    },
    "bill_not_payable.not_together": {
        "zh": "这些账单不能合并支付，没有扣款。请逐张支付。",
        "en": "These bills cannot be paid together; you were not charged. Please pay them one by one.",
    },
    "bill_not_payable.too_many": {
        "zh": "一次最多合并支付{max}张账单，没有扣款。请分几次支付。",
        "en": "At most {max} bills can be paid at once; you were not charged. Please pay them in parts.",
    },
    "bill_not_payable.branches": {
        "zh": "不同院区的账单不能合并支付，没有扣款。请按院区分开支付。",
        "en": "Bills of different branches cannot be paid together; you were not charged."
        " Please pay each branch separately.",
    },
    "bill_not_payable.busy": {
        "zh": "这张账单正在别处办理缴费，没有扣款。请一分钟后再试；若已在窗口缴费则无需再付。",
        "en": "This bill is being paid elsewhere right now; you were not charged. Try again in a minute.",
    },
    "bill_not_payable.refused": {
        "zh": "医院不接受这张账单在手机上缴费，没有扣款。请到收费窗口办理。{his_text}",
        "en": "The hospital does not accept payment of this bill here; you were not charged."
        " Please go to the cashier window. {his_text}",
    },
    "amount_changed": {
        "zh": "账单金额已由{shown}元变为{amount}元，没有扣款。请核对新金额后再支付。",
        "en": "The amount has changed from ¥{shown} to ¥{amount}; you were not charged. Please check it and pay again.",
    },
    "payment_open_elsewhere": {
        "zh": "这张账单有一笔支付正在进行，结果还没确定。最迟{until}会有结果；您也可以继续支付，"
        "万一重复扣款，多收的钱会自动原路退回。",
        "en": "Another payment for this bill is still open. Its result will be known by {until}. You may also go on:"
        " should both succeed, the second amount is returned automatically.",
    },
    "already_paid": {
        "zh": "这张账单已经支付，请勿重复支付。请在“已缴费”里查看结果。",
        "en": "This bill has been paid; please do not pay again. See the Paid list.",
    },
    "method_not_available": {
        "zh": "医院没有开通这种支付方式，没有扣款。请换一种方式，或到收费窗口办理。",
        "en": "The hospital does not offer this way of paying; you were not charged. Choose another or"
        " go to the window.",
    },
    "idempotency_conflict": {
        "zh": "请求编号重复，没有再次扣款。请返回重新发起支付。",
        "en": "This request number was used for something else; you were not charged again. Please start again.",
    },
    "still_working": {
        "zh": "您的点击还在处理中，没有重复扣款。请稍等几秒，页面会自动继续。",
        "en": "Your tap is still being worked on; you are not charged twice. Please wait a few seconds: the page"
        " goes on by itself.",
    },
    "too_many_requests": {
        "zh": "操作太频繁，没有扣款。请{retry_after_seconds}秒后再试。",
        "en": "Too many requests; you were not charged. Please try again in {retry_after_seconds} seconds.",
    },
    "hospital_unavailable": {
        "zh": "医院系统暂时没有回应，没有扣款。请几分钟后再试；着急请到收费窗口办理。",
        "en": "The hospital's system is not answering; you were not charged. Try again in a few minutes"
        " or go to the window.",
    },
    "hospital_unavailable.still_binding": {
        "zh": "医院系统回应较慢，绑定还在进行，没有扣款，内容没有丢失。请稍后查看就诊人列表；若没有出现，请再试一次。",
        "en": "The hospital's system is slow and the patient is still being linked; nothing is lost and you were not"
        " charged. Look at your list of patients in a moment, and try again if the patient is not there.",
    },
    "channel_unavailable": {
        "zh": "支付渠道暂时没有回应，没有扣款。请稍后再试，或到收费窗口办理。",
        "en": "The payment service is not answering; you were not charged. Please try again, or go to"
        " the cashier window.",
    },
    "platform_unavailable": {
        "zh": "手机平台暂时没有回应，没有扣款。请稍后重新打开小程序再试。",
        "en": "The chat app's service is not answering; you were not charged. Please open the mini program again soon.",
    },
    "method_not_allowed": {
        "zh": "这个地址不支持这种请求方式，没有扣款。",
        "en": "This address does not accept this kind of request. You were not charged.",
    },
    "internal_error": {
        "zh": "系统出错了。如已扣款，款项不会丢失：系统会自动核对，缴费成功或原路退回都会通知您。请到“已缴费”里查看。",
        "en": "Something went wrong on our side. If you were charged, nothing is lost: it is checked automatically and"
        " you will be told whether it was booked or returned. See the Paid list.",
    },
    "service_unavailable": {
        "zh": "系统暂时不能处理，请稍后再试。如已扣款，款项不会丢失：系统会自动核对，缴费成功或原路退回都会通知您。",
        "en": "This cannot be worked on right now; please try again in a moment. If you were charged, nothing is lost:"
        " it is checked automatically and you will be told whether it was booked or returned.",
    },
    "took_too_long": {
        "zh": "处理时间较长，还没有结果，没有重复扣款。请过一会儿再看；如已扣款，款项不会丢失。",
        "en": "This takes long and has no result yet; you are not charged twice. Please look again in a moment: if you"
        " were charged, nothing is lost.",
    },
    "request_timeout": {
        "zh": "您的请求没有发送完整，没有扣款。请检查网络后再试。",
        "en": "Your request did not arrive completely; you were not charged. Check your connection and try again.",
    },
    "body_too_large": {
        "zh": "提交的内容太大，没有扣款。请减少内容后再试。",
        "en": "The request is too large; you were not charged.",
    },
}


PROBLEMS_ZH: Mapping[str, str] = {
    "this is not a valid ID card number": "身份证号码不正确",
    "letters and digits only": "只能填写字母和数字",
    "1 to 64 characters are needed": "需要1到64个字",
    "1 to 128 characters are needed": "需要1到128个字符",
    "at least one bill, each once": "请选择至少一张账单，每张一次",
    "is missing": "没有填写",
    "is not a known field": "不认识这一项",
    "has the wrong form": "格式不对",
    "four letters or digits are needed": "需要4位数字或字母",
    "a mainland mobile number is needed": "需要大陆手机号",
    "this is not JSON": "内容不是JSON",
    "must be application/json": "应为application/json",
    "is malformed": "格式不对",
    "not a place in this list": "翻页位置不正确",
    "is somebody's already": "已有人使用",
    "is missing: the document must show it": "没有填写，凭证上应有这一项",
    "is no amount that can have been moved": "不是可能的金额",
    "needs its time zone": "时间要写明时区",
}
"""What is said in English where a request is checked, in the patient's words."""

FIELDS_ZH: Mapping[str, str] = {
    "name": "姓名",
    "identifier": "证件号码",
    "identifier.value": "证件号码",
    "identifier.type": "证件类型",
    "phone_code": "手机号授权",
    "phone": "手机号",
    "code": "号码",
    "factor": "后四位",
    "bills": "账单",
    "shown_fen": "金额",
    "method": "支付方式",
}


def error_text(error: RequestError, language: str) -> str:
    """The sentence for an error, most specific first: code.reason, then code."""
    reason = str(error.values.get("reason", ""))
    entry = ERRORS.get(f"{error.code}.{reason}") or ERRORS.get(error.code)
    if entry is None and reason:
        entry = ERRORS.get(f"{error.code}.refused")
    language = language if language in LANGUAGES else "zh"
    shown = _readable(error.values)
    if language == "zh" and "problem" in shown:
        shown["problem"] = PROBLEMS_ZH.get(shown["problem"], shown["problem"])
        shown["field"] = FIELDS_ZH.get(shown.get("field", ""), shown.get("field", ""))
    return (entry or ERRORS["request_error"])[language].format_map(_Values(shown)).strip()


class _Values(dict[str, str]):
    """A value that nobody gave is left out of the sentence."""

    def __missing__(self, key: str) -> str:
        return ""


def _readable(values: Mapping[str, str | int]) -> dict[str, str]:
    shown = {key: str(value) for key, value in values.items()}
    for key, value in values.items():
        if key.endswith("_fen"):
            shown[key.removesuffix("_fen")] = yuan_text(Fen(int(value)))
    return shown


BILL_TITLE = {"zh": "门诊缴费", "en": "Outpatient fee"}
"""Neutral on purpose: a lock screen is read by others too."""

STATUS_TEXTS: Mapping[str, Mapping[str, str]] = {
    "to_pay": {"zh": "待缴费", "en": "To pay"},
    "paying": {"zh": "支付中", "en": "Payment open"},
    "confirming": {
        "zh": "医院确认中（请勿重复支付）",
        "en": "The hospital is booking it (please do not pay again)",
    },
    "paid": {"zh": "已缴费", "en": "Paid"},
    "returning": {"zh": "医院未入账·退款中", "en": "Not booked by the hospital · refund under way"},
    "returned": {"zh": "医院未入账·已退款", "en": "Not booked by the hospital · refunded"},
    "part_returning": {"zh": "部分已缴费·部分退款中", "en": "Partly paid · partly being refunded"},
    "part_returned": {"zh": "部分已缴费·部分已退款", "en": "Partly paid · partly refunded"},
    "refunding": {"zh": "退费中", "en": "Refund under way"},
    "refunded": {"zh": "已退费", "en": "Refunded"},
    "checking": {"zh": "金额核对中，工作人员会处理", "en": "The amount is being checked by staff"},
    "not_paid": {"zh": "未支付", "en": "Not paid"},
}

NOT_PAYABLE_NOTES: Mapping[str, Mapping[str, str]] = {
    "insured": {
        "zh": "手机支付按自费结算，医保请到窗口",
        "en": "Paying by phone is self-paid; for insurance go to the window",
    },
    "window_only": {"zh": "请到收费窗口缴费", "en": "Please pay at the cashier window"},
    "too_large": {
        "zh": "金额超过手机支付限额，请到收费窗口",
        "en": "Above the limit for phones: please go to the window",
    },
    "expired": {"zh": "已过缴费期限，请咨询医生", "en": "No longer payable: please ask your doctor"},
    "cancelled": {"zh": "已被医院取消", "en": "Cancelled by the hospital"},
    "paid": {"zh": "已缴费", "en": "Paid"},
    "refused": {
        "zh": "医院暂不接受这张账单在手机上缴费，请到收费窗口",
        "en": "The hospital does not accept this bill by phone: please go to the window",
    },
}
"""Why a bill in the list cannot be paid here; nobody has tried to pay, so nothing is said of charges."""

RETURN_REASONS: Mapping[str, Mapping[str, str]] = {
    "BILL_PAID": {"zh": "账单已在别处缴费", "en": "the bill was paid elsewhere"},
    "paid_elsewhere": {"zh": "账单已在别处缴费", "en": "the bill was paid elsewhere"},
    "BILL_CANCELLED": {"zh": "账单已被取消", "en": "the bill was cancelled"},
    "BILL_EXPIRED": {"zh": "账单已过期", "en": "the bill had lapsed"},
    "AMOUNT_MISMATCH": {"zh": "账单金额有变", "en": "the amount had changed"},
    "wrong_amount": {"zh": "支付金额与账单不符", "en": "the amount paid is not the bill's"},
    "": {"zh": "医院没有入账", "en": "the hospital did not book it"},
}

ASKING_TEXT = {"zh": "正在向医院查询…", "en": "Asking the hospital…"}

VALID_TEXTS: Mapping[str, Mapping[str, str]] = {
    "hospital": {"zh": "医院在{until}前接受缴费", "en": "The hospital accepts payment until {until}"},
    "display_rule": {
        "zh": "一般在开单后{days}天内（{until}前）可以缴费，以医院为准",
        "en": "Usually payable within {days} days of issue (until {until}); the hospital decides",
    },
    "display_rule_undated": {
        "zh": "一般在开单后{days}天内可以缴费，以医院为准",
        "en": "Usually payable within {days} days of issue; the hospital decides",
    },
}
"""Until when a bill can be paid: the HIS's word, or the institution's rule where the HIS says nothing."""

WALLET_TEXTS: Mapping[str, Mapping[str, str]] = {
    "wechat": {"zh": "微信支付", "en": "WeChat Pay"},
    "alipay": {"zh": "支付宝", "en": "Alipay"},
    "unionpay": {"zh": "云闪付", "en": "UnionPay"},
    "card": {"zh": "银行卡", "en": "Bank card"},
    "cash": {"zh": "现金", "en": "Cash"},
}


PLATFORM_TEXTS: Mapping[str, Mapping[str, str]] = {
    "wechat_miniprogram": {"zh": "微信小程序", "en": "WeChat mini program"},
    "wechat_service": {"zh": "微信公众号", "en": "WeChat official account"},
    "sms": {"zh": "短信", "en": "Text message"},
}
"""Where a payer has bound a patient; a platform without an entry is told by its own name."""


def valid_text(valid_until: datetime | None, issued_at: datetime | None, *, rule_days: int, language: str) -> str:
    """Until when the HIS accepts payment; where it gives no date, the institution's rule, as wording only."""
    if valid_until is not None:
        return VALID_TEXTS["hospital"][language].format(until=time_text(valid_until, language))
    if rule_days < 1:
        return ""
    if issued_at is None:
        return VALID_TEXTS["display_rule_undated"][language].format(days=rule_days)
    until = time_text(issued_at + timedelta(days=rule_days), language)
    return VALID_TEXTS["display_rule"][language].format(days=rule_days, until=until)


def time_text(moment: datetime, language: str) -> str:
    """2026年3月5日 14:05 or 2026-03-05 14:05, Shanghai time."""
    local = shanghai(moment)
    if language == "en":
        return f"{local:%Y-%m-%d %H:%M}"
    return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"


REFUND_REASONS = {
    "automatic": "医院未入账，原路退款",
    "staff": "医院退费，原路退款",
    "hospital": "医院退费，原路退款",
}
"""Shown by the payer's wallet beside a refund, by its origin; channels take one language."""

LABEL_TEXTS: dict[str, dict[str, str]] = {
    "title": {"zh": "门诊缴费", "en": "Outpatient fees"},
    "scan": {"zh": "微信扫码缴费", "en": "Scan in WeChat to pay"},
}
"""On the label that is stuck to a paper prescription."""
