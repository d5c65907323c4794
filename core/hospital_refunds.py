"""A HIS tells of a red receipt: it is asked what it is about, and what it says is applied."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.applying import Applier
from core.cases import Cases
from core.errors import OutcomeUnknown
from core.his_evidence import red_receipt_evidence
from core.models import Confirmation, Payment, Refund
from core.outside import Outside
from core.ports import HospitalEvent, HospitalSite, RedReceipt
from core.red_receipts import UNCLEAR
from core.states import RefundStatus
from core.tenancy import scoped


@dataclass(frozen=True, slots=True)
class HospitalRefunds:
    outside: Outside
    applier: Applier
    cases: Cases

    async def told(self, site: HospitalSite, event: HospitalEvent) -> UUID | None:
        """Do what follows from a red receipt; returns the payment that it is about.

        Raises NotReached, Refused or OutcomeUnknown while the HIS does not say, or we ourselves do not know yet.
        """
        if not event.red_receipt_no or not site.capabilities.refund_query:
            await self._unclear(site, event.red_receipt_no or event.his_bill_id, {"bill": event.his_bill_id})
            return None
        receipt = await self.outside.hospitals[site.adapter].query_red_receipt(site, event.red_receipt_no)
        if not receipt.known:
            raise OutcomeUnknown("the HIS does not know the red receipt that it told us of")
        if receipt.refund_no:
            return await self._ours(site, receipt)
        if not receipt.confirm_no:
            return None  # the window had taken the money
        payment = await self._payment(site, receipt)
        if payment is None:
            return None
        await self.applier.apply(red_receipt_evidence(payment.order_no, receipt))
        return payment.id

    async def _ours(self, site: HospitalSite, receipt: RedReceipt) -> UUID | None:
        """We had asked for it: the refund looks at once what became of its question."""
        scope = scoped(site.institution_id)
        refund = await scope.get_or_none(Refund, refund_no=receipt.refund_no)
        if refund is None:
            await self._unclear(site, receipt.red_receipt_no, {"refund_no": receipt.refund_no})
            return None
        now = self.outside.clock.now()
        await scope.change(Refund, {"id": refund.id, "status": RefundStatus.REVERSING_AT_HIS}, due_at=now)
        return refund.payment_id

    async def _payment(self, site: HospitalSite, receipt: RedReceipt) -> Payment | None:
        scope = scoped(site.institution_id)
        confirmation = await scope.get_or_none(Confirmation, confirm_no=receipt.confirm_no, site_id=site.id)
        if confirmation is None:
            await self._unclear(site, receipt.red_receipt_no, {"confirm_no": receipt.confirm_no})
            return None
        return await scope.get(Payment, id=confirmation.payment_id)

    async def _unclear(self, site: HospitalSite, subject: str, details: dict[str, str]) -> None:
        await self.cases.open(site.institution_id, UNCLEAR, subject[:128], details=details)
