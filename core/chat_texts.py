"""What the chat says, in Chinese and English. Pure.

A chat is read over shoulders: neutral titles, masked names, no department, no drug. Links are anchors, which
chat platforms show as words to tap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote
from uuid import UUID

from core.money import Fen, yuan_text
from core.texts import BILL_TITLE, STATUS_TEXTS, time_text

BILLS_SHOWN_MAX = 6
"""A text message of WeChat holds 2,048 bytes; more bills are behind the link to all."""


class ChatQuestion(StrEnum):
    """What somebody wants to know."""

    OWED = "owed"
    PAID = "paid"
    PATIENTS = "patients"


@dataclass(frozen=True, slots=True)
class ChatLinks:
    """Addresses of the pages of one institution."""

    base: str

    def bills(self) -> str:
        return f"{self.base}/"

    def bill(self, patient_id: UUID, branch: str, his_bill_id: str) -> str:
        return f"{self.base}/bills/{patient_id}/{quote(branch, safe='') or '-'}/{quote(his_bill_id, safe='')}"

    def together(self, patient_id: UUID) -> str:
        """All bills of this patient that may be paid in one payment."""
        return f"{self.base}/together/{patient_id}?all=1"

    def paid(self) -> str:
        return f"{self.base}/paid"

    def patients(self) -> str:
        return f"{self.base}/patients"

    def bind(self) -> str:
        return f"{self.base}/bind"

    def scan(self) -> str:
        return f"{self.base}/scan"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwedBill:
    """An unpaid bill as the chat names it."""

    masked_name: str
    amount_fen: Fen
    url: str
    payable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class OwedTogether:
    """Several bills of one patient that may be paid in one payment."""

    masked_name: str
    count: int
    amount_fen: Fen
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidPayment:
    """A payment that took money; `status` is a key of STATUS_TEXTS."""

    amount_fen: Fen
    refunded_fen: Fen
    at: datetime
    status: str


CHAT: Mapping[str, Mapping[str, str]] = {
    "nothing_owed": {
        "zh": "医院回复：目前没有待缴费账单。",
        "en": "The hospital says that there is nothing to pay now.",
    },
    "owed": {
        "zh": "您有{count}张待缴费账单，共¥{amount}：",
        "en": "{count} to pay, ¥{amount} in all:",
    },
    "more_owed": {"zh": "还有{count}张，请点“全部”查看。", "en": "{count} more: tap All."},
    "pay": {"zh": "去缴费", "en": "Pay"},
    "together": {"zh": "{name} {count}张可一起缴 ¥{amount}", "en": "{name}: {count} bills at once, ¥{amount}"},
    "pay_together": {"zh": "一起缴费", "en": "Pay them all"},
    "at_window": {"zh": "请到窗口", "en": "at the window"},
    "some_silent": {
        "zh": "有就诊人的账单暂时查不到，不是没有账单。请几分钟后再发“缴费”。",
        "en": "For some patients the hospital's system is not answering; ask again in a few minutes.",
    },
    "look": {"zh": "查看", "en": "View"},
    "all": {"zh": "全部查看和缴费", "en": "All bills"},
    "all_paid": {"zh": "全部缴费记录", "en": "All payments"},
    "nothing_paid": {"zh": "您还没有在手机上缴过费。", "en": "You have paid nothing by phone yet."},
    "paid": {"zh": "您最近的缴费：", "en": "Your latest payments:"},
    "refunded": {"zh": "，已退¥{amount}", "en": ", ¥{amount} refunded"},
    "not_bound": {"zh": "您还没有绑定就诊人。", "en": "You have not linked a patient yet."},
    "bind": {"zh": "绑定就诊人", "en": "Link a patient"},
    "bound": {"zh": "您绑定的就诊人：", "en": "Patients linked to you:"},
    "unbind": {"zh": "绑定或解绑", "en": "Link or remove"},
    "scan": {"zh": "扫处方上的码缴费", "en": "Scan the code on a prescription"},
    "hospital_silent": {
        "zh": "医院系统暂时没有回应，不是没有账单。请几分钟后再发“缴费”，或到收费窗口办理。",
        "en": "The hospital's system is not answering; that does not mean that there is nothing to pay."
        " Please ask again in a few minutes, or go to the window.",
    },
    "asking": {
        "zh": "正在向医院查询，查到后马上告诉您。",
        "en": "Asking the hospital; you will be told as soon as it answers.",
    },
    "crowded": {
        "zh": "现在咨询的人很多，请点这里查看和缴费：",
        "en": "Many people are asking just now. Please look and pay here:",
    },
    "asking_link": {
        "zh": "正在向医院查询，请点这里查看：",
        "en": "Asking the hospital. Please look here:",
    },
    "welcome": {"zh": "欢迎关注{hospital}。", "en": "Welcome to {hospital}."},
    "choices": {
        "zh": "您可以回复：\n“缴费”：查看待缴费账单\n“查询”：查看缴费和退款记录\n“人工”：医院电话",
        "en": 'You can reply:\n"pay": what is to be paid\n"paid": payments and refunds\n"help": the hospital\'s phone',
    },
    "photo": {
        "zh": "照片看不清处方内容。请点下面的链接，扫处方上的二维码或条形码。",
        "en": "A photo cannot be read here. Please tap the link and scan the code on the prescription.",
    },
    "voice_unclear": {
        "zh": "没有听清。请再说一遍“缴费”，或直接打字。",
        "en": "We could not hear that. Please say it again, or type.",
    },
    "staff": {
        "zh": "{hospital}电话：{phone}。也可以到收费窗口咨询。",
        "en": "{hospital}: {phone}. You can also ask at the cashier window.",
    },
    "staff_no_phone": {
        "zh": "请到{hospital}收费窗口咨询。",
        "en": "Please ask at a cashier window of {hospital}.",
    },
    "paper": {
        "zh": "请点这里查看这张处方：",
        "en": "Please look at this prescription here:",
    },
}

MENU_NAMES: Mapping[str, str] = {
    "pay": "缴费",
    "paid": "查询",
    "more": "更多",
    "bind": "绑定就诊人",
    "scan": "扫处方",
    "staff": "人工",
}
"""Names in an account's menu, which has one language."""


def chat_text(key: str, language: str, **values: str | int) -> str:
    return CHAT[key][language if language in CHAT[key] else "zh"].format(**values)


def fit_lines(text: str, bytes_max: int) -> str:
    """As many whole lines as fit into so many bytes of UTF-8, the last one among them: it leads to all the rest.

    Half a link would be shown as it is written.
    """
    *lines, last = text.split("\n")
    while lines and len("\n".join([*lines, last]).encode()) > bytes_max:
        del lines[-1]
    return "\n".join([*lines, last]).encode()[:bytes_max].decode("utf-8", "ignore")


def link(url: str, key: str, language: str) -> str:
    return f'<a href="{url}">{chat_text(key, language)}</a>'


def owed_text(
    bills: Sequence[OwedBill],
    links: ChatLinks,
    language: str,
    *,
    together: Sequence[OwedTogether] = (),
    some_silent: bool = False,
) -> str:
    """Each bill with its link, one for those that go `together`, and one for all.

    `some_silent`: these are not all, and some were not told.
    """
    if not bills:
        lines = [chat_text("nothing_owed", language)]
    else:
        total = Fen(sum(bill.amount_fen for bill in bills))
        lines = [chat_text("owed", language, count=len(bills), amount=yuan_text(total))]
        for number, bill in enumerate(bills[:BILLS_SHOWN_MAX], start=1):
            tap = link(bill.url, "pay" if bill.payable else "look", language)
            if not bill.payable:
                tap = f"{chat_text('at_window', language)} {tap}"
            lines.append(f"{number}. {BILL_TITLE[language]} {bill.masked_name} ¥{yuan_text(bill.amount_fen)} {tap}")
        if len(bills) > BILLS_SHOWN_MAX:
            lines.append(chat_text("more_owed", language, count=len(bills) - BILLS_SHOWN_MAX))
    lines[1:1] = [_together_line(each, language) for each in together]
    if some_silent:
        lines.append(chat_text("some_silent", language))
    return "\n".join([*lines, link(links.bills(), "all", language)])


def _together_line(owed: OwedTogether, language: str) -> str:
    amount = yuan_text(owed.amount_fen)
    says = chat_text("together", language, name=owed.masked_name, count=owed.count, amount=amount)
    return f"{says} {link(owed.url, 'pay_together', language)}"


def paid_text(payments: Sequence[PaidPayment], links: ChatLinks, language: str) -> str:
    if not payments:
        lines = [chat_text("nothing_paid", language)]
    else:
        lines = [chat_text("paid", language)]
        for payment in payments:
            line = f"{time_text(payment.at, language)} ¥{yuan_text(payment.amount_fen)}"
            line += f" {STATUS_TEXTS[payment.status][language]}"
            if payment.refunded_fen:
                line += chat_text("refunded", language, amount=yuan_text(payment.refunded_fen))
            lines.append(line)
    return "\n".join([*lines, link(links.paid(), "all_paid", language)])


def patients_text(masked_names: Sequence[str], links: ChatLinks, language: str) -> str:
    if not masked_names:
        return not_bound_text(links, language)
    names = "、".join(masked_names) if language == "zh" else ", ".join(masked_names)
    return f"{chat_text('bound', language)}{names}\n{link(links.patients(), 'unbind', language)}"


def not_bound_text(links: ChatLinks, language: str) -> str:
    return "\n".join(
        (
            chat_text("not_bound", language),
            link(links.bind(), "bind", language),
            link(links.scan(), "scan", language),
        )
    )


def hospital_silent_text(links: ChatLinks, language: str) -> str:
    return f"{chat_text('hospital_silent', language)}\n{link(links.bills(), 'all', language)}"
