"""What takes two: one person proposes with a document, another one approves or declines. Once, whoever is first."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.actors import Actor, Role
from core.attesting import Attesting
from core.audit import Audit
from core.decision_kinds import ATTESTED, BOOKING, CAPPED, DISPUTE, REFUND, REVERSAL, DecisionKind, Proposal
from core.errors import (
    ActionNotPossible,
    AlreadyDecided,
    IdempotencyConflict,
    NeedsAnother,
    NotFound,
)
from core.followup import FollowUp
from core.his_attesting import HisAttesting
from core.models import Confirmation, Decision, Payment, Refund, Staff, StaffCase
from core.outside import Outside
from core.paging import Page, Place, page_of
from core.staff_refunds import HOSPITAL, StaffRefunds
from core.states import DecisionStatus, RefundStatus
from core.tenancy import scoped
from core.transactions import atomically, violated
from core.wrong_amount import WrongAmount

_PLACE = "decision.document"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionView:
    """A proposal and what became of it. The document itself is read apart, and that is written down."""

    decision_id: UUID
    kind: str
    status: str
    order_no: str
    number: str
    reason: str
    amount_fen: int | None
    their_number: str
    at: str | None
    document_digest: str
    proposed_by: str
    proposed_at: datetime
    decided_by: str
    decided_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Matter:
    """The rows that a proposal is about."""

    payment: Payment
    confirmation: Confirmation | None = None
    refund: Refund | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    outside: Outside
    attesting: Attesting
    his_attesting: HisAttesting
    amounts: WrongAmount
    staff_refunds: StaffRefunds
    follow_up: FollowUp
    audit: Audit

    # ------------------------------------------------------------ one proposes

    async def propose(self, actor: Actor, proposal: Proposal, *, key: str, case_id: UUID | None = None) -> DecisionView:
        """The same `key` with the same proposal is one proposal.

        Raises NotAllowed, NotFound, AlreadyDecided, IdempotencyConflict, or ActionNotPossible.
        """
        actor.require(Role.ATTEST)
        decision_id = uuid.uuid5(actor.staff_id, f"decision {key}")
        before = await scoped(actor.institution_id).get_or_none(Decision, id=decision_id)
        if before is not None:
            return await self._same(actor, before, proposal)
        try:
            await atomically(lambda: self._propose(actor, proposal, decision_id, case_id))
        except IntegrityError as error:
            if violated(error) == "decision_open_once":
                raise ActionNotPossible(reason="proposed_already") from error
            stored = await scoped(actor.institution_id).get_or_none(Decision, id=decision_id)
            if stored is None:
                raise
            return await self._same(actor, stored, proposal)  # the same key came twice at once
        return await self._shown(actor, decision_id)

    async def _same(self, actor: Actor, stored: Decision, proposal: Proposal) -> DecisionView:
        if self._proposal(stored).digest != proposal.digest:
            raise IdempotencyConflict()
        return await self._shown(actor, stored.id)

    async def _propose(self, actor: Actor, proposal: Proposal, decision_id: UUID, case_id: UUID | None) -> None:
        matter = await self._matter(actor, proposal.kind, proposal.number, locked=False)
        if case_id is not None:
            case = await scoped(actor.institution_id).get_or_none(StaffCase, id=case_id)
            if case is None or case.payment_id != matter.payment.id:
                raise NotFound()
        await self._check(proposal, matter)
        await Decision.create(
            id=decision_id,
            institution_id=actor.institution_id,
            kind=proposal.kind.value,
            payment_id=matter.payment.id,
            confirmation_id=matter.confirmation.id if matter.confirmation else None,
            refund_id=matter.refund.id if matter.refund else None,
            case_id=case_id,
            proposal=proposal.stored(),
            document_enc=self.outside.keyring.encrypt(proposal.document, place=_PLACE),
            document_digest=proposal.document_digest,
            proposed_by=actor.staff_id,
            proposed_at=self.outside.clock.now(),
        )
        await self._write(actor, "decision_proposed", matter, proposal, decision_id)

    # ------------------------------------------------------------ another one decides

    async def approve(self, actor: Actor, decision_id: UUID) -> DecisionView:
        """What was proposed is done, in one transaction with the decision; a second time it is only shown.

        Raises NotAllowed, NotFound, NeedsAnother, AlreadyDecided, or ActionNotPossible for what has changed since.
        """
        actor.require(Role.ATTEST)
        payment_id = await atomically(lambda: self._approve(actor, decision_id))
        # What follows is begun at once; the worker does what is left over.
        self.outside.background.start("decision", lambda: self.follow_up.of(actor.institution_id, payment_id))
        return await self._shown(actor, decision_id)

    async def _approve(self, actor: Actor, decision_id: UUID) -> UUID:
        known = await self._row(actor, decision_id)
        matter = await self._matter(actor, DecisionKind(known.kind), known.proposal["number"], locked=True)
        (decision,) = await scoped(actor.institution_id).find(Decision, locked=True, id=decision_id)
        if not self._is_open(actor, decision, DecisionStatus.APPROVED):
            return matter.payment.id
        if decision.proposed_by == actor.staff_id:
            raise NeedsAnother()
        proposal = self._proposal(decision)
        await self._check(proposal, matter)
        decision = await self._decide(actor, decision, DecisionStatus.APPROVED)
        if proposal.kind in ATTESTED:
            await self.attesting.apply(proposal, str(decision_id), matter.payment, matter.confirmation, matter.refund)
        elif matter.confirmation is not None and proposal.kind in DISPUTE:
            await self.his_attesting.apply_dispute(proposal, str(decision_id), matter.payment, matter.confirmation)
        elif matter.refund is not None and proposal.kind in REVERSAL:
            await self.his_attesting.apply_reversal(proposal, str(decision_id), matter.payment, matter.refund)
        elif proposal.kind is DecisionKind.RETURN_NOW:
            await self.amounts.return_now(matter.payment)
        elif proposal.kind is DecisionKind.BOOK_ANYWAY:
            await self.amounts.book_anyway(matter.payment)
        elif matter.refund is not None and proposal.kind is DecisionKind.RELEASE_REFUND:
            await self.staff_refunds.release(matter.refund, decision)
        elif matter.refund is not None:
            await self.staff_refunds.keep(matter.refund, decision, text=proposal.reason)
        await self._write(actor, "decision_approved", matter, proposal, decision_id)
        return matter.payment.id

    async def decline(self, actor: Actor, decision_id: UUID) -> DecisionView:
        """Nothing is done. Whoever proposed it may take it back. Raises NotAllowed, NotFound or AlreadyDecided."""
        actor.require(Role.ATTEST)
        await atomically(lambda: self._decline(actor, decision_id))
        return await self._shown(actor, decision_id)

    async def _decline(self, actor: Actor, decision_id: UUID) -> None:
        known = await self._row(actor, decision_id)
        matter = await self._matter(actor, DecisionKind(known.kind), known.proposal["number"], locked=True)
        (decision,) = await scoped(actor.institution_id).find(Decision, locked=True, id=decision_id)
        if self._is_open(actor, decision, DecisionStatus.DECLINED):
            await self._decide(actor, decision, DecisionStatus.DECLINED)
            await self._write(actor, "decision_declined", matter, self._proposal(decision), decision_id)

    def _is_open(self, actor: Actor, decision: Decision, wanted: DecisionStatus) -> bool:
        """False for what this very person has decided just so. Raises AlreadyDecided."""
        if decision.status is DecisionStatus.PROPOSED:
            return True
        if decision.status is wanted and decision.decided_by == actor.staff_id:
            return False
        raise AlreadyDecided(status=decision.status.value)

    async def _decide(self, actor: Actor, decision: Decision, status: DecisionStatus) -> Decision:
        await scoped(actor.institution_id).change(
            Decision,
            {"id": decision.id},
            status=status,
            decided_by=actor.staff_id,
            decided_at=self.outside.clock.now(),
        )
        return await scoped(actor.institution_id).get(Decision, id=decision.id)

    # ------------------------------------------------------------ what it is about

    async def _matter(self, actor: Actor, kind: DecisionKind, number: str, *, locked: bool) -> _Matter:
        """The payment first, as everywhere; `locked` keeps all of it as it is. Raises NotFound."""
        scope = scoped(actor.institution_id)
        confirmation = await scope.get_or_none(Confirmation, confirm_no=number) if kind in BOOKING else None
        refund = await scope.get_or_none(Refund, refund_no=number) if kind in REFUND else None
        of_part = confirmation or refund
        if kind in BOOKING | REFUND and of_part is None:
            raise NotFound()
        wanted: dict[str, Any] = {"id": of_part.payment_id} if of_part else {"order_no": number}
        payments = await scope.find(Payment, locked=locked, **wanted)
        if not payments:
            raise NotFound()
        if locked and confirmation is not None:
            (confirmation,) = await scope.find(Confirmation, locked=True, id=confirmation.id)
        if locked and refund is not None:
            (refund,) = await scope.find(Refund, locked=True, id=refund.id)
        return _Matter(payment=payments[0], confirmation=confirmation, refund=refund)

    async def _check(self, proposal: Proposal, matter: _Matter) -> None:
        if proposal.kind in ATTESTED:
            await self.attesting.check(proposal, matter.payment, matter.confirmation, matter.refund)
        elif matter.confirmation is not None and proposal.kind in DISPUTE:
            await self.his_attesting.check_dispute(proposal, matter.payment, matter.confirmation)
        elif matter.refund is not None and proposal.kind in REVERSAL:
            await self.his_attesting.check_reversal(proposal, matter.payment, matter.refund)
        elif proposal.kind in {DecisionKind.RETURN_NOW, DecisionKind.BOOK_ANYWAY}:
            await self.amounts.check(matter.payment, book=proposal.kind is DecisionKind.BOOK_ANYWAY)
        elif matter.refund is not None and proposal.kind in CAPPED:
            is_capped = matter.refund.origin == HOSPITAL and matter.refund.status is RefundStatus.REQUESTED
            if not is_capped:
                raise AlreadyDecided(status=matter.refund.status.value)
        else:
            raise ActionNotPossible(reason="not_for_this_case")

    def _proposal(self, decision: Decision) -> Proposal:
        document = self.outside.keyring.decrypt(decision.document_enc, place=_PLACE)
        return Proposal.read(DecisionKind(decision.kind), decision.proposal, document)

    async def _write(self, actor: Actor, action: str, matter: _Matter, proposal: Proposal, decision_id: UUID) -> None:
        details = {"kind": proposal.kind.value, "decision": str(decision_id), **proposal.stored()}
        await self.audit.write(actor, action, matter.payment.order_no, details)

    # ------------------------------------------------------------ shown

    async def show(self, actor: Actor, decision_id: UUID) -> DecisionView:
        """Raises NotAllowed, NotFound."""
        actor.require(Role.LOOK)
        return await self._shown(actor, decision_id)

    async def _shown(self, actor: Actor, decision_id: UUID) -> DecisionView:
        return (await self._views(actor, [await self._row(actor, decision_id)]))[0]

    async def open(self, actor: Actor, *, after: Place | None = None, limit: int) -> Page[DecisionView]:
        """What waits for a second person, the oldest first. Raises NotAllowed."""
        actor.require(Role.LOOK)
        wanted = scoped(actor.institution_id).of(Decision).filter(status=DecisionStatus.PROPOSED)
        if after is not None:
            wanted = wanted.filter(proposed_at__gte=after.at).exclude(proposed_at=after.at, id__lte=after.id)
        found = await wanted.order_by("proposed_at", "id").limit(limit + 1)
        views = await self._views(actor, found)
        return page_of(views, limit, lambda view: Place(view.proposed_at, view.decision_id))

    async def of_payment(self, actor: Actor, payment_id: UUID) -> Sequence[DecisionView]:
        """Raises NotAllowed."""
        actor.require(Role.LOOK)
        found = await scoped(actor.institution_id).find(Decision, ("proposed_at", "id"), payment_id=payment_id)
        return await self._views(actor, found)

    async def document(self, actor: Actor, decision_id: UUID) -> str:
        """What speaks for the proposal; who reads it is written down. Raises NotAllowed, NotFound."""
        actor.require(Role.ATTEST)
        decision = await self._row(actor, decision_id)
        await atomically(lambda: self.audit.write(actor, "document_read", str(decision_id)))
        return self.outside.keyring.decrypt(decision.document_enc, place=_PLACE)

    async def _row(self, actor: Actor, decision_id: UUID) -> Decision:
        decision = await scoped(actor.institution_id).get_or_none(Decision, id=decision_id)
        if decision is None:
            raise NotFound()
        return decision

    async def _views(self, actor: Actor, decisions: Sequence[Decision]) -> Sequence[DecisionView]:
        if not decisions:
            return []
        scope = scoped(actor.institution_id)
        people = {person for row in decisions for person in (row.proposed_by, row.decided_by) if person}
        staff = await scope.of(Staff).filter(id__in=list(people)).only("id", "code")
        codes = {person.id: person.code for person in staff}
        wanted = list({row.payment_id for row in decisions})
        orders = {row.id: row.order_no for row in await scope.of(Payment).filter(id__in=wanted).only("id", "order_no")}
        return [_view(row, codes, orders) for row in decisions]


def _view(row: Decision, codes: Mapping[UUID, str], orders: Mapping[UUID, str]) -> DecisionView:
    return DecisionView(
        decision_id=row.id,
        kind=row.kind,
        status=row.status.value,
        order_no=orders[row.payment_id],
        number=row.proposal["number"],
        reason=row.proposal["reason"],
        amount_fen=row.proposal["amount_fen"],
        their_number=row.proposal["their_number"],
        at=row.proposal["at"],
        document_digest=row.document_digest,
        proposed_by=codes[row.proposed_by],
        proposed_at=row.proposed_at,
        decided_by=codes[row.decided_by] if row.decided_by else "",
        decided_at=row.decided_at,
    )
