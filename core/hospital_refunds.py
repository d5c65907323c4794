"""A HIS tells of a red receipt: it is asked what it is about, and what it says is applied."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.applying import Applier
from core.cases import Cases
from core.errors import OutcomeUnknown
from core.his_evidence import red_receipt_evidence, reversal_evidence
from core.models import Confirmation, Payment, PaymentLine, Refund
from core.outside import Outside
from core.ports import HospitalEvent, HospitalSite, RedReceipt, Reversal
from core.red_receipts import UNCLEAR
from core.states import HOLDS_BILL, LineStatus, RefundStatus
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
            return await self._of_no_booking(site, event, receipt)
        return await self._of_booking(site, receipt)

    async def _of_booking(self, site: HospitalSite, receipt: RedReceipt) -> UUID | None:
        payment = await self._payment(site, receipt)
        if payment is None:
            return None
        await self.applier.apply(red_receipt_evidence(payment.order_no, receipt))
        return payment.id

    async def _of_no_booking(self, site: HospitalSite, event: HospitalEvent, receipt: RedReceipt) -> UUID | None:
        """The window had taken the money, unless the bill stands as booked by us: then a person looks."""
        scope = scoped(site.institution_id)
        bills = sorted({event.his_bill_id, *receipt.amounts_fen})
        lines = await scope.find(PaymentLine, branch=site.branch, his_bill_id=bills, status=HOLDS_BILL)
        for line in lines:
            if await scope.find(Refund, payment_id=line.payment_id, red_receipt_no=receipt.red_receipt_no):
                return line.payment_id
            if line.status is not LineStatus.CONFIRMED:
                raise OutcomeUnknown("a red receipt of a bill that is being booked or taken back")
        if not lines:
            return None
        details = {"bills": " ".join(bills), "amount_fen": str(sum(receipt.amounts_fen.values()))}
        await self._unclear(site, receipt.red_receipt_no, details, payment_id=lines[0].payment_id)
        return lines[0].payment_id

    async def _ours(self, site: HospitalSite, receipt: RedReceipt) -> UUID | None:
        """We had asked for it: the refund looks at once what became of its question.

        A HIS that had declined has taken it back all the same: it contradicts itself, and the money is owed as it is
        by any red receipt. A refund that it had not been told of, or that has another red receipt, is for a person.
        """
        scope = scoped(site.institution_id)
        details = {"refund_no": receipt.refund_no}
        refund = await scope.get_or_none(Refund, refund_no=receipt.refund_no)
        if refund is None:
            await self._unclear(site, receipt.red_receipt_no, details)
            return None
        if refund.status in {RefundStatus.APPROVED, RefundStatus.REVERSING_AT_HIS}:
            now = self.outside.clock.now()
            await scope.change(Refund, {"id": refund.id, "status": refund.status, "due_at__gt": now}, due_at=now)
        elif refund.status is RefundStatus.DECLINED:
            payment = await scope.get(Payment, id=refund.payment_id)
            said = Reversal(
                reversed=True, red_receipt_no=receipt.red_receipt_no, amounts_fen=receipt.amounts_fen, raw=receipt.raw
            )
            await self.applier.apply(reversal_evidence(payment.order_no, refund.refund_no, said))
            return await self._of_booking(site, receipt)
        elif refund.status is RefundStatus.REQUESTED or refund.red_receipt_no not in {"", receipt.red_receipt_no}:
            await self._unclear(site, receipt.red_receipt_no, details, payment_id=refund.payment_id)
        return refund.payment_id

    async def _payment(self, site: HospitalSite, receipt: RedReceipt) -> Payment | None:
        scope = scoped(site.institution_id)
        confirmation = await scope.get_or_none(Confirmation, confirm_no=receipt.confirm_no, site_id=site.id)
        if confirmation is None:
            await self._unclear(site, receipt.red_receipt_no, {"confirm_no": receipt.confirm_no})
            return None
        return await scope.get(Payment, id=confirmation.payment_id)

    async def _unclear(
        self, site: HospitalSite, subject: str, details: dict[str, str], *, payment_id: UUID | None = None
    ) -> None:
        await self.cases.open(site.institution_id, UNCLEAR, subject[:128], payment_id=payment_id, details=details)
