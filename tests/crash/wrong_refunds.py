"""Mistakes made on purpose with money that the HIS has booked. As in mutations.py, in this process alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

from core.errors import OutcomeUnknown, Refused
from core.models import Refund
from core.ports import HospitalSite, Reversal, ReverseOrder
from core.reversing import Reversing
from hospital.guard import GuardedHospital


def reversal_sent_without_asking() -> None:
    """After an unknown answer the HIS is simply told again to take the booking back."""

    async def not_asked(self: GuardedHospital, site: HospitalSite, refund_no: str) -> Reversal:
        return Reversal(reversed=False)

    def at_once(self: Reversing, refund: Refund, site: HospitalSite) -> datetime:
        return self.outside.clock.now() - timedelta(seconds=1)

    cast(Any, GuardedHospital).query_refund = not_asked
    cast(Any, Reversing)._sendable_at = at_once


def silence_at_the_his_means_refused() -> None:
    """A reversal whose answer is lost is taken for refused."""
    good = GuardedHospital.confirm_refund

    async def confirm_refund(self: GuardedHospital, site: HospitalSite, order: ReverseOrder) -> Reversal:
        try:
            return await good(self, site, order)
        except OutcomeUnknown as silence:
            raise Refused("SILENT", final=True) from silence

    cast(Any, GuardedHospital).confirm_refund = confirm_refund


WRONG_REFUNDS: tuple[Callable[[], None], ...] = (
    reversal_sent_without_asking,
    silence_at_the_his_means_refused,
)
