"""What staff see, as JSON, in their language: the domain's records and the words for kinds of cases. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from admin.rendering import Json, rendered
from core.case_work import CaseFile, CaseView
from core.models import Refund
from core.money import Fen
from core.paging import Page
from core.staff_texts import case_text


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundBrief:
    """A refund that staff ask for or decide."""

    refund_no: str
    status: str
    amount_fen: Fen
    reason: str
    created_at: datetime
    decided_at: datetime | None


def refund_brief(refund: Refund) -> RefundBrief:
    return RefundBrief(
        refund_no=refund.refund_no,
        status=refund.status.value,
        amount_fen=refund.amount_fen,
        reason=refund.reason,
        created_at=refund.created_at,
        decided_at=refund.decided_at,
    )


def case(view: CaseView, language: str) -> Json:
    title, to_do = case_text(view.kind, language)
    return {**rendered(view), "title": title, "what_to_do": to_do}


def case_file(shown: CaseFile, language: str) -> Json:
    return {
        **rendered(shown),
        "case": case(shown.case, language),
        "earlier": [case(view, language) for view in shown.earlier],
    }


def counts(found: Mapping[str, int], language: str) -> Json:
    return {
        "counts": [
            {"kind": kind, "title": case_text(kind, language)[0], "count": count} for kind, count in found.items()
        ]
    }


def page(name: str, found: Page[Any], items: list[Any]) -> Json:
    """A page of a list; `next` is what the next request says to go on, null at the end."""
    return {name: items, "next": str(found.next) if found.next else None}
