"""The staff's work list: what no rule settles, oldest first, with all that is known and what may be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tortoise.expressions import Q

from core.actors import Actor, Role
from core.audit import Audit, AuditView
from core.case_actions import CaseActions
from core.case_kinds import ROLE_OF, CaseAction, actions_of
from core.decisions import Decisions, DecisionView
from core.errors import NotFound
from core.models import Payment, Staff, StaffCase
from core.outside import Outside
from core.paging import Page, Place, page_of
from core.payment_files import PaymentFile, PaymentFiles, shown_facts
from core.states import CaseStatus
from core.tenancy import scoped
from core.transactions import rows

AUDIT_MAX = 100
EARLIER_MAX = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseView:
    """A case in a list. `subject` is the number that it is about; `order_no` is empty where there is no payment."""

    case_id: UUID
    kind: str
    subject: str
    order_no: str
    details: Mapping[str, Any]
    status: str
    opened_at: datetime
    closed_at: datetime | None
    closed_reason: str
    closed_by: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFile:
    """A case with everything known. `actions` are those that this member of staff may take now."""

    case: CaseView
    actions: Sequence[CaseAction]
    payment: PaymentFile | None
    earlier: Sequence[CaseView]
    decisions: Sequence[DecisionView]
    audit: Sequence[AuditView]


@dataclass(frozen=True, slots=True)
class CaseWork:
    outside: Outside
    files: PaymentFiles
    decisions: Decisions
    actions: CaseActions
    audit: Audit

    async def counts(self, actor: Actor) -> dict[str, int]:
        """How many cases of each kind are open. Raises NotAllowed."""
        actor.require(Role.LOOK)
        found = await rows(
            "SELECT kind, count(*) AS count FROM staff_case WHERE institution_id = $1 AND status = 'open'"
            " GROUP BY kind ORDER BY kind",
            actor.institution_id,
        )
        return {row["kind"]: int(row["count"]) for row in found}

    async def list(self, actor: Actor, *, kind: str = "", after: Place | None = None, limit: int) -> Page[CaseView]:
        """Open cases, the oldest first. Raises NotAllowed."""
        actor.require(Role.LOOK)
        wanted = scoped(actor.institution_id).of(StaffCase).filter(status=CaseStatus.OPEN)
        if kind:
            wanted = wanted.filter(kind=kind)
        if after is not None:
            # The first condition is where the index begins, the second one goes on among rows of one moment.
            wanted = wanted.filter(Q(opened_at__gt=after.at) | Q(id__gt=after.id), opened_at__gte=after.at)
        found = await wanted.order_by("opened_at", "id").limit(limit + 1)
        return page_of(await self._views(actor, found), limit, lambda view: Place(view.opened_at, view.case_id))

    async def show(self, actor: Actor, case_id: UUID) -> CaseFile:
        """Raises NotAllowed, NotFound."""
        actor.require(Role.LOOK)
        scope = scoped(actor.institution_id)
        case = await scope.get_or_none(StaffCase, id=case_id)
        if case is None:
            raise NotFound()
        payment, same = None, scope.of(StaffCase).filter(subject=case.subject, kind=case.kind)
        if case.payment_id is not None:
            payment = await scope.get(Payment, id=case.payment_id)
            same = scope.of(StaffCase).filter(payment_id=case.payment_id)
        earlier = await same.exclude(id=case.id).order_by("-opened_at").limit(EARLIER_MAX)
        subjects = {str(case.id), case.subject, payment.order_no if payment else case.subject}
        return CaseFile(
            case=(await self._views(actor, [case]))[0],
            actions=self._allowed(actor, case),
            payment=await self.files.of(payment) if payment else None,
            earlier=await self._views(actor, earlier),
            decisions=await self.decisions.of_payment(actor, payment.id) if payment else [],
            audit=await self.audit.about(actor, sorted(subjects), limit=AUDIT_MAX),
        )

    async def ask_now(self, actor: Actor, case_id: UUID) -> None:
        """Ask channel and HIS at once about everything of the case that is open; what is silent is asked again later.

        Raises NotAllowed, NotFound or ActionNotPossible.
        """
        await self.actions.ask_now(actor, case_id)

    async def resume(self, actor: Actor, case_id: UUID) -> None:
        """A refund that waits for a person goes on. Raises NotAllowed, NotFound or ActionNotPossible."""
        await self.actions.resume(actor, case_id)

    async def close(self, actor: Actor, case_id: UUID, reason: str) -> None:
        """Raises NotAllowed, NotFound, InvalidRequest, or ActionNotPossible while money of it is open."""
        await self.actions.close(actor, case_id, reason)

    def _allowed(self, actor: Actor, case: StaffCase) -> Sequence[CaseAction]:
        if case.status is not CaseStatus.OPEN:
            return []
        return [action for action in actions_of(case.kind) if ROLE_OF[action] in actor.roles]

    async def _views(self, actor: Actor, cases: Sequence[StaffCase]) -> Sequence[CaseView]:
        scope = scoped(actor.institution_id)
        payments = {case.payment_id for case in cases if case.payment_id}
        people = {case.closed_by for case in cases if case.closed_by}
        orders: dict[UUID, str] = {}
        codes: dict[UUID, str] = {}
        if payments:
            found = await scope.of(Payment).filter(id__in=list(payments)).only("id", "order_no")
            orders = {payment.id: payment.order_no for payment in found}
        if people:
            staff = await scope.of(Staff).filter(id__in=list(people)).only("id", "code")
            codes = {person.id: person.code for person in staff}
        return [_view(case, orders, codes) for case in cases]


def _view(case: StaffCase, orders: Mapping[UUID, str], codes: Mapping[UUID, str]) -> CaseView:
    return CaseView(
        case_id=case.id,
        kind=case.kind,
        subject=case.subject,
        order_no=orders.get(case.payment_id, "") if case.payment_id else "",
        details=shown_facts(case.details),
        status=case.status.value,
        opened_at=case.opened_at,
        closed_at=case.closed_at,
        closed_reason=case.closed_reason,
        closed_by=codes.get(case.closed_by, "") if case.closed_by else "",
        note=case.note,
    )
