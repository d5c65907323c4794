"""Work that raises: a mistake of ours, or something nobody has thought of. Its row comes back; a person hears of it.

What counts is how often a row has been tried: tries that ended in silence count, too, but a case is opened by a failure
only, and the next try that ends well closes it, or the sweep when the row has ended without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from core.cases import Cases
from core.due import DueRow
from core.models import StaffCase
from core.states import CaseStatus
from core.tenancy import across_institutions
from core.transactions import atomically, rows

CASE_AFTER_TRIES = 5
CASE = "work_fails"
SWEPT_AT_ONCE = 1000

PAYMENT_OF: Mapping[str, str] = {
    "payment": "id",
    "confirmation": "payment_id",
    "his_lock": "payment_id",
    "payment_line": "payment_id",
    "refund": "payment_id",
    "message": "payment_id",
    "inbound": "NULL",
    "hospital_site": "NULL",
}
"""Every kind of due row, and where it says of which payment it is."""


@dataclass(frozen=True, slots=True)
class Failing:
    cases: Cases

    async def failed(self, table: str, due: DueRow, error: Exception) -> None:
        """The work on a row that we hold has raised; from the fifth try on that is a case, while the row is due.

        Only the kind of the error is shown: its text may hold what is nobody's business.
        """
        if due.attempts < CASE_AFTER_TRIES:
            return

        async def write() -> None:
            found = await rows(
                f"SELECT {PAYMENT_OF[table]} AS payment_id FROM {table} WHERE institution_id = $1 AND id = $2"
                " AND due_at IS NOT NULL FOR NO KEY UPDATE",
                due.institution_id,
                due.id,
            )
            for row in found:
                is_inbound = table == "inbound"
                await self.cases.open(
                    due.institution_id,
                    "inbound_not_worked" if is_inbound else CASE,
                    str(due.id) if is_inbound else subject_of(table, due),
                    payment_id=row["payment_id"],
                    details={"table": table, "error": type(error).__name__, "tries": due.attempts},
                )

        await atomically(write)

    async def sweep(self) -> int:
        """Close the cases of rows that have ended by another way than their own work; how many there were."""
        with across_institutions("cases of work that has ended"):
            found = await StaffCase.filter(kind=CASE, status=CaseStatus.OPEN).order_by("id").limit(SWEPT_AT_ONCE)
        return sum([await atomically(partial(self._settle_ended, case)) for case in found])

    async def _settle_ended(self, case: StaffCase) -> bool:
        """Under the lock that a failure takes, too: a row that is due again has its case."""
        table, row_id = split_subject(case.subject)
        found = await rows(
            f"SELECT due_at FROM {table} WHERE institution_id = $1 AND id = $2 FOR NO KEY UPDATE",
            case.institution_id,
            UUID(row_id),
        )
        has_ended = all(row["due_at"] is None for row in found)
        if has_ended:
            await self.cases.settle(case.institution_id, (CASE,), case.subject)
        return has_ended

    async def worked(self, table: str, due: DueRow) -> None:
        """It has not raised this time."""
        if due.attempts > CASE_AFTER_TRIES and table != "inbound":
            await self.cases.settle(due.institution_id, (CASE,), subject_of(table, due))


def subject_of(table: str, due: DueRow) -> str:
    """What the case is about: a row, as `split_subject` reads it."""
    return f"{table}:{due.id}"


def split_subject(subject: str) -> tuple[str, str]:
    """The table and the id of a row."""
    table, _, row_id = subject.partition(":")
    assert table in PAYMENT_OF
    return table, row_id
