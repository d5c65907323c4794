"""What arrives from counterparties: verified on the raw bytes, stored, answered after the commit, then worked."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.applying import Applier
from core.cases import Cases
from core.due import DueRow, backoff, give_back, take
from core.errors import NotReached, OutcomeUnknown, Refused
from core.evidence import Evidence, refund_evidence, trade_evidence
from core.followup import FollowUp
from core.hospital_refunds import HospitalRefunds
from core.institutions import Institutions
from core.models import Inbound, Payment
from core.models.fields import OUTSIDE_ID_LENGTH_MAX
from core.newbills import NewBills
from core.outside import Outside
from core.payments import Payments
from core.ports import (
    Acknowledgement,
    HospitalEvent,
    HospitalEventKind,
    HospitalSite,
    LinkRequest,
    MerchantAccount,
    Notice,
    Unverified,
)
from core.states import InboundStatus, ProofKind
from core.tenancy import across_institutions, scoped
from core.transactions import rows

log = logging.getLogger("zhenfu.inbound")

UNVERIFIED_HEAD_BYTES = 2048
UNVERIFIED_SLOTS = 256
"""Of each account only so many unproven messages are kept, the latest."""

HOSPITAL = "hospital"
LEASE = timedelta(seconds=60)
CASE_AFTER = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Inbounds:
    outside: Outside
    institutions: Institutions
    applier: Applier
    payments: Payments
    new_bills: NewBills
    hospital_refunds: HospitalRefunds
    cases: Cases
    follow_up: FollowUp

    # ------------------------------------------------------------ arriving

    async def receive_notice(self, token: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
        """A channel's notice at /n/<token>. Raises NotFound for a token that is nobody's.

        The answer is given after the commit; what the notice says is worked afterwards.
        """
        account = await self.institutions.merchant_by_notify_token(token)
        channel = self.outside.channels[account.channel]
        notice = await channel.read_notice(account, headers, body)
        if isinstance(notice, Unverified):
            await self._keep_unverified(account.channel, account.id, body, notice.reason)
            return channel.acknowledge(accepted=False)
        stored = await self._store(
            account.institution_id,
            account.channel,
            account.id,
            notice.kind,
            self._evidence(account, notice),
            body,
        )
        if stored is not None:
            self.outside.background.start("inbound", lambda: self._work_one(stored, account.institution_id))
        return channel.acknowledge(accepted=True)

    async def receive_event(self, token: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
        """An event of a HIS at /his/v1/events/<token>. Raises NotFound for a token that is nobody's."""
        site = await self.institutions.site_by_event_token(token)
        hospital = self.outside.hospitals[site.adapter]
        event = await hospital.read_event(site, headers, body, self.outside.clock.now())
        if isinstance(event, Unverified):
            await self._keep_unverified(HOSPITAL, site.id, body, event.reason)
            return hospital.acknowledge(accepted=False)
        content = asdict(event) | {"happened_at": event.happened_at.isoformat() if event.happened_at else None}
        stored = await self._store(
            site.institution_id, HOSPITAL, site.id, event.kind.value, content, event.event_id.encode()
        )
        if stored is not None:
            self.outside.background.start("inbound", lambda: self._work_one(stored, site.institution_id))
        return hospital.acknowledge(accepted=True)

    async def read_link_request(
        self, token: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[HospitalSite, LinkRequest | Unverified]:
        """A HIS asks at /his/v1/bill-links/<token> for a paper's address. Raises NotFound for nobody's token."""
        site = await self.institutions.site_by_event_token(token)
        asked = await self.outside.hospitals[site.adapter].read_link_request(
            site, headers, body, self.outside.clock.now()
        )
        if isinstance(asked, Unverified):
            await self._keep_unverified(HOSPITAL, site.id, body, asked.reason)
        return site, asked

    def _evidence(self, account: MerchantAccount, notice: Notice) -> dict[str, Any] | None:
        """What the notice says, as it will be applied; a notice that is no proof only makes us ask."""
        capabilities = self.outside.channels[account.channel].capabilities
        piece: Evidence | None = None
        if notice.trade is not None:
            piece = trade_evidence(notice.trade, source=account.channel, proof=ProofKind.VERIFIED_NOTICE)
        elif notice.refund is not None:
            piece = refund_evidence(
                notice.refund, notice.refund.order_no, source=account.channel, proof=ProofKind.VERIFIED_NOTICE
            )
        if piece is None:
            return None
        content = {
            "order_no": piece.order_no,
            "kind": piece.kind,
            "source": piece.source,
            "facts": dict(piece.facts),
            "proves": piece.proves,
            "proof_kind": piece.proof_kind,
            "refund_no": piece.refund_no,
            "raw": piece.raw.decode("utf-8", "backslashreplace"),
        }
        if not capabilities.notice_is_proof:
            content |= {"proves": None, "proof_kind": None}
        return content

    async def _store(
        self, institution_id: UUID, source: str, account_id: UUID, kind: str, content: Any, identity: bytes
    ) -> UUID | None:
        """The id of the stored row, or None when the same message is here already.

        `identity` is what makes two messages the same: the body of a notice (a resend is signed anew but says the
        same), the id of a HIS event.
        """
        now = self.outside.clock.now()
        row_id = self.outside.ids.uuid()
        said = content if source != HOSPITAL and content is not None else None
        digest = hashlib.sha256(repr(sorted(said.items())).encode() if said else identity).hexdigest()
        inserted = await rows(
            "INSERT INTO inbound (id, institution_id, source, account_id, digest, kind, content_enc, status,"
            " received_at, due_at, attempts, holder) VALUES ($1, $2, $3, $4, $5, $6, $7, 'received', $8, $8, 0, '')"
            " ON CONFLICT ON CONSTRAINT inbound_once DO NOTHING RETURNING id",
            row_id,
            institution_id,
            source,
            account_id,
            digest,
            kind,
            self.outside.keyring.encrypt_json(content, place="inbound.content"),
            now,
        )
        return row_id if inserted else None

    async def _keep_unverified(self, source: str, account_id: UUID, body: bytes, reason: str) -> None:
        """The latest unproven messages, for an operator who looks for a wrong key; nothing else follows from them."""
        digest = hashlib.sha256(body).hexdigest()
        with across_institutions("a message whose sender is not proven belongs to nobody"):
            await rows(
                "INSERT INTO unverified_inbound (id, source, account_id, slot, digest, head, reason, received_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT ON CONSTRAINT unverified_inbound_slot"
                " DO UPDATE SET digest = excluded.digest, head = excluded.head, reason = excluded.reason,"
                " received_at = excluded.received_at RETURNING id",
                self.outside.ids.uuid(),
                source,
                account_id,
                int(digest[:8], 16) % UNVERIFIED_SLOTS,
                digest,
                self.outside.keyring.encrypt(
                    body[:UNVERIFIED_HEAD_BYTES].decode("latin-1"), place="unverified_inbound.head"
                ).encode(),
                reason[:128],
                self.outside.clock.now(),
            )

    # ------------------------------------------------------------ working

    async def _work_one(self, row_id: UUID, institution_id: UUID) -> None:
        due = await take(
            "inbound",
            row_id,
            institution_id,
            now=self.outside.clock.now(),
            holder=self.outside.lease_name(),
            lease=LEASE,
        )
        if due is None:
            return
        payment_id = await self.work(due)
        if payment_id is not None:
            await self.follow_up.of(institution_id, payment_id)

    async def work(self, due: DueRow) -> UUID | None:
        """Do what follows from one stored message that we hold; returns the payment that it was about."""
        inbound = await scoped(due.institution_id).get(Inbound, id=due.id)
        if inbound.status is not InboundStatus.RECEIVED:
            return None
        payment_id = None
        content = self.outside.keyring.decrypt_json(inbound.content_enc, place="inbound.content")
        try:
            if inbound.source == HOSPITAL:
                site = await self.institutions.site(due.institution_id, inbound.account_id)
                payment_id = await self._event(site, content)
            elif content is not None:
                payment_id = await self._notice(inbound, content)
        except (NotReached, OutcomeUnknown):
            await self._later(due, inbound, content)
            return None
        except Refused as refused:
            if not refused.final:
                await self._later(due, inbound, content)
                return None
            log.info("event_refused_by_hospital", extra={"fields": {"kind": inbound.kind, "inbound": str(inbound.id)}})
        await scoped(due.institution_id).change(
            Inbound, {"id": inbound.id}, status=InboundStatus.WORKED, due_at=None, lease_until=None, holder=""
        )
        await self.cases.settle(due.institution_id, ("inbound_not_worked",), str(inbound.id))
        return payment_id

    async def _later(self, due: DueRow, inbound: Inbound, content: Mapping[str, Any] | None) -> None:
        now = self.outside.clock.now()
        if now >= inbound.received_at + CASE_AFTER:
            await self.cases.open_while(
                due.institution_id,
                "inbound_not_worked",
                str(inbound.id),
                table="inbound",
                row_id=inbound.id,
                statuses=[InboundStatus.RECEIVED],
                details={"kind": inbound.kind, **_numbers(content)},
            )
        later = now + backoff(due.attempts)
        await give_back("inbound", inbound.id, due.institution_id, holder=due.holder, due_at=later)

    async def _notice(self, inbound: Inbound, content: Mapping[str, Any]) -> UUID | None:
        payment = await scoped(inbound.institution_id).get_or_none(Payment, order_no=content["order_no"])
        if payment is None or payment.merchant_account_id != inbound.account_id:
            await self.cases.open(
                inbound.institution_id,
                "notice_for_unknown_order",
                content["order_no"],
                details=dict(content["facts"]),
            )
            return None
        if content["proves"] is None and content["kind"] == "trade":
            await self.payments.ask_soon(payment)
            return payment.id
        proof_kind = content["proof_kind"]
        await self.applier.apply(
            Evidence(
                order_no=content["order_no"],
                kind=content["kind"],
                source=content["source"],
                facts=content["facts"],
                proves=content["proves"],
                proof_kind=ProofKind(proof_kind) if proof_kind else None,
                refund_no=content["refund_no"],
                raw=content["raw"].encode(),
            )
        )
        return payment.id

    async def _event(self, site: HospitalSite, content: Mapping[str, Any]) -> UUID | None:
        """The HIS said that something happened: ask it, then do what follows; returns the payment it was about."""
        event = HospitalEvent(
            event_id=content["event_id"],
            kind=HospitalEventKind(content["kind"]),
            his_bill_id=content["his_bill_id"],
            his_patient_id=content["his_patient_id"],
            happened_at=datetime.fromisoformat(content["happened_at"]) if content["happened_at"] else None,
            red_receipt_no=content.get("red_receipt_no", ""),
        )
        if event.kind is HospitalEventKind.REFUNDED:
            return await self.hospital_refunds.told(site, event)
        if event.kind is HospitalEventKind.NEW_BILL:
            await self.new_bills.announce(site, event.his_bill_id)
        elif event.kind in {HospitalEventKind.BILL_CANCELLED, HospitalEventKind.PAID_AT_WINDOW}:
            bill = await self.outside.hospitals[site.adapter].get_bill(site, event.his_bill_id)
            if bill is not None and bill.state == "unpaid":
                return None
            await self.payments.bill_ended_elsewhere(site.institution_id, site.branch, event.his_bill_id)
        return None


def _numbers(content: Mapping[str, Any] | None) -> dict[str, str]:
    """What a message is about, as far as the counterparty's people can look it up."""
    names = ("order_no", "refund_no", "his_bill_id", "red_receipt_no")
    return {name: str(content[name])[:OUTSIDE_ID_LENGTH_MAX] for name in names if content and content.get(name)}
