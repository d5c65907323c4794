"""Which bills may be paid in one payment: the HIS's groups and the institution's switch and limit decide. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import BillNotPayable
from core.institutions import InstitutionSettings
from core.ports import Bill

MERGE_MAX = 20
"""Bills in one payment, whatever an institution has set."""


def bills_max(settings: InstitutionSettings) -> int:
    """How many bills one payment may have at this institution."""
    return min(max(settings.merge_max, 1), MERGE_MAX) if settings.merge else 1


def check_number(count: int, settings: InstitutionSettings) -> None:
    """Raises BillNotPayable for more bills than this institution takes in one payment."""
    most = bills_max(settings)
    if count > most:
        raise BillNotPayable(reason="not_together" if most == 1 else "too_many", max=most)


def check_group(bills: Sequence[Bill]) -> None:
    """Raises BillNotPayable unless the HIS has put all of these bills into one group."""
    if len(bills) > 1 and (len({group_of(bill) for bill in bills}) != 1 or not bills[0].merge_group):
        raise BillNotPayable(reason="not_together")


def group_of(bill: Bill) -> tuple[str, str]:
    """Groups are the HIS's own: those of two branches never are the same."""
    return bill.branch, bill.merge_group


def groups(payable: Sequence[Bill], settings: InstitutionSettings) -> list[list[Bill]]:
    """Those of these bills that may go with others, by group, in their order; a group may exceed `bills_max`."""
    if bills_max(settings) == 1:
        return []
    found: dict[tuple[str, str], list[Bill]] = {}
    for bill in payable:
        if bill.merge_group:
            found.setdefault(group_of(bill), []).append(bill)
    return [group for group in found.values() if len(group) > 1]
